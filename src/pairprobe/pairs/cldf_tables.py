"""The CSV tables of one CLDF dataset: columns by the ontology's terms, and what is wrong with them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pairprobe.errors import PairsError

SHOWN = 8


class Tables:
    """The tables of one dataset, each read once."""

    def __init__(self, data: Any, metadata: Path) -> None:
        self.data, self.metadata = data, metadata
        self.hash = hashlib.sha256()
        self._rows: dict[str, list[dict[str, str]]] = {}
        self._split: dict[tuple[str, str], tuple[str, str | None]] = {}

    def has(self, table: str) -> bool:
        return table in self.data

    def column(self, table: str, term: str) -> str | None:
        try:
            return str(self.data[table, term].name)
        except KeyError:
            return None

    def columns(self, table: str, *terms: str) -> dict[str, str]:
        """term → column's name. Raises PairsError naming each that is missing."""
        if not self.has(table):
            what = "cognate sets" if table == "CognateTable" else "a wordlist"
            seen = ", ".join(str(t.local_name) for t in self.data.tables) or "none"
            raise PairsError(
                f"{self.metadata}: no {table}, which {what} need. Tables found: {seen}.",
                "pairs=cldf needs a CLDF wordlist with cognate sets, as lexibank has them.",
            )
        found = {term: self.column(table, term) for term in terms}
        lacking = [term for term, name in found.items() if name is None]
        if lacking:
            seen = ", ".join(str(c.name) for c in self.data[table].tableSchema.columns)
            raise PairsError(
                f"{self.metadata.name}: {table} has no column of the ontology's term {', '.join(lacking)}. "
                f"Columns: {seen}.",
                "Mend the metadata: propertyUrl http://cldf.clld.org/v1.0/terms.rdf#… says what a column holds.",
            )
        return {term: str(name) for term, name in found.items()}

    def named(self, table: str) -> dict[str, str]:
        """All that a column may be called by (its name, its term) → its name."""
        found: dict[str, str] = {}
        for column in self.data[table].tableSchema.columns:
            found[str(column.name)] = str(column.name)
            if column.propertyUrl is not None:
                found.setdefault(str(column.propertyUrl.uri).rpartition("#")[2], str(column.name))
        return found

    def split(self, table: str, term: str, row: dict[str, str]) -> list[str]:
        if (table, term) not in self._split:  # pycldf looks a column up anew each time, for every row
            column = self.data[table, term]
            self._split[table, term] = str(column.name), column.separator
        name, separator = self._split[table, term]
        return [v for v in (row[name].split(separator) if separator else [row[name]]) if v]

    def rows(self, table: str) -> list[dict[str, str]]:
        return self._read(self.data[table]) if self.has(table) else []

    def others(self) -> Iterator[tuple[list[str], list[dict[str, str]]]]:
        """(columns, rows) of tables that the ontology has no term for."""
        for table in self.data.tables:
            if not table.common_props.get("dc:conformsTo"):
                columns = [str(c.name) for c in table.tableSchema.columns]
                if {"Cognateset_ID", "SourceCognateset_ID"} <= {*columns}:
                    yield columns, self._read(table)

    def borrowed(self) -> set[str]:
        """Ids of forms that BorrowingTable says were borrowed."""
        column = self.column("BorrowingTable", "targetFormReference") if self.has("BorrowingTable") else None
        return {row[column] for row in self.rows("BorrowingTable")} if column else set()

    def loans(self) -> list[tuple[str, str]]:
        """(set that began as a loan, set it was borrowed from or '')."""
        return [(r["Cognateset_ID"], r["SourceCognateset_ID"]) for _, rows in self.others() for r in rows]

    def borrowed_from(self) -> list[tuple[str, str, str]]:
        """(set that began as a loan, language of the word that was borrowed, that word), where both are known."""
        found = (
            (r["Cognateset_ID"], r.get("Source_languoid", ""), r.get("Source_form", ""))
            for _, rows in self.others()
            for r in rows
        )
        return [(one, language, word) for one, language, word in found if language and word]

    def links(self) -> list[tuple[str, str]]:
        """Cognate sets that may go back to one word: loan and source, proposed as cognate, set and superset."""
        found = [(a, b) for a, b in self.loans() if b]
        key = self.column("CognatesetTable", "id") if self.has("CognatesetTable") else None
        for row in self.rows("CognatesetTable"):
            own = row[str(key)]
            found += [(own, other) for other in [row.get("proposedAsCognateTo_pk", "")] if other]
            found += [(own, f"\0superset {one}") for one in [row.get("supersetid", "")] if one]
        return found

    def sha256(self) -> str:
        return self.hash.hexdigest()

    def _read(self, table: Any) -> list[dict[str, str]]:
        name = str(table.local_name)
        if name not in self._rows:
            self._rows[name] = list(self._parse(table, name))
        return self._rows[name]

    def _parse(self, table: Any, name: str) -> Iterator[dict[str, str]]:
        file = self.metadata.parent / name
        dialect = table.dialect or self.data.tablegroup.dialect
        try:
            raw = _bytes(file)
        except OSError as error:
            raise PairsError(
                f"{file}: the metadata names this table, which cannot be read ({error.strerror or error}).",
                "Download the dataset again.",
            ) from None
        self.hash.update(raw)
        encoding = str(dialect.encoding) if dialect and dialect.encoding else "utf-8"
        try:
            text = raw.decode("utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding)
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise PairsError(
                f"{name}: line {line} is not {encoding} (byte 0x{raw[error.start]:02x}), as the rest of the file is.",
                "Save the whole file in one encoding: a guessed one would change the words.",
            ) from None
        except LookupError:
            raise PairsError(f"{name}: the metadata gives the encoding '{encoding}', which is unknown.") from None
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=(dialect.delimiter if dialect else None) or ",")
        header = next(reader, [])
        wanted = [str(c.name) for c in table.tableSchema.columns if not c.virtual]
        if table.tableSchema.columns and not {*wanted} & {*header}:
            raise PairsError(f"{name}: none of the columns that the metadata names: {', '.join(wanted[:SHOWN])}.")
        needed = [str(c.name) for c in table.tableSchema.columns if c.propertyUrl is not None and c.required]
        referred = {str(n) for key in table.tableSchema.foreignKeys or [] for n in key.columnReference}
        lacking = [n for n in wanted if n not in header and n in {*needed, *referred, *self._terms(table)}]
        if lacking:
            raise PairsError(
                f"{name}: no column {', '.join(lacking)}, which the metadata names. Columns: {', '.join(header)}.",
                "Download the dataset again.",
            )
        try:
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise PairsError(
                        f"{name}: line {reader.line_num} has {len(cells)} cells under {len(header)} columns."
                    )
                if cells:
                    yield dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise PairsError(f"{name}: line {reader.line_num}: {error}.") from None

    def _terms(self, table: Any) -> set[str]:
        """Columns that pairprobe reads by their term."""
        terms = (
            "id",
            "name",
            "form",
            "languageReference",
            "parameterReference",
            "formReference",
            "cognatesetReference",
        )
        return {
            str(c.name) for c in table.tableSchema.columns
            if c.propertyUrl is not None and str(c.propertyUrl.uri).rpartition("#")[2] in terms
        }  # fmt: skip


def _bytes(file: Path) -> bytes:
    """A table, which may be zipped beside where the metadata says it is (CLDF 1.2)."""
    if not file.exists() and file.with_name(f"{file.name}.zip").exists():
        import zipfile

        with zipfile.ZipFile(file.with_name(f"{file.name}.zip")) as archive:
            return archive.read(archive.namelist()[0])
    return file.read_bytes()


def metadata_of(path: str, get: str, key: str) -> Path:
    """The metadata file of a dataset: itself, or in its folder or that folder's cldf/."""
    place = Path(path).expanduser()
    tail = f"{place.parent.name}/{place.name}"
    step = (
        f"Get it: {get}.\nThen say where it is: {key}=FOLDER, or PAIRPROBE_DATA=… with {tail} in it."
        if get
        else (f"Point to the folder that holds its metadata: {key}=FOLDER.")
    )
    if not place.exists():
        raise PairsError(f"{key}={place} is not there.", step)
    if place.is_file():
        return place
    for folder in (place, place / "cldf"):
        files = sorted(folder.glob("*metadata.json"))
        if files:
            return next((f for f in files if f.name in ("cldf-metadata.json", "Wordlist-metadata.json")), files[0])
    inside = ", ".join(sorted(p.name for p in place.iterdir())[:SHOWN]) or "nothing"
    raise PairsError(
        f"{key}={place} is not a CLDF dataset: no *metadata.json in it or in its folder cldf/. It holds {inside}.", step
    )
