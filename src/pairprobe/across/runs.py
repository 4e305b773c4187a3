"""Recorded runs, read back from the store: as much of each as it left, and what is missing told."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairprobe.errors import StoreError, nearest
from pairprobe.outcomes import Interval
from pairprobe.records import COGNATE, Pair, PairSet, Word
from pairprobe.tracking import Store

#: A pair that two runs share: the same words in the same group, and which of several such pairs it is.
PairKey = tuple[str, str, str, int]
#: A word that two runs share, whatever text it stood in: its form and language.
WordKey = tuple[str, str]
SWEEPS_SHOWN = 8


@dataclass(frozen=True, eq=False)
class States(Sequence[npt.NDArray[np.float32]]):
    """Vectors of chosen words, float32 [words, width] at each depth, read from the file when they are asked for."""

    file: Path
    rows: npt.NDArray[np.int64]
    depths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.depths)

    def __getitem__(self, i: Any) -> Any:
        from safetensors import safe_open

        if not 0 <= i < len(self):
            raise IndexError(i)
        with safe_open(self.file, framework="np") as file:
            values = file.get_slice("vectors")[i : i + 1]
        return np.ascontiguousarray(values[0][self.rows])


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Where a run's vectors lie. rows: first text of every word → its row; depths as in records.Vectors."""

    file: Path
    depths: tuple[int, ...]
    width: int
    rows: dict[WordKey, int]

    def of(self, words: Sequence[WordKey]) -> States:
        return States(self.file, np.array([self.rows[w] for w in words], dtype=np.int64), self.depths)


@dataclass(frozen=True, eq=False)
class Recorded:
    """One finished run. values: similarity of the primary outcome by pair; pair_set: its pairs in the same order.

    depth: of the primary outcome. missing: what this run does not hold, one sentence each.
    """

    run_id: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    similarity: str
    depth: int
    control: str
    pair_set: PairSet
    values: dict[PairKey, float]
    vectors: WordVectors | None
    missing: tuple[str, ...]

    @cached_property
    def by_key(self) -> dict[PairKey, Pair]:
        return dict(zip(self.values, self.pair_set.pairs, strict=True))

    @property
    def confidence(self) -> float:
        return float(self.params.get("statistics.confidence", 0.95))

    @property
    def seed(self) -> int:
        return int(self.params.get("statistics.seed", 0))

    def number(self, metric: str) -> float | None:
        """A scalar of the primary outcome, None where the run has none."""
        value = self.metrics.get(metric)
        return value if value is not None and math.isfinite(value) else None

    def interval(self, metric: str) -> Interval | None:
        low, high = self.number(f"{metric}_ci_low"), self.number(f"{metric}_ci_high")
        return None if low is None or high is None else Interval(low, high)

    @property
    def weights(self) -> str:
        """What the weights were stored or rounded as; '' where no model was used."""
        rounded = self.params.get("execution.weights", "as_stored")
        stored = self.tags.get("checkpoint_stored_as", "")
        return rounded if stored and rounded not in ("as_stored", "None") else stored

    @property
    def swept(self) -> str:
        return self.tags.get("swept", "")


def read(store: Store, run: Any) -> Recorded:
    """All of one run that a comparison uses.

    Raises:
        StoreError: the run has no similarities or no primary outcome, without which there is nothing to compare.
    """
    run_id = str(run.info.run_id)
    params, tags, metrics = dict(run.data.params), dict(run.data.tags), dict(run.data.metrics)
    rows = store.table(run_id, "tables/similarities.json")
    if not rows or "primary_depth" not in metrics:
        raise StoreError(f"run {run_id} has no primary outcome to compare.", "python run.py ui shows the runs.")
    missing: list[str] = []
    outcome = _json(store, run_id, "outcome.json", "its verdict's control group is taken from its settings", missing)
    kinds = list(dict.fromkeys(str(r["similarity_kind"]) for r in rows))
    chosen = (outcome or {}).get("verdict", {})
    kind = str(chosen.get("similarity") or params.get("experiment.primary.similarity"))
    kind = kind if kind in kinds else kinds[0]
    depth = int(metrics["primary_depth"])
    primary = [r for r in rows if r["similarity_kind"] == kind and int(r["depth"]) == depth]
    pairs, values = _pairs(store, run_id, primary, missing)
    groups = [p.group for p in pairs if p.group != COGNATE]
    named = chosen.get("control") or params.get("experiment.primary.control")
    control = str(named) if named in groups else (groups or ["control"])[0]
    vectors = _vectors(store, run_id, missing)
    pair_set = PairSet(tags.get("pairs", "pairs"), pairs, tags.get("pairs", "pairs"))
    return Recorded(
        run_id, str(run.info.run_name), params, tags, metrics, kind, depth, control, pair_set, values, vectors,
        tuple(missing),
    )  # fmt: skip


def _json(store: Store, run_id: str, path: str, instead: str, missing: list[str]) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(store.artifact(run_id, path).read_text(encoding="utf-8"))
    except (StoreError, ValueError, OSError):
        missing.append(f"no {path}: {instead}")
        return None
    return found


def _pairs(
    store: Store, run_id: str, rows: list[dict[str, Any]], missing: list[str]
) -> tuple[tuple[Pair, ...], dict[PairKey, float]]:
    """The pairs and their similarities; languages, concepts and cognate sets where the run lists them."""
    try:
        more = {r["pair_id"]: r for r in store.table(run_id, "tables/pairs.json")}
    except (StoreError, ValueError, OSError, KeyError):
        more = {}
        missing.append("no tables/pairs.json: pairs are told apart by their words alone, and linked by words alone")
    found: list[Pair] = []
    values: dict[PairKey, float] = {}
    times: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        at = more.get(row["pair_id"], {})
        a, b = str(row["word_a"]), str(row["word_b"])
        words = (
            Word(a, str(at.get("gloss_a") or ""), str(at.get("lang_a") or "")),
            Word(b, str(at.get("gloss_b") or ""), str(at.get("lang_b") or "")),
        )
        found.append(
            Pair(
                str(row["pair_id"]), str(row["group"]), *words, concept=str(at.get("concept") or ""),
                cogset=str(at.get("cogset") or ""),
            )
        )  # fmt: skip
        key = (str(row["group"]), a, b)
        values[(*key, times[key])] = float(row["similarity"])
        times[key] += 1
    return tuple(found), values


def _vectors(store: Store, run_id: str, missing: list[str]) -> WordVectors | None:
    from safetensors import SafetensorError, safe_open

    try:
        path = store.artifact(run_id, "vectors/vectors.safetensors")
        with safe_open(path, framework="np") as file:
            texts = json.loads(file.metadata()["texts"])
            depths = tuple(int(d) for d in file.get_tensor("depths"))
            shape = file.get_slice("vectors").get_shape()
        rows: dict[WordKey, int] = {}
        for i, text in enumerate(texts):
            rows.setdefault((str(text["word"]), str(text.get("lang") or "")), i)
        if len(shape) != 3 or shape[0] != len(depths) or shape[1] != len(texts):
            raise ValueError(f"vectors of shape {shape} for {len(depths)} depths and {len(texts)} texts")
    except StoreError:
        missing.append("no vectors, so no part in CKA and RSA")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        missing.append(f"vectors that cannot be read, so no part in CKA and RSA ({str(error).splitlines()[0]})")
    else:
        return WordVectors(path, depths, int(shape[2]), rows)
    return None


# ── which runs ───────────────────────────────────────────────────────────────────────────────────────────


def of_sweep(store: Store, beginning: str) -> tuple[str, list[Any]]:
    """(id, runs in the order in which they began) of the only sweep whose id begins so, unfinished runs included.

    Raises:
        StoreError: none, or several; the sweeps there are stand in it.
    """
    sweeps: dict[str, list[Any]] = {}
    for run in store.runs():
        if "sweep_id" in run.data.tags:
            sweeps.setdefault(run.data.tags["sweep_id"], []).append(run)
    found = [s for s in sweeps if beginning and s.startswith(beginning)]
    if beginning in sweeps:
        found = [beginning]
    if len(found) == 1:
        return found[0], sorted(sweeps[found[0]], key=lambda r: (r.info.start_time, r.info.run_id))
    there = sorted(sweeps, reverse=True)
    listed = [f"{s} ({len(sweeps[s])} runs)" for s in there[:SWEEPS_SHOWN]]
    more = f" and {len(there) - SWEEPS_SHOWN} older ones" if len(there) > SWEEPS_SHOWN else ""
    many = f"{len(found)} sweeps begin" if found else "no sweep begins"
    raise StoreError(
        f"{many} with '{beginning}'.{'' if found else nearest(beginning, there)}",
        f"Sweeps there: {', '.join(listed)}{more}." if there else "There are no sweeps yet: python run.py -m …",
    )


def labels(runs: Sequence[Recorded]) -> list[str]:
    """Names that tell the runs apart: where equal, with what was swept, and else the beginning of their ids."""

    def apart(names: list[str], more: list[str]) -> list[str]:
        times = Counter(names)
        return [
            f"{n} · {m}" if times[n] > 1 and m and m not in n else n for n, m in zip(names, more, strict=True)
        ]  # fmt: skip

    names = apart([r.name for r in runs], [r.swept for r in runs])
    return apart(names, [r.run_id[:6] for r in runs])
