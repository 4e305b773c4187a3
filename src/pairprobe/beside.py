"""What stands beside a verdict (partners, confounds, spelling, scores): what to beware of, lines, curves, rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from pairprobe.evidence import AdjustedDelta, FormBaseline, PartnerDepth, PartnerTest, ScoreCheck
from pairprobe.outcomes import BY_MEANING, PERHAPS, DepthTest, Interval, Verdict, p_text, signed
from pairprobe.records import Pair, PairSet, Similarities
from pairprobe.result import Evidence, Result

REPEATED = 3  # pairs that are named
MOST = 0.5  # of Δ: where adjusting leaves less and no interval says how sure that is, form may have made it
ALPHA = 0.05  # of the test of partners, where 'no difference' leans on it


def settled(verdict: Verdict, evidence: Evidence, at: DepthTest, meant: tuple[str, ...] = ()) -> Verdict:
    """The verdict beside what was measured beside it.

    Where an objection stands against a difference that is claimed, the answer ends in PERHAPS and the first sentence
    goes on with it, so that nobody reads the one without the other; else objections are things to beware of. meant:
    that the template names meanings which cognates alone share; then the answer ends in BY_MEANING. Where none is
    claimed and adjusting turns Δ around, a last sentence says so.
    """
    against = objections(evidence, at, verdict)
    if not verdict.claims:
        verdict = replace(verdict, sentences=(*verdict.sentences, *_turned(evidence, verdict)))
    if not against and not meant:
        return verdict
    if not verdict.claims:
        return replace(verdict, beware=(*meant, *verdict.beware, *(f"{text}." for text in against)))
    first, *rest = verdict.sentences
    first = f"{first.removesuffix('.')}, but {'; and '.join([*(m.removesuffix('.') for m in meant), *against])}."
    return replace(verdict, answer=verdict.answer + (BY_MEANING if meant else PERHAPS), sentences=(first, *rest))


def objections(evidence: Evidence, at: DepthTest, verdict: Verdict) -> tuple[str, ...]:
    """What may explain this outcome, each as the end of a sentence: spelling that tells as much, a Δ that adjusting
    takes away or cannot be asked for."""
    similarity, control = verdict.similarity, verdict.control
    said = []
    for f in evidence.form:
        if f.control == control and spelling_tells_as_much(f):
            said.append(
                f"spelling alone tells these groups apart better (AUC {f.auc:.2f} against {f.model_auc:.2f})"
                if f.gain < 0
                else f"spelling alone tells these groups apart (AUC {f.auc:.2f}), and {similarity} is not shown to "
                f"tell more (AUC {f.model_auc:.2f})"
            )
    for a in evidence.adjusted:
        if (a.similarity, a.control, a.depth) != (similarity, control, at.depth):
            continue
        alone = [name for name, why in a.dropped.items() if why.startswith("tells")]
        if alone:
            said.append(
                f"{', '.join(alone)} alone tells cognates from {control} pairs, so that Δ cannot be adjusted for it"
            )
        if a.adjusted is None:
            continue
        clear = at.delta_ci is not None and 0.0 not in at.delta_ci
        if a.turned:
            if verdict.claims:  # else `settled` has said it
                said.append(f"with {held(a)} Δ turns around: {signed(a.raw)} becomes {signed(a.adjusted)} {a.ci}")
        elif clear and a.ci is not None and 0.0 in a.ci:
            said.append(f"with {held(a)} Δ = {signed(a.adjusted)} {a.ci}: what is left may be nothing")
        elif clear and a.ci is None and a.adjusted * a.raw < MOST * a.raw**2:
            left = "nothing" if a.adjusted * a.raw < 0 else "less than half"
            said.append(f"with {held(a)} {left} is left of it: Δ = {signed(a.adjusted)}, without an interval")
    if verdict.answer == "no difference":
        said += _nothing_measured(evidence, verdict)
    return tuple(said)


def held(a: AdjustedDelta) -> str:
    """What the model really holds equal: 'edit distance, tokens a and length held equal'."""
    *most, last = [c.name for c in a.coefficients] or ["nothing"]
    return f"{', '.join(most)} and {last} held equal" if most else f"{last} held equal"


def _turned(evidence: Evidence, verdict: Verdict) -> Iterator[str]:
    """That Δ lies on the other side once adjusted, where its interval says so too: near 0 a sign means nothing."""
    for a in evidence.adjusted:
        here = (a.similarity, a.control, a.depth) == (verdict.similarity, verdict.control, verdict.depth)
        if here and a.adjusted is not None and a.turned:
            yield f"With {held(a)} Δ has the other sign: {signed(a.adjusted)} {a.ci}, where raw Δ = {signed(a.raw)}."


def _nothing_measured(evidence: Evidence, verdict: Verdict) -> list[str]:
    """That 'no difference' may come of a measure that measures nothing, where partners do not show that it does."""
    test = evidence.partners.get(verdict.similarity)
    if test is None:
        return ["no test of partners shows that this model and method know anything of these words"]
    at = _at(test.depths, verdict.depth)
    if at.p is not None and at.p <= ALPHA and at.delta > 0:
        return []
    p = f"p {p_text(at.p)}" if at.p is not None else "no p-value"
    return [
        f"words are not shown to lie closer to their own partner than to others' (Δ = {signed(at.delta)}, {p}): this "
        "model and method may know nothing of these words, and then there is no difference to be found"
    ]


def of_the_design(pairs: PairSet, similarities: Sequence[Similarities] = ()) -> tuple[str, ...]:
    """What must stand beside any verdict on these pairs: what is repeated in them, that they were drawn, and which
    similarities have too few words to mean much."""
    return (*_repeated(pairs), *_drawn(pairs), *(s.beware for s in similarities if s.beware))


def _repeated(pairs: PairSet) -> Iterator[str]:
    """Pairs of the same two words that stand in a group more than once."""
    rows: dict[Any, list[Pair]] = {}
    for p in pairs.pairs:
        words = frozenset((w.form, w.lang, w.gloss) for w in (p.a, p.b))
        rows.setdefault((words, p.group), []).append(p)
    named = [f"{p.a.form} – {p.b.form} ({p.group})" for p, *again in rows.values() if again]
    if named:
        more = f" and {len(named) - REPEATED} more" if len(named) > REPEATED else ""
        stand = "1 pair stands" if len(named) == 1 else f"{len(named)} pairs stand"
        yield (
            f"{stand} in the set more than once: {', '.join(named[:REPEATED])}{more}. Δ counts every row, but a "
            "repeated one is no new evidence."
        )


def _drawn(pairs: PairSet) -> tuple[str, ...]:
    if pairs.seed is None:
        return ()
    return (
        f"these pairs and controls are one draw of many (pairs.seed={pairs.seed}), and no interval allows for that: "
        "-m pairs.seed=0,1,2,3,4 shows how far Δ moves with it.",
    )


def spelling_tells_as_much(form: FormBaseline) -> bool:
    """Spelling parts the groups on the model's side of one half, and the model is not shown to part them better."""
    if (form.auc - 0.5) * (form.model_auc - 0.5) <= 0:
        return False
    tells = 0.5 not in form.auc_ci if form.auc_ci else form.auc in (0.0, 1.0)
    return tells and (form.gain <= 0 or form.gain_ci is None or form.gain_ci.low <= 0)


def balanced(result: Result) -> Iterator[tuple[str, str]]:
    """(label, text), a line for each control: what its pairs differ in from the cognates, the primary control's first.

    Standardised differences as in records.Balance; of both words as 'a/b'. Where neither group varies: 'all alike'.
    """
    rows = {(b.control, b.covariate): b.after for b in result.pairs.balance}
    first = result.verdict.control
    for control in sorted(dict.fromkeys(c for c, _ in rows), key=lambda c: c != first):
        parts = []
        for name, keys in _BALANCED.items():
            if (control, keys[0]) in rows:
                of = [rows[control, key] for key in keys]
                parts.append(f"{name} {'/'.join('all alike' if v is None else signed(v, 2) for v in of)}")
        yield "balance" if control == first else "", f"{control}: {', '.join(parts)}"
    if rows:
        yield "", "differences of cognates from controls in standard deviations; from ±0.1 on groups count as unlike"


#: How the covariates of one balance line are called, and which rows they are.
_BALANCED = {
    "graphemes": ("graphemes a", "graphemes b"), "edit distance": ("edit distance",),
    "tokens": ("tokens a", "tokens b"), "shared tokens": ("shared tokens",),
}  # fmt: skip


# ── for a person at a terminal ───────────────────────────────────────────────────────────────────────────


def lines(result: Result) -> Iterator[tuple[str, str]]:
    """(label, text), one idea each, at the primary outcome."""
    verdict, evidence = result.verdict, result.evidence
    yield from balanced(result)
    if verdict.similarity in evidence.partners:
        alpha = result.tests[verdict.similarity, verdict.control].alpha
        yield from _partner_lines(evidence.partners[verdict.similarity], verdict.depth, alpha)
    for a in evidence.adjusted:
        if (a.similarity, a.control, a.depth) == (verdict.similarity, verdict.control, verdict.depth):
            yield from _adjusted_lines(a)
    for f in evidence.form:
        if f.control == verdict.control:
            yield (
                "spelling",
                f"edit distance alone: AUC {f.auc:.2f}{_within(f.auc_ci)} · {f.similarity}: AUC {f.model_auc:.2f}",
            )
    for s in evidence.scores:
        if (s.similarity, s.depth) == (verdict.similarity, verdict.depth):
            yield from _score_lines(s)


def _partner_lines(test: PartnerTest, depth: int, alpha: float) -> Iterator[tuple[str, str]]:
    at = _at(test.depths, depth)
    shown = at.p is not None and at.p <= alpha
    lie = "words lie" if shown else "not tested: words lie" if at.p is None else "words are not shown to lie"
    side = "closer to" if at.delta > 0 else "farther from"
    p = f", p {p_text(at.p)}" if at.p is not None else ""
    p += f", max-T {p_text(at.p_max_t)}" if at.p_max_t is not None else ""
    yield "partners", f"{lie} {side} their own partner than others': Δ = {signed(at.delta)}{p}"
    of = f"{test.candidates:.0f}" if test.candidates == round(test.candidates) else f"about {test.candidates:.1f}"
    yield (
        "",
        f"own partner the closest of {of}: {100 * at.precision_at_1:.0f} % (chance "
        f"{100 * test.chance_precision_at_1:.0f} %) · mean rank {at.rank:.1f} (chance {test.chance_rank:.1f})",
    )
    if test.why_no_p:
        yield "", f"no p-value: {test.why_no_p}"
    if shown and at.delta > 0:
        yield "", "meaning, spelling and shared tokens can make that as well as ancestry can"


def _adjusted_lines(a: AdjustedDelta) -> Iterator[tuple[str, str]]:
    if a.adjusted is None:
        yield "adjusted", f"no adjusted Δ: {a.why_not}"
        return
    names = ", ".join(c.name for c in a.coefficients) or "nothing"
    interval = f" {a.ci}" if a.ci else ""
    p = f", p {p_text(a.p)}" if a.p is not None else ""
    yield "adjusted", f"Δ = {signed(a.adjusted)}{interval}{p}; raw Δ = {signed(a.raw)}"
    yield "", f"held equal: {names}"
    for name, why in a.dropped.items():
        if why.startswith("tells"):
            yield "", f"{name} {why}"
    if a.why_not:
        yield "", f"no interval: {a.why_not}"


def _score_lines(s: ScoreCheck) -> Iterator[tuple[str, str]]:
    if s.rho is None:
        have = "1 pair has" if s.n == 1 else f"{s.n} pairs have"
        yield "scores", f"{have} a score, but scores or similarities are all equal"
        return
    p = f", p {p_text(s.p)}" if s.p is not None else ""
    interval = f" [{signed(s.ci.low, 2)}, {signed(s.ci.high, 2)}]" if s.ci else ""
    yield "scores", f"Spearman's ρ = {signed(s.rho, 2)}{interval}{p} with people's scores of {s.n} pairs"
    if s.ci is not None and 0.0 in s.ci:
        yield "", "it is not shown that this model and method follow people's judgement here"
    elif s.ci is not None and s.rho < 0:
        yield "", "this model and method run against people's judgement here"
    if s.why_no_p:
        yield "", f"no p-value: {s.why_no_p}"


def _within(interval: Interval | None) -> str:
    return f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else ""


def _at(depths: Sequence[PartnerDepth], depth: int) -> PartnerDepth:
    return next(d for d in depths if d.depth == depth)


# ── for MLflow ───────────────────────────────────────────────────────────────────────────────────────────


def curves(result: Result) -> Iterator[tuple[str, float, int]]:
    """(name, value, depth); what is undefined is left out. Names of the primary control hold no control."""
    evidence, verdict = result.evidence, result.verdict
    for name, test in evidence.partners.items():
        for at in test.depths:
            numbers = {
                "own": at.own, "others": at.others, "delta": at.delta, "p": at.p, "p_greater": at.p_greater,
                "p_less": at.p_less, "p_max_t": at.p_max_t, "rank": at.rank, "mrr": at.mrr,
                "precision_at_1": at.precision_at_1, **_ends("mrr_ci", at.mrr_ci),
                **_ends("precision_at_1_ci", at.precision_at_1_ci),
            }  # fmt: skip
            yield from _named(f"partners/{name}", numbers, at.depth)
    for a in evidence.adjusted:
        name = a.similarity if a.control == verdict.control else f"{a.similarity}/{a.control}"
        numbers = {"delta": a.adjusted, "p": a.p, **_ends("ci", a.ci)}
        yield from _named(f"adjusted/{name}", numbers, a.depth)
    for s in evidence.scores:
        yield from _named(f"scores/{s.similarity}", {"rho": s.rho, "p": s.p, **_ends("ci", s.ci)}, s.depth)


def scalars(result: Result) -> dict[str, float]:
    """Of the primary outcome, for the table of runs; chances beside what they belong to."""
    evidence, verdict = result.evidence, result.verdict
    found: dict[str, float | None] = {}
    if verdict.similarity in evidence.partners:
        test = evidence.partners[verdict.similarity]
        at = _at(test.depths, verdict.depth)
        found |= {
            "partners/delta": at.delta, "partners/p": at.p, "partners/p_max_t": at.p_max_t, "partners/mrr": at.mrr,
            "partners/chance_mrr": test.chance_mrr, "partners/precision_at_1": at.precision_at_1,
            "partners/chance_precision_at_1": test.chance_precision_at_1, "partners/words": test.words,
        }  # fmt: skip
    for a in evidence.adjusted:
        if (a.similarity, a.control, a.depth) == (verdict.similarity, verdict.control, verdict.depth):
            found |= {"adjusted/delta": a.adjusted, "adjusted/p": a.p, **_ends("adjusted/ci", a.ci)}
    for f in evidence.form:
        name = "form" if f.control == verdict.control else f"form/{f.control}"
        found |= {f"{name}/auc": f.auc, f"{name}/model_auc": f.model_auc, **_ends(f"{name}/auc_ci", f.auc_ci)}
    for s in evidence.scores:
        if (s.similarity, s.depth) == (verdict.similarity, verdict.depth):
            found |= {"scores/rho": s.rho, "scores/p": s.p, "scores/n": s.n, **_ends("scores/ci", s.ci)}
    return {name: value for name, value in found.items() if value is not None}


def _named(name: str, numbers: dict[str, float | None], depth: int) -> Iterator[tuple[str, float, int]]:
    return ((f"{name}/{key}", value, depth) for key, value in numbers.items() if value is not None)


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    return {f"{name}_low": interval.low, f"{name}_high": interval.high} if interval else {}


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────


def tables(result: Result) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(file name under tables/, rows) of what there is."""
    evidence = result.evidence
    if evidence.partners:
        yield "partners", [row for test in evidence.partners.values() for row in _partner_rows(test)]
    if evidence.adjusted:
        yield "adjusted", _adjusted_rows(evidence)
    if evidence.form:
        yield "spelling", [_flat(asdict(f)) for f in evidence.form]
    if evidence.scores:
        yield "scores", [_flat(asdict(s)) for s in evidence.scores]
    if result.matrix is not None:
        yield "matrix", _matrix_rows(result)


def _partner_rows(test: PartnerTest) -> list[dict[str, Any]]:
    of = {
        "words": test.words, "candidates": test.candidates, "chance_rank": test.chance_rank,
        "chance_mrr": test.chance_mrr, "chance_precision_at_1": test.chance_precision_at_1,
        "shuffles": test.shuffles, "exact": test.exact,
    }  # fmt: skip
    return [{"similarity_kind": test.similarity, **_flat(asdict(at)), "delta": at.delta, **of} for at in test.depths]


def _adjusted_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """One row for the group and one for each covariate, dropped ones with their reason."""
    rows = []
    for a in evidence.adjusted:
        head = {"similarity_kind": a.similarity, "control": a.control, "depth": a.depth, "raw_delta": a.raw}
        terms = [("Δ", a.adjusted, a.ci, a.p, a.why_not)]
        terms += [(c.name, c.estimate, c.ci, c.p, "") for c in a.coefficients]
        terms += [(name, None, None, None, f"left out: {why}") for name, why in a.dropped.items()]
        rows += [
            {**head, "term": name, "estimate": estimate, "ci_low": ci.low if ci else None,
             "ci_high": ci.high if ci else None, "p": p, "remark": remark, "pairs": a.n, "clusters": a.clusters}
            for name, estimate, ci, p, remark in terms
        ]  # fmt: skip
    return rows


def _matrix_rows(result: Result) -> list[dict[str, Any]]:
    assert result.matrix is not None
    m = result.matrix
    return [
        {
            "similarity_kind": name, "depth": depth, "word_a": a.a.form, "lang_a": a.a.lang, "word_b": b.b.form,
            "lang_b": b.b.lang, "own": i == j, "candidate": bool(m.candidates[i, j]), "similarity": float(at[i, j]),
        }
        for name, values in m.values.items()
        for depth, at in zip(m.depths, values, strict=True)
        for i, a in enumerate(m.pairs)
        for j, b in enumerate(m.pairs)
    ]  # fmt: skip


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Intervals as two columns."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if key == "ci" or key.endswith("_ci"):
            flat |= {f"{key}_low": value["low"] if value else None, f"{key}_high": value["high"] if value else None}
        else:
            flat[key] = value
    return flat
