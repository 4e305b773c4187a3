"""Every first word against every second one, through a similarity's own `measure`."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from pairprobe import matrices
from pairprobe.records import COGNATE, Pair, PairSet, Text, Texts, Vectors, Word
from pairprobe.similarities.centred import Centred
from pairprobe.similarities.cosine import Cosine
from pairprobe.statistics.group_tests import Statistics

S = Statistics(resamples=100, permutations=100)


def material(n: int, depths: int = 2, width: int = 8, langs: str = "y") -> tuple[PairSet, Texts, Vectors]:
    """n cognate pairs and two controls, texts in no order of use."""
    pairs = [
        Pair(
            f"p{i}", COGNATE if i < n else "control", Word(f"a{i}", lang="x"), Word(f"b{i}", lang=langs[i % len(langs)])
        )
        for i in range(n + 2)
    ]
    rng = np.random.default_rng(0)
    order = rng.permutation(2 * len(pairs))
    words = [w for p in pairs for w in (p.a, p.b)]
    texts: list[Text] = [Text("", 0, 0, words[0])] * len(words)
    for place, word in zip(order, words, strict=True):
        texts[place] = Text(word.form, 0, len(word.form), word)
    values = rng.normal(size=(depths, len(words), width)).astype(np.float32)
    return (
        PairSet("s", tuple(pairs), "here"),
        Texts(tuple(texts), order[::2], order[1::2], "{word}"),
        Vectors(values, tuple(range(depths)), "float32"),
    )


@pytest.mark.parametrize("at_once", [matrices.AT_ONCE, 7 * 8 * 8])
def test_the_matrix_is_scikit_learns_cosine_whatever_the_parts(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "AT_ONCE", at_once)
    pairs, texts, vectors = material(6)
    tests, matrix = matrices.partners(S, [Cosine(), Centred()], vectors, texts, pairs)
    assert matrix is not None
    assert [p.id for p in matrix.pairs] == [f"p{i}" for i in range(6)]
    for depth in range(2):
        v = vectors.values[depth].astype(np.float64)
        known = cosine_similarity(v[texts.a[:6]], v[texts.b[:6]])
        assert matrix.values["cosine"][depth] == pytest.approx(known)
        v = v - v.mean(axis=0)  # of all texts of the run, controls among them: as the pairs' own similarities
        assert matrix.values["centred"][depth] == pytest.approx(cosine_similarity(v[texts.a[:6]], v[texts.b[:6]]))
    measured = Cosine().measure(vectors, texts).values
    assert tests["cosine"].depths[1].own == pytest.approx(measured[1, :6].mean())
    assert list(tests) == ["cosine", "centred"]


def test_cells_of_other_languages_are_asked_only_where_the_matrix_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Counting(Cosine):
        def measure(self, vectors, texts):
            asked.append(len(texts.a))
            return super().measure(vectors, texts)

    pairs, texts, vectors = material(8, langs="yz")
    whole, matrix = matrices.partners(S, [Counting()], vectors, texts, pairs)
    assert sum(asked) == 64
    assert matrix is not None
    assert np.isfinite(matrix.values["cosine"]).all()
    asked.clear()
    monkeypatch.setattr(matrices, "KEPT", 10)
    part, matrix = matrices.partners(S, [Counting()], vectors, texts, pairs)
    assert matrix is None
    assert sum(asked) == 32
    assert part == whole


def test_work_is_bounded_whatever_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Counting(Cosine):
        def measure(self, vectors, texts):
            asked.append(len(texts.a))
            return super().measure(vectors, texts)

    monkeypatch.setattr(matrices, "WORK", 2 * 8 * 3000)
    pairs, texts, vectors = material(120)
    tests, _ = matrices.partners(S, [Counting()], vectors, texts, pairs)
    assert sum(asked) <= 3000
    assert tests["cosine"].words == 120
    assert tests["cosine"].candidates < 30


def test_without_vectors_there_is_no_partner_question() -> None:
    pairs, _, _ = material(6)
    assert matrices.partners(S, [Cosine()], None, None, pairs) == ({}, None)
