"""Cosine after the mean vector is taken out: what is left once the direction all words share is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pairprobe.errors import StatisticsError
from pairprobe.records import Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import Change, cosines_by_depth, mean_of
from pairprobe.similarities.vocabulary import caution, demand, overlap, reference_or_own


@dataclass(frozen=True)
class Centred:
    """Cosine of vectors less the mean over the reference words, depth by depth.

    Without at least 20 reference words the mean is that of the run's own distinct texts, the same words that are
    measured: among n texts unrelated ones then have a cosine of about −1/(n − 1), not 0, in every group alike, so Δ is
    not moved by it. Fewer than 20 such texts are told under `beware`: each is a large part of the mean it is measured
    from, so that a cosine says how many words there are as much as how alike two of them are.
    """

    name: str = "centred"

    reads_reference: ClassVar[bool] = True

    def refuse(self, texts: Texts) -> StatisticsError | None:
        return overlap(texts)

    def measure(self, vectors: Vectors, texts: Texts) -> Similarities:
        """One cosine per depth and pair. Raises StatisticsError for a vector that equals the mean, or not finite."""
        demand(self.refuse(texts))
        vocabulary = reference_or_own(texts)

        def at(values: Any, depth: int) -> Change:
            mean = mean_of(values, texts, vocabulary.which, depth)
            return lambda rows, _: rows - mean

        values = cosines_by_depth(vectors, texts, at, "centred vector")
        about = f"cosine after subtracting the mean of {vocabulary.said}"
        beware = "" if vocabulary.name else caution(self.name, len(vocabulary.which))
        return Similarities(self.name, values, vectors.depths, about, vocabulary.name, beware)
