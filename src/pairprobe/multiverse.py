"""Other ways of measuring the same pairs: templates × poolings from one pass, × similarities × depths.

What the primary outcome says is untouched by it: its own texts are multiplied by themselves, and its pairs stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pairprobe.errors import StatisticsError, TextError, TokenError
from pairprobe.evidence import Multiverse
from pairprobe.methods.pooling import Pooling
from pairprobe.outcomes import p_text, signed
from pairprobe.pairs.table import sizes_problems
from pairprobe.records import IntArray, PairSet, Similarities, Text, Texts, TokenisedText, Tokens, Vectors
from pairprobe.rooms import Workload
from pairprobe.tokens import TokenRules, check_rows, examine, leave_out, tokenise

SHOWN = 5  # pairs that are named


@dataclass(frozen=True)
class Alternatives:
    """Ways of measuring beside the primary one, which always joins them.

    templates: name → a pattern, or pattern and by_language as under conf/template. poolings: each with pooling, scope
    and special_tokens as under conf/method. Empty: no multiverse. `config.build` makes objects of both.
    """

    templates: dict[str, Any] = field(default_factory=dict)
    poolings: list[Any] = field(default_factory=list)

    @property
    def asked(self) -> bool:
        return bool(self.templates or self.poolings)

    def named(self, primary: Any) -> dict[str, Any]:
        """Templates by name, the primary one first; one that equals it is not used twice."""
        others = {n: t for n, t in self.templates.items() if not _alike(t, primary)}
        name = f"{primary.name} (primary)" if primary.name in others else str(primary.name)
        return {name: primary, **others}

    def pooled(self, primary: Pooling) -> tuple[Pooling, ...]:
        """Poolings, the primary one first."""
        return primary, *(p for p in self.poolings if p.label != primary.label)

    def check(self) -> list[str]:
        """Problems: ways that are the same, which would count twice."""
        names = list(self.templates)
        problems = [
            f"multiverse.templates: {a} and {b} write the same texts; a way of measuring counts once."
            for i, a in enumerate(names)
            for b in names[i + 1 :]
            if _alike(self.templates[a], self.templates[b])
        ]
        labels = [p.label for p in self.poolings]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        return problems + [f"multiverse.poolings has '{label}' twice; it counts once." for label in twice]


def _alike(a: Any, b: Any) -> bool:
    return type(a) is type(b) and replace(a, name="") == replace(b, name="")


@dataclass(frozen=True, eq=False)
class Ways:
    """What goes through the model together, the primary way first.

    tokens: of the distinct texts of all templates, the primary one's before all others. texts: of each template, for
    `pairs`; rows: where these texts are among `tokens`. pairs: those that every template can measure.
    """

    names: tuple[str, ...]
    texts: tuple[Texts, ...]
    rows: tuple[IntArray, ...]
    tokens: Tokens
    poolings: tuple[Pooling, ...]
    pairs: PairSet
    primary: int  # texts of the primary way

    def vectors(self, found: Sequence[Vectors]) -> Vectors:
        """The primary way's own, of what one pass found for each pooling."""
        return _some(found[0], np.arange(self.primary))

    def told(self, pairs: PairSet) -> str:
        """What goes through the model beside the primary way, whose pairs are `pairs`."""
        said = (
            f"{len(self.names)} templates × {len(self.poolings)} poolings in one pass over {len(self.tokens)} distinct "
            "texts; the primary outcome is one of the ways"
        )
        ids = {p.id for p in self.pairs.pairs}
        left_out = [p.id for p in pairs.pairs if p.id not in ids]
        if left_out:
            more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
            said += (
                f"\n{', '.join(left_out[:SHOWN])}{more} cannot be measured in every template: left out of all these "
                "ways, not of the verdict"
            )
        return said

    def judge(
        self, found: Sequence[Vectors], similarities: Sequence[Any], statistics: Any, control: str, primary: Any
    ) -> Multiverse:
        """Every way's similarities, and what they say together.

        primary: the primary outcome, with its similarity and depth.
        """
        specs: list[tuple[str, str, Similarities]] = []
        undefined: list[str] = []
        for name, texts, rows in zip(self.names, self.texts, self.rows, strict=True):
            for pooling, vectors in zip(self.poolings, found, strict=True):
                here = _some(vectors, rows)
                for similarity in similarities:
                    measured, lost = _measured(similarity, here, texts)
                    undefined += [f"{name}, {pooling.label}: {why}" for why in lost]
                    if measured is not None:
                        specs.append((name, pooling.label, measured))
        depth = found[0].depths[primary.depth] if primary.depth < 0 else primary.depth
        first = self.names[0], self.poolings[0].label, primary.similarity, depth
        said: Multiverse = statistics.multiverse(specs, self.pairs, control, first)
        return replace(said, undefined=tuple(undefined))


def ways(
    asked: Alternatives,
    template: Any,
    method: Any,
    tokens: Tokens,
    pairs: PairSet,
    tokenizer: Any,
    rules: TokenRules,
    limit: int | None,
    because: str = "",
) -> Ways:
    """Everything that goes through the model for `pairs`, of which the primary way's `tokens` are known.

    A pair that one template cannot measure is left out of all, so that all ways compare the same pairs.

    Raises:
        TextError: a template lacks a gloss. TokenError: a text has no usable tokens under some template.
        StatisticsError: too few pairs are left.
    """
    templates, poolings = asked.named(template), asked.pooled(method)
    names = tuple(templates)
    if len(names) == 1:
        return Ways(names, (tokens.texts,), (np.arange(len(tokens)),), tokens, poolings, pairs, len(tokens))
    common, written = pairs, [tokens]
    for name in names[1:]:
        found = tokenise(tokenizer, templates[name].write(pairs))
        written.append(found)
        try:
            excluded = examine(found, limit, because).excluded(rules)
        except TokenError as error:
            raise TokenError([f"multiverse template '{name}':", *error.problems], error.next_step) from None
        left = leave_out(pairs, found.texts, excluded)
        ids, words = {p.id for p in left.pairs}, set(left.reference)
        common = replace(
            common,
            pairs=tuple(p for p in common.pairs if p.id in ids),
            reference=tuple(w for w in common.reference if w in words),
        )
    lacking = sizes_problems(common)
    if lacking:
        raise StatisticsError(
            [f"multiverse: after leaving out {len(pairs.pairs) - len(common.pairs)} pairs:", *lacking],
            "Choose templates that can hold these words: multiverse.templates=…",
        )
    texts = [t.texts if common == pairs else templates[n].write(common) for n, t in zip(names, written, strict=True)]
    together, places = _together(written)
    rows = [np.array([places[_key(t)] for t in of.texts], dtype=np.int64) for of in texts]
    return Ways(names, tuple(texts), tuple(rows), together, poolings, common, len(tokens))


def write_all(asked: Alternatives, template: Any, pairs: PairSet) -> list[Texts]:
    """The texts of every template, the primary one's first.

    Raises:
        TextError: one for all templates that lack something, with the words that leave out those of the multiverse.
    """
    texts: list[Texts] = []
    lacking: dict[str, TextError] = {}
    templates = asked.named(template)
    for name, one in templates.items():
        try:
            texts.append(one.write(pairs))
        except TextError as error:
            lacking[name] = error
    if not lacking:
        return texts
    primary = next(iter(templates)) in lacking
    # what equals the primary template is a way of its own as soon as another one is primary
    others = [n for n, t in asked.templates.items() if n in lacking or (primary and _alike(t, template))]
    if not others:
        raise lacking.popitem()[1]
    choose = "choose template=bare and " if primary else ""
    raise TextError(
        list(dict.fromkeys(problem for error in lacking.values() for problem in error.problems)),
        f"Add what is missing to the table, or {choose}leave these templates out of the multiverse:\n"
        + " ".join(f"'~multiverse.templates.{name}'" for name in others),
    )


def asked_of_the_model(
    asked: Alternatives,
    template: Any,
    method: Any,
    tokenizer: Any,
    pairs: PairSet,
    rows: int,
    depths: int | None = None,
) -> Workload:
    """All that would go through the model, its beginnings counted.

    rows: of its embedding table. depths: see `Workload`. Raises TokenError for a token that has none.
    """
    written = [tokenise(tokenizer, t.write(pairs)) for t in asked.named(template).values()]
    for tokens in written:
        check_rows(tokens, rows)
    tokens = written[0] if len(written) == 1 else _together(written)[0]
    return Workload.of(tokens, len(asked.pooled(method)), depths)


def told(found: Multiverse) -> str:
    """What all ways of measuring say together, in a few lines."""
    specs = [s for s in found.specifications if s.g is not None]
    lines = [f"{len(specs)} ways of measuring"]
    if found.agree is not None and found.median_g is not None:
        side = "> 0" if found.median_g >= 0 else "< 0"
        joint = _joint(found.p_median)
        lines[0] += f": {100 * found.agree:.0f} % give Δ {side}, median g {signed(found.median_g, 2)}{joint}"
    if found.significant is not None:
        joint = _joint(found.p_significant)
        lines.append(f"{100 * found.significant:.0f} % are significant on that side at {found.alpha:g}{joint}")
    if specs and not found.scheme:
        lines.append(
            "No p-values, alone or joint: too few relabellings leave the links between these pairs as they are."
        )
    corrected = [(s.p_max_t, i, s) for i, s in enumerate(specs) if s.p_max_t is not None]
    if corrected:
        p, _, s = min(corrected)
        lines.append(
            f"smallest p corrected for all of them: {s.similarity}, {s.pooling}, template {s.template}, depth "
            f"{s.depth}: Δ = {signed(s.delta)}, p max-T {p_text(p)}"
        )
    constant = len(found.specifications) - len(specs)
    if constant:
        lines.append(f"{constant} more are undefined: all their similarities are equal within the groups")
    if found.undefined:
        lines.append(f"{len(found.undefined)} more are undefined, as {found.undefined[0]}")
    return "\n".join([*lines, "All but the primary one are exploratory: they do not move the verdict."])


def _joint(p: float | None) -> str:
    return "" if p is None else f" (joint p {p_text(p)})"


def _together(written: Sequence[Tokens]) -> tuple[Tokens, dict[tuple[str, int, int], int]]:
    """The distinct texts of several templates, each in a part of its own, and where each text is."""
    places: dict[tuple[str, int, int], int] = {}
    texts: list[Text] = []
    of: list[TokenisedText] = []
    parts: list[int] = []
    number: dict[tuple[int, int], int] = {}  # (template, its own part) → part
    for part, tokens in enumerate(written):
        inside = np.zeros(len(tokens), dtype=np.int64) if tokens.parts is None else tokens.parts
        for text, tokenised, own in zip(tokens.texts.texts, tokens.of, inside, strict=True):
            if _key(text) not in places:
                places[_key(text)] = len(texts)
                texts.append(text)
                of.append(tokenised)
                parts.append(number.setdefault((part, int(own)), len(number)))
    none = np.empty(0, dtype=np.int64)
    together = Texts(tuple(texts), none, none, "multiverse")
    return Tokens(together, tuple(of), written[0].tokenizer, parts=np.array(parts, dtype=np.int64)), places


def _key(text: Text) -> tuple[str, int, int]:
    return text.text, text.start, text.end


def _some(vectors: Vectors, rows: IntArray) -> Vectors:
    """Of these texts alone, in this order."""
    if len(rows) == vectors.values.shape[1] and (rows == np.arange(len(rows))).all():
        return vectors
    norms = vectors.token_norms
    return replace(
        vectors,
        values=np.ascontiguousarray(vectors.values[:, rows]),
        token_norms=None if norms is None else tuple(norms[int(i)] for i in rows),
    )


def _measured(similarity: Any, vectors: Vectors, texts: Texts) -> tuple[Similarities | None, list[str]]:
    """At all depths where it is defined, and why not elsewhere: pooled by its first token a word may be '*' alone."""
    try:
        return similarity.measure(vectors, texts), []
    except StatisticsError:
        pass
    found: list[Similarities] = []
    lost: list[str] = []
    for i, depth in enumerate(vectors.depths):
        try:
            one = replace(vectors, values=vectors.values[i : i + 1], depths=(depth,), token_norms=None)
            found.append(similarity.measure(one, texts))
        except StatisticsError as error:
            lost.append(f"{similarity.name} at depth {depth}: {error.problems[0]}")
    if not found:
        return None, lost
    values = np.concatenate([s.values for s in found])
    return replace(found[0], values=values, depths=tuple(d for s in found for d in s.depths)), lost
