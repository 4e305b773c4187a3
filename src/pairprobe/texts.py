"""Pairs → texts: every word set into its template, its place remembered by character."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np

from pairprobe.errors import TextError, nearest
from pairprobe.records import COGNATE, Pair, PairSet, Text, Texts, Word

FIELDS = ("word", "gloss", "lang", "concept")
SHOWN = 3  # rows named of those that lack something
SLIGHT = 0.1  # difference of shares that is not worth a word


@dataclass(frozen=True)
class Template:
    """A sentence pattern with the word's place marked.

    pattern: contains {word} exactly once, and {gloss}, {lang}, {concept} as you like; {{ and }} are braces.
    by_language: patterns that replace `pattern` for words of these languages.

    Raises TextError for a pattern that cannot be filled, naming the columns that lack what it asks for, and where.
    """

    name: str = "pattern"
    pattern: str = "{word}"
    by_language: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pattern in (self.pattern, *self.by_language.values()):
            _parse(pattern)

    def write(self, pairs: PairSet) -> Texts:
        """Distinct texts in order of first use; equal texts are written once and shared by pairs.

        The words of the set's reference vocabulary come last.
        """
        places: dict[tuple[str, int, int], int] = {}
        texts: list[Text] = []
        lacking: dict[str, dict[str, str]] = {}  # column → pair → word, for what the patterns need and is not there

        def place(word: Word, concept: str, of: str, side: str = "") -> int:
            text = self._fill(word, concept, lambda name: lacking.setdefault(name + side, {}).setdefault(of, word.form))
            key = (text.text, text.start, text.end)
            if key not in places:
                places[key] = len(texts)
                texts.append(text)
            return places[key]

        if not pairs.pairs:
            raise TextError(f"{pairs.name} has no pairs to write texts for.")
        both = [
            tuple(place(w, p.concept or w.concept, p.id, s) for w, s in ((p.a, "_a"), (p.b, "_b"))) for p in pairs.pairs
        ]
        of_pairs = self._lacking(lacking, PurePath(pairs.source).name or pairs.name, len(pairs.pairs), "pairs")
        lacking = {}
        reference = [place(w, w.concept, str(i)) for i, w in enumerate(pairs.reference)]
        problems = [*of_pairs, *self._lacking(lacking, "the reference vocabulary", len(pairs.reference), "words")]
        if problems:
            raise TextError(problems, "Add what is missing to the table, or choose template=bare.")
        a, b = (np.array(side, dtype=np.int64) for side in zip(*both, strict=True))
        outside = np.array(list(dict.fromkeys(reference)), dtype=np.int64)
        return Texts(tuple(texts), a, b, self.name, outside, pairs.name if len(outside) else "")

    def beware(self, pairs: PairSet, control: str) -> tuple[str, ...]:
        """What must stand beside a verdict against this control group: a template that names what words mean.

        Two texts that name one meaning are alike for that, whatever the words are.
        """
        patterns = (self.pattern, *self.by_language.values())
        if not {"gloss", "concept"} & {name for pattern in patterns for _, name in _parse(pattern)}:
            return ()
        same = {group: np.mean([_one_meaning(p) for p in pairs.pairs if p.group == group]) for group in pairs.sizes}
        told = any(p.concept or p.a.concept or p.b.concept for p in pairs.pairs)
        if control == "same_concept" or (told and same[COGNATE] <= same[control] + SLIGHT):
            return ()
        shares = f" ({100 * same[COGNATE]:.0f} % of the pairs against {100 * same[control]:.0f} %)" if told else ""
        return (
            f"template '{self.name}' names each word's meaning, and cognates share theirs where {control} pairs do "
            f"not{shares}: that alone can make their texts alike. template=bare names none.",
        )

    def _lacking(self, columns: dict[str, dict[str, str]], where: str, rows: int, noun: str) -> list[str]:
        """A line for all columns that lack the same rows: which, in how many, and a few of them where it is not all.

        columns: of each, row → word that lacks it.
        """
        alike: dict[tuple[str, ...], list[str]] = {}
        for column, of in columns.items():
            alike.setdefault(tuple(of), []).append(column)
        said = []
        for found, names in alike.items():
            column = f"column{'s' * (len(names) > 1)} {', '.join(names)}"
            needs = f"template '{self.name}' needs {'it' if len(names) == 1 else 'them'}"
            if len(found) == rows:
                said.append(f"{where}: {column} missing or empty in all {rows} {noun}; {needs}.")
                continue
            words = columns[names[0]]
            some = ", ".join(f"'{words[of]}'" if noun == "words" else f"{of} ('{words[of]}')" for of in found[:SHOWN])
            more = ", …" if len(found) > SHOWN else ""
            said.append(f"{where}: {column} empty in {len(found)} of {rows} {noun}, {some}{more}; {needs}.")
        return said

    def _fill(self, word: Word, concept: str, lacks: Callable[[str], object]) -> Text:
        values = {"word": word.form, "gloss": word.gloss, "lang": word.lang, "concept": concept}
        written = ""
        start = 0
        for literal, name in _parse(self.by_language.get(word.lang, self.pattern)):
            written += literal
            if name == "word":
                start = len(written)
            if name is not None:
                if not values[name]:
                    lacks(name)
                written += values[name]
        return Text(written, start, start + len(word.form), word)


def _one_meaning(pair: Pair) -> bool:
    """Whether both words are known to mean the same."""
    of = [w.concept or pair.concept for w in (pair.a, pair.b)]
    return bool(of[0]) and of[0] == of[1]


def _parse(pattern: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise TextError(f"template pattern '{pattern}': {error}.", "Write {{ and }} for braces.") from None
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion):
            raise TextError(f"template pattern '{pattern}': allowed: {{{name}}} alone; formats are not applied.")
        if name is not None and name not in FIELDS:
            raise TextError(
                f"template pattern '{pattern}': there is no field {{{name}}}; "
                f"allowed: {', '.join(f'{{{f}}}' for f in FIELDS)}.{nearest(name, FIELDS)}"
            )
    marks = sum(name == "word" for _, name, _, _ in parts)
    if marks != 1:
        raise TextError(
            f"template pattern '{pattern}' marks the word {marks} times; {{word}} must stand in it exactly once.",
            "For example: template.pattern='The word {word} is old.'",
        )
    return [(literal, name) for literal, name, _, _ in parts]
