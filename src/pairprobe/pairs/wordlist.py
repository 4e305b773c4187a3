"""A CLDF wordlist with cognate sets, as plain records: columns found by the ontology's terms, not by their names.

pycldf reads the metadata; the tables are read as CSV, which takes a twentieth of the time of its object model.
What CLDF's ontology has no term for is found by the names that lexibank gives it (Loan, Doubt, Cognacy) and IE-CoR
(supersetid, proposedAsCognateTo_pk, Root_Form, Root_Language; loans.csv with Cognateset_ID, SourceCognateset_ID,
Source_languoid, Source_form).

A word is borrowed where the form, its set or a table of loans says so, and where its set goes back to a language of the
dataset that has no clade in common with its own: English round, whose set goes back to Old French.

Forkel, List, Greenhill et al. (2018): Cross-Linguistic Data Formats, Scientific Data 5, 180205.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pairprobe.errors import PairsError, nearest
from pairprobe.pairs.cldf_tables import Tables, metadata_of

TRUE = frozenset({"true", "1", "yes"})
CLADE = re.compile(r"clade|sub_?group|family|branch", re.IGNORECASE)
UNJUDGED = "0"  # LingPy's and lexibank's Cognacy of a form that nobody judged


@dataclass(frozen=True)
class Language:
    """names: all it may be called by. clades: groups it belongs to, as the dataset names them."""

    id: str
    names: tuple[str, ...]
    clades: tuple[str, ...]
    row: dict[str, str]


@dataclass(frozen=True)
class Concept:
    """concepticon: id of the concept in Concepticon, '' where not given."""

    id: str
    name: str
    concepticon: str


@dataclass(frozen=True)
class Form:
    """One row of the forms: its cells by column, the cognate sets it was put into, and whether it is borrowed."""

    id: str
    language: str
    concept: str
    cells: dict[str, str]
    sets: tuple[str, ...]
    doubtful: bool
    loan: bool


@dataclass(frozen=True)
class CognateSet:
    """root, root_language: what it goes back to. loan: it began as a borrowing. languages: in how many it lives on."""

    id: str
    root: str = ""
    root_language: str = ""
    loan: bool = False


@dataclass(frozen=True)
class Wordlist:
    """family: cognate set → all sets that may go back to one word with it share one number. title, citation, version:
    as the metadata has them. sha256: of all tables read. columns: form columns by term and name."""

    name: str
    title: str
    citation: str
    sha256: str
    languages: dict[str, Language]
    concepts: dict[str, Concept]
    forms: tuple[Form, ...]
    sets: dict[str, CognateSet]
    family: dict[str, int]
    columns: dict[str, str] = field(default_factory=dict)


def read(path: str, get: str = "", key: str = "pairs.path") -> Wordlist:
    """Read a folder (or its metadata file). get: where the dataset can be had, for the error when it is not there.
    key: the setting that gave the path.

    Raises:
        PairsError: not a CLDF wordlist, a table or column missing, ids that lead nowhere, text that is not UTF-8.
    """
    metadata = metadata_of(path, get, key)
    files = tuple(sorted((f.name, s.st_mtime_ns, s.st_size) for f in metadata.parent.iterdir() for s in (f.stat(),)))
    return _read(metadata, files)


@lru_cache(maxsize=2)
def _read(metadata: Path, files: tuple[tuple[str, int, int], ...]) -> Wordlist:  # noqa: ARG001 (the cache's key)
    """As `read`. files: name, time and size of what lies beside the metadata: the same ones are read once, though a run
    and its check before it both ask for them. Nobody changes a Wordlist."""
    try:
        from pycldf import Dataset

        data = Dataset.from_metadata(metadata)
    except Exception as error:  # pycldf and csvw raise whatever the JSON makes them stumble over
        raise PairsError(
            f"{metadata}: not readable as CLDF metadata ({error}).", "Download the dataset again."
        ) from None
    tables = Tables(data, metadata)
    form = tables.columns("FormTable", "id", "languageReference", "parameterReference", "form")
    cognate = tables.columns("CognateTable", "formReference", "cognatesetReference")
    form_rows = list(tables.rows("FormTable"))
    cognate_rows = list(tables.rows("CognateTable"))
    languages = _languages(tables, {r[form["languageReference"]] for r in form_rows})
    concepts = _concepts(tables, {r[form["parameterReference"]] for r in form_rows})
    ids = {r[form["id"]] for r in form_rows}
    problems = [
        *_dangling(metadata, "forms", "language", (r[form["languageReference"]] for r in form_rows), languages),
        *_dangling(metadata, "forms", "concept", (r[form["parameterReference"]] for r in form_rows), concepts),
        *_dangling(metadata, "cognates", "form", (r[cognate["formReference"]] for r in cognate_rows), ids),
    ]
    sets = _sets(tables)
    if tables.has("CognatesetTable"):
        named = (s for r in cognate_rows for s in tables.split("CognateTable", "cognatesetReference", r))
        problems += _dangling(metadata, "cognates", "cognate set", named, sets)
    if len(ids) != len(form_rows):
        twice = [i for i, n in Counter(r[form["id"]] for r in form_rows).items() if n > 1]
        problems.append(f"{metadata.parent.name}: {len(twice)} form ids occur twice, for example '{twice[0]}'.")
    if problems:
        raise PairsError(problems, "Mend the tables, or download the dataset again; cldf validate lists every fault.")

    of: dict[str, list[str]] = defaultdict(list)
    doubtful: set[str] = set()
    for row in cognate_rows:
        for name in tables.split("CognateTable", "cognatesetReference", row):
            if row[cognate["formReference"]] not in of or name not in of[row[cognate["formReference"]]]:
                of[row[cognate["formReference"]]].append(name)
        if row.get("Doubt", "").lower() in TRUE:
            doubtful.add(row[cognate["formReference"]])
    if not of:
        raise PairsError(
            f"{metadata.parent}: no form is in a cognate set (CognateTable has no rows with both).",
            "Choose a wordlist whose cognates somebody judged.",
        )
    borrowed = tables.borrowed()
    abroad = _abroad(languages, sets)
    forms = []
    for row in form_rows:
        one = row[form["id"]]
        judged = of.get(one, []) if row.get("Cognacy", "") != UNJUDGED else []
        loan = row.get("Loan", "").lower() in TRUE or one in borrowed or any(sets[s].loan for s in judged if s in sets)
        loan = loan or any((s, row[form["languageReference"]]) in abroad for s in judged)
        forms.append(
            Form(
                one, row[form["languageReference"]], row[form["parameterReference"]], row, tuple(judged),
                one in doubtful, loan,
            )
        )  # fmt: skip
    everything = {**{s: CognateSet(s) for f in forms for s in f.sets}, **sets}
    return Wordlist(
        name=str(data.properties.get("rdf:ID") or metadata.parent.name),
        title=_text(data.properties.get("dc:title")),
        citation=_text(data.properties.get("dc:bibliographicCitation")),
        sha256=tables.sha256(),
        languages=languages,
        concepts=concepts,
        forms=tuple(forms),
        sets=everything,
        family=_families(everything, forms, tables.links(), tables.borrowed_from()),
        columns=tables.named("FormTable"),
    )


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────


def _languages(tables: Tables, used: Iterable[str]) -> dict[str, Language]:
    if not tables.has("LanguageTable"):
        return {i: Language(i, (i,), (), {"Name": i}) for i in used}
    key = tables.columns("LanguageTable", "id")["id"]
    terms = [tables.column("LanguageTable", t) for t in ("name", "glottocode", "iso639P3code")]
    clades = {
        str(c.name): c.separator for c in tables.data["LanguageTable"].tableSchema.columns if CLADE.search(c.name)
    }
    found = {}
    for row in tables.rows("LanguageTable"):
        names = [row.get(t or "", "") for t in terms] + [row.get("Name_in_Text", "")]
        groups = [g for c, sep in clades.items() for g in (row.get(c, "").split(sep) if sep else [row.get(c, "")])]
        found[row[key]] = Language(
            row[key], tuple(dict.fromkeys(n for n in names if n)), tuple(dict.fromkeys(g for g in groups if g)), row
        )
    return found


def _concepts(tables: Tables, used: Iterable[str]) -> dict[str, Concept]:
    if not tables.has("ParameterTable"):
        return {i: Concept(i, i, "") for i in used}
    key = tables.columns("ParameterTable", "id")["id"]
    name, linked = (tables.column("ParameterTable", t) for t in ("name", "concepticonReference"))
    rows = tables.rows("ParameterTable")
    often = Counter(r.get(name or "", "") for r in rows)
    found = {}
    for row in rows:
        called = row.get(name or "", "")
        found[row[key]] = Concept(
            row[key], called if called and often[called] == 1 else row[key], row.get(linked or "", "")
        )
    return found


def _sets(tables: Tables) -> dict[str, CognateSet]:
    if not tables.has("CognatesetTable"):
        return {}
    key = tables.columns("CognatesetTable", "id")["id"]
    loans = {a for a, _ in tables.loans()}
    return {
        r[key]: CognateSet(r[key], r.get("Root_Form", ""), r.get("Root_Language", ""), r[key] in loans)
        for r in tables.rows("CognatesetTable")
    }


def _abroad(languages: dict[str, Language], sets: dict[str, CognateSet]) -> set[tuple[str, str]]:
    """(set, language) where the set's root is of another language of the dataset, and the two share no clade.

    A name that all languages carry (their family) is no clade here; of a language without any nothing is known.
    """
    clades = {i: {*one.clades} for i, one in languages.items()}
    everywhere = set.intersection(*clades.values()) if clades else set()
    clades = {i: own - everywhere for i, own in clades.items()}
    named = {name: i for i, one in languages.items() for name in one.names}
    found = set()
    for one in sets.values():
        home = clades.get(named.get(one.root_language.strip("[]? "), ""))
        found |= {(one.id, i) for i, own in clades.items() if home and own and home.isdisjoint(own)}
    return found


def _families(
    sets: dict[str, CognateSet],
    forms: list[Form],
    linked: list[tuple[str, str]],
    borrowed: list[tuple[str, str, str]],
) -> dict[str, int]:
    """Union of sets that share a superset, a root, a cognacy number of another concept, or a loan's source: the set it
    was borrowed from, or the word (its language and form), which may be another set's root.

    Too much is joined rather than too little: a family only keeps pairs out of the controls and apart from each other.
    """
    parent: dict[str, str] = {}

    def top(x: str) -> str:
        while parent.setdefault(x, x) != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    def join(a: str, b: str) -> None:
        parent[top(a)] = top(b)

    for a, b in linked:
        if a in sets and (b in sets or b.startswith("\0")):
            join(a, b)
    rooted = [(one.id, one.root_language, one.root) for one in sets.values()]
    for name, language, word in (*rooted, *(row for row in borrowed if row[0] in sets)):
        for root in roots(word):
            join(name, f"\0root {language.strip('[]? ')} {root}")
    for form in forms:
        number = form.cells.get("Cognacy", "")
        for name in form.sets:
            if number and number != UNJUDGED and len(form.sets) == 1:
                join(name, f"\0cognacy {number}")
    number_of: dict[str, int] = {}
    return {s: number_of.setdefault(top(s), len(number_of)) for s in sorted(sets)}


def roots(text: str) -> list[str]:
    """Root forms as compared: each variant's letters and subscripts alone, without doubt, hyphens and accents."""
    import unicodedata

    found = []
    for variant in re.split(r"[,;/~]", text):
        plain = unicodedata.normalize("NFD", re.sub(r"\([^)]*\)", "", variant))
        letters = "".join(c for c in plain if c.isalpha() or "₀" <= c <= "₉")
        if len(letters) > 1:
            found.append(letters)
    return found


def _dangling(metadata: Path, table: str, what: str, ids: Iterable[str], known: Iterable[str]) -> list[str]:
    known = {*known}
    lost = list(dict.fromkeys(i for i in ids if i not in known))
    if not lost:
        return []
    more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    shown = ", ".join(f"'{i}'" for i in lost[:3])
    return [
        f"{metadata.parent.name}: {table} name {what} ids that are not there: {shown}{more}.{nearest(lost[0], known)}"
    ]


def _text(value: Any) -> str:
    return str(value[0] if isinstance(value, list) and value else value or "")
