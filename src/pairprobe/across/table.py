"""Runs as a table for a paper: one row per run in LaTeX (booktabs), Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairprobe import disk
from pairprobe.across.comparison import differing
from pairprobe.across.runs import Recorded
from pairprobe.errors import ConfigError, StoreError
from pairprobe.outcomes import Interval, p_text, signed
from pairprobe.records import COGNATE

#: Settings that the table's own columns show, or that change no number.
SHOWN = ("model.", "execution.weights", "experiment.", "tracking.", "version/", "method.name", "pairs.name")
#: Between overrides; their values may hold spaces.
KEY = re.compile(r" (?=[\w.@/]+=)")
LONGEST = 40  # of a setting's value


@dataclass(frozen=True)
class Row:
    """One run's primary outcome. None: undefined, or not recorded. setting: what tells it from rows like it."""

    run: str
    model: str
    weights: str
    method: str
    setting: str
    pairs: str
    n_cognate: int
    n_control: int
    control: str
    similarity: str
    depth: int
    delta: float | None
    interval: Interval | None
    confidence: float
    g: float | None
    p: float | None
    p_max_t: float | None
    auc: float | None
    verdict: str


def rows(runs: Sequence[Recorded]) -> list[Row]:
    """The rows of a table, in the order of the runs."""
    return [
        Row(
            run=r.run_id, model=r.tags.get("model", r.name), weights=r.weights, method=r.tags.get("method", ""),
            setting=setting, pairs=r.pair_set.name, n_cognate=_size(r, COGNATE), n_control=_size(r, r.control),
            control=r.control, similarity=r.similarity, depth=r.depth, delta=r.number("delta"),
            interval=r.interval("delta"), confidence=r.confidence, g=r.number("hedges_g"), p=r.number("p"),
            p_max_t=r.number("p_max_t"), auc=r.number("auc"), verdict=r.tags.get("verdict", ""),
        )
        for r, setting in zip(runs, _settings(runs), strict=True)
    ]  # fmt: skip


def _size(run: Recorded, group: str) -> int:
    return sum(p.group == group for p in run.pair_set.pairs)


def _settings(runs: Sequence[Recorded]) -> list[str]:
    """What was swept, less what the columns show; else the names of groups that differ."""
    swept = [
        [w for w in KEY.split(r.swept) if not w.startswith(("model=", "method=", "pairs=", "execution.weights="))]
        for r in runs
    ]
    if all(r.swept for r in runs):
        return [" ".join(words) for words in swept]
    found = [d for d in differing(runs) if "." in d.key and not d.key.startswith(SHOWN)]
    named = {d.key.split(".")[0] for d in found if d.key.endswith(".name")}
    kept = [d for d in found if d.key.endswith(".name") or d.key.split(".")[0] not in named]
    kept = [d for d in kept if not d.key.startswith(("similarity.", "statistics.")) and "(absent)" not in d.values]
    return [
        " ".join(f"{d.key.removesuffix('.name')}={_shortened(d.values[i])}" for d in kept) for i in range(len(runs))
    ]


def _shortened(value: str) -> str:
    return value if len(value) <= LONGEST else f"…{value[1 - LONGEST :]}"


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────


def _header(rows: Sequence[Row]) -> list[str]:
    levels = {r.confidence for r in rows}
    level = f"{100 * levels.pop():g} % interval" if len(levels) == 1 else "interval"
    return ["model", "weights", "method", "setting", "pairs", "n", "similarity", "depth", "Δ", level, "g", "p",
            "p max-T", "AUC", "verdict"]  # fmt: skip


def _cells(row: Row) -> list[tuple[str, bool]]:
    """(text, whether it is a number) of every column; '–' for what is undefined."""

    def number(value: float | None, digits: int) -> tuple[str, bool]:
        return (signed(value, digits), True) if value is not None else ("–", False)

    def p(value: float | None) -> tuple[str, bool]:
        return (p_text(value).removeprefix("= "), True) if value is not None else ("–", False)

    interval = (str(row.interval), True) if row.interval else ("–", False)
    auc = (f"{row.auc:.2f}", True) if row.auc is not None else ("–", False)
    return [
        (row.model, False), (row.weights or "–", False), (row.method, False), (row.setting, False),
        (row.pairs, False), (f"{row.n_cognate} / {row.n_control}", True), (row.similarity, False),
        (str(row.depth), True), number(row.delta, 3), interval, number(row.g, 2), p(row.p), p(row.p_max_t), auc,
        (row.verdict or "–", False),
    ]  # fmt: skip


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Header and cells without columns that are empty in every row."""
    header, body = _header(rows), [_cells(r) for r in rows]
    kept = [i for i in range(len(header)) if any(cells[i][0] for cells in body)]
    return [header[i] for i in kept], [[cells[i] for i in kept] for cells in body]


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}", "–": "--", "—": "---", "−": r"$-$",
    "Δ": r"$\Delta$", "×": r"$\times$", "·": r"$\cdot$", "…": r"\dots{}", "\n": " ", "\r": " ", "\t": " ",
}  # fmt: skip
_MARKDOWN = frozenset("\\`*_{}[]<>|#~")


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it is, character by character, so that no escape is escaped again.

    Square brackets are put in braces: after `\\\\` a bracket would be an option of the line's end.
    """
    return "".join(_LATEX.get(c, c) for c in text)


def latex(rows: Sequence[Row]) -> str:
    """A tabular of booktabs; which runs it holds stands in a comment."""
    header, body = _columns(rows)
    numbers = [all(cells[i][1] or cells[i][0] == "–" for cells in body) and any(c[i][1] for c in body)
               for i in range(len(header))]  # fmt: skip

    def cell(text: str, number: bool) -> str:
        if not number:
            return latex_text(text)
        return f"${text.replace('−', '-').replace('< ', '<')}$"

    names = {"g": "$g$", "p": "$p$", "n": "$n$", "p max-T": r"$p$ max-$T$"}
    lines = [
        r"% needs \usepackage{booktabs}; n: cognate / control pairs",
        *(f"% row {i}: run {r.run}, control group {' '.join(r.control.split())}" for i, r in enumerate(rows, start=1)),
        rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numbers)}}}",
        r"\toprule",
        " & ".join(names.get(h, latex_text(h)) for h in header) + r" \\",
        r"\midrule",
        *(" & ".join(cell(*c) for c in cells) + r" \\" for cells in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, in one cell."""
    return "".join(f"\\{c}" if c in _MARKDOWN else " " if c in "\r\n\t" else c for c in text)


def markdown(rows: Sequence[Row]) -> str:
    """A table as GitHub and Pandoc read it; numbers to the right."""
    header, body = _columns(rows)
    right = [any(c[i][1] for c in body) for i in range(len(header))]
    lines = [
        "| " + " | ".join(header) + " |",
        "| " + " | ".join("---:" if r else "---" for r in right) + " |",
        *("| " + " | ".join(t if number else markdown_text(t) for t, number in cells) + " |" for cells in body),
    ]
    return "\n".join(lines) + "\n"


def _plain(row: Row) -> dict[str, Any]:
    """Numbers as they are, the interval as its two ends."""
    found: dict[str, Any] = {}
    for key, value in vars(row).items():
        if key == "interval":
            found |= {"delta_ci_low": value.low if value else None, "delta_ci_high": value.high if value else None}
        else:
            found[key] = value
    return found


def as_csv(rows: Sequence[Row]) -> str:
    """Comma-separated, unrounded; an undefined number is an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(_plain(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in _plain(r).items()} for r in rows)
    return out.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    """A list of objects, unrounded; an undefined number is null."""
    return json.dumps([_plain(r) for r in rows], ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    ".tex": latex, ".md": markdown, ".csv": as_csv, ".json": as_json,
}  # fmt: skip


def check(file: Path) -> None:
    """Can a table be written there? Asked before anything is computed.

    Raises:
        ConfigError: an ending of no format, or a place that cannot be written.
    """
    if file.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"--table is {file}; its ending says the format. Allowed: {', '.join(FORMATS)}.",
            f"For example: --table {file.with_suffix('.tex').name}",
        )
    if file.is_dir():
        raise ConfigError(f"--table is {file}, which is a folder.", "Give a file in it.")
    reason = "there is no such folder" if not file.parent.is_dir() else disk.unwritable(file.parent)
    if reason:
        raise ConfigError(f"--table is {file}, and {file.parent} cannot be written ({reason}).", "Give another place.")


def write(runs: Sequence[Recorded], file: Path) -> None:
    """Write the table in the format of the file's ending.

    Raises:
        StoreError: it cannot be written.
    """
    text = FORMATS[file.suffix.lower()](rows(runs))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{file} cannot be written ({error.strerror or error}). What is printed above is complete.",
            "Give another place: --table FILE",
        ) from None
