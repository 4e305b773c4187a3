"""Similarities and groups → Δ with its uncertainty and tests.

Arrays in, records out: nothing here knows of models, configuration or storage. References:
Hedges (1981) for g and its correction; Cumming & Finch (2001) for its interval by noncentral t;
Efron (1987) for BCa; Phipson & Smyth (2010) for counting the observed; Westfall & Young (1993) for max-T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from pairprobe.errors import StatisticsError, at_least, between
from pairprobe.outcomes import DepthTest, GroupTest, Interval
from pairprobe.records import COGNATE, PairSet, Similarities

Array = npt.NDArray[np.float64]
TIE = 1e-9  # relabelled statistics this close (relative) to the observed are equal up to rounding
BLOCK = 4_000_000  # float64 values a block of resamples may hold: 32 MB


@dataclass(frozen=True)
class Statistics:
    """How groups are compared.

    Args:
        seed: of every random number drawn here.
        resamples: bootstrap resamples for the interval of Δ (BCa).
        permutations: relabellings drawn where there are more than `exact_below`; fewer are all compared.
        exact_below: up to how many relabellings the test is exact.
        confidence: level of all intervals. alpha: level of tests, for the verdict and for power.
        effect: the standardised difference whose power is reported. power: the power wanted for detectable_d.
    """

    seed: int = 0
    resamples: int = 10_000
    permutations: int = 10_000
    exact_below: int = 50_000
    confidence: float = 0.95
    alpha: float = 0.05
    effect: float = 0.8
    power: float = 0.8

    def __post_init__(self) -> None:
        at_least("statistics.seed", self.seed, 0)
        at_least("statistics.resamples", self.resamples, 100)
        at_least("statistics.permutations", self.permutations, 100)
        at_least("statistics.exact_below", self.exact_below, 1)
        for key in ("confidence", "alpha", "power"):
            between(f"statistics.{key}", getattr(self, key), 0.0, 1.0)
        if not self.alpha < self.power:
            between("statistics.power", self.power, self.alpha, 1.0)
        between("statistics.effect", self.effect, 0.0, 10.0)

    def test(self, similarities: Similarities, pairs: PairSet) -> dict[str, GroupTest]:
        """Cognates against every control group, by control group.

        Raises:
            StatisticsError: a similarity is not finite, or a group has fewer than two pairs.
        """
        if not np.isfinite(similarities.values).all():
            row, column = np.argwhere(~np.isfinite(similarities.values))[0]
            raise StatisticsError(
                f"{similarities.name} of pair {pairs.pairs[column].id} at depth {similarities.depths[row]} "
                f"is {similarities.values[row, column]}; nothing can be computed from it."
            )
        cognates = similarities.values[:, pairs.members(COGNATE)]
        return {
            control: self._against(similarities, cognates, similarities.values[:, pairs.members(control)], control)
            for control in pairs.controls
        }

    def _against(self, similarities: Similarities, x: Array, y: Array, control: str) -> GroupTest:
        n, m = x.shape[1], y.shape[1]
        if n < 2 or m < 2:
            raise StatisticsError(
                f"{n} cognate and {m} {control} pairs: each group needs at least two.",
                "Add pairs to the table.",
            )
        delta = x.mean(axis=1) - y.mean(axis=1)
        t = pooled_t(x, y)
        low, high = bootstrap_interval(x, y, self.confidence, self.resamples, self.seed)
        relabelled = self._relabel(x, y)
        tests = tuple(
            DepthTest(
                depth=depth,
                mean_cognate=float(x[i].mean()),
                mean_control=float(y[i].mean()),
                sd_cognate=float(x[i].std(ddof=1)),
                sd_control=float(y[i].std(ddof=1)),
                delta=float(delta[i]),
                delta_ci=_interval(low[i], high[i]) if math.isfinite(t[i]) else None,
                g=_defined(hedges_correction(n + m - 2) * t[i] * math.sqrt(1 / n + 1 / m)),
                g_ci=hedges_interval(t[i], n, m, self.confidence),
                t=_defined(t[i]),
                p=_defined(relabelled.two_sided[i]) if relabelled.smallest <= self.alpha else None,
                p_greater=_defined(relabelled.greater[i]) if relabelled.smallest <= self.alpha else None,
                p_max_t=_defined(relabelled.max_t[i]) if relabelled.smallest <= self.alpha else None,
            )
            for i, depth in enumerate(similarities.depths)
        )
        return GroupTest(
            similarity=similarities.name,
            control=control,
            n_cognate=n,
            n_control=m,
            depths=tests,
            relabellings=relabelled.count,
            exact=relabelled.exact,
            smallest_p=relabelled.smallest,
            alpha=self.alpha,
            confidence=self.confidence,
            effect=self.effect,
            power=power_of_t_test(self.effect, n, m, self.alpha),
            power_wanted=self.power,
            detectable_d=detectable_d(self.power, n, m, self.alpha),
        )

    def _relabel(self, x: Array, y: Array) -> Relabelled:
        return relabel(x, y, self.permutations, self.exact_below, self.seed)


# ── effect sizes ─────────────────────────────────────────────────────────────────────────────────────────


def pooled_t(x: Array, y: Array) -> Array:
    """Two-sample t with pooled variance, by depth; NaN where all similarities of both groups are constant.

    Args:
        x, y: float64 [depths, pairs] of the two groups.
    """
    n, m = x.shape[1], y.shape[1]
    spread = ((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    spread = spread + ((y - y.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    error = np.sqrt(spread / (n + m - 2) * (1 / n + 1 / m))
    scale = np.maximum(np.abs(x).max(axis=1), np.abs(y).max(axis=1))
    error = np.where(error > scale * 1e-12, error, np.nan)  # rounding of equal numbers is no spread
    return np.asarray((x.mean(axis=1) - y.mean(axis=1)) / error)


def hedges_correction(df: int) -> float:
    """J(df), Hedges' exact small-sample correction of the standardised difference."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def hedges_interval(t: float, n: int, m: int, confidence: float) -> Interval | None:
    """Interval of g: bounds of the noncentrality of t (exact for normal similarities), scaled as g is."""
    from scipy import optimize, stats  # a fifth of a second: not before the configuration is valid

    if not math.isfinite(t):
        return None
    df, tail = n + m - 2, (1 - confidence) / 2
    scale = hedges_correction(df) * math.sqrt(1 / n + 1 / m)

    def bound(probability: float) -> float:
        def off(nc: float) -> float:
            # P(T ≤ t): SciPy's lower tail fails where it is far, so it is written as an upper one
            return float(stats.nct.sf(-t, df, -nc) if nc > t else stats.nct.cdf(t, df, nc)) - probability

        width = 4.0
        while not off(t - width) > 0 > off(t + width):
            width *= 2
            if width > 1e4:
                return math.nan
        return float(optimize.brentq(off, t - width, t + width, xtol=1e-10))

    low, high = bound(1 - tail), bound(tail)
    return _interval(low * scale, high * scale)


# ── power ────────────────────────────────────────────────────────────────────────────────────────────────


def power_of_t_test(d: float, n: int, m: int, alpha: float) -> float:
    """Chance that a two-sided two-sample t test at `alpha` finds a standardised difference `d`."""
    from scipy import stats

    df, nc = n + m - 2, d * math.sqrt(n * m / (n + m))
    critical = stats.t.ppf(1 - alpha / 2, df)
    return float(stats.nct.sf(critical, df, nc) + stats.nct.sf(critical, df, -nc))


def detectable_d(power: float, n: int, m: int, alpha: float) -> float:
    """The standardised difference that such a test finds with chance `power`."""
    from scipy import optimize

    high = 1.0
    while power_of_t_test(high, n, m, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda d: power_of_t_test(d, n, m, alpha) - power, 0.0, high, xtol=1e-8))


# ── resampling ───────────────────────────────────────────────────────────────────────────────────────────


def bootstrap_interval(x: Array, y: Array, confidence: float, resamples: int, seed: int) -> tuple[Array, Array]:
    """BCa interval of the difference of means, by depth; NaN where it is undefined (Efron 1987).

    The same resampled pairs serve all depths. Each group is resampled by itself.
    """
    from scipy import special

    # Deviations from the groups' means: what is resampled is the error of Δ, and rounding is less.
    x_off, y_off = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    error = _resampled(x_off, y_off, resamples, np.random.default_rng([seed, 1]))
    slack = TIE * np.maximum(np.abs(x_off).max(axis=1), np.abs(y_off).max(axis=1))
    ties = np.abs(error) <= slack  # resamples that draw every pair once, and others with the same mean: half each
    with np.errstate(invalid="ignore", divide="ignore"):  # constant groups: undefined, and NaN
        bias = special.ndtri(((error < -slack) + 0.5 * ties).mean(axis=0))
        # Leaving one pair out moves the mean by its deviation / (n - 1), so that no jackknife is needed.
        cubes = (x_off**3).sum(axis=1) / x.shape[1] ** 3 - (y_off**3).sum(axis=1) / y.shape[1] ** 3
        squares = (x_off**2).sum(axis=1) / x.shape[1] ** 2 + (y_off**2).sum(axis=1) / y.shape[1] ** 2
        acceleration = cubes / squares**1.5 / 6
        ends = []
        for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
            z = bias + special.ndtri(tail)
            ends.append(special.ndtr(bias + z / (1 - acceleration * z)))
    delta = x.mean(axis=1) - y.mean(axis=1)
    found = np.full((2, len(x)), np.nan)
    for i in np.flatnonzero(np.isfinite(ends).all(axis=0) & (np.ptp(error, axis=0) > 2 * slack)):
        found[:, i] = delta[i] + np.quantile(error[:, i], [ends[0][i], ends[1][i]])
    return found[0], found[1]


def _resampled(x: Array, y: Array, resamples: int, rng: np.random.Generator) -> Array:
    """float64 [resamples, depths]: the difference of the means of pairs drawn with replacement.

    How often each pair was drawn serves all depths, so that their means are one matrix product.
    """
    blocks = []
    size = max(1, BLOCK // max(x.shape[1], y.shape[1]))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        means = []
        for values in (x, y):
            n = values.shape[1]
            drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
            times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
            means.append(times.astype(np.float64) @ values.T / n)
        blocks.append(means[0] - means[1])
    return np.concatenate(blocks)


@dataclass(frozen=True, eq=False)
class Relabelled:
    """p-values by depth, float64 [depths], and what they rest on."""

    two_sided: Array
    greater: Array
    max_t: Array
    count: int
    exact: bool
    smallest: float


def relabel(x: Array, y: Array, permutations: int, exact_below: int, seed: int) -> Relabelled:
    """Permutation test of the difference of means by relabelling pairs, at all depths at once.

    Two-sided: how often |Δ*| ≥ |Δ|; one-sided: Δ* ≥ Δ; max-T: how often the largest |t*| over depths
    reaches |t| (single step). For fixed pooled values t is a monotone function of Δ, so the three agree.
    Exact over all (n + m choose n) relabellings where these are at most `exact_below`; else
    (1 + hits) / (1 + draws) with the observed labelling counted in.
    """
    n, m = x.shape[1], y.shape[1]
    pooled = np.concatenate([x, y], axis=1)
    pooled = pooled - pooled.mean(axis=1, keepdims=True)  # [depths, n + m]; Δ is unchanged, rounding is less
    observed = pooled[:, :n].mean(axis=1) - pooled[:, n:].mean(axis=1)
    scale = np.abs(pooled).max(axis=1)
    defined = np.isfinite(pooled_t(x, y)) & (scale > 0)
    slack = TIE * np.where(defined, scale, 1.0)
    # |t| grows with |Δ| over the root of the total sum of squares, which no relabelling changes: comparing those
    # ratios over depths is comparing |t|, without its loss of digits where groups lie far apart.
    root = np.where(defined, np.sqrt((pooled**2).sum(axis=1)), 1.0)
    reach = (np.abs(observed) - slack) / root
    count = math.comb(n + m, n)
    exact = count <= exact_below
    two = np.zeros(len(pooled))
    greater = np.zeros(len(pooled))
    largest_reach = np.zeros(len(pooled))
    rng = np.random.default_rng([seed, 2])
    drawn = 0
    for labels in _labellings(n, m, permutations, exact, rng, max(1, BLOCK // (n + m + 4 * len(pooled)))):
        sums = labels @ pooled.T  # [block, depths]: sum of the relabelled cognates
        delta = sums * (1 / n + 1 / m)  # the pooled sum is zero, so the controls' sum is −sums
        two += (np.abs(delta) >= np.abs(observed) - slack).sum(axis=0)
        greater += (delta >= observed - slack).sum(axis=0)
        largest = np.where(defined, np.abs(delta) / root, -np.inf).max(axis=1)
        largest_reach += (largest[:, None] >= reach).sum(axis=0)
        drawn += len(labels)
    extra = 0 if exact else 1
    p = [np.where(defined, (hits + extra) / (drawn + extra), np.nan) for hits in (two, greater, largest_reach)]
    # With equal sizes each labelling has a mirror image with the same |Δ|.
    least = (2 if n == m else 1) / count if exact else 1 / (drawn + 1)
    return Relabelled(p[0], p[1], p[2], drawn, exact, least)


def _labellings(n: int, m: int, permutations: int, exact: bool, rng: np.random.Generator, block: int) -> Any:
    """Blocks of float64 [≤ block, n + m], each row 1.0 at n pairs and 0.0 at m."""
    if exact:
        chosen = np.array(list(combinations(range(n + m), n)), dtype=np.int64)
        for start in range(0, len(chosen), block):
            part = chosen[start : start + block]
            labels = np.zeros((len(part), n + m))
            np.put_along_axis(labels, part, 1.0, axis=1)
            yield labels
        return
    for start in range(0, permutations, block):
        size = min(block, permutations - start)
        labels = np.zeros((size, n + m))
        order = rng.permuted(np.tile(np.arange(n + m), (size, 1)), axis=1)[:, :n]
        np.put_along_axis(labels, order, 1.0, axis=1)
        yield labels


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _interval(low: float, high: float) -> Interval | None:
    return Interval(float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None
