"""Which labellings of linked pairs the null hypothesis makes equally likely, and how much Δ varies within each.

References: Winkler, Webster, Vidaurre, Nichols & Smith (2015) for exchangeability blocks; Canay, Romano & Shaikh (2017)
for exchanging signs of clusters; Janssen (1997), Chung & Romano (2013) for standard errors of each labelling's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pairprobe.outcomes import PAIRS_RELABELLED
from pairprobe.records import IntArray
from pairprobe.statistics.sample import Array, Sample


@dataclass(frozen=True, eq=False)
class Shuffle:
    """Clusters of one group and one size, which change labels among each other as wholes.

    atoms: int [clusters, pairs]: their pairs; `cognates` of them are cognates, and come first.
    """

    atoms: IntArray
    cognates: int

    @property
    def bits(self) -> float:
        """log₂ of the number of labellings."""
        m, k = len(self.atoms), self.cognates
        return (math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1)) / math.log(2)

    @property
    def labellings(self) -> int:
        return math.comb(len(self.atoms), self.cognates)

    def variance(self, squares: Array) -> Array:
        """Over all labellings, of the sum over cognates of values whose mean is 0 and whose squares add up to that."""
        m, k = len(self.atoms), self.cognates
        return np.asarray(k * (m - k) / (m * (m - 1)) * squares)

    def errors(self, sums: Array, squares: Array, whole: Array, n: int, m: int) -> Array:
        """What this adds to the squared standard error of Δ over (1/n + 1/m)², from each labelling's own groups.

        Of independent pairs that is Welch's. sums, squares: float64 [labellings, members], over cognates, of values
        whose mean over all is 0; whole: [members], all squares. A group of one has no spread of its own: then it is
        the variance over all labellings.
        """
        k, rest = self.cognates, len(self.atoms) - self.cognates
        if min(k, rest) < 2:
            return np.broadcast_to(self.variance(whole), sums.shape)
        within = squares - sums**2 / k
        others = whole - squares - sums**2 / rest
        return np.asarray((m * m * k / (k - 1) * within + n * n * rest / (rest - 1) * others) / (n + m) ** 2)


@dataclass(frozen=True, eq=False)
class Flips:
    """Clusters that hold both groups, in which the means of the two change places.

    pairs: int, in order of the cluster, each cluster beginning at `starts`.
    """

    pairs: IntArray
    starts: IntArray

    @property
    def bits(self) -> float:
        return float(len(self.starts))

    @property
    def labellings(self) -> int:
        return int(2 ** len(self.starts))

    def variance(self, squares: Array) -> Array:
        return squares

    def errors(self, sums: Array, _squares: Array, whole: Array, *_sizes: int) -> Array:
        """As of a shuffle; the squares of what clusters add stay as they are whatever their signs."""
        clusters = len(self.starts)
        if clusters < 2:
            return np.broadcast_to(whole, sums.shape)
        return np.asarray((whole * clusters - sums**2) / (clusters - 1))


@dataclass(frozen=True, eq=False)
class Scheme:
    """What changes places.

    shuffles: clusters of one group, as wholes, with clusters of as many pairs. flips: clusters that hold both groups,
    None where there are none. balanced: both groups have as many pairs, so that a mirror image has the same |t|.
    """

    shuffles: tuple[Shuffle, ...]
    flips: Flips | None
    independent: bool
    balanced: bool

    @property
    def parts(self) -> tuple[Shuffle | Flips, ...]:
        return (*self.shuffles, self.flips) if self.flips else self.shuffles

    @cached_property
    def moved(self) -> IntArray:
        """Which pairs may change places."""
        pairs = [s.atoms.ravel() for s in self.shuffles] + ([self.flips.pairs] if self.flips else [])
        return np.concatenate(pairs) if pairs else np.zeros(0, dtype=np.int64)

    @cached_property
    def count(self) -> int:
        """How many labellings there are; 2⁶² stands for that and all larger numbers."""
        if sum(part.bits for part in self.parts) > 62:
            return 2**62
        return math.prod(part.labellings for part in self.parts)

    @property
    def smallest(self) -> float:
        """The smallest two-sided p that all labellings can give."""
        mirrored = all(2 * s.cognates == len(s.atoms) for s in self.shuffles) and (self.balanced or not self.shuffles)
        return (2 if mirrored and self.count > 1 else 1) / self.count  # a mirror image has the same |t|

    @property
    def words(self) -> str:
        if self.independent:
            return PAIRS_RELABELLED
        parts = ["clusters of one size exchanged whole"] if self.shuffles else []
        parts += ["labels exchanged within clusters"] if self.flips else []
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
                whole.append(Shuffle(order[first[these][:, None] + np.arange(s)], k))
        flips = None
        if mixed.any():
            sizes = size[mixed]
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
            inside = np.arange(sizes.sum()) - np.repeat(starts, sizes)
            flips = Flips(order[np.repeat(first[mixed], sizes) + inside], starts)
        return cls(tuple(whole), flips, sample.links.independent, sample.n == sample.m)
