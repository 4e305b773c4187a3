"""The words on either side of a pair, from CLDF wordlists: of which languages, which of their words, how named."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from pairprobe.errors import PairsError, nearest
from pairprobe.pairs.building import Recipe
from pairprobe.pairs.forms import Cleaning
from pairprobe.pairs.matching import Item
from pairprobe.pairs.wordlist import Form, Language, Wordlist
from pairprobe.records import Word

SHOWN = 12


@dataclass(frozen=True)
class Sides(Recipe):
    """What every source of CLDF wordlists asks; the settings of building.Recipe, and:

    path: a dataset's folder or its metadata file. name: of the pair set; null takes the folder's. get: where the
    dataset can be had, said when it is not there. side_a, side_b: languages (id, name, ISO 639-3, Glottocode) or clades
    as the dataset names them. loans, doubtful: whether to let them in. citation: empty takes the dataset's own. clean:
    see forms.Cleaning.
    """

    path: str = "???"
    name: str | None = None
    get: str = ""
    side_a: list[str] = field(default_factory=list)
    side_b: list[str] = field(default_factory=list)
    loans: bool = False
    doubtful: bool = False
    citation: str = ""
    clean: Cleaning = field(default_factory=Cleaning)

    def items(
        self,
        wordlist: Wordlist,
        languages: set[str],
        names: dict[str, str],
        meanings: dict[str, str],
        columns: Sequence[str],
        count: Counter[str],
    ) -> dict[str, list[Item]]:
        """Language id → its usable words. meanings: concept id → how the meaning is called; others are left out.

        count: how many forms each rule changed or dropped; gains by this.
        """
        unknown = [c for c in columns if c not in wordlist.columns]
        if unknown or not columns:
            known = sorted({*wordlist.columns})
            raise PairsError(
                [
                    f"pairs.form names '{c}', no column of the forms of {wordlist.name}.{nearest(c, known)}"
                    for c in unknown
                ]
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
            reason = self._left_out(form)
            if reason:
                count[f"dropped: {reason}"] += 1
                continue
            raw = next((form.cells[c] for c in named if form.cells.get(c)), "")
            text = self.clean.clean(raw, count)
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

    def _left_out(self, form: Form) -> str:
        if not form.sets:
            return "cognacy not judged"
        if form.loan and not self.loans:
            return "borrowed"
        return "doubtful" if form.doubtful and not self.doubtful else ""


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
        clades = listed(sorted({c for one in known for c in one.clades})) or "none"
        tongues = sorted((one.names or (one.id,))[0] for one in known)
        raise PairsError(
            problems,
            f"Its clades: {clades}. Its {len(known)} languages: {listed(tongues, 20)}.",
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


def listed(names: Sequence[str], most: int = SHOWN) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
