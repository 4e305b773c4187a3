"""Pairs from a table: CSV, TSV, JSON Lines or Parquet, with one error that names every faulty line."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pairprobe.errors import PairsError, nearest
from pairprobe.records import COGNATE, CONTROLS, Pair, PairSet, Word

REQUIRED = ("word_a", "word_b", "group")
OPTIONAL = ("pair_id", "gloss_a", "gloss_b", "lang_a", "lang_b", "concept", "score", "freq_a", "freq_b")
SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".parquet": ""}
ALLOWED = (COGNATE, *CONTROLS)
SMALLEST_GROUP = 2  # a standard deviation needs two
SHOWN = 25  # problems printed before the rest is only counted

Row = tuple[int, dict[str, Any]]  # (line in the file, 1-based; or row in Parquet), cells by column


@dataclass(frozen=True)
class Table:
    """A file of pairs.

    path: the file; columns word_a, word_b, group, and optionally pair_id, gloss_a, gloss_b, lang_a, lang_b, concept,
    score, freq_a, freq_b (how often each word occurs, in one unit for all). Other columns are ignored. Text is UTF-8
    and used as it stands: no Unicode normalisation, only surrounding white space goes. Pairs without a pair_id
    are numbered in order. name: null takes the file's stem. citation: whom to cite for it.

    Raises PairsError with every problem of the file and its line.
    """

    path: str = "???"
    name: str | None = None
    citation: str = ""

    def read(self) -> PairSet:
        file = Path(self.path)
        name = self.name or file.stem
        problems: list[str] = []
        in_rows = 0  # problems inside rows; the others are of rows that could not be read as such
        pairs: list[Pair] = []
        groups: list[str] = []  # of all rows that could be read, those with problems too
        first_line: dict[str, int] = {}
        for number, (line, cells) in enumerate(_rows(file, problems), start=1):
            before = len(problems)
            pair = _pair(cells, line, f"{name}_{number:04d}", problems)
            groups.append(_meant(_text(cells.get("group"))))
            if pair is not None and pair.id in first_line:
                problems.append(f"line {line}: pair_id '{pair.id}' occurs already in line {first_line[pair.id]}.")
            elif pair is not None:
                first_line[pair.id] = line
                pairs.append(pair)
            in_rows += len(problems) - before
        of_groups = _lacking(groups) if in_rows == len(problems) else []  # else what is lacking may be there, unread
        if problems or of_groups:
            shown = [*problems[: SHOWN - len(of_groups)], *of_groups]
            problems += of_groups
            if len(problems) > len(shown):
                shown.append(f"… and {len(problems) - len(shown)} more.")
            head = f"{file.name}: {len(problems)} problem{'s' * (len(problems) > 1)} in this table of pairs."
            raise PairsError([head, *shown], "Mend the file, or choose another with pairs.path=FILE.")
        return PairSet(name, tuple(pairs), str(file), self.citation)


def sizes_problems(pairs: PairSet) -> list[str]:
    """What keeps these groups from being compared: no cognates, no controls, a group of one."""
    return _lacking([p.group for p in pairs.pairs])


def _lacking(groups: list[str]) -> list[str]:
    """The same for the groups of rows, '' where it is not known which was meant."""
    if not groups:
        return ["there are no pairs."]
    sizes = Counter({COGNATE: 0})
    sizes.update(groups)
    unknown = sizes.pop("", 0)  # these may be what else would be lacking
    problems = []
    if sizes[COGNATE] == 0 and not unknown:
        problems.append(f"no pair is in group '{COGNATE}': there is nothing to compare the controls with.")
    if len(sizes) == 1 and not unknown:
        problems.append(
            f"every pair is in group '{COGNATE}': without a control group ({', '.join(CONTROLS)}) "
            "a similarity has nothing to be compared with."
        )
    problems += [
        f"group '{group}' has {n} pair; at least {SMALLEST_GROUP} are needed for a spread."
        for group, n in sizes.items()
        if 0 < n < SMALLEST_GROUP
    ]
    return problems


def _meant(group: str) -> str:
    """The group itself, or the one that a misspelt word stands for; '' where that is not clear."""
    return group if group in ALLOWED else next(iter(get_close_matches(group, ALLOWED, n=1)), "")


def _pair(cells: dict[str, Any], line: int, own_id: str, problems: list[str]) -> Pair | None:
    before = len(problems)
    text = {key: _text(cells.get(key)) for key in (*REQUIRED, *OPTIONAL)}
    for key in ("word_a", "word_b"):
        if not text[key]:
            problems.append(f"line {line}: {key} is empty.")
    group = text["group"]
    if group not in ALLOWED:
        problems.append(
            f"line {line}: unknown group '{group}'; allowed: {', '.join(ALLOWED)}." + nearest(group, ALLOWED)
        )
    score = _number("score", text["score"], line, problems)
    often = [_number(key, text[key], line, problems) for key in ("freq_a", "freq_b")]
    problems += [f"line {line}: a frequency of {f:g} cannot be; allowed: 0 or more." for f in often if f and f < 0]
    if len(problems) > before:
        return None
    return Pair(
        id=text["pair_id"] or own_id,
        group=group,
        a=Word(text["word_a"], text["gloss_a"], text["lang_a"], frequency=often[0]),
        b=Word(text["word_b"], text["gloss_b"], text["lang_b"], frequency=often[1]),
        concept=text["concept"],
        score=score,
    )


def _number(key: str, text: str, line: int, problems: list[str]) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        problems.append(f"line {line}: {key} '{text}' is not a finite number.")
        return None
    return value


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return str(cell).strip()


def _rows(file: Path, problems: list[str]) -> Iterator[Row]:
    if not file.is_file():
        kind = "is a folder" if file.is_dir() else "is not there"
        raise PairsError(f"pairs.path={file} {kind}.", "Give a CSV, TSV, JSONL or Parquet file: pairs.path=FILE.")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise PairsError(
            f"{file.name}: a table of pairs ends in {', '.join(SUFFIXES)}; this one in '{file.suffix}'.",
            "Save it in one of these formats.",
        )
    if suffix == ".parquet":
        yield from _parquet(file)
    elif SUFFIXES[suffix]:
        yield from _separated(file, SUFFIXES[suffix], problems)
    else:
        yield from _json_lines(file, problems)


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


def _require_columns(file: Path, columns: list[str], delimiter: str = "") -> None:
    missing = [c for c in REQUIRED if c not in columns]
    if not missing:
        return
    unclaimed = [c for c in columns if c not in (*REQUIRED, *OPTIONAL)]
    problems = [f"{file.name}: no column '{c}'.{nearest(c, unclaimed)}" for c in missing]
    seen = ", ".join(f"'{c}'" for c in columns) or "none"
    problems.append(f"columns found: {seen}.")
    if delimiter and len(columns) == 1:
        other = next((d for d in (";", "\t", ",") if d != delimiter and d in columns[0]), None)
        if other:
            problems.append(f"this file seems to be separated by {other!r}, not {delimiter!r}.")
            raise PairsError(problems, f"Save it with {delimiter!r} between its cells, or as Parquet or JSON Lines.")
    raise PairsError(problems, f"Needed: {', '.join(REQUIRED)}. Optional: {', '.join(OPTIONAL)}. Others are ignored.")


def _separated(file: Path, delimiter: str, problems: list[str]) -> Iterator[Row]:
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
                _require_columns(file, header, delimiter)
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
            f"{file.name}: the file is empty.", f"Its first line names the columns: {', '.join(REQUIRED)}."
        )


def _json_lines(file: Path, problems: list[str]) -> Iterator[Row]:
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
            problems.append(f"line {line}: a JSON object is needed, one pair a line.")
            continue
        columns |= cells.keys()
        odd = [k for k in (*REQUIRED, *OPTIONAL) if isinstance(cells.get(k), list | dict | bool)]
        problems += [f"line {line}: {k} is {json.dumps(cells[k])}, which is no text." for k in odd]
        if not odd:
            rows.append((line, cells))
    if not rows and not problems:
        raise PairsError(f"{file.name}: the file is empty.", "One JSON object a line, one pair an object.")
    if columns:
        _require_columns(file, sorted(columns))
    yield from rows


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise PairsError(f"{file.name}: not a readable Parquet file ({error}).") from None
    _require_columns(file, table.column_names)
    keep = [c for c in (*REQUIRED, *OPTIONAL) if c in table.column_names]
    for line, cells in enumerate(table.select(keep).to_pylist(), start=1):
        try:  # some writers of Parquet store text as binary
            yield line, {k: v.decode("utf-8") if isinstance(v, bytes) else v for k, v in cells.items()}
        except UnicodeDecodeError:
            raise PairsError(f"{file.name}: row {line} is not UTF-8.", "Save its text as UTF-8.") from None
