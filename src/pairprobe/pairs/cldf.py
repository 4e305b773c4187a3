"""Cognate pairs from any CLDF wordlist with cognate sets, beside controls that are built for them.

A cognate pair: two words of different languages with the same meaning and a shared cognate set. Left out unless asked
for: borrowed words (the form's or the set's own mark, a BorrowingTable, IE-CoR's loans.csv) and doubtful judgements.
Always left out: words that nobody judged. Forms are cleaned by the rules of forms.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pairprobe.errors import PairsError, nearest
from pairprobe.pairs.building import Material, build
from pairprobe.pairs.forms import told
from pairprobe.pairs.sides import Sides, languages_of, listed, shown_names
from pairprobe.pairs.wordlist import Concept, Wordlist, read
from pairprobe.records import PairSet


@dataclass(frozen=True)
class Cldf(Sides):
    """Pairs of one dataset; the settings of sides.Sides, where an empty side_b takes both words from side_a, and:

    without: languages or clades to leave out of both sides. concepts: ids, names or Concepticon ids; empty for all.
    form: columns of the forms, by name or ontology term; the first that is not empty counts. language_name: the column
    of the languages whose names are shown and go into templates.

    Raises PairsError for whatever keeps such pairs from being made.
    """

    without: list[str] = field(default_factory=list)
    concepts: list[str] = field(default_factory=list)
    form: list[str] = field(default_factory=lambda: ["form"])
    language_name: str = "Name"

    def read(self) -> PairSet:
        wordlist = read(self.path, self.get)
        a = languages_of(wordlist, self.side_a, self.without, "pairs.side_a")
        b = languages_of(wordlist, self.side_b, self.without, "pairs.side_b") if self.side_b else a
        if len({*a, *b}) < 2:
            only = wordlist.languages[a[0]].names[:1] or (a[0],)
            raise PairsError(
                f"both sides are one language, {only[0]}: a cognate pair needs two.",
                "Name more languages or a clade in pairs.side_a or pairs.side_b.",
            )
        count: Counter[str] = Counter()
        names = shown_names(wordlist, self.language_name)
        wanted = concepts_of(wordlist, self.concepts, "pairs.concepts")
        meanings = {c: wordlist.concepts[c].name for c in wanted}
        items = self.items(wordlist, {*a, *b}, names, meanings, self.form, count)
        about = {
            "data": f"{wordlist.name}, sha256 {wordlist.sha256[:16]}: {len(wordlist.languages)} languages, "
            f"{len(wordlist.concepts)} concepts, {len(wordlist.forms)} forms",
            "sides": f"{listed([names[i] for i in a])} · "
            + (listed([names[i] for i in b]) if self.side_b else "the same languages"),
            "forms": told(count, sum(f.language in {*a, *b} and f.concept in wanted for f in wordlist.forms)),
        }
        material = Material(
            self.name or Path(self.path).stem,
            f"{wordlist.title or wordlist.name} ({self.path})",
            self.citation or wordlist.citation,
            about,
            tuple(x for i in dict.fromkeys(a) for x in items.get(i, ())),
            tuple(x for i in dict.fromkeys(b) for x in items.get(i, ())),
        )
        return build(material, self)


def concepts_of(wordlist: Wordlist, chosen: Sequence[str], key: str) -> list[str]:
    """Ids of the concepts asked for; all where none is named."""
    concepts = [*wordlist.concepts.values()]
    if not chosen:
        return [c.id for c in concepts]

    def names(concept: Concept) -> set[str]:
        return {concept.id, concept.name, concept.concepticon} - {""}

    known = {n for c in concepts for n in names(c)}
    problems = [
        f"{key} names '{n}', no concept of {wordlist.name}.{nearest(n, known)}" for n in chosen if n not in known
    ]
    if problems:
        raise PairsError(problems, f"Its concepts: {listed(sorted(c.name for c in concepts), 20)}.")
    return [c.id for c in concepts if names(c) & {*chosen}]
