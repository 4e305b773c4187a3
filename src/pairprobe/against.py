"""What else a run found that stands against its verdict: other controls and similarities, partners, people, ways.

A verdict rests on the primary outcome alone; what contradicts it is said under it, not left for the reader to find.
"""

from __future__ import annotations

from collections.abc import Mapping

from pairprobe.outcomes import DepthTest, GroupTest, Verdict, p_text, signed
from pairprobe.result import Evidence

MOST = 0.5  # of the ways of measuring: fewer of the verdict's sign, and the result hangs on the way chosen


def against(
    evidence: Evidence, tests: Mapping[tuple[str, str], GroupTest], verdict: Verdict, alpha: float
) -> tuple[str, ...]:
    """One sentence for each kind of evidence that a reader of `verdict` must not miss.

    Args:
        tests: by (similarity, control), the primary one among them. alpha: up to which a p counts as found.
    """
    return (
        *_other_tests(tests, verdict, alpha),
        *_partners(evidence, verdict, alpha),
        *_scores(evidence, verdict),
        *_ways(evidence, tests, verdict),
    )


def _p(at: DepthTest, side: str) -> float | None:
    """The p by which the primary outcome is judged where `side` was fixed in advance."""
    return {"both": at.p, "closer": at.p_greater, "farther": at.p_less}[side]


def _side(at: DepthTest, side: str, alpha: float) -> int:
    """+1 or −1 where a difference is found, else 0: by the rule of the primary outcome, its own p and interval.

    Held to a stricter one, as p max-T is, the same finding would count in the verdict and be denied beside it.
    """
    p = _p(at, side)
    if p is None or p > alpha or at.delta_ci is None or 0.0 in at.delta_ci:
        return 0
    return 1 if at.delta > 0 else -1


def _other_tests(tests: Mapping[tuple[str, str], GroupTest], verdict: Verdict, alpha: float) -> list[str]:
    claimed = {"closer": 1, "farther": -1}.get(verdict.answer, 0)
    if not claimed and verdict.answer != "no difference":
        return []
    found = {
        key: (at, _side(at, verdict.side, alpha))
        for key, test in tests.items()
        for at in test.depths
        if at.depth == verdict.depth and key != (verdict.similarity, verdict.control)
    }
    said = []
    for side, lie in ((1, "closer together"), (-1, "farther apart")):
        if side == claimed:
            continue
        named: dict[str, str] = {}
        for (similarity, control), (at, found_side) in found.items():
            if found_side == side and (control not in named or similarity == verdict.similarity):
                p = f"p {p_text(_p(at, verdict.side) or 0.0)}"
                p += f", max-T {p_text(at.p_max_t)}" if at.p_max_t is not None else ""
                named[control] = f"{control} ({similarity}, Δ = {signed(at.delta)}, {p})"
        if named:
            said.append(
                f"cognates lie {lie} than {_listed([*named.values()])}: the verdict is about "
                f"{_plural(verdict.control)} and {verdict.similarity} alone."
            )
    if claimed:
        lacking = [c for (s, c), (_, side) in found.items() if s == verdict.similarity and side == 0]
        if lacking:
            meant = (
                " Pairs of same_concept share their meaning: this may be meaning." if "same_concept" in lacking else ""
            )
            said.append(f"against {_listed(lacking)} no such difference is shown.{meant}")
        others = [s for (s, c), (_, side) in found.items() if c == verdict.control and side == 0]
        if others:
            said.append(f"measured as {_listed(others)}, no such difference is shown.")
    return said


def _partners(evidence: Evidence, verdict: Verdict, alpha: float) -> list[str]:
    test = evidence.partners.get(verdict.similarity)
    at = next((d for d in test.depths if d.depth == verdict.depth), None) if test else None
    if at is None or at.p is None:
        return []
    p = p_text(at.p)
    if verdict.answer == "no difference" and at.p <= alpha:
        side = "closer to" if at.delta > 0 else "farther from"
        return [
            f"words do lie {side} their own partner than others' (p {p}): pairing matters, whatever the groups say."
        ]
    if verdict.answer not in ("closer", "farther"):
        return []
    claimed = 1 if verdict.answer == "closer" else -1
    if at.p > alpha:
        return [
            f"words are not shown to lie {verdict.answer} {'to' if claimed > 0 else 'from'} their own partner than "
            f"others' (p {p}): the difference may come from which words the groups hold, not from how they are paired."
        ]
    if at.delta * claimed < 0:
        side = "closer to" if at.delta > 0 else "farther from"
        return [f"words lie {side} their own partner than others' (p {p}): the other way round than the groups."]
    return []


def _scores(evidence: Evidence, verdict: Verdict) -> list[str]:
    for s in evidence.scores:
        if (s.similarity, s.depth) != (verdict.similarity, verdict.depth) or s.ci is None or s.rho is None:
            continue
        if 0.0 in s.ci or s.rho < 0:
            how = "is not shown to follow" if 0.0 in s.ci else "runs against"
            return [
                f"{verdict.similarity} {how} people's scores of {s.n} pairs (ρ = {signed(s.rho, 2)}): what it measures "
                "here may not be likeness."
            ]
    return []


def _ways(evidence: Evidence, tests: Mapping[tuple[str, str], GroupTest], verdict: Verdict) -> list[str]:
    found = evidence.multiverse
    if found is None:
        return []
    known = [s for s in found.specifications if s.g is not None]
    delta = tests[verdict.similarity, verdict.control].at(verdict.depth).delta
    alike = sum(s.delta * delta > 0 for s in known)
    if known and verdict.answer in ("closer", "farther") and alike < MOST * len(known):
        return [f"only {alike} of {len(known)} ways of measuring give Δ the same sign: this one is not typical."]
    if verdict.answer == "no difference" and found.p_median is not None and found.p_median <= found.alpha:
        return [
            f"all {len(known)} ways of measuring together do show a difference (median g "
            f"{signed(found.median_g or 0, 2)}, joint p {p_text(found.p_median)})."
        ]
    if verdict.answer in ("closer", "farther") and found.p_median is not None and found.p_median > found.alpha:
        return [
            f"all {len(known)} ways of measuring together do not show a difference (joint p "
            f"{p_text(found.p_median)}): the result hangs on the way chosen."
        ]
    return []


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plural(control: str) -> str:
    return "controls" if control == "control" else f"{control} controls"
