"""Spelling, tokens, length, script and frequency of pairs, worked by hand."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from cldf_files import small, write

from pairprobe import covariates
from pairprobe.covariates import edit_distance, edit_distances, graphemes, script, standardised
from pairprobe.pairs.cldf import Cldf
from pairprobe.pairs.forms import Cleaning
from pairprobe.records import COGNATE, Balance, Pair, PairSet, Text, Texts, TokenisedText, Tokens, Word


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        ("*kʷel-", ["kʷ", "e", "l"]),  # a labiovelar is one sound; the asterisk and the hyphen are none
        ("kʷʰaː", ["kʷʰ", "aː"]),
        ("a:", ["a:"]),
        ("rˤeŋʔ", ["rˤ", "e", "ŋ", "ʔ"]),  # pharyngealised r; the glottal stop is a letter
        ("C.ŋˤaʔ", ["c", "ŋˤ", "a", "ʔ"]),  # the dot parts syllables
        ("*h₂ster-", ["h₂", "s", "t", "e", "r"]),  # never NFKC: a subscript is not a digit
        ("*wódr̥", ["w", "ó", "d", "r̥"]),
        ("wo\u0301d", ["w", "ó", "d"]),  # decomposed or not is the same spelling
        ("t͡sa", ["t͡s", "a"]),  # tied: an affricate
        ("t͡sʰa", ["t͡sʰ", "a"]),
        ("ˈtʃu", ["t", "ʃ", "u"]),  # untied: nobody can know; stress is no sound
        ("ʦa", ["ʦ", "a"]),
        ("ⁿda", ["ⁿ", "d", "a"]),
        ("m̥ˤik", ["m̥ˤ", "i", "k"]),
        ("pʰa⁵¹", ["pʰ", "a", "⁵¹"]),  # a tone is one, and of its own
        ("pa˥˩ta˥", ["p", "a", "˥˩", "t", "a", "˥"]),
        ("iâň′âi", ["i", "â", "ň′", "â", "i"]),
        ("b'u", ["b'", "u"]),
        ("(ge)hen", ["g", "e", "h", "e", "n"]),
        ("gru(e)", ["g", "r", "u", "e"]),
        ("Straße", ["s", "t", "r", "a", "ß", "e"]),
        ("λόγος", ["λ", "ό", "γ", "ο", "σ"]),
        ("पनि", ["प", "नि"]),
        ("क्\u200dष", ["क्", "ष"]),  # a joiner is only about how it looks
        ("母", ["母"]),
        ("7amam", ["7", "a", "m", "a", "m"]),  # a digit may be a letter, as in chat Arabic
        ("*-", ["*", "-"]),  # nothing else in it
        ("", []),
    ],
)
def test_graphemes(form: str, parts: list[str]) -> None:
    assert list(graphemes(form)) == parts


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("hand", "Hand", 0.0),
        ("hound", "Hund", 1 / 5),
        ("kitten", "sitting", 3 / 7),
        ("water", "Wasser", 2 / 6),  # a letter put in, t for s
        ("*kʷel-", "kʷel", 0.0),
        ("kʷel", "kel", 1 / 3),  # kʷ is one grapheme, exchanged for k
        ("rˤeŋʔ", "reŋ", 2 / 4),
        ("pa⁵⁵", "pa⁵¹", 1 / 3),
        ("é", "e\u0301", 0.0),
        ("abc", "xyz", 1.0),
        ("r̥", "r", 1.0),  # one grapheme for another, not one mark of two characters
        ("", "", 0.0),
        ("", "ab", 1.0),
    ],
)
def test_edit_distance(a: str, b: str, distance: float) -> None:
    assert edit_distance(a, b) == pytest.approx(distance)
    assert edit_distance(b, a) == edit_distance(a, b)
    assert edit_distances([a], [b])[0, 0] == edit_distance(a, b)


def test_a_grid_of_distances_is_the_plain_recursion() -> None:
    def levenshtein(x: tuple[str, ...], y: tuple[str, ...]) -> int:
        row = list(range(len(y) + 1))
        for i, left in enumerate(x, start=1):
            above, row = row, [i]
            for j, right in enumerate(y, start=1):
                row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
        return row[-1]

    rng = random.Random(5)
    words = ["".join(rng.choices(["a", "kʷ", "h₂", "t͡s", "ɨ"], k=rng.randint(1, 7))) for _ in range(15)]
    found = edit_distances(words[:7], words[7:])
    for i, a in enumerate(words[:7]):
        for j, b in enumerate(words[7:]):
            x, y = graphemes(a), graphemes(b)
            assert found[i, j] == pytest.approx(levenshtein(x, y) / max(len(x), len(y)))


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


# ── balance ──────────────────────────────────────────────────────────────────────────────────────────────


def counted(given: tuple[Balance, ...] = ()) -> tuple[PairSet, Tokens]:
    """Two cognate and two control pairs with 2, 4 and 1, 1 tokens in their first words; 1 in their second ones."""
    words = [Word(f) for f in ("ab", "ab", "cd", "ce", "f", "g", "hij", "k")]
    groups = (COGNATE, COGNATE, "control", "control")
    pairs = tuple(Pair(str(i), g, words[2 * i], words[2 * i + 1]) for i, g in enumerate(groups))
    index = np.arange(8)
    texts = Texts(tuple(Text(w.form, 0, len(w.form), w) for w in words), index[::2], index[1::2], "{word}")
    ids = ((1, 2), (1,), (3, 4, 5, 6), (7,), (8,), (9,), (8,), (8,))
    return PairSet("s", pairs, "here", balance=given), Tokens(texts, tuple(tokenised(*i) for i in ids), "T")


def test_balance_is_of_the_runs_own_pairs_and_tokens() -> None:
    found = {b.covariate: b for b in covariates.balance(*counted())}
    assert list(found) == ["graphemes a", "graphemes b", "edit distance", "tokens a", "tokens b", "shared tokens"]
    a = found["tokens a"]
    assert (a.control, a.cognate_mean, a.control_mean, a.before) == ("control", 3.0, 1.0, None)
    assert a.after == pytest.approx(2.0)  # s² are 2 and 0: (3 − 1) / √((2 + 0) / 2)
    assert found["tokens b"].after is None  # nobody varies
    shared = found["shared tokens"]
    # 1/2, 0 and 0, 1: s² are 1/8 and 1/2
    assert shared.after == pytest.approx((0.25 - 0.5) / math.sqrt((1 / 8 + 1 / 2) / 2))
    assert [b.covariate for b in covariates.balance(counted()[0])] == ["graphemes a", "graphemes b", "edit distance"]


def test_what_was_before_is_the_sets_own_and_of_tokens_only_where_it_counted_the_same() -> None:
    same = Balance("control", "tokens a", 3.0, 1.0, -1.5, 2.0)
    other = Balance("control", "tokens b", 2.0, 1.0, -1.5, 2.0)  # another tokenizer: our words have one token each
    letters = Balance("control", "graphemes a", 9.0, 9.0, 0.7, 0.0)  # some pairs were left out since
    found = {b.covariate: b.before for b in covariates.balance(*counted((same, other, letters)))}
    assert (found["tokens a"], found["tokens b"], found["graphemes a"]) == (-1.5, None, 0.7)
    assert found["edit distance"] is None


def test_what_a_set_is_matched_in_is_exactly_what_its_run_reports_and_adjusts_for(tmp_path: Path) -> None:
    letters = ("kʷʰ", "qˤ", "h₂", "t͡s", "aː", "C.", "ŋ", "ʔ", "e", "o")
    tables = small(30)
    for i, row in enumerate(tables["FormTable"]):
        row["Form"] = "".join(letters[(7 * i + k * k + i // 9) % 10] for k in range(2 + i % 4)) + row["Form"]
    keep = Cleaning(boundaries="keep")
    pairs = Cldf(path=str(write(tmp_path / "w", tables)), side_a=["L1"], side_b=["R1"], fewest=3, reference=0,
                 clean=keep).read()  # fmt: skip
    assert any("ˤ" in w.form for p in pairs.pairs for w in (p.a, p.b))
    assert {(b.control, b.covariate): b.after for b in covariates.balance(pairs)} == {
        (b.control, b.covariate): b.after for b in pairs.balance
    }
    far = covariates.of_pairs(pairs)[0].values
    for b in (b for b in pairs.balance if b.covariate == "edit distance"):
        (after,) = standardised(far[pairs.members(COGNATE)][:, None], far[pairs.members(b.control)][:, None])
        assert after == b.after
