"""Raw cosine. Never to be read alone: one model's vectors share a few dominant directions."""

from __future__ import annotations

from dataclasses import dataclass

from pairprobe.records import Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import cosines_by_depth


@dataclass(frozen=True)
class Cosine:
    """a · b / (|a| |b|), computed in float64."""

    name: str = "cosine"

    def measure(self, vectors: Vectors, texts: Texts) -> Similarities:
        """One cosine per depth and pair. Raises StatisticsError for a vector of length zero, or not finite."""
        return Similarities(self.name, cosines_by_depth(vectors, texts), vectors.depths, "raw cosine")
