"""The token X-ray: pieces as real tokenizers make them, Δ by fragmentation, what it changes, and the figure."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from groups import FAST, pair_set, similarities
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from pairprobe import archive
from pairprobe.evidence import FragmentedDelta, TokenXRay
from pairprobe.figures_tokens import LISTED, token_xray
from pairprobe.outcomes import DepthTest, GroupTest, Interval
from pairprobe.records import Pair, PairSet, Similarities, TokenisedText, Vectors, Word
from pairprobe.result import Evidence, Result
from pairprobe.texts import Template
from pairprobe.tokens import tokenise
from pairprobe.verdict import verdict
from pairprobe.xray import BYTES, ENOUGH, fragmentation, parts, reading, xray


def compared(similarity: Similarities, pairs: PairSet) -> dict[str, GroupTest]:
    """How the runner compares groups, by control."""
    return {control: test for (_, control), test in FAST.tests([similarity], pairs).items()}


def tokenised(tokenizer: Tokenizer, text: str) -> TokenisedText:
    found = tokenizer.encode(text)
    ids = np.array(found.ids)
    none = np.zeros(len(ids), dtype=bool)
    return TokenisedText(ids, tuple(found.tokens), np.array(found.offsets), ~none, none, none.copy())


def fast(tokenizer: Tokenizer):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def byte_level() -> Tokenizer:
    """Every byte a piece, and 'he' joined."""
    vocabulary = {c: i for i, c in enumerate([*BYTES, "he", "ĠÃ"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("h", "e"), ("Ġ", "Ã")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Pieces of letters; what is none of them becomes <0x..> bytes."""
    names = [f"<0x{b:02X}>" for b in range(256)]
    vocabulary = {c: i for i, c in enumerate(["[UNK]", *names, "w", "e", "é"])}
    return Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="[UNK]"))


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_letters_of_bytes_are_those_of_the_tokenizers_library():
    assert set(BYTES) == set(pre_tokenizers.ByteLevel.alphabet())
    for c, b in [("A", 0x41), ("Ġ", 0x20), ("Ċ", 0x0A), ("Ã", 0xC3), ("ÿ", 0xFF), ("Ń", 0xAD)]:
        assert BYTES[c] == b
    assert sorted(BYTES.values()) == list(range(256))


def test_byte_level_pieces_that_are_parts_of_characters():
    one = tokenised(byte_level(), "he轮 é")
    byte, shown = parts(one, "he轮 é")
    assert one.pieces == ("he", "è", "½", "®", "ĠÃ", "©")
    assert byte.tolist() == [False, True, True, True, True, True]
    assert shown == ["he", "E8", "BD", "AE", "20 C3", "A9"]


def test_byte_fallback_pieces():
    byte, shown = parts(tokenised(byte_fallback(), "we轮é"), "we轮é")
    assert byte.tolist() == [False, False, True, True, True, False]
    assert shown == ["w", "e", "E8", "BD", "AE", "é"]


def test_whole_characters_are_read_as_such_though_a_byte_level_tokenizer_writes_them_otherwise():
    vocabulary = {c: i for i, c in enumerate([*BYTES, "Ã©"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ã", "©")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte, shown = parts(tokenised(tokenizer, "été"), "été")
    assert not byte.any()
    assert shown == ["é", "t", "é"]


def test_an_accent_split_off_by_a_normaliser_is_a_character_of_its_own():
    tokenizer = Tokenizer(models.WordLevel({"e": 0, "\u0301": 1, "é": 2, "[UNK]": 3}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFD()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    one = tokenised(tokenizer, "é")
    assert len(one) == 2
    assert not parts(one, "é")[0].any()
    # a letter that is a byte to a byte-level tokenizer is itself to another
    tokenizer.normalizer = normalizers.NFC()
    byte, shown = parts(tokenised(tokenizer, "é"), "é")
    assert (byte.tolist(), shown) == ([False], ["é"])


# ── pair by pair ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def measured() -> tuple[PairSet, Result]:
    """Two cognates and two controls through a byte-level tokenizer, norms of tokens measured at two depths."""
    pairs = PairSet(
        "set",
        (
            Pair("c1", "cognate", Word("he"), Word("he轮")),
            Pair("c2", "cognate", Word("a"), Word("b")),
            Pair("k1", "control", Word("he"), Word("c")),
            Pair("k2", "control", Word("é"), Word("轮")),
        ),
        "here",
    )
    texts = Template(pattern="{word}").write(pairs)
    tokens = tokenise(fast(byte_level()), texts)
    rng = np.random.default_rng(0)
    norms = [np.ones((2, len(t)), dtype=np.float32) for t in tokens.of]
    norms[0][0, 0] = 50  # the first text's token is a sink at depth 3, and no more at depth 5
    norms[0][1, 0] = 2
    values = rng.normal(size=(2, len(texts), 4)).astype(np.float32)
    vectors = Vectors(values, (3, 5), "float32", token_norms=tuple(norms))
    similarity = similarities(np.array([[0.1, 0.2], [0.3, 0.5]]), np.array([[0.1, 0.2], [0.1, 0.3]]), (3, 5))
    test = compared(similarity, pairs)["control"]
    flags = tuple(n > 10 for n in norms)
    found = xray(tokens, vectors, pairs, similarity, "control", 5, compared, flags)
    result = Result(
        texts, tokens, None, vectors, None, pairs, {"cosine": similarity}, {("cosine", "control"): test},
        verdict(test, pairs, -1), Evidence(xray=found),
    )  # fmt: skip
    return pairs, result


def test_every_pair_has_both_words_tokens_beside_its_similarity(measured):
    _, result = measured
    found = result.evidence.xray
    assert [p.pair_id for p in found.pairs] == ["c1", "c2", "k1", "k2"]
    assert [p.similarity for p in found.pairs] == [0.3, 0.5, 0.1, 0.3]
    assert [p.pieces for p in found.pairs] == [5, 2, 2, 5]
    first = found.pairs[0]
    assert first.b.pieces == ("he", "è", "½", "®")
    assert first.b.shown == ("he", "E8", "BD", "AE")
    assert first.b.byte == (False, True, True, True)
    assert first.b.shared == (True, False, False, False)
    assert first.shared == ("he",)
    assert found.pairs[1].shared == ()
    # 'é' and '轮' are bytes alone, none of them common
    assert found.pairs[3].a.byte == (True, True)
    assert found.pairs[3].shared == ()
    assert first.a.norms == (2.0,)
    assert first.a.sinks == (True,)  # it was one before the primary depth
    assert found.pairs[1].a.sinks == (False,)
    assert (found.similarity, found.control, found.depth) == ("cosine", "control", 5)


def test_without_norms_nothing_is_said_of_sinks(measured):
    pairs, result = measured
    vectors = dataclasses.replace(result.vectors, token_norms=None)
    found = xray(result.tokens, vectors, pairs, result.similarities["cosine"], "control", 5, compared)
    assert found.pairs[0].a.norms is None
    assert found.pairs[0].a.sinks is None


def test_the_table_has_a_row_per_pair_with_every_similarity(measured):
    _, result = measured
    other = Similarities("centred", np.arange(8.0).reshape(2, 4), (3, 5))
    rows = archive.xray_rows(dataclasses.replace(result, similarities={**result.similarities, "centred": other}))
    assert [r["pair_id"] for r in rows] == ["c1", "c2", "k1", "k2"]
    assert rows[0]["read_as_b"] == "he | E8 | BD | AE"
    assert rows[0]["parts_of_characters_b"] == 3
    assert rows[0]["shared"] == "he"
    assert rows[0]["sinks_a"] == 1
    assert rows[0]["norms_a"] == "2"
    assert [r["centred"] for r in rows] == [4.0, 5.0, 6.0, 7.0]
    assert [r["cosine"] for r in rows] == [0.3, 0.5, 0.1, 0.3]


# ── Δ by fragmentation ───────────────────────────────────────────────────────────────────────────────────


def broken(n: int, m: int, pieces, values):
    pairs = pair_set(n, m)
    found, level = fragmentation(
        np.array(pieces), pairs, Similarities("cosine", np.array([values], float), (0,)), "control", 0, compared
    )
    assert level == FAST.confidence
    return found


def test_delta_by_pieces_by_hand():
    # five and five pairs of 2 pieces, five and five of 3
    cognate = [*(0.6 + 0.01 * np.arange(5)), *(0.3 + 0.01 * np.arange(5))]
    control = [*(0.5 + 0.02 * np.arange(5)), *(0.4 + 0.02 * np.arange(5))]
    two, three = broken(10, 10, [2] * 5 + [3] * 5 + [2] * 5 + [3] * 5, cognate + control)
    assert (two.pieces, two.n_cognate, two.n_control) == ("2", 5, 5)
    assert two.delta == pytest.approx(0.62 - 0.54)
    assert three.delta == pytest.approx(0.32 - 0.44)
    assert two.delta in two.ci
    assert three.ci.high < 0 < two.ci.low


def test_neighbouring_numbers_are_joined_until_both_groups_have_enough():
    rng = np.random.default_rng(0)
    cognate = [2] * 4 + [3] + [4] * 6 + [9]
    control = [2] * 9 + [4] * 2 + [5] * 4 + [7]
    found = broken(len(cognate), len(control), cognate + control, rng.normal(size=len(cognate) + len(control)))
    # 2–3: 5 and 9; 4–5: 6 and 6; 7 and 9 alone are too few, and join those before
    assert [(b.pieces, b.n_cognate, b.n_control) for b in found] == [("2–3", 5, 9), ("4–9", 7, 7)]


def test_where_even_all_pairs_are_too_few_delta_is_undefined():
    (only,) = broken(10, 4, [*range(2, 12), 3, 4, 5, 30], np.linspace(0, 1, 14))
    assert only == FragmentedDelta("2–30", 10, 4, None, None)
    assert ENOUGH > 4


def test_there_are_at_most_as_many_bins_as_can_be_read():
    rng = np.random.default_rng(1)
    found = broken(600, 300, rng.integers(2, 40, 900), rng.normal(size=900))
    assert 3 <= len(found) <= 6
    assert sum(b.n_cognate for b in found) == 600
    assert sum(b.n_control for b in found) == 300


def overall(delta: float, low: float, high: float) -> DepthTest:
    return DepthTest(0, 0.5, 0.5 - delta, 0.1, 0.1, delta, Interval(low, high), *[None] * 6)


def xrayed(*bins: FragmentedDelta) -> TokenXRay:
    return TokenXRay("cosine", "control", 0, (), bins)


def test_intervals_that_lie_apart_are_told():
    said = reading(
        xrayed(
            FragmentedDelta("2", 9, 9, 0.2, Interval(0.1, 0.3)),
            FragmentedDelta("3", 9, 9, 0.1, Interval(-0.1, 0.3)),
            FragmentedDelta("4–9", 9, 9, -0.1, Interval(-0.2, 0.0)),
        ),
        overall(0.07, 0.0, 0.14),
    )
    assert said == (
        "Δ hangs on how far words are broken up: −0.100 [−0.200, +0.000] where a pair has 4–9 pieces, "
        "+0.200 [+0.100, +0.300] where it has 2."
    )


def test_a_difference_that_is_one_of_pieces_is_told():
    # Simpson: within equally broken pairs 0.01 and 0.03, weighted 4 · 16 / 20 = 3.2 each: 0.02; in all 0.2
    bins = xrayed(
        FragmentedDelta("2", 16, 4, 0.01, Interval(-0.1, 0.1)), FragmentedDelta("3", 4, 16, 0.03, Interval(-0.1, 0.1))
    )
    assert reading(bins, overall(0.2, 0.1, 0.3)) == (
        "Among pairs broken into as many pieces Δ is +0.020, not +0.200: one group has more pieces than the other."
    )
    assert reading(bins, overall(0.05, 0.0, 0.1)) == ""


def test_one_bin_or_bins_that_agree_change_nothing():
    one = FragmentedDelta("2", 9, 9, 0.9, Interval(0.8, 1.0))
    assert reading(xrayed(one), overall(0.1, 0.0, 0.2)) == ""
    assert reading(xrayed(one, FragmentedDelta("3", 3, 9, None, None)), overall(0.1, 0.0, 0.2)) == ""
    assert reading(xrayed(one, one), overall(0.9, 0.8, 1.0)) == ""


# ── figure ───────────────────────────────────────────────────────────────────────────────────────────────


def test_few_pairs_are_drawn_one_by_one_and_many_summed_up(measured, tmp_path: Path):
    found = measured[1].evidence.xray
    sizes = {}
    many = tuple(dataclasses.replace(p, pair_id=f"{p.pair_id}{i}") for i in range(80) for p in found.pairs)
    for name, pairs in (("few", found.pairs), ("most", many[:LISTED]), ("many", many)):
        with Image.open(token_xray(dataclasses.replace(found, pairs=pairs), tmp_path / f"{name}.png")) as image:
            sizes[name] = image.size
            assert len(image.convert("L").getcolors(256) or []) > 10  # not blank
    assert sizes["most"][1] > 4 * sizes["few"][1]  # a row a pair
    assert sizes["many"][1] < sizes["most"][1] / 2


def test_what_a_piece_is_can_be_told_without_colour(measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    from matplotlib import patches

    class Seen(patches.Rectangle):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            if kwargs.get("zorder") == 2:  # a piece's box; others are the axes'
                drawn.append((kwargs.get("linestyle", "-"), self.get_linewidth(), self.get_hatch()))

    monkeypatch.setattr(patches, "Rectangle", Seen)
    found = measured[1].evidence.xray
    word = dataclasses.replace(found.pairs[0].b, unknown=(False, False, False, True))
    token_xray(dataclasses.replace(found, pairs=(dataclasses.replace(found.pairs[0], b=word),)), tmp_path / "x.png")
    plain, shared, part, unknown = ("-", 0.9, None), ("-", 2.4, None), (":", 0.9, None), ("--", 0.9, "////")
    assert drawn == [shared, shared, part, part, unknown]
    assert plain not in drawn
