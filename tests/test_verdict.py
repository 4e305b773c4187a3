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
    assert "a bootstrap interval is too narrow" in found.beware[0]  # 6 against 5


@pytest.mark.parametrize(("n", "m", "warned"), [(20, 20, False), (19, 20, True), (20, 19, True)])
def test_few_pairs_are_warned_of(n, m, warned):
    x, y = drawn(0, n, m)
    assert [b for b in said(x, y).beware if "too narrow" in b] == [
        "with fewer than 20 pairs in a group a bootstrap interval is too narrow: simulated ones of 95 % hold the truth "
        "about 85 times in a hundred at 10 against 4 pairs, and 90 at 10 against 10."
    ] * warned


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
    found = said([0.9, 0.8], [0.1, 0.2])
    assert found.answer == "cannot tell"
    assert "no relabelling can give a p-value under 0.33; none is given" in found.sentences[0]


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


def test_without_an_interval_there_is_no_answer(apart):
    test, pairs = apart
    assert verdict(changed(test, delta_ci=None), pairs, -1).answer == "undefined"


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
def test_no_difference_is_claimed_where_pairs_share_words_however_large(x, y, shared):
    found = said(x, y, shared)
    assert found.answer == "cannot tell"
    assert "supposes independent pairs" in found.sentences[0]
    assert f"{2 * shared} of 11 share a word" in found.sentences[0]


def test_words_reused_from_cognates_are_counted_in_the_warning():
    # 5 control pairs have 10 words; the first of 3 pairs is a cognate's
    assert said(HIGH, LOW, 3).beware[:1] == (
        "3 of 10 control words also occur in cognate pairs: their similarities are not independent.",
    )


def test_words_shared_only_among_controls_are_warned_of_and_bar_the_claim():
    pairs = pair_set(6, 5)
    first, second = pairs.pairs[6:8]
    twice = PairSet("set", (*pairs.pairs[:7], replace(second, a=first.a), *pairs.pairs[8:]), "here")
    found = verdict(FAST.tests([similarities(HIGH, LOW)], twice)["cosine", "control"], twice, -1)
    assert found.answer == "cannot tell"
    assert found.beware[:1] == ("2 of 11 pairs share a word with another pair: they are not independent.",)


def test_a_form_that_two_languages_share_is_two_words():
    pairs = pair_set(6, 5, shared=5)
    marked = tuple(replace(p, a=replace(p.a, lang=p.group), b=replace(p.b, lang=p.group)) for p in pairs.pairs)
    apart = PairSet("set", marked, "here")
    assert verdict(FAST.tests([similarities(HIGH, LOW)], apart)["cosine", "control"], apart, -1).answer == "closer"


@pytest.mark.parametrize("seed", range(25))
def test_whatever_the_numbers_shared_words_never_make_a_claim(seed):
    rng = np.random.default_rng(seed)
    x, y = drawn(seed, 7, 4, shift=float(rng.normal() * 5))
    assert said(x, y, shared=int(rng.integers(1, 5))).answer == "cannot tell"


@pytest.mark.parametrize("seed", range(25))
def test_a_claim_is_made_only_where_p_and_interval_both_carry_it(seed):
    x, y = drawn(seed, 7, 4, shift=[-2.0, -0.8, 0.0, 0.8, 2.0][seed % 5])
    pairs = pair_set(7, 4)
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
        "8 of 8 control words also occur in cognate pairs: their similarities are not independent.",
    )
    assert test.relabellings == 1001


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
    around_zero = changed(test, delta=0.0, p=0.9, delta_ci=Interval(-0.01, 0.01), equivalence_p=equivalence_p)
    found = verdict(replace(around_zero, sesoi=0.3), pairs, -1)
    assert found.answer == answer
    assert ("0.3 standard deviations is ruled out" in found.sentences[0]) == (answer == "no difference")


def test_a_difference_that_is_found_is_no_equivalence(apart):
    test, pairs = apart
    assert verdict(changed(test, equivalence_p=0.001), pairs, -1).answer == "closer"
