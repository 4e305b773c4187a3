"""Two CLDF wordlists without common cognate sets: words, or reconstructed roots, of one against words of the other.

Nobody has judged cognates across the two, so the group `cognate` here means a hypothesis: the two words mean the same.
What a run can show is whether words of the same meaning lie closer than words of different meanings, in these two
languages and scripts. That is what a relation would give, and what meaning alone would give too (a model that knows
both words translates them): a difference is no evidence of ancestry, the lack of one is some evidence against it.
`about` says so and the terminal shows it. same_concept controls cannot be built: which words of one meaning are
unrelated is the very question.

Concepts are matched by their Concepticon ids (List, Cysouw & Forkel 2016, Concepticon, LREC), by name where neither has
one. A root is the Root_Form of a cognate set (IE-CoR); of several for one meaning that of the set with most languages.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pairprobe.errors import ConfigError, PairsError, nearest
from pairprobe.pairs.building import Material, build
from pairprobe.pairs.forms import Cleaning, told
from pairprobe.pairs.matching import Item
from pairprobe.pairs.sides import Sides, languages_of, shown_names
from pairprobe.pairs.wordlist import Wordlist, read
from pairprobe.records import PairSet, Word

LABEL = "same meaning: nobody judged cognates across these two datasets; a difference may be translation, not ancestry"


@dataclass(frozen=True)
class TwoCldf(Sides):
    """Pairs across two datasets; the settings of sides.Sides, whose path and get are of the first, and:

    path_b, get_b: the second dataset, and where it can be had. root_a: the language whose roots are side a
    (Root_Language of the cognate sets); '' takes the words of the languages side_a. form_a, form_b, language_name_a,
    language_name_b: for either side as in cldf.Cldf.
    """

    path_b: str = "???"
    get_b: str = ""
    root_a: str = ""
    form_a: list[str] = field(default_factory=lambda: ["form"])
    form_b: list[str] = field(default_factory=lambda: ["form"])
    language_name_a: str = "Name"
    language_name_b: str = "Name"

    def __post_init__(self) -> None:
        super().__post_init__()
        if "same_concept" in self.controls:
            raise ConfigError(
                "pairs.controls names same_concept, which two datasets cannot give: nobody judged which of their words "
                "of one meaning are unrelated."
            )
        if bool(self.root_a) == bool(self.side_a):
            raise ConfigError("give pairs.root_a (a language of roots) or pairs.side_a (languages), and not both.")

    def read(self) -> PairSet:
        first, second = read(self.path, self.get), read(self.path_b, self.get_b, "pairs.path_b")
        meanings_a, meanings_b = _matched(first, second)
        count_a: Counter[str] = Counter()
        count_b: Counter[str] = Counter()
        if self.root_a:
            a = roots_of(first, self.root_a, meanings_a, self.clean, count_a)
            side_a = f"roots of {self.root_a}"
        else:
            a, side_a = self._words(first, self.side_a, "a", meanings_a, count_a)
        b, side_b = self._words(second, self.side_b, "b", meanings_b, count_b)
        about = {
            "hypothesis": LABEL,
            "data": " · ".join(f"{w.name}, sha256 {w.sha256[:16]}" for w in (first, second)),
            "sides": f"{side_a} · {side_b}",
            "forms a": told(count_a, len(a) + _dropped(count_a)),
            "forms b": told(count_b, len(b) + _dropped(count_b)),
        }
        return build(
            Material(
                self.name or f"{Path(self.path).stem}_{Path(self.path_b).stem}",
                f"{first.title or first.name} ({self.path}) and {second.title or second.name} ({self.path_b})",
                self.citation or " · ".join(w.citation for w in (first, second) if w.citation),
                about, tuple(a), tuple(b), by_meaning=True,
            ),
            self,
        )  # fmt: skip

    def _words(
        self, wordlist: Wordlist, chosen: Sequence[str], side: str, meanings: dict[str, str], count: Counter[str]
    ) -> tuple[list[Item], str]:
        languages = languages_of(wordlist, chosen, (), f"pairs.side_{side}")
        names = shown_names(wordlist, getattr(self, f"language_name_{side}"))
        found = self.items(wordlist, {*languages}, names, meanings, getattr(self, f"form_{side}"), count)
        items = [_of_side(x, side) for i in languages for x in found.get(i, ())]
        return items, ", ".join(names[i] for i in languages)


def roots_of(
    wordlist: Wordlist, language: str, meanings: dict[str, str], clean: Cleaning, count: Counter[str]
) -> list[Item]:
    """One root per meaning: that of the cognate set which lives on in most languages. Doubted ones (?*…) are left out.

    Raises:
        PairsError: no cognate set goes back to that language.
    """
    languages: dict[tuple[str, str], set[str]] = defaultdict(set)  # (meaning, set) → where it lives on
    for form in wordlist.forms:
        for name in form.sets:
            if form.concept in meanings and not form.doubtful:
                languages[meanings[form.concept], name].add(form.language)
    known = {s.root_language for s in wordlist.sets.values() if s.root and s.root_language}
    if language not in known:
        raise PairsError(
            f"pairs.root_a is '{language}'; no cognate set of {wordlist.name} has such a root."
            f"{nearest(language, known)}",
            f"Root languages: {', '.join(sorted(known)[:20]) or 'none: give pairs.side_a instead'}.",
        )
    best: dict[str, Item] = {}
    for meaning, name in sorted(languages, key=lambda key: (-len(languages[key]), key)):
        one = wordlist.sets[name]
        if meaning in best or one.root_language != language or not one.root or one.loan:
            continue
        if one.root.startswith("?"):
            count["dropped: doubtful root"] += 1
            continue
        text = clean.clean(one.root, count)
        if text:
            best[meaning] = Item(
                Word(text, meaning, language, meaning), frozenset({name}), frozenset({("a", wordlist.family[name])})
            )
    return [best[m] for m in sorted(best)]


def _matched(a: Wordlist, b: Wordlist) -> tuple[dict[str, str], dict[str, str]]:
    """For either dataset: concept id → the name of the meaning both have, from the first."""
    by_link = {c.concepticon: c.name for c in a.concepts.values() if c.concepticon}
    by_name = {c.name: c.name for c in a.concepts.values() if not c.concepticon}
    found_b = {
        c.id: name
        for c in b.concepts.values()
        for name in [by_link.get(c.concepticon) if c.concepticon else by_name.get(c.name)]
        if name
    }
    both = {*found_b.values()}
    if not both:
        raise PairsError(
            f"{a.name} and {b.name} have no concept in common, by Concepticon id or by name.",
            "Link the concepts of both to Concepticon (column of the term concepticonReference).",
        )
    return {c.id: c.name for c in a.concepts.values() if c.name in both}, found_b


def _of_side(item: Item, side: str) -> Item:
    """Families of two datasets are numbered apart."""
    return Item(item.word, item.cogsets, frozenset((side, k) for k in item.kin))


def _dropped(count: Counter[str]) -> int:
    return sum(n for rule, n in count.items() if rule.startswith("dropped"))
