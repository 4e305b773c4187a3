"""Words of two sides → cognate pairs, built controls, their balance and a reference vocabulary: one PairSet.

Everything drawn comes from one generator with the seed of the settings, and words are sorted before, so that the same
data and settings give the same pairs whatever order the files have.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pairprobe.errors import ConfigError, PairsError, at_least, one_of
from pairprobe.pairs.controls import BUILT
from pairprobe.pairs.matching import Couple, Given, Item, Measure, balance
from pairprobe.records import COGNATE, Pair, PairSet, Word


@dataclass(frozen=True)
class Recipe:
    """How pairs are chosen and controls built.

    controls: the groups to build, in this order (the first is the primary one where none is named). most: cognate
    pairs at most, null for all. seed: of all that is drawn. one_per: concept, or cogset: cognate pairs of one meaning
    in several cognate sets, which are then linked. In both, no two cognate pairs share a word or a family of sets.
    least_distance: pairs spelled more alike than this (edit distance of graphemes over the longer word, 0 … 1) are
    none, cognates and controls. fewest: a group with fewer pairs is an error. reference: words of the same languages
    that are in no pair, at most; reference_share: share of the meanings kept apart for them. tokenizer: a model's
    folder, tokenizer.json, or one in an installed package (package/folder), whose tokens form_matched counts, and to
    which the two words of a pair must not be the same tokens; null counts graphemes alone.
    """

    controls: list[str] = field(default_factory=lambda: ["shuffled", "form_matched", "unrelated"])
    most: int | None = None
    seed: int = 0
    one_per: str = "concept"
    least_distance: float = 0.0
    fewest: int = 10
    reference: int = 200
    reference_share: float = 0.2
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        at_least("pairs.seed", self.seed, 0)
        at_least("pairs.fewest", self.fewest, 2)
        at_least("pairs.reference", self.reference, 0)
        if self.most is not None:
            at_least("pairs.most", self.most, self.fewest)
        one_of("pairs.one_per", self.one_per, ("concept", "cogset"))
        for key in ("least_distance", "reference_share"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"pairs.{key} is {getattr(self, key)}; allowed: 0 or more, and less than 1.")
        for control in self.controls:
            one_of("pairs.controls", control, tuple(BUILT))
        if not self.controls or len(set(self.controls)) < len(self.controls):
            raise ConfigError(f"pairs.controls is {self.controls}; name each once, of {', '.join(BUILT)}.")


@dataclass(frozen=True)
class Material:
    """What a source hands over. a, b: words of the two sides; the same where one pool serves both. by_meaning: the
    sides share no cognate sets, and two words of one meaning are hypothesised to belong together."""

    name: str
    source: str
    citation: str
    about: Mapping[str, str]
    a: tuple[Item, ...]
    b: tuple[Item, ...]
    by_meaning: bool = False


def build(material: Material, recipe: Recipe) -> PairSet:
    """The pair set.

    Raises:
        PairsError: fewer pairs than `fewest` in a group asked for, with how many there are and why.
    """
    rng = np.random.default_rng(recipe.seed)
    a, b = (tuple(sorted(side, key=_order)) for side in (material.a, material.b))
    meanings = sorted({x.word.concept for x in a} & {y.word.concept for y in b})
    apart = {meanings[i] for i in rng.permutation(len(meanings))[: int(recipe.reference_share * len(meanings))]}
    apart = apart if recipe.reference else set()
    in_a, in_b = (tuple(x for x in side if x.word.concept not in apart) for side in (a, b))
    measure = Measure(recipe.tokenizer, recipe.least_distance)
    cognates = _cognates(in_a, in_b, material.by_meaning, recipe, measure, rng)
    if len(cognates) < recipe.fewest:
        kept_apart = f", {len(apart)} of them kept for the reference vocabulary" if apart else ""
        raise PairsError(
            f"{material.name}: {len(cognates)} cognate pairs can be chosen from the {len(meanings)} meanings that both "
            f"sides have words for{kept_apart}; pairs.fewest is {recipe.fewest}.",
            "Choose more or other languages, a smaller pairs.reference_share or least_distance, or lower pairs.fewest.",
        )
    pairs = [
        _pair(f"{material.name}_cognate_{i:03d}", COGNATE, c, "", not material.by_meaning)
        for i, c in enumerate(cognates, start=1)
    ]
    balances = []
    values = measure.pairs(cognates)
    for control in recipe.controls:
        drawn = np.random.default_rng([recipe.seed, _stream(control)])
        chosen = BUILT[control](Given(cognates, in_a, in_b, measure, drawn))
        if len(chosen.pairs) < recipe.fewest:
            raise PairsError(
                f"{material.name}: {len(chosen.pairs)} {control} controls can be built for {len(cognates)} "
                f"cognate pairs from {len(meanings) - len(apart)} meanings; pairs.fewest is {recipe.fewest}.",
                f"Leave {control} out of pairs.controls, choose more languages or concepts, or lower pairs.fewest.",
            )
        balances += balance(control, measure.names, values, chosen, measure.pairs(chosen.pairs))
        pairs += [
            _pair(f"{material.name}_{control}_{i:03d}", control, pair, pairs[k].id, False)
            for i, (pair, k) in enumerate(zip(chosen.pairs, chosen.beside, strict=True), start=1)
        ]
    reference = _reference((*a, *b), pairs, recipe, rng)
    made = PairSet(
        material.name, tuple(pairs), material.source, material.citation,
        {**material.about, **_told(recipe, reference, apart, meanings)}, tuple(balances), reference,
    )  # fmt: skip
    about = {**made.about, "set": f"sha256 {made.sha256[:16]}, seed {recipe.seed}"}
    return replace(made, about=about, seed=recipe.seed)


def _cognates(
    a: Sequence[Item],
    b: Sequence[Item],
    by_meaning: bool,
    recipe: Recipe,
    measure: Measure,
    rng: np.random.Generator,
) -> list[Couple]:
    """One pair for each meaning (or family of cognate sets) in random order, from the pair of languages used least.

    A word or a family that an earlier pair has is not taken again.
    """
    second: dict[str, list[Item]] = defaultdict(list)
    for y in b:
        second[y.word.concept].append(y)
    units: dict[Hashable, list[Couple]] = defaultdict(list)
    seen: set[frozenset[tuple[str, str, str]]] = set()
    for x in a:
        for y in second[x.word.concept]:
            shared = x.cogsets & y.cogsets
            if x.word.lang == y.word.lang or not (by_meaning or shared):
                continue
            same = frozenset((w.lang, w.form, w.concept) for w in (x.word, y.word))
            if same not in seen:  # one pool for both sides: each pair once
                seen.add(same)
                units[x.word.concept if recipe.one_per == "concept" or by_meaning else min(shared)].append((x, y))
    found: list[Couple] = []
    words: set[str] = set()
    kin: set[Hashable] = set()
    languages: Counter[tuple[str, str]] = Counter()
    names = sorted(units, key=str)
    for i in rng.permutation(len(names)):
        pairs = units[names[i]]
        pairs = [pairs[j] for j in rng.permutation(len(pairs))]
        pairs.sort(key=lambda p: languages[p[0].word.lang, p[1].word.lang])  # stable: chance among equals
        for x, y in pairs:
            if not words.isdisjoint({x.key, y.key}) or not kin.isdisjoint(x.kin | y.kin):
                continue
            if not measure.usable([x], [y])[0, 0]:
                continue
            found.append((x, y))
            words |= {x.key, y.key}
            kin |= x.kin | y.kin
            languages[x.word.lang, y.word.lang] += 1
            break
        if len(found) == recipe.most:
            break
    return sorted(found, key=lambda p: (p[0].word.concept, _order(p[0])))


def _pair(name: str, group: str, pair: Couple, matched: str, with_set: bool) -> Pair:
    x, y = pair
    same = x.word.concept == y.word.concept
    cogset = min(x.cogsets & y.cogsets) if with_set else ""
    return Pair(name, group, x.word, y.word, x.word.concept if same else "", cogset=cogset, matched=matched)


def _reference(
    items: Sequence[Item], pairs: Sequence[Pair], recipe: Recipe, rng: np.random.Generator
) -> tuple[Word, ...]:
    """Words of the same languages that share no form and no meaning with a pair, at random."""
    used = [w for p in pairs for w in (p.a, p.b)]
    forms, meanings, languages = {w.form for w in used}, {w.concept for w in used}, {w.lang for w in used}
    free = {
        (x.word.lang, x.word.form): x.word for x in items
        if x.word.lang in languages and x.word.form not in forms and x.word.concept not in meanings
    }  # fmt: skip
    words = [free[k] for k in sorted(free)]
    return tuple(words[i] for i in sorted(rng.permutation(len(words))[: recipe.reference]))


def _told(recipe: Recipe, reference: Sequence[Word], apart: set[str], meanings: Sequence[str]) -> dict[str, str]:
    one = "meaning" if recipe.one_per == "concept" else "cognate set"
    far = f", spelled at least {recipe.least_distance:g} apart" if recipe.least_distance else ""
    counted = f"tokens of {recipe.tokenizer}" if recipe.tokenizer else "graphemes"
    told = {
        "pairs": f"one cognate pair per {one}, of {len(meanings) - len(apart)} meanings; no word or root twice{far}",
        "controls": f"built: {', '.join(recipe.controls)}; form_matched by length, edit distance and {counted}"
        if "form_matched" in recipe.controls
        else f"built: {', '.join(recipe.controls)}",
    }
    if reference:
        concepts = len({w.concept for w in reference})
        told["reference"] = f"{len(reference)} words of the same languages and {concepts} other meanings, in no pair"
    return told


def _order(item: Item) -> tuple[str, str, str]:
    return item.word.concept, item.word.lang, item.word.form


def _stream(control: str) -> int:
    """A group is the same whichever others are asked for."""
    return 1 + tuple(sorted(BUILT)).index(control)
