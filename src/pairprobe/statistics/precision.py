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
            f"vectors of shapes {list(first.values.shape)} and {list(second.values.shape)} [depths, words, width] "
            "cannot be compared word by word."
        )
    found = []
    for i, depth in enumerate(first.depths):
        x, y = (of.values[i].astype(np.float64) for of in (first, second))  # [words, width]
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
    among: int = 1,
) -> PrecisionEffect:
    """What rounding to `weights` changes.

    Args:
        similarities, tests: as stored, and rounded, of one similarity and control group.
        alike: what `agreement` says of the two runs' vectors.
        among: roundings that are compared with the same run, which `corrected` allows for (Bonferroni).

    Raises:
        StatisticsError: see `paired.deltas_of_deltas`.
    """
    before, after = tests
    values = similarities[0].values, similarities[1].values
    deltas = deltas_of_deltas(*values, pairs, before.control, before.confidence)
    corrected = deltas_of_deltas(*values, pairs, before.control, 1 - (1 - before.confidence) / among)
    both = [(a, b) for a, b in zip(before.depths, after.depths, strict=True) if a.p is not None and b.p is not None]
    changed = [a.depth for a, b in both if ((a.p or 0.0) <= before.alpha) != ((b.p or 0.0) <= before.alpha)]
    return PrecisionEffect(
        weights=weights,
        similarity=before.similarity,
        control=before.control,
        depths=similarities[0].depths,
        deltas=deltas,
        corrected=tuple(d.ci for d in corrected),
        agreement=alike,
        changed=tuple(changed),
        tested=tuple(a.depth for a, _ in both),
        alpha=before.alpha,
    )
