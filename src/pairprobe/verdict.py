"""Group tests → what may be said: a sentence a statistician would sign, and what to beware of."""

from __future__ import annotations

import math

from pairprobe.outcomes import PAIRS_RELABELLED, GroupTest, Verdict, p_text, signed
from pairprobe.records import PairSet

FEW = 20  # pairs in a group; below, even of normal similarities BCa intervals hold the truth too rarely (decision 5)


def verdict(test: GroupTest, pairs: PairSet, depth: int) -> Verdict:
    """One careful answer at the primary depth, and what to beware of.

    A difference is claimed only where the test and the interval agree and no pair shares a word with another, or the
    test moved linked pairs together; that there is none, only by equivalence. Else it cannot be told, and why is said.
    """
    at = test.at(depth)
    reused, words = pairs.reused_words(test.control)
    dependent = pairs.dependent_pairs(test.control)
    total = test.n_cognate + test.n_control
    naive = test.scheme == PAIRS_RELABELLED
    moved = "" if naive else "; test and interval move linked pairs together"
    beware = []
    if reused:
        beware.append(
            f"{reused} of {words} {test.control} words also occur in cognate pairs: their similarities are "
            f"not independent{moved}."
        )
    elif dependent:
        beware.append(f"{dependent} of {total} pairs share a word with another pair: they are not independent{moved}.")
    sizes = f"{test.n_cognate} against {test.n_control} pairs"
    if min(test.n_cognate, test.n_control) < FEW:
        beware.append(
            f"with fewer than {FEW} pairs in a group a bootstrap interval is too narrow: simulated ones of 95 % hold "
            "the truth about 85 times in a hundred at 10 against 4 pairs, and 90 at 10 against 10."
        )
    reach = (
        f"With {sizes}, a true difference must be about {test.detectable_d:.1f} standard deviations to be found "
        f"{_odds(test.power_wanted)} (t test, independent pairs); smaller ones are found less often."
    )

    def say(answer: str, *sentences: str) -> Verdict:
        return Verdict(answer, sentences, tuple(beware), test.similarity, test.control, at.depth)

    if at.t is None or at.delta_ci is None:
        return say(
            "undefined",
            f"Undefined. All {test.similarity} similarities are equal within their groups at the primary depth, so "
            "there is no spread to hold a difference against.",
        )
    percent = f"{100 * test.confidence:g} % interval"
    interval = f"{percent} {signed(at.delta_ci.low)} to {signed(at.delta_ci.high)}"
    measured = f"Δ = {signed(at.delta)} ({interval}) in {test.similarity}"
    if at.p is None and test.why_no_p:
        return say(
            "cannot tell",
            f"Cannot tell. Cognates and {_plural(test.control)} differ by {measured} at the primary depth. No p-value "
            f"is given: {test.why_no_p}",
            reach,
        )
    if at.p is None:
        return say(
            "cannot tell",
            f"Cannot tell. Cognates and {_plural(test.control)} differ by {measured} at the primary depth, but with "
            + (f"{sizes} no relabelling" if test.exact else f"{test.relabellings} random relabellings none")
            + f" can give a p-value under {test.smallest_p:.2g}; none is given."
            + ("" if test.exact else " Raise statistics.permutations."),
        )
    if at.p > test.alpha and 0.0 in at.delta_ci and at.equivalence_p is not None and at.equivalence_p <= test.alpha:
        return say(
            "no difference",
            f"No difference worth the name: cognates and {_plural(test.control)} differ by {measured} at the primary "
            f"depth, and one as large as {test.sesoi:g} standard deviations is ruled out (two one-sided tests, p "
            f"{p_text(at.equivalence_p)}).",
        )
    if at.p > test.alpha or 0.0 in at.delta_ci:
        if at.p <= test.alpha:
            why = f"The test (p {p_text(at.p)}) and the interval, which holds 0, disagree. "
        elif 0.0 not in at.delta_ci:
            why = f"The interval does not hold 0, but the test (p {p_text(at.p)}) does not confirm it. "
        else:
            why = ""
        return say(
            "cannot tell",
            f"Cannot tell. {why}Cognates and {_plural(test.control)} differ by {measured} at the primary depth; "
            f"p {p_text(at.p)}.",
            reach,
        )
    side = "closer together" if at.delta > 0 else "farther apart"
    if dependent and naive:
        return say(
            "cannot tell",
            f"Cannot tell. Cognates lie {side} than {_plural(test.control)} by {measured} at the primary depth, and "
            f"p {p_text(at.p)} by relabelling; but that p-value supposes independent pairs, and {dependent} of {total} "
            "share a word with another pair.",
        )
    return say(
        "closer" if at.delta > 0 else "farther",
        f"Cognates lie {side} than {_plural(test.control)} at the primary depth: {measured}, p {p_text(at.p)} by "
        + ("relabelling." if naive else f"relabelling ({test.scheme})."),
        "This is a difference between these groups of pairs in this model. Meaning, spelling and shared tokens can "
        "make it as well as ancestry can.",
    )


def _plural(control: str) -> str:
    return "controls" if control == "control" else f"{control} controls"


def _odds(power: float) -> str:
    return "four times in five" if math.isclose(power, 0.8) else f"{100 * power:g} times in a hundred"
