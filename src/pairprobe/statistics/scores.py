"""Does a similarity follow people's judgement of the same pairs? Spearman's ρ with interval and p.

References: Bonett & Wright (2000) for the variance of Fisher's z of ρ; Kish (1965) for the design effect by which
linked pairs widen it; Winkler et al. (2015) for exchanging whole blocks of one size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pairprobe.evidence import ScoreCheck
from pairprobe.outcomes import Interval
from pairprobe.records import IntArray, PairSet, Similarities
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.sample import BLOCK
from pairprobe.statistics.units import clusters

Array = npt.NDArray[np.float64]
LEAST = 4  # pairs with a score, and clusters of them; of fewer the variance of Fisher's z is undefined


def score_checks(
    statistics: Statistics, similarities: Sequence[Similarities], pairs: PairSet
) -> tuple[ScoreCheck, ...]:
    """ρ of every similarity at every depth with the scores of the pairs that have one, whatever their group."""
    scored = [i for i, p in enumerate(pairs.pairs) if p.score is not None]
    if len(scored) < LEAST:
        return ()
    some = [pairs.pairs[i] for i in scored]
    scores = np.array([p.score for p in some], dtype=np.float64)
    cluster = clusters(some)
    found: list[ScoreCheck] = []
    for s in similarities:
        values = s.values[:, scored]
        rho, effect = spearman(values, scores, cluster)
        p, why = exchanged_p(values, scores, cluster, statistics)
        g = len(np.unique(cluster))
        for k, depth in enumerate(s.depths):
            r = float(rho[k]) if math.isfinite(rho[k]) else None
            ci = fisher_interval(r, len(some), float(effect[k]), g, statistics.confidence) if r is not None else None
            found.append(ScoreCheck(s.name, depth, len(some), g, r, ci, p[k] if r is not None else None, why))
    return tuple(found)


def spearman(values: Array, scores: Array, cluster: IntArray) -> tuple[Array, Array]:
    """ρ and its design effect, float64 [depths] each; NaN where all ranks are equal.

    The design effect is the variance of ρ with pairs in clusters over that with independent pairs, both from each
    pair's linearised contribution (its influence on ρ, ranks included); never below 1, since a few clusters that happen
    to cancel are no better than independent pairs.

    Args:
        values: float64 [depths, pairs]. scores: float64 [pairs]. cluster: int [pairs].
    """
    from scipy.stats import rankdata

    n = len(scores)
    y = rankdata(scores) - (n + 1) / 2
    x = rankdata(values, axis=1) - (n + 1) / 2
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum())
    rho = np.divide(x @ y, norm, out=np.full(len(x), np.nan), where=norm > 0)
    effect = np.ones(len(x))
    size = np.bincount(cluster)
    if size.max() > 1:
        for k in np.flatnonzero(np.isfinite(rho)):
            influence = influences(x[k], y)
            alone = float(influence @ influence)
            together = float((np.bincount(cluster, influence) ** 2).sum())
            effect[k] = max(1.0, together / alone) if alone > 0 else 1.0
    return rho, effect


def influences(x: Array, y: Array) -> Array:
    """What each pair adds to ρ, first order: float64 [pairs], with mean 0; ρ's variance is about theirs over pairs.

    ρ = 12 E[F(X) G(Y)] − 3 with the distribution functions F and G. Besides its own product a pair moves the rank of
    every pair above it, in x as in y (the influence function of ρ; Croux & Dehon 2010).

    Args:
        x, y: centred ranks, float64 [pairs].
    """
    f, g = x / len(x), y / len(y)
    h = 12 * (f * g + _tail_mean(x, g) + _tail_mean(y, f))
    return np.asarray(h - h.mean())


def _tail_mean(ranks: Array, of: Array) -> Array:
    """For each pair, the sum of `of` over pairs ranked above it and half of those tied with it, over all pairs."""
    order = np.argsort(ranks, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(of[order])])
    ordered = ranks[order]
    left = np.searchsorted(ordered, ranks, side="left")
    right = np.searchsorted(ordered, ranks, side="right")
    return np.asarray(sums[-1] - (sums[left] + sums[right]) / 2) / len(ranks)


def fisher_interval(rho: float, n: int, effect: float, groups: int, confidence: float) -> Interval | None:
    """Fisher's z of ρ ± its error √((1 + ρ²/2) / (n − 3)) (Bonett & Wright 2000), widened by √ of the design effect.

    Without linked pairs it is theirs, with the normal quantile; else with t of clusters less one. None at ρ = ±1, and
    where pairs or clusters are too few.
    """
    from scipy import stats

    if not abs(rho) < 1 - 1e-12 or min(n, groups) < LEAST:
        return None
    tail = (1 + confidence) / 2
    quantile = stats.norm.ppf(tail) if groups == n else stats.t.ppf(tail, groups - 1)
    reach = float(quantile) * math.sqrt((1 + rho**2 / 2) / (n - 3) * effect)
    return Interval(math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach))


def exchanged_p(
    values: Array, scores: Array, cluster: IntArray, statistics: Statistics
) -> tuple[list[float | None], str]:
    """Two-sided p of ρ by exchanging scores, by depth, or None and why.

    Linked pairs keep their scores together: whole clusters of one size are exchanged. All ways where they are at most
    `exact_below`, else drawn at random with the observed counted in.
    """
    from scipy.stats import rankdata

    members = [np.flatnonzero(cluster == c) for c in np.unique(cluster)]
    blocks = [np.stack([m for m in members if len(m) == size]) for size in sorted({len(m) for m in members})]
    ways = math.prod(math.factorial(len(b)) for b in blocks)
    exact = ways <= statistics.exact_below
    count = ways if exact else statistics.permutations
    least = 1 / count if exact else 1 / (count + 1)
    if least > statistics.alpha:
        few = f"there are only {ways} ways" if exact else f"only {count} ways were drawn"
        return [None] * len(values), (
            f"{few} to exchange scores between clusters of one size, so that no p under {least:.2g} can come out."
        )
    y = rankdata(scores) - (len(scores) + 1) / 2
    x = rankdata(values, axis=1) - (len(scores) + 1) / 2
    observed = np.abs(x @ y)
    slack = 0.1  # sums of products of half ranks are multiples of a quarter, and exact
    hits = np.zeros(len(x), dtype=np.int64)
    for places in _exchanges(blocks, count, exact, np.random.default_rng([statistics.seed, 13])):
        hits += (np.abs(y[places] @ x.T) >= observed - slack).sum(axis=0)
    extra = 0 if exact else 1
    return [float((h + extra) / (count + extra)) for h in hits], ""


def _exchanges(blocks: Sequence[IntArray], count: int, exact: bool, rng: np.random.Generator) -> Iterator[IntArray]:
    """int [≤ some, pairs] at a time: for each pair, whose score it is given."""
    n = sum(b.size for b in blocks)
    step = max(1, BLOCK // n)
    if exact:
        all_ways = itertools.product(*(itertools.permutations(range(len(b))) for b in blocks))
        for start in range(0, count, step):
            some = list(itertools.islice(all_ways, min(step, count - start)))
            yield _places(blocks, [np.array([way[k] for way in some], dtype=np.int64) for k in range(len(blocks))], n)
        return
    for start in range(0, count, step):
        rows = min(step, count - start)
        yield _places(blocks, [rng.permuted(np.tile(np.arange(len(b)), (rows, 1)), axis=1) for b in blocks], n)


def _places(blocks: Sequence[IntArray], orders: Sequence[IntArray], n: int) -> IntArray:
    found = np.empty((len(orders[0]), n), dtype=np.int64)
    for block, order in zip(blocks, orders, strict=True):
        found[:, block.ravel()] = block[order].reshape(len(order), -1)
    return found
