"""Δ at every depth: the primary outcome first, and apart from it what else was looked at."""

from __future__ import annotations

from pairprobe.outcomes import DepthTest, GroupTest, Interval
from pairprobe.page import charts
from pairprobe.page.markup import (
    Child,
    Html,
    chance,
    folded,
    join,
    number,
    paragraph,
    section,
    table,
    tag,
    within,
)
from pairprobe.page.opening import how
from pairprobe.page.stored import Run
from pairprobe.page.words import Glossary, plural

DEPTHS = 42  # rows of a table; of more depths, every n-th is shown


def curves(run: Run, words: Glossary) -> Html:
    test, deep = run.primary, len(run.primary.depths) > 1
    known = any(at.max_t_band for at in test.depths)
    parts: list[Child] = [
        tag(
            "h3",
            f"Primary: {test.similarity} against {plural(test.control)}",
            tag("span", "primary", class_="label one"),
        ),
        _about(run, test),
    ]
    if deep:
        parts.append(
            tag(
                "figure",
                charts.curve(test, run.verdict.depth, f"Δ in {test.similarity} against {plural(test.control)}, by "
                            "depth",
                             wide=True),
                legend(test),
            )
        )  # fmt: skip
    parts += [paragraph(how(run)), depth_table(test, run.verdict.depth), _also(run.at, test)]
    if run.exploratory:
        parts.append(_exploratory(run))
    terms = ["depth", "g", *(["p max-T"] if deep or len(run.tests) > 1 else [])]
    if any(at.q is not None for t in run.tests for at in t.depths):
        terms.append("q")
    if any(at.auc is not None for t in run.tests for at in t.depths):
        terms.append("AUC")
    if any(at.equivalence_p is not None for t in run.tests for at in t.depths):
        terms.append("equivalence")
    lead = "The model computes in layers, and the words' vectors change from one to the next." if deep else None
    if deep and known:
        lead = f"{lead} Only outside the hatched band is a difference significant once all depths are allowed for."
    return section(
        "The difference at every depth" if deep else "The difference, measured in every way asked for",
        paragraph(lead) if lead else None, words.explain(*terms), parts, anchor="curves",
    )  # fmt: skip


def legend(test: GroupTest) -> Html:
    """What the strokes and bands of a curve are, each beside a sample of it."""
    samples: list[tuple[str, str]] = [("key-line", "Δ")]
    if not test.why_no_interval:
        samples.append(("key-band", f"{100 * test.confidence:g} % interval"))
    if any(at.max_t_band for at in test.depths):
        family = f", {test.family} tests together" if test.family > 1 else ""
        samples.append(("key-maxt", f"not significant at {test.alpha:g}, corrected (max-T{family})"))
    return tag("figcaption", [tag("span", tag("i", class_=f"key {k}", aria_hidden="true"), v) for k, v in samples])


def _about(run: Run, test: GroupTest) -> Html | None:
    measure = run.similarities.get(test.similarity)
    if measure is None or not (measure.about or measure.reference):
        return None
    texts = [measure.about, f"reference vocabulary: {measure.reference}" if measure.reference else ""]
    return paragraph(f"{test.similarity}: " + "; ".join(t for t in texts if t) + ".", kind="aside")


def _also(at: DepthTest, test: GroupTest) -> Html | None:
    said: list[Child] = []
    if at.auc is not None:
        said.append(
            tag("span", "At the primary depth AUC = ", number(at.auc, 2), " (", within(at.auc_ci, 2, False), "). ")
        )
    if at.left_out is not None:
        unit = "unit of linked words" if test.linked else "pair"
        said.append(tag("span", f"With any one {unit} left out, Δ stays within ", within(at.left_out), ". "))
    if at.equivalence_p is not None:
        said.append(
            tag(
                "span",
                f"Equivalence to within {test.sesoi:g} standard deviations: p = ",
                chance(at.equivalence_p),
                ". ",
            )
        )
    return paragraph(said) if said else None


def _exploratory(run: Run) -> Html:
    primary = run.primary
    rows = [
        charts.Row(f"{t.similarity} · {t.control}", _g(t, run), _g_ci(t, run),
                   strong=t is primary)
        for t in run.tests
    ]  # fmt: skip
    figures: list[Child] = []
    told = {primary.similarity}  # what a similarity is stands at its first curve
    for test in (t for t in run.exploratory if len(t.depths) > 1):
        title = f"{test.similarity} against {plural(test.control)}"
        drawn = [charts.curve(test, None, f"Δ in {title}, by depth"), legend(test)]
        figures.append(tag("figure", tag("h4", title), None if test.similarity in told else _about(run, test), drawn))
        told.add(test.similarity)
    return join(
        tag("h3", "Exploratory: what else was looked at", tag("span", "exploratory", class_="label two")),
        paragraph(
            "None of this was fixed as the outcome beforehand. Whoever looks at enough comparisons finds a large "
            "one, so "
            "only p max-T counts here, and even then as a reason to test it on other pairs. It allows for the depths "
            "and similarities of one group of controls, not for there being several groups."
        ),
        tag(
            "figure",
            charts.forest(rows, "g of every similarity and control at the primary depth", "g (Δ in standard "
                        "deviations)",
                          digits=2),
            tag("figcaption", f"At depth {run.verdict.depth}, with intervals. Diamond: primary; squares: exploratory."),
        ),
        tag("div", figures, class_="tiles") if figures else None,
        [depth_table(test, None) for test in run.exploratory],
    )  # fmt: skip


def _same_depth(test: GroupTest, run: Run) -> DepthTest | None:
    return next((at for at in test.depths if at.depth == run.verdict.depth), None)


def _g(test: GroupTest, run: Run) -> float | None:
    at = _same_depth(test, run)
    return at.g if at else None


def _g_ci(test: GroupTest, run: Run) -> Interval | None:
    at = _same_depth(test, run)
    return at.g_ci if at else None


def depth_table(test: GroupTest, primary: int | None) -> Html:
    """All numbers by depth; columns that no depth has are left out."""
    best = test.best.depth if test.best else None
    every = max(1, -(-len(test.depths) // DEPTHS))
    depths = [
        at for i, at in enumerate(test.depths) if i % every == 0 or at.depth in (primary, best, test.depths[-1].depth)
    ]
    columns: list[tuple[str, object]] = [
        ("cognate", lambda at: number(at.mean_cognate)),
        (test.control, lambda at: number(at.mean_control)),
        ("Δ", lambda at: number(at.delta, sign=True)),
        (f"{100 * test.confidence:g} % interval", lambda at: within(at.delta_ci)),
        ("g", lambda at: number(at.g, 2, sign=True)),
        ("p", lambda at: chance(at.p)),
    ]
    optional = (
        ("p max-T", "p_max_t", lambda at: chance(at.p_max_t)),
        ("q", "q", lambda at: chance(at.q)),
        ("AUC", "auc", lambda at: number(at.auc, 2)),
        ("equivalence p", "equivalence_p", lambda at: chance(at.equivalence_p)),
    )
    columns += [(n, show) for n, field, show in optional if any(getattr(at, field) is not None for at in test.depths)]
    if any(at.max_t_band for at in test.depths):
        columns.append(("not significant", lambda at: within(at.max_t_band)))
    rows = [[f"{at.depth}{' ← primary' if at.depth == primary else ''}", *(_call(show, at) for _, show in columns)]
            for at in depths]  # fmt: skip
    marked = frozenset(i for i, at in enumerate(depths) if at.depth == primary)
    caption = f"{test.similarity}, {test.n_cognate} cognate against {test.n_control} {test.control} pairs"
    more = f"; one depth in {every}, all are in the run" if every > 1 else ""
    which = "" if primary is not None else f": {test.similarity} against {plural(test.control)}"
    return folded(
        ("The numbers at every depth" if len(test.depths) > 1 else "The numbers") + which,
        table(caption + more, ["depth", *(name for name, _ in columns)], rows, marked=marked),
        is_open=primary is not None and len(rows) <= 14,
    )


def _call(show: object, at: DepthTest) -> Child:
    assert callable(show)
    found: Child = show(at)
    return found
