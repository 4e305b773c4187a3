"""Whose mean, spread or neighbours a similarity takes: words in no pair, else the run's own where that is fair.

A direction estimated from the very words that are compared is fitted to them; so where there is a reference vocabulary
it is used, and it may hold no word of a pair.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pairprobe.errors import StatisticsError
from pairprobe.records import IntArray, Texts
from pairprobe.similarities.pairwise import used

#: Reference words for a mean. The error of a mean of n words is in all vectors alike once it is subtracted, and lifts
#: the cosine of unrelated words by about 1/n: here at most 0.05.
FEWEST = 20
NAMED = 5
GIVE = "Give words that are in no pair: pairs.reference=…, or a pair set that has them."
TAKE_OUT = "Take these words out of the reference: what is fitted to a pair's own words cannot judge the pair."


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """which: int [words], indices of texts. name: for Similarities.reference, '' for the run's own words; said: the
    same for a sentence that begins 'the mean of …'."""

    which: IntArray
    name: str
    said: str


def overlap(texts: Texts) -> StatisticsError | None:
    """An error that names the reference words which are also in pairs; None where there is none.

    A word is the same if its text is, or its language and form: another gloss around it makes it no other word.
    """
    if not len(texts.reference):
        return None
    paired = used(texts)
    inside = {int(i) for i in paired}
    words = {(w.lang, w.form) for w in (texts.texts[int(i)].word for i in paired)}
    reference = [(int(i), texts.texts[int(i)].word) for i in texts.reference]
    both = [w.form for i, w in reference if i in inside or (w.lang, w.form) in words]
    if not both:
        return None
    named = ", ".join(f"'{form}'" for form in both[:NAMED]) + (", …" if len(both) > NAMED else "")
    return StatisticsError(f"{len(both)} of the {len(reference)} reference words are also in pairs: {named}.", TAKE_OUT)


def own(texts: Texts) -> IntArray:
    """int: the run's distinct texts but for the reference."""
    return np.setdiff1d(np.arange(len(texts)), texts.reference)


def referred(texts: Texts, which: IntArray | None = None) -> Vocabulary:
    """The reference words, or those of them in `which`."""
    which = texts.reference if which is None else which
    of = f" of {texts.reference_name}" if texts.reference_name else ""
    name = f"{len(which)} words{of} that are in no pair"
    return Vocabulary(which, name, name)


def reference_or_own(texts: Texts) -> Vocabulary:
    """The reference where it has enough words for a mean, else the run's own texts, and which of them it is."""
    if len(texts.reference) >= FEWEST:
        return referred(texts)
    return Vocabulary(own(texts), "", f"this run's {len(own(texts))} distinct texts{why_own(texts)}")


def why_own(texts: Texts) -> str:
    """Why a reference that is there was not used; '' where there is none."""
    few = len(texts.reference)
    return f" (its {few} reference words are too few: {FEWEST} are needed)" if few else ""


def caution(name: str, texts: int, language: str = "") -> str:
    """What to beware of where a similarity takes the mean of few of the words it compares; '' from FEWEST on.

    Among n words each makes 1/n of the mean it is measured from: with n = 2 the two centred vectors are opposite
    whatever the model knows, and with n = 8 unrelated words have a cosine of about −1/7. From FEWEST on that is at most
    0.05, as of a reference.

    Args:
        texts: distinct texts that the mean is of. language: of which language they are, where that matters.
    """
    if texts >= FEWEST:
        return ""
    of = f" of {language}" if language else ""
    return (
        f"{name} takes out the mean of the {texts} texts{of} that are compared themselves: each makes "
        f"{100 / texts:.0f} % of that mean, and unrelated ones have a cosine of about −{1 / (texts - 1):.2f}. So few "
        f"do not say how alike words are: give {FEWEST} words or more{of} that are in no pair (pairs.reference=FILE)."
    )


def languages(texts: Texts, which: IntArray) -> Counter[str]:
    """How many of `which` there are of each language."""
    return Counter(texts.texts[int(i)].word.lang for i in which)


def lacking(name: str, texts: Texts, fewest: int, why: str) -> StatisticsError | None:
    """An error where there are too few reference words for a similarity that cannot do without."""
    n = len(texts.reference)
    if n >= fewest:
        return None
    has = f"there are {n}" if n else "there are none"
    of = f" in {texts.reference_name}" if texts.reference_name else ""
    return StatisticsError(
        f"{name} needs at least {fewest} reference words, words that are in no pair ({why}); {has}{of}.", GIVE
    )


def demand(refusal: StatisticsError | None) -> None:
    """Raise what a similarity has against these texts."""
    if refusal is not None:
        raise refusal
