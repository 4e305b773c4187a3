"""Under the null hypothesis every p errs as often as it says, and intervals hold the truth: simulated, held to binomial
bounds. bench/calibration.py has the designs, and prints the same at length.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import stats

from bench.calibration import ALPHA, CONFIDENCE, DESIGNS, SESOI, Counts, Design, _pair, simulate
from pairprobe.records import COGNATE
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.sample import Sample

REPEAT = 600
TOLERANCE = 1e-4  # of a false alarm of a bound, for each of some hundred
BY_NAME = {design.name: design for design in DESIGNS}
WITH_P = [design.name for design in DESIGNS if not design.name.endswith("units")]
NOISES = ("normal", "skewed")


@cache
def counts(name: str, noise: str) -> Counts:
    return simulate(BY_NAME[name], noise, REPEAT, permutations=499, resamples=499, seed=13)


def most(rate: float, of: int) -> int:
    return int(stats.binom.isf(TOLERANCE, of, rate))


def least(rate: float, of: int) -> int:
    return int(stats.binom.ppf(TOLERANCE, of, rate))


@pytest.mark.parametrize("what", ["p", "p, one-sided", "max-T", "q", "median", "share"])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", WITH_P)
def test_a_p_errs_no_more_often_than_it_says(name: str, noise: str, what: str) -> None:
    found = counts(name, noise)
    assert found.of[what] == REPEAT
    assert found.hits[what] <= most(ALPHA, REPEAT)


@pytest.mark.parametrize("what", ["p", "p, one-sided", "max-T", "median"])
@pytest.mark.parametrize("name", WITH_P)
def test_nor_much_less_often(name: str, what: str) -> None:
    # q and the share of significant specifications are discrete or cautious, and may
    assert counts(name, "normal").hits[what] >= least(0.04, REPEAT)


@pytest.mark.parametrize("name", BY_NAME)
def test_equivalence_is_said_too_often_by_no_design(name: str) -> None:
    # the true difference is the smallest of interest
    assert counts(name, "normal").hits["equivalence"] <= most(ALPHA, REPEAT)


@pytest.mark.parametrize("name", ["independent, 60 + 30", "matched 1:1, 40 clusters", "couples 2:2, 40 clusters"])
def test_equivalence_can_be_said(name: str) -> None:
    assert counts(name, "normal").hits["equivalence"] >= least(0.04, REPEAT)


@pytest.mark.parametrize("what", ["interval of Δ", "interval of AUC"])
@pytest.mark.parametrize("name", BY_NAME)
def test_intervals_hold_the_truth(name: str, what: str) -> None:
    found = counts(name, "normal")
    assert found.hits[what] >= least(CONFIDENCE, found.of[what])


@pytest.mark.parametrize("name", [n for n in BY_NAME if "40" in n or "60" in n])
def test_intervals_of_many_hold_the_truth_of_skewed_similarities_too(name: str) -> None:
    found = counts(name, "skewed")
    assert found.hits["interval of Δ"] >= least(CONFIDENCE, found.of["interval of Δ"])


@pytest.mark.parametrize("name", ["one ring of 20 + 20, units", "published links 10 + 4, units"])
def test_where_too_little_can_be_relabelled_no_p_is_given(name: str) -> None:
    assert "p" not in counts(name, "normal").hits


def test_taking_linked_pairs_for_independent_errs_far_more_often() -> None:
    # clusters of one group, each of six pairs that share a word: what the restriction is for
    pairs = [_pair(COGNATE if i % 2 else "control", f"a{i}", f"b{i}.{j}") for i in range(12) for j in range(6)]
    design = Design("large clusters", pairs, 0.8)
    honest = simulate(design, "normal", 300, permutations=299, resamples=199, seed=13)
    assert honest.hits["p"] <= most(ALPHA, 300)
    naive = simulate(design, "normal", 300, permutations=299, resamples=199, seed=13, as_if_independent=True)
    assert naive.hits["p"] > 2 * most(ALPHA, 300)
    assert naive.hits["interval of Δ"] < least(CONFIDENCE, 300)


@pytest.mark.parametrize(("n", "m", "spread"), [(100, 20, 3.0), (200, 30, 3.0), (77, 50, 2.0)])
def test_groups_that_differ_in_size_and_spread_err_no_more_often(n: int, m: int, spread: float) -> None:
    # with a pooled standard error p errs up to 28 times in a hundred, and equivalence 14 times
    rng = np.random.default_rng(n)
    values = rng.normal(size=(REPEAT, n + m)) * np.where(np.arange(n + m) < n, 1.0, spread)
    bound = SESOI * np.sqrt((n - 1 + (m - 1) * spread**2) / (n + m - 2))
    statistics = Statistics(resamples=300, permutations=499, exact_below=1)
    equal = statistics.of_sample(Sample.of(values[:, :n], values[:, n:]))
    assert (equal.p.two_sided <= ALPHA).sum() <= most(ALPHA, REPEAT)
    assert (equal.p.greater <= ALPHA).sum() <= most(ALPHA, REPEAT)
    assert (equal.p.two_sided <= ALPHA).sum() >= least(0.04, REPEAT)
    apart = statistics.of_sample(Sample.of(values[:, :n] + bound, values[:, n:]))
    assert (apart.equivalence <= ALPHA).sum() <= most(ALPHA, REPEAT)
