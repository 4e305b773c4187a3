"""Two ways of measuring the same pairs → ΔΔ, how far their Δ lie apart, with an interval that respects the pairing.

What both ways share (how alike a pair's words look in any measurement) cancels pair by pair, so that ΔΔ is known far
better than either Δ. Pairs linked by a word, a concept or a cognate set are left out together. References:
Efron & Stein (1981) for the jackknife's variance; Bell & McCaffrey (2002) and MacKinnon, Nielsen & Webb (2023) for
clusters, where it holds its level with as few as six; a percentile or BCa bootstrap over the same clusters does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairprobe.errors import StatisticsError, between
from pairprobe.evidence import DeltaOfDeltas
from pairprobe.outcomes import CLAIM_WORTH, LEAST_WORTH, Interval
from pairprobe.records import COGNATE, PairSet
from pairprobe.statistics.sample import effective
from pairprobe.statistics.units import clusters

Array = npt.NDArray[np.float64]
#: Fewer clusters have no interval worth printing: with two, Student's t is 12.7.
LEAST_CLUSTERS = 3
#: Differences that are this small, relative to the similarities, are rounding.
ROUNDING = 1e-12


def delta_of_deltas(
    first: npt.ArrayLike, second: npt.ArrayLike, pairs: PairSet, control: str, confidence: float = 0.95
) -> DeltaOfDeltas:
    """ΔΔ = Δ(second) − Δ(first) of cognates against `control`.

    Args:
        first, second: float [pairs], the similarities of `pairs`, in their order, measured in two ways.
        confidence: level of the interval.

    Raises:
        StatisticsError: see `deltas_of_deltas`.
    """
    return deltas_of_deltas(np.atleast_2d(first), np.atleast_2d(second), pairs, control, confidence)[0]


def deltas_of_deltas(
    first: npt.ArrayLike, second: npt.ArrayLike, pairs: PairSet, control: str, confidence: float = 0.95
) -> tuple[DeltaOfDeltas, ...]:
    """The same at several depths at once: `first`, `second` float [depths, pairs].

    With dᵢ = secondᵢ − firstᵢ, ΔΔ is the difference of the groups' means of d. The interval is ΔΔ ± t(G − 1) · s,
    s² = (G − 1)/G · Σ (ΔΔ without cluster c − their mean)², over G clusters of linked pairs.

    Raises:
        StatisticsError: shapes do not fit the pairs, a number is not finite, or a group is empty.
    """
    between("confidence", confidence, 0.0, 1.0)
    before, after = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    cognate, against = pairs.members(COGNATE), pairs.members(control)
    if before.shape != after.shape or before.ndim != 2 or before.shape[1] != len(pairs.pairs):
        raise StatisticsError(
            f"similarities of shapes {list(before.shape)} and {list(after.shape)} are to be compared; both must be "
            f"[depths, {len(pairs.pairs)} pairs]."
        )
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise StatisticsError("a similarity is not finite; nothing can be compared with it.")
    if not cognate.any() or not against.any():
        raise StatisticsError(
            f"{int(cognate.sum())} cognate and {int(against.sum())} {control} pairs: both groups are needed.",
            f"Control groups of {pairs.name}: {', '.join(pairs.controls) or 'none'}.",
        )
    used = np.flatnonzero(cognate | against)
    belongs = clusters([pairs.pairs[i] for i in used])
    before, after, cognate = before[:, used], after[:, used], cognate[used]
    count = int(belongs.max()) + 1
    deltas = [x[:, cognate].mean(axis=1) - x[:, ~cognate].mean(axis=1) for x in (before, after)]
    differences = after - before
    estimates = differences[:, cognate].mean(axis=1) - differences[:, ~cognate].mean(axis=1)
    spread = np.abs(differences).max(axis=1) > ROUNDING * np.maximum(np.abs(before), np.abs(after)).max(axis=1)
    left_out = _without_each(differences, cognate, belongs, count)
    lacking = _lacking(left_out, count, control) or _worth_little(cognate, belongs, control)
    margins = np.zeros(len(estimates)) if lacking else _margins(left_out, count, confidence)
    varies = margins > ROUNDING * np.abs(differences).max(axis=1)
    return tuple(
        DeltaOfDeltas(
            estimate=float(estimates[i]),
            ci=Interval(float(estimates[i] - margins[i]), float(estimates[i] + margins[i]))
            if spread[i] and varies[i]
            else None,
            first=float(deltas[0][i]),
            second=float(deltas[1][i]),
            n_cognate=int(cognate.sum()),
            n_control=int((~cognate).sum()),
            clusters=count,
            confidence=confidence,
            why_no_ci=_why(bool(spread[i]), bool(varies[i]), lacking),
            why_no_claim=_no_claim(cognate, belongs, control),
        )
        for i in range(len(estimates))
    )


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of one group by cluster. values: float64 [depths, clusters]; pairs: how many, [clusters]."""

    values: Array
    pairs: Array

    def without_each(self) -> Array:
        """The group's mean without each cluster [depths, clusters]; NaN where nothing would be left."""
        left = self.pairs.sum() - self.pairs
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (self.values.sum(axis=1, keepdims=True) - self.values) / left
        return np.where(left > 0, means, np.nan)


def _without_each(
    differences: Array, cognate: npt.NDArray[np.bool_], belongs: npt.NDArray[np.integer], count: int
) -> Array:
    """ΔΔ without each cluster, float64 [depths, clusters]."""

    def sums(group: npt.NDArray[np.bool_]) -> _Sums:
        own = belongs[group]
        values = np.stack([np.bincount(own, row[group], count) for row in differences]).astype(np.float64)
        return _Sums(values, np.bincount(own, minlength=count).astype(np.float64))

    return sums(cognate).without_each() - sums(~cognate).without_each()


def _lacking(left_out: Array, count: int, control: str) -> str:
    """Why there is no interval, '' where there is one."""
    if count < LEAST_CLUSTERS:
        return f"all pairs are linked: {count} independent group{'s' * (count != 1)} of them, {LEAST_CLUSTERS} are due"
    if np.isnan(left_out).any():
        return f"all cognate or all {control} pairs are linked, so that nothing says how far their mean would vary"
    return ""


def _worth_little(cognate: npt.NDArray[np.bool_], belongs: npt.NDArray[np.integer], control: str) -> str:
    """That a group is worth too few independent pairs, (Σ n)² / Σ n² of its clusters' pairs, '' where it is not.

    Of sixty free cognates and sixty controls in two clusters 95 % intervals held the truth 82 times in a hundred, in
    three 87; of 30 free cognates against 2 free controls 83 (skewed 76), against 3 89 (84).
    """
    for group, name in ((cognate, COGNATE), (~cognate, control)):
        worth, size = effective(np.bincount(belongs[group])), int(group.sum())
        if worth == size < LEAST_WORTH:
            return f"{size} {name} pair{'s' * (size != 1)}, {LEAST_WORTH} are due"
        if worth < LEAST_WORTH:
            return f"the {name} pairs are linked into what is worth {worth:.2g} independent ones, {LEAST_WORTH} are due"
    return ""


def _no_claim(cognate: npt.NDArray[np.bool_], belongs: npt.NDArray[np.integer], control: str) -> str:
    worth = [effective(np.bincount(belongs[group])) for group in (cognate, ~cognate)]
    if min(worth) >= CLAIM_WORTH:
        return ""
    return (
        f"cognates are worth {worth[0]:.2g} and {control} pairs {worth[1]:.2g} independent pairs, and a claim needs "
        f"{CLAIM_WORTH} of each"
    )


def _why(spread: bool, varies: bool, lacking: str) -> str:
    if not spread:
        return "no similarity differs between the two"
    return lacking or ("" if varies else "all pairs of a group change by the same amount")


def _margins(left_out: Array, count: int, confidence: float) -> Array:
    """Half the width of each interval, float64 [depths]."""
    from scipy import stats

    spread = ((left_out - left_out.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    quantile = float(stats.t.ppf((1 + confidence) / 2, count - 1))
    return np.asarray(quantile * np.sqrt((count - 1) / count * spread), dtype=np.float64)
