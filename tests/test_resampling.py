"""Intervals by clusters and units: SciPy for independent clusters, brute force for what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from test_relabelling import normal, sample

from bench.calibration import chains, couples, families, independent, matched, mixture, ring
from bench.coverage_of_intervals import SHAPES, coverage
from pairprobe.records import COGNATE, Pair, Word
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.resampling import _errors, by_cluster, by_unit, resampled, strata
from pairprobe.statistics.sample import Sample, effective
from pairprobe.verdict import COVERAGE, simulated

FAST_INTERVALS = Statistics(resamples=2000)


def test_clusters_of_one_group_and_of_both_are_strata() -> None:
    pairs = mixture(4)
    one = sample(pairs, normal(pairs))
    kinds = [{p.group for i in s.pairs for p in [pairs[i]]} for s in strata(one)]
    assert kinds == [{COGNATE}, {"control"}, {COGNATE, "control"}]
    assert sum(s.clusters for s in strata(one)) == one.links.clusters
    assert sorted(i for s in strata(one) for i in s.pairs) == list(range(len(pairs)))


def test_a_kind_of_one_cluster_is_resampled_with_the_others() -> None:
    alone = Pair("x", COGNATE, Word("x"), Word("y"))
    pairs = [*matched(10), alone]
    (stratum,) = strata(sample(pairs, normal(pairs)))
    assert stratum.clusters == 11


def test_matched_pairs_have_scipys_interval_of_the_mean_difference() -> None:
    # each cluster is one difference; BCa of their mean, with the same random numbers
    pairs = matched(15)
    values = np.exp(normal(pairs, seed=4))
    one = sample(pairs, values)
    ours = by_cluster(one, 0.95, 2000, 1, widened=False)
    theirs = stats.bootstrap(
        (values[0, ::2] - values[0, 1::2],), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng([1, 1])
    )
    low, high = theirs.confidence_interval
    assert (ours.low[0], ours.high[0]) == pytest.approx((low, high))


def test_the_standard_error_of_independent_pairs_is_welchs() -> None:
    pairs = independent(9, 6)
    values = normal(pairs, seed=2)
    found = by_cluster(sample(pairs, values), 0.95, 500, 0)
    x, y = values[0, :9], values[0, 9:]
    theirs = stats.ttest_ind(x, y, equal_var=False)
    assert found.sd[0] == pytest.approx((x.mean() - y.mean()) / theirs.statistic)
    assert found.df[0] == pytest.approx(theirs.df)


def test_the_standard_error_of_matched_pairs_is_that_of_their_differences() -> None:
    pairs = matched(12)
    values = normal(pairs, seed=2)
    found = by_cluster(sample(pairs, values), 0.95, 500, 0)
    assert found.sd[0] == pytest.approx(stats.sem(values[0, ::2] - values[0, 1::2]))
    assert found.df[0] == pytest.approx(11)


def test_the_standard_error_of_clusters_is_statsmodels_cluster_robust_one() -> None:
    import statsmodels.api as sm

    pairs = chains(20)
    values = normal(pairs, seed=3)
    one = sample(pairs, values)
    fit = sm.OLS(values[0], sm.add_constant(one.cognate * 1.0)).fit(
        cov_type="cluster", cov_kwds={"groups": one.links.cluster, "use_correction": False}
    )
    found = by_cluster(one, 0.95, 500, 0)
    # all clusters are mixed: one stratum; statsmodels without its correction, ours with C / (C − 1)
    assert found.sd[0] == pytest.approx(fit.bse[1] * np.sqrt(20 / 19))


def test_widened_intervals_are_wider_and_by_little_where_there_are_many() -> None:
    for n, least, most in ((5, 1.2, 2.0), (300, 1.0, 1.03)):
        pairs = independent(n, n)
        one = sample(pairs, normal(pairs, seed=1))
        wide, plain = (by_cluster(one, 0.95, 4000, 0, widened=w) for w in (True, False))
        assert least < (wide.high[0] - wide.low[0]) / (plain.high[0] - plain.low[0]) < most


@pytest.mark.parametrize("name", ["independent", "families", "chains"])
@pytest.mark.parametrize("blocks", [16, 20_000])
def test_resampled_differences_spread_as_much_as_clusters_do(name, blocks, monkeypatch) -> None:
    pairs = {"independent": independent(40, 30), "families": families(60), "chains": chains(40)}[name]
    one = sample(pairs, normal(pairs, members=2))
    monkeypatch.setattr(Sample, "at_once", blocks)
    parts = strata(one)
    error = _errors(one, parts, 4000, np.random.default_rng(0))
    variance = np.zeros(2)
    for part in parts:
        for _, x, _, y, _ in part.blocks(one):
            influence = x / one.n - y / one.m
            variance += (influence**2).sum(axis=1)
    assert error.mean(axis=0) == pytest.approx(0.0, abs=0.02)
    # linear in the weights but for the varying numbers of pairs
    assert error.std(axis=0) == pytest.approx(np.sqrt(variance), rel=0.08)


def test_a_pair_counts_as_often_as_both_its_units_were_drawn() -> None:
    # a ring of 4 units: all 4⁴ resamples, each by its definition
    pairs = ring(4)
    values = normal(pairs, seed=1)
    one = sample(pairs, values)
    deltas = []
    for drawn in np.ndindex(4, 4, 4, 4):
        times = np.bincount(drawn, minlength=4)
        weight = np.array([times[a] * (1 if a == b else times[b]) for a, b in one.links.unit])
        x, y = weight * one.cognate, weight * ~one.cognate
        if x.any() and y.any():
            deltas.append((x @ values[0]) / x.sum() - (y @ values[0]) / y.sum())
    found = by_unit(one, 3, 0.9, 40_000, 0)
    assert found.sd[0] == pytest.approx(np.std(deltas), rel=0.02)
    assert (found.low[0], found.high[0]) == pytest.approx(np.quantile(deltas, [0.05, 0.95]), abs=0.12)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [(independent(5, 5), "pairs"), (couples(12), "clusters"), (ring(20), "units"), (couples(4), "units")],
)
def test_what_is_resampled(pairs: list[Pair], words: str) -> None:
    assert resampled(sample(pairs, normal(pairs)), 0.95, 200, 0).words == words


def test_pairs_of_a_single_unit_have_no_interval() -> None:
    # one meaning, and no pair is independent of another
    pairs = [Pair(str(i), COGNATE if i < 5 else "control", Word(f"a{i}"), Word(f"b{i}"), "dog") for i in range(10)]
    found = resampled(sample(pairs, normal(pairs)), 0.95, 200, 0)
    assert found.words == ""
    assert np.isnan(found.low[0])


def test_effective_numbers_by_hand() -> None:
    assert effective(np.array([1, 1, 1, 1])) == 4
    assert effective(np.array([3, 1, 0])) == pytest.approx(1.6)


@pytest.mark.parametrize(("words", "given"), [(2, False), (3, False), (4, True), (6, True)])
def test_many_controls_of_few_words_have_no_interval_however_many_cognates_there_are(words: int, given: bool) -> None:
    pairs = [Pair(f"g{i}", COGNATE, Word(f"a{i}"), Word(f"b{i}")) for i in range(60)]
    pairs += [Pair(f"k{i}", "control", Word(f"x{i % words}"), Word(f"y{i}")) for i in range(60)]
    one = sample(pairs, normal(pairs))
    assert one.worth == pytest.approx((60, words))
    found = resampled(one, 0.95, 200, 0)
    assert np.isfinite(found.low[0]) == given
    assert bool(found.words) == given


@pytest.mark.parametrize(("n", "m", "given"), [(2, 2, False), (12, 3, False), (3, 12, False), (4, 4, True)])
def test_groups_of_two_or_three_pairs_have_no_interval(n: int, m: int, given: bool) -> None:
    pairs = independent(n, m)
    found = resampled(sample(pairs, normal(pairs)), 0.95, 200, 0)
    assert np.isfinite(found.low[0]) == given
    assert bool(found.words) == given


#: Simulated intervals of 95 % hold the truth as often as is said, but for chance: one in ten thousand.
REPEAT, CHANCE = 600, 1e-4


@pytest.mark.parametrize(("n", "m", "shape"), [(2, 2, "normal"), (12, 2, "skewed (exponential)"), (30, 3, "normal")])
def test_what_such_intervals_would_be_is_why_they_have_none(n: int, m: int, shape: str) -> None:
    held = coverage(shape, n, m, REPEAT, FAST_INTERVALS)
    assert stats.binom.cdf(round(held * REPEAT), REPEAT, 0.95) < CHANCE


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(("n", "m"), [*COVERAGE, (5, 5), (6, 5), (12, 5), (60, 5), (400, 5), (15, 12), (80, 15)])
def test_a_verdict_never_says_that_intervals_hold_the_truth_more_often_than_they_do(n: int, m: int, kind: int) -> None:
    said = simulated(n, m)[1][kind] / 100
    held = coverage([*SHAPES][kind], n, m, REPEAT, FAST_INTERVALS)
    assert stats.binom.cdf(round(held * REPEAT), REPEAT, said) > CHANCE
