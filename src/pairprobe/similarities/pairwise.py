"""All pairs of one depth at a low price: block by block, and as a table where the pairs nearly are one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairprobe import norms
from pairprobe.errors import StatisticsError
from pairprobe.norms import blocks, finite_lengths
from pairprobe.records import IntArray, Texts, Vectors

Array = npt.NDArray[np.float64]
#: (vectors float64 [n, width], which texts they are: int [n]) → the vectors to compare, float64 [n, width]
Change = Callable[[Array, IntArray], Array]
Compare = Callable[[Array, Array], Array]

TILE = 1024  # words on a side of a tile, at most: 8 MB
TABLE = 4096  # fewer pairs than this are computed one by one, so that a pair's number never hangs on its neighbours
FULL = 1 / 16  # of a table must be asked for, for the whole table to be the cheaper way
NOTHING = 1e-12  # cosines this near 0, and lengths this small beside what was subtracted, are rounding


@dataclass(frozen=True, eq=False)
class Rows:
    """The vectors of one depth as they are compared. values: float32 [texts, width]; change: what is done to them."""

    values: npt.NDArray[np.float32]
    change: Change | None = None

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    def raw(self, which: IntArray) -> Array:
        """float64 [n, width], as the model gave them."""
        return self.values[which].astype(np.float64)

    def __call__(self, which: IntArray) -> Array:
        return self.raw(which) if self.change is None else self.change(self.raw(which), which)


def cosines_by_depth(
    vectors: Vectors,
    texts: Texts,
    change: Callable[[npt.NDArray[np.float32], int], Change] | None = None,
    what: str = "vector",
) -> Array:
    """float64 [depths, pairs]. change: (values [texts, width], depth) → what is done to the vectors of that depth."""
    found = []
    for values, depth in zip(vectors.values, vectors.depths, strict=True):
        found.append(cosines(Rows(values, change(values, depth) if change else None), texts, depth, what))
    return np.stack(found)


def cosines(rows: Rows, texts: Texts, depth: int, what: str = "vector") -> Array:
    """float64 [pairs], at one depth.

    Raises:
        StatisticsError: a vector is not finite, or has no length and so no direction. It names word and depth.
    """
    lengths = lengths_of(rows, texts, used(texts), depth, what)
    products = compared(rows, texts, lambda x, y: np.einsum("pd,pd->p", x, y), lambda x, y: x @ y.T)
    cosine = np.clip(products / (lengths[texts.a] * lengths[texts.b]), -1.0, 1.0)  # rounding may pass 1 by an ulp
    return settled(cosine)


def compared(rows: Rows, texts: Texts, one_by_one: Compare, table: Compare) -> Array:
    """float64 [pairs]: each pair's two vectors compared.

    one_by_one: [n, width], [n, width] → [n]; table: [n, width], [m, width] → [n, m], the same for all against all.
    Memory is that of a few blocks, however many the pairs are.
    """
    found = np.empty(len(texts.a))
    if len(texts.a) >= TABLE:
        a, row = np.unique(texts.a, return_inverse=True)
        b, column = np.unique(texts.b, return_inverse=True)
        if len(texts.a) >= FULL * len(a) * len(b):
            size = max(1, min(TILE, norms.BLOCK // rows.width))
            tile = row // size * (len(b) // size + 1) + column // size
            order = np.argsort(tile, kind="stable")
            for mine in np.split(order, np.flatnonzero(np.diff(tile[order])) + 1):
                i, j = row[mine[0]] // size * size, column[mine[0]] // size * size
                of_tile = table(rows(a[i : i + size]), rows(b[j : j + size]))
                found[mine] = of_tile[row[mine] - i, column[mine] - j]
            return found
    for part in blocks(np.arange(len(texts.a)), rows.width):
        found[part] = one_by_one(rows(texts.a[part]), rows(texts.b[part]))
    return found


def settled(values: Array) -> Array:
    """What is rounding about 0 becomes 0, so that numbers that are equal stay equal."""
    values[np.abs(values) < NOTHING] = 0.0
    return values


def used(texts: Texts) -> IntArray:
    """int, ascending: the texts that stand in a pair."""
    return np.union1d(texts.a, texts.b)


def lengths_of(rows: Rows, texts: Texts, which: IntArray, depth: int, what: str = "vector") -> Array:
    """float64 [texts]: lengths of the vectors of `which`, NaN for the others. Raises StatisticsError as `cosines`."""
    found = np.full(len(texts), np.nan)
    for part in blocks(which, rows.width):
        raw = rows.raw(part)
        plain = finite_lengths(raw, texts, part, depth)
        found[part] = plain if rows.change is None else np.linalg.norm(rows.change(raw, part), axis=1)
        without = part[~(found[part] > (NOTHING * plain if rows.change else 0.0))]
        if len(without):
            raise StatisticsError(
                f"the {what} of '{texts.texts[int(without[0])].word.form}' at depth {depth} has length zero; it has no "
                "direction, so its cosine is undefined.",
                "Leave its pairs out of the table, or this depth out: method.depths=[…]",
            )
    return found


def mean_of(values: npt.NDArray[np.float32], texts: Texts, which: IntArray, depth: int) -> Array:
    """float64 [width]: the mean vector of `which`. Raises StatisticsError for one that is not finite."""
    total = np.zeros(values.shape[1])
    for part in blocks(which, values.shape[1]):
        raw = values[part].astype(np.float64)
        finite_lengths(raw, texts, part, depth)
        total += raw.sum(axis=0)
    return total / len(which)


def spread_of(values: npt.NDArray[np.float32], mean: Array, which: IntArray) -> Array:
    """float64 [width]: the standard deviation (n − 1) of each dimension over `which`; 0 where it is rounding."""
    total = np.zeros(values.shape[1])
    for part in blocks(which, values.shape[1]):
        total += ((values[part].astype(np.float64) - mean) ** 2).sum(axis=0)
    spread: Array = np.sqrt(total / (len(which) - 1))
    spread[spread <= NOTHING * np.abs(mean)] = 0.0
    return spread
