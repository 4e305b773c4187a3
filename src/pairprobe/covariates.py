"""What pairs differ in that is not ancestry: spelling, tokens, length, script, frequency. Pure: pairs in, numbers out.

Spelling is compared by graphemes, here and wherever controls are matched, so that what they are matched in is what they
are later adjusted for. A grapheme is a letter with all that belongs to it:

marks       combining ones, composed or not: é, r̥, नि. Forms are brought to NFC for this comparison alone, never to
            NFKC, which would turn ʷ ʰ ˤ and subscripts into plain letters
modifiers   secondary articulation, aspiration, length, subscripts, primes and apostrophes: kʷʰ, qˤ, aː, h₂, t', ň′
ties        t͡s is one. Untied ts and tʃ are two: nothing in such a spelling tells an affricate from a cluster
tone        the signs of one tone (˥˩ or ⁵¹) are one grapheme of their own, since they belong to a syllable

Case and final sigma do not count; ß and ss differ. No part of a spelling are stress (ˈ ˌ), asterisks, brackets, dots,
hyphens and other boundaries between morphemes or syllables, blanks and invisible characters: they are passed over.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pairprobe.records import COGNATE, Balance, Covariate, FloatArray, Pair, PairSet, Tokens

#: How sources mark reconstruction, stress and boundaries. Dashes and brackets are known by their category.
MARKS = frozenset("*†√=+.·◦_←|ˈˌ")
#: Signs that follow a letter and belong to it, although Unicode does not call them letters.
ATTACHED = frozenset("′″'’ʼ:")
TIES = ("\u0361", "\u035c")
TONES = frozenset("⁰¹²³⁴⁵⁶⁷⁸⁹˥˦˧˨˩")
#: Words in a character's Unicode name at which the name of its script ends: LATIN SMALL LETTER A, CJK UNIFIED …
AFTER_SCRIPT = frozenset(
    [
        "LETTER",
        "CAPITAL",
        "SMALL",
        "SIGN",
        "SYLLABLE",
        "SYLLABICS",
        "VOWEL",
        "CONSONANT",
        "IDEOGRAPH",
        "UNIFIED",
        "COMPATIBILITY",
        "CHARACTER",
        "LIGATURE",
        "IDEOGRAM",
        "HIEROGLYPH",
        "DIGRAPH",
        "RADICAL",
    ]
)
WIDTHS = ("FULLWIDTH ", "HALFWIDTH ")


def graphemes(form: str) -> tuple[str, ...]:
    """The graphemes of a form by which spellings are compared; see the module.

    A modifier at the very beginning (ⁿd) stands for itself. A form that is nothing but marks keeps them all, so that
    only the empty form has none.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", form).lower()).replace("ς", "σ")
    found: list[str] = []
    before = ""  # the character before this one: '' at the beginning and after what is passed over
    for c in folded:
        if _is_mark(c):
            before = ""
            continue
        tone = c in TONES
        joins = before in TONES if tone else _belongs(c) or before in TIES
        if found and joins:
            found[-1] += c
        else:
            found.append(c)
        before = c
    return tuple(found or folded)


def edit_distances(a: Sequence[str], b: Sequence[str]) -> npt.NDArray[np.float64]:
    """float64 [a, b]: Levenshtein's distance (1966) over the length of the longer form, in graphemes: 0 for equal
    spellings, 1 where nothing can be kept. Two empty forms are equal."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    sign: dict[str, str] = {}  # grapheme → one character, which rapidfuzz compares fastest

    def coded(forms: Sequence[str]) -> list[str]:
        return ["".join(sign.setdefault(g, chr(0x10000 + len(sign))) for g in graphemes(f)) for f in forms]

    return np.asarray(cdist(coded(a), coded(b), scorer=Levenshtein.normalized_distance, dtype=np.float64))


def edit_distance(a: str, b: str) -> float:
    """The same for two forms."""
    return _distance(graphemes(a), graphemes(b))


def script(form: str) -> str:
    """The script of most letters of a form, by their Unicode names: 'LATIN', 'CJK', 'OLD PERSIAN', …; '' where none
    is known. Modifier letters (ʷ, ʰ) and marks belong to any script. Equally many: the first in the form."""
    found = Counter(_script_of(c) for c in form if unicodedata.category(c) in ("Lu", "Ll", "Lt", "Lo"))
    found.pop("", None)
    return found.most_common(1)[0][0] if found else ""


def of_pairs(pairs: PairSet, tokens: Tokens | None = None) -> tuple[Covariate, ...]:
    """What may stand beside ancestry, for every pair, in the order in which it enters a model.

    edit distance: of both forms; tokens: of both words together; shared tokens: distinct tokens both words have over
    those either has (Jaccard); length: graphemes of both words together; same script: yes or no; frequency: mean
    natural logarithm of both words' frequencies, where a frequency of 0 counts as half the smallest other one.
    What cannot be known says why: tokens without a model, a frequency that some word lacks.
    """
    both = [(graphemes(p.a.form), graphemes(p.b.form)) for p in pairs.pairs]
    found = [Covariate("edit distance", _array(_distance(a, b) for a, b in both))]
    if tokens is not None:
        words = _words(tokens)
        found.append(Covariate("tokens", _array(len(a) + len(b) for a, b in words)))
        found.append(Covariate("shared tokens", _array(_shared(a, b) for a, b in words)))
    found.append(Covariate("length", _array(len(a) + len(b) for a, b in both)))
    same = _array(script(p.a.form) == script(p.b.form) for p in pairs.pairs)
    found.append(Covariate("same script", same, binary=True))
    return (*found, *_frequency(pairs.pairs))


def balance(pairs: PairSet, tokens: Tokens | None = None) -> tuple[Balance, ...]:
    """How alike the cognates and each control group are, in the pairs and the tokens of this run.

    Means and standardised differences are of the pairs given, of which a run may have left some out. `before` is the
    pair set's own, among all candidates. Of tokens it stands only where the set counted as many as this run does: else
    it matched in another tokenizer's. shared tokens: distinct tokens both words have over those either has (Jaccard).
    """
    both = [(graphemes(p.a.form), graphemes(p.b.form)) for p in pairs.pairs]
    values: dict[str, npt.NDArray[np.float64]] = {
        "graphemes a": _array(len(a) for a, _ in both),
        "graphemes b": _array(len(b) for _, b in both),
        "edit distance": _array(_distance(a, b) for a, b in both),
    }
    if tokens is not None:
        words = _words(tokens)
        values |= {
            "tokens a": _array(len(a) for a, _ in words),
            "tokens b": _array(len(b) for _, b in words),
            "shared tokens": _array(_shared(a, b) for a, b in words),
        }
    known = {(b.control, b.covariate): b for b in pairs.balance}
    cognate, found = pairs.members(COGNATE), []
    for control in pairs.controls:
        other = pairs.members(control)
        for name, of in values.items():
            own = of[cognate], of[other]
            (after,) = standardised(own[0][:, None], own[1][:, None])
            made = Balance(control, name, float(own[0].mean()), float(own[1].mean()), None, after)
            given = known.get((control, name))
            if given and (not name.startswith("tokens") or _same_means(made, given)):
                made = replace(made, before=given.before)
            found.append(made)
    return tuple(found)


def standardised(cognates: FloatArray, controls: FloatArray) -> list[float | None]:
    """Standardised mean difference of each column, None where neither group varies: (mean of cognates − mean of
    controls) / √((s²₁ + s²₂) / 2).

    Austin (2009), Balance diagnostics for comparing the distribution of baseline covariates, Statistics in Medicine 28,
    3083–3107; below 0.1 in absolute value counts as balanced there.
    """
    # column by column, so that a covariate's number has the same last digit whatever stands beside it
    columns = [(np.ascontiguousarray(a), np.ascontiguousarray(b)) for a, b in zip(cognates.T, controls.T, strict=True)]
    deviation = [float(spread(a[:, None], b[:, None], none=0.0)[0]) for a, b in columns]
    off = [float(a.mean() - b.mean()) for a, b in columns]
    return [float(d / s) if s > 1e-12 else None for d, s in zip(off, deviation, strict=True)]


def spread(values: FloatArray, others: FloatArray, none: float = 1.0) -> FloatArray:
    """float64 [covariates]: √((s²₁ + s²₂) / 2); `none` where there is none."""
    found = np.sqrt((_variance(values) + _variance(others)) / 2)
    return np.where(found > 1e-12, found, none)


def _variance(values: FloatArray) -> FloatArray:
    return np.asarray(values.var(axis=0, ddof=1)) if len(values) > 1 else np.zeros(values.shape[1])


def _same_means(a: Balance, b: Balance) -> bool:
    return bool(np.allclose([a.cognate_mean, a.control_mean], [b.cognate_mean, b.control_mean], atol=1e-9))


def _words(tokens: Tokens) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The ids of both words of every pair."""
    ids = [t.word_ids for t in tokens.of]
    return [(ids[i], ids[j]) for i, j in zip(tokens.texts.a, tokens.texts.b, strict=True)]


def _shared(a: Sequence[int], b: Sequence[int]) -> float:
    return len({*a} & {*b}) / max(1, len({*a} | {*b}))


def _frequency(pairs: tuple[Pair, ...]) -> tuple[Covariate, ...]:
    known = [(p.a.frequency, p.b.frequency) for p in pairs if p.a.frequency is not None and p.b.frequency is not None]
    if not known:  # nobody gave any: nothing to speak of
        return ()
    if len(known) < len(pairs):
        why = f"known for both words in {len(known)} of {len(pairs)} pairs only"
        return (Covariate("frequency", np.full(len(pairs), np.nan), missing=why),)
    values = np.array(known, dtype=np.float64)
    if not (values > 0).any():
        return (Covariate("frequency", np.zeros(len(pairs))),)
    floor = values[values > 0].min() / 2
    return (Covariate("frequency", np.log(np.maximum(values, floor)).mean(axis=1)),)


def _distance(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_distance(a, b))


def _is_mark(c: str) -> bool:
    return c.isspace() or c in MARKS or unicodedata.category(c) in ("Pd", "Ps", "Pe", "Sm", "Cf", "Cc")


def _belongs(c: str) -> bool:
    """Whether a sign is part of the letter before it."""
    kind = unicodedata.category(c)
    return kind[0] == "M" or kind in ("Lm", "Sk") or c in ATTACHED or "₀" <= c <= "₉"


def _script_of(c: str) -> str:
    name = unicodedata.name(c, "")
    for width in WIDTHS:
        name = name.removeprefix(width)
    words = name.split(" ")
    for i, word in enumerate(words):
        if i and word in AFTER_SCRIPT:
            return " ".join(words[:i])
    return words[0]


def _array(values: Iterable[float]) -> npt.NDArray[np.float64]:
    return np.array(list(values), dtype=np.float64)
