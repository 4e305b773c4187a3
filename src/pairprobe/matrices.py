"""Words of the cognate pairs, all first against all second ones: a similarity's own `measure`, asked for every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pairprobe.evidence import PartnerTest
from pairprobe.records import COGNATE, BoolArray, IntArray, PairSet, PartnerMatrix, Texts, Vectors
from pairprobe.statistics.partners import Pool, design, partner_tests

#: Numbers that the cells of all similarities take together: a few seconds. With two similarities 186 000 cells of a
#: model of 384 dimensions and 7 depths, 750 of one of 8192 and 81.
WORK = 1_000_000_000
AT_ONCE = 64_000_000  # bytes of float64 vectors that a similarity is asked to hold for one side of the cells
KEPT = 20_000  # values of a matrix that is small enough to keep


def partners(
    statistics: Any, similarities: Sequence[Any], vectors: Vectors | None, texts: Texts | None, pairs: PairSet
) -> tuple[dict[str, PartnerTest], PartnerMatrix | None]:
    """The partner question for every similarity, and the whole matrix where it is small.

    Nothing without vectors, or where no word has another candidate.
    """
    if vectors is None or texts is None:
        return {}, None
    chosen = np.flatnonzero(pairs.members(COGNATE))
    cognates = [pairs.pairs[i] for i in chosen]
    a, b = texts.a[chosen], texts.b[chosen]
    depths, _, width = vectors.values.shape
    plan = design(cognates, a, b, WORK // (depths * width * len(similarities)), statistics.seed)
    kept: list[tuple[Pool, Mapping[str, npt.NDArray[np.float64]]]] = []
    small = len(plan.pools) == 1 and len(plan.pools[0].rows) ** 2 * depths * len(similarities) <= KEPT

    def measured(pool: Pool) -> Mapping[str, npt.NDArray[np.float64]]:
        cells = np.ones_like(pool.candidates) if small else pool.candidates
        found = {s.name: _matrix(s, vectors, texts, a[pool.rows], b[pool.rows], cells) for s in similarities}
        if small:
            kept.append((pool, found))
        return found

    tests = partner_tests(plan, measured, {s.name: vectors.depths for s in similarities}, statistics)
    if not kept:
        return tests, None
    ((pool, values),) = kept
    rows = tuple(cognates[int(i)] for i in pool.rows)
    return tests, PartnerMatrix(rows, vectors.depths, dict(values), pool.candidates)


def _matrix(
    similarity: Any, vectors: Vectors, texts: Texts, a: IntArray, b: IntArray, cells: BoolArray
) -> npt.NDArray[np.float64]:
    """float64 [depths, n, n]: texts `a` [n] by texts `b` [n] where `cells` [n, n] is true, else NaN; in parts."""
    rows, columns = np.nonzero(cells)
    found = np.full((len(vectors.depths), *cells.shape), np.nan)
    step = max(1, AT_ONCE // (8 * vectors.values.shape[2]))
    for start in range(0, len(rows), step):
        i, j = rows[start : start + step], columns[start : start + step]
        found[:, i, j] = similarity.measure(vectors, replace(texts, a=a[i], b=b[j])).values
    return found
