"""What a run logged, read back as the records it was made of."""

from __future__ import annotations

import dataclasses
import functools
import heapq
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from pairprobe.errors import StoreError
from pairprobe.outcomes import DepthTest, GroupTest, Verdict
from pairprobe.records import Balance, Usage
from pairprobe.result import Evidence

T = TypeVar("T")
CHUNK = 1 << 20  # characters of a table read at a time
EXTREMES = 8  # pairs kept at each end of a group
ALL = 60  # pairs up to which all are shown
WORDS = 60  # words whose tokens are shown


@dataclass(frozen=True)
class Source:
    """Where the pairs came from; sizes by group; reference: words beside them."""

    name: str
    source: str
    sizes: dict[str, int]
    sha256: str
    citation: str = ""
    about: dict[str, str] = field(default_factory=dict)
    balance: tuple[Balance, ...] = ()
    reference: int = 0


@dataclass(frozen=True)
class Measure:
    """A similarity in words, and the vocabulary it used."""

    about: str = ""
    reference: str = ""


@dataclass(frozen=True)
class ShownPair:
    """A pair beside its similarity at the primary outcome. row: of tables/pairs.json, '' or None where unknown."""

    id: str
    group: str
    similarity: float
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run. values: the primary similarity of every pair, by group; shown: of all pairs, or of the extreme ones.

    words: rows of tables/tokens.json, those with unknown pieces first, and how many there are in all. original_plan,
    original_whole: primary_sha256 and plan_sha256 of the run that this one reproduces, '' where they are not known.
    """

    id: str
    name: str
    status: str
    began: datetime | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    verdict: Verdict
    tests: tuple[GroupTest, ...]
    evidence: Evidence
    similarities: Mapping[str, Measure]
    pairs: Source
    usage: Usage | None
    vectors: Mapping[str, str]
    values: Mapping[str, tuple[float, ...]]
    shown: tuple[ShownPair, ...]
    words: tuple[Mapping[str, Any], ...]
    n_words: int
    original_plan: str = ""
    original_whole: str = ""

    @property
    def primary(self) -> GroupTest:
        """The test that the verdict is about."""
        return next(
            t for t in self.tests if (t.similarity, t.control) == (self.verdict.similarity, self.verdict.control)
        )

    @property
    def at(self) -> DepthTest:
        return self.primary.at(self.verdict.depth)

    @property
    def exploratory(self) -> tuple[GroupTest, ...]:
        return tuple(t for t in self.tests if t is not self.primary)

    @property
    def question(self) -> str:
        return self.params.get("experiment.question", "") or "What do these vectors know about these pairs of words?"

    @property
    def n_pairs(self) -> int:
        return sum(self.pairs.sizes.values())


def read(folder: Path, run: Any, original: Any = None) -> Run:
    """A run from its files and its entry in the store (MLflow's Run; `original`: of the run it reproduces, or None).

    Raises:
        StoreError: outcome.json is not there, or is not of a layout this version reads.
    """
    file = folder / "outcome.json"
    if not file.exists():
        raise StoreError(
            f"run {run.info.run_id} has no outcome.json: it was recorded by a version that did not write one yet.",
            f"Record it anew: python run.py reproduce {run.info.run_id}",
        )
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        verdict = restored(Verdict, plain["verdict"])
        known: dict[str, Any] = {
            "verdict": verdict,
            "tests": restored(tuple[GroupTest, ...], plain["tests"]),
            "evidence": restored(Evidence, plain.get("evidence") or {}),
            "similarities": restored(dict[str, Measure], plain.get("similarities") or {}),
            "pairs": restored(Source, plain["pairs"]),
            "usage": restored(Usage, plain["usage"]) if plain.get("usage") else None,
            "vectors": plain.get("vectors") or {},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"outcome.json of run {run.info.run_id} cannot be read ({error}): another version recorded it, or it is "
            "damaged.",
            f"Record it anew: python run.py reproduce {run.info.run_id}",
        ) from None
    values, shown = _primary_pairs(folder / "tables", verdict, sum(known["pairs"].sizes.values()))
    words, n_words = _words(folder / "tables" / "tokens.json")
    began = run.info.start_time
    return Run(
        id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        began=datetime.fromtimestamp(began / 1000, UTC) if began else None,
        params=run.data.params,
        tags=run.data.tags,
        metrics=run.data.metrics,
        values=values,
        shown=shown,
        words=words,
        n_words=n_words,
        original_plan=original.data.tags.get("primary_sha256", "") if original is not None else "",
        original_whole=original.data.tags.get("plan_sha256", "") if original is not None else "",
        **known,
    )


def restored(kind: type[T], plain: Any) -> T:
    """Plain values as the record they came from: dataclasses, tuples, dicts and what may be None, however nested.

    Fields that the record no longer has are passed over; those it has gained since take their defaults.

    Raises:
        KeyError: a field without a default is missing.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    found: Any = plain
    if origin in (types.UnionType, typing.Union):
        if plain is not None:
            found = restored(next(k for k in inner if k is not type(None)), plain)
    elif dataclasses.is_dataclass(kind):
        hints, needed = _fields(kind)
        if lacking := [name for name in needed if name not in plain]:
            raise KeyError(f"{kind.__name__} without {', '.join(lacking)}")
        found = kind(**{name: restored(hint, plain[name]) for name, hint in hints.items() if name in plain})
    elif origin is tuple and inner[-1:] == (...,):
        found = tuple(restored(inner[0], item) for item in plain)
    elif origin is tuple:
        found = tuple(restored(k, item) for k, item in zip(inner, plain, strict=True))
    elif origin is dict:
        found = {key: restored(inner[1], value) for key, value in plain.items()}
    return typing.cast(T, found)


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A record's fields with their types, and those without a default."""
    hints = typing.get_type_hints(kind)
    fields = [f for f in dataclasses.fields(kind) if f.init]
    none = dataclasses.MISSING
    needed = tuple(f.name for f in fields if f.default is none and f.default_factory is none)
    return {f.name: hints[f.name] for f in fields}, needed


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table, one after the other: a table of millions is never held whole."""
    try:
        with file.open(encoding="utf-8") as stream:
            yield from _rows(stream)
    except (ValueError, KeyError) as error:  # JSON's errors and those of encoding are ValueErrors
        raise StoreError(
            f"{file.name} cannot be read ({error}): it is damaged, or was cut off while it was written.",
            "Record the run anew: python run.py reproduce RUN_ID",
        ) from None


def _rows(stream: IO[str]) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    waiting = stream.read(CHUNK)
    columns: list[str] | None = None
    at = 0
    while True:
        try:
            if columns is None:
                named, end = decoder.raw_decode(waiting, waiting.index("[", waiting.index('"columns"')))
                at = waiting.index("[", waiting.index('"data"', end)) + 1
                columns = named
            while waiting[at] in " \n\r\t,":
                at += 1
            if waiting[at] == "]":
                return
            row, at = decoder.raw_decode(waiting, at)
        except (IndexError, ValueError):  # it goes on in the next chunk
            more = stream.read(CHUNK)
            if not more:
                raise ValueError("it ends within a row") from None
            waiting, at = waiting[at if columns else 0 :] + more, at if columns is None else 0
            continue
        yield dict(zip(columns or (), row, strict=True))


def _primary_pairs(
    tables: Path, verdict: Verdict, n_pairs: int
) -> tuple[dict[str, tuple[float, ...]], tuple[ShownPair, ...]]:
    file = tables / "similarities.json"
    if not file.exists():
        return {}, ()
    values: dict[str, list[float]] = {}
    ends: dict[str, tuple[list[Any], list[Any]]] = {}
    keep = n_pairs if n_pairs <= ALL else EXTREMES
    for i, row in enumerate(rows(file)):
        if row["similarity_kind"] != verdict.similarity or int(row["depth"]) != verdict.depth:
            continue
        value, group = float(row["similarity"]), str(row["group"])
        values.setdefault(group, []).append(value)
        for heap, key in zip(ends.setdefault(group, ([], [])), (value, -value), strict=True):
            (heapq.heappush if len(heap) < keep else heapq.heappushpop)(heap, (key, -i, row))
    kept = {row["pair_id"]: row for heaps in ends.values() for heap in heaps for _, _, row in heap}
    more: dict[str, Mapping[str, Any]] = {}
    if (tables / "pairs.json").exists():
        more = {row["pair_id"]: row for row in rows(tables / "pairs.json") if row["pair_id"] in kept}
    shown = [
        ShownPair(id, str(row["group"]), float(row["similarity"]), {**row, **more.get(id, {})})
        for id, row in kept.items()
    ]
    groups = list(values)
    shown.sort(key=lambda p: (groups.index(p.group), -p.similarity))
    return {group: tuple(found) for group, found in values.items()}, tuple(shown)


def _words(file: Path) -> tuple[tuple[Mapping[str, Any], ...], int]:
    """Rows of tokens.json to show, those with unknown pieces and the most pieces first; and how many there are."""
    if not file.exists():
        return (), 0
    first: list[tuple[int, int, int, Mapping[str, Any]]] = []
    n = 0
    for n, row in enumerate(rows(file), start=1):
        rank = (int(row["unknown_pieces"]), len(str(row["pieces"]).split()), -n, row)
        (heapq.heappush if len(first) < WORDS else heapq.heappushpop)(first, rank)
    return tuple(row for *_, row in sorted(first, reverse=True)), n
