"""Group tests → what may be said: a sentence a statistician would sign, and what to beware of."""

from __future__ import annotations

import math

from pairprobe.outcomes import CLAIM_WORTH, PAIRS_RELABELLED, DepthTest, GroupTest, Verdict, p_text, signed
from pairprobe.records import PairSet

FEW = 20  # pairs in a group; below, intervals of skewed similarities hold the truth too rarely (decision 5)
FEW_UNITS = 8  # below, so are intervals by units (decision 13)
MOVED = 0.5  # share of each group's pairs that relabelling must be able to move for a claim of difference (decision 13)
#: Groups of fewer than FEW pairs whose sizes and standard deviations differ by more than these ratios: no claim.
SIZES, SPREADS = 1.2, 1.5
#: Cognate + control pairs → how often simulated 95 % intervals hold the truth, per cent, where similarities are normal
#: and where they are skewed (exponential): python -m bench.coverage_of_intervals.
COVERAGE = {
    (4, 4): (94, 96), (10, 4): (93, 91), (30, 4): (93, 87), (100, 4): (92, 87), (7, 7): (95, 94), (40, 7): (94, 90),
    (150, 7): (95, 89), (10, 10): (95, 93), (20, 8): (95, 91), (50, 10): (94, 92), (200, 10): (94, 92),
}  # fmt: skip


def verdict(test: GroupTest, pairs: PairSet, depth: int, side: str = "both") -> Verdict:
    """One careful answer at the primary depth, and what to beware of.

    side: both | closer | farther, as fixed in advance; where it is one, the one-sided p counts, and only that side can
    be claimed. The interval stays two-sided, and must lie on that side whole, so that at usual levels the claim errs
    nearer alpha / 2 than alpha.

    A difference is claimed only where the test and the interval agree on it, and where the test moved linked pairs
    together if pairs are linked; that there is none, only by equivalence, with p above alpha and the whole interval
    within the smallest difference of interest. Neither is claimed of groups that are worth too little. Else it cannot
    be told, and why is said.
    """
    at = test.at(depth)
    dependent = pairs.dependent_pairs(test.control)
    total = test.n_cognate + test.n_control
    naive = test.scheme == PAIRS_RELABELLED
    sizes = f"{test.n_cognate} against {test.n_control} pairs"
    beware = [*_linked(test, pairs), *(_few(test) if at.delta_ci is not None else [])]
    reach = (
        f"With {sizes}, a true difference must be about {test.detectable_d:.1f} standard deviations to be found "
        f"{_odds(test.power_wanted)} (t test, {_supposed(test)}); smaller ones are found less often."
    )

    p = {"both": at.p, "closer": at.p_greater, "farther": at.p_less}[side]
    said = ("p" if side == "both" else "one-sided p") + (f" {p_text(p)}" if p is not None else "")

    def say(answer: str, *sentences: str) -> Verdict:
        return Verdict(answer, sentences, tuple(beware), test.similarity, test.control, at.depth, side)

    if at.t is None:
        return say(
            "undefined",
            f"Undefined. All {test.similarity} similarities are equal within their groups at the primary depth, so "
            "there is no spread to hold a difference against.",
        )
    controls = _plural(test.control)
    if at.delta_ci is None:
        said = f"; {said}" if p is not None else ""
        return say(
            "cannot tell",
            f"Cannot tell. Cognates and {controls} differ by Δ = {signed(at.delta)} in {test.similarity} at the "
            f"primary depth{said}. No interval is given, since one of so few would hold the true Δ more rarely than it "
            f"says: {test.why_no_interval or 'nothing that is independent varies'}.",
            *([f"No p-value is given either: {test.why_no_p}"] if p is None and test.why_no_p else []),
        )
    interval = f"{100 * test.confidence:g} % interval {signed(at.delta_ci.low)} to {signed(at.delta_ci.high)}"
    measured = f"Δ = {signed(at.delta)} ({interval}) in {test.similarity}"
    found = p is not None and p <= test.alpha
    bound = test.sesoi * _pooled(test, at)
    equivalent = at.equivalence_p is not None and at.equivalence_p <= test.alpha
    inside = -bound < at.delta_ci.low and at.delta_ci.high < bound
    enough = min(test.worth) >= CLAIM_WORTH
    ruled_out = (
        f"one as large as {test.sesoi:g} standard deviations, here {bound:.3g}, is ruled out (two one-sided tests, p "
        f"{p_text(at.equivalence_p or 0.0)})"
    )
    if equivalent and inside and enough and p is not None and not found and 0.0 in at.delta_ci:
        return say(
            "no difference",
            f"No difference as large as {test.sesoi:g} standard deviations, here {bound:.3g}, in either direction (two "
            f"one-sided tests, p {p_text(at.equivalence_p or 0.0)}): cognates and {controls} differ by {measured} at "
            f"the primary depth; {said}.",
            "A smaller difference is not ruled out. A model or a method that knows nothing of these words gives no "
            "difference either: whether anything of them is measured here, the test of partners says, where there is "
            "one.",
        )
    if p is None:
        return say(
            "cannot tell",
            f"Cannot tell. Cognates and {controls} differ by {measured} at the primary depth. No p-value is given: "
            f"{test.why_no_p}",
            reach,
        )
    if not found or 0.0 in at.delta_ci:
        if found:
            why = f"The test ({said}) and the interval, which holds 0, disagree. "
        elif side != "both" and (at.delta > 0) != (side == "closer"):
            why = f"Asked beforehand was whether cognates lie {side}, and Δ lies on the other side. "
        elif 0.0 not in at.delta_ci:
            why = f"The interval does not hold 0, but the test ({said}) does not confirm it. "
        elif equivalent and not enough:
            why = "The test of equivalence alone is not enough for so few. "
        elif equivalent and not inside:
            why = f"The test of equivalence and the interval, which reaches beyond ±{bound:.3g}, disagree. "
        else:
            why = ""
        least = _groups_worth(test, CLAIM_WORTH)
        return say(
            "cannot tell",
            f"Cannot tell. {why}Cognates and {controls} differ by {measured} at the primary depth; {said}.",
            reach if enough else f"No difference between so few can be claimed, however large it is{least}",
        )
    lie = "closer together" if at.delta > 0 else "farther apart"
    if not naive and at.p_greater is not None and (at.p_greater < 0.5) != (at.delta > 0):
        return say(
            "cannot tell",
            f"Cannot tell. Cognates lie {lie} than {controls} by {measured} at the primary depth, but where clusters "
            f"hold both, it is the other way round ({said}).",
        )
    if dependent and naive:
        return say(
            "cannot tell",
            f"Cannot tell. Cognates lie {lie} than {controls} by {measured} at the primary depth, and "
            f"{said} by relabelling; but that p-value supposes independent pairs, and {dependent} of {total} "
            "share a word with another pair.",
        )
    held_back = _held_back(test, at)
    if held_back:
        return say(
            "cannot tell",
            f"Cannot tell. Cognates lie {lie} than {controls} by {measured} at the primary depth, and {said} by "
            f"relabelling; but {held_back}",
        )
    negligible = [f"They lie {lie}, but by less than was called of interest: {ruled_out}."]
    two_sided = (
        "The side was fixed beforehand; the interval is two-sided all the same, which asks for more than p does."
    )
    return say(
        "closer" if at.delta > 0 else "farther",
        f"Cognates lie {lie} than {controls} at the primary depth: {measured}, {said} by "
        + ("relabelling." if naive else f"relabelling ({test.scheme})."),
        *(negligible if equivalent and inside and enough else []),
        *([two_sided] if side != "both" else []),
        "This is a difference between these groups of pairs in this model. Meaning, spelling and shared tokens can "
        "make it as well as ancestry can.",
    )


def _held_back(test: GroupTest, at: DepthTest) -> str:
    """Why p and an interval that agree are not enough for a claim here, '' where they are."""
    n, m = test.worth
    if min(n, m) < CLAIM_WORTH:
        return f"the evidence is not enough{_groups_worth(test, CLAIM_WORTH)}"
    moved = [(test.moved_cognate, test.n_cognate, "cognate"), (test.moved_control, test.n_control, test.control)]
    for count, size, name in moved:
        if count is not None and count < MOVED * size:
            return (
                f"relabelling can move only {count} of {size} {name} pairs: p says nothing of the others. A claim "
                f"needs {100 * MOVED:g} % of each group."
            )
    spreads = sorted((at.sd_cognate, at.sd_control))
    if min(n, m) < FEW and max(n, m) > SIZES * min(n, m) and spreads[1] > SPREADS * spreads[0]:
        times = f"{spreads[1] / spreads[0]:.1f} times as far as" if spreads[0] > 0 else "and not"
        return (
            f"one group spreads {times} the other, and they differ in size: with fewer than {FEW} pairs in a group "
            "neither p nor the interval can be trusted then."
        )
    return ""


def _groups_worth(test: GroupTest, least: int) -> str:
    n, m = test.worth
    return (
        f": cognates are worth {_size(n)} and {test.control} pairs {_size(m)} independent pairs, and each group "
        f"should be worth {least}."
    )


def _size(worth: float) -> str:
    return f"{worth:.0f}" if worth >= 10 else f"{worth:.2g}"


def _pooled(test: GroupTest, at: DepthTest) -> float:
    """Pooled standard deviation: the unit of the smallest difference of interest."""
    n, m = test.n_cognate, test.n_control
    return math.sqrt(((n - 1) * at.sd_cognate**2 + (m - 1) * at.sd_control**2) / (n + m - 2))


def _linked(test: GroupTest, pairs: PairSet) -> list[str]:
    """What links the pairs, and whether that was allowed for."""
    reused, words = pairs.reused_words(test.control)
    dependent = pairs.dependent_pairs(test.control)
    total = test.n_cognate + test.n_control
    if test.scheme not in ("", PAIRS_RELABELLED):
        moved = "; test and interval move linked pairs together"
    elif test.resampled in ("clusters", "units"):
        moved = "; the interval allows for it"
    else:
        moved = ""
    if reused:
        return [
            f"{reused} of {words} {test.control} words also occur{'s' * (reused == 1)} in cognate pairs: their "
            f"similarities are not independent{moved}."
        ]
    if dependent:
        return [f"{dependent} of {total} pairs share a word with another pair: they are not independent{moved}."]
    if test.linked:
        return [
            f"concepts or cognate sets link the {total} pairs into {test.clusters} "
            f"cluster{'s' * (test.clusters != 1)}: they are not independent{moved}."
        ]
    return []


def _few(test: GroupTest) -> list[str]:
    """How far an interval of so few pairs may be trusted, by the simulated sizes nearest to these.

    Linked pairs count as the independent ones they are worth.
    """
    n, m = test.worth
    if min(n, m) >= FEW:
        return []
    if test.resampled == "units":
        few_units = test.units < FEW_UNITS
        return [
            f"the pairs are so linked that the interval rests on drawing whole units of linked words, of which there "
            f"are {test.units}, and the groups are worth {_size(n)} and {_size(m)} independent pairs: simulated "
            f"95 % intervals of so {'few' if few_units else 'many'} held the true Δ {'84' if few_units else '93'} to "
            f"{'94' if few_units else '100'} times in a hundred."
        ]
    size, (normal, skewed) = simulated(n, m)
    nearest = "" if sorted(size) == sorted((n, m)) else ", the simulated size nearest to these,"
    few = f"with fewer than {FEW} pairs in a group"
    if min(test.n_cognate, test.n_control) >= FEW:
        few = f"with groups worth fewer than {FEW} independent pairs"
    return [
        f"{few} the interval leans on how similarities are spread: simulated 95 % "
        f"intervals for {max(size)} against {min(size)} independent pairs{nearest} held the true Δ {normal} times in "
        f"a hundred where similarities are normal, and {skewed} where they are skewed."
    ]


def simulated(n: float, m: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """The sizes in COVERAGE nearest to groups of n and m independent pairs, LEAST_WORTH or more, and what it says.

    Nearest by the ratios of the smaller group, which matters most and counts twice, and of the larger group.
    """
    few, many = sorted((n, m))

    def far(size: tuple[int, int]) -> float:
        return 2 * abs(math.log(few / min(size))) + abs(math.log(many / max(size)))

    size = min(COVERAGE, key=far)
    return size, COVERAGE[size]


def _supposed(test: GroupTest) -> str:
    n, m = test.worth
    if not test.linked:
        return "independent pairs"
    return f"linked pairs taken for {n:.3g} against {m:.3g} independent ones"


def _plural(control: str) -> str:
    return "controls" if control == "control" else f"{control} controls"


def _odds(power: float) -> str:
    return "four times in five" if math.isclose(power, 0.8) else f"{100 * power:g} times in a hundred"
