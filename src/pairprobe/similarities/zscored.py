"""Cosine with every dimension brought to mean 0 and spread 1, so that a few loud dimensions do not decide alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pairprobe.errors import StatisticsError
from pairprobe.records import Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import Change, cosines_by_depth, mean_of, spread_of
from pairprobe.similarities.vocabulary import GIVE, caution, demand, overlap, own, reference_or_own


@dataclass(frozen=True)
class ZScored:
    """Cosine of (v − mean) / standard deviation, dimension by dimension (Timkey & van Schijndel 2021).

    Mean and standard deviation (n − 1) are those of the reference words; without at least 20 of them those of the run's
    own distinct texts, in which case unrelated words have a cosine of about −1/(n − 1) in every group alike. Fewer than
    20 of those are told under `beware`.
    """

    name: str = "zscored"

    reads_reference: ClassVar[bool] = True

    def refuse(self, texts: Texts) -> StatisticsError | None:
        few = len(own(texts))
        if reference_or_own(texts).name == "" and few < 3:
            return StatisticsError(
                f"zscored needs the spread of at least 3 words; this run has {few} and no reference.", GIVE
            )
        return overlap(texts)

    def measure(self, vectors: Vectors, texts: Texts) -> Similarities:
        """One cosine per depth and pair. Raises StatisticsError for a dimension that does not vary among the words it
        is scaled by, a vector that equals their mean, or one that is not finite."""
        demand(self.refuse(texts))
        vocabulary = reference_or_own(texts)

        def at(values: Any, depth: int) -> Change:
            mean = mean_of(values, texts, vocabulary.which, depth)
            spread = spread_of(values, mean, vocabulary.which)
            flat = np.flatnonzero(spread == 0)
            if len(flat):
                first = f"{len(flat)} of {len(spread)} dimensions (the first is {flat[0]})"
                raise StatisticsError(
                    f"zscored at depth {depth}: {first} have the same value in all of {vocabulary.said}; nothing can "
                    "be divided by a spread of zero.",
                    f"Leave this depth out (method.depths=[…]) or zscored. {'' if vocabulary.name else GIVE}".strip(),
                )
            return lambda rows, _: (rows - mean) / spread

        values = cosines_by_depth(vectors, texts, at, "z-scored vector")
        about = f"cosine after scaling each dimension by mean and standard deviation of {vocabulary.said}"
        beware = "" if vocabulary.name else caution(self.name, len(vocabulary.which))
        return Similarities(self.name, values, vectors.depths, about, vocabulary.name, beware)
