"""All that `Statistics.tests` computes, and its relabelling alone, against scipy.stats.permutation_test.

SciPy is asked for the two-sided p only (|Δ| as statistic): depth by depth, as its documentation shows, on a third of
the depths, since all would take most of a minute per repetition on a small machine; and in one call over all depths,
which shares the permutations as we do. Its batches are of the sizes that were fastest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bench.case import Answers, Case, Clock, Differs, Rival, Sample

DEPTHS, PAIRS, RESAMPLES = 81, 1000, 10_000
EACH = slice(None, None, 3)  # the depths SciPy is called for one by one
SEVERAL = f"each of {len(range(DEPTHS)[EACH])} depths"
AT_ONCE = f"{DEPTHS} depths at once"
SIGMAS = 5.0


def prepare() -> None:
    """Nothing: both sides draw the same similarities."""


def similarities() -> npt.NDArray[np.float64]:
    """float64 [depths, pairs]: the first half cognates. Differences from none to 4 standard errors."""
    values = np.random.default_rng(0).normal(0.6, 0.1, (DEPTHS, PAIRS))
    values[:, : PAIRS // 2] += np.linspace(0, 4 * 0.1 * np.sqrt(4 / PAIRS), DEPTHS)[:, None]
    return values


def ours() -> Sample:
    import scipy.optimize
    import scipy.stats  # noqa: F401

    from pairprobe.records import Pair, PairSet, Similarities, Word
    from pairprobe.statistics.group_tests import Statistics
    from pairprobe.statistics.relabelling import relabel

    values, half = similarities(), PAIRS // 2
    pairs = tuple(
        Pair(str(i), "cognate" if i < half else "control", Word(f"a{i}"), Word(f"b{i}")) for i in range(PAIRS)
    )
    statistics = Statistics(permutations=RESAMPLES, resamples=RESAMPLES)
    clock = Clock()
    for what, rows in ((SEVERAL, values[EACH]), (AT_ONCE, values)):
        with clock(f"tests(), {what}"):
            test = statistics.tests(
                [Similarities("random", rows, tuple(range(len(rows))))], PairSet("bench", pairs, "bench")
            )["random", "control"]
        with clock(f"p alone, {what}"):
            alone = relabel(rows[:, :half], rows[:, half:], RESAMPLES, statistics.exact_below, statistics.seed)
        if [t.p for t in test.depths] != alone.two_sided.tolist():
            raise Differs("Statistics().tests and relabel give different p")
    return clock.stop(p=alone.two_sided)


def theirs() -> Sample:
    from scipy import stats

    def distance(a: Any, b: Any, axis: int = -1) -> Any:
        return np.abs(np.mean(a, axis=axis) - np.mean(b, axis=axis))

    def p(rows: Any, batch: int) -> Any:
        return stats.permutation_test(
            (rows[..., : PAIRS // 2], rows[..., PAIRS // 2 :]),
            distance,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=batch,
            alternative="greater",
            axis=-1,
            rng=np.random.default_rng(1),
        ).pvalue

    values = similarities()
    clock = Clock()
    with clock(f"p alone, {SEVERAL}"):
        one_by_one = [p(row, 500) for row in values[EACH]]
    with clock(f"p alone, {AT_ONCE}"):
        together = p(values, 20)
    for what in (SEVERAL, AT_ONCE):  # SciPy gives p, and only p
        clock.seconds[f"tests(), {what}"] = clock.seconds[f"p alone, {what}"]
    if not np.allclose(one_by_one, together[EACH]):
        raise Differs("SciPy for each depth and in one call give different p")
    return clock.stop(p=together)


def agreement(answers: Answers) -> str:
    """p of both sides, each with its own random relabellings, against their Monte Carlo error.

    Raises:
        Differs: at some depth they lie more than SIGMAS standard errors apart.
    """
    worst = 0.0
    for ours, theirs in answers:
        a, b = ours["p"], theirs["p"]  # [depths]
        middle = np.clip((a + b) / 2, 1 / RESAMPLES, 1 - 1 / RESAMPLES)
        off = float((np.abs(a - b) / np.sqrt(2 * middle * (1 - middle) / RESAMPLES)).max())
        if not off <= SIGMAS:
            raise Differs(f"p differ by {off:.1f} standard errors; {SIGMAS:g} are allowed")
        worst = max(worst, off)
    return f"p: {worst:.1f} of {SIGMAS:g} standard errors"


CASE = Case(
    "Statistics().tests (Δ, g, t, BCa intervals, power, p, max-T), and its permutation test `relabel` alone",
    ours,
    {
        "theirs": Rival(
            "scipy.stats.permutation_test (p alone), called for each depth, and in one call over all depths",
            theirs,
            agreement,
        )
    },
    prepare,
)
