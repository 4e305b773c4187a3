"""What speaks for or against reading Δ as ancestry: partners, confounds, people's judgement, other ways to measure."""

from __future__ import annotations

from collections.abc import Sequence

from pairprobe.evidence import AdjustedDelta, PartnerTest
from pairprobe.outcomes import Interval
from pairprobe.page import charts
from pairprobe.page.charts import Row
from pairprobe.page.markup import (
    Child,
    Html,
    chance,
    count,
    facts,
    folded,
    join,
    number,
    paragraph,
    percent,
    section,
    table,
    tag,
    within,
)
from pairprobe.page.spread import drawn, specification_curve
from pairprobe.page.stored import Run
from pairprobe.page.words import Glossary, plural


def partners(run: Run, words: Glossary) -> Html | None:
    """Is each word closer to its own partner than to the others'? Another question than the groups'."""
    found = run.evidence.partners
    if not found:
        return None
    first = found.get(run.verdict.similarity)
    ordered = ([first] if first else []) + [t for t in found.values() if t is not first]
    return section(
        "Is each word closer to its own partner?",
        paragraph(
            "The verdict compares cognate pairs with control pairs. This asks something else: whether each word is "
            "closer "
            "to its own partner than to the partners of the other words. Both words of every comparison are then from "
            "cognate pairs, so that nothing about the choice of controls can make the difference. Meaning, spelling "
            "and shared tokens can, as well as ancestry."
        ),
        words.explain("own partner", "rank and MRR", "precision@1", "p max-T"),
        [_partner(t, run) for t in ordered],
        anchor="partners",
    )


def _partner(test: PartnerTest, run: Run) -> Html:
    at = next((d for d in test.depths if d.depth == run.verdict.depth), test.depths[-1])
    mine = test.similarity == run.verdict.similarity
    rows = [
        [str(d.depth), number(d.own), number(d.others), number(d.delta, sign=True), chance(d.p), chance(d.p_max_t),
         number(d.rank, 1), number(d.mrr), within(d.mrr_ci, 3, False), percent(d.precision_at_1)]
        for d in test.depths
    ]  # fmt: skip
    how = f"{'all' if test.exact else 'random'} {count(test.shuffles)} exchanges of partners ({test.scheme})"
    side, tail = ("farther", at.p_less) if run.verdict.side == "farther" else ("closer", at.p_greater)
    one_sided = join(f" · one-sided p (own partner {side}) ", chance(tail)) if tail is not None else None
    facts_: list[tuple[Child, Child]] = [
        ("Own less others", join(number(at.delta, sign=True), " · p ", chance(at.p), one_sided)),
        ("Mean rank", join(number(at.rank, 1), f" of {_candidates(test)}; by chance ", number(test.chance_rank, 1))),
        ("MRR", join(number(at.mrr), " (", within(at.mrr_ci, 3, False), "); by chance ", number(test.chance_mrr))),
        ("Precision@1", join(percent(at.precision_at_1), "; by chance ", percent(test.chance_precision_at_1))),
        ("Tested by", how if test.scheme and not test.why_no_p else f"not tested: {test.why_no_p}"),
    ]
    return tag(
        "div",
        tag("h3", f"{test.similarity}, {test.words} words, at depth {at.depth}",
            tag("span", "beside the primary" if mine else "exploratory", class_="label two")),
        facts(facts_),
        tag("figure", charts.partner_curve(test), tag("figcaption", "Solid line with dots: own partners. Dashed "
                    "line: the other words' "
            "partners.")) if len(test.depths) > 1 else None,
        folded("The numbers at every depth", table(
            f"Partner test, {test.similarity}",
            ["depth", "own", "others", "difference", "p", "p max-T", "rank", "MRR", "interval", "precision@1"], rows)),
    )  # fmt: skip


def _candidates(test: PartnerTest) -> str:
    """'10', or 'about 25.7' where words have different numbers of possible partners."""
    whole = test.candidates == round(test.candidates)
    return f"{test.candidates:.0f}" if whole else f"about {test.candidates:.1f}"


def confounds(run: Run, words: Glossary) -> Html | None:
    """Raw and adjusted Δ beside each other, and how far spelling alone gets."""
    adjusted, baselines = run.evidence.adjusted, run.evidence.form
    if not adjusted and not baselines:
        return None
    parts: list[Child] = []
    if adjusted:
        parts += [tag("h3", "Δ with other things held equal"), words.explain("adjusted Δ")]
        rows: list[Row] = []
        here = [a for a in adjusted if a.depth == run.verdict.depth]
        for a in here:
            mine = (a.similarity, a.control) == (run.verdict.similarity, run.verdict.control)
            name = f"{a.similarity} · {a.control}"
            rows += [Row(f"raw · {name}", a.raw, _raw_interval(run, a), False, "circle")]
            if a.adjusted is not None:
                rows.append(Row(f"adjusted · {name}", a.adjusted, a.ci, mine, "square"))
        parts += [
            tag("figure", charts.forest(rows, "Raw and adjusted Δ", "Δ"),
                tag("figcaption", f"At depth {run.verdict.depth}. Circles: raw; squares: adjusted; diamond: adjusted "
                    "at the primary outcome.")) if rows else None,
            _adjusted_table(here) if here else None,
            [_coefficients(a) for a in here],
            folded("Raw and adjusted Δ at every depth", _adjusted_table(adjusted))
            if len(here) < len(adjusted) else None,
        ]  # fmt: skip
    if baselines:
        aucs = {b.control: b for b in baselines}
        rows = []
        for control, b in aucs.items():
            rows.append(Row(f"spelling alone · {control}", b.auc, b.auc_ci, False, "circle"))
            for t in run.tests:
                at = next((d for d in t.depths if d.depth == run.verdict.depth), None)
                if t.control == control and at is not None and at.auc is not None:
                    rows.append(Row(f"{t.similarity} · {control}", at.auc, at.auc_ci, t is run.primary))
        parts += [
            tag("h3", "How far spelling alone gets"),
            words.explain("AUC"),
            paragraph(
                "If comparing letters tells cognates from controls as well as the vectors do, the vectors need know "
                "nothing of ancestry to do it."
            ),
            tag("figure", charts.forest(rows, "AUC of spelling beside AUC of the vectors", "AUC (0.5: a coin)",
                                        hold=(0.5, 0.0, 1.0), digits=2),
                tag("figcaption", "Circles: 1 − normalised edit distance of the two forms; squares: similarity of "
                            "the vectors "
                    "at the primary depth; diamond: the primary outcome.")),
            table("AUC of spelling", ["control", "AUC", "interval"],
                  [[b.control, number(b.auc, 2), within(b.auc_ci, 2, False)] for b in baselines]),
        ]  # fmt: skip
    return section("What else could make the difference", *parts, anchor="confounds")


def _adjusted_table(adjusted: Sequence[AdjustedDelta]) -> Html:
    return table(
        "Raw and adjusted Δ",
        ["similarity", "control", "depth", "raw Δ", "adjusted Δ", "interval", "p", "pairs", "clusters"],
        [
            [a.similarity, a.control, str(a.depth), number(a.raw, sign=True), number(a.adjusted, sign=True),
             within(a.ci), chance(a.p), count(a.n), count(a.clusters)]
            for a in adjusted
        ],
        text=2,
    )  # fmt: skip


def _raw_interval(run: Run, a: AdjustedDelta) -> Interval | None:
    """The interval of the group test, where it is about the same pairs."""
    for t in run.tests:
        if (t.similarity, t.control) == (a.similarity, a.control) and t.n_cognate + t.n_control == a.n:
            at = next((d for d in t.depths if d.depth == a.depth), None)
            return at.delta_ci if at else None
    return None


def _coefficients(a: AdjustedDelta) -> Html:
    name = f"{a.similarity} against {plural(a.control)} at depth {a.depth}"
    dropped = [paragraph("Left out of the model: ", "; ".join(f"{k} ({v})" for k, v in a.dropped.items()), ".")]
    lacking = "no interval" if a.adjusted is not None else "no adjusted Δ"
    return join(
        paragraph(f"{name}: {lacking}: {a.why_not}") if a.why_not else None,
        folded(
            f"What was held equal: {name}",
            table("Change of similarity for one standard deviation (yes-or-no: from no to yes)",
                  ["covariate", "estimate", "interval", "p"],
                  [[c.name, number(c.estimate, 4, True), within(c.ci), chance(c.p)] for c in a.coefficients])
            if a.coefficients else None,
            dropped if a.dropped else None,
        ) if a.coefficients or a.dropped else None,
    )  # fmt: skip


def scores(run: Run, words: Glossary) -> Html | None:
    """Does the similarity follow people's judgement?"""
    found = run.evidence.scores
    if not found:
        return None
    return section(
        "Do the vectors follow people's judgement?",
        paragraph(
            "Where people have scored how alike pairs are, a model and a method that measure anything should order "
            "them "
            "in a similar way. This checks the instrument, not the hypothesis."
        ),
        words.explain("ρ"),
        table(
            "Rank correlation with human scores",
            ["similarity", "depth", "pairs", "ρ", "interval", "p"],
            [
                [s.similarity, str(s.depth), count(s.n), number(s.rho, 2, True), within(s.ci, 2), chance(s.p)]
                for s in found
            ],
        ),
        anchor="scores",
    )


def multiverse(run: Run, words: Glossary) -> Html | None:
    """All specifications, and what relabelling makes of them jointly."""
    found = run.evidence.multiverse
    if found is None or not found.specifications:
        return None
    n = len([s for s in found.specifications if s.g is not None])
    undefined = len(found.specifications) - n + len(found.undefined)
    shown = len(drawn(found.specifications))
    part = "" if shown >= n else f" {shown} of them, evenly chosen, are drawn; all are in outcome.json."
    if undefined:
        part += f" {count(undefined)} more gave no number and are not counted."
    rows: list[tuple[Child, Child]] = [
        ("Median g", join(number(found.median_g, 2, True), *_p(found.p_median))),
        ("Same direction as the median", percent(found.agree)),
    ]
    if found.significant is not None:
        rows.append(
            (f"p ≤ {found.alpha:g} in that direction", join(percent(found.significant), *_p(found.p_significant)))
        )
    rows.append(
        (
            "Joint null",
            f"{count(found.relabellings)} relabellings ({found.scheme})" if found.scheme
            else "not tested: too few relabellings leave the links between these pairs as they are",
        )
    )  # fmt: skip
    told = " The p beside each summary is how often relabelled pairs give a whole curve as extreme."
    told = told if found.scheme else ""
    return section(
        "Would another way of measuring have said something else?",
        paragraph(
            f"{count(n)} ways of measuring against {plural(found.control)}, all from the same pass over the model, "
            "sorted by "
            f"what they gave. If the result hung on one choice, the curve would show it.{told}{part}"
        ),
        words.explain("specification", "g"),
        facts(rows),
        tag(
            "figure",
            specification_curve(found.specifications, found.alpha),
            tag("figcaption", f"Large filled dots: p max-T ≤ {found.alpha:g} for all specifications together; small "
                        "grey dots: not. "
                "Dotted line and diamond: the primary outcome. Strokes below: the choices of each specification."),
        ),
        _ends(run),
        anchor="multiverse",
    )  # fmt: skip


def _p(p: float | None) -> tuple[Child, ...]:
    """' · p 0.031', and nothing where there is none."""
    return () if p is None else (" · p ", chance(p))


def _ends(run: Run) -> Html:
    found = run.evidence.multiverse
    assert found is not None
    ordered = sorted(found.specifications, key=lambda s: s.g if s.g is not None else s.delta)
    chosen = ordered if len(ordered) <= 24 else [*ordered[:8], *ordered[-8:]]
    said = "All" if len(chosen) == len(ordered) else "The eight lowest and the eight highest of"
    rows = [
        [s.template + (" (primary)" if s.primary else ""), s.pooling, s.similarity, str(s.depth),
         number(s.delta, sign=True),
         within(s.ci), number(s.g, 2, True), chance(s.p), chance(s.p_max_t)]
        for s in chosen
    ]  # fmt: skip
    head = ["template", "pooling", "similarity", "depth", "Δ", "interval", "g", "p", "p max-T"]
    return folded(
        f"{said} {count(len(ordered))} specifications",
        table("Specifications", head, rows, text=3, marked=frozenset(i for i, s in enumerate(chosen) if s.primary)),
    )
