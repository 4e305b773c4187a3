"""How large a difference is: standardised, as a chance, without any one unit, and whether it is as good as none.

References: Hedges (1981) for g and its correction; Cumming & Finch (2001) for its interval by noncentral t; Mann &
Whitney (1947), Cliff (1993) for the chance; DeLong, DeLong & Clarke-Pearson (1988) and Obuchowski (1997) for its error
with linked pairs; Newcombe (2006) for its interval at the edges; Schuirmann (1987), Wellek (2010) for equivalence.
"""

from __future__ import annotations

import math

import numpy as np

from pairprobe.outcomes import Interval
from pairprobe.statistics.sample import Array, Sample, effective


def pooled_t(x: Array, y: Array) -> Array:
    """Two-sample t with pooled variance, by depth; NaN where all similarities of both groups are constant.

    Args:
        x, y: float64 [depths, pairs] of the two groups.
    """
    return Sample.of(x, y).moments.t


def hedges_correction(df: float) -> float:
    """J(df), Hedges' exact small-sample correction of the standardised difference."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def hedges_interval(t: float, n: int, m: int, confidence: float) -> Interval | None:
    """Interval of g: bounds of the noncentrality of t (exact for normal similarities), scaled as g is."""
    df = n + m - 2
    return noncentral_interval(t, df, hedges_correction(df) * math.sqrt(1 / n + 1 / m), confidence)


def noncentral_interval(t: float, df: float, scale: float, confidence: float) -> Interval | None:
    """The noncentralities under which t would be as far out as it is in either tail, times `scale`."""
    from scipy import optimize, stats  # a fifth of a second: not before the configuration is valid

    if not math.isfinite(t):
        return None
    tail = (1 - confidence) / 2

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

    return _interval(bound(1 - tail) * scale, bound(tail) * scale)


def auc(sample: Sample, member: int, confidence: float) -> tuple[float, Interval | None]:
    """Chance that a cognate pair is more similar than a control pair (ties half), and its interval.

    The interval is by t on the logit scale. Its variance is that of the pairs' placements: of independent pairs
    DeLong's, of linked ones summed by cluster (Obuchowski 1997), or over all pairs that have a unit in common where
    units are what is resampled (Fafchamps & Gubert 2007). Where the groups are wholly apart there is no variance to go
    by: then it is Newcombe's score interval (2006, method 5) of as many pairs as each group is worth at least.
    """
    from scipy import special

    links, first = sample.links, sample.cognate
    row = sample.row(member)
    above = _placements(row[first], row[~first])
    below = 1 - _placements(row[~first], row[first])  # for each control the share of cognates above it
    chance = float(above.mean())
    influence = np.zeros(len(row))
    influence[first], influence[~first] = (above - chance) / sample.n, (below - chance) / sample.m
    if links.independent:
        variance, df = float(above.var(ddof=1) / sample.n + below.var(ddof=1) / sample.m), len(row) - 2.0
    elif sample.by_units:
        unit, crossing = links.unit, links.unit[:, 0] != links.unit[:, 1]
        touching = np.bincount(unit[:, 0], influence, minlength=int(unit.max()) + 1)
        touching += np.bincount(unit[crossing, 1], influence[crossing], minlength=len(touching))
        variance = float((touching**2).sum() - (influence[crossing] ** 2).sum())
        df = sample.effective_units - 1
        variance *= (df + 1) / max(df, 1.0)
    else:
        by_cluster = np.bincount(links.cluster, weights=influence)
        df = len(by_cluster) - 1.0
        variance = float((by_cluster**2).sum()) * (df + 1) / max(df, 1.0)
    if df < 1 or sample.lacking:
        return chance, None
    if not variance > 1e-15 or not 0 < chance < 1:
        n, m = (effective(np.bincount(links.cluster[group])) for group in (first, ~first))
        return chance, _newcombe(chance, n, m, float(special.ndtri((1 + confidence) / 2)))
    half = float(special.stdtrit(df, (1 + confidence) / 2)) * math.sqrt(variance) / (chance * (1 - chance))
    middle = float(special.logit(chance))
    return chance, _interval(float(special.expit(middle - half)), float(special.expit(middle + half)))


def _placements(x: Array, y: Array) -> Array:
    """For each of x the share of y below it, ties half."""
    ordered, order = np.sort(y), np.argsort(x)
    wanted = x[order]  # looked up in order, which is many times faster where there are very many
    share = np.empty(len(x))
    share[order] = (np.searchsorted(ordered, wanted, "left") + np.searchsorted(ordered, wanted, "right")) / 2 / len(y)
    return share


def _newcombe(chance: float, n: float, m: float, z: float) -> Interval:
    """Where |θ − A| = z √V, V = θ (1 − θ) (1 + (N − 1) ((1 − θ)/(2 − θ) + θ/(1 + θ))) / (n m), N = (n + m) / 2."""
    from scipy import optimize

    def off(theta: float) -> float:
        v = 1 + ((n + m) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - chance) ** 2 - z**2 * theta * (1 - theta) * v / (n * m)

    inside = min(max(chance, 1e-12), 1 - 1e-12)
    low = 0.0 if chance <= 0 else float(optimize.brentq(off, 0.0, inside))
    high = 1.0 if chance >= 1 else float(optimize.brentq(off, inside, 1.0))
    return Interval(low, high)


def left_out(sample: Sample) -> tuple[Array, Array]:
    """The smallest and the largest Δ once all pairs that touch any one unit are left out, float64 [members] each.

    NaN where that leaves no two groups whichever unit it is.
    """
    unit = sample.links.unit
    units = int(unit.max()) + 1
    crossing = unit[:, 0] != unit[:, 1]
    ends = [np.arange(len(unit)), np.flatnonzero(crossing)]
    size = np.zeros((2, units))
    for side, pairs in enumerate(ends):
        for group, chosen in enumerate((sample.cognate, ~sample.cognate)):
            size[group] += np.bincount(unit[pairs, side], weights=chosen[pairs], minlength=units)
    rest_n, rest_m = sample.n - size[0], sample.m - size[1]
    whole = (rest_n > 0) & (rest_m > 0)
    order = np.argsort(np.concatenate([unit[:, 0], unit[crossing, 1]]), kind="stable")
    touching = np.concatenate(ends)[order]
    of = np.concatenate([unit[:, 0], unit[crossing, 1]])[order]
    low, high = np.full(sample.members, np.inf), np.full(sample.members, -np.inf)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(of)) + 1])
    ends_of = np.append(starts[1:], len(of))
    begin = 0
    while begin < len(starts):
        stop = max(begin + 1, int(np.searchsorted(ends_of, starts[begin] + sample.at_once, side="right")))
        pairs = touching[starts[begin] : ends_of[stop - 1]]
        values, cognate, at = sample.residuals(pairs), sample.cognate[pairs], starts[begin:stop] - starts[begin]
        these = of[starts[begin:stop]]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.add.reduceat(values * cognate, at, axis=1) / rest_n[these]
            y = np.add.reduceat(values * ~cognate, at, axis=1) / rest_m[these]
        change = (y - x)[:, whole[these]]
        if change.size:
            low, high = np.minimum(low, change.min(axis=1)), np.maximum(high, change.max(axis=1))
        begin = stop
    delta = sample.moments.delta
    return delta + np.where(np.isfinite(low), low, np.nan), delta + np.where(np.isfinite(high), high, np.nan)


def equivalence(delta: Array, error: Array, df: Array, bound: Array) -> Array:
    """p of two one-sided tests that |Δ| is at least `bound`, all float64 [members].

    bound is a number of standard deviations that were estimated with `error`, so that at the bound t is noncentral
    (Wellek 2010, chapter 6), where a bound known beforehand would make it central (Schuirmann 1987). For normal
    similarities of independent pairs right up to Welch's approximation of the degrees of freedom.
    """
    from scipy import stats

    with np.errstate(invalid="ignore", divide="ignore"):
        t, nc = np.abs(delta) / error, bound / error
    # the nearer bound has the larger p: P(T ≤ |t|) at +bound, written as an upper tail, which SciPy keeps exact
    p = np.where(df > 1e4, stats.norm.cdf(t - nc), stats.nct.sf(-t, df, -nc))
    return np.where(np.isfinite(t), np.asarray(p), np.nan)


def _interval(low: float, high: float) -> Interval | None:
    return Interval(float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None
