"""Lengths of vectors, a block of vectors at a time, so that no matrix of all texts is made dense in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pairprobe.errors import StatisticsError
from pairprobe.records import IntArray, Texts

BLOCK = 1 << 21  # float64 values of one side of a block: 16 MB
MOST = 2048  # vectors of a block, at most: a table of one block against another is then 32 MB


def blocks(which: IntArray, width: int) -> Iterator[IntArray]:
    """`which` in parts whose vectors fill a block, few enough for a table of two parts."""
    size = max(1, min(MOST, BLOCK // max(1, width)))
    for start in range(0, len(which), size):
        yield which[start : start + size]


def finite_lengths(raw: npt.NDArray[np.float64], texts: Texts, which: IntArray, depth: int) -> npt.NDArray[np.float64]:
    """float64 [n]: lengths of `raw` [n, width], the vectors of the texts `which` at `depth`.

    Raises:
        StatisticsError: one holds NaN or infinity. It names word and depth.
    """
    found: npt.NDArray[np.float64] = np.linalg.norm(raw, axis=1)
    wrong = which[~np.isfinite(found)]
    if len(wrong):
        raise StatisticsError(
            f"the vector of '{texts.texts[int(wrong[0])].word.form}' at depth {depth} holds NaN or infinity; nothing "
            "can be computed from it.",
            "Compute in float32 (execution.dtype=float32), anew (execution.resume=false), or leave the word out.",
        )
    return found
