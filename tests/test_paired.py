"""ΔΔ of the same pairs measured twice: worked by hand, from statsmodels and SciPy, and calibrated by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from groups import pair_set
from scipy import stats

from pairprobe.errors import ConfigError, StatisticsError
from pairprobe.records import COGNATE, Pair, PairSet, Word
from pairprobe.statistics.paired import delta_of_deltas, deltas_of_deltas


def linked(cognate_clusters: list[int], control_clusters: list[int]) -> PairSet:
    """Pairs that share a concept where they have the same number."""
    groups = [(COGNATE, c) for c in cognate_clusters] + [("control", c) for c in control_clusters]
    return PairSet(
        "linked",
        tuple(Pair(str(i), g, Word(f"a{i}"), Word(f"b{i}"), concept=f"c{c}") for i, (g, c) in enumerate(groups)),
        "here",
    )


def test_by_hand() -> None:
    first = np.array([0.5, 0.7, 0.5, 0.7, 0.2, 0.4, 0.2, 0.4])
    second = np.array([0.6, 1.0, 0.6, 1.0, 0.1, 0.5, 0.1, 0.5])
    found = delta_of_deltas(first, second, pair_set(4, 4), "control")
    assert found.first == pytest.approx(0.6 - 0.3)
    assert found.second == pytest.approx(0.8 - 0.3)
    assert found.estimate == pytest.approx(0.2)  # differences 0.1, 0.3 twice against −0.1, 0.1 twice
    # without each pair in turn: 0.2 ± 1/30, four of each; squares 8/900, s² = 7/8 × 8/900
    margin = stats.t.ppf(0.975, 7) * np.sqrt(7 / 900)
    assert found.ci is not None
    assert (found.ci.low, found.ci.high) == pytest.approx((0.2 - margin, 0.2 + margin))
    assert (found.n_cognate, found.n_control, found.clusters, found.confidence) == (4, 4, 8, 0.95)


def test_in_one_cluster_of_each_size_it_is_statsmodels_jackknife_of_a_regression() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    pairs = linked([0, 0, 1, 2, 3, 4, 4], [0, 5, 6, 1, 7])
    first, second = rng.normal(size=(2, 12))
    found = delta_of_deltas(first, second, pairs, "control", 0.9)
    group = np.array([p.group == COGNATE for p in pairs.pairs], dtype=float)
    number = np.array([int(p.concept[1:]) for p in pairs.pairs])
    slopes = [
        sm.OLS((second - first)[number != c], sm.add_constant(group[number != c])).fit().params[1] for c in range(8)
    ]
    se = np.sqrt(7 / 8 * ((np.array(slopes) - np.mean(slopes)) ** 2).sum())
    assert found.ci is not None
    assert found.ci.high - found.estimate == pytest.approx(stats.t.ppf(0.95, 7) * se)
    assert found.estimate == pytest.approx(sm.OLS(second - first, sm.add_constant(group)).fit().params[1])


def test_of_independent_pairs_it_is_close_to_welch() -> None:
    """The jackknife's variance of a mean of n is s²/n, times (G−1)/G · n/(n−1) for the two groups' sizes."""
    rng = np.random.default_rng(4)
    n = 200
    first, second = rng.normal(size=(2, 2 * n))
    d = second - first
    found = delta_of_deltas(first, second, pair_set(n, n), "control")
    welch = stats.ttest_ind(d[:n], d[n:], equal_var=False).confidence_interval()
    assert found.ci is not None
    assert (found.ci.low, found.ci.high) == pytest.approx((welch.low, welch.high), rel=0.02)


def test_what_both_ways_share_cancels() -> None:
    rng = np.random.default_rng(5)
    pairs = pair_set(10, 10)
    shared = rng.normal(size=20)
    noise = rng.normal(size=(2, 20)) * 0.01
    found = delta_of_deltas(shared + noise[0], shared + noise[1], pairs, "control")
    alone = delta_of_deltas(noise[0], noise[1], pairs, "control")
    assert found.estimate == pytest.approx(alone.estimate)
    assert found.ci is not None
    assert found.ci.high - found.ci.low < 0.05


def test_other_control_groups_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    pairs = pair_set(6, 6)
    others = pair_set(0, 5, control="shuffled").pairs
    more = PairSet("more", (*pairs.pairs, *(p for p in others)), "here")
    first, second = rng.normal(size=(2, 17))
    assert delta_of_deltas(first, second, more, "control") == delta_of_deltas(first[:12], second[:12], pairs, "control")


def test_depths_are_each_their_own() -> None:
    rng = np.random.default_rng(7)
    pairs = pair_set(7, 5, shared=3)
    first, second = rng.normal(size=(2, 4, 12))
    together = deltas_of_deltas(first, second, pairs, "control")
    for i in range(4):
        alone = delta_of_deltas(first[i], second[i], pairs, "control")
        assert together[i].estimate == pytest.approx(alone.estimate)
        assert together[i].ci is not None and alone.ci is not None  # noqa: PT018
        assert together[i].ci.low == pytest.approx(alone.ci.low)


# ── undefined ────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_measurements_have_no_interval_and_say_so() -> None:
    values = np.arange(8.0)
    found = delta_of_deltas(values, values, pair_set(4, 4), "control")
    assert (found.estimate, found.ci) == (0.0, None)
    assert "no similarity differs" in found.why_no_ci


def test_a_change_that_is_the_same_for_all_has_no_interval_and_says_so() -> None:
    first = np.random.default_rng(2).normal(size=8)
    found = delta_of_deltas(first, first + np.repeat([0.3, 0.0], 4), pair_set(4, 4), "control")
    assert found.estimate == pytest.approx(0.3)
    assert found.ci is None
    assert found.why_no_ci == "all pairs of a group change by the same amount"


def test_pairs_that_are_all_linked_have_no_interval_and_say_so() -> None:
    first, second = np.random.default_rng(8).normal(size=(2, 6))
    found = delta_of_deltas(first, second, linked([0, 0, 0], [0, 1, 1]), "control")
    assert found.ci is None
    assert "2 independent groups" in found.why_no_ci
    found = delta_of_deltas(first, second, linked([0, 1, 2], [0, 0, 0]), "control")
    assert found.ci is None
    assert "all control pairs are linked" in found.why_no_ci


@pytest.mark.parametrize(
    ("first", "second", "control", "said"),
    [
        (np.zeros(3), np.zeros(4), "control", "shapes"),
        (np.zeros(3), np.zeros(3), "control", "4 pairs"),
        (np.array([0, 1, np.nan, 2]), np.zeros(4), "control", "not finite"),
        (np.zeros(4), np.ones(4), "shuffled", "0 shuffled pairs"),
    ],
)
def test_what_cannot_be_compared_is_told(first, second, control, said) -> None:
    with pytest.raises(StatisticsError, match=said):
        delta_of_deltas(first, second, pair_set(2, 2), control)


def test_a_confidence_that_is_none() -> None:
    with pytest.raises(ConfigError, match="confidence is 95"):
        delta_of_deltas(np.zeros(4), np.ones(4), pair_set(2, 2), "control", 95)


# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("words", "given"), [(2, False), (3, False), (4, True)])
def test_many_controls_of_few_words_have_no_interval_however_many_cognates_there_are(words: int, given: bool) -> None:
    pairs = linked([*range(60)], [60 + i % words for i in range(60)])
    first, second = np.random.default_rng(1).normal(size=(2, 120))
    found = delta_of_deltas(first, second, pairs, "control")
    assert (found.ci is not None) == given
    assert ("the control pairs are linked into what is worth" in found.why_no_ci) != given


@pytest.mark.parametrize(("n", "m", "given"), [(2, 2, False), (12, 3, False), (3, 12, False), (4, 4, True)])
def test_groups_of_two_or_three_pairs_have_no_interval_and_it_is_said_why(n: int, m: int, given: bool) -> None:
    first, second = np.random.default_rng(1).normal(size=(2, n + m))
    found = delta_of_deltas(first, second, pair_set(n, m), "control")
    assert (found.ci is not None) == given
    few = f"{n} cognate pairs" if n < 4 else f"{m} control pairs"
    assert found.why_no_ci == ("" if given else f"{few}, 4 are due")


def test_a_change_is_claimed_of_no_pairs_of_which_delta_could_not_be() -> None:
    first, second = np.random.default_rng(1).normal(size=(2, 14))
    published = delta_of_deltas(first, second, PUBLISHED, "control")  # clusters of 2, 2, 2, 2, 1, 1 cognates: 100 / 18
    assert published.ci is not None
    assert published.why_no_claim == (
        "cognates are worth 5.6 and control pairs 4 independent pairs, and a claim needs 5 of each"
    )
    assert delta_of_deltas(first, second, pair_set(9, 5), "control").why_no_claim == ""


#: Ten cognates that four controls tie together two by two, as in the published pair set: six clusters.
PUBLISHED = linked([0, 0, 1, 1, 2, 2, 3, 3, 4, 5], [0, 1, 2, 3])


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(PUBLISHED, id="10 + 4 in 6 clusters"),
        pytest.param(pair_set(10, 4), id="10 + 4 apart"),
        pytest.param(linked([*range(12)], [*range(12), *range(12)]), id="12 concepts with both"),
        pytest.param(linked([0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7], [*range(8, 38)]), id="clusters of 1 to 4"),
    ],
)
@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_holds_the_truth_as_often_as_it_says(pairs, skewed) -> None:
    """2000 intervals of 95 %: standard error 0.5 %. Linked pairs share half of the variance of their difference.

    Skewed differences (gamma, skewness 1) in clusters of unequal size are what costs most: 93 %.
    """
    rng = np.random.default_rng(9)
    repeat = 2000
    concepts = {p.concept or p.id: i for i, p in enumerate(pairs.pairs)}
    place = np.array([list(concepts).index(p.concept or p.id) for p in pairs.pairs])
    draw = (lambda *s: rng.gamma(4.0, 0.5, s) - 2.0) if skewed else (lambda *s: rng.normal(size=s))
    d = draw(repeat, len(place)) + draw(repeat, len(concepts))[:, place]
    shared = rng.normal(size=d.shape)
    found = deltas_of_deltas(shared, shared + d, pairs, "control")
    covered = np.mean([0.0 in f.ci for f in found if f.ci is not None])
    assert (0.92 if skewed else 0.935) <= covered <= 0.975
