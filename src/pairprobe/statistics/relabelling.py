"""Permutation tests that keep linked pairs together: which labellings the null hypothesis makes equally likely.

References: Phipson & Smyth (2010) for counting the observed; Winkler, Webster, Vidaurre, Nichols & Smith (2015) for
exchangeability blocks; Canay, Romano & Shaikh (2017) for exchanging signs of clusters; Westfall & Young (1993) for
max-T.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from pairprobe.outcomes import PAIRS_RELABELLED
from pairprobe.records import BoolArray, IntArray
from pairprobe.statistics.sample import BLOCK, TIE, Array, Sample

MOST = 100_000_000  # float64 values that all relabelled statistics may hold together: 0.8 GB


# ── which labellings ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Shuffle:
    """Strata that are each relabelled by themselves: atoms change labels among each other.

    atoms: int [strata, atoms, pairs]: the pairs of each atom, which keep together; `cognates` atoms of each stratum
    are cognates, and come first.
    """

    atoms: IntArray
    cognates: int

    @property
    def bits(self) -> float:
        """log₂ of the number of labellings."""
        m, k = self.atoms.shape[1], self.cognates
        return len(self.atoms) * (math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1)) / math.log(2)

    @property
    def labellings(self) -> int:
        return int(math.comb(self.atoms.shape[1], self.cognates) ** len(self.atoms))


@dataclass(frozen=True, eq=False)
class Scheme:
    """What changes places.

    shuffles: clusters of one group, as wholes, with clusters of as many pairs. flips: int [pairs of clusters that hold
    both groups], in order of the cluster, each beginning at `starts`: the means of its cognates and of its controls.
    """

    shuffles: tuple[Shuffle, ...]
    flips: IntArray
    starts: IntArray
    independent: bool

    @cached_property
    def moved(self) -> int:
        """Pairs that may change places."""
        return sum(s.atoms.size for s in self.shuffles) + len(self.flips)

    @cached_property
    def count(self) -> int:
        """How many labellings there are; 2⁶² stands for that and all larger numbers."""
        if sum(s.bits for s in self.shuffles) + len(self.starts) > 62:
            return 2**62
        return math.prod(s.labellings for s in self.shuffles) * int(2 ** len(self.starts))

    @property
    def smallest(self) -> float:
        """The smallest two-sided p that all labellings can give."""
        mirrored = self.count > 1 and all(2 * s.cognates == s.atoms.shape[1] for s in self.shuffles)
        return (2 if mirrored else 1) / self.count  # a mirror image has the same |Δ|

    @property
    def words(self) -> str:
        if self.independent:
            return PAIRS_RELABELLED
        parts = ["clusters of one size exchanged whole"] if self.shuffles else []
        parts += ["labels exchanged within clusters"] if len(self.starts) else []
        return " and ".join(parts)

    @classmethod
    def of(cls, sample: Sample) -> Scheme:
        """The scheme of these links.

        Clusters of one group change labels with clusters of as many pairs, so that the numbers of pairs stay as they
        are. In a cluster that holds both groups, the mean of its cognates and that of its controls change places,
        which is exact where the two are exchangeable (matched designs), and right for many clusters whatever they
        hold. Its pairs never change labels one by one: cognates of one word are cognates of each other, controls of
        one concept are too alike, and a labelling that mixed them would seem to vary less than the groups do.
        """
        cluster, cognate = sample.links.cluster, sample.cognate
        order = np.lexsort((~cognate, cluster))
        size = np.bincount(cluster)
        first = np.concatenate([[0], np.cumsum(size)[:-1]])
        cognates = np.bincount(cluster, weights=cognate).astype(np.int64)
        mixed = (cognates > 0) & (cognates < size)
        whole = []
        for s in np.unique(size[~mixed]).tolist():
            these = np.flatnonzero(~mixed & (size == s))
            these = these[np.argsort(cognates[these] == 0, kind="stable")]
            k = int((cognates[these] > 0).sum())
            if 0 < k < len(these):
                whole.append(Shuffle(order[first[these][:, None] + np.arange(s)][None], k))
        flipped = np.flatnonzero(mixed)
        sizes = size[flipped]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if len(flipped) else flipped
        inside = np.arange(sizes.sum()) - np.repeat(starts, sizes)
        flips = order[np.repeat(first[flipped], sizes) + inside]
        return cls(tuple(whole), flips, starts, sample.links.independent)


# ── relabelled differences ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Draws:
    """Relabelled differences, less what the scheme gives on average.

    values: float64 [labellings, members]; observed, expected, sd: float64 [members], the observed Δ less `expected`,
    the mean of Δ over all labellings, and their standard deviation, both from formulas; slack: differences that are
    rounding. sd is NaN where nothing varies.
    """

    values: Array
    observed: Array
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
    """Δ under all labellings of the scheme where these are at most `exact_below`, else under random ones.

    The same labellings serve all members. Memory does not grow with the pairs: their values are read in blocks, and a
    stratum that spans blocks has its cognates dealt to them as a multivariate hypergeometric distribution says.
    """
    unit = 1 / sample.n + 1 / sample.m  # Δ changes by this times the sum of the relabelled cognates
    exact = scheme.count <= exact_below and scheme.count * sample.members <= MOST
    rng = np.random.default_rng([seed, 2])
    found = np.zeros((scheme.count if exact else permutations, sample.members))
    observed, variance = np.zeros(sample.members), np.zeros(sample.members)
    digits: list[tuple[Array, IntArray]] = []
    for values, labelled, labels in _blocks(sample, scheme, len(found), exact, rng):
        observed += values @ labelled
        variance += labels.variance(values)
        if exact:
            digits.append((values, labels.every))
        else:
            for rows in _rows(len(found), values.shape[1]):
                found[rows] += labels.draw(rows).astype(np.float64) @ values.T
    if exact:
        _enumerate(found, digits)
    sd = np.sqrt(variance) * unit
    observed *= unit
    found *= unit
    moments = sample.moments
    sd = np.where(np.isfinite(moments.sd) & (sd > moments.scale * 1e-12), sd, np.nan)
    smallest = scheme.smallest if exact else max(scheme.smallest, 1 / (permutations + 1))
    return Draws(found, observed, moments.delta - observed, sd, TIE * moments.reach, exact, smallest)


def p_values(found: Draws) -> Relabelled:
    """Two-sided: how often |Δ*| ≥ |Δ|, both less what the scheme gives on average; one-sided: Δ* ≥ Δ, or ≤; max-T: how
    often the largest of the family's |Δ*| over their standard deviations reaches this member's (single step).

    Of independent pairs that is the pooled |t|, which then orders labellings as |Δ| over the root of the total sum of
    squares does.
    """
    observed, slack, defined = found.observed, found.slack, found.defined
    sd = np.where(defined, found.sd, 1.0)
    reach = (np.abs(observed) - slack) / sd
    hits = np.zeros((4, len(observed)))
    size = max(1, BLOCK // max(1, len(observed)))
    for start in range(0, found.count, size):
        part = found.values[start : start + size]
        hits[0] += (np.abs(part) >= np.abs(observed) - slack).sum(axis=0)
        hits[1] += (part >= observed - slack).sum(axis=0)
        hits[2] += (part <= observed + slack).sum(axis=0)
        largest = np.sort(np.where(defined, np.abs(part) / sd, -np.inf).max(axis=1))
        hits[3] += len(largest) - np.searchsorted(largest, reach)
    p = np.where(defined, (hits + found.extra) / (found.count + found.extra), np.nan)
    return Relabelled(p[0], p[1], p[2], p[3], found.count, found.exact, found.smallest)


def band(found: Draws, alpha: float) -> tuple[Array, Array]:
    """(low, high), float64 [members]: the Δ between which p_max_t is above `alpha`, NaN where it is undefined.

    The (1 − alpha) quantile of the family's largest |Δ*| over its standard deviation, in each member's own units. With
    so few labellings that no Δ could pass, the band has no end, and is NaN.
    """
    defined = found.defined
    nothing = np.full(len(defined), np.nan)
    allowed = math.floor(alpha * (found.count + found.extra) * (1 + 1e-12)) - found.extra  # labellings that reach Δ
    if allowed < 1 - found.extra or not defined.any():  # of all labellings, one is the observed
        return nothing, nothing
    sd = np.where(defined, found.sd, 1.0)
    largest = np.empty(found.count)
    size = max(1, BLOCK // len(defined))
    for start in range(0, found.count, size):
        part = np.abs(found.values[start : start + size]) / sd
        largest[start : start + size] = np.where(defined, part, -np.inf).max(axis=1)
    if allowed >= len(largest):
        return nothing, nothing
    reach = np.partition(largest, -1 - allowed)[-1 - allowed] * sd
    return tuple(np.where(defined, found.expected + side * reach, np.nan) for side in (-1, 1))  # type: ignore[return-value]


def relabel(x: Array, y: Array, permutations: int, exact_below: int, seed: int) -> Relabelled:
    """The test of independent pairs: x, y float64 [members, pairs] of the two groups."""
    sample = Sample.of(x, y)
    return p_values(draws(sample, Scheme.of(sample), permutations, exact_below, seed))


# ── labels by the block ──────────────────────────────────────────────────────────────────────────────────


class _Shuffled:
    """Labels of one block: `strata` of `atoms` each, of which `cognates` (int, or by labelling) are drawn."""

    def __init__(self, strata: int, atoms: int, cognates: int | IntArray, whole: Shuffle, rng: np.random.Generator):
        self.strata, self.atoms, self.cognates, self.of, self.rng = strata, atoms, cognates, whole, rng

    def variance(self, values: Array) -> Array:
        """Of the sum of values whose strata have mean 0."""
        m, k = self.of.atoms.shape[1], self.of.cognates
        return np.asarray(k * (m - k) / (m * (m - 1)) * (values**2).sum(axis=1))

    @property
    def every(self) -> IntArray:
        """int [labellings, atoms] of one stratum; all strata of the block are alike."""
        k = int(self.of.cognates)
        chosen = np.array(list(combinations(range(self.atoms), k)), dtype=np.int64)
        labels = np.zeros((len(chosen), self.atoms), dtype=np.int8)
        np.put_along_axis(labels, chosen, 1, axis=1)
        return labels

    def draw(self, rows: slice) -> IntArray:
        """int8 [rows, strata · atoms]."""
        n = rows.stop - rows.start
        k = self.cognates if isinstance(self.cognates, int) else self.cognates[rows][:, None, None]
        ordered = np.broadcast_to(np.arange(self.atoms) < k, (n, self.strata, self.atoms)).astype(np.int8)
        return self.rng.permuted(ordered, axis=2).reshape(n, -1)


class _Flipped:
    """Signs of one block of clusters."""

    def __init__(self, clusters: int, rng: np.random.Generator):
        self.clusters, self.rng = clusters, rng

    def variance(self, values: Array) -> Array:
        return np.asarray((values**2).sum(axis=1))

    @property
    def every(self) -> IntArray:
        return np.array([[1], [-1]], dtype=np.int8)

    def draw(self, rows: slice) -> IntArray:
        return (2 * self.rng.integers(0, 2, (rows.stop - rows.start, self.clusters), dtype=np.int8) - 1).astype(np.int8)


def _blocks(
    sample: Sample, scheme: Scheme, labellings: int, exact: bool, rng: np.random.Generator
) -> Iterator[tuple[Array, Array, _Shuffled | _Flipped]]:
    """(values [members, atoms], the observed labels [atoms], how to draw others) of one block of atoms after another.

    What a labelling gives is the sum of label times value: values of a stratum have mean 0, so that the average is 0.
    """
    for shuffle in scheme.shuffles:
        strata, atoms, pairs = shuffle.atoms.shape
        fits = sample.at_once // (atoms * pairs)
        if fits or exact:  # whole strata in a block
            for start in range(0, strata, max(1, fits)):
                part = shuffle.atoms[start : start + max(1, fits)]
                values = _sums(sample, part)
                values -= values.mean(axis=2, keepdims=True)
                labels = np.tile(np.arange(atoms) < shuffle.cognates, len(part)).astype(np.float64)
                drawn = _Shuffled(len(part), atoms, shuffle.cognates, shuffle, rng)
                yield values.reshape(sample.members, -1), labels, drawn
            continue
        step = max(1, sample.at_once // pairs)
        for stratum in shuffle.atoms:
            cuts = [stratum[None, i : i + step] for i in range(0, atoms, step)]
            mean = sum(_sums(sample, part).sum(axis=2) for part in cuts) / atoms
            sizes = [part.shape[1] for part in cuts]
            dealt = rng.multivariate_hypergeometric(sizes, shuffle.cognates, labellings, method="marginals")
            place = 0
            for i, part in enumerate(cuts):
                values = (_sums(sample, part) - mean[:, :, None])[:, 0]
                labels = (place + np.arange(sizes[i]) < shuffle.cognates).astype(np.float64)
                yield values, labels, _Shuffled(1, sizes[i], dealt[:, i], shuffle, rng)
                place += sizes[i]
    ends = np.append(scheme.starts[1:], len(scheme.flips))
    start = 0
    while start < len(scheme.starts):
        begin = scheme.starts[start]
        stop = max(start + 1, int(np.searchsorted(ends, begin + sample.at_once, side="right")))
        pairs = scheme.flips[begin : ends[stop - 1]]
        inside = np.repeat(np.arange(stop - start), ends[start:stop] - scheme.starts[start:stop])
        values = _exchanged(sample, pairs, inside, scheme.starts[start:stop] - begin)
        yield values, np.ones(stop - start), _Flipped(stop - start, rng)
        start = stop


def _sums(sample: Sample, atoms: IntArray) -> Array:
    """float64 [members, strata, atoms]: the sum over each atom's pairs."""
    found = sample.centred(atoms.ravel()).reshape(sample.members, *atoms.shape)
    return found[..., 0] if atoms.shape[2] == 1 else found.sum(axis=3)


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


def _enumerate(found: Array, digits: list[tuple[Array, IntArray]]) -> None:
    """Every combination of every stratum's labellings, the first digit slowest; adds up into `found`."""
    stride = len(found)
    rows = np.arange(len(found))
    for values, every in digits:
        width = every.shape[1]
        for start in range(0, values.shape[1], width):
            stride //= len(every)
            table = every.astype(np.float64) @ values[:, start : start + width].T  # [labellings, members]
            found += table[rows // stride % len(every)]
