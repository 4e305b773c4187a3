"""Two groups of pairs measured in many ways at once, read a block of pairs at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pairprobe.outcomes import LEAST_WORTH
from pairprobe.records import BoolArray, IntArray
from pairprobe.statistics.units import Links

Array = npt.NDArray[np.float64]
TIE = 1e-9  # relabelled statistics this close (relative) to the observed are equal up to rounding
BLOCK = 4_000_000  # float64 values a block may hold: 32 MB
FEWEST = 10  # effective clusters; with fewer, units are resampled where there are more of them


def effective(weights: npt.NDArray[Any]) -> float:
    """Of how many equal parts a sum of independent parts is worth: (Σ w)² / Σ w² (Kish 1965); empty ones are none."""
    return float(weights.sum() ** 2 / (weights**2).sum())


@dataclass(frozen=True, eq=False)
class Sample:
    """Cognates and one control group. A member of the family is one way to measure: a similarity at a depth.

    parts: arrays float64 [members of this part, all pairs] (memory maps too: only blocks of pairs are read); columns:
    int [pairs], which of their pairs these are, in order; cognate: bool [pairs]; links among these pairs.
    """

    parts: tuple[npt.NDArray[Any], ...]
    columns: IntArray
    cognate: BoolArray
    links: Links

    @classmethod
    def of(cls, x: Array, y: Array) -> Sample:
        """Independent pairs: x, y float64 [members, pairs] of the two groups."""
        n, pairs = x.shape[1], x.shape[1] + y.shape[1]
        alone = Links(np.arange(pairs), np.arange(2 * pairs).reshape(-1, 2))
        return cls((np.concatenate([x, y], axis=1),), np.arange(pairs), np.arange(pairs) < n, alone)

    @property
    def members(self) -> int:
        return sum(len(part) for part in self.parts)

    @cached_property
    def n(self) -> int:
        return int(self.cognate.sum())

    @cached_property
    def m(self) -> int:
        return len(self.cognate) - self.n

    @cached_property
    def by_units(self) -> bool:
        """Clusters are worth fewer than FEWEST, mostly since one outweighs the others, and units are worth more: then
        units are what is resampled. With so few clusters their intervals are too narrow, and those by units are not."""
        weight = np.where(self.cognate, 1 / self.n**2, 1 / self.m**2)
        clusters = effective(np.bincount(self.links.cluster, weights=weight))
        return not self.links.independent and clusters < FEWEST and self.effective_units > clusters

    @cached_property
    def effective_units(self) -> float:
        weight = np.where(self.cognate, 1 / self.n**2, 1 / self.m**2)
        return effective(np.bincount(self.links.unit.ravel(), weights=np.repeat(weight, 2)))

    @cached_property
    def worth(self) -> tuple[float, float]:
        """Of how many independent pairs each group is worth at least; the groups' sizes where pairs are independent.

        Where units are resampled, a group is worth no more than the units on either side of its pairs: sixty controls
        of two first words are worth two, however many second words they have.
        """
        found = []
        for group in (self.cognate, ~self.cognate):
            parts = [self.links.cluster[group]]
            if self.by_units:
                unit = self.links.unit[group]
                parts = [unit[:, 0], unit[:, 1], unit.ravel()]
            found.append(min(float(group.sum()), *(effective(np.bincount(part)) for part in parts)))
        return found[0], found[1]

    @property
    def lacking(self) -> bool:
        """Either group is worth too little for an interval of anything that compares the groups."""
        return min(self.worth) < LEAST_WORTH

    @property
    def at_once(self) -> int:
        """How many pairs a block holds."""
        return max(64, min(20_000, BLOCK // max(1, self.members)))

    def block(self, pairs: IntArray) -> Array:
        """float64 [members, len(pairs)]: their values as they are."""
        wanted = self.columns[pairs]
        run = len(wanted) and int(wanted[-1] - wanted[0]) == len(wanted) - 1 and bool((np.diff(wanted) == 1).all())
        where: Any = slice(int(wanted[0]), int(wanted[-1]) + 1) if run else wanted
        found = [np.asarray(part[:, where], dtype=np.float64) for part in self.parts]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def row(self, member: int) -> Array:
        """float64 [pairs]: one member of the family."""
        for part in self.parts:
            if member < len(part):
                return np.asarray(part[member], dtype=np.float64)[self.columns]
            member -= len(part)
        raise IndexError(member)

    def centred(self, pairs: IntArray) -> Array:
        """The same, less each member's mean over all pairs: sums lose less to rounding, and no difference changes."""
        return self.block(pairs) - self.moments.mean[:, None]

    def residuals(self, pairs: IntArray) -> Array:
        """The same, less the mean of the pair's own group."""
        x, y = self.moments.cognates, self.moments.controls
        return self.block(pairs) - np.where(self.cognate[pairs], x[:, None], y[:, None])

    def cut(self, pairs: IntArray | None = None) -> Sequence[IntArray]:
        """The pairs (all, if none are named) in blocks of `at_once`."""
        pairs = np.arange(len(self.columns)) if pairs is None else pairs
        return [pairs[i : i + self.at_once] for i in range(0, len(pairs), self.at_once)]

    @cached_property
    def moments(self) -> Moments:
        """Means and squares of both groups, in two passes over the values."""
        sums = np.zeros((2, self.members))
        for pairs in self.cut():
            values, first = self.block(pairs), self.cognate[pairs]
            sums += np.stack([values[:, first].sum(axis=1), values[:, ~first].sum(axis=1)])
        x, y = sums[0] / self.n, sums[1] / self.m
        squares = np.zeros((2, self.members))
        scale, reach = np.zeros(self.members), np.zeros(self.members)
        middle = (self.n * x + self.m * y) / (self.n + self.m)
        for pairs in self.cut():
            values, first = self.block(pairs), self.cognate[pairs]
            scale = np.maximum(scale, np.abs(values).max(axis=1))
            reach = np.maximum(reach, np.abs(values - middle[:, None]).max(axis=1))
            for group, mean, chosen in ((0, x, first), (1, y, ~first)):
                squares[group] += ((values[:, chosen] - mean[:, None]) ** 2).sum(axis=1)
        return Moments(x, y, squares[0], squares[1], scale, reach, self.n, self.m)


@dataclass(frozen=True, eq=False)
class Moments:
    """All float64 [members]. cognates, controls: means; *_squares: sums of squares about them; scale: largest |value|;
    reach: largest distance from the mean of all."""

    cognates: Array
    controls: Array
    cognate_squares: Array
    control_squares: Array
    scale: Array
    reach: Array
    n: int
    m: int

    @property
    def delta(self) -> Array:
        return self.cognates - self.controls

    @property
    def mean(self) -> Array:
        """Over all pairs of both groups."""
        return (self.n * self.cognates + self.m * self.controls) / (self.n + self.m)

    @property
    def sd(self) -> Array:
        """Pooled standard deviation; NaN where all values of both groups are constant up to rounding."""
        spread = np.sqrt((self.cognate_squares + self.control_squares) / (self.n + self.m - 2))
        error = spread * np.sqrt(1 / self.n + 1 / self.m)
        return np.where(error > self.scale * 1e-12, spread, np.nan)

    @property
    def t(self) -> Array:
        """Two-sample t with pooled variance."""
        return np.asarray(self.delta / (self.sd * np.sqrt(1 / self.n + 1 / self.m)))

    @property
    def total_squares(self) -> Array:
        """About the mean of all pairs; no relabelling changes it."""
        between = self.n * self.m / (self.n + self.m) * self.delta**2
        return self.cognate_squares + self.control_squares + between
