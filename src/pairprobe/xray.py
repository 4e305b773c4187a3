"""What the model was given for each pair, beside what it made of it: pieces, unknown ones, parts of characters, sinks.

And Δ among pairs that are broken into about as many pieces, since broken words may be alike for that alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pairprobe.evidence import FragmentedDelta, PairTokens, TokenXRay, WordTokens
from pairprobe.outcomes import DepthTest, GroupTest, signed
from pairprobe.records import COGNATE, BoolArray, IntArray, PairSet, Similarities, TokenisedText, Tokens, Vectors

ENOUGH = 5  # pairs of each group in a bin; fewer give no interval worth reading
BINS = 6  # at most
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # as byte fallback writes one byte
#: The 256 characters with which GPT-2's tokenizer, and all byte-level ones after it, write bytes.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [b for b in range(256) if b not in _PRINTABLE]
BYTES = {chr(b): b for b in _PRINTABLE} | {chr(256 + i): b for i, b in enumerate(_OTHERS)}

Compare = Callable[[Similarities, PairSet], dict[str, GroupTest]]


def xray(
    tokens: Tokens,
    vectors: Vectors,
    pairs: PairSet,
    similarity: Similarities,
    control: str,
    depth: int,
    compare: Compare,
    flags: Sequence[BoolArray] | None = None,
) -> TokenXRay:
    """Every pair's tokens beside its similarity, and Δ by fragmentation.

    Args:
        tokens, vectors, pairs: of the run.
        similarity, control, depth: the primary outcome; depth as measured, not counted from the end.
        compare: how cognates are compared with controls, as statistics do it in this run; called for each bin.
        flags: for each text bool [depths, tokens], the attention sinks. A piece is shown as one if it was one at the
            primary depth or before: the norm after the last layer hides what it was.
    """
    row = vectors.depths.index(depth)
    seen = similarity.values[similarity.depths.index(depth)]
    until: list[BoolArray] | None = None if flags is None else [np.any(f[: row + 1], axis=0) for f in flags]
    of = [parts(t, tokens.texts.texts[i].text) for i, t in enumerate(tokens.of)]

    def word(index: int, other: int) -> WordTokens:
        tokenised = tokens.of[index]
        inside = np.flatnonzero(tokenised.word)
        theirs = set(tokens.of[other].word_ids)
        norms = None if vectors.token_norms is None else vectors.token_norms[index][row][inside]
        return WordTokens(
            word=tokens.texts.texts[index].word.form,
            pieces=tuple(tokenised.pieces[i] for i in inside),
            shown=tuple(of[index][1][i] for i in inside),
            unknown=tuple(bool(tokenised.unknown[i]) for i in inside),
            byte=tuple(bool(of[index][0][i]) for i in inside),
            shared=tuple(int(tokenised.ids[i]) in theirs for i in inside),
            norms=None if norms is None else tuple(float(v) for v in norms),
            sinks=None if until is None else tuple(bool(until[index][i]) for i in inside),
        )

    found = []
    for i, pair in enumerate(pairs.pairs):
        a, b = int(tokens.texts.a[i]), int(tokens.texts.b[i])
        first = word(a, b)
        both = tuple(dict.fromkeys(p for p, shared in zip(first.pieces, first.shared, strict=True) if shared))
        found.append(PairTokens(pair.id, pair.group, first, word(b, a), both, float(seen[i])))
    pieces = np.array([p.pieces for p in found])
    binned, level = fragmentation(pieces, pairs, similarity, control, depth, compare)
    return TokenXRay(similarity.name, control, depth, tuple(found), binned, level)


def parts(tokenised: TokenisedText, text: str) -> tuple[BoolArray, list[str]]:
    """(bool [tokens]: the piece holds part of a character only; how each piece is shown to people).

    Byte fallback writes such a piece as <0xE2>. A byte-level tokenizer writes bytes as letters: there a piece is one if
    it stands for a character that another piece also stands for, and its bytes alone are no UTF-8. Where a normaliser
    split a character (é into e and its accent), both parts are characters themselves, and are not counted.
    """
    covering = np.zeros(len(text) + 1, dtype=np.int64)
    for start, end in tokenised.spans:
        covering[start:end] += 1
    byte = np.zeros(len(tokenised), dtype=bool)
    shown = []
    for i, piece in enumerate(tokenised.pieces):
        start, end = tokenised.spans[i]
        fallback = BYTE_PIECE.fullmatch(piece)
        data = bytes(BYTES[c] for c in piece) if all(c in BYTES for c in piece) else b""
        decoded = _decoded(data)
        byte[i] = bool(fallback) or bool(data and decoded is None and (covering[start:end] > 1).any())
        if fallback:
            shown.append(fallback[1].upper())
        elif byte[i]:
            shown.append(data.hex(" ").upper())
        elif decoded is not None and decoded.strip() == text[start:end].strip():
            shown.append(decoded)  # 'Ã©' is how a byte-level tokenizer writes 'é'
        else:
            shown.append(piece)
    return byte, shown


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def fragmentation(
    pieces: IntArray, pairs: PairSet, similarity: Similarities, control: str, depth: int, compare: Compare
) -> tuple[tuple[FragmentedDelta, ...], float]:
    """(Δ among pairs of about as many pieces, from few to many; the level of its intervals).

    Neighbouring numbers of pieces are joined until a bin has enough pairs of both groups, at least 5 and a sixth of the
    smaller group; the similarities have no say in it. Where even all pairs are too few, that is the one bin, and its Δ
    is None.
    """
    groups = {g: pairs.members(g) for g in (COGNATE, control)}
    among = groups[COGNATE] | groups[control]
    enough = max(ENOUGH, -(-min(int(m.sum()) for m in groups.values()) // BINS))
    bins: list[tuple[int, int]] = []
    low = None
    for n in np.unique(pieces[among]).tolist():
        low = n if low is None else low
        if all((m & (pieces >= low) & (pieces <= n)).sum() >= enough for m in groups.values()):
            bins.append((low, n))
            low = None
    last = int(pieces[among].max())
    if low is not None:  # too few were left over
        bins[-1:] = [(bins[-1][0], last)] if bins else [(low, last)]
    found = []
    level = 0.95
    row = similarity.depths.index(depth)
    for start, end in bins:
        inside = among & (pieces >= start) & (pieces <= end)
        n, m = (int((members & inside).sum()) for members in groups.values())
        delta, interval = None, None
        if min(n, m) >= ENOUGH:
            some = Similarities(similarity.name, similarity.values[row : row + 1, inside], (depth,))
            chosen = tuple(p for p, keep in zip(pairs.pairs, inside, strict=True) if keep)
            test = compare(some, replace(pairs, pairs=chosen))[control]
            delta, interval, level = test.at(depth).delta, test.at(depth).delta_ci, test.confidence
        name = str(start) if start == end else f"{start}–{end}"
        found.append(FragmentedDelta(name, n, m, delta, interval))
    return tuple(found), level


def reading(found: TokenXRay, overall: DepthTest) -> str:
    """What fragmentation changes about reading Δ, for people; '' where it changes nothing.

    It does where two bins' intervals lie apart, or where the mean of the bins' Δ, weighted as a stratified difference
    is (n m / (n + m)), lies outside the interval of Δ: then much of Δ is that one group is broken into more pieces.
    """
    bins = [b for b in found.fragmentation if b.delta is not None]
    if len(bins) < 2:
        return ""
    known = [b for b in bins if b.ci is not None]
    ends = [(b.ci.low, b.ci.high, b) for b in known if b.ci is not None]
    said = []
    if ends:
        _, _, lowest = min(ends, key=lambda e: e[1])
        _, _, highest = max(ends, key=lambda e: e[0])
        if lowest.ci is not None and highest.ci is not None and lowest.ci.high < highest.ci.low:
            said.append(
                f"Δ hangs on how far words are broken up: {signed(lowest.delta or 0.0)} {lowest.ci} where a pair has "
                f"{lowest.pieces} pieces, {signed(highest.delta or 0.0)} {highest.ci} where it has {highest.pieces}."
            )
    weights = np.array([b.n_cognate * b.n_control / (b.n_cognate + b.n_control) for b in bins])
    within = float(np.average([b.delta or 0.0 for b in bins], weights=weights))
    if overall.delta_ci is not None and within not in overall.delta_ci:
        said.append(
            f"Among pairs broken into as many pieces Δ is {signed(within)}, not {signed(overall.delta)}: one group has "
            "more pieces than the other."
        )
    return " ".join(said)
