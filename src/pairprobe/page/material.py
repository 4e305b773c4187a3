"""What was measured: the pairs, their controls and balance, the tokens, the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pairprobe.evidence import PairTokens, WordTokens
from pairprobe.page import charts
from pairprobe.page.markup import (
    Child,
    Html,
    code,
    count,
    facts,
    folded,
    form,
    join,
    number,
    paragraph,
    percent,
    section,
    table,
    tag,
)
from pairprobe.page.stored import ALL, EXTREMES, Run, ShownPair
from pairprobe.page.words import CONTROLS, Glossary
from pairprobe.records import Balance


def pairs(run: Run, words: Glossary) -> Html:
    source = run.pairs
    rows: list[tuple[Child, Child]] = [
        ("Set", source.name),
        ("Source", source.source),
        *([("Cite", source.citation)] if source.citation else []),
        *((k.replace("_", " "), v) for k, v in source.about.items()),
        *(
            [("Reference vocabulary", f"{count(source.reference)} words that are in no pair")]
            if source.reference
            else []
        ),
        ("Pairs (SHA-256)", code(source.sha256)),
    ]
    sizes = [[g, count(n), CONTROLS.get(g, "hypothesised cognates" if g == "cognate" else "")]
             for g, n in source.sizes.items()]  # fmt: skip
    return section(
        "The pairs and their controls",
        facts(rows),
        table("Groups of pairs", ["group", "pairs", "what they are"], [[a, b, c] for a, b, c in sizes], text=3),
        _groups(run),
        _balance(run, words),
        _pairs_table(run),
        anchor="pairs",
    )


def _groups(run: Run) -> Html | None:
    if not run.values:
        return None
    every = all(len(v) <= charts.MANY for v in run.values.values())
    said = "One mark for each pair" if every else "Bars: how many pairs have about this similarity"
    return tag(
        "figure",
        charts.groups(run.values, run.verdict.similarity),
        tag(
            "figcaption",
            f"{said}; the upright stroke is the group's mean. Circles and blue: cognates; others: controls.",
        ),
    )


def _balance(run: Run, words: Glossary) -> Html | None:
    if not run.pairs.balance:
        return None
    controls = list(dict.fromkeys(b.control for b in run.pairs.balance))
    parts: list[Child] = [
        tag("h3", "How alike cognates and controls are in what is not ancestry"),
        words.explain("standardised difference"),
    ]
    for control in controls:
        rows = [b for b in run.pairs.balance if b.control == control]
        parts.append(
            tag(
                "figure",
                charts.love(rows, control),
                tag("figcaption", f"Against {control}. {_marks(rows)} "
                    "Within the shaded band (±0.1) groups are usually taken for alike."),
            )
        )  # fmt: skip
    parts.append(
        table(
            "Balance of cognates and controls",
            ["covariate", "controls", "cognate mean", "control mean", "before", "after"],
            [
                [b.covariate, b.control, number(b.cognate_mean), number(b.control_mean), number(b.before, 2, True),
                 number(b.after, 2, True)]
                for b in run.pairs.balance
            ],
            text=2,
        )
    )  # fmt: skip
    return join(*parts)


def _marks(rows: Sequence[Balance]) -> str:
    if all(b.before is None for b in rows):
        return "Filled diamonds: the pairs of this run."
    return "Open circles: all candidates, where there was a choice; filled diamonds: the pairs of this run."


def _pairs_table(run: Run) -> Html | None:
    if not run.shown:
        return None
    whole = len(run.shown) == run.n_pairs
    scored = any(p.row.get("score") is not None for p in run.shown)
    said = (
        f"All {len(run.shown)} pairs, the most alike first in each group."
        if whole
        else f"The {EXTREMES} most and the {EXTREMES} least alike pairs of each group; all {count(run.n_pairs)} are in "
        "tables/pairs.json and tables/similarities.json of the run."
    )
    head = ["pair", "group", "word A", "word B", run.verdict.similarity, *(["score"] if scored else [])]
    rows = [
        [p.id, p.group, _word(p, "a"), _word(p, "b"), number(p.similarity),
         *([number(p.row.get("score"), 2)] if scored else [])]
        for p in run.shown
    ]  # fmt: skip
    return join(
        tag("h3", "Pair by pair"),
        folded(said, table(f"Pairs and their {run.verdict.similarity} at depth "
        f"{run.verdict.depth}", head, rows, text=4),
               is_open=len(run.shown) <= ALL // 2),
    )  # fmt: skip


def _word(pair: ShownPair, side: str) -> Html:
    row: Mapping[str, Any] = pair.row
    beside = ", ".join(str(v) for v in (row.get(f"lang_{side}"), row.get(f"gloss_{side}")) if v)
    return join(form(str(row.get(f"word_{side}", ""))), tag("small", " ", beside) if beside else None)


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────


def tokens(run: Run, words: Glossary) -> Html | None:
    xray = run.evidence.xray
    if xray is None and not run.words:
        return None
    found: list[Child] = []
    if xray is not None:
        found += [_xray(run, words)]
    else:
        unknown = sum(int(w["unknown_pieces"]) > 0 for w in run.words)
        whole = len(run.words) == run.n_words
        said = (
            "All" if whole else f"{len(run.words)} of {count(run.n_words)}, those with unknown and many pieces first:"
        )
        rows = [
            [form(str(w["word"])), str(w["lang"]), tag("span", str(w["pieces"]), class_="pieces"),
             str(w["unknown_pieces"]),
             str(w["tokens"])]
            for w in run.words
        ]  # fmt: skip
        found.append(
            folded(
                f"{said} {'words' if not whole else f'{run.n_words} words'} as the model was given them; {unknown} of "
                "those shown hold unknown pieces.",
                table("Words and their pieces", ["word", "language", "pieces", "unknown", "tokens of the "
                            "text"], rows, text=3),
                is_open=len(rows) <= ALL // 2,
            )
        )  # fmt: skip
    return section(
        "What the model was given",
        paragraph("A model sees no words but pieces of them. Words that share pieces, or are cut into many, may be "
                  "alike "
                  "or unalike for that alone."),
        words.explain("piece"), found, anchor="tokens",
    )  # fmt: skip


def _xray(run: Run, words: Glossary) -> Html:
    xray = run.evidence.xray
    assert xray is not None
    sharing = sum(bool(p.shared) for p in xray.pairs)
    unknown = sum(any(p.a.unknown + p.b.unknown) for p in xray.pairs)
    sinking = sum(any((p.a.sinks or ()) + (p.b.sinks or ())) for p in xray.pairs)
    measured = any(p.a.norms is not None for p in xray.pairs)
    shown = _extreme(list(xray.pairs))
    said = f"All {len(shown)} pairs" if len(shown) == len(xray.pairs) else (
        f"The {EXTREMES} most and the {EXTREMES} least alike pairs of each group, of {count(len(xray.pairs))}"
    )  # fmt: skip
    rows = [
        [p.pair_id, p.group, _pieces(p.a), _pieces(p.b), tag("span", " ".join(p.shared) or "none", class_="pieces"),
         number(p.similarity)]
        for p in shown
    ]  # fmt: skip
    return join(
        facts(
            [
                ("Pairs that share a piece", f"{count(sharing)} of {count(len(xray.pairs))}"),
                ("Pairs with an unknown piece", f"{count(unknown)} of {count(len(xray.pairs))}"),
                *([("Pairs with a sink", f"{count(sinking)} of {count(len(xray.pairs))}")] if measured else []),
            ]
        ),
        words.explain("sink") if measured else None,
        tag(
            "figure",
            charts.fragmentation(xray.fragmentation),
            tag("figcaption", f"Δ in {xray.similarity} against {xray.control} at depth {xray.depth}, by how many "
                        "pieces "
                "both words are cut into. Exploratory."),
        ) if any(b.delta is not None for b in xray.fragmentation) else None,
        folded(
            f"{said}, piece by piece. ▲ marks a sink, [?] what is unknown, [b] a single byte.",
            table("Pieces of both words beside their similarity",
                  ["pair", "group", "word A", "word B", "shared", xray.similarity], rows, text=5),
            is_open=len(rows) <= ALL // 2,
        ),
    )  # fmt: skip


def _extreme(found: list[PairTokens]) -> list[PairTokens]:
    groups = list(dict.fromkeys(p.group for p in found))
    shown: list[PairTokens] = []
    for group in groups:
        mine = sorted((p for p in found if p.group == group), key=lambda p: -p.similarity)
        all_of_them = len(found) <= ALL or len(mine) <= 2 * EXTREMES
        shown += mine if all_of_them else [*mine[:EXTREMES], *mine[-EXTREMES:]]
    return shown


def _pieces(word: WordTokens) -> Html:
    flags = word.sinks or (False,) * len(word.pieces)
    shown = [tag("span", piece, "▲" if sink else None, class_="piece sink" if sink else "piece")
             for piece, sink in zip(word.shown, flags, strict=True)]  # fmt: skip
    counts = (("?", sum(word.unknown)), ("b", sum(word.byte)))
    notes = [f"[{mark}] × {n}" if n else "" for mark, n in counts]
    more = " ".join(n for n in notes if n)
    return join(
        form(word.word), tag("br"), tag("span", shown, class_="pieces"), tag("small", " ", more) if more else None
    )


# ── the space ────────────────────────────────────────────────────────────────────────────────────────────


def geometry(run: Run, _words: Glossary) -> Html | None:
    found = run.evidence.geometry
    if found is None or not found.depths:
        return None
    at = next((d for d in found.depths if d.depth == run.verdict.depth), found.depths[-1])
    sinks = any(d.sinks is not None for d in found.depths)
    rows = [
        [str(d.depth), number(d.random_cosine), number(d.random_cosine_sd), percent(d.top3_share), number(d.norm, 2),
         number(d.largest_norm, 2), *([str(d.sinks) if d.sinks is not None else "—"] if sinks else [])]
        for d in found.depths
    ]  # fmt: skip
    share = [" Three dimensions alone make ", percent(at.top3_share), " of it."] if at.top3_share is not None else []
    return section(
        "What the space looks like",
        paragraph(
            "Vectors of one model share a few directions, so that even words that have nothing to do with each other "
            f"look alike. At depth {at.depth} two words that are in no pair together have a mean cosine of ",
            number(at.random_cosine), ", not 0.", share,
        ),
        tag("figure", charts.geometry_curve(found), tag("figcaption", f"Line: mean of {count(found.n)} random "
                    "couples of "
            "words; band: one standard deviation on either side.")) if len(found.depths) > 1 else None,
        folded(
            "The numbers at every depth",
            table("Geometry by depth", ["depth", "random cosine", "standard deviation", "share of top 3", "median "
                        "length",
                  "largest length", *(["texts with a sink"] if sinks else [])], rows),
        ),
        anchor="geometry",
    )  # fmt: skip
