"""Cosine corrected for hubs: a word that is near everything is not near its partner in particular."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pairprobe.errors import StatisticsError, at_least
from pairprobe.norms import blocks
from pairprobe.records import IntArray, Similarities, Texts, Vectors
from pairprobe.similarities.pairwise import Array, Rows, cosines, lengths_of, settled, used
from pairprobe.similarities.vocabulary import demand, lacking, languages, overlap, referred


@dataclass(frozen=True)
class Csls:
    """2 cos(a, b) − r(a) − r(b), r being a word's mean cosine with its k nearest reference words (Lample et al. 2018).

    r(a) is taken among reference words of b's language and r(b) among those of a's, where the reference has k of each
    language of the pairs; else among all. It lies between −4 and 4.

    k: neighbours; 10 as the authors have it. There must be as many reference words: the words of the run would be
    corrected by their own partners.
    """

    name: str = "csls"
    k: int = 10

    reads_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("similarity.csls.k", self.k, 1)

    def refuse(self, texts: Texts) -> StatisticsError | None:
        return lacking(self.name, texts, self.k, f"k={self.k} neighbours") or overlap(texts)

    def measure(self, vectors: Vectors, texts: Texts) -> Similarities:
        """One number per depth and pair. Raises StatisticsError for a vector without length, or not finite."""
        demand(self.refuse(texts))
        hoods, of = self._neighbourhoods(texts)
        found = []
        for values, depth in zip(vectors.values, vectors.depths, strict=True):
            rows = Rows(values)
            cosine = cosines(rows, texts, depth)
            near = self._nearness(rows, texts, hoods, of, depth)
            found.append(settled(2 * cosine - (near[texts.a, of[texts.b]] + near[texts.b, of[texts.a]])))
        vocabulary = referred(texts)
        split = "of the partner's language" if len(hoods) > 1 else "of all"
        about = f"2 cosine less each word's mean cosine with its {self.k} nearest, {split}, among {vocabulary.said}"
        return Similarities(self.name, np.stack(found), vectors.depths, about, vocabulary.name)

    def _neighbourhoods(self, texts: Texts) -> tuple[list[IntArray], IntArray]:
        """Reference words by language, and for each text int [texts] which of these its partner's neighbours are
        taken from."""
        asked = list(dict.fromkeys(texts.texts[int(i)].word.lang for i in used(texts)))
        counts = languages(texts, texts.reference)
        if len(asked) < 2 or any(not lang or counts[lang] < self.k for lang in asked):
            return [texts.reference], np.zeros(len(texts), dtype=np.int64)
        of = np.array([asked.index(t.word.lang) if t.word.lang in asked else -1 for t in texts.texts])
        return [texts.reference[of[texts.reference] == i] for i in range(len(asked))], of

    def _nearness(self, rows: Rows, texts: Texts, hoods: list[IntArray], of: IntArray, depth: int) -> Array:
        """float64 [texts, neighbourhoods]: mean cosine with the k nearest of each, NaN where nobody asks."""
        paired = used(texts)
        lengths = lengths_of(rows, texts, np.union1d(paired, texts.reference), depth)
        near = np.full((len(texts), len(hoods)), np.nan)
        for number, hood in enumerate(hoods):
            asking = np.union1d(texts.a[of[texts.b] == number], texts.b[of[texts.a] == number])
            # the k largest seen so far, so that neither words × reference nor reference × width is held whole
            for mine in blocks(asking, rows.width):
                unit = rows(mine) / lengths[mine, None]
                best: npt.NDArray[np.float64] = np.empty((len(mine), 0))
                for part in blocks(hood, rows.width):
                    cosine = unit @ (rows(part) / lengths[part, None]).T
                    best = np.concatenate([best, cosine], axis=1)
                    if best.shape[1] > self.k:
                        best = np.partition(best, best.shape[1] - self.k, axis=1)[:, -self.k :]
                near[mine, number] = np.sort(best, axis=1).mean(axis=1)  # in an order that the blocks do not change
        return near
