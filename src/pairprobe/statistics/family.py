"""Many tests at once: the share of false ones, and what all specifications say together.

References: Benjamini & Hochberg (1995); Simonsohn, Simmons & Nelson (2020) for the specification curve.
Single-step max-T is in relabelling.py, since it needs every relabelled statistic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pairprobe.records import IntArray
from pairprobe.statistics.effects import hedges_correction
from pairprobe.statistics.relabelling import DIGITS, Draws
from pairprobe.statistics.sample import BLOCK, TIE, Array, Sample


def benjamini_hochberg(p: Array) -> Array:
    """Adjusted p (often called q), as many as there are p; NaN stays, and does not count.

    The expected share of false ones among all with q ≤ α is at most α where tests are independent or positively
    dependent.
    """
    found = np.full(len(p), np.nan)
    defined = np.flatnonzero(np.isfinite(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    stepped = p[order] * len(order) / np.arange(1, len(order) + 1)
    found[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return found


@dataclass(frozen=True)
class Curve:
    """What specifications say together. None where undefined.

    median_g: over members; p_median: how often relabelled pairs give a median at least as far from what the scheme
    gives on average. significant: share of members with p ≤ α whose difference has the median's sign; p_significant:
    how often relabelled pairs give as many, whichever the sign of their median. agree: share of members with the sign.
    """

    median_g: float | None
    p_median: float | None
    significant: float | None
    p_significant: float | None
    agree: float | None


def specification_curve(sample: Sample, found: Draws, alpha: float) -> Curve:
    """The joint tests of Simonsohn, Simmons & Nelson (2020), under the labellings of `found`.

    Each labelling is taken through the whole analysis as the observed one is: g of every member, their median, and the
    p of every member, which is its rank among the labellings. Members that are undefined are left out. No p where the
    labellings are too few for any p ≤ α.
    """
    use = np.flatnonzero(found.defined)
    moments = sample.moments
    finite = np.isfinite(moments.sd)
    unit = math.sqrt(1 / sample.n + 1 / sample.m)
    correction = hedges_correction(sample.n + sample.m - 2)
    g = correction * moments.t[finite] * unit
    if not g.size:
        return Curve(None, None, None, None, None)
    median = float(np.median(g))
    agree = float((np.sign(g) == np.sign(median)).mean())
    if not use.size or found.smallest > alpha:
        return Curve(median, None, None, None, agree)

    # the observed labelling is the last row; where all are compared it is among them, and is not counted twice
    rows = found.count + found.extra
    medians = np.empty(found.count + 1)
    size = max(1, BLOCK // len(use))
    for start in range(0, found.count, size):
        stop = min(start + size, found.count)
        medians[start:stop] = _median_g(sample, found, found.values[start:stop, use], use)
    medians[-1] = _median_g(sample, found, found.observed[None, use], use)[0]
    counts = np.zeros(found.count + 1, dtype=np.int64)
    threshold = math.floor(alpha * rows * (1 + 1e-12))  # of so many labellings a p ≤ α may be one
    for i in use:
        values = np.append(found.values[:, i], found.observed[i])
        errors = np.append(found.errors[:, i], found.error[i])
        reach = np.abs(values) / errors
        beyond = np.partition(reach[:rows], rows - 1 - threshold)[rows - 1 - threshold]
        lost = found.slack[i] / errors + (TIE + DIGITS * (found.sd[i] / errors) ** 2) * reach
        counts += (reach - lost > beyond) & (np.sign(values) == np.sign(medians))
    return Curve(
        median,
        float((np.abs(medians[:rows]) >= abs(medians[-1]) * (1 - TIE)).mean()),
        float(counts[-1] / len(use)),
        float((counts[:rows] >= counts[-1]).mean()),
        agree,
    )


def _median_g(sample: Sample, found: Draws, differences: Array, use: IntArray) -> Array:
    """float64 [labellings]: the median of g over members, for relabelled differences [labellings, used members].

    The pooled variance of a labelling is what the total sum of squares, which stays, leaves beside the difference.
    """
    n, m = sample.n, sample.m
    delta = differences + found.expected[use]
    within = sample.moments.total_squares[use] - n * m / (n + m) * delta**2
    within = np.maximum(within, TIE * sample.moments.total_squares[use])  # groups wholly apart leave only rounding
    g = differences / np.sqrt(within / (n + m - 2))
    return np.asarray(hedges_correction(n + m - 2) * np.median(g, axis=1))
