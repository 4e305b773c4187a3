"""Spearman's correlation over dimensions: which dimensions are high, not how high, so that no outlier decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairprobe.norms import blocks, finite_lengths
from pairprobe.records import Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import Rows, cosines, used


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
    """float32 [n, width]: ranks along the width less their mean. Ranks and halves are exact up to a width of 2²³.

    Each number and its place become one integer that sorts as the number does: many times faster than an argsort, and
    of 4096 floats some always tie.
    """
    n, width = values.shape
    bits = (values + np.float32(0)).view(np.uint32)  # −0 is 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))  # as integers, in the order of the floats
    keys = np.sort((ordered.astype(np.uint64) << np.uint64(32)) | np.arange(width, dtype=np.uint64), axis=1)
    first = np.ones((n, width), dtype=bool)  # of the numbers that tie
    first[:, 1:] = np.diff(keys >> np.uint64(32), axis=1) != 0
    starts = np.flatnonzero(first)
    count = np.diff(np.append(starts, n * width))
    mean_rank = (starts % width + (count + 1) / 2 - (width + 1) / 2).astype(np.float32)
    places = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64) + width * np.arange(n)[:, None]
    ranks = np.empty(n * width, dtype=np.float32)
    ranks[places.ravel()] = np.repeat(mean_rank, count)
    return ranks.reshape(n, width)
