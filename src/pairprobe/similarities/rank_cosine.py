"""Spearman's correlation over dimensions: which dimensions are high, not how high, so that no outlier decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairprobe.records import IntArray, Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import Rows, blocks, cosines, finite_lengths, used


@dataclass(frozen=True)
class RankCosine:
    """Cosine of the two vectors' centred ranks, ties sharing their mean rank: Spearman's ρ (Zhelezniak et al. 2019)."""

    name: str = "rank_cosine"

    def measure(self, vectors: Vectors, texts: Texts) -> Similarities:
        """One ρ per depth and pair. Raises StatisticsError for a vector whose dimensions are all equal, or not
        finite."""
        paired = used(texts)
        found = []
        for values, depth in zip(vectors.values, vectors.depths, strict=True):
            ranked = np.zeros(values.shape, dtype=np.float32)  # each word is ranked once, however many pairs it is in
            for part in blocks(paired, values.shape[1]):
                finite_lengths(values[part].astype(np.float64), texts, part, depth)
                ranked[part] = centred_ranks(values[part])
            found.append(cosines(Rows(ranked), texts, depth, "vector of ranks"))
        about = "Spearman's correlation over the dimensions"
        return Similarities(self.name, np.stack(found), vectors.depths, about)


def centred_ranks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """float32 [n, width]: ranks along the width less their mean. Ranks and halves are exact up to a width of 2²³."""
    from scipy import stats

    order: IntArray = np.argsort(values, axis=1)
    ranks = np.empty(values.shape, dtype=np.float32)
    np.put_along_axis(ranks, order, np.arange(1, values.shape[1] + 1, dtype=np.float32)[None], axis=1)
    ties = (np.diff(np.take_along_axis(values, order, axis=1), axis=1) == 0).any(axis=1)
    if ties.any():
        ranks[ties] = stats.rankdata(values[ties], axis=1)
    return ranks - np.float32((values.shape[1] + 1) / 2)
