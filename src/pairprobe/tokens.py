"""Texts → tokens: ids, and which of them are the word's own, found by character offsets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pairprobe.errors import TokenError, at_least, one_of
from pairprobe.records import IntArray, PairSet, Texts, TokenisedText, Tokens

REASONS = ("empty", "unknown", "too_long", "identical")
NO_LIMIT = 10**9  # tokens


@dataclass(frozen=True)
class TokenRules:
    """What to do with words that cannot be measured as meant.

    exclude: pairs to leave out, by reason: `empty` (a word that becomes no token), `unknown` (a word that
    becomes only unknown pieces), `too_long` (a text longer than the model allows), `identical` (pairs whose two words
    become the same tokens, do and dö: that pair alone, not others with these words). Not excluded, `empty` and
    `too_long` are errors; `unknown` words and `identical` pairs are kept, counted and named.
    max_length: tokens a text may have; null takes what the model allows.
    """

    exclude: list[str] = field(default_factory=list)
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None:
            at_least("tokens.max_length", self.max_length, 1)
        for reason in self.exclude:
            one_of("tokens.exclude", reason, REASONS)

    def limit(self, *of_the_model: int | None) -> int | None:
        """The smallest limit that is set; tokenizers say 'none' with numbers no text can reach."""
        return min((n for n in (self.max_length, *of_the_model) if n and n < NO_LIMIT), default=None)


@dataclass(frozen=True)
class Findings:
    """What tokenising found in the pairs' texts. Each entry of the first three dicts: index of a text → why.

    unfit: the same for texts of the reference vocabulary that cannot be measured, whatever the reason: always left out.
    """

    empty: dict[int, str]
    unknown: dict[int, str]
    too_long: dict[int, str]
    sharing: int  # pairs whose two words have a token in common
    spilling: int  # texts in which a token of the word also covers characters outside it
    partly_unknown: int = 0  # texts whose word has unknown pieces among known ones
    identical: frozenset[int] = frozenset()  # indices of pairs whose two words become the same tokens
    unknown_around: int = 0  # texts with unknown pieces outside the word
    altered: dict[int, str] = field(default_factory=dict)  # words the tokenizer rewrote: 'form → what it became'
    unfit: dict[int, str] = field(default_factory=dict)

    @property
    def beware(self) -> tuple[str, ...]:
        """What must stand beside a verdict."""
        said = []
        if self.unknown or self.partly_unknown:
            reach = "reaches" if len(self.unknown) == 1 else "reach"
            said.append(
                f"{counted(len(self.unknown), 'word')} of the pairs {reach} the model as "
                f"unknown pieces alone and {self.partly_unknown} in part: it cannot tell them from others."
            )
        if not self.identical:
            return tuple(said)
        return (
            *said,
            f"in {counted(len(self.identical), 'pair')} both words become the same tokens: without a sentence around "
            "them their similarity is 1, whatever the model knows.",
        )

    def excluded(self, rules: TokenRules) -> set[int]:
        """Indices of texts that the rules leave out. Raises TokenError for what may not stay."""
        found = {"empty": self.empty, "unknown": self.unknown, "too_long": self.too_long}
        problems = [
            why for reason in ("empty", "too_long") if reason not in rules.exclude for why in found[reason].values()
        ]
        if problems:
            raise TokenError(
                problems[:20] + ([f"… and {len(problems) - 20} more."] if len(problems) > 20 else []),
                "Mend the words or the template, or leave their pairs out: tokens.exclude=[empty,too_long].",
            )
        return {index for reason in rules.exclude for index in found.get(reason, ())} | set(self.unfit)

    def alike(self, rules: TokenRules) -> frozenset[int]:
        """Indices of pairs that the rules leave out since their two words become the same tokens."""
        return self.identical if "identical" in rules.exclude else frozenset()


def counted(n: int, noun: str) -> str:
    """'1 word', '2 words'."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def tokenise(tokenizer: Any, texts: Texts) -> Tokens:
    """Tokenise every text with its special tokens, without padding or truncation.

    A token belongs to the word when its characters overlap the word's; a token that only covers the space
    before it does not.

    Args:
        tokenizer: a fast Hugging Face tokenizer (it must give character offsets).
        texts: what to tokenise.

    Raises:
        TokenError: the tokenizer gives no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TokenError(
            f"the tokenizer {type(tokenizer).__name__} gives no character offsets, so the word cannot be found "
            "among the tokens.",
            "Use a checkpoint with a tokenizer.json.",
        )
    encoded = tokenizer(
        [t.text for t in texts.texts],
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        add_special_tokens=True,
        padding=False,
        truncation=False,
        verbose=False,  # lengths are judged by our own rules, with the texts' names
    )
    of = []
    for text, ids, spans, special in zip(
        texts.texts,
        encoded["input_ids"],
        encoded["offset_mapping"],
        encoded["special_tokens_mask"],
        strict=True,
    ):
        offsets = np.array(spans, dtype=np.int64).reshape(-1, 2)
        marked = np.array(special, dtype=bool)
        ids = np.array(ids, dtype=np.int64)
        unknown = (
            ids == tokenizer.unk_token_id if tokenizer.unk_token_id is not None else np.zeros(len(ids), dtype=bool)
        )
        overlap = (np.maximum(offsets[:, 0], text.start) < np.minimum(offsets[:, 1], text.end)) & _not_blank(
            text.text, offsets, text.start, text.end
        )
        # Some tokenizers call the unknown piece special; it still stands for characters of the word.
        marked &= ~(unknown & (offsets[:, 1] > offsets[:, 0]))
        of.append(
            TokenisedText(
                ids=ids,
                pieces=tuple(tokenizer.convert_ids_to_tokens(ids.tolist())),
                spans=offsets,
                word=overlap & ~marked,
                special=marked,
                unknown=unknown,
            )
        )
    made_by = f"{type(tokenizer).__name__}, {len(tokenizer)} tokens"
    return Tokens(texts, tuple(of), made_by, _altered(tokenizer, texts), _parts(texts))


def _parts(texts: Texts) -> IntArray | None:
    """The reference vocabulary as a part of its own: what is measured of the pairs then stays the same, to the last
    bit, whether it is there or not."""
    if not len(texts.reference):
        return None
    parts = np.ones(len(texts), dtype=np.int64)
    parts[texts.a], parts[texts.b] = 0, 0
    return parts


def _altered(tokenizer: Any, texts: Texts) -> dict[int, str]:
    """Words that the tokenizer's normaliser rewrites (lower case, accents …), its marks for spaces left out."""
    normaliser = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if normaliser is None:
        return {}
    found = {}
    for index, text in enumerate(texts.texts):
        rewritten = normaliser.normalize_str(text.word.form).replace("▁", " ").strip()
        if "".join(rewritten.split()) != "".join(text.word.form.split()):
            found[index] = rewritten
    return found


def _not_blank(text: str, offsets: np.ndarray[Any, Any], start: int, end: int) -> np.ndarray[Any, Any]:
    return np.array([bool(text[max(s, start) : min(e, end)].strip()) for s, e in offsets], dtype=bool)


def examine(tokens: Tokens, limit: int | None, because: str = "") -> Findings:
    """Count and name what a reader must know before trusting a vector of these tokens.

    Args:
        tokens: the tokenised texts.
        limit: tokens a text may have; None: no limit. because: why no more, where that needs saying.
    """
    empty: dict[int, str] = {}
    unknown: dict[int, str] = {}
    too_long: dict[int, str] = {}
    spilling = 0
    why = f" ({because})" if because else ""
    paired = {int(i) for side in (tokens.texts.a, tokens.texts.b) for i in side} or set(range(len(tokens)))
    for index, (text, tokenised) in enumerate(zip(tokens.texts.texts, tokens.of, strict=True)):
        if not tokenised.word.any():
            empty[index] = f"'{text.word.form}' becomes no token in: {text.text}"
        elif tokenised.only_unknown:
            unknown[index] = f"'{text.word.form}' becomes only unknown pieces in: {text.text}"
        if limit is not None and len(tokenised) > limit:
            too_long[index] = (
                f"'{text.word.form}': its text has {len(tokenised)} tokens, the model allows {limit}{why}: "
                f"{text.text[:60]}…"
            )
        spilling += index in paired and any(
            text.text[s : max(s, text.start)].strip() or text.text[min(e, text.end) : e].strip()
            for s, e in tokenised.spans[tokenised.word]
        )
    word_ids = [frozenset(t.word_ids) for t in tokens.of]
    sharing = sum(bool(word_ids[a] & word_ids[b]) for a, b in zip(tokens.texts.a, tokens.texts.b, strict=True))
    altered = {i: f"{tokens.texts.texts[i].word.form} → {form}" for i, form in tokens.altered.items() if i in paired}
    unfit = {i: why for found in (empty, unknown, too_long) for i, why in found.items() if i not in paired}
    empty, unknown, too_long = (
        {i: why for i, why in found.items() if i in paired} for found in (empty, unknown, too_long)
    )
    ours = [t for i, t in enumerate(tokens.of) if i in paired]
    sides = list(zip(tokens.texts.a, tokens.texts.b, strict=True))
    return Findings(
        empty,
        unknown,
        too_long,
        sharing,
        spilling,
        partly_unknown=sum(bool(t.unknown[t.word].any()) and not t.only_unknown for t in ours),
        identical=frozenset(i for i, (a, b) in enumerate(sides) if tokens.of[a].word_ids == tokens.of[b].word_ids),
        unknown_around=sum(bool(t.unknown[~t.word].any()) for t in ours),
        altered=altered,
        unfit=unfit,
    )


def check_rows(tokens: Tokens, rows: int) -> None:
    """Raise TokenError where a token's id is outside an embedding table of so many rows."""
    outside = {int(i) for t in tokens.of for i in t.ids if not 0 <= i < rows}
    for text, of in zip(tokens.texts.texts, tokens.of, strict=True):
        place = next((k for k, i in enumerate(of.ids) if int(i) in outside), None)
        if place is None:
            continue
        more = f" {counted(len(outside), 'distinct token')} of these texts have none." if len(outside) > 1 else ""
        raise TokenError(
            f"token '{of.pieces[place]}' (id {of.ids[place]}), in the text of '{text.word.form}', has no row in the "
            f"model's embedding table, which has {rows}: ids 0 … {rows - 1}.{more}",
            "The tokenizer does not belong to this checkpoint. Name the folder of the one that does: "
            "model.tokenizer=/path/to/folder",
        )


def leave_out(pairs: PairSet, texts: Texts, excluded: set[int], alike: frozenset[int] = frozenset()) -> PairSet:
    """The pair set without the pairs, and the reference words, that use one of the `excluded` texts, and without the
    pairs `alike`."""
    keep = tuple(
        p
        for i, (p, a, b) in enumerate(zip(pairs.pairs, texts.a, texts.b, strict=True))
        if i not in alike and int(a) not in excluded and int(b) not in excluded
    )
    out = {texts.texts[i].word for i in excluded}
    return replace(pairs, pairs=keep, reference=tuple(w for w in pairs.reference if w not in out))
