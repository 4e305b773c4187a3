"""AUC, leave-one-out and equivalence: known from SciPy, statsmodels and simulation of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from groups import drawn, group_test
from scipy import stats
from statsmodels.stats.weightstats import ttost_ind
from test_relabelling import normal, sample

from bench.calibration import couples, matched, ring
from pairprobe.outcomes import signed
from pairprobe.statistics.effects import auc, equivalence, left_out
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.sample import Sample


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auc_is_mann_and_whitneys_u(seed: int, ties: bool) -> None:
    x, y = drawn(seed, 12, 9, shift=0.5)
    if ties:
        x, y = x.round(), y.round()
    u = stats.mannwhitneyu(x[0], y[0]).statistic
    at = group_test(x, y).at(0)
    assert at.auc == pytest.approx(u / (12 * 9))
    assert at.cliffs_delta == pytest.approx(2 * u / (12 * 9) - 1)
    assert at.auc in at.auc_ci


def test_the_interval_of_auc_by_hand() -> None:
    # cognates 1, 3, 5, 7 and controls 0, 2, 4, 6: placements 1/4, 1/2, 3/4, 1 of either; A = 5/8
    # DeLong: var = 2 (5/48)/4 = 5/96; on the logit scale the standard error is √(5/96)/(15/64), df 6
    chance, interval = auc(Sample.of(np.array([[1.0, 3, 5, 7]]), np.array([[0.0, 2, 4, 6]])), 0, 0.95)
    half = stats.t.ppf(0.975, 6) * np.sqrt(5 / 96) / (15 / 64)
    assert chance == 5 / 8
    odds = 5 / 3  # of 5/8
    assert interval.low == pytest.approx(odds / (odds + np.exp(half)))
    assert interval.high == pytest.approx(odds / (odds + np.exp(-half)))


def test_three_pairs_have_no_interval_of_auc() -> None:
    assert auc(Sample.of(np.array([[1.0, 3, 5, 7]]), np.array([[0.0, 2, 4]])), 0, 0.95) == (0.75, None)


def test_the_variance_of_auc_of_linked_pairs_is_summed_by_cluster() -> None:
    # matched pairs, by Obuchowski's formula written out
    pairs = matched(12)  # of fewer clusters units are what counts
    values = normal(pairs, seed=3)
    chance, interval = auc(sample(pairs, values), 0, 0.9)
    x, y = values[0, ::2], values[0, 1::2]
    v10 = np.array([(y < v).mean() for v in x]) - chance
    v01 = np.array([(x > v).mean() for v in y]) - chance
    variance = ((v10 / 12 + v01 / 12) ** 2).sum() * 12 / 11
    half = stats.t.ppf(0.95, 11) * np.sqrt(variance) / (chance * (1 - chance))
    logit = np.log(chance / (1 - chance))
    assert interval.low == pytest.approx(1 / (1 + np.exp(half - logit)))
    assert interval.high == pytest.approx(1 / (1 + np.exp(-half - logit)))


def test_groups_wholly_apart_have_an_interval_of_auc_below_one() -> None:
    at = group_test(np.arange(10) + 100.0, np.arange(10) * 1.0).at(0)
    assert at.auc == 1.0
    assert at.auc_ci.high == 1.0
    # Newcombe's equation at θ = low: (1 − θ)² = z² θ (1 − θ) (1 + 9 ((1 − θ)/(2 − θ) + θ/(1 + θ))) / 100
    theta, z = at.auc_ci.low, stats.norm.ppf(0.975)
    v = theta * (1 - theta) * (1 + 9 * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / 100
    assert 0.6 < theta < 0.95
    assert (1 - theta) ** 2 == pytest.approx(z**2 * v, rel=1e-6)


def test_leaving_out_one_independent_pair_at_a_time() -> None:
    x, y = drawn(2, 5, 4)
    deltas = [np.delete(x[0], i).mean() - y[0].mean() for i in range(5)]
    deltas += [x[0].mean() - np.delete(y[0], i).mean() for i in range(4)]
    left = group_test(x, y).at(0).left_out
    assert (left.low, left.high) == pytest.approx((min(deltas), max(deltas)))


@pytest.mark.parametrize("pairs", [couples(4), matched(4), ring(6)], ids=["couples", "matched", "ring"])
@pytest.mark.parametrize("blocks", [20_000, 3])
def test_leaving_out_a_unit_takes_all_pairs_that_touch_it(pairs, blocks, monkeypatch) -> None:
    monkeypatch.setattr(Sample, "at_once", blocks)
    values = normal(pairs, members=2)
    one = sample(pairs, values)
    deltas = []
    for unit in range(one.links.unit.max() + 1):
        rest = ~(one.links.unit == unit).any(axis=1)
        deltas.append(values[:, rest & one.cognate].mean(axis=1) - values[:, rest & ~one.cognate].mean(axis=1))
    low, high = left_out(one)
    assert low == pytest.approx(np.min(deltas, axis=0))
    assert high == pytest.approx(np.max(deltas, axis=0))


def test_equivalence_is_two_one_sided_tests() -> None:
    # with so many pairs the estimated standard deviation is as good as known, and statsmodels' fixed bounds agree
    x, y = drawn(5, 4000, 4000, shift=0.45)
    sd = np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
    theirs = ttost_ind(x[0], y[0], -0.5 * sd, 0.5 * sd, usevar="pooled")[0]
    ours = group_test(x, y, Statistics(resamples=200, permutations=200)).at(0).equivalence_p
    assert 0.001 < ours < 0.1
    assert ours == pytest.approx(theirs, abs=0.005)


@pytest.mark.parametrize(("n", "m", "shift"), [(10, 4, 0.1), (30, 20, -0.2), (6, 6, 0.0)])
def test_the_p_of_equivalence_is_the_chance_of_a_t_as_small_at_the_bound(n: int, m: int, shift: float) -> None:
    # its definition, by simulation: of groups half a standard deviation apart, how often t is nearer to 0 than here
    x, y = drawn(1, n, m, shift=shift)
    test = group_test(x, y)
    far = stats.ttest_ind(*drawn(7, n, m, depths=200_000, shift=0.5), axis=1).statistic
    expected = (far <= abs(test.at(0).t)).mean()
    assert test.at(0).equivalence_p == pytest.approx(expected, abs=0.005)


def test_equivalence_of_very_many_pairs_is_finite() -> None:
    p = equivalence(np.array([0.0, 0.5, 0.49]), np.full(3, 0.002), np.full(3, 1e6), np.full(3, 0.5))
    assert p[0] == 0.0
    assert p[1] == pytest.approx(0.5, abs=1e-6)
    assert p[2] < 1e-6


def test_the_pairs_of_both_groups_may_stand_in_any_order() -> None:
    x, y = drawn(4, 6, 5, depths=2)
    order = np.random.default_rng(0).permutation(11)
    one = Sample.of(x, y)
    values = np.concatenate([x, y], axis=1)[:, order]
    other = Sample((values,), np.arange(11), one.cognate[order], one.links)
    assert auc(one, 1, 0.9)[0] == auc(other, 1, 0.9)[0]
    assert left_out(one)[0] == pytest.approx(left_out(other)[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "+0.012"), (-0.0004, "−0.0004"), (0.00004, "+0.00004"), (0.0, "+0.000"), (4.2e-9, "+4e-09"),
     (-4.2e-9, "−4e-09"), (0.0005, "+0.001"), (-1.5, "−1.500")],
)  # fmt: skip
def test_a_sign_is_never_rounded_away(value: float, text: str) -> None:
    assert signed(value) == text
