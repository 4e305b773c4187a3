"""What two words are like apart from their history: length, edit distance, tokens; and choosing pairs alike in it."""

from __future__ import annotations

import importlib.util
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pairprobe.covariates import edit_distances, graphemes, spread, standardised
from pairprobe.errors import PairsError
from pairprobe.records import Balance, BoolArray, FloatArray, IntArray, Word

SWEEPS = 4  # times that every choice is looked at again, the others held
REUSED = 0.1  # cost of a word that also stands in a cognate pair: it decides between equals only


@dataclass(frozen=True)
class Item:
    """A word that may become part of a pair. cogsets: its cognate sets. kin: families of those sets, and of sets whose
    words have the same form in some language (Swedish ben is 'bone' and 'leg'): two items that share one may be
    related."""

    word: Word
    cogsets: frozenset[str]
    kin: frozenset[Hashable]

    @property
    def key(self) -> str:
        """What one word is: its spelling. In two languages it is still one text to a model."""
        return self.word.spelling

    def related(self, other: Item) -> bool:
        return not self.kin.isdisjoint(other.kin)


Couple = tuple[Item, Item]


@dataclass(frozen=True)
class Chosen:
    """Pairs of one control group. beside: for each, the index of the cognate pair it stands beside. candidates:
    float64 [candidates, covariates] of all among which was chosen, None where there was no choice."""

    pairs: tuple[Couple, ...]
    beside: tuple[int, ...]
    candidates: FloatArray | None


@dataclass(frozen=True)
class Measure:
    """Covariates of pairs of words. tokenizer: a folder with tokenizer.json, such a file, or one inside an installed
    package; None: graphemes stand for tokens. least_distance: pairs spelled more alike are none."""

    tokenizer: str | None = None
    least_distance: float = 0.0
    _ids: dict[str, tuple[int, ...]] = field(default_factory=dict, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        tokens = ("tokens a", "tokens b") if self.tokenizer else ()
        return ("graphemes a", "graphemes b", "edit distance", *tokens)

    def grid(self, a: Sequence[Item], b: Sequence[Item]) -> FloatArray:
        """float64 [a, b, covariates] of every combination."""
        far = edit_distances([x.word.form for x in a], [y.word.form for y in b])
        ones = np.ones((len(a), len(b)))
        parts = [self._lengths(a)[:, None] * ones, self._lengths(b)[None, :] * ones, far]
        if self.tokenizer:
            parts += [self._tokens(a)[:, None] * ones, self._tokens(b)[None, :] * ones]
        return np.stack(parts, axis=-1)

    def pairs(self, pairs: Sequence[Couple]) -> FloatArray:
        """float64 [pairs, covariates]"""
        rows = [self.grid([x], [y])[0, 0] for x, y in pairs]
        return np.array(rows).reshape(len(pairs), len(self.names))

    def usable(self, a: Sequence[Item], b: Sequence[Item]) -> BoolArray:
        """bool [a, b]: spelled far enough apart, and not the same tokens (English do, Swedish dö): one text to that
        model."""
        far = edit_distances([x.word.form for x in a], [y.word.form for y in b])
        differ = np.asarray(far >= self.least_distance)
        if self.tokenizer:
            number: dict[tuple[int, ...], int] = {}
            first, second = (
                np.array([number.setdefault(ids, len(number)) for ids in self._tokenised(side)], dtype=np.int64)
                for side in (a, b)
            )
            differ = differ & (first[:, None] != second[None, :])
        return differ

    def _lengths(self, items: Sequence[Item]) -> FloatArray:
        return np.array([len(graphemes(x.word.form)) for x in items], dtype=np.float64)

    def _tokens(self, items: Sequence[Item]) -> FloatArray:
        return np.array([len(ids) for ids in self._tokenised(items)], dtype=np.float64)

    def _tokenised(self, items: Sequence[Item]) -> list[tuple[int, ...]]:
        """The ids of each word alone."""
        new = [f for f in dict.fromkeys(x.word.form for x in items) if f not in self._ids]
        if new:
            from tokenizers import Tokenizer

            try:
                tokenizer = Tokenizer.from_file(str(_tokenizer_file(str(self.tokenizer))))
            except PairsError:
                raise
            except Exception as error:  # the library raises bare Exceptions
                raise PairsError(f"pairs.tokenizer={self.tokenizer}: no readable tokenizer.json ({error}).") from None
            tokenizer.no_padding()
            tokenizer.no_truncation()
            for form, found in zip(new, tokenizer.encode_batch(new, add_special_tokens=False), strict=True):
                self._ids[form] = tuple(found.ids)
        return [self._ids[x.word.form] for x in items]


def _tokenizer_file(place: str) -> Path:
    path = Path(place).expanduser()
    if not path.exists():
        package, _, rest = place.partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is not None and spec.submodule_search_locations:
            path = Path(spec.submodule_search_locations[0]) / rest
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise PairsError(
            f"pairs.tokenizer={place}: no tokenizer.json there.",
            "Give a model's folder, its tokenizer.json, or null: graphemes then stand for tokens.",
        )
    return file


def balance(
    control: str, names: Sequence[str], cognates: FloatArray, chosen: Chosen, made: FloatArray
) -> list[Balance]:
    """Standardised mean differences before choosing (all candidates) and after, by covariate."""
    before = standardised(cognates, chosen.candidates) if chosen.candidates is not None else [None] * len(names)
    after = standardised(cognates, made)
    return [
        Balance(control, name, float(cognates[:, i].mean()), float(made[:, i].mean()), before[i], after[i])
        for i, name in enumerate(names)
    ]


@dataclass(frozen=True, eq=False)
class Grid:
    """Words of two languages against each other. values: float64 [a, b, covariates]; allowed: bool [a, b], different
    meanings and nothing that may relate them."""

    a: tuple[Item, ...]
    b: tuple[Item, ...]
    values: FloatArray
    allowed: BoolArray
    concept_a: IntArray
    concept_b: IntArray
    word_a: IntArray
    word_b: IntArray

    def free(self, concepts: BoolArray, words: BoolArray) -> BoolArray:
        """bool [a, b]: neither meaning nor word is taken."""
        first = concepts[self.concept_a] & words[self.word_a]
        return np.asarray(first[:, None] & (concepts[self.concept_b] & words[self.word_b])[None, :])


@dataclass(frozen=True, eq=False)
class Given:
    """What a group of controls is built from: the cognate pairs, all words of the two sides, what counts as alike."""

    cognates: Sequence[Couple]
    a: Sequence[Item]
    b: Sequence[Item]
    measure: Measure
    rng: np.random.Generator


def apart(given: Given, alike: bool) -> Chosen:
    """Pairs of different meaning, each beside a cognate pair of the same two languages, no meaning used twice.

    alike: as like that cognate pair in all covariates as can be (the most alike cognates choose first; then every
    choice is looked at again, the others held); else drawn at random. As no meaning is in two of these pairs nor in two
    cognate pairs, a control links at most two cognate pairs, and clusters have at most three pairs.
    """
    cognates, a, b, measure, rng = given.cognates, given.a, given.b, given.measure, given.rng
    targets = measure.pairs(cognates)
    number = {c: i for i, c in enumerate(sorted({x.word.concept for x in (*a, *b)}))}
    word = {key: i for i, key in enumerate(sorted({x.key for x in (*a, *b)}))}
    meant = {x.key: x.word.concept for pair in cognates for x in pair}
    grids: dict[tuple[str, str], Grid] = {}
    for languages in sorted({(x.word.lang, y.word.lang) for x, y in cognates}):
        grids[languages] = _grid(languages, elsewhere(a, meant), elsewhere(b, meant), measure, number, word)
    candidates = np.concatenate([g.values[g.allowed] for g in grids.values()])
    if not len(candidates):
        return Chosen((), (), None)
    scale = spread(targets, candidates)

    def cost(k: int) -> FloatArray:
        grid = grids[cognates[k][0].word.lang, cognates[k][1].word.lang]
        if not alike:
            return np.where(grid.allowed, rng.random(grid.allowed.shape), np.inf)
        off = (((grid.values - targets[k]) / scale) ** 2).sum(axis=-1)
        again = np.array([x.key in meant for x in grid.a]), np.array([y.key in meant for y in grid.b])
        return np.where(grid.allowed, off + REUSED * (again[0][:, None].astype(float) + again[1][None, :]), np.inf)

    # Each control takes two meanings: where there are too few, those cognate pairs that chance names get one.
    most = min(len(cognates), len(number) // 2)
    order = rng.permutation(len(cognates))[:most].tolist()
    if alike:
        order.sort(key=lambda k: (targets[k, 2], k))
    free, unused = np.ones(len(number), dtype=bool), np.ones(len(word), dtype=bool)
    taken: dict[int, tuple[int, int]] = {}
    for sweep in range(1 + SWEEPS * alike):
        moved = False
        for k in order:
            grid = grids[cognates[k][0].word.lang, cognates[k][1].word.lang]
            if k in taken:
                i, j = taken[k]
                free[[grid.concept_a[i], grid.concept_b[j]]] = unused[[grid.word_a[i], grid.word_b[j]]] = True
            costs = np.where(grid.free(free, unused), cost(k), np.inf)
            best = int(costs.argmin())
            i, j = divmod(best, costs.shape[1])
            if not np.isfinite(costs[i, j]):
                taken.pop(k, None)
                continue
            moved |= taken.get(k) != (i, j)
            taken[k] = (i, j)
            free[[grid.concept_a[i], grid.concept_b[j]]] = unused[[grid.word_a[i], grid.word_b[j]]] = False
        if sweep and not moved:
            break
    made, beside = [], []
    for k in sorted(taken):
        grid = grids[cognates[k][0].word.lang, cognates[k][1].word.lang]
        made.append((grid.a[taken[k][0]], grid.b[taken[k][1]]))
        beside.append(k)
    return Chosen(tuple(made), tuple(beside), candidates)


def elsewhere(items: Sequence[Item], meant: dict[str, str]) -> list[Item]:
    """Without words that a cognate pair has in another meaning: such a control would tie it to a further pair."""
    return [x for x in items if meant.get(x.key, x.word.concept) == x.word.concept]


def _grid(
    languages: tuple[str, str],
    a: Sequence[Item],
    b: Sequence[Item],
    measure: Measure,
    number: dict[str, int],
    word: dict[str, int],
) -> Grid:
    first = tuple(x for x in a if x.word.lang == languages[0])
    second = tuple(y for y in b if y.word.lang == languages[1])
    concept_a = np.array([number[x.word.concept] for x in first], dtype=np.int64)
    concept_b = np.array([number[y.word.concept] for y in second], dtype=np.int64)
    related = np.array([[x.related(y) for y in second] for x in first], dtype=bool).reshape(len(first), len(second))
    allowed = (concept_a[:, None] != concept_b[None, :]) & ~related & measure.usable(first, second)
    words = (np.array([word[x.key] for x in side], dtype=np.int64) for side in (first, second))
    return Grid(first, second, measure.grid(first, second), allowed, concept_a, concept_b, *words)
