"""Statistics: every number known from elsewhere, and no claim that the numbers do not carry."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from groups import FAST, drawn, group_test, pair_set, similarities
from scipy import special, stats

from pairprobe.errors import ConfigError, StatisticsError
from pairprobe.records import PairSet, Similarities
from pairprobe.statistics.effects import hedges_correction, hedges_interval, pooled_t
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.power import detectable_d, power_of_t_test
from pairprobe.statistics.relabelling import FLOOR as VARIES
from pairprobe.statistics.relabelling import relabel
from pairprobe.statistics.resampling import bootstrap_interval

# ── effect size ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("df", "expected"),
    [
        # closed forms of Γ(df/2) / (√(df/2) Γ((df − 1)/2))
        (2, 1 / math.sqrt(math.pi)),
        (3, math.sqrt(math.pi / 6)),
        (4, math.sqrt(2 / math.pi)),
        (5, 0.75 * math.sqrt(math.pi / 2.5)),
    ],
)
def test_the_small_sample_correction_in_closed_form(df, expected):
    assert hedges_correction(df) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("df", [10, 12, 30, 100, 1000])
def test_the_small_sample_correction_is_close_to_its_usual_approximation(df):
    assert hedges_correction(df) == pytest.approx(1 - 3 / (4 * df - 1), abs=4e-4)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (10, 4)])
def test_g_is_right_on_average_which_is_what_the_correction_is_for(n, m):
    trials, effect = 40_000, 1.0
    x, y = drawn(11, n, m, depths=trials, shift=effect)
    d = pooled_t(x, y) * math.sqrt(1 / n + 1 / m)
    g = hedges_correction(n + m - 2) * d
    error = g.std() / math.sqrt(trials)
    assert abs(g.mean() - effect) < 4 * error
    assert d.mean() - effect > 10 * error  # the plain standardised difference is too large


def test_delta_t_and_g_by_hand():
    # means 0.2 and 0.05, squares about them 0.02 + 0.005 on 3 degrees of freedom: s² = 1/120;
    # t = 0.15 / √(s² (1/3 + 1/2)) = 0.15 · 12 = 1.8; d = 0.15 / s; g = J(3) d, J(3) = √(π/6)
    at = group_test([0.1, 0.2, 0.3], [0.0, 0.1]).at(0)
    assert at.mean_cognate == pytest.approx(0.2)
    assert at.mean_control == pytest.approx(0.05)
    assert at.sd_cognate == pytest.approx(0.1)
    assert at.sd_control == pytest.approx(math.sqrt(0.005))
    assert at.delta == pytest.approx(0.15)
    assert at.t == pytest.approx(1.8)
    assert at.g == pytest.approx(math.sqrt(math.pi / 6) * 0.15 * math.sqrt(120))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (10, 4), (3, 30)])
def test_t_is_scipys_with_equal_variances(n, m):
    x, y = drawn(1, n, m, depths=6, shift=0.5)
    np.testing.assert_allclose(pooled_t(x, y), stats.ttest_ind(x, y, axis=1).statistic, rtol=1e-10)


@pytest.mark.parametrize(
    ("t", "n", "low", "high"), [(2.83, 64, 0.8337502600, 4.8153591405), (1.5, 50, -0.474934, 3.467371)]
)
def test_the_interval_of_the_noncentrality_is_that_of_rs_mbess(t, n, low, high):
    # conf.limits.nct(2.83, 126, .95), and conf.limits.nct(1.5, 98, .95) as statsmodels' own tests quote it
    interval = hedges_interval(t, n, n, 0.95)
    scale = hedges_correction(2 * n - 2) * math.sqrt(2 / n)
    assert (interval.low / scale, interval.high / scale) == pytest.approx((low, high), abs=2e-6)


@pytest.mark.parametrize("t", [-3.2, -0.5, 0.0, 1.8, 6.0])
@pytest.mark.parametrize(("n", "m"), [(2, 2), (10, 4), (40, 60)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_of_g_ends_where_the_observed_t_is_as_rare_as_asked(t, n, m, confidence):
    # its definition, with J written by another function and t turned round for the upper end
    interval = hedges_interval(t, n, m, confidence)
    df = n + m - 2
    j = 1 / (math.sqrt(df / 2) * math.exp(special.betaln(0.5, (df - 1) / 2)) / math.gamma(0.5))
    scale = j * math.sqrt(1 / n + 1 / m)
    assert stats.nct.sf(t, df, interval.low / scale) == pytest.approx((1 - confidence) / 2, abs=1e-7)
    assert stats.nct.sf(-t, df, -interval.high / scale) == pytest.approx((1 - confidence) / 2, abs=1e-7)


def test_the_interval_of_g_turns_round_with_the_sign():
    up, down = hedges_interval(2.5, 10, 4, 0.95), hedges_interval(-2.5, 10, 4, 0.95)
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low), abs=1e-8)


@pytest.mark.parametrize(("t", "n", "m"), [(-48.953430653985706, 4, 3), (-24.06578656362683, 5, 2)])
def test_a_very_large_t_still_has_an_interval_of_g(t, n, m):
    # SciPy's nct.cdf is NaN far in its lower tail
    interval = hedges_interval(t, n, m, 0.99)
    mirrored = hedges_interval(-t, n, m, 0.99)
    assert (interval.low, interval.high) == pytest.approx((-mirrored.high, -mirrored.low), rel=1e-6)


def test_the_interval_of_g_covers_the_true_effect_as_often_as_it_says():
    # normal values that differ by d = 0.8; 400 intervals of 90 %
    d, inside, trials = 0.8, 0, 400
    for seed in range(trials):
        x, y = drawn(seed, 6, 5, shift=d)
        # the interval is for J·δ as g is: compare on the scale of g
        interval = hedges_interval(float(pooled_t(x, y)[0]), 6, 5, 0.9)
        inside += d * hedges_correction(9) in interval
    low, high = stats.binom.interval(0.999, trials, 0.9)
    assert low <= inside <= high


# ── power ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("d", "n"), [(0.2, 393), (0.5, 64), (0.8, 26)])
def test_power_as_tabled_by_cohen(d, n):
    # Cohen 1992, A power primer, table 2: pairs per group for a power of 0.80 at α = 0.05
    assert round(power_of_t_test(d, n, n, 0.05), 2) >= 0.80
    assert power_of_t_test(d, n - 1, n - 1, 0.05) < 0.80


def test_ten_against_four_pairs_find_a_large_effect_one_time_in_four():
    # the published sizes: 24 %, and 80 % only for d = 1.8; the simulation below agrees
    test = group_test(*drawn(0, 10, 4))
    assert round(test.power, 2) == 0.24
    assert round(test.detectable_d, 1) == 1.8
    assert (test.effect, test.power_wanted, test.alpha) == (0.8, 0.8, 0.05)


@pytest.mark.parametrize(("n", "m", "d"), [(10, 4, 0.8), (5, 5, 1.5), (3, 12, 1.0)])
def test_power_is_how_often_a_t_test_finds_the_effect(n, m, d):
    trials = 40_000
    x, y = drawn(7, n, m, depths=trials, shift=d)
    hits = int((stats.ttest_ind(x, y, axis=1).pvalue <= 0.05).sum())
    low, high = stats.binom.interval(0.9999, trials, power_of_t_test(d, n, m, 0.05))
    assert low <= hits <= high


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_without_an_effect_power_is_alpha(alpha):
    assert power_of_t_test(0.0, 10, 4, alpha) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (10, 4), (100, 4), (104, 179), (1000, 1000), (5000, 300)])
@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.95, 0.01)])
def test_the_detectable_difference_is_found_with_the_power_wanted(power, alpha, n, m):
    # SciPy's nct.cdf is NaN far in its lower tail, which large groups and small alphas reach
    d = detectable_d(power, n, m, alpha)
    df, nc = n + m - 2, d * math.sqrt(n * m / (n + m))
    critical = stats.t.isf(alpha / 2, df)
    # the lower tail written as an upper one
    assert stats.nct.sf(critical, df, nc) + stats.nct.sf(critical, df, -nc) == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize(("d", "n", "m"), [(0.8, 1000, 1000), (3.0, 100, 100), (9.9, 5000, 5000)])
def test_a_large_effect_in_large_groups_is_found_for_certain(d, n, m):
    assert power_of_t_test(d, n, m, 0.05) == pytest.approx(1.0, abs=1e-9)


# ── relabelling ──────────────────────────────────────────────────────────────────────────────────────────


FLOOR = Fraction(VARIES).limit_denominator(10**9)


def by_brute_force(x: list[int], y: list[int]) -> tuple[Fraction, Fraction]:
    """(two-sided, cognates greater) of Welch's t over all relabellings, in exact arithmetic."""
    pooled = [*x, *y]
    mean = Fraction(sum(pooled), len(pooled))
    total = sum((v - mean) ** 2 for v in pooled)
    least = (
        FLOOR * total * Fraction(len(pooled), len(x) * len(y) * (len(pooled) - 1))
    )  # of Δ's variance over labellings

    def signed_square(chosen: tuple[int, ...]) -> Fraction:
        groups = [pooled[i] for i in chosen], [v for i, v in enumerate(pooled) if i not in chosen]
        means = [Fraction(sum(g), len(g)) for g in groups]
        spread = sum(sum((v - m) ** 2 for v in g) / (len(g) * (len(g) - 1)) for g, m in zip(groups, means, strict=True))
        d = means[0] - means[1]
        return d * abs(d) / max(spread, least)

    observed = signed_square(tuple(range(len(x))))
    every = [signed_square(c) for c in combinations(range(len(pooled)), len(x))]
    two_sided = sum(abs(t) >= abs(observed) for t in every)
    return Fraction(two_sided, len(every)), Fraction(sum(t >= observed for t in every), len(every))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([3, 1, 4, 1, 5], [9, 2, 6]),
        ([7, 8, 9, 10], [1, 2, 3, 4]),  # wholly apart, equal sizes
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [2, 2, 3, 30]),  # as many as published
        ([1, 1, 1, 2], [1, 1, 2, 2, 2]),  # nearly all ties
        ([5, 5, 1], [5, 1, 5, 1]),
        ([4, 5, 6], [4, 5, 6]),  # no difference at all
    ],
)
@pytest.mark.parametrize("unit", [1.0, 0.1, 1e-7])
def test_the_exact_p_equals_brute_force_with_fractions(x, y, unit):
    # tenths are not exact in binary: ties must survive the rounding
    two_sided, greater = by_brute_force(x, y)
    found = relabel(np.array([x]) * unit + 0.3, np.array([y]) * unit + 0.3, 100, 50_000, 0)
    assert found.exact
    assert found.count == math.comb(len(x) + len(y), len(x))
    assert found.two_sided[0] == float(two_sided)
    assert found.greater[0] == float(greater)


@pytest.mark.parametrize("seed", range(5))
def test_the_one_sided_p_equals_scipys_permutation_test(seed):
    x, y = drawn(seed, 6, 4, shift=0.5)
    theirs = stats.permutation_test(
        (x[0], y[0]),
        lambda a, b, axis: stats.ttest_ind(a, b, axis=axis, equal_var=False).statistic,
        vectorized=True,
        n_resamples=np.inf,
        alternative="greater",
    )
    assert group_test(x, y).at(0).p_greater == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "expected"), [(10, 4, 1 / 1001), (4, 10, 1 / 1001), (5, 5, 2 / 252), (6, 3, 1 / 84)]
)
def test_groups_wholly_apart_reach_the_smallest_p_and_no_p_is_smaller(n, m, expected):
    # equal sizes: the mirror image of a labelling has the same |t|
    test = group_test(np.arange(n) + 100.0, np.arange(m) * 1.0)
    assert test.smallest_p == pytest.approx(expected, rel=1e-12)
    assert test.at(0).p == test.at(0).p_max_t == test.smallest_p
    assert (test.exact, test.relabellings) == (True, math.comb(n + m, n))


def test_where_there_are_too_many_relabellings_they_are_drawn():
    test = group_test(*drawn(0, 12, 12), Statistics(resamples=200, permutations=500))
    assert (test.exact, test.relabellings) == (False, 500)
    assert test.smallest_p == 1 / 501


@pytest.mark.parametrize(("below", "exact"), [(1000, False), (1001, True)])
def test_the_bound_of_exactness_is_inclusive(below, exact):
    assert group_test(*drawn(0, 10, 4), Statistics(resamples=200, exact_below=below)).exact is exact


def test_a_drawn_p_counts_the_observed_labelling_and_is_never_zero():
    # 20 against 20 wholly apart: none of 200 draws can reach it, so p = (0 + 1) / (200 + 1)
    test = group_test(np.arange(20) + 100.0, np.arange(20) * 1.0, Statistics(resamples=200, permutations=200))
    at = test.at(0)
    assert at.p == at.p_greater == at.p_max_t == 1 / 201


def test_a_drawn_p_is_close_to_the_exact_one():
    x, y = drawn(4, 7, 5, shift=0.8)
    exact = relabel(x, y, 100, 50_000, 0)
    draws = 20_000
    found = relabel(x, y, draws, 1, 0)
    for drawn_p, p in [(found.two_sided[0], exact.two_sided[0]), (found.greater[0], exact.greater[0])]:
        hits = round(drawn_p * (draws + 1)) - 1
        low, high = stats.binom.interval(0.9999, draws, p)
        assert low <= hits <= high


def test_drawing_in_blocks_gives_the_number_of_draws_asked(monkeypatch):
    monkeypatch.setattr("pairprobe.statistics.relabelling.BLOCK", 1000)
    found = relabel(*drawn(0, 12, 12, depths=3), 777, 1, 0)
    assert found.count == 777
    exact = relabel(*drawn(0, 5, 4, depths=3), 100, 50_000, 0)
    monkeypatch.undo()
    np.testing.assert_array_equal(exact.max_t, relabel(*drawn(0, 5, 4, depths=3), 100, 50_000, 0).max_t)


def test_shifting_and_stretching_the_similarity_changes_neither_p_nor_g():
    x, y = drawn(2, 6, 5, depths=3, shift=0.7)
    plain, moved = group_test(x, y), group_test(x * 0.01 + 0.7, y * 0.01 + 0.7)
    for a, b in zip(plain.depths, moved.depths, strict=True):
        assert (a.p, a.p_greater, a.p_max_t) == (b.p, b.p_greater, b.p_max_t)
        assert (a.g, a.t) == pytest.approx((b.g, b.t), rel=1e-9)


def test_the_order_of_pairs_does_not_matter_to_an_exact_p():
    x, y = drawn(2, 6, 5, shift=0.7)
    assert group_test(x, y).at(0).p == group_test(x[:, ::-1], y[:, [3, 0, 4, 1, 2]]).at(0).p


def test_exchanging_the_groups_keeps_the_two_sided_p_and_turns_the_rest():
    x, y = drawn(5, 6, 4, shift=0.9)
    one, other = group_test(x, y).at(0), group_test(y, x).at(0)
    assert other.p == one.p
    assert (other.delta, other.t, other.g) == pytest.approx((-one.delta, -one.t, -one.g))


# ── all depths at once ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_max_t_equals_brute_force_over_three_depths(seed):
    # Westfall and Young's single step: how often the largest |t*| of the family reaches this depth's |t|
    n, m = 5, 3
    x, y = drawn(seed, n, m, depths=3)
    x[2] += 1.5
    x[1] = x[0] * 0.8 + x[1] * 0.2  # neighbouring depths resemble each other
    pooled = np.concatenate([x, y], axis=1)
    largest = []
    for chosen in combinations(range(n + m), n):
        rest = [i for i in range(n + m) if i not in chosen]
        largest.append(
            np.abs(stats.ttest_ind(pooled[:, chosen], pooled[:, rest], axis=1, equal_var=False).statistic).max()
        )
    reached = np.abs(stats.ttest_ind(x, y, axis=1, equal_var=False).statistic)
    expected = [np.mean(np.array(largest) >= t * (1 - 1e-9)) for t in reached]
    assert [at.p_max_t for at in group_test(x, y).depths] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("exact_below", [1, 50_000], ids=["drawn", "exact"])
@pytest.mark.parametrize("seed", range(4))
def test_the_corrected_p_is_never_below_the_plain_one(seed, exact_below):
    x, y = drawn(seed, 6, 4, depths=8, shift=0.6)
    for at in group_test(x, y, Statistics(resamples=200, permutations=300, exact_below=exact_below)).depths:
        assert at.p_max_t >= at.p


@pytest.mark.parametrize("seed", range(4))
def test_of_one_depth_alone_the_corrected_p_is_the_plain_one(seed):
    at = group_test(*drawn(seed, 6, 4, shift=0.6)).at(0)
    assert at.p_max_t == at.p


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("seed", range(6))
def test_groups_far_apart_for_their_spread_keep_the_observed_labelling_in_max_t(seed, spread):
    # t from the difference of two nearly equal sums of squares loses its digits here, and p became 0
    rng = np.random.default_rng(seed)
    x, y = 0.9 + spread * rng.normal(size=(1, 5)), 0.1 + spread * rng.normal(size=(1, 4))
    found = relabel(x, y, 100, 50_000, 0)
    assert found.max_t[0] == found.two_sided[0] == 1 / 126


def test_repeating_a_depth_costs_nothing():
    x, y = drawn(3, 6, 4, shift=0.6)
    once, thrice = group_test(x, y).at(0), group_test(np.repeat(x, 3, axis=0), np.repeat(y, 3, axis=0))
    assert [at.p_max_t for at in thrice.depths] == [once.p] * 3


def test_the_best_depth_is_the_one_with_the_largest_t():
    x, y = drawn(1, 6, 4, depths=4)
    x[2] -= 9.0
    assert group_test(x, y, depths=(0, 4, 8, 12)).best.depth == 8


def test_depths_are_found_by_number_and_from_the_end():
    test = group_test(*drawn(1, 6, 4, depths=3), depths=(0, 6, 12))
    assert (test.at(6).depth, test.at(-1).depth, test.at(-3).depth) == (6, 12, 0)


# ── interval of Δ ────────────────────────────────────────────────────────────────────────────────────────


def difference_of_means(a, b, axis):
    return np.mean(a, axis=axis) - np.mean(b, axis=axis)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_scipys_bca_of_each_depth_by_itself(seed):
    # other random numbers: the ends agree up to the noise of 20,000 resamples
    x, y = drawn(seed, 10, 6, depths=2)
    x = np.exp(x)  # skewed, where BCa and percentile part
    low, high = bootstrap_interval(x, y, 0.95, 20_000, seed)
    for i in range(2):
        theirs = stats.bootstrap(
            (x[i], y[i]),
            difference_of_means,
            n_resamples=20_000,
            confidence_level=0.95,
            method="BCa",
            rng=np.random.default_rng(99),
        )
        assert (low[i], high[i]) == pytest.approx(
            (theirs.confidence_interval.low, theirs.confidence_interval.high), abs=0.06 * theirs.standard_error
        )


@pytest.mark.parametrize(("n", "m"), [(2, 2), (4, 10), (10, 4), (37, 23)])
@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy"])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_with_the_same_resamples_the_interval_is_scipy_s(n, m, draw, confidence):
    rng = np.random.default_rng([n, m])
    x, y = getattr(rng, draw)(size=(3, n)), getattr(rng, draw)(size=(3, m))
    found = bootstrap_interval(x, y, confidence, 999, 7)
    theirs = stats.bootstrap(
        (x, y),
        difference_of_means,
        axis=-1,
        n_resamples=999,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng([7, 1]),
    ).confidence_interval
    assert np.array(found) == pytest.approx(np.array([theirs.low, theirs.high]), rel=1e-9, abs=1e-9)


def test_resamples_taken_in_blocks_are_as_good_as_all_at_once(monkeypatch):
    x, y = drawn(3, 30, 20, depths=4)
    whole = bootstrap_interval(x, y, 0.95, 20_000, 0)
    monkeypatch.setattr("pairprobe.statistics.resampling.BLOCK", 30 * 700)
    parts = bootstrap_interval(x, y, 0.95, 20_000, 0)
    assert np.array(parts) == pytest.approx(np.array(whole), abs=0.02)


@pytest.mark.filterwarnings("error")
def test_an_interval_is_undefined_only_where_nothing_varies():
    x, y = np.array([[0.5] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]]), np.array([[0.25] * 4, [0.25] * 4])
    low, high = bootstrap_interval(x, y, 0.95, 500, 0)
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] < 0.05 < high[1]


def test_the_interval_is_not_the_percentile_interval():
    # a skewed sample: BCa moves both ends to the side of the long tail
    x = np.array([[0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.4, 3.0]])
    y = np.array([[0.0, 0.1, 0.2, 0.1, 0.0, 0.1]])
    low, high = bootstrap_interval(x, y, 0.95, 5_000, 0)
    percentile = stats.bootstrap(
        (x[0], y[0]), difference_of_means, n_resamples=5_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert low[0] > percentile.low + 0.02
    assert high[0] > percentile.high + 0.1


def test_the_same_resampled_pairs_serve_all_depths():
    x, y = drawn(0, 8, 5)
    low, high = bootstrap_interval(np.concatenate([x, 2 * x + 1]), np.concatenate([y, 2 * y + 1]), 0.9, 500, 0)
    assert (low[1], high[1]) == pytest.approx((2 * low[0], 2 * high[0]))


def test_a_higher_confidence_makes_a_wider_interval():
    x, y = drawn(0, 10, 6)
    narrow, wide = (group_test(x, y, Statistics(confidence=c)).at(0) for c in (0.8, 0.99))
    assert wide.delta_ci.low < narrow.delta_ci.low < narrow.delta < narrow.delta_ci.high < wide.delta_ci.high
    assert wide.g_ci.low < narrow.g_ci.low < narrow.g < narrow.g_ci.high < wide.g_ci.high


# ── what is undefined, and what is refused ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("x", "y"),
    [([0.5] * 5, [0.5] * 4), ([0.7] * 5, [0.1] * 4), ([0.1 + 0.2, 0.3, 0.3, 0.3], [0.6, 0.3 + 0.3, 0.2 + 0.4, 0.6])],
    ids=["all equal", "equal within groups", "equal up to rounding"],
)
def test_constant_similarities_are_undefined_and_not_zero(x, y):
    at = group_test(x, y).at(0)
    assert at.delta == pytest.approx(np.mean(x) - np.mean(y))
    assert (at.delta_ci, at.g, at.g_ci, at.t, at.p, at.p_greater, at.p_max_t) == (None,) * 7


def test_one_constant_group_is_enough_spread_where_the_other_varies():
    at = group_test([0.5] * 5, [0.1, 0.2, 0.3, 0.4]).at(0)
    assert None not in (at.delta_ci, at.g, at.g_ci, at.t, at.p, at.p_max_t)


def test_an_undefined_depth_leaves_the_others_as_they_are():
    x, y = drawn(6, 6, 5, depths=2, shift=0.8)
    flat_x, flat_y = np.full((1, 6), 0.4), np.full((1, 5), 0.4)
    with_flat = group_test(
        np.concatenate([x[:1], flat_x, x[1:]]), np.concatenate([y[:1], flat_y, y[1:]]), depths=(0, 1, 2)
    )
    without = group_test(x, y, depths=(0, 2))
    assert with_flat.at(1).p is None
    for depth in (0, 2):
        assert with_flat.at(depth) == without.at(depth)


def test_a_run_of_undefined_depths_has_no_best_one():
    assert group_test([[0.5] * 5] * 2, [[0.5] * 4] * 2).best is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_similarity_that_is_not_finite_is_refused_with_pair_and_depth(value):
    x, y = drawn(0, 4, 3, depths=3)
    y[1, 2] = value
    with pytest.raises(StatisticsError, match=f"cosine of pair k2 at depth 16 is {value}"):
        FAST.tests([similarities(x, y, (8, 16, 24))], pair_set(4, 3))


@pytest.mark.parametrize(("n", "m"), [(1, 4), (4, 1)])
def test_a_group_of_one_pair_is_refused(n, m):
    with pytest.raises(StatisticsError, match=f"{n} cognate and {m} control pairs: each group needs at least two"):
        FAST.tests([similarities(*drawn(0, n, m))], pair_set(n, m))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 3), (3, 3)])
def test_too_few_pairs_for_any_p_under_alpha_get_none(n, m):
    # 2/6, 1/10 and 2/20: wholly apart, and still nothing to claim
    test = group_test(np.arange(n) + 100.0, np.arange(m) * 1.0)
    at = test.at(0)
    assert test.smallest_p > 0.05
    assert (at.p, at.p_max_t) == (None, None)
    assert None not in (at.t, at.g)  # what can be said is said


def test_where_no_two_sided_p_can_be_small_no_one_sided_one_slips_in():
    # one of 20 labellings is as far out on this side: 0.05, which a reader would take for the p that is not given
    at = group_test([7.0, 8.0, 9.0], [1.0, 2.0, 3.0]).at(0)
    assert at.p is None
    assert at.p_greater is None


def test_every_control_group_is_tested_by_itself():
    pairs = PairSet("set", (*pair_set(5, 4).pairs, *pair_set(0, 3, "shuffled").pairs), "here")
    x, y = drawn(0, 5, 7)
    values = Similarities("cosine", np.concatenate([x, y], axis=1), (0,))
    tests = FAST.tests([values], pairs)
    assert list(tests) == [("cosine", "control"), ("cosine", "shuffled")]
    assert tests["cosine", "control"] == group_test(x, y[:, :4])
    assert tests["cosine", "shuffled"].at(0).mean_control == pytest.approx(y[:, 4:].mean())


@pytest.mark.parametrize("permutations", [200, 300])
def test_the_same_seed_gives_the_same_result(permutations):
    statistics = Statistics(seed=5, resamples=200, permutations=permutations, exact_below=1)
    x, y = drawn(0, 8, 5, depths=3)
    assert group_test(x, y, statistics) == group_test(x, y, statistics)


def test_another_seed_gives_other_random_numbers():
    x, y = drawn(3, 8, 5)
    one, other = (group_test(x, y, Statistics(seed=s, resamples=200, permutations=200, exact_below=1)) for s in (0, 1))
    assert one.at(0).delta_ci != other.at(0).delta_ci
    assert one.at(0).p != other.at(0).p


def test_the_global_random_state_is_neither_read_nor_moved():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    group_test(*drawn(0, 8, 5), Statistics(resamples=200, permutations=200, exact_below=1))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": -1},
        {"resamples": 99},
        {"permutations": 99},
        {"exact_below": 0},
        {"confidence": 1.0},
        {"confidence": 95},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"power": 1.0},
        {"power": 0.05},  # no more than alpha
        {"effect": 0.0},
        {"effect": math.nan},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=rf"statistics\.{next(iter(settings))} is .*; allowed"):
        Statistics(**settings)


# ── calibration: under the null hypothesis, independent pairs ────────────────────────────────────────────

TRIALS = 1000
N, M = 5, 4  # 126 relabellings; p ≤ 0.05 for 6 of them


def under_null(seed: int, depths: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs without any difference; neighbouring depths correlate 0.9, as the layers of a model do."""
    rng = np.random.default_rng([seed, 77])
    noise = rng.normal(size=(depths, N + M))
    for i in range(1, depths):
        noise[i] = 0.9 * noise[i - 1] + math.sqrt(1 - 0.9**2) * noise[i]
    return noise[:, :N], noise[:, N:]


@pytest.fixture(scope="module")
def null_tests() -> list:
    return [relabel(*under_null(seed, 12), 100, 50_000, seed) for seed in range(TRIALS)]


def within(hits: int, rate: float) -> bool:
    low, high = stats.binom.interval(0.999, TRIALS, rate)
    return bool(low <= hits <= high)


def test_a_plain_p_is_under_five_per_cent_five_times_in_a_hundred(null_tests):
    assert within(sum(found.two_sided[0] <= 0.05 for found in null_tests), 6 / 126)


def test_a_one_sided_p_is_under_five_per_cent_five_times_in_a_hundred(null_tests):
    assert within(sum(found.greater[0] <= 0.05 for found in null_tests), 6 / 126)


def test_the_corrected_p_of_the_best_depth_is_under_five_per_cent_five_times_in_a_hundred(null_tests):
    assert within(sum(found.max_t.min() <= 0.05 for found in null_tests), 6 / 126)


def test_the_plain_p_of_the_best_depth_is_not_and_that_is_why_it_is_corrected(null_tests):
    assert sum(found.two_sided.min() <= 0.05 for found in null_tests) > 2 * 0.05 * TRIALS


def test_a_drawn_p_is_calibrated_too():
    found = [relabel(*under_null(seed, 1), 199, 1, seed).two_sided[0] for seed in range(TRIALS)]
    # near the step at 6/126 draws fall to either side, so the rate is that of a continuous p
    assert within(sum(p <= 0.05 for p in found), 0.05)


def test_pairs_that_share_words_break_the_calibration_and_that_is_why_no_claim_is_made_on_them():
    # no group effect, but one word in all pairs of a group moves them together
    hits = 0
    for seed in range(400):
        rng = np.random.default_rng([seed, 5])
        x, y = (2 * rng.normal() + rng.normal(size=(1, size)) for size in (N, M))
        hits += relabel(x, y, 100, 50_000, 0).two_sided[0] <= 0.05
    assert hits > 0.3 * 400
