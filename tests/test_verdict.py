"""The verdict: no claim that the numbers do not carry."""

from dataclasses import replace

import numpy as np
import pytest
from groups import FAST, drawn, group_test, pair_set, similarities

from pairprobe.methods.recorded import PUBLISHED, Recorded
from pairprobe.outcomes import GroupTest, Interval, Verdict
from pairprobe.pairs.pie_oc import PieOc
from pairprobe.records import PairSet
from pairprobe.statistics.group_tests import Statistics
from pairprobe.verdict import verdict


def said(x, y, shared: int = 0, control: str = "control") -> Verdict:
    x, y = np.atleast_2d(np.array(x, dtype=float)), np.atleast_2d(np.array(y, dtype=float))
    pairs = pair_set(x.shape[1], y.shape[1], control, shared)
    return verdict(FAST.tests([similarities(x, y)], pairs)["cosine", control], pairs, -1)


HIGH, LOW = [0.71, 0.72, 0.74, 0.75, 0.77, 0.78], [0.11, 0.13, 0.14, 0.16, 0.18]


def test_independent_pairs_far_apart_are_called_closer():
    found = said(HIGH, LOW)
    assert found.answer == "closer"
    # 6 against 5 wholly apart: 1 of 462 relabellings
    assert "Cognates lie closer together than controls" in found.sentences[0]
    assert f"p = {1 / 462:.3f}" in found.sentences[0]
    assert "Δ = +0.601" in found.sentences[0]  # 0.745 − 0.144
    assert len(found.beware) == 1
    assert "for 7 against 7 independent pairs" in found.beware[0]  # the nearest to 6 against 5


@pytest.mark.parametrize(("n", "m", "warned"), [(20, 20, False), (19, 20, True), (20, 19, True)])
def test_few_pairs_are_warned_of(n, m, warned):
    x, y = drawn(0, n, m)
    assert bool([b for b in said(x, y).beware if "with fewer than 20 pairs in a group" in b]) == warned


@pytest.mark.parametrize(
    ("n", "m", "told"),
    [
        (
            10,
            4,
            "10 against 4 independent pairs held the true Δ 93 times in a hundred where similarities are normal, "
            "and 91",
        ),
        (4, 10, "10 against 4 independent pairs"),
        (11, 4, "10 against 4 independent pairs"),
        (11, 9, "10 against 10 independent pairs, the simulated size nearest to these, held the true Δ 95 times"),
        (
            60,
            5,
            "100 against 4 independent pairs, the simulated size nearest to these, held the true Δ 92 times in a "
            "hundred where similarities are normal, and 87",
        ),
        (200, 12, "200 against 10 independent pairs"),
        (7, 6, "7 against 7 independent pairs"),
    ],
)
def test_the_warning_quotes_sizes_near_the_runs_own(n, m, told):
    (warning,) = [b for b in said(*drawn(0, n, m)).beware if "with fewer than 20 pairs" in b]
    assert told in warning


@pytest.mark.parametrize(
    ("units", "told"),
    [
        (10, "worth 6 and 5 independent pairs: simulated 95 % intervals of so many held the true Δ 93 to 100"),
        (5, "of so few held the true Δ 84 to 94"),
    ],
)
def test_an_interval_by_units_is_told_with_its_own_coverage(apart, units, told):
    test, pairs = apart
    (warning,) = verdict(replace(test, resampled="units", units=units), pairs, -1).beware
    assert told in warning


def test_linked_pairs_are_warned_of_as_the_independent_ones_they_are_worth(apart):
    test, pairs = apart
    linked = replace(test, effective_cognate=4.2, effective_control=4.1, n_cognate=60, n_control=50)
    assert any("4 against 4 independent pairs" in b for b in verdict(linked, pairs, -1).beware)


def test_a_claim_comes_with_what_else_can_make_it():
    assert "as well as ancestry" in said(HIGH, LOW).sentences[1]


def test_independent_pairs_far_apart_the_other_way_are_called_farther():
    found = said(LOW, HIGH)
    assert found.answer == "farther"
    assert "farther apart" in found.sentences[0]
    assert "Δ = −0.601" in found.sentences[0]


def test_other_controls_are_called_by_their_kind():
    assert "than shuffled controls" in said(HIGH, LOW, control="shuffled").sentences[0]


def test_a_small_difference_cannot_be_told_and_the_reach_is_said():
    found = said([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.1, 0.25, 0.3, 0.4, 0.6])
    assert found.answer == "cannot tell"
    assert found.sentences[0].startswith("Cannot tell.")
    assert "disagree" not in found.sentences[0]
    # 6 against 5: d = 1.9 for a power of 0.8
    assert "With 6 against 5 pairs, a true difference must be about 1.9 standard deviations" in found.sentences[1]


def test_constant_similarities_have_no_answer():
    found = said([0.7] * 6, [0.1] * 5)
    assert found.answer == "undefined"
    assert "no spread" in found.sentences[0]


def test_too_few_pairs_for_a_p_cannot_tell_and_say_so():
    # 4 against 4: wholly apart, 2 of 70 relabellings are as far out
    strict = group_test(HIGH[:4], LOW[:4], Statistics(resamples=200, alpha=0.01))
    found = verdict(strict, pair_set(4, 4), -1)
    assert found.answer == "cannot tell"
    why = "4 against 4 pairs have 70 relabellings, which can give none under 0.029."
    assert f"No p-value is given: {why}" in found.sentences[0]


def test_too_few_relabellings_drawn_for_a_p_say_how_more_are_drawn():
    few = group_test(HIGH, LOW, Statistics(resamples=200, permutations=100, exact_below=1, alpha=0.005))
    found = verdict(few, pair_set(6, 5), -1)
    why = "100 random relabellings can give none under 0.0099. Raise statistics.permutations."
    assert f"No p-value is given: {why}" in found.sentences[0]


def test_where_neither_an_interval_nor_a_p_can_be_given_both_are_explained():
    found = said([0.8, 0.9], [0.1, 0.2])
    assert "No interval is given" in found.sentences[0]
    assert found.sentences[1] == (
        "No p-value is given either: 2 against 2 pairs have 6 relabellings, which can give none under 0.33."
    )


def changed(test: GroupTest, **fields: object) -> GroupTest:
    return replace(test, depths=(replace(test.depths[-1], **fields),))


@pytest.fixture
def apart() -> tuple[GroupTest, PairSet]:
    return group_test(HIGH, LOW), pair_set(6, 5)


def test_a_test_and_an_interval_that_disagree_cannot_tell(apart):
    test, pairs = apart
    found = verdict(changed(test, delta=0.1, p=0.03, delta_ci=Interval(-0.02, 0.3)), pairs, -1)
    assert found.answer == "cannot tell"
    assert "The test (p = 0.030) and the interval, which holds 0, disagree." in found.sentences[0]


def test_an_interval_without_zero_is_not_enough(apart):
    test, pairs = apart
    found = verdict(changed(test, delta=0.1, p=0.06, delta_ci=Interval(0.02, 0.3)), pairs, -1)
    assert found.answer == "cannot tell"
    assert "p = 0.060" in found.sentences[0]


def test_an_interval_that_ends_at_zero_holds_it(apart):
    test, pairs = apart
    assert verdict(changed(test, delta=0.1, p=0.03, delta_ci=Interval(0.0, 0.3)), pairs, -1).answer == "cannot tell"


@pytest.mark.parametrize(("p", "answer"), [(0.05, "closer"), (0.0500001, "cannot tell")])
def test_a_p_of_alpha_itself_counts(apart, p, answer):
    test, pairs = apart
    assert verdict(changed(test, p=p), pairs, -1).answer == answer


def test_without_an_interval_there_is_no_claim(apart):
    test, pairs = apart
    found = verdict(changed(test, delta_ci=None), pairs, -1)
    assert found.answer == "cannot tell"
    assert "No interval is given" in found.sentences[0]


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 2), (12, 2), (12, 3)])
def test_groups_of_two_or_three_pairs_claim_nothing_and_say_that_they_are_too_few_for_an_interval(n, m):
    x, y = drawn(0, n, m, shift=50.0)
    found = said(x, y)
    assert found.answer == "cannot tell"
    assert f"{n} cognate against {m} control pairs; each group needs 4." in found.sentences[0]
    assert not found.beware  # no coverage of an interval that there is not
    test = group_test(x, y)
    at = test.at(-1)
    assert (at.delta_ci, at.g_ci, at.auc_ci, at.equivalence_p) == (None,) * 4
    assert at.p == (None if test.smallest_p > 0.05 else pytest.approx(test.smallest_p))  # the test is exact for any


def test_a_deciding_sign_is_not_rounded_away(apart):
    test, pairs = apart
    found = verdict(changed(test, delta=0.001, p=0.03, delta_ci=Interval(0.00004, 0.002)), pairs, -1)
    assert found.answer == "closer"
    assert "interval +0.00004 to +0.002" in found.sentences[0]


def test_clusters_that_contradict_the_difference_bar_the_claim(apart):
    # p is about what changes places; where that points the other way than Δ, nothing is claimed
    test, pairs = apart
    other = replace(changed(test, p=0.01, p_greater=0.995), scheme="labels exchanged within clusters")
    found = verdict(other, pairs, -1)
    assert found.answer == "cannot tell"
    assert "the other way round" in found.sentences[0]


def test_the_corrected_p_is_not_what_the_primary_depth_is_judged_by(apart):
    # the primary depth was chosen before looking
    test, pairs = apart
    assert verdict(changed(test, p_max_t=0.9), pairs, -1).answer == "closer"


def test_the_verdict_is_of_the_depth_asked_for():
    pairs = pair_set(6, 5)
    test = FAST.tests([similarities([HIGH, [*LOW, 0.2], HIGH], [LOW, HIGH[:5], HIGH[:5]], (0, 5, 9))], pairs)[
        "cosine", "control"
    ]
    answers = [(verdict(test, pairs, d).depth, verdict(test, pairs, d).answer) for d in (0, 5, -1)]
    assert answers == [(0, "closer"), (5, "farther"), (9, "cannot tell")]


@pytest.mark.parametrize(("x", "y"), [(HIGH, LOW), (LOW, HIGH)])
@pytest.mark.parametrize("shared", [1, 5])
def test_a_test_that_took_linked_pairs_for_independent_claims_nothing_however_large(x, y, shared):
    found = verdict(group_test(x, y), pair_set(6, 5, shared=shared), -1)
    assert found.answer == "cannot tell"
    assert "supposes independent pairs" in found.sentences[0]
    assert f"{2 * shared} of 11 share a word" in found.sentences[0]


@pytest.mark.parametrize(("x", "y", "answer"), [(HIGH, LOW, "closer"), (LOW, HIGH, "farther")])
def test_linked_pairs_may_claim_where_enough_of_them_can_be_relabelled(x, y, answer):
    # one shared word: the two pairs it links, and 5 against 4 others, 2 · 126 labellings
    assert said(x, y, 1).answer == answer
    # five: 2⁵ labellings, of which the mirror image of each is as far out; and one pair that nothing can replace
    found = said(x, y, 5)
    assert found.answer == "cannot tell"
    assert "link the 11 pairs into 6 clusters; 32 relabellings leave the links as they are" in found.sentences[0]


def test_words_reused_from_cognates_are_counted_in_the_warning():
    # 5 control pairs have 10 words; the first of 3 pairs is a cognate's
    assert said(HIGH, LOW, 3).beware[:1] == (
        "3 of 10 control words also occur in cognate pairs: their similarities are not independent; test and interval "
        "move linked pairs together.",
    )


def test_without_a_p_nothing_is_said_of_how_the_test_moved_pairs():
    first = said(HIGH, LOW, 5).beware[0]
    assert first.endswith("not independent; the interval allows for it.")
    assert "test" not in first


def test_words_shared_only_among_controls_are_warned_of():
    pairs = pair_set(6, 7)
    first, second = pairs.pairs[6:8]
    twice = PairSet("set", (*pairs.pairs[:7], replace(second, a=first.a), *pairs.pairs[8:]), "here")
    found = verdict(FAST.tests([similarities(HIGH, [*LOW, 0.12, 0.15])], twice)["cosine", "control"], twice, -1)
    # that cluster of two controls has none of cognates to change places with: 6 against 5 others
    assert f"p = {1 / 462:.3f}" in found.sentences[0]
    assert found.beware[:1] == (
        "2 of 13 pairs share a word with another pair: they are not independent; test and interval move linked pairs "
        "together.",
    )


def test_pairs_that_concepts_alone_link_are_warned_of(apart):
    test, pairs = apart
    found = verdict(replace(test, clusters=7, scheme="labels exchanged within clusters"), pairs, -1)
    assert "concepts or cognate sets link the 11 pairs into 7 clusters" in found.beware[0]


def test_a_form_that_two_languages_share_links_their_pairs():
    # alone in a template it is one text, whoever says it
    pairs = pair_set(6, 5, shared=5)
    marked = tuple(replace(p, a=replace(p.a, lang=p.group), b=replace(p.b, lang=p.group)) for p in pairs.pairs)
    apart = PairSet("set", marked, "here")
    found = verdict(FAST.tests([similarities(HIGH, LOW)], apart)["cosine", "control"], apart, -1)
    assert found.answer == "cannot tell"
    assert found.beware[0].startswith("5 of 10 control words also occur in cognate pairs: ")


@pytest.mark.parametrize("seed", range(25))
def test_whatever_the_numbers_shared_words_make_no_claim_by_a_test_of_independent_pairs(seed):
    rng = np.random.default_rng(seed)
    x, y = drawn(seed, 7, 4, shift=float(rng.normal() * 5))
    test, pairs = group_test(x, y), pair_set(7, 4, shared=int(rng.integers(1, 5)))
    assert verdict(test, pairs, -1).answer in ("cannot tell", "no difference")


@pytest.mark.parametrize("seed", range(25))
def test_a_claim_is_made_only_where_p_and_interval_both_carry_it(seed):
    x, y = drawn(seed, 6, 6, shift=[-2.0, -0.8, 0.0, 0.8, 2.0][seed % 5])
    pairs = pair_set(6, 6)
    test = FAST.tests([similarities(x, y)], pairs)["cosine", "control"]
    at = test.at(-1)
    carried = at.p <= 0.05 and (at.delta_ci.low > 0 or at.delta_ci.high < 0)
    assert (verdict(test, pairs, -1).answer in ("closer", "farther")) == carried


@pytest.mark.parametrize("model", ["Qwen2.5-72B-Instruct-AWQ", "Llama-3.3-70B-Instruct-INT8"])
def test_the_published_numbers_cannot_tell(model):
    pairs = PieOc().read()
    recorded = Recorded(path=PUBLISHED, model=model).similarities(pairs)
    test = Statistics().tests([recorded], pairs)[recorded.name, "control"]
    found = verdict(test, pairs, -1)
    assert found.answer == "cannot tell"
    assert found.beware[:1] == (
        "8 of 8 control words also occur in cognate pairs: their similarities are not independent; the interval allows "
        "for it.",
    )
    # four clusters of two cognates and a control, two of a cognate alone: 2⁴ labellings
    assert (test.relabellings, test.clusters, test.scheme, test.at(-1).p) == (16, 6, "", None)


def test_linked_pairs_without_a_p_say_why(apart):
    test, pairs = apart
    linked = replace(changed(test, p=None), scheme="", why_no_p="they are linked into only 2 independent groups.")
    found = verdict(linked, pairs, -1)
    assert found.answer == "cannot tell"
    assert "No p-value is given: they are linked into only 2 independent groups." in found.sentences[0]


def test_a_p_of_linked_pairs_that_moved_together_may_claim(apart):
    test, _ = apart
    found = verdict(replace(test, scheme="signs of clusters flipped"), pair_set(6, 5, shared=3), -1)
    assert found.answer == "closer"
    assert "relabelling (signs of clusters flipped)" in found.sentences[0]
    assert "move linked pairs together" in found.beware[0]


@pytest.mark.parametrize(("equivalence_p", "answer"), [(0.01, "no difference"), (0.06, "cannot tell")])
def test_no_difference_is_said_only_with_evidence(apart, equivalence_p, answer):
    test, pairs = apart
    around_zero = changed(test, delta=0.0, p=0.9, delta_ci=Interval(-0.005, 0.005), equivalence_p=equivalence_p)
    found = verdict(replace(around_zero, sesoi=0.3), pairs, -1)
    assert found.answer == answer
    # pooled sd of HIGH and LOW: √((0.00375 + 0.00292) / 9) = 0.0272
    assert ("as large as 0.3 standard deviations, here 0.00817, in" in found.sentences[0]) == (
        answer == "no difference"
    )
    assert any("knows nothing of these words gives no difference either" in s for s in found.sentences) == (
        answer == "no difference"
    )


def test_no_difference_is_not_said_where_the_printed_interval_holds_one_of_interest(apart):
    test, pairs = apart
    wide = changed(test, delta=0.0, p=0.9, delta_ci=Interval(-0.005, 0.0082), equivalence_p=0.01)
    found = verdict(replace(wide, sesoi=0.3), pairs, -1)
    assert found.answer == "cannot tell"
    assert "the interval, which reaches beyond ±0.00817, disagree" in found.sentences[0]


@pytest.mark.parametrize("why", ["", "so."])
def test_without_a_p_there_is_no_equivalence(apart, why):
    test, pairs = apart
    around = changed(test, delta=0.0, p=None, delta_ci=Interval(-0.005, 0.005), equivalence_p=0.01)
    assert verdict(replace(around, scheme="", why_no_p=why), pairs, -1).answer == "cannot tell"


def test_groups_that_are_worth_too_little_are_neither_equal_nor_apart(apart):
    test, pairs = apart
    few = replace(changed(test, p=0.01), effective_control=4.9, scheme="clusters of one size exchanged whole")
    found = verdict(few, pairs, -1)
    assert found.answer == "cannot tell"
    assert "control pairs 4.9 independent pairs, and each group should be worth 5" in found.sentences[0]
    around = changed(few, delta=0.0, p=0.9, delta_ci=Interval(-0.005, 0.005), equivalence_p=0.01)
    assert verdict(around, pairs, -1).answer == "cannot tell"
    assert verdict(replace(around, effective_control=5.0), pairs, -1).answer == "no difference"


@pytest.mark.parametrize(("moved", "answer"), [((3, 3), "closer"), ((2, 5), "cannot tell"), ((6, 2), "cannot tell")])
def test_a_p_of_a_few_of_the_pairs_is_no_claim_for_all(apart, moved, answer):
    test, pairs = apart
    found = verdict(replace(test, moved_cognate=moved[0], moved_control=moved[1]), pairs, -1)
    assert found.answer == answer
    if answer != "closer":
        assert "relabelling can move only 2 of" in found.sentences[0]


@pytest.mark.parametrize(
    ("n", "m", "spreads", "answer"),
    [
        (30, 10, (1.0, 1.4), "closer"), (30, 10, (1.0, 1.6), "cannot tell"), (30, 10, (1.6, 1.0), "cannot tell"),
        (10, 10, (1.0, 3.0), "closer"), (30, 20, (1.0, 3.0), "closer"), (30, 10, (0.0, 1.0), "cannot tell"),
    ],
)  # fmt: skip
def test_few_pairs_of_unequal_spread_and_number_claim_nothing(apart, n, m, spreads, answer):
    test, _ = apart
    at = changed(test, sd_cognate=spreads[0], sd_control=spreads[1], p=0.01)
    sizes = {"n_cognate": n, "n_control": m, "effective_cognate": float(n), "effective_control": float(m)}
    some = replace(at, **sizes, moved_cognate=n, moved_control=m)
    found = verdict(some, pair_set(n, m), -1)
    assert found.answer == answer
    assert ("and they differ in size" in found.sentences[0]) == (answer == "cannot tell")


def test_a_difference_that_is_found_is_no_equivalence(apart):
    test, pairs = apart
    found = verdict(changed(test, equivalence_p=0.001), pairs, -1)
    assert found.answer == "closer"
    assert not any("of interest" in s for s in found.sentences)  # the interval reaches beyond what is of interest


def test_a_difference_that_is_found_and_is_small_is_said_to_be_small(apart):
    test, pairs = apart
    small = changed(test, delta=0.004, p=0.001, delta_ci=Interval(0.002, 0.006), equivalence_p=0.001)
    found = verdict(small, pairs, -1)
    assert found.answer == "closer"
    assert found.sentences[1].startswith(
        "They lie closer together, but by less than was called of interest: one as large"
    )


@pytest.mark.parametrize(
    ("side", "numbers", "answer"),
    [
        ("both", {"p": 0.06, "p_greater": 0.03, "p_less": 0.97}, "cannot tell"),
        ("closer", {"p": 0.06, "p_greater": 0.03, "p_less": 0.97}, "closer"),
        ("farther", {"p": 0.06, "p_greater": 0.03, "p_less": 0.97}, "cannot tell"),
        ("farther", {"p": 0.02, "p_greater": 0.01, "p_less": 0.99}, "cannot tell"),  # the other side was asked about
    ],
)
def test_a_side_fixed_in_advance_is_the_only_one_that_can_be_claimed(side, numbers, answer):
    test = group_test(HIGH, LOW)
    found = verdict(changed(test, delta=0.1, delta_ci=Interval(0.02, 0.3), **numbers), pair_set(6, 5), -1, side)
    assert (found.answer, found.side) == (answer, side)
    if side == "closer":
        assert "one-sided p = 0.030 by relabelling" in found.sentences[0]
        assert "the interval is two-sided all the same" in found.sentences[1]
    if side == "farther":
        assert "whether cognates lie farther, and Δ lies on the other side" in found.sentences[0]


def test_farther_is_claimed_where_it_was_asked_about():
    x, y = np.array([LOW]), np.array([HIGH])
    pairs = pair_set(5, 6)
    test = FAST.tests([similarities(x, y)], pairs)["cosine", "control"]
    found = verdict(test, pairs, -1, "farther")
    assert found.answer == "farther"
    assert test.depths[0].p_less == pytest.approx(1 / 462)
    assert verdict(test, pairs, -1, "closer").answer == "cannot tell"


def test_of_four_against_four_it_is_not_said_what_could_be_found():
    """Since nothing could: a claim needs groups that are worth five."""
    found = said(*drawn(0, 4, 4))
    assert found.answer == "cannot tell"
    assert (
        "No difference between so few can be claimed, however large it is: cognates are worth 4" in found.sentences[1]
    )
    assert "each group should be worth 5." in found.sentences[1]


def test_what_groups_are_worth_is_told_once_where_equivalence_is_held_back():
    x, y = drawn(0, 4, 4)
    around = changed(group_test(x, y), p=0.9, delta_ci=Interval(-0.005, 0.005), equivalence_p=0.01)
    found = verdict(around, pair_set(4, 4), -1)
    assert found.sentences[0].startswith(
        "Cannot tell. The test of equivalence alone is not enough for so few. Cognates"
    )
    assert " ".join(found.sentences).count("are worth 4") == 1
