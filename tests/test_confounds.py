"""Δ with covariates held equal and AUCs of spelling: answers from statsmodels and scikit-learn, coverage counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import roc_auc_score

from pairprobe import covariates
from pairprobe.evidence import AdjustedDelta, FormBaseline
from pairprobe.records import COGNATE, Covariate, Pair, PairSet, Similarities, Word
from pairprobe.statistics.confounds import adjusted, clustered_auc, form_baselines
from pairprobe.statistics.group_tests import Statistics

S = Statistics(resamples=100, permutations=100)


def pair_set(cognate: np.ndarray, cluster: np.ndarray) -> PairSet:
    """Pairs of one cluster share a concept, and nothing else."""
    return PairSet(
        "s",
        tuple(
            Pair(f"p{i}", COGNATE if c else "control", Word(f"a{i}"), Word(f"b{i}"), concept=f"c{k}")
            for i, (c, k) in enumerate(zip(cognate, cluster, strict=True))
        ),
        "here",
    )


def drawn(seed: int, g: int = 30, between: bool = False) -> tuple[PairSet, np.ndarray, np.ndarray, list[Covariate]]:
    """(pairs, clusters, values [2, pairs], covariates) without any difference once covariates are held equal."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(g), rng.integers(1, 5, g))
    n = len(cluster)
    cognate = rng.permutation(np.arange(g) % 2 == 0)[cluster] if between else rng.random(n) < 0.5
    found = [
        Covariate("edit distance", rng.normal(size=n) + 0.7 * rng.normal(size=g)[cluster] + 0.5 * cognate),
        Covariate("length", 5 + 2 * rng.normal(size=n)),
        Covariate("same script", (rng.random(n) < 0.5).astype(float), binary=True),
    ]
    values = rng.normal(size=(2, n)) + rng.normal(size=(2, g))[:, cluster] + 0.5 * found[0].values
    return pair_set(cognate, cluster), cluster, values, found


def at_last(pairs: PairSet, values: np.ndarray, given: list[Covariate]) -> AdjustedDelta:
    return adjusted(S, [Similarities("cosine", values, tuple(range(len(values))))], pairs, given, -1)[-1]


def test_estimates_are_those_of_statsmodels() -> None:
    pairs, _, values, given = drawn(0)
    found = at_last(pairs, values, given)
    cognate = pairs.members(COGNATE)
    z = [(c.values - c.values.mean()) / c.values.std() for c in given[:2]]
    design = np.column_stack([np.ones(len(cognate)), cognate, *z, given[2].values])
    known = sm.OLS(values[-1], design).fit()
    assert found.adjusted == pytest.approx(known.params[1])
    assert [c.name for c in found.coefficients] == ["edit distance", "length", "same script"]
    assert [c.estimate for c in found.coefficients] == pytest.approx(known.params[2:])
    assert found.raw == pytest.approx(values[-1][cognate].mean() - values[-1][~cognate].mean())
    # unstandardised and without clusters' help, the group's coefficient is the same number
    raw = sm.OLS(values[-1], np.column_stack([np.ones(len(cognate)), cognate, *(c.values for c in given)])).fit()
    assert found.adjusted == pytest.approx(raw.params[1])


def test_errors_are_those_of_fits_without_each_cluster() -> None:
    pairs, cluster, values, given = drawn(1)
    found = at_last(pairs, values, given)
    cognate = pairs.members(COGNATE)
    z = [(c.values - c.values.mean()) / c.values.std() for c in given[:2]]
    design = np.column_stack([np.ones(len(cognate)), cognate, *z, given[2].values])
    whole = sm.OLS(values[-1], design).fit().params
    left = np.array([sm.OLS(values[-1][cluster != k], design[cluster != k]).fit().params for k in range(30)])
    error = np.sqrt(29 / 30 * ((left - whole) ** 2).sum(axis=0))
    t = stats.t.ppf(0.975, 29)
    assert found.clusters == 30
    assert found.ci is not None
    assert (found.ci.low, found.ci.high) == pytest.approx((whole[1] - t * error[1], whole[1] + t * error[1]))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(whole[1] / error[1]), 29))
    assert found.coefficients[0].p == pytest.approx(2 * stats.t.sf(abs(whole[2] / error[2]), 29))
    # statsmodels' own cluster-robust error (CV1) is near, and smaller as it is known to be
    cv1 = sm.OLS(values[-1], design).fit(cov_type="cluster", cov_kwds={"groups": cluster}, use_t=True).bse
    assert 0.7 < cv1[1] / error[1] < 1.02


def test_every_control_similarity_and_depth_is_adjusted_beside_its_raw_difference() -> None:
    pairs, _, values, given = drawn(2)
    others = [replace(p, group="unrelated") if i % 2 and p.group != COGNATE else p for i, p in enumerate(pairs.pairs)]
    second = replace(pairs, pairs=tuple(others))
    kinds = [Similarities(name, values, (0, 6)) for name in ("cosine", "centred")]
    found = adjusted(S, kinds, second, given, -1)
    assert {(a.similarity, a.control, a.depth) for a in found} == {
        (s, c, d) for s in ("cosine", "centred") for c in second.controls for d in (0, 6)
    }


def test_covariates_that_add_nothing_are_left_out_with_the_reason() -> None:
    pairs, _, values, given = drawn(3)
    cognate = pairs.members(COGNATE)
    given = [
        *given,
        Covariate("tokens", np.full(len(cognate), 4.0)),
        Covariate("double", 3 * given[1].values - given[0].values),
        Covariate("script", cognate.astype(float), binary=True),
        Covariate("frequency", np.full(len(cognate), np.nan), missing="known for both words in 3 of 9 pairs only"),
    ]
    found = at_last(pairs, values, given)
    assert found.dropped == {
        "tokens": "the same in all pairs",
        "double": "follows from the group and edit distance, length, same script",
        "script": "tells cognates from controls without fail, so that nothing can hold it equal",
        "frequency": "known for both words in 3 of 9 pairs only",
    }
    assert found.adjusted == pytest.approx(at_last(pairs, values, given[:3]).adjusted)


def test_few_clusters_give_an_estimate_without_error_and_say_so() -> None:
    pairs, _, values, given = drawn(4, g=12)
    found = at_last(pairs, values, given)
    assert found.adjusted is not None
    assert (found.ci, found.p) == (None, None)
    assert "12 clusters" in found.why_not


def test_a_group_in_few_clusters_gives_no_error_either() -> None:
    cluster = np.concatenate([np.arange(40), np.repeat([100, 101, 102], 10)])
    cognate = cluster < 50
    rng = np.random.default_rng(0)
    found = at_last(pair_set(cognate, cluster), rng.normal(size=(1, 70)), [])
    assert found.ci is None
    assert "controls lie in 3 clusters" in found.why_not


def test_too_few_pairs_for_the_terms_give_nothing() -> None:
    rng = np.random.default_rng(0)
    cognate = np.arange(9) < 5
    found = at_last(pair_set(cognate, np.arange(9)), rng.normal(size=(1, 9)),
                    [Covariate(str(k), rng.normal(size=9)) for k in range(3)])  # fmt: skip
    assert found.adjusted is None
    assert "9 pairs are too few for 5 terms" in found.why_not


def test_what_has_no_spread_or_nothing_left_is_undefined() -> None:
    pairs, _, values, given = drawn(5)
    assert "all cosine similarities are equal" in at_last(pairs, np.full_like(values, 0.7), given).why_not
    exact = at_last(pairs, np.stack([given[0].values, given[0].values]), given)
    assert exact.ci is None
    assert "nothing unexplained" in exact.why_not
    assert exact.adjusted == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("between", [False, True], ids=["groups within clusters", "whole clusters of a group"])
def test_five_in_a_hundred_false_alarms_and_ninety_five_held(between: bool) -> None:
    rounds, alarms = 400, 0
    for seed in range(rounds):
        pairs, _, values, given = drawn(1000 + seed, g=25, between=between)
        found = at_last(pairs, values[-1:], given)
        assert found.p is not None
        assert found.ci is not None
        assert (found.p <= 0.05) == (0.0 not in found.ci)
        alarms += found.p <= 0.05
    low, high = stats.binom.ppf([0.0005, 0.9995], rounds, 0.05)
    assert low <= alarms <= high


# ── spelling alone ───────────────────────────────────────────────────────────────────────────────────────


def test_auc_is_scikit_learns_and_its_variance_delongs() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(30) < 18
    scores = np.round(rng.normal(size=(2, 30)) + positive, 1)  # with ties
    auc, covariance, g = clustered_auc(scores, positive, np.arange(30))
    assert auc == pytest.approx([roc_auc_score(positive, s) for s in scores])
    assert g == 12

    def wins(s: np.ndarray) -> np.ndarray:
        x, y = s[positive][:, None], s[~positive]
        return (x > y) + 0.5 * (x == y)

    v10, v01 = (np.array([wins(s).mean(axis=k) for s in scores]) for k in (1, 0))
    assert covariance == pytest.approx(np.cov(v10) / 18 + np.cov(v01) / 12)  # DeLong et al. 1988, equation 5


def test_intervals_of_clustered_auc_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    held = naive = 0
    cluster = np.repeat(np.arange(30), 4)
    positive = np.tile([True, True, False, False], 30)
    positive[:40] = True  # ten clusters of cognates alone, ten of controls alone
    positive[40:80] = False
    for _ in range(400):
        scores = rng.normal(size=(1, 120)) + 1.5 * rng.normal(size=30)[cluster]
        for which, clusters in (("held", cluster), ("naive", np.arange(120))):
            auc, covariance, g = clustered_auc(scores, positive, clusters)
            assert covariance is not None
            inside = abs(auc[0] - 0.5) <= stats.t.ppf(0.975, g - 1) * np.sqrt(covariance[0, 0])
            held, naive = held + (which == "held" and inside), naive + (which == "naive" and inside)
    assert 400 * 0.92 <= held <= 400 * 0.985
    assert naive < held - 40


def test_form_baseline_of_words_that_differ_by_hand() -> None:
    rows = [
        ("wasser", "water"),
        ("vater", "father"),
        ("hand", "hand"),
        ("baum", "dog"),
        ("stein", "fish"),
        ("tisch", "top"),
    ]

    def baseline(values: list[float]) -> FormBaseline:
        half = len(values) // 2
        of = [Pair(f"p{i}", COGNATE if i < half else "control", Word(a), Word(b)) for i, (a, b) in enumerate(rows)]
        pairs = PairSet("s", tuple(of), "here")
        measured = Similarities("cosine", np.array([values]), (4,))
        return form_baselines(S, measured, pairs, covariates.of_pairs(pairs), -1)[0]

    form = baseline([0.9, 0.2, 0.8, 0.3, 0.1, 0.5])
    assert form.auc == 1.0
    assert form.auc_ci is None  # parted without fail: no spread to tell how far that holds
    assert form.model_auc == pytest.approx((3 + 1 + 3) / 9)
    assert form.gain == pytest.approx(7 / 9 - 1)
    assert (form.similarity, form.depth) == ("cosine", 4)
    assert form.gain_ci is None  # three pairs allow no interval
    rows[3:3], rows[7:] = [("sonne", "sun")], [("buch", "river")]
    four = baseline([0.9, 0.2, 0.8, 0.7, 0.3, 0.1, 0.5, 0.4])
    assert four.gain_ci is not None
    assert four.auc == 1.0
