"""Groups of pairs and their similarities, for the tests of statistics and of the verdict."""

import numpy as np

from pairprobe.outcomes import GroupTest
from pairprobe.records import COGNATE, Pair, PairSet, Similarities, Word
from pairprobe.statistics.group_tests import Statistics

FAST = Statistics(resamples=200)  # where the interval of Δ is not what is asked


def pair_set(n: int, m: int, control: str = "control", shared: int = 0) -> PairSet:
    """n cognate and m control pairs; the first `shared` controls repeat the first word of a cognate pair."""
    cognates = [Pair(f"g{i}", COGNATE, Word(f"a{i}"), Word(f"b{i}")) for i in range(n)]
    controls = [Pair(f"k{i}", control, Word(f"a{i}" if i < shared else f"c{i}"), Word(f"d{i}")) for i in range(m)]
    return PairSet("set", (*cognates, *controls), "here")


def similarities(x: np.ndarray, y: np.ndarray, depths: tuple[int, ...] | None = None) -> Similarities:
    """x, y: [depths, pairs] (or [pairs] for one depth) of cognates and controls, in the order of pair_set."""
    values = np.concatenate([np.atleast_2d(x), np.atleast_2d(y)], axis=1).astype(np.float64)
    return Similarities("cosine", values, depths or tuple(range(len(values))))


def group_test(x, y, statistics: Statistics = FAST, depths: tuple[int, ...] | None = None) -> GroupTest:
    x, y = np.atleast_2d(np.array(x, dtype=float)), np.atleast_2d(np.array(y, dtype=float))
    pairs = pair_set(x.shape[1], y.shape[1])
    return statistics.tests([similarities(x, y, depths)], pairs)["cosine", "control"]


def drawn(seed: int, n: int, m: int, depths: int = 1, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Normal values [depths, n] and [depths, m], the first `shift` higher."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(depths, n)) + shift, rng.normal(size=(depths, m))
