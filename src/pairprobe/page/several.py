"""Several runs on one page: a table and a forest plot of Δ first, then each run's verdict."""

from __future__ import annotations

from collections.abc import Sequence

from pairprobe.page import charts
from pairprobe.page.markup import (
    Child,
    Html,
    bullets,
    chance,
    code,
    command,
    count,
    folded,
    join,
    number,
    paragraph,
    section,
    table,
    tag,
    within,
)
from pairprobe.page.opening import card, plans_compared
from pairprobe.page.stored import Run
from pairprobe.page.words import Glossary, plural

#: What of a plan each hash covers.
PLANNED = {
    "primary_sha256": "plan of the primary outcome",
    "plan_sha256": "plan in everything (the model, its rounding and other ways of measuring included)",
}
SAME = 12  # settings listed that differ between the runs


def differing(runs: Sequence[Run]) -> list[str]:
    """Settings that are not the same in all runs; versions, names and places aside."""
    keys = sorted(
        {k for r in runs for k in r.params if not k.startswith(("version/", "tracking.", "experiment.question"))}
    )
    return [k for k in keys if not k.endswith("_target_") and len({r.params.get(k, "None") for r in runs}) > 1]


def names(runs: Sequence[Run]) -> list[str]:
    """Run names, with what was set differently where they are not told apart by them; else with their ids."""
    plain = [r.name for r in runs]
    if len(set(plain)) == len(plain):
        return plain
    keys = differing(runs)
    # a group's own name says more than each of its settings
    keys = [k for k in keys if k.endswith(".name") and k.count(".") == 1] or keys[:2]
    told = [" · ".join([r.name, *(f"{k}={r.params[k]}" for k in keys if k in r.params)]) for r in runs]
    if len(set(told)) == len(told):
        return told
    return [f"{name} · {r.id[:8]}" for name, r in zip(told, runs, strict=True)]


def summary(runs: Sequence[Run], unfinished: Sequence[tuple[str, str, str]], words: Glossary) -> Html:
    """unfinished: (name, id, status) of runs of the sweep that have no result."""
    known = names(runs)
    kinds = {(r.verdict.similarity, r.verdict.control) for r in runs}
    one = next(iter(kinds)) if len(kinds) == 1 else None
    rows = [
        [
            tag("a", name, href=f"#run-{r.id}"), r.verdict.answer, f"{r.verdict.similarity}, depth {r.verdict.depth}",
            r.verdict.control, f"{count(r.primary.n_cognate)} + {count(r.primary.n_control)}",
            number(r.at.delta, sign=True), within(r.at.delta_ci), number(r.at.g, 2, True), chance(r.at.p),
        ]
        for name, r in zip(known, runs, strict=True)
    ]  # fmt: skip
    drawn = [
        charts.Row(name, r.at.delta if one else r.at.g, r.at.delta_ci if one else r.at.g_ci, shape="square")
        for name, r in zip(known, runs, strict=True)
    ]
    unit = f"Δ in {one[0]} against {plural(one[1])}" if one else "g (Δ in standard deviations)"
    keys = differing(runs)
    return section(
        "All runs",
        table("Primary outcome of every run",
              ["run", "verdict", "measured as", "control", "pairs", "Δ", "interval", "g", "p"], rows, text=4),
        tag("figure", charts.forest(drawn, f"{unit} of every run, with intervals", unit, digits=3 if one else 2),
            tag("figcaption", "Squares: the primary outcome of each run; lines: its interval."
                + ("" if one else " The runs measure different things, so g is shown, which has no unit."))),
        words.explain("Δ", "similarity", "interval", "g", "p"),
        paragraph(
            "Each p is of one run alone. Who looks at several runs and reports the best one has looked several times: "
            "p would have to be corrected for that.") if len(runs) > 1 else None,
        paragraph("What was set differently: ", ", ".join(keys[:SAME]) + (f" and {len(keys) - SAME} "
                    "more" if len(keys) > SAME
                  else "") + ".") if keys else None,
        _plans(runs, known),
        paragraph(tag("strong", f"{len(unfinished)} {'run has' if len(unfinished) == 1 else 'runs have'} no result: "),
                  "; ".join(f"{n} ({i[:8]}) is {s}" for n, i, s in unfinished), ".") if unfinished else None,
        anchor="runs",
    )  # fmt: skip


def _plans(runs: Sequence[Run], known: Sequence[str]) -> Html:
    """Whether the runs shared a plan, pairs and code, and which of them repeat another one."""
    said: list[Child] = []
    for key, what in PLANNED.items():
        n = len({r.tags.get(key, "none") for r in runs})
        said.append(f"one {what} for all runs" if n == 1 else f"{n} different {what.replace('plan', 'plans', 1)}")
    for key, what in (("pairs_sha256", "pair set"), ("git_commit", "commit")):
        n = len({r.tags.get(key, "none") for r in runs})
        said.append(f"one {what} for all runs" if n == 1 else f"{n} different {what}s")
    dirty = [name for name, r in zip(known, runs, strict=True) if r.tags.get("git_dirty") == "true"]
    if dirty:
        said.append(f"code with uncommitted changes: {len(dirty)} of {len(runs)} runs")
    for name, r in zip(known, runs, strict=True):
        if r.tags.get("reproduces"):
            plans, changed = plans_compared(r)
            said.append(
                join(
                    name,
                    " reproduces ",
                    code(r.tags["reproduces"]),
                    tag("strong", f": {plans}") if changed else None,
                )
            )
    return join(paragraph("Plans and code:"), bullets(said))


def cards(runs: Sequence[Run], words: Glossary) -> Html:
    """Each run's verdict, what to beware of, and its curve."""
    return section(
        "Run by run", [_one(r, name, words) for r, name in zip(runs, names(runs), strict=True)], anchor="cards"
    )


def _one(run: Run, name: str, _words: Glossary) -> Html:
    test = run.primary
    from pairprobe.page.curves import depth_table, legend

    title = f"Δ in {test.similarity} against {plural(test.control)}, by depth: {name}"
    return tag(
        "section",
        tag("h3", name),
        card(run, "h4"),
        bullets(run.verdict.beware, "beware") if run.verdict.beware else None,
        folded(
            "Its curve and numbers",
            tag("figure", charts.curve(test, run.verdict.depth, title), legend(test)) if len(test.depths) > 1 else None,
            depth_table(test, run.verdict.depth),
        ),
        command(f"python run.py report {run.id}"),
        id=f"run-{run.id}", class_="one-run",
    )  # fmt: skip
