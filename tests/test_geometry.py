"""The space of the vectors: random couples, the dimensions behind their cosine, and sinks, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pairprobe.errors import StatisticsError
from pairprobe.geometry import COUPLES, couples, flagged, geometry, sentence, sinks
from pairprobe.records import Text, Texts, Vectors, Word


def texts_of(n: int, *pairs: tuple[int, int]) -> Texts:
    a, b = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    return Texts(tuple(Text(f"w{i}", 0, 2, Word(f"w{i}")) for i in range(n)), a, b, "bare")


def vectors_of(*depths, token_norms=None) -> Vectors:
    values = np.array(depths, dtype=np.float32)
    return Vectors(values, tuple(range(len(values))), "float32", token_norms=token_norms)


# ── couples ──────────────────────────────────────────────────────────────────────────────────────────────


def test_couples_are_all_of_first_and_second_words_but_pairs():
    # first words 0, 2, 4 and second words 1, 3, 5: nine couples less the three pairs
    x, y = couples(texts_of(6, (0, 1), (2, 3), (4, 5)), seed=0)
    assert sorted(zip(x.tolist(), y.tolist(), strict=True)) == [(0, 3), (0, 5), (2, 1), (2, 5), (4, 1), (4, 3)]


def test_a_couple_counts_once_whichever_word_stands_first():
    # 0 and 1 stand on both sides; 0–1 is a pair, so 0–2 (a pair), 1–2 and nothing twice are left
    x, y = couples(texts_of(3, (0, 1), (1, 0), (0, 2)), seed=0)
    assert sorted(zip(x.tolist(), y.tolist(), strict=True)) == [(1, 2)]


@pytest.mark.parametrize("n", [100, 1000])  # listed, and too many to list
def test_of_many_couples_some_are_drawn_by_the_seed(n):
    texts = texts_of(2 * n, *((i, n + i) for i in range(n)))
    x, y = couples(texts, seed=1)
    assert len(x) == COUPLES
    assert len({*zip(x.tolist(), y.tolist(), strict=True)}) == COUPLES
    assert not any(v == u + n for u, v in zip(x, y, strict=True))  # none of the pairs
    # every first word is as likely as another: chi-squared over tenths of them, far from a one-sided choice
    assert stats.chisquare(np.bincount(x * 10 // n, minlength=10)).pvalue > 1e-4
    np.testing.assert_array_equal(couples(texts, seed=1)[0], x)
    assert (couples(texts, seed=2)[0] != x).any()


def test_where_every_word_is_paired_with_every_other_there_is_nothing_to_say():
    texts = texts_of(4, (0, 2), (0, 3), (1, 2), (1, 3))
    assert geometry(vectors_of([[1, 0]] * 4), texts, 0) is None


# ── cosines and dimensions ───────────────────────────────────────────────────────────────────────────────


def test_random_cosine_and_the_share_of_three_dimensions_by_hand():
    # couples (0, 3) and (2, 1). (3,0,0,4,0) with itself: 9/25 + 16/25 = 1; (0,1,0,0,0) with (0,3,0,0,4): 3/5
    v = [[3, 0, 0, 4, 0], [0, 3, 0, 0, 4], [0, 1, 0, 0, 0], [6, 0, 0, 8, 0]]
    found = geometry(vectors_of(v), texts_of(4, (0, 1), (2, 3)), 0)
    at = found.depths[0]
    assert found.n == 2
    assert at.random_cosine == pytest.approx(0.8)
    assert at.random_cosine_sd == pytest.approx(np.std([1, 0.6], ddof=1))
    # contributions to the mean: dimension 0: .36/2, 1: .6/2, 3: .64/2; all of 0.8
    assert at.top3_share == pytest.approx(1.0)
    assert at.norm == pytest.approx(5.0)  # of 5, 5, 1, 10
    assert at.largest_norm == pytest.approx(10.0)
    assert at.sinks is None


def test_the_share_of_isotropic_dimensions_is_three_of_the_width():
    # all vectors (1, …, 1): every one of 12 dimensions makes a twelfth of cosine 1
    found = geometry(vectors_of(np.ones((6, 12))), texts_of(6, (0, 1), (2, 3), (4, 5)), 0)
    assert found.depths[0].top3_share == pytest.approx(3 / 12)
    assert found.depths[0].random_cosine == pytest.approx(1.0)
    assert found.depths[0].random_cosine_sd == pytest.approx(0.0, abs=1e-12)


def test_a_rogue_dimension_makes_unrelated_words_alike_and_is_told():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(200, 64))
    v[:, 7] += 20  # cosine of two such: about 400 / (400 + 64 + 1)
    found = geometry(vectors_of(rng.normal(size=(200, 64)), v), texts_of(200, *((i, i + 100) for i in range(100))), 0)
    plain, rogue = found.depths
    assert abs(plain.random_cosine) < 0.02  # five times 1 / √(64 · 2000), roughly
    assert rogue.random_cosine == pytest.approx(400 / 464, abs=0.02)
    assert rogue.top3_share == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("vectors", "mean"),
    [
        ([[1, 0], [1, 0], [0, 1], [0, 1]], 0.0),  # (0, 3) and (2, 1) stand at right angles
        ([[1, 0], [0, 1], [0, 1], [-1, 0]], 0.0),  # −1 and 1
        ([[1, 0], [0, -1], [0, 1], [-1, 0]], -1.0),
    ],
)
def test_no_share_of_a_cosine_that_is_not_above_zero(vectors, mean):
    at = geometry(vectors_of(vectors), texts_of(4, (0, 1), (2, 3)), 0).depths[0]
    assert at.random_cosine == pytest.approx(mean)
    assert at.top3_share is None


def test_words_without_length_have_no_cosine_but_no_run_dies_of_it():
    v = [[0, 0], [3, 4], [3, 4], [3, 4]]
    at = geometry(vectors_of(v, np.zeros((4, 2))), texts_of(4, (0, 1), (2, 3)), 0).depths
    assert at[0].random_cosine == pytest.approx(1.0)  # of (2, 1) alone
    assert at[0].random_cosine_sd is None
    assert at[1].random_cosine is None
    assert at[1].top3_share is None


def test_a_vector_that_is_not_finite_is_an_error_with_its_word_and_depth():
    v = np.ones((2, 4, 3))
    v[1, 2, 0] = np.nan
    with pytest.raises(StatisticsError, match="the vector of 'w2' at depth 1 holds NaN"):
        geometry(vectors_of(*v), texts_of(4, (0, 1), (2, 3)), 0)


def test_reference_words_are_in_no_couple():
    texts = texts_of(6, (0, 1), (2, 3))
    x, y = couples(Texts(texts.texts, texts.a, texts.b, "bare", np.array([4, 5])), 0)
    assert {*x.tolist(), *y.tolist()} == {0, 1, 2, 3}


# ── sinks ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sink_is_ten_times_the_lower_quartile():
    norms = np.array([1000.0, 20, 21, 22, 23, 199, 201])  # the lower quartile is 21.5
    usual = np.quantile(norms, 0.25)
    np.testing.assert_array_equal(sinks(norms), norms >= 10 * usual)
    assert sinks(norms).tolist() == [True, *[False] * 6]
    assert sinks(np.array([9.9, 1.0, 1.0, 1.0])).sum() == 0
    assert sinks(np.array([10.1, 1.0, 1.0, 1.0])).sum() == 1


def test_half_of_the_tokens_may_be_first_ones():
    assert sinks(np.array([900.0, 10.0] * 20)).tolist() == [True, False] * 20


def test_no_token_and_no_length_is_no_sink():
    assert sinks(np.zeros(0)).shape == (0,)
    assert not sinks(np.zeros(5)).any()
    assert not sinks(np.array([0, 0, 0, 5.0])).any()  # nothing usual to be compared with


def test_a_massive_activation_makes_a_sink():
    # one activation 1000 times the median one, as Sun et al. define it, in a state of width 1024
    rng = np.random.default_rng(0)
    states = rng.normal(size=(30, 1024))
    states[4, 100] = 1000 * np.median(np.abs(states[4]))
    found = sinks(np.linalg.norm(states, axis=1))
    assert np.flatnonzero(found).tolist() == [4]


def test_sinks_are_told_by_depth_and_only_where_they_were_pooled():
    norms = (
        np.array([[1, 1, 1], [90, 1, 1]], dtype=np.float32),
        np.array([[1, 1], [80, 1]], dtype=np.float32),
        np.array([[1, 1], [1, 1]], dtype=np.float32),
        np.array([[1, 1], [1, 1]], dtype=np.float32),
    )
    vectors = vectors_of(np.eye(4), np.eye(4), token_norms=norms)
    flags = flagged(vectors)
    assert flags[0].tolist() == [[False] * 3, [True, False, False]]
    assert flags[1].tolist() == [[False] * 2, [True, False]]
    pooled = [np.array([True] * 3), np.array([False, True]), np.array([True] * 2), np.array([True] * 2)]
    found = geometry(vectors, texts_of(4, (0, 1), (2, 3)), 0, pooled, flags)
    assert [d.sinks for d in found.depths] == [0, 1]  # the second text's first token was not pooled
    assert flagged(vectors_of(np.eye(4))) is None


# ── in words ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_sentence_for_people():
    found = geometry(vectors_of(np.ones((6, 12))), texts_of(6, (0, 1), (2, 3), (4, 5)), 0)
    assert sentence(found, 0, 12) == (
        "random pairs have cosine 1.00 (sd 0.00) at depth 0, 25 % of it from 3 of 12 dimensions"
    )
