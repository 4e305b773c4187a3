"""Cosine after the mean and the k strongest directions of the space are taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pairprobe.errors import StatisticsError, at_least
from pairprobe.records import IntArray, Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import NOTHING, Array, Change, cosines_by_depth, mean_of
from pairprobe.similarities.vocabulary import FEWEST, demand, lacking, overlap, referred

PER_DIRECTION = 10  # reference words for each direction taken out


@dataclass(frozen=True)
class AllButTheTop:
    """Cosine of x − Σ (uᵢ·x) uᵢ, where x = v − mean and u₁ … u_k are the first principal directions (Mu & Viswanath
    2018; as in the implementations in use, x itself is projected).

    k: directions to take out; the authors suggest about width / 100. Mean and directions are those of the reference
    words, at least 20 and ten for each direction: those of a few dozen words that are themselves compared would be
    their own differences.
    """

    name: str = "all_but_the_top"
    k: int = 3

    reads_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("similarity.all_but_the_top.k", self.k, 1)

    def refuse(self, texts: Texts) -> StatisticsError | None:
        few = lacking(self.name, texts, max(FEWEST, PER_DIRECTION * self.k), f"{PER_DIRECTION} for each of k={self.k}")
        return few or overlap(texts)

    def measure(self, vectors: Vectors, texts: Texts) -> Similarities:
        """One cosine per depth and pair. Raises StatisticsError where the reference varies in k directions or fewer,
        for a vector that lies within those taken out, or one that is not finite."""
        demand(self.refuse(texts))
        vocabulary = referred(texts)

        def at(values: Any, depth: int) -> Change:
            mean = mean_of(values, texts, vocabulary.which, depth)
            top = self._directions(values, mean, vocabulary.which, depth)

            def without(rows: Array, _: IntArray) -> Array:
                centred = rows - mean
                left: Array = centred - (centred @ top.T) @ top
                return left

            return without

        values = cosines_by_depth(vectors, texts, at, f"vector less the top {self.k}")
        about = f"cosine after taking out the mean and the {self.k} strongest directions of {vocabulary.said}"
        return Similarities(self.name, values, vectors.depths, about, vocabulary.name)

    def _directions(self, values: npt.NDArray[np.float32], mean: Array, which: IntArray, depth: int) -> Array:
        """float64 [k, width]: orthonormal, from the smaller of the two Gram matrices of the reference [n, width]."""
        from scipy import linalg

        centred = values[which].astype(np.float64) - mean
        tall = centred.shape[0] > centred.shape[1]
        gram = centred.T @ centred if tall else centred @ centred.T
        last = len(gram) - 1
        if self.k < last:  # one more than are taken out: the words must vary in what is left
            weight, found = linalg.eigh(gram, subset_by_index=(last - self.k, last))
        if self.k >= last or not weight[0] > NOTHING * max(weight[-1], float((mean**2).sum())):
            raise StatisticsError(
                f"all_but_the_top at depth {depth}: the reference words vary in too few directions for "
                f"k={self.k} to be taken out and something to be left.",
                "Set a smaller similarity.all_but_the_top.k, or leave this depth out: method.depths=[…]",
            )
        top = found[:, 1:]
        directions: Array = (top if tall else centred.T @ top / np.sqrt(weight[1:])).T
        return directions
