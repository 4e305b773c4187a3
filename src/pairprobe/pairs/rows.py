"""Rows of a table, cells by column, and what keeps a row from being read.

CSV, TSV, JSON Lines, Parquet, and the tables that runs log ({"columns": […], "data": [[…], …]}).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairprobe.errors import PairsError, nearest

SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".json": "", ".parquet": ""}

Row = tuple[int, dict[str, Any]]  # (line in the file, 1-based; or row in Parquet), cells by column


@dataclass(frozen=True)
class Columns:
    """What a table must and may have. setting: where its path is given; of: what a row of it is."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    setting: str = "pairs.path"
    of: str = "pair"

    @property
    def known(self) -> tuple[str, ...]:
        return *self.required, *self.optional


def text(cell: Any) -> str:
    """A cell without white space around it; '' where it is empty."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return str(cell).strip()


def rows(file: Path, columns: Columns, problems: list[str]) -> Iterator[Row]:
    """Every row that can be read; what is wrong with the others is added to `problems`.

    Raises:
        PairsError: the file as a whole cannot be used.
    """
    if not file.is_file():
        kind = "is a folder" if file.is_dir() else "is not there"
        raise PairsError(
            f"{columns.setting}={file} {kind}.", f"Give a CSV, TSV, JSONL or Parquet file: {columns.setting}=FILE."
        )
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise PairsError(
            f"{file.name}: a table of {columns.of}s ends in {', '.join(SUFFIXES)}; this one in '{file.suffix}'.",
            "Save it in one of these formats.",
        )
    if suffix == ".parquet":
        yield from _parquet(file, columns)
    elif suffix == ".json":
        yield from _logged(file, columns)
    elif SUFFIXES[suffix]:
        yield from _separated(file, SUFFIXES[suffix], columns, problems)
    else:
        yield from _json_lines(file, columns, problems)


def _decode(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise PairsError(f"{file}: cannot be read ({error.strerror}).", "Check the file's permissions.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        hint = " It looks like UTF-16." if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise PairsError(
            f"{file.name}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}).{hint}",
            "Save the file as UTF-8: a guessed encoding would change the words.",
        ) from None


def _require(file: Path, wanted: Columns, seen: list[str], delimiter: str = "") -> None:
    missing = [c for c in wanted.required if c not in seen]
    if not missing:
        return
    unclaimed = [c for c in seen if c not in wanted.known]
    problems = [f"{file.name}: no column '{c}'.{nearest(c, unclaimed)}" for c in missing]
    if missing == ["group"] and "score" in seen:
        problems.append("scores do not replace groups: say which pairs are cognates and which controls.")
    found = ", ".join(f"'{c}'" for c in seen) or "none"
    problems.append(f"columns found: {found}.")
    if delimiter and len(seen) == 1:
        other = next((d for d in (";", "\t", ",") if d != delimiter and d in seen[0]), None)
        if other:
            problems.append(f"this file seems to be separated by {other!r}, not {delimiter!r}.")
            raise PairsError(
                problems, f"Save it with {delimiter!r} between its cells, or as TSV, Parquet or JSON Lines."
            )
    raise PairsError(
        problems, f"Needed: {', '.join(wanted.required)}. Optional: {', '.join(wanted.optional)}. Others are ignored."
    )


def _separated(file: Path, delimiter: str, columns: Columns, problems: list[str]) -> Iterator[Row]:
    # newline="" and csv's own line counter: a quoted cell may hold a line break
    reader = csv.reader(io.StringIO(_decode(file), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    last = 0
    try:
        for cells in reader:
            line, last = last + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _require(file, columns, header, delimiter)
                repeated = sorted({c for c in header if c and header.count(c) > 1})
                if repeated:
                    raise PairsError(f"{file.name}: column {', '.join(repeated)} occurs twice.")
                continue
            if len(cells) != len(header):
                problems.append(f"line {line}: {len(cells)} cells under {len(header)} columns.")
                continue
            yield line, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        problems.append(f"line {last + 1}: {error}.")
    if header is None:
        raise PairsError(
            f"{file.name}: the file is empty.", f"Its first line names the columns: {', '.join(columns.required)}."
        )


def _json_lines(file: Path, wanted: Columns, problems: list[str]) -> Iterator[Row]:
    columns: set[str] = set()
    rows: list[Row] = []
    for line, text in enumerate(_decode(file).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except json.JSONDecodeError as error:
            problems.append(f"line {line}: not JSON ({error.msg} at character {error.pos + 1}).")
            continue
        except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
            problems.append(f"line {line}: no JSON that anyone can read.")
            continue
        if not isinstance(cells, dict):
            problems.append(f"line {line}: a JSON object is needed, one {wanted.of} a line.")
            continue
        columns |= cells.keys()
        odd = [k for k in wanted.known if isinstance(cells.get(k), list | dict | bool)]
        problems += [f"line {line}: {k} is {json.dumps(cells[k])}, which is no text." for k in odd]
        if not odd:
            rows.append((line, cells))
    if not rows and not problems:
        raise PairsError(f"{file.name}: the file is empty.", f"One JSON object a line, one {wanted.of} an object.")
    if columns:
        _require(file, wanted, sorted(columns))
    yield from rows


def _logged(file: Path, columns: Columns) -> Iterator[Row]:
    try:
        table = json.loads(_decode(file))
        names, data = list(table["columns"]), list(table["data"])
        cells = [dict(zip(names, row, strict=True)) for row in data]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise PairsError(
            f"{file.name}: no table as runs log them ({{'columns': […], 'data': [[…], …]}}).",
            f"Save other tables as CSV, TSV, JSON Lines or Parquet, one {columns.of} a row.",
        ) from None
    _require(file, columns, names)
    yield from enumerate(cells, start=1)


def _parquet(file: Path, columns: Columns) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise PairsError(f"{file.name}: not a readable Parquet file ({error}).") from None
    _require(file, columns, table.column_names)
    keep = [c for c in columns.known if c in table.column_names]
    for line, cells in enumerate(table.select(keep).to_pylist(), start=1):
        try:  # some writers of Parquet store text as binary
            yield line, {k: v.decode("utf-8") if isinstance(v, bytes) else v for k, v in cells.items()}
        except UnicodeDecodeError:
            raise PairsError(f"{file.name}: row {line} is not UTF-8.", "Save its text as UTF-8.") from None
