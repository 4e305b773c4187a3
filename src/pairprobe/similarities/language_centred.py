"""Cosine after each language's own mean is taken out: what is left once 'is German' and 'is Chinese' are gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pairprobe.errors import StatisticsError
from pairprobe.records import IntArray, Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import Change, cosines_by_depth, mean_of, used
from pairprobe.similarities.vocabulary import FEWEST, GIVE, caution, demand, languages, overlap, own, referred


@dataclass(frozen=True)
class LanguageCentred:
    """Cosine of vectors less the mean over words of the same language, depth by depth (Libovický, Rosa & Fraser 2020).

    The means are those of the reference words where it has at least 20 of each language of the pairs, else, for all
    languages alike, those of the run's own distinct texts. The words of a language then sum to zero, so that the mean
    dot product over all couples of two languages is 0. Fewer than 20 texts of a language are told under `beware`.
    """

    name: str = "language_centred"

    reads_reference: ClassVar[bool] = True

    def refuse(self, texts: Texts) -> StatisticsError | None:
        paired = used(texts)
        nameless = [texts.texts[int(i)].word.form for i in paired if not texts.texts[int(i)].word.lang]
        if nameless:
            return StatisticsError(
                f"language_centred needs the language of every word; {len(nameless)} of {len(paired)} have none, the "
                f"first is '{nameless[0]}'.",
                "Give the languages (columns lang_a and lang_b of a table).",
            )
        if self._reference(texts) is None:
            single = [lang for lang, n in languages(texts, own(texts)).items() if n < 2 and lang in self._asked(texts)]
            if single:
                return StatisticsError(
                    f"language_centred needs two words of each language at least: the only one of {single[0]} is its "
                    f"own mean. The reference has fewer than {FEWEST} of some language, or there is none.",
                    GIVE,
                )
        return overlap(texts)

    def measure(self, vectors: Vectors, texts: Texts) -> Similarities:
        """One cosine per depth and pair. Raises StatisticsError for a language of one word, a vector that equals its
        language's mean, or one that is not finite."""
        demand(self.refuse(texts))
        reference = self._reference(texts)
        which = own(texts) if reference is None else reference
        number = {lang: i for i, lang in enumerate(self._asked(texts))}
        of = np.array([number.get(t.word.lang, -1) for t in texts.texts])

        def at(values: Any, depth: int) -> Change:
            means = np.stack([mean_of(values, texts, which[of[which] == i], depth) for i in number.values()])
            return lambda rows, row: rows - means[of[row]]

        values = cosines_by_depth(vectors, texts, at, "language-centred vector")
        if reference is None:
            few = "" if not len(texts.reference) else f"; the reference has fewer than {FEWEST} words of some language"
            name, said = "", f"among this run's {len(which)} distinct texts{few}"
        else:
            name = said = referred(texts, reference).name
        counts = languages(texts, which)
        of_each = ", ".join(f"{lang} {counts[lang]}" for lang in number)
        about = f"cosine after subtracting from each word the mean of its language ({of_each}), {said}"
        least = min(number, key=lambda lang: counts[lang])
        beware = caution(self.name, counts[least], least) if reference is None else ""
        return Similarities(self.name, values, vectors.depths, about, name, beware)

    def _asked(self, texts: Texts) -> list[str]:
        """The languages of the pairs' words, in order of appearance."""
        return list(dict.fromkeys(texts.texts[int(i)].word.lang for i in used(texts)))

    def _reference(self, texts: Texts) -> IntArray | None:
        """The reference words of the pairs' languages; None where one has too few."""
        asked = self._asked(texts)
        counts = languages(texts, texts.reference)
        if any(counts[lang] < FEWEST for lang in asked):
            return None
        return np.array([i for i in texts.reference if texts.texts[int(i)].word.lang in asked], dtype=np.int64)
