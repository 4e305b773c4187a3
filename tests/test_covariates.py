"""Spelling, tokens, length, script and frequency of pairs, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pairprobe import covariates
from pairprobe.covariates import edit_distance, graphemes, script
from pairprobe.records import COGNATE, Pair, PairSet, Text, Texts, TokenisedText, Tokens, Word


@pytest.mark.parametrize(
    ("form", "clusters"),
    [
        ("*kʷel-", ("k", "ʷ", "e", "l")),  # the asterisk and the hyphen are no sounds
        ("*wódr̥", ("w", "ó", "d", "r̥")),  # a ring below belongs to its letter
        ("wo\u0301d", ("w", "ó", "d")),  # decomposed or not is the same spelling
        ("t\u0361sar", ("t\u0361", "s", "a", "r")),
        ("Wasser", tuple("wasser")),
        ("h₂ster", ("h", "₂", "s", "t", "e", "r")),  # never NFKC: a subscript is not a digit
        ("(ge)hen", tuple("gehen")),
        ("b'u", ("b", "'", "u")),  # an apostrophe may be a sound
        ("a˥˩", ("a", "˥", "˩")),  # tone letters
        ("क्षि", ("क्", "षि")),
        ("母", ("母",)),
        ("*-", ("*", "-")),  # nothing else in it
        ("", ()),
    ],
)
def test_graphemes(form: str, clusters: tuple[str, ...]) -> None:
    assert graphemes(form) == clusters


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("kitten", "sitting", 3 / 7),
        ("water", "Wasser", 2 / 6),  # a letter put in, t for s
        ("*kʷel-", "kʷel", 0.0),
        ("abc", "xyz", 1.0),
        ("r̥", "r", 1.0),  # one cluster for another, not one mark of two characters
        ("", "", 0.0),
        ("", "ab", 1.0),
    ],
)
def test_edit_distance(a: str, b: str, distance: float) -> None:
    assert edit_distance(a, b) == pytest.approx(distance)
    assert edit_distance(b, a) == edit_distance(a, b)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("*kʷel-", "LATIN"), ("χολή", "GREEK"), ("вода", "CYRILLIC"), ("母", "CJK"), ("물", "HANGUL"),
        ("みず", "HIRAGANA"), ("ｱ", "KATAKANA"), ("मातृ", "DEVANAGARI"), ("𐎠", "OLD PERSIAN"), ("ཆུ", "TIBETAN"),
        ("ɸβater", "LATIN"), ("123", ""), ("", ""),
    ],
)  # fmt: skip
def test_script(form: str, name: str) -> None:
    assert script(form) == name


def tokenised(*ids: int) -> TokenisedText:
    """The ids between two special tokens."""
    n = len(ids) + 2
    inside = np.array([False] + [True] * len(ids) + [False])
    return TokenisedText(
        np.array([101, *ids, 102]),
        ("x",) * n,
        np.zeros((n, 2), dtype=np.int64),
        inside,
        ~inside,
        np.zeros(n, dtype=bool),
    )


def test_of_pairs_by_hand() -> None:
    words = [Word("abc"), Word("abd"), Word("母"), Word("mat")]
    pairs = PairSet(
        "s", (Pair("1", COGNATE, words[0], words[1]), Pair("2", "control", words[3], words[2])), "here"
    )  # fmt: skip
    texts = Texts(tuple(Text(w.form, 0, len(w.form), w) for w in words), np.array([0, 3]), np.array([1, 2]), "{word}")
    tokens = Tokens(texts, (tokenised(1, 2, 2), tokenised(2, 3), tokenised(9), tokenised(8)), "T")
    found = {c.name: c for c in covariates.of_pairs(pairs, tokens)}
    assert list(found) == ["edit distance", "tokens", "shared tokens", "length", "same script"]
    assert found["edit distance"].values.tolist() == pytest.approx([1 / 3, 1.0])
    assert found["tokens"].values.tolist() == [5, 2]
    assert found["shared tokens"].values.tolist() == pytest.approx([1 / 3, 0.0])  # {2} of {1, 2, 3}
    assert found["length"].values.tolist() == [6, 4]
    assert found["same script"].values.tolist() == [1, 0]
    assert found["same script"].binary
    assert [c.name for c in covariates.of_pairs(pairs)] == ["edit distance", "length", "same script"]


def test_frequencies_are_averaged_as_logarithms_and_zero_is_half_the_smallest() -> None:
    pairs = PairSet(
        "s",
        (
            Pair("1", COGNATE, Word("a", frequency=100.0), Word("b", frequency=4.0)),
            Pair("2", "control", Word("c", frequency=0.0), Word("d", frequency=4.0)),
        ),
        "here",
    )
    found = covariates.of_pairs(pairs)[-1]
    assert found.name == "frequency"
    assert found.values.tolist() == pytest.approx([math.log(20.0), math.log(math.sqrt(8.0))])


def test_a_frequency_that_is_missing_somewhere_is_said_so() -> None:
    pairs = PairSet(
        "s",
        (
            Pair("1", COGNATE, Word("a", frequency=1.0), Word("b", frequency=1.0)),
            Pair("2", "control", Word("c", frequency=1.0), Word("d")),
        ),
        "here",
    )
    assert covariates.of_pairs(pairs)[-1].missing == "known for both words in 1 of 2 pairs only"


def test_frequency_is_part_of_the_pairs_hash_only_where_it_is_given() -> None:
    bare = PairSet("s", (Pair("1", COGNATE, Word("a"), Word("b")),), "here")
    often = PairSet("s", (Pair("1", COGNATE, Word("a", frequency=1.0), Word("b")),), "here")
    assert bare.sha256 != often.sha256
