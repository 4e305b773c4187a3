"""Control pairs, built for a set of cognate pairs so that each answers one objection and clusters stay small.

shuffled       the same words, partners exchanged: two cognate pairs (a₁ b₁), (a₂ b₂) of the same two languages give
               (a₁ b₂) and (a₂ b₁). Words, lengths, tokens and languages are the cognates' own; only who stands with
               whom differs. Each such four is a cluster by itself; three pairs are exchanged in a ring where one is
               left over.
form_matched   different meanings, not related, the same two languages, and as like their cognate pair in length, edit
               distance and tokens as the wordlist allows: what spelling alone would give.
unrelated      the same, drawn at random.
same_concept   the same meaning, not related: neither of one cognate set nor of one superset or root, nor linked by a
               loan or a proposal: what meaning alone would give. One pair for each meaning, in pairs of languages as
               those of the cognates where there are such, assigned to cognate pairs at the least total difference in
               length, edit distance and tokens (Kuhn 1955; SciPy's linear_sum_assignment).

In the last three no meaning occurs twice within a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pairprobe.covariates import spread
from pairprobe.pairs.matching import Chosen, Couple, Given, Item, apart, elsewhere

OTHER_LANGUAGES = 4.0  # cost of a pair whose two languages are not those of the cognate pair: two standard deviations


def shuffled(given: Given) -> Chosen:
    """Partners exchanged within couples of cognate pairs; see the module."""
    cognates = given.cognates
    waiting = given.rng.permutation(len(cognates)).tolist()
    waiting.sort(key=lambda k: (cognates[k][0].word.lang, cognates[k][1].word.lang))  # stable: chance within languages
    rings: list[list[int]] = []
    left: list[int] = []
    while waiting:
        first = waiting.pop(0)
        partner = next((k for k in waiting if _same_languages(cognates, first, k) and _ring(given, (first, k))), None)
        if partner is None:
            left.append(first)
        else:
            waiting.remove(partner)
            rings.append([first, partner])
    for first in [*left]:  # then across languages
        partner = next((k for k in left if k != first and _ring(given, (first, k))), None)
        if first in left and partner is not None:
            left.remove(first)
            left.remove(partner)
            rings.append([first, partner])
    for one in left:  # then as the third of a couple, or where it fits
        wider = ((i, [*r[:at], one, *r[at:]]) for i, r in _smallest_first(rings) for at in range(len(r)))
        fitting = next(((i, ring) for i, ring in wider if _ring(given, ring)), None)
        if fitting is not None:
            rings[fitting[0]] = fitting[1]
    made = sorted((k, ring[(i + 1) % len(ring)]) for ring in rings for i, k in enumerate(ring))
    return Chosen(tuple((cognates[k][0], cognates[j][1]) for k, j in made), tuple(k for k, _ in made), None)


def _smallest_first(rings: list[list[int]]) -> list[tuple[int, list[int]]]:
    return sorted(enumerate(rings), key=lambda pair: len(pair[1]))


def _same_languages(cognates: Sequence[Couple], i: int, j: int) -> bool:
    return [x.word.lang for x in cognates[i]] == [x.word.lang for x in cognates[j]]


def _ring(given: Given, members: Sequence[int]) -> bool:
    """Whether each first word may stand with the next pair's second word."""
    for k, j in zip(members, (*members[1:], members[0]), strict=True):
        x, y = given.cognates[k][0], given.cognates[j][1]
        if x.word.concept == y.word.concept or x.word.lang == y.word.lang or x.related(y):
            return False
        if not given.measure.usable([x], [y])[0, 0]:
            return False
    return True


def form_matched(given: Given) -> Chosen:
    """Different meanings, alike in form to a cognate pair; see the module."""
    return apart(given, alike=True)


def unrelated(given: Given) -> Chosen:
    """Different meanings, at random; see the module."""
    return apart(given, alike=False)


def same_concept(given: Given) -> Chosen:
    """The same meaning, not related; see the module."""
    from scipy.optimize import linear_sum_assignment

    cognates, measure = given.cognates, given.measure
    languages = {(x.word.lang, y.word.lang) for x, y in cognates}
    first: dict[str, list[Item]] = {}
    second: dict[str, list[Item]] = {}
    meant = {x.key: x.word.concept for pair in cognates for x in pair}
    for of, items in ((first, given.a), (second, given.b)):
        for item in elsewhere(items, meant):
            of.setdefault(item.word.concept, []).append(item)
    found: list[list[Couple]] = []  # by concept
    for concept in sorted(first.keys() & second.keys()):
        usable = measure.usable(first[concept], second[concept])
        pairs = [
            (x, y)
            for i, x in enumerate(first[concept])
            for j, y in enumerate(second[concept])
            if usable[i, j] and x.word.lang != y.word.lang and not x.related(y)
        ]
        as_cognates = [p for p in pairs if (p[0].word.lang, p[1].word.lang) in languages]
        if pairs:
            found.append(as_cognates or pairs)
    if not found:
        return Chosen((), (), None)
    values = [measure.pairs(pairs) for pairs in found]
    targets, candidates = measure.pairs(cognates), np.concatenate(values)
    scale = spread(targets, candidates)
    cost = np.empty((len(cognates), len(found)))
    best = np.empty(cost.shape, dtype=np.int64)
    for k, pair in enumerate(cognates):
        for c, pairs in enumerate(found):
            other = [
                OTHER_LANGUAGES * ((x.word.lang, y.word.lang) != (pair[0].word.lang, pair[1].word.lang))
                for x, y in pairs
            ]
            off = (((values[c] - targets[k]) / scale) ** 2).sum(axis=1) + np.array(other)
            best[k, c] = int(off.argmin())
            cost[k, c] = off[best[k, c]]
    rows, columns = linear_sum_assignment(cost)
    made = [(int(k), found[c][best[k, c]]) for k, c in zip(rows, columns, strict=True)]
    # a word with two meanings would tie two controls to each other
    used: set[str] = set()
    kept = []
    for k, (x, y) in made:
        if used.isdisjoint({x.key, y.key}):
            used |= {x.key, y.key}
            kept.append((k, (x, y)))
    return Chosen(tuple(p for _, p in kept), tuple(k for k, _ in kept), candidates)


BUILT: dict[str, Callable[[Given], Chosen]] = {
    "shuffled": shuffled, "form_matched": form_matched, "unrelated": unrelated, "same_concept": same_concept,
}  # fmt: skip
