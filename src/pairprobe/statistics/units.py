"""Which pairs are not independent: those linked by a word, a concept or a cognate set, however many steps away."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from pairprobe.records import IntArray, Pair, Word


def links(pair: Pair) -> set[Hashable]:
    """What ties a pair to others: its words (language and form), what they mean, and their cognate set."""
    found: set[Hashable] = {("word", w.lang, w.form) for w in (pair.a, pair.b)}
    found |= {("concept", c) for c in _concepts(pair)}
    if pair.cogset:
        found.add(("cogset", pair.cogset))
    return found


def clusters(pairs: Sequence[Pair]) -> IntArray:
    """int [pairs]: pairs of one number are linked, directly or through others; numbered from 0 in order of appearance.

    Only links among the pairs given count: leave out a group, and clusters may fall apart.
    """
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Hashable, int] = {}
    for i, pair in enumerate(pairs):
        for link in links(pair):
            parent[root(i)] = root(first.setdefault(link, i))
    number: dict[int, int] = {}
    return np.array([number.setdefault(root(i), len(number)) for i in range(len(pairs))], dtype=np.int64)


def _concepts(pair: Pair) -> set[str]:
    """What the two words mean, where it is known; a pair whose words mean the same names it once."""

    def meaning(word: Word) -> str:
        return word.concept or pair.concept

    return {c for c in (meaning(pair.a), meaning(pair.b)) if c}
