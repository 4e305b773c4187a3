"""The top of a report: the question, the verdict, what may not be concluded, and what was planned."""

from __future__ import annotations

from pairprobe.outcomes import BY_MEANING, PAIRS_RELABELLED, PERHAPS
from pairprobe.page import charts
from pairprobe.page.markup import (
    Child,
    Html,
    bullets,
    chance,
    code,
    count,
    facts,
    number,
    paragraph,
    section,
    tag,
    within,
)
from pairprobe.page.stored import Run
from pairprobe.page.words import CONTROLS, Glossary, plainly, plural


def setting(run: Run) -> str:
    """'minilm × layerwise × pie_oc': what was measured, how, on what."""
    parts = (run.tags.get("model"), run.tags.get("method"), run.pairs.name)
    return " × ".join(p for p in parts if p)


def card(run: Run, heading: str = "h3") -> Html:
    """The verdict: plain words, then Δ with its interval, then the sentences a statistician would sign."""
    sign, answer, meaning = plainly(run.verdict.answer)
    said = run.verdict.answer
    kind = "perhaps" if said.endswith((PERHAPS, BY_MEANING)) else said.replace(" ", "-")
    test, at = run.primary, run.at
    level = f"{100 * test.confidence:g} %"
    rows: list[tuple[Child, Child]] = [
        ("pairs", f"{count(test.n_cognate)} cognate, {count(test.n_control)} {test.control}"),
        ("measured as", f"{test.similarity} at depth {at.depth}"),
        ("p", chance(at.p) if at.p is not None else "none given"),
    ]
    side, tail = ("farther", at.p_less) if run.verdict.side == "farther" else ("closer", at.p_greater)
    if tail is not None:
        rows.append((f"p, cognates {side} (one-sided)", chance(tail)))
    return tag(
        "article",
        tag(
            "div",
            tag("span", sign, class_="sign", aria_hidden="true"),
            tag(heading, answer),
            class_="answer",
        ),
        paragraph(meaning, kind="meaning") if meaning else None,
        tag(
            "p", tag("span", "Δ = ", number(at.delta, sign=True), class_="delta"),
            tag("span", f"{level} interval ", within(at.delta_ci), class_="beside")
            if not test.why_no_interval else tag("span", f"no interval: {test.why_no_interval}", class_="beside"),
            class_="measured",
        ),
        tag("figure", charts.interval_bar(at, level), class_="bar"),
        facts(rows, "facts beside-each-other"),
        paragraph(planned(run), kind="planned"),
        [paragraph(s) for s in run.verdict.sentences],
        class_=f"card {kind}",
    )  # fmt: skip


def planned(run: Run) -> Child:
    """Whether this was the first thing asked of these pairs and this model, as far as the store knew."""
    found = run.tags.get("earlier_plans", "")
    if found == "0":
        sweep = ", together with the other plans of its sweep" if "sweep_id" in run.tags else ""
        return (
            f"Fixed before any number of this method was seen in this store{sweep}: no earlier run there had asked "
            "these pairs and this model anything else by it. Another method may have shown a like number, as layerwise "
            "at depth 0 does of static; and what was looked at elsewhere no store can know."
        )
    if not found.split(" ")[0].isdigit():
        return "Whether earlier runs had asked these pairs and this model something else is not known."
    return tag(
        "strong",
        f"{found} earlier {'run' if found == '1' else 'runs'} in this store had asked these pairs and this model "
        f"something else: {run.tags.get('earlier_plans_differ', '')}. Nothing here shows that this plan was fixed "
        "before their numbers were seen. The first: ",
        code(run.tags.get("earlier_plans_first", "")),
    )


def verdict(run: Run, words: Glossary) -> Html:
    control = CONTROLS.get(run.verdict.control)
    return section(
        "What came out",
        card(run),
        paragraph(f"Controls here ({run.verdict.control}): {control}.") if control else None,
        words.explain("Δ", "similarity", "interval", "p"),
        anchor="verdict",
    )


def beware(run: Run, _words: Glossary) -> Html:
    """The run's own warnings first, then what no run of this kind can show."""
    always = [
        "A difference would not be ancestry. Shared meaning, borrowing, spelling and shared tokens make vectors "
        "alike as "
        "well; this report shows how far each could be at work, where it was measured.",
        "It is about this model, these pairs and this way of measuring. Others may answer otherwise.",
    ]
    if run.verdict.answer == "cannot tell":
        always.insert(0, "“Cannot tell” is no evidence that there is no difference.")
    if run.verdict.control == "unrelated":
        always.insert(0, "Unrelated controls differ in meaning too: being closer than those is what any synonyms do.")
    return section(
        "What may not be concluded",
        bullets(run.verdict.beware, "beware") if run.verdict.beware else None,
        bullets(always),
        anchor="beware",
    )


def plan(run: Run, words: Glossary) -> Html:
    """What was fixed beforehand, whether it still was, and whether the code was."""
    tags, prefix = run.tags, "experiment.primary."
    asked = {k.removeprefix(prefix): v for k, v in run.params.items() if k.startswith(prefix)}
    fixed = ", ".join(f"{k}: {v}" for k, v in asked.items() if v not in ("None", "", "null"))
    rows: list[tuple[Child, Child]] = [
        (
            "Primary outcome",
            f"{run.verdict.similarity}, against {plural(run.verdict.control)}, at depth {run.verdict.depth}",
        ),
        ("As it was asked for", fixed or "by default"),
    ]
    if tags.get("primary_sha256"):
        rows.append(("Plan of the primary outcome (SHA-256)", code(tags["primary_sha256"])))
    if tags.get("plan_sha256"):
        rows.append(("Whole plan (SHA-256)", code(tags["plan_sha256"])))
    if tags.get("reproduces"):
        rows.append(("Reproduces", _reproduction(run)))
    if tags.get("git_dirty") == "true":
        rows.append(("Code", tag("strong", "changed since its last commit; what was changed is in config/git.diff")))
    elif tags.get("git_dirty") == "false" and tags.get("git_commit", "none") != "none":
        rows.append(("Code", "as committed, nothing changed"))
    return section(
        "What was planned",
        paragraph(
            "Before any weight was read, the plan was hashed twice: what the primary outcome is made of (which one it "
            "is, the tests, the similarities, the method, the template, the rules for tokens and the words), and all "
            "that was fixed (that, the other ways of measuring, the model, and how its weights and inputs are "
            "rounded). Two runs with one first hash asked the same of the same words, be it of two models; with one "
            "second hash they had one plan in everything."
        ),
        facts(rows),
        words.explain("primary"),
        anchor="plan",
    )


def _reproduction(run: Run) -> Html:
    same = {"true": "its similarities are the same", "false": "its similarities differ"}.get(
        run.tags.get("reproduces_same", ""), "whether its similarities are the same stands in reproduce.json"
    )
    plans, changed = plans_compared(run)
    return tag("span", code(run.tags["reproduces"]), " · ", tag("strong", plans) if changed else plans, " · ", same)


def plans_compared(run: Run) -> tuple[str, bool]:
    """What became of the plan of the run that this one reproduces, and whether it was changed."""
    mine, whole = run.tags.get("primary_sha256", ""), run.tags.get("plan_sha256", "")
    if not run.original_plan:
        return "the plan of that run is not known here", False
    if run.original_plan != mine:
        return "the plan was changed", True
    if not run.original_whole or not whole:
        return "the plan of the primary outcome is unchanged; of the rest nothing was recorded", False
    if run.original_whole != whole:
        return (
            "the plan of the primary outcome is unchanged, but not all of the plan: other ways of measuring, another "
            "model or other rounding",
            True,
        )
    return "the plan is unchanged", False


def how(run: Run) -> str:
    """One sentence: how relabelling was done, or why not."""
    test = run.primary
    if not test.scheme:
        return f"No relabelling: {test.why_no_p}"
    if test.why_no_p:
        return f"No p-value is given: {test.why_no_p}"
    kind = "all" if test.exact else "random"
    scheme = "" if test.scheme == PAIRS_RELABELLED else f" ({test.scheme}; {test.clusters} clusters)"
    return (
        f"p from {kind} {count(test.relabellings)} relabellings{scheme}; the smallest they can give is "
        f"{test.smallest_p:.2g}. With these pairs a difference of {test.effect:g} standard deviations would be found "
        f"{100 * test.power:.0f} times in a hundred; one of {test.detectable_d:.2f}, {100 * test.power_wanted:.0f} "
        "times."
    )
