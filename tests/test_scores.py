"""Similarities against people's scores: answers from SciPy, coverage and false alarms counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pairprobe.records import COGNATE, Pair, PairSet, Similarities, Word
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.scores import exchanged_p, fisher_interval, influences, score_checks, spearman

S = Statistics(resamples=100, permutations=999)


def scored(scores: list[float | None], concept: str = "") -> PairSet:
    """Pairs alternate between groups; concept: one letter a pair."""

    def pair(i: int, score: float | None) -> Pair:
        group = COGNATE if i % 2 else "control"
        return Pair(f"p{i}", group, Word(f"a{i}"), Word(f"b{i}"), concept=concept[i : i + 1], score=score)

    return PairSet("s", tuple(pair(i, s) for i, s in enumerate(scores)), "here")


def test_rho_is_scipys_ties_and_missing_scores_included() -> None:
    rng = np.random.default_rng(0)
    scores = [None if i % 5 == 0 else float(rng.integers(1, 6)) for i in range(30)]
    values = np.round(rng.normal(size=(3, 30)), 1)
    found = score_checks(S, [Similarities("cosine", values, (0, 1, 2))], scored(scores))
    has = [s is not None for s in scores]
    for k, check in enumerate(found):
        known = stats.spearmanr(values[k][has], [s for s in scores if s is not None])
        assert check.rho == pytest.approx(known.statistic)
        assert (check.n, check.clusters, check.depth) == (24, 24, k)
        assert check.p == pytest.approx(known.pvalue, abs=0.06)


def test_exact_p_is_that_of_all_orders() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 6))
    (p,), why = exchanged_p(x[None], y, np.arange(6), S)
    known = stats.permutation_test(
        (x,), lambda x: stats.spearmanr(x, y).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    assert p == pytest.approx(known.pvalue)
    assert why == ""


def test_bonett_and_wright_s_interval_by_hand() -> None:
    found = fisher_interval(0.6, 28, 1.0, 28, 0.95)
    reach = 1.959964 * np.sqrt(1.18 / 25)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(
        (np.tanh(np.arctanh(0.6) - reach), np.tanh(np.arctanh(0.6) + reach))
    )
    assert fisher_interval(1.0, 28, 1.0, 28, 0.95) is None
    assert fisher_interval(0.5, 28, 1.0, 3, 0.95) is None


def test_influences_are_those_of_leaving_pairs_out() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 300).T
    whole = stats.spearmanr(x, y).statistic
    left = np.array([stats.spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(300)])
    mine = influences(stats.rankdata(x) - 150.5, stats.rankdata(y) - 150.5)
    jackknife = 299 * (whole - left)
    assert np.corrcoef(mine, jackknife)[0, 1] > 0.999
    assert mine.std() == pytest.approx(jackknife.std(), rel=0.03)


def test_linked_pairs_widen_the_interval_and_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(3)
    linked = np.repeat(np.arange(25), 3)
    held = {"independent": 0, "linked": 0, "as if independent": 0}
    truth = 6 / np.pi * np.arcsin(0.5 / 2)  # Spearman's of a normal correlation of 0.5
    for _ in range(400):
        z = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 40)
        rho, effect = spearman(z[:, 0][None], z[:, 1], np.arange(40))
        assert effect.tolist() == [1.0]
        held["independent"] += truth in (fisher_interval(rho[0], 40, 1.0, 40, 0.95) or ())
        x, y = rng.normal(size=(2, 25))[:, linked] + 0.5 * rng.normal(size=(2, 75))
        rho, effect = spearman(x[None], y, linked)
        held["linked"] += 0.0 in (fisher_interval(rho[0], 75, effect[0], 25, 0.95) or ())
        held["as if independent"] += 0.0 in (fisher_interval(rho[0], 75, 1.0, 75, 0.95) or ())
    assert 400 * 0.925 <= held["independent"] <= 400 * 0.98
    assert 400 * 0.915 <= held["linked"] <= 400 * 0.985
    assert held["as if independent"] < 400 * 0.85


def test_five_in_a_hundred_false_alarms_also_with_linked_pairs() -> None:
    rng = np.random.default_rng(4)
    linked = np.repeat(np.arange(20), 2)
    rounds, alarms = 400, 0
    settings = Statistics(resamples=100, permutations=199)
    for _ in range(rounds):
        x, y = rng.normal(size=(2, 20))[:, linked] + 0.3 * rng.normal(size=(2, 40))
        (p,), _ = exchanged_p(x[None], y, linked, settings)
        assert p is not None
        alarms += p <= 0.05
    low, high = stats.binom.ppf([0.0005, 0.9995], rounds, 0.05)
    assert low <= alarms <= high


def test_scores_without_spread_say_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(1, 8))
    (check,) = score_checks(S, [Similarities("cosine", values, (0,))], scored([3.0] * 8))
    assert (check.rho, check.ci, check.p) == (None, None, None)


def test_no_p_where_linked_pairs_cannot_be_exchanged() -> None:
    values = np.random.default_rng(0).normal(size=(1, 8))
    pairs = scored([float(i) for i in range(8)], concept="aaaabbcd")
    (check,) = score_checks(S, [Similarities("cosine", values, (0,))], pairs)
    assert check.clusters == 4
    assert check.p is None
    assert "only 2 ways" in check.why_no_p


def test_fewer_than_four_scores_are_not_asked() -> None:
    values = np.random.default_rng(0).normal(size=(1, 8))
    pairs = scored([1.0, 2.0, 3.0, *[None] * 5])
    assert score_checks(S, [Similarities("cosine", values, (0,))], pairs) == ()
