"""What pairs differ in that is not ancestry: spelling, tokens, length, script, frequency. Pure: pairs in, numbers out.

Spelling is compared by grapheme clusters (Unicode Standard Annex 29, without its rules for emoji and for ancient Hangul
syllables): a letter and all marks set on it are one. Forms are folded in case and brought to NFC for this comparison
alone, never to NFKC, and marks that are no sound (`*`, hyphens, brackets, white space) are passed over.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pairprobe.records import Covariate, Pair, PairSet, Tokens

#: How sources mark reconstructed forms, roots and boundaries. Dashes and brackets are known by their category.
MARKS = frozenset("*†√=")
JOINER = "\u200d"  # binds what follows it to what stands before
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
    """The grapheme clusters of a form by which spellings are compared: folded in case, NFC, without MARKS.

    A form that is nothing but marks keeps them all, so that only the empty form has none.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", form).casefold())
    kept = [c for c in folded if not _is_mark(c)] or list(folded)
    clusters: list[str] = []
    for c in kept:
        if clusters and (c == JOINER or unicodedata.category(c)[0] == "M" or clusters[-1].endswith(JOINER)):
            clusters[-1] += c
        else:
            clusters.append(c)
    return tuple(clusters)


def edit_distance(a: str, b: str) -> float:
    """Levenshtein's distance (1966) of two forms over the length of the longer one, in grapheme clusters: 0 for equal
    spellings, 1 where nothing can be kept. Two empty forms are equal."""
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
        ids = [t.word_ids for t in tokens.of]
        words = [(ids[i], ids[j]) for i, j in zip(tokens.texts.a, tokens.texts.b, strict=True)]
        found.append(Covariate("tokens", _array(len(a) + len(b) for a, b in words)))
        shared = (len({*a} & {*b}) / max(1, len({*a} | {*b})) for a, b in words)
        found.append(Covariate("shared tokens", _array(shared)))
    found.append(Covariate("length", _array(len(a) + len(b) for a, b in both)))
    same = _array(script(p.a.form) == script(p.b.form) for p in pairs.pairs)
    found.append(Covariate("same script", same, binary=True))
    return (*found, *_frequency(pairs.pairs))


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
    return c.isspace() or c in MARKS or unicodedata.category(c) in ("Pd", "Ps", "Pe")


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
