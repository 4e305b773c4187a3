"""Permutation tests that keep linked pairs together: t of every labelling, and how often it reaches the observed one.

References: Phipson & Smyth (2010) for counting the observed; Janssen (1997) and Chung & Romano (2013) for dividing by
the standard error of each labelling, so that groups may differ in spread; Westfall & Young (1993) for max-T.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from pairprobe.records import BoolArray, IntArray
from pairprobe.statistics.sample import BLOCK, TIE, Array, Sample
from pairprobe.statistics.schemes import Flips, Scheme, Shuffle

MOST = 50_000_000  # relabelled differences, each with its standard error, held together: 0.8 GB
FLOOR = 1e-8  # of the variance over labellings; groups that vary less within than that are taken to vary so much
DIGITS = 1e-12  # of that variance, which the difference of two sums of squares may lose to rounding


# ── relabelled differences ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Draws:
    """Relabelled differences, less what the scheme gives on average, and the standard error of each.

    values, errors: float64 [labellings, members]; observed, error: float64 [members], the same of the pairs as they
    are; expected: the mean of Δ over all labellings, which was taken off; sd: the standard deviation of Δ over all
    labellings, from a formula, NaN where nothing varies; slack: differences that are rounding.
    """

    values: Array
    errors: Array
    observed: Array
    error: Array
    expected: Array
    sd: Array
    slack: Array
    exact: bool
    smallest: float

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def extra(self) -> int:
        """Where labellings are drawn, the observed one is counted in."""
        return 0 if self.exact else 1

    @property
    def defined(self) -> BoolArray:
        return np.isfinite(self.sd)

    @cached_property
    def reach(self) -> Array:
        """float64 [members]: |t| of the pairs as they are, less what may be rounding; NaN where undefined."""
        with np.errstate(invalid="ignore", divide="ignore"):
            lost = TIE + DIGITS * (self.sd / self.error) ** 2
            found = (np.abs(self.observed) - self.slack) / self.error * (1 - lost)
        return np.where(self.defined, found, np.nan)

    def t(self, rows: slice) -> Array:
        """float64 [rows, members]: relabelled differences over their standard errors; 0 where undefined."""
        values, errors = self.values[rows], self.errors[rows]
        return np.divide(values, errors, out=np.zeros_like(values), where=self.defined & (errors > 0))

    @property
    def blocks(self) -> Iterator[slice]:
        return _rows(self.count, len(self.observed))


@dataclass(frozen=True, eq=False)
class Relabelled:
    """p-values by member of the family, float64 [members], and what they rest on."""

    two_sided: Array
    greater: Array
    less: Array
    max_t: Array
    count: int
    exact: bool
    smallest: float


def draws(sample: Sample, scheme: Scheme, permutations: int, exact_below: int, seed: int) -> Draws:
    """Δ and its standard error under all labellings of the scheme where these are at most `exact_below`, else under
    random ones.

    The same labellings serve all members. Values are read in blocks, so that beside the links (and the pairs that the
    caller holds) memory grows with labellings × members, not with the pairs; a
    shuffle that spans blocks has its cognates dealt to them as a multivariate hypergeometric distribution says.
    """
    n, m, members = sample.n, sample.m, sample.members
    unit = 1 / n + 1 / m  # Δ changes by this times the sum of the relabelled cognates
    exact = scheme.count <= exact_below and scheme.count * members <= MOST
    rng = np.random.default_rng([seed, 2])
    count = scheme.count if exact else permutations
    found, squared = np.zeros((2, count + 1, members))  # the last row is the observed labelling
    variance = np.zeros(members)
    stride = count
    for part in scheme.parts:
        labellings = part.labellings if exact else count
        sums, squares = np.zeros((2, labellings + 1, members))
        whole = np.zeros(members)
        shuffled = isinstance(part, Shuffle)  # signs leave squares as they are
        for values, labels in _blocks(sample, part, labellings, exact, rng):
            both = np.concatenate([values, values**2]) if shuffled else values
            whole += (values**2).sum(axis=1)
            added = labels.observed @ both.T
            sums[-1] += added[:members]
            if shuffled:
                squares[-1] += added[members:]
            for rows in _rows(labellings, both.shape[1]):
                product = (labels.every[rows] if exact else labels.draw(rows)).astype(np.float64) @ both.T
                sums[rows] += product[:, :members]
                if shuffled:
                    squares[rows] += product[:, members:]
        variance += part.variance(whole)
        errors = part.errors(sums, squares, whole, n, m)
        if exact:  # every combination of every part's labellings, the first part's slowest
            stride //= labellings
            which = np.append(np.arange(count) // stride % labellings, labellings)
            sums, errors = sums[which], errors[which]
        found += sums
        squared += errors
    moments = sample.moments
    sd = np.sqrt(variance) * unit
    sd = np.where(np.isfinite(moments.sd) & (sd > moments.scale * 1e-12), sd, np.nan)
    found *= unit
    np.maximum(squared, FLOOR * variance, out=squared)
    error = np.sqrt(squared, out=squared)
    error *= unit
    smallest = scheme.smallest if exact else max(scheme.smallest, 1 / (permutations + 1))
    expected = moments.delta - found[-1]
    return Draws(found[:-1], error[:-1], found[-1], error[-1], expected, sd, TIE * moments.reach, exact, smallest)


def p_values(found: Draws) -> Relabelled:
    """Of t = Δ, less what the scheme gives on average, over its standard error, both of the labelling itself.

    Two-sided: how often |t*| ≥ |t|; one-sided: t* ≥ t, or ≤; max-T: how often the largest of the family's |t*| reaches
    this member's (single step).

    Exact where the null hypothesis is that labels may be exchanged; where it says only that means are equal, right for
    many pairs, whatever the groups' spreads and sizes (Chung & Romano 2013).
    """
    defined = found.defined
    signed = np.sign(found.observed) * found.reach
    slack = 2 * (np.abs(found.observed) / np.where(defined, found.error, 1.0) - found.reach)
    hits = np.zeros((4, len(found.observed)))
    for rows in found.blocks:
        t = found.t(rows)
        size = np.abs(t)
        hits[0] += (size >= found.reach).sum(axis=0)
        hits[1] += (t >= np.where(signed > 0, signed, signed - slack)).sum(axis=0)
        hits[2] += (t <= np.where(signed > 0, signed + slack, signed)).sum(axis=0)
        largest = np.sort(size.max(axis=1))
        hits[3] += len(largest) - np.searchsorted(largest, found.reach)
    p = np.where(defined, (hits + found.extra) / (found.count + found.extra), np.nan)
    return Relabelled(p[0], p[1], p[2], p[3], found.count, found.exact, found.smallest)


def band(found: Draws, alpha: float) -> tuple[Array, Array]:
    """(low, high), float64 [members]: the Δ between which p_max_t is above `alpha`, NaN where it is undefined.

    The (1 − alpha) quantile of the family's largest |t*|, times each member's own standard error. With so few
    labellings that no Δ could pass, the band has no end, and is NaN.
    """
    defined = found.defined
    nothing = np.full(len(defined), np.nan)
    allowed = math.floor(alpha * (found.count + found.extra) * (1 + 1e-12)) - found.extra  # labellings that reach Δ
    if allowed < 1 - found.extra or not defined.any():  # of all labellings, one is the observed
        return nothing, nothing
    largest = np.concatenate([np.abs(found.t(rows)).max(axis=1) for rows in found.blocks])
    if allowed >= len(largest):
        return nothing, nothing
    reach = np.partition(largest, -1 - allowed)[-1 - allowed] * found.error
    return tuple(np.where(defined, found.expected + side * reach, np.nan) for side in (-1, 1))  # type: ignore[return-value]


def relabel(x: Array, y: Array, permutations: int, exact_below: int, seed: int) -> Relabelled:
    """The test of independent pairs: x, y float64 [members, pairs] of the two groups."""
    sample = Sample.of(x, y)
    return p_values(draws(sample, Scheme.of(sample), permutations, exact_below, seed))


# ── labels by the block ──────────────────────────────────────────────────────────────────────────────────


class _Shuffled:
    """Labels of one block of a shuffle, of which `cognates` (int, or by labelling) are drawn."""

    def __init__(self, observed: Array, cognates: int | IntArray, rng: np.random.Generator):
        self.observed, self.cognates, self.rng = observed, cognates, rng

    @cached_property
    def every(self) -> IntArray:
        """int8 [labellings, atoms]."""
        chosen = np.array(list(combinations(range(len(self.observed)), int(self.cognates))), dtype=np.int64)
        labels = np.zeros((len(chosen), len(self.observed)), dtype=np.int8)
        np.put_along_axis(labels, chosen, 1, axis=1)
        return labels

    def draw(self, rows: slice) -> IntArray:
        """int8 [rows, atoms]."""
        k = self.cognates if isinstance(self.cognates, int) else self.cognates[rows][:, None]
        atoms = len(self.observed)
        ordered = np.broadcast_to(np.arange(atoms) < k, (rows.stop - rows.start, atoms)).astype(np.int8)
        return self.rng.permuted(ordered, axis=1)


class _Flipped:
    """Signs of one block of clusters."""

    def __init__(self, clusters: int, rng: np.random.Generator):
        self.observed, self.rng = np.ones(clusters), rng

    @cached_property
    def every(self) -> IntArray:
        """int8 [labellings, clusters]."""
        clusters = len(self.observed)
        bits = np.arange(2**clusters)[:, None] >> np.arange(clusters)[::-1] & 1
        return (1 - 2 * bits).astype(np.int8)

    def draw(self, rows: slice) -> IntArray:
        shape = (rows.stop - rows.start, len(self.observed))
        return (2 * self.rng.integers(0, 2, shape, dtype=np.int8) - 1).astype(np.int8)


def _blocks(
    sample: Sample, part: Shuffle | Flips, labellings: int, exact: bool, rng: np.random.Generator
) -> Iterator[tuple[Array, _Shuffled | _Flipped]]:
    """(values [members, atoms], their labels) of one block of atoms after another; all in one where `exact`.

    What a labelling gives is the sum of label times value; those of a shuffle have mean 0, so that the average is 0.
    """
    if isinstance(part, Flips):
        ends = np.append(part.starts[1:], len(part.pairs))
        start, clusters = 0, len(part.starts)
        while start < clusters:
            begin = part.starts[start]
            stop = max(start + 1, int(np.searchsorted(ends, begin + sample.at_once, side="right")))
            stop = clusters if exact else stop
            pairs = part.pairs[begin : ends[stop - 1]]
            inside = np.repeat(np.arange(stop - start), ends[start:stop] - part.starts[start:stop])
            values = _exchanged(sample, pairs, inside, part.starts[start:stop] - begin)
            yield values, _Flipped(stop - start, rng)
            start = stop
        return
    atoms, pairs_each = part.atoms.shape
    step = atoms if exact else max(1, sample.at_once // pairs_each)
    cuts = [part.atoms[i : i + step] for i in range(0, atoms, step)]
    mean = sum(_sums(sample, cut).sum(axis=1) for cut in cuts) / atoms if len(cuts) > 1 else None
    sizes = [len(cut) for cut in cuts]
    dealt = None
    if len(cuts) > 1:
        dealt = rng.multivariate_hypergeometric(sizes, part.cognates, labellings, method="marginals")
    place = 0
    for i, cut in enumerate(cuts):
        values = _sums(sample, cut)
        values -= (values.mean(axis=1) if mean is None else mean)[:, None]
        observed = (place + np.arange(len(cut)) < part.cognates).astype(np.float64)
        yield values, _Shuffled(observed, part.cognates if dealt is None else dealt[:, i], rng)
        place += len(cut)


def _sums(sample: Sample, atoms: IntArray) -> Array:
    """float64 [members, atoms]: the sum over each atom's pairs."""
    found = sample.centred(atoms.ravel()).reshape(sample.members, *atoms.shape)
    return found[..., 0] if atoms.shape[1] == 1 else found.sum(axis=2)


def _exchanged(sample: Sample, pairs: IntArray, inside: IntArray, starts: IntArray) -> Array:
    """float64 [members, clusters]: what a cluster adds to Δ when the means of its groups do not, or (with a minus
    sign) do change places, less their average; in units of 1/n + 1/m."""
    cognate = sample.cognate[pairs]
    k = np.bincount(inside, weights=cognate)
    j = np.bincount(inside, weights=~cognate)
    share = (k / sample.n + j / sample.m) / 2 / (1 / sample.n + 1 / sample.m)
    weight = np.where(cognate, (share / k)[inside], (-share / j)[inside])
    return np.asarray(np.add.reduceat(sample.centred(pairs) * weight, starts, axis=1))


def _rows(labellings: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(1, columns))
    for start in range(0, labellings, step):
        yield slice(start, min(start + step, labellings))
