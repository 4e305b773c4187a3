"""Recorded runs → what differs between them, and how alike they see the same words and pairs: frozen records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from pairprobe.across.runs import PairKey, Recorded, WordKey
from pairprobe.errors import StatisticsError
from pairprobe.evidence import DeltaOfDeltas
from pairprobe.records import COGNATE, Pair
from pairprobe.statistics.across import LEAST, Agreement, Depths, agreement, debiased_cka, rsa, spearman
from pairprobe.statistics.paired import delta_of_deltas

HIDDEN = ("tracking.uri", "experiment.question")  # say nothing that other keys do not
TAGS = (
    "pairs_sha256", "checkpoint", "checkpoint_stored_as", "checkpoint_bits_per_weight", "tokenizer", "computed_in",
    "git_commit", "device",
)  # fmt: skip
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Differing:
    """One setting or tag that is not the same in all runs, with each run's value."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Together:
    """Do two runs' similarities rise and fall together? rho: Spearman's, over shared pairs; None: too few, constant."""

    group: str
    pairs: int
    rho: float | None


@dataclass(frozen=True)
class Changed:
    """ΔΔ of run `second` less run `first` (places, from 0); None where it would mean nothing, and why_not says why."""

    first: int
    second: int
    found: DeltaOfDeltas | None
    why_not: str = ""


@dataclass(frozen=True, eq=False)
class PairSeen:
    """One shared pair and its similarity in every run at the run's primary outcome."""

    pair: Pair
    values: tuple[float, ...]

    @property
    def spread(self) -> float:
        return max(self.values) - min(self.values)


@dataclass(frozen=True, eq=False)
class Words:
    """How alike the runs that hold vectors see the words they share.

    runs: their places, from 0. shared: words in all of them; used: as many as were drawn of these. depths: primary
    depth of each. cka, rsa: float64 [runs, runs] at the primary depths, NaN where undefined. primary, cka_by_depth,
    rsa_by_depth: of two runs only, the last two float64 [depths of the first, depths of the second]; all_depths: what
    their rows and columns are. same_depths: the runs are of one shape, so that equal depths can be compared.
    """

    runs: tuple[int, ...]
    shared: int
    held: tuple[int, ...]
    used: int
    depths: tuple[int, ...]
    cka: Array
    rsa: Array
    primary: Agreement | None = None
    all_depths: tuple[tuple[int, ...], ...] = ()
    cka_by_depth: Array | None = None
    rsa_by_depth: Array | None = None
    same_depths: bool = False


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that is said of several runs. together: of the first two runs by group, all pairs first; rho: float64
    [runs, runs] over the pairs that all share. words: None where fewer than two runs hold vectors of shared words,
    and why_no_words says why."""

    runs: tuple[Recorded, ...]
    differing: tuple[Differing, ...]
    changed: tuple[Changed, ...]
    together: tuple[Together, ...]
    rho: Array
    pairs: tuple[PairSeen, ...]
    words: Words | None
    why_no_words: str = ""


def compare(runs: Sequence[Recorded], most_words: int) -> Comparison:
    """Set the runs side by side; at most `most_words` of the words they share are used, drawn by the first's seed."""
    shared = [key for key in runs[0].values if all(key in r.values for r in runs)]
    seen = tuple(PairSeen(runs[0].by_key[key], tuple(r.values[key] for r in runs)) for key in shared)
    words, why_no_words = _words(runs, most_words)
    values = [[r.values[key] for key in shared] for r in runs]
    return Comparison(
        tuple(runs), differing(runs), tuple(_changed(runs, 0, k) for k in range(1, len(runs))),
        _together(runs, shared), _matrix(len(runs), lambda i, j: spearman(values[i], values[j])), seen,
        words, why_no_words,
    )  # fmt: skip


def differing(runs: Sequence[Recorded]) -> tuple[Differing, ...]:
    """Settings, versions, data, weights, code and device that are not the same in all.

    A setting that one run does not know and that is null in the others is set in none of them.
    """
    keys = sorted({k for r in runs for k in r.params if not k.endswith("_target_")} - {*HIDDEN})
    found = [
        Differing(key, tuple(r.params.get(key, "(absent)") for r in runs))
        for key in keys
        if {r.params.get(key, "None") for r in runs} != {"None"}
    ]
    found += [Differing(key, tuple(r.tags.get(key, "none") for r in runs)) for key in TAGS]
    return tuple(d for d in found if len(set(d.values)) > 1)


def _changed(runs: Sequence[Recorded], first: int, second: int) -> Changed:
    """ΔΔ, where both Δ measure the same thing."""
    a, b = runs[first], runs[second]
    same = {"primary similarities": (a.similarity, b.similarity), "control groups": (a.control, b.control)}
    for what, (one, other) in same.items():
        if one != other:
            return Changed(first, second, None, f"the {what} differ ({one}, {other})")

    def used(run: Recorded) -> set[PairKey]:
        return {key for key in run.values if key[0] in (COGNATE, a.control)}

    mine, theirs = used(a), used(b)
    if mine != theirs:
        return Changed(
            first, second, None,
            f"the pairs differ: {len(mine & theirs)} are in both, {len(mine - theirs)} in run {first + 1} alone, "
            f"{len(theirs - mine)} in run {second + 1} alone",
        )  # fmt: skip
    try:
        keys = [key for key in a.values if key in mine]
        pairs = replace(a.pair_set, pairs=tuple(a.by_key[key] for key in keys))
        before, after = ([r.values[key] for key in keys] for r in (a, b))
        return Changed(first, second, delta_of_deltas(before, after, pairs, a.control, a.confidence))
    except StatisticsError as error:
        return Changed(first, second, None, error.problems[0])


def _together(runs: Sequence[Recorded], shared: Sequence[PairKey]) -> tuple[Together, ...]:
    groups = dict.fromkeys(key[0] for key in shared)
    found = []
    for group in ["", *groups]:
        keys = [k for k in shared if group in ("", k[0])]
        rho = spearman([runs[0].values[k] for k in keys], [runs[1].values[k] for k in keys])
        found.append(Together(group, len(keys), rho))
    return tuple(found if len(groups) > 1 else found[:1])


def _words(runs: Sequence[Recorded], most: int) -> tuple[Words | None, str]:
    """(how alike words are seen, why not)."""
    having = [i for i, r in enumerate(runs) if r.vectors is not None]
    if len(having) < 2:
        return None, f"{len(having)} of these {len(runs)} runs have vectors; two are needed"
    vectors = [v for i in having if (v := runs[i].vectors) is not None]
    shared: list[WordKey] = [w for w in vectors[0].rows if all(w in v.rows for v in vectors)]
    if len(shared) < LEAST:
        return None, f"{len(shared)} words are in all runs that hold vectors; {LEAST} are needed"
    lead = runs[having[0]]
    used = shared
    if len(shared) > most:
        drawn = np.random.default_rng([lead.seed, 7]).choice(len(shared), most, replace=False)
        used = [shared[i] for i in np.sort(drawn)]
    depths = [runs[i].depth for i in having]
    places = [v.depths.index(d) if d in v.depths else len(v.depths) - 1 for v, d in zip(vectors, depths, strict=True)]
    states = [v.of(used) for v in vectors]
    at = [s[p] for s, p in zip(states, places, strict=True)]
    primary = cka_by_depth = rsa_by_depth = None
    if len(having) == 2:
        primary = agreement(at[0], at[1], [lang for _, lang in used], lead.confidence, lead.seed)
        cka_by_depth, rsa_by_depth = debiased_cka(*states), rsa(*states)

    def alike(way: Callable[[Depths, Depths], Array]) -> Array:
        return _matrix(len(at), lambda i, j: _number(way([at[i]], [at[j]])[0, 0]))

    return Words(
        tuple(having), len(shared), tuple(len(v.rows) for v in vectors), len(used),
        tuple(v.depths[p] for v, p in zip(vectors, places, strict=True)), alike(debiased_cka), alike(rsa), primary,
        tuple(v.depths for v in vectors), cka_by_depth, rsa_by_depth,
        len({(v.depths, v.width) for v in vectors}) == 1,
    ), ""  # fmt: skip


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _matrix(n: int, of: Callable[[int, int], float | None]) -> Array:
    """float64 [n, n], symmetric, NaN where undefined; its diagonal is 1 where a run can be compared with itself."""
    found = np.full((n, n), np.nan)
    for i, j in [*combinations(range(n), 2), *((i, i) for i in range(n))]:
        value = of(i, j)
        found[i, j] = found[j, i] = np.nan if value is None else value
    return found
