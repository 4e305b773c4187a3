"""How near two vectors lie, lengths and all: the negative of their distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pairprobe.norms import blocks, finite_lengths
from pairprobe.records import Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import Array, Rows, compared, used


@dataclass(frozen=True)
class Euclidean:
    """−|a − b|, computed in float64: 0 for equal vectors, and the more below 0 the farther apart.

    Not squared and not turned into a share of 1, so that Δ is in the units of the vectors themselves: a Δ of −0.2 says
    that cognates lie 0.2 farther apart. Those units differ between depths and models.
    """

    name: str = "euclidean"

    def measure(self, vectors: Vectors, texts: Texts) -> Similarities:
        """One negative distance per depth and pair. Raises StatisticsError for a vector that is not finite."""
        found = []
        for values, depth in zip(vectors.values, vectors.depths, strict=True):
            rows = Rows(values)
            for part in blocks(used(texts), rows.width):
                finite_lengths(rows.raw(part), texts, part, depth)
            distances = compared(rows, texts, lambda x, y: np.linalg.norm(x - y, axis=1), _table)
            found.append(0.0 - distances)
        return Similarities(self.name, np.stack(found), vectors.depths, "negative Euclidean distance")


def _table(x: Array, y: Array) -> Array:
    from scipy.spatial.distance import cdist  # differences themselves: by dot products near vectors lose their digits

    distances: Array = cdist(x, y)
    return distances
