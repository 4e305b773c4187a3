"""Two runs that differ in the precision of their weights → how far vectors, Δ and tests differ, depth by depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pairprobe.errors import StatisticsError
from pairprobe.evidence import Agreement, PrecisionEffect
from pairprobe.outcomes import GroupTest
from pairprobe.records import PairSet, Similarities, Vectors
from pairprobe.statistics.paired import deltas_of_deltas


def agreement(first: Vectors, second: Vectors, words: Sequence[str]) -> tuple[Agreement, ...]:
    """Cosine between each word's two vectors, by depth. words: [texts], what the vectors are of.

    Raises:
        StatisticsError: the vectors are not of the same words, depths and width.
    """
    if first.values.shape != second.values.shape or first.depths != second.depths:
        raise StatisticsError(
            f"vectors of shapes {list(first.values.shape)} and {list(second.values.shape)} [depths, words, width] cannot "
            "be compared word by word."
        )
    found = []
    for depth, x, y in zip(
        first.depths, first.values.astype(np.float64), second.values.astype(np.float64), strict=True
    ):
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        if not lengths.all():
            found.append(Agreement(depth, None, None, ""))
            continue
        cosines = np.minimum((x * y).sum(axis=1) / lengths, 1.0)  # rounding may go beyond
        least = int(cosines.argmin())
        found.append(Agreement(depth, float(cosines.mean()), float(cosines[least]), words[least]))
    return tuple(found)


def effect(
    weights: str,
    pairs: PairSet,
    similarities: tuple[Similarities, Similarities],
    tests: tuple[GroupTest, GroupTest],
    alike: tuple[Agreement, ...],
) -> PrecisionEffect:
    """What rounding to `weights` changes. similarities, tests: as stored, and rounded, of one similarity and control.

    Raises:
        StatisticsError: see `paired.deltas_of_deltas`.
    """
    before, after = tests
    deltas = deltas_of_deltas(
        similarities[0].values, similarities[1].values, pairs, before.control, confidence=before.confidence
    )
    both = [(a, b) for a, b in zip(before.depths, after.depths, strict=True) if a.p is not None and b.p is not None]
    changed = [a.depth for a, b in both if ((a.p or 0.0) <= before.alpha) != ((b.p or 0.0) <= before.alpha)]
    return PrecisionEffect(
        weights, before.similarity, before.control, similarities[0].depths, deltas, alike, tuple(changed), len(both),
        before.alpha,
    )  # fmt: skip
