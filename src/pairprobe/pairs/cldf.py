"""Cognate pairs from any CLDF wordlist with cognate sets, beside controls that are built for them.

A cognate pair: two words of different languages with the same meaning and a shared cognate set. Left out unless asked
for: borrowed words (the form's or the set's own mark, a BorrowingTable, IE-CoR's loans.csv) and doubtful judgements.
Always left out: words that nobody judged. Forms are cleaned by the rules of forms.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pairprobe.errors import PairsError, nearest
from pairprobe.pairs.building import Material, Recipe, build
from pairprobe.pairs.forms import Cleaning, told
from pairprobe.pairs.matching import Item
from pairprobe.pairs.wordlist import Concept, Form, Language, Wordlist, read
from pairprobe.records import PairSet, Word

SHOWN = 12


@dataclass(frozen=True)
class Cldf(Recipe):
    """Pairs of one dataset; the settings of building.Recipe, and:

    path: the dataset's folder or its metadata file. get: where it can be had, said when it is not there. side_a,
    side_b: languages (id, name, ISO 639-3, Glottocode) or clades as the dataset names them; an empty side_b takes both
    words from side_a. without: languages or clades to leave out of both. concepts: ids, names or Concepticon ids;
    empty for all. form: columns of the forms, by name or ontology term; the first that is not empty counts.
    language_name: the column of the languages whose names are shown and go into templates. loans, doubtful: whether
    to let them in. clean: see forms.Cleaning.

    Raises PairsError for whatever keeps such pairs from being made.
    """

    path: str = "???"
    name: str | None = None
    get: str = ""
    side_a: list[str] = field(default_factory=list)
    side_b: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    concepts: list[str] = field(default_factory=list)
    form: list[str] = field(default_factory=lambda: ["form"])
    language_name: str = "Name"
    loans: bool = False
    doubtful: bool = False
    citation: str = ""
    clean: Cleaning = field(default_factory=Cleaning)

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
        items = items_of(
            wordlist, {*a, *b}, names, {c: wordlist.concepts[c].name for c in wanted}, self.form, self.clean,
            self.loans, self.doubtful, count,
        )  # fmt: skip
        about = {
            "data": f"{wordlist.name}, sha256 {wordlist.sha256[:16]}: {len(wordlist.languages)} languages, "
            f"{len(wordlist.concepts)} concepts, {len(wordlist.forms)} forms",
            "sides": f"{_listed([names[i] for i in a])} · "
            + (_listed([names[i] for i in b]) if self.side_b else "the same languages"),
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


def languages_of(wordlist: Wordlist, chosen: Sequence[str], without: Sequence[str], key: str) -> list[str]:
    """Ids of the languages that the names stand for, in the dataset's order.

    Raises:
        PairsError: naming every name that is none, with the nearest that is one.
    """
    known = [*wordlist.languages.values()]
    names = {n for one in known for n in (one.id, *one.names, *one.clades)}
    problems = [
        f"{where} names '{name}', which is neither a language nor a clade of {wordlist.name}.{nearest(name, names)}"
        for where, one in ((key, chosen), ("pairs.without", without))
        for name in one
        if not _named(known, name)
    ]
    if problems:
        clades = _listed(sorted({c for one in known for c in one.clades})) or "none"
        tongues = sorted((one.names or (one.id,))[0] for one in known)
        raise PairsError(
            problems,
            f"Its clades: {clades}. Its {len(known)} languages: {_listed(tongues, 20)}.",
        )
    if not chosen:
        raise PairsError(f"{key} is empty.", f"Name languages or clades, for example {key}=[{known[0].names[0]}].")
    out = {i for name in without for i in _named(known, name)}
    found = {i for name in chosen for i in _named(known, name)} - out
    if not found:
        raise PairsError(f"{key}: no language is left after pairs.without.", "Leave fewer languages out.")
    return [one.id for one in known if one.id in found]


def _named(languages: Sequence[Language], name: str) -> list[str]:
    """A language's own name or id wins over a clade of that name."""
    for match in (
        lambda one: name == one.id,
        lambda one: name in one.names,
        lambda one: name in one.clades,
        lambda one: name.lower() in [n.lower() for n in (*one.names, *one.clades)],
    ):
        found = [one.id for one in languages if match(one)]
        if found:
            return found
    return []


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
        raise PairsError(problems, f"Its concepts: {_listed(sorted(c.name for c in concepts), 20)}.")
    return [c.id for c in concepts if names(c) & {*chosen}]


def shown_names(wordlist: Wordlist, column: str) -> dict[str, str]:
    """Language id → the name that is shown: this column's where it has one, else its first name; never one for two."""
    rows = wordlist.languages
    if not any(column in one.row for one in rows.values()):
        known = [*next(iter(rows.values())).row]
        raise PairsError(
            f"pairs.language_name is '{column}', no column of {wordlist.name}'s languages.{nearest(column, known)}",
            f"Columns: {', '.join(known)}.",
        )
    names = {i: one.row.get(column) or (one.names or (i,))[0] for i, one in rows.items()}
    often = Counter(names.values())
    return {i: name if often[name] == 1 else f"{name} ({i})" for i, name in names.items()}


def items_of(
    wordlist: Wordlist,
    languages: set[str],
    names: dict[str, str],
    meanings: dict[str, str],
    columns: Sequence[str],
    clean: Cleaning,
    loans: bool,
    doubtful: bool,
    count: Counter[str],
) -> dict[str, list[Item]]:
    """Language id → its usable words. meanings: concept id → how the meaning is called; others are left out.

    count: how many forms each rule changed or dropped; gains by this.
    """
    unknown = [c for c in columns if c not in wordlist.columns]
    if unknown or not columns:
        known = sorted({*wordlist.columns})
        raise PairsError(
            [f"pairs.form names '{c}', no column of the forms of {wordlist.name}.{nearest(c, known)}" for c in unknown]
            or "pairs.form is empty.",
            f"Columns: {', '.join(known)}.",
        )
    named = [wordlist.columns[c] for c in columns]
    kin = _kin(wordlist)
    found: dict[str, list[Item]] = defaultdict(list)
    seen: dict[tuple[str, str, str], int] = {}
    for form in wordlist.forms:
        if form.language not in languages or form.concept not in meanings:
            continue
        reason = _left_out(form, loans, doubtful)
        if reason:
            count[f"dropped: {reason}"] += 1
            continue
        raw = next((form.cells[c] for c in named if form.cells.get(c)), "")
        text = clean.clean(raw, count)
        if not text:
            continue
        meaning = meanings[form.concept]
        item = Item(
            Word(text, meaning, names[form.language], meaning),
            frozenset(form.sets),
            frozenset(k for s in form.sets for k in kin[s]),
        )
        place = (form.language, text, meaning)
        if place in seen:  # written twice: one word with the sets of both
            before = found[form.language][seen[place]]
            item = Item(item.word, item.cogsets | before.cogsets, item.kin | before.kin)
            found[form.language][seen[place]] = item
        else:
            seen[place] = len(found[form.language])
            found[form.language].append(item)
    return found


def _left_out(form: Form, loans: bool, doubtful: bool) -> str:
    if not form.sets:
        return "cognacy not judged"
    if form.loan and not loans:
        return "borrowed"
    return "doubtful" if form.doubtful and not doubtful else ""


def _kin(wordlist: Wordlist) -> dict[str, frozenset[Hashable]]:
    """Cognate set → its family, and the families of sets with which it shares a form in one language."""
    same: dict[tuple[str, str], set[int]] = defaultdict(set)
    for form in wordlist.forms:
        same[form.language, form.cells.get(wordlist.columns["form"], "")].update(wordlist.family[s] for s in form.sets)
    beside: dict[int, set[int]] = defaultdict(set)
    for families in same.values():
        for one in families:
            beside[one] |= families
    return {s: frozenset({f, *beside[f]}) for s, f in wordlist.family.items()}


def _listed(names: Sequence[str], most: int = SHOWN) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
