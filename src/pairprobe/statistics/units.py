"""Which pairs are not independent: those linked by a word, a concept or a cognate set, however many steps away.

Words are one where they are spelled the same, whatever their languages and case: Swedish rot (root) and Dutch rot
(rotten) are one text to a model that is given the word alone, and so are mond and Mond to many.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pairprobe.records import COGNATE, IntArray, Pair, Word


@dataclass(frozen=True, eq=False)
class Links:
    """What ties pairs together.

    cluster: int [pairs], see `clusters`. unit: int [pairs, 2], the independent unit of each pair's two words, see
    `units`.
    """

    cluster: IntArray
    unit: IntArray

    @property
    def clusters(self) -> int:
        return int(self.cluster.max(initial=-1)) + 1

    @property
    def units(self) -> int:
        """How many units the pairs touch."""
        return len(np.unique(self.unit))

    @property
    def crossing(self) -> int:
        """Pairs whose words belong to two units."""
        return int((self.unit[:, 0] != self.unit[:, 1]).sum())

    @property
    def independent(self) -> bool:
        """No pair is linked to another."""
        return self.clusters == len(self.cluster)

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Links:
        """The links among these pairs alone."""
        return cls(clusters(pairs), units(pairs))


def links(pair: Pair) -> set[Hashable]:
    """What ties a pair to others: its words, what they mean, and their cognate set."""
    found: set[Hashable] = {_word(w) for w in (pair.a, pair.b)}
    found |= {("concept", c) for c in _concepts(pair)}
    if pair.cogset:
        found.add(("cogset", pair.cogset))
    return found


def clusters(pairs: Sequence[Pair]) -> IntArray:
    """int [pairs]: pairs of one number are linked, directly or through others; numbered from 0 in order of appearance.

    Only links among the pairs given count: leave out a group, and clusters may fall apart.
    """
    joined = _joined([[("pair", i), *links(p)] for i, p in enumerate(pairs)])
    return _numbered([joined["pair", i] for i in range(len(pairs))])


def units(pairs: Sequence[Pair]) -> IntArray:
    """int [pairs, 2]: the unit that the first and the second word belong to, numbered in order of appearance.

    Words are one unit where a cognate pair joins them, where they mean the same, or where they are of one cognate
    set. A control pair that joins nothing crosses from one unit to another.
    """
    ties: list[list[Hashable]] = []
    for p in pairs:
        for w in (p.a, p.b):
            meaning = w.concept or p.concept
            ties.append([_word(w), *([("concept", meaning)] if meaning else [])])
        if p.group == COGNATE:
            ties.append([_word(w) for w in (p.a, p.b)])
        if p.cogset:
            ties.append([("cogset", p.cogset), *(_word(w) for w in (p.a, p.b))])
    joined = _joined(ties)
    return _numbered([joined[_word(w)] for p in pairs for w in (p.a, p.b)]).reshape(-1, 2)


def _word(word: Word) -> tuple[str, str]:
    return "word", word.spelling


def _joined(ties: Iterable[Sequence[Hashable]]) -> dict[Hashable, int]:
    """Each thing → the number of its connected component; the things of one tie belong together."""
    parent: list[int] = []
    number: dict[Hashable, int] = {}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for tie in ties:
        for thing in tie:
            if thing not in number:
                number[thing] = len(parent)
                parent.append(len(parent))
            parent[root(number[thing])] = root(number[tie[0]])
    return {thing: root(i) for thing, i in number.items()}


def _numbered(roots: list[int]) -> IntArray:
    seen: dict[int, int] = {}
    return np.array([seen.setdefault(r, len(seen)) for r in roots], dtype=np.int64)


def _concepts(pair: Pair) -> set[str]:
    """What the two words mean, where it is known; a pair whose words mean the same names it once."""

    def meaning(word: Word) -> str:
        return word.concept or pair.concept

    return {c for c in (meaning(pair.a), meaning(pair.b)) if c}
