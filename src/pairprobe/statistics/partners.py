"""Is each word closer to its own partner than to the other words' partners? Matrices in, records out.

Partners are exchanged, as in a Mantel-like test of a square table (Hubert & Schultz 1976); the mean and the variance of
the sum over exchanged cells are Hoeffding's (1951), the family's correction is single-step max-T (Westfall & Young
1993), the observed is counted in where exchanges are drawn (Phipson & Smyth 2010).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairprobe.errors import StatisticsError
from pairprobe.evidence import PartnerDepth, PartnerTest
from pairprobe.outcomes import Interval
from pairprobe.records import BoolArray, IntArray, Pair
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.sample import BLOCK, TIE
from pairprobe.statistics.units import clusters

Array = npt.NDArray[np.float64]
MOST = 2000  # cognate pairs in the matrix; of more, as many are drawn
LEAST_POOL = 20  # words that are at least compared with each other


@dataclass(frozen=True, eq=False)
class Pool:
    """Cognate pairs whose words are candidates for each other; n of them.

    rows: int [n], places among the cognate pairs. candidates: bool [n, n]: whether the second word of pair j may stand
    as partner of the first word of pair i: its own (the diagonal), or one of the same languages in another cluster.
    cluster: int [n]. exchanged: for each kind of cluster of which there are several, int [clusters, pairs of each],
    places in the pool: position by position, partners of one are exchanged with those of another.
    """

    rows: IntArray
    candidates: BoolArray
    cluster: IntArray
    exchanged: tuple[IntArray, ...]


@dataclass(frozen=True, eq=False)
class Design:
    """What is compared with what. usable: pairs whose words have other candidates; languages: kinds of pair."""

    pools: tuple[Pool, ...]
    usable: int
    languages: int

    @property
    def arrangements(self) -> int:
        """How many ways there are to exchange partners, the observed one among them."""
        return math.prod(math.factorial(len(e)) for pool in self.pools for e in pool.exchanged)


def design(cognates: Sequence[Pair], a: IntArray, b: IntArray, cells: int, seed: int) -> Design:
    """Which words are compared, in a number of cells that is bounded.

    Candidates have the same languages as the own partner, so that language is no cue; pairs linked by a word, a concept
    or a cognate set, however many steps away, are never 'others' for each other. A word that has several partners
    in one language stands in the matrix with the first, and its other partners are linked to it.

    Args:
        cognates: the cognate pairs. a, b: int [pairs], the text of each one's words.
        cells: how many cells may be measured; where all would be more, words are compared in pools drawn at random.
    """
    linked = clusters(cognates)
    kinds = [(p.a.lang, p.b.lang) for p in cognates]
    seen: set[Hashable] = set()
    rows: list[int] = []
    for i, kind in enumerate(kinds):
        words = (("a", int(a[i]), kind), ("b", int(b[i]), kind))
        if not seen.intersection(words):
            seen.update(words)
            rows.append(i)
    rows = _with_others(rows, linked, kinds)
    size, pooled = _sizes(len(rows), cells)
    if size == len(rows) == pooled:
        parts = [rows] if rows else []
    else:
        parts = _drawn(rows, linked, kinds, size, pooled, np.random.default_rng([seed, 11]))
    pools = [_pool(part, linked, kinds) for part in parts]
    return Design(tuple(p for p in pools if len(p.rows)), len(rows), len({kinds[i] for i in rows}))


def _with_others(rows: list[int], linked: IntArray, kinds: Sequence[Hashable]) -> list[int]:
    """Those that have another cluster of the same languages beside them."""
    of_kind: dict[Hashable, set[int]] = {}
    for i in rows:
        of_kind.setdefault(kinds[i], set()).add(int(linked[i]))
    return [i for i in rows if len(of_kind[kinds[i]]) > 1]


def _sizes(n: int, cells: int) -> tuple[int, int]:
    """(pairs to use, pairs in a pool), so that pairs × pool is at most `cells`, or one smallest pool."""
    n = min(n, MOST)
    if n * n <= cells:
        return n, n
    n = min(n, max(LEAST_POOL, cells // LEAST_POOL))
    return n, min(n, max(LEAST_POOL, cells // n))


def _drawn(
    rows: list[int], linked: IntArray, kinds: Sequence[Hashable], size: int, pooled: int, rng: np.random.Generator
) -> list[list[int]]:
    """Whole clusters at random until `size` pairs are had, in pools of about `pooled`; like kinds come together."""
    members: dict[int, list[int]] = {}
    for i in rows:
        members.setdefault(int(linked[i]), []).append(i)
    drawn: list[list[int]] = []
    total = 0
    for c in rng.permutation(np.array(list(members))):
        if total + len(members[int(c)]) <= size or not drawn:
            drawn.append(members[int(c)])
            total += len(members[int(c)])
    drawn.sort(key=lambda m: sorted(map(str, (kinds[i] for i in m))))  # stable: the order within a kind stays drawn
    parts: list[list[int]] = [[] for _ in range(-(-total // pooled))]
    done = 0
    for cluster in drawn:
        parts[min(len(parts) - 1, done * len(parts) // total)] += cluster
        done += len(cluster)
    return parts


def _pool(rows: list[int], linked: IntArray, kinds: Sequence[Hashable]) -> Pool:
    rows = sorted(_with_others(rows, linked, kinds))
    places = np.array(rows, dtype=np.int64)
    cluster = linked[places] if rows else np.empty(0, dtype=np.int64)
    number = {kind: k for k, kind in enumerate(dict.fromkeys(kinds[i] for i in rows))}
    kind = np.array([number[kinds[i]] for i in rows], dtype=np.int64)
    candidates = (kind[:, None] == kind) & (cluster[:, None] != cluster) | np.eye(len(rows), dtype=bool)
    alike: dict[tuple[int, ...], list[list[int]]] = {}
    for c in dict.fromkeys(cluster.tolist()):
        own = sorted(np.flatnonzero(cluster == c).tolist(), key=lambda place: kind[place])
        alike.setdefault(tuple(int(kind[place]) for place in own), []).append(own)
    exchanged = tuple(np.array(of, dtype=np.int64) for of in alike.values() if len(of) > 1)
    return Pool(places, candidates, cluster, exchanged)


# ── the tests ────────────────────────────────────────────────────────────────────────────────────────────


def partner_tests(
    plan: Design,
    measured: Callable[[Pool], Mapping[str, Array]],
    depths: Mapping[str, tuple[int, ...]],
    settings: Statistics,
) -> dict[str, PartnerTest]:
    """Own against other partners for every similarity, all depths and similarities being one family.

    Args:
        plan: from `design`. measured: gives, for one pool at a time, each similarity's values float64
            [depths, n, n]: row i the first word of its i-th pair, column j the second word of its j-th.
        depths: of each similarity, in the order of `measured`.

    Raises:
        StatisticsError: a similarity is not finite.
    """
    if not plan.pools:
        return {}
    shuffles = _Shuffles(plan, settings)
    words = [_words(pool, _stacked(measured(pool), pool, depths), shuffles) for pool in plan.pools]
    own, others, rank, reciprocal, first = (np.concatenate(parts, axis=1) for parts in zip(*words, strict=True))
    cluster = np.concatenate([c for pool in plan.pools for c in (pool.cluster, pool.cluster)])
    both, intervals = mean_and_interval(np.concatenate([reciprocal, first]), cluster, settings, 12)
    (mrr, hits), (mrr_ci, hits_ci) = np.split(both, 2), (intervals[: len(own)], intervals[len(own) :])
    p, p_greater, p_less, p_max_t = shuffles.p_values()
    counts = np.concatenate([n for pool in plan.pools for n in (pool.candidates.sum(1), pool.candidates.sum(0))])
    found: dict[str, PartnerTest] = {}
    column = 0
    for name, at in depths.items():
        tests = tuple(
            PartnerDepth(
                depth, float(own[i].mean()), float(others[i].mean()), p[i], p_greater[i], p_max_t[i],
                float(rank[i].mean()), float(mrr[i]), mrr_ci[i], float(hits[i]), hits_ci[i], p_less[i],
            )
            for i, depth in enumerate(at, start=column)
        )  # fmt: skip
        column += len(at)
        found[name] = PartnerTest(
            name, len(own[0]) // 2, len(np.unique(cluster)), float(counts.mean()), tests, shuffles.count,
            shuffles.exact, shuffles.smallest, float((counts + 1).mean() / 2),
            float(np.mean([_harmonic(int(n)) / n for n in counts])), float((1 / counts).mean()),
            shuffles.scheme(plan), shuffles.why_no_p(),
        )  # fmt: skip
    return found


def _harmonic(n: int) -> float:
    return float((1 / np.arange(1, n + 1)).sum())


def _stacked(measured: Mapping[str, Array], pool: Pool, depths: Mapping[str, tuple[int, ...]]) -> Array:
    """float64 [depths of all similarities, n, n]."""
    for name, at in depths.items():
        bad = ~np.isfinite(measured[name]) & pool.candidates
        if bad.any():
            k, i, j = np.argwhere(bad)[0]
            raise StatisticsError(
                f"{name} of the first word of cognate pair {pool.rows[i] + 1} with the second word of cognate pair "
                f"{pool.rows[j] + 1} at depth {at[k]} is {measured[name][k, i, j]}; nothing can be computed from it."
            )
    return np.concatenate([measured[name] for name in depths])


def _words(pool: Pool, values: Array, shuffles: _Shuffles) -> tuple[Array, Array, Array, Array, Array]:
    """own, others, rank, reciprocal rank, first: each [depths, 2 n], first words, then second words."""
    shuffles.add(pool, values)
    n = len(pool.rows)
    found = np.empty((5, len(values), 2 * n))
    others = pool.candidates & ~np.eye(n, dtype=bool)
    for k, at in enumerate(values):
        own = np.diagonal(at)
        slack = TIE * np.abs(at[pool.candidates]).max()
        for side, (table, allowed) in enumerate(((at, others), (at.T, others.T))):
            here = slice(side * n, (side + 1) * n)
            closer = (allowed & (table > own[:, None] + slack)).sum(axis=1)
            tied = (allowed & (np.abs(table - own[:, None]) <= slack)).sum(axis=1)
            rank = 1 + closer + tied / 2
            found[0, k, here] = own
            found[1, k, here] = np.where(allowed, table, 0.0).sum(axis=1) / allowed.sum(axis=1)
            found[2, k, here] = rank
            found[3, k, here] = 1 / rank
            found[4, k, here] = (closer == 0) / (tied + 1)
    own_, others_, rank_, reciprocal, first = found
    return own_, others_, rank_, reciprocal, first


class _Shuffles:
    """Sums over own partners less their mean under exchange, for every exchange: [shuffles, depths]."""

    def __init__(self, plan: Design, settings: Statistics) -> None:
        self.ways = plan.arrangements
        self.exact = self.ways <= settings.exact_below
        self.count = self.ways if self.exact else settings.permutations
        sizes = [len(e) for pool in plan.pools for e in pool.exchanged]
        mirrored = bool(sizes) and set(sizes) == {2}  # each arrangement then has one of the opposite sign
        self.smallest = (2 if mirrored else 1) / self.ways if self.exact else 1 / (self.count + 1)
        self.enough = self.smallest <= settings.alpha
        self.alpha = settings.alpha
        self.rng = np.random.default_rng([settings.seed, 10])
        self.stride = 1  # of the mixed-radix number that stands for an arrangement
        self.sums: Array | None = None
        self.observed: Array = np.empty(0)
        self.variance: Array = np.empty(0)
        self.scale: Array = np.empty(0)

    def add(self, pool: Pool, values: Array) -> None:
        """values: [depths, n, n]."""
        if self.sums is None:
            self.sums = np.zeros((self.count if self.ways > 1 else 0, len(values)))
            self.observed, self.variance, self.scale = np.zeros((3, len(values)))
        for places in pool.exchanged:
            k = len(places)
            # [k, k, depths]: own partners of cluster i exchanged for those of cluster j, summed over its pairs
            table = np.zeros((k, k, len(values)))
            for s in range(places.shape[1]):
                table += values[:, places[:, s][:, None], places[:, s]].transpose(1, 2, 0)
            self.scale = np.maximum(self.scale, np.abs(table).max(axis=(0, 1)))
            table = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean(axis=(0, 1))
            table = np.ascontiguousarray(table)
            self.observed = self.observed + np.einsum("iid->d", table)
            self.variance = self.variance + (table**2).sum(axis=(0, 1)) / (k - 1)
            self._exchange(table)

    def _exchange(self, table: Array) -> None:
        assert self.sums is not None
        k = len(table)
        if self.exact:
            orders = np.array(list(itertools.permutations(range(k))), dtype=np.int64)
            sums = sum(table[i][orders[:, i]] for i in range(k))
            which = np.arange(self.count) // self.stride % len(orders)
            self.sums += np.asarray(sums)[which]
            self.stride *= len(orders)
            return
        step = max(1, BLOCK // max(k, table.shape[2]))
        for start in range(0, self.count, step):
            part = self.sums[start : start + step]
            orders = self.rng.permuted(np.tile(np.arange(k), (len(part), 1)), axis=1)
            for i in range(k):
                part += table[i][orders[:, i]]

    def p_values(self) -> tuple[list[float | None], ...]:
        """Two-sided, own closer, own farther, and max-T, by depth; None where exchanging changes nothing or can say
        nothing."""
        n = len(self.observed)
        if self.sums is None or not self.enough or self.ways == 1:
            return tuple([None] * n for _ in range(4))
        slack = TIE * self.scale
        sd = np.sqrt(self.variance)
        defined = sd > slack
        sd = np.where(defined, sd, 1.0)
        far = np.abs(self.sums)
        two = (far >= np.abs(self.observed) - slack).sum(axis=0)
        greater = (self.sums >= self.observed - slack).sum(axis=0)
        less = (self.sums <= self.observed + slack).sum(axis=0)
        largest = np.where(defined, far / sd, -np.inf).max(axis=1)
        reach = (np.abs(self.observed) - slack) / sd
        most = len(largest) - np.searchsorted(np.sort(largest), reach, side="left")
        extra = 0 if self.exact else 1

        def of(hits: IntArray) -> list[float | None]:
            return [
                float((h + extra) / (self.count + extra)) if d else None for h, d in zip(hits, defined, strict=True)
            ]

        return of(two), of(greater), of(less), of(most)

    def scheme(self, plan: Design) -> str:
        """How partners were exchanged, in words."""
        if self.ways == 1:
            return ""
        used = sum(len(pool.rows) for pool in plan.pools)
        together = any(len(pool.rows) > len(set(pool.cluster.tolist())) for pool in plan.pools)
        return (
            "partners exchanged"
            + (" within their languages" if plan.languages > 1 else "")
            + (", linked pairs together" if together else "")
            + (f", in {len(plan.pools)} groups drawn at random" if len(plan.pools) > 1 else "")
            + (f", {used} of {plan.usable} pairs drawn" if used < plan.usable else "")
        )

    def why_no_p(self) -> str:
        if self.ways == 1:
            return "no two words of the same languages are free of each other, so partners cannot be exchanged."
        if self.enough:
            return ""
        few = f"there are only {self.ways} ways" if self.exact else f"only {self.count} ways were drawn"
        more = "" if self.exact else " Raise statistics.permutations."
        return f"{few} to exchange partners, so that no p under {self.smallest:.2g} can come out.{more}"


def mean_and_interval(
    values: Array, cluster: IntArray, settings: Statistics, stream: int
) -> tuple[Array, list[Interval | None]]:
    """Mean over words and its BCa interval (Efron 1987), by depth; None where all clusters are alike.

    Whole clusters of words are drawn, with the ranks they have: the candidates stay fixed. Drawing words *into* a
    matrix would set copies of a word beside itself as its own rivals.

    Args:
        values: float64 [depths, words]. cluster: int [words].
    """
    from scipy import special

    _, place = np.unique(cluster, return_inverse=True)
    size = np.bincount(place).astype(np.float64)
    g = len(size)
    mean = values.mean(axis=1)
    if g < 2:
        return mean, [None] * len(values)
    # [clusters, depths]: what a cluster adds to the sum, less what it would at the mean
    off = np.stack([np.bincount(place, row - m, g) for row, m in zip(values, mean, strict=True)], axis=1)
    rng = np.random.default_rng([settings.seed, stream])
    errors = []
    step = max(1, BLOCK // g)
    for start in range(0, settings.resamples, step):
        rows = min(step, settings.resamples - start)
        drawn = rng.integers(0, g, (rows, g)) + g * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * g).reshape(rows, g).astype(np.float64)
        errors.append(times @ off / (times @ size)[:, None])
    error = np.concatenate(errors)  # [resamples, depths]
    slack = TIE
    bias = special.ndtri((error < -slack).mean(axis=0) + 0.5 * (np.abs(error) <= slack).mean(axis=0))
    without = -off / (size.sum() - size)[:, None]  # the error once a cluster is left out
    lean = without.mean(axis=0) - without
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = (lean**3).sum(axis=0) / (lean**2).sum(axis=0) ** 1.5 / 6
        z = special.ndtri([(1 - settings.confidence) / 2, (1 + settings.confidence) / 2])[:, None]
        ends = special.ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
    return mean, [
        Interval(*(float(v) for v in mean[i] + np.quantile(error[:, i], ends[:, i])))
        if np.isfinite(ends[:, i]).all() and np.ptp(off[:, i]) > slack
        else None
        for i in range(len(values))
    ]
