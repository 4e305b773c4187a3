"""What contradicts a verdict is said under it, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from groups import group_test

from pairprobe.against import against
from pairprobe.evidence import Multiverse, PartnerDepth, PartnerTest, ScoreCheck, Specification
from pairprobe.outcomes import GroupTest, Interval, Verdict
from pairprobe.result import Evidence

ALPHA = 0.05


def with_p(control: str, delta: float, p: float | None, similarity: str = "cosine") -> GroupTest:
    """A test at depth 0 with this Δ, this p (max-T twice as large), and an interval that holds 0 where p is large."""
    test = group_test([0.1, 0.3, 0.2], [0.2, 0.1, 0.4])
    clear = p is not None and p <= ALPHA
    ci = Interval(delta - abs(delta) / 2, delta + abs(delta) / 2) if clear else Interval(delta - 1, delta + 1)
    at = replace(test.depths[0], delta=delta, delta_ci=ci, p=p, p_max_t=None if p is None else 2 * p)
    return replace(test, similarity=similarity, control=control, depths=(at,))


def said(answer: str, *tests: GroupTest, evidence: Evidence | None = None) -> str:
    known = {(t.similarity, t.control): t for t in tests}
    verdict = Verdict(answer, ("",), (), "cosine", "form_matched", 0)
    return " ".join(against(evidence or Evidence(), known, verdict, ALPHA))


def partners(delta: float, p: float | None) -> Evidence:
    at = PartnerDepth(0, 0.5 + delta, 0.5, p, None, p, 2.0, 0.5, None, 0.3, None)
    return Evidence({"cosine": PartnerTest("cosine", 9, 9, 9, (at,), 999, False, 0.001, 5.0, 0.3, 0.1, "exchanged")})


def ways(*g: float, p: float | None = None) -> Evidence:
    specs = tuple(Specification(f"t{i}", "mean", "cosine", 0, x / 10, None, x, None, None) for i, x in enumerate(g))
    median = sorted(g)[len(g) // 2]
    return Evidence(multiverse=Multiverse("form_matched", specs, ALPHA, median, p, None, None, None, 99, "relabelled"))


def scored(rho: float, low: float, high: float) -> Evidence:
    return Evidence(scores=(ScoreCheck("cosine", 0, 30, 30, rho, Interval(low, high), 0.2),))


SAME = with_p("form_matched", 0.01, 0.7)
CLOSER = with_p("form_matched", 0.2, 0.01)


def test_no_difference_from_one_control_is_not_no_difference_from_all() -> None:
    told = said("no difference", SAME, with_p("shuffled", 0.2, 0.003), with_p("unrelated", 0.2, 0.4))
    assert "closer together than shuffled (cosine, Δ = +0.200, p = 0.003, max-T = 0.006): the verdict is about" in told
    assert "unrelated" not in told


def test_other_outcomes_are_judged_as_the_primary_one_is() -> None:
    # both by their own p: the primary one's max-T is 0.06 too, and nothing contradicts
    agreeing = with_p("form_matched", 0.2, 0.03)
    assert said("closer", agreeing, with_p("form_matched", 0.2, 0.03, "centred")) == ""
    told = said("no difference", SAME, with_p("shuffled", 0.2, 0.03))
    assert "closer together than shuffled (cosine, Δ = +0.200, p = 0.030, max-T = 0.060)" in told


def test_where_a_side_was_fixed_other_outcomes_are_judged_on_that_side_too() -> None:
    other = with_p("form_matched", 0.2, 0.08, "centred")
    at = replace(other.depths[0], delta_ci=Interval(0.1, 0.3), p_greater=0.04)
    known = {("cosine", "form_matched"): CLOSER, ("centred", "form_matched"): replace(other, depths=(at,))}
    for side, agrees in (("closer", True), ("both", False)):
        verdict = Verdict("closer", ("",), (), "cosine", "form_matched", 0, side)
        assert (against(Evidence(), known, verdict, ALPHA) == ()) == agrees


def test_a_claim_is_held_against_the_other_controls_and_similarities() -> None:
    told = said("closer", CLOSER, with_p("same_concept", 0.02, 0.6), with_p("form_matched", 0.1, 0.3, "centred"))
    assert "against same_concept no such difference is shown" in told
    assert "this may be meaning" in told
    assert "measured as centred, no such difference is shown" in told
    opposite = said("closer", CLOSER, with_p("unrelated", -0.2, 0.001))
    assert "cognates lie farther apart than unrelated (cosine, Δ = −0.200, p = 0.001, max-T = 0.002)" in opposite


@pytest.mark.parametrize(
    ("answer", "evidence", "words"),
    [
        ("no difference", partners(0.1, 0.001), "words do lie closer to their own partner"),
        ("closer", partners(0.01, 0.4), "not shown to lie closer to their own partner"),
        ("closer", partners(-0.1, 0.001), "the other way round"),
        ("cannot tell", scored(0.1, -0.2, 0.4), "cosine is not shown to follow people's scores of 30 pairs"),
        ("closer", scored(-0.5, -0.7, -0.2), "cosine runs against people's scores"),
        ("closer", ways(-0.1, -0.2, 0.3), "only 1 of 3 ways of measuring give Δ the same sign"),
        ("closer", ways(0.1, 0.2, 0.3, p=0.4), "hangs on the way chosen"),
        ("no difference", ways(0.1, 0.2, 0.3, p=0.02), "do show a difference (median g +0.20, joint p = 0.020)"),
    ],
)
def test_each_kind_of_evidence_can_contradict(answer: str, evidence: Evidence, words: str) -> None:
    assert words in said(answer, CLOSER, evidence=evidence)


@pytest.mark.parametrize(
    ("answer", "tests", "evidence"),
    [
        ("closer", (CLOSER, with_p("shuffled", 0.3, 0.001)), partners(0.1, 0.001)),
        ("closer", (CLOSER,), ways(0.1, 0.2, 0.3, p=0.01)),
        ("closer", (CLOSER,), scored(0.6, 0.3, 0.8)),
        ("closer", (CLOSER,), partners(0.1, None)),
        ("cannot tell", (SAME, with_p("shuffled", 0.3, 0.001)), partners(0.1, 0.001)),
        ("no difference", (SAME, with_p("shuffled", 0.01, 0.9)), partners(0.01, 0.6)),
    ],
)
def test_what_agrees_is_not_a_warning(answer: str, tests: tuple[GroupTest, ...], evidence: Evidence) -> None:
    assert said(answer, *tests, evidence=evidence) == ""
