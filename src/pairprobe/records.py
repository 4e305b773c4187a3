"""The frozen records that one room hands to the next, with their shapes and units.

Arrays inside records are made read-only; an undefined statistic is None, never 0.0 and never NaN.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]

COGNATE = "cognate"
#: Kinds of control a pair may belong to. Each gets its own Δ.
CONTROLS = ("control", "same_concept", "form_matched", "shuffled", "unrelated")


def _freeze(*arrays: npt.NDArray[Any]) -> None:
    for array in arrays:
        array.setflags(write=False)


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Word:
    """One word, its form exactly as its source gives it (no normalisation beyond the source's own).

    frequency: how often it occurs, in any unit that is the same for all words of the set; None where nobody says.
    """

    form: str
    gloss: str = ""
    lang: str = ""
    concept: str = ""
    frequency: float | None = None

    @property
    def spelling(self) -> str:
        """Without case, composed: words of one spelling are one text to a model, whatever their languages."""
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", self.form).casefold())


@dataclass(frozen=True)
class Pair:
    """Two words and the group they were put in.

    concept: what both mean, where the source says so. score: a person's judgement of how alike they are. cogset: the
    cognate set both belong to. matched: id of the cognate pair that a built control stands beside.
    """

    id: str
    group: str
    a: Word
    b: Word
    concept: str = ""
    score: float | None = None
    cogset: str = ""
    matched: str = ""


@dataclass(frozen=True)
class Balance:
    """How alike cognates and one control group are in something that is not ancestry.

    before, after: standardised mean difference (cognates less controls, over the pooled standard deviation) among all
    candidates and among the pairs chosen; None where there was no choice, or no spread.
    """

    control: str
    covariate: str
    cognate_mean: float
    control_mean: float
    before: float | None
    after: float | None


@dataclass(frozen=True)
class PairSet:
    """Pairs in the order of their source. `citation` says whom to cite.

    about: how it was made, by topic. balance: of built controls. reference: further words of the source that are in
    no pair, for similarities that need a vocabulary. seed: of the draw, where pairs or controls were drawn.
    """

    name: str
    pairs: tuple[Pair, ...]
    source: str
    citation: str = ""
    about: dict[str, str] = field(default_factory=dict)
    balance: tuple[Balance, ...] = ()
    reference: tuple[Word, ...] = ()
    seed: int | None = None

    @property
    def sha256(self) -> str:
        """Hash of the pairs themselves (not of the file), hexadecimal: equal for equal content and order."""
        rows = [
            [
                *(p.id, p.group, p.a.form, p.a.gloss, p.a.lang, p.b.form, p.b.gloss, p.b.lang, p.concept, p.score),
                *((p.cogset, p.matched) if p.cogset or p.matched else ()),
                *((p.a.concept, p.b.concept) if p.a.concept or p.b.concept else ()),
                *(
                    ("frequency", p.a.frequency, p.b.frequency)
                    if (p.a.frequency, p.b.frequency) != (None, None)
                    else ()
                ),
            ]
            for p in self.pairs
        ]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """Number of pairs by group, cognates first, groups in order of appearance."""
        names = dict.fromkeys([COGNATE, *(p.group for p in self.pairs)])
        return {g: sum(p.group == g for p in self.pairs) for g in names}

    @property
    def controls(self) -> tuple[str, ...]:
        """The control groups that occur, in order of appearance."""
        return tuple(g for g in self.sizes if g != COGNATE)

    def members(self, group: str) -> BoolArray:
        """bool [pairs]: which pairs belong to `group`."""
        return np.array([p.group == group for p in self.pairs], dtype=bool)

    def reused_words(self, control: str) -> tuple[int, int]:
        """(distinct spellings of the control group that also occur in cognate pairs, distinct spellings in it)."""
        cognates = {w.spelling for p in self.pairs if p.group == COGNATE for w in (p.a, p.b)}
        controls = {w.spelling for p in self.pairs if p.group == control for w in (p.a, p.b)}
        return len(cognates & controls), len(controls)

    def dependent_pairs(self, control: str) -> int:
        """Pairs among the cognates and `control` that share a word with another one: as clusters do, by spelling."""
        chosen = [{p.a.spelling, p.b.spelling} for p in self.pairs if p.group in (COGNATE, control)]
        count = Counter(word for words in chosen for word in words)
        return sum(any(count[word] > 1 for word in words) for words in chosen)


# ── texts and tokens ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Text:
    """A word set into its template. `text[start:end]` is the word (characters, end exclusive)."""

    text: str
    start: int
    end: int
    word: Word


@dataclass(frozen=True, eq=False)
class Texts:
    """The distinct texts of a pair set, and which of them each pair uses.

    a, b: int [pairs], index into `texts` of the pair's first and second word. reference: int [words], index of the
    reference vocabulary's words, which are in no pair; empty where there is none. reference_name: what they come from.
    """

    texts: tuple[Text, ...]
    a: IntArray
    b: IntArray
    template: str
    reference: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    reference_name: str = ""

    def __post_init__(self) -> None:
        _freeze(self.a, self.b, self.reference)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class TokenisedText:
    """One text as tokens. All arrays have shape [tokens].

    ids: int64; spans: int [tokens, 2] character offsets in the text; word: the token covers a character of
    the word; special: added by the tokenizer (BOS, [CLS], …); unknown: the tokenizer's unknown piece.
    """

    ids: IntArray
    pieces: tuple[str, ...]
    spans: IntArray
    word: BoolArray
    special: BoolArray
    unknown: BoolArray

    def __post_init__(self) -> None:
        _freeze(self.ids, self.spans, self.word, self.special, self.unknown)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def word_ids(self) -> tuple[int, ...]:
        return tuple(int(i) for i in self.ids[self.word])

    @property
    def only_unknown(self) -> bool:
        """Nothing of the word that is a letter or a digit is known: an asterisk before [UNK] names no word."""
        known = (
            p for p, inside, unknown in zip(self.pieces, self.word, self.unknown, strict=True) if inside and not unknown
        )
        return bool(self.unknown[self.word].any()) and not any(c.isalnum() for piece in known for c in piece)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of `texts`, in the same order; `tokenizer`: the class that made them and how many it knows.

    altered: index of a text → its word as the tokenizer's own normaliser rewrote it, where it did. parts: int [texts];
    texts of different parts are never multiplied together, so that what is run beside them changes no digit of theirs;
    None: one part.
    """

    texts: Texts
    of: tuple[TokenisedText, ...]
    tokenizer: str
    altered: dict[int, str] = field(default_factory=dict)
    parts: IntArray | None = None

    def __len__(self) -> int:
        return len(self.of)

    def select(self, rows: Sequence[int] | IntArray) -> Tokens:
        """These texts alone, in the order of `rows`; which pairs use them is left out."""
        none = np.empty(0, dtype=np.int64)
        texts = Texts(tuple(self.texts.texts[int(i)] for i in rows), none, none, self.texts.template)
        parts = None if self.parts is None else self.parts[np.asarray(rows, dtype=np.int64)]
        return Tokens(texts, tuple(self.of[int(i)] for i in rows), self.tokenizer, parts=parts)

    @property
    def lengths(self) -> IntArray:
        """int [texts]: tokens per text, special tokens included."""
        return np.array([len(t) for t in self.of], dtype=np.int64)


# ── vectors and similarities ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Vectors:
    """Pooled states. values: float32 [depths, texts, width]; depths: the depth of each first index.

    Depths are numbered as Hugging Face numbers `hidden_states`: 0 is the embedding output, L comes after
    the final norm. `computed_in` is the dtype of the computation, which bounds how exactly a run repeats.
    token_norms: for each text float32 [depths, tokens], the length of every token's state; None where not measured.
    """

    values: npt.NDArray[np.float32]
    depths: tuple[int, ...]
    computed_in: str
    about: dict[str, str] = field(default_factory=dict)
    token_norms: tuple[npt.NDArray[np.float32], ...] | None = None

    def __post_init__(self) -> None:
        _freeze(self.values, *(self.token_norms or ()))


@dataclass(frozen=True, eq=False)
class Similarities:
    """One number per pair and depth. values: float64 [depths, pairs]; larger is always more alike.

    reference: the vocabulary it used, '' for none. beware: why its numbers may mean little here, '' for no reason.
    """

    name: str
    values: npt.NDArray[np.float64]
    depths: tuple[int, ...]
    about: str = ""
    reference: str = ""
    beware: str = ""

    def __post_init__(self) -> None:
        _freeze(self.values)


@dataclass(frozen=True, eq=False)
class Covariate:
    """Something that is not ancestry and may make pairs alike. values: float64 [pairs]; binary: 0 is no, 1 is yes.

    missing: why it is not known for all pairs, '' where it is.
    """

    name: str
    values: npt.NDArray[np.float64]
    binary: bool = False
    missing: str = ""

    def __post_init__(self) -> None:
        _freeze(self.values)


@dataclass(frozen=True, eq=False)
class PartnerMatrix:
    """Every first word of the cognate pairs against every second one. pairs: the pair of each row and column.

    values: by similarity, float64 [depths, pairs, pairs]; candidates: bool [pairs, pairs], the own partner (the
    diagonal) and the others it was compared with: of the same languages, and in no way linked to the word.
    """

    pairs: tuple[Pair, ...]
    depths: tuple[int, ...]
    values: dict[str, npt.NDArray[np.float64]]
    candidates: BoolArray

    def __post_init__(self) -> None:
        _freeze(self.candidates, *self.values.values())


# ── what running takes ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rounding:
    """How a dense checkpoint's linear layers are rounded before they are used (`execution.weights`).

    layers, of: linear layers rounded, and there are in all (each expert's count). values: weights in them. bits: that a
    file of this format would take for each of those, scales included. kept: what stays as stored, and why. error: root
    of the squared rounding errors' sum over that of the weights; None where nothing was run.
    """

    weights: str
    described: str
    layers: int
    of: int
    values: int
    bits: float
    kept: tuple[str, ...] = ()
    error: float | None = None

    @property
    def sentence(self) -> str:
        """What is rounded and what is not, in words."""
        kept = f"; as stored: {', '.join(self.kept)}" if self.kept else ""
        layers = f"all {self.of}" if self.layers == self.of else f"{self.layers} of {self.of}"
        return f"{layers} linear layers rounded as {self.described}, {self.bits:.2f} bits a weight{kept}"


@dataclass(frozen=True)
class Usage:
    """What running cost. seconds and peaks (bytes, GPU only) by phase: load, forward. rounding: None where weights were
    used as stored."""

    device: str
    dtype: str
    attention: str
    seconds: dict[str, float]
    peaks: dict[str, int]
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Estimate:
    """What running a checkpoint in one way would take, from its headers and a short measurement.

    reads: bytes from files. host, gpu: bytes at the peak, beyond what the process holds. seconds: None where they
    were not estimated. passes: how often the checkpoint is read, since texts whose states do not fit together go one
    part after the other. problem: why it cannot be done, '' where it can. may: bytes of the host that it may use.
    rounding: None where weights are used as stored. one_pass: bytes with which one would do.
    """

    execution: str
    device: str
    dtype: str
    reads: int
    host: int
    gpu: int
    seconds: float | None
    passes: int
    problem: str = ""
    may: int = 0
    rounding: Rounding | None = None
    one_pass: int = 0
