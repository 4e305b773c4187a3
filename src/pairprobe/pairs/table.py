"""Pairs from a table: CSV, TSV, JSON Lines or Parquet, with one error that names every faulty line."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pairprobe.errors import PairsError, nearest
from pairprobe.pairs.reference import read_reference
from pairprobe.pairs.rows import Columns, rows, text
from pairprobe.records import COGNATE, CONTROLS, Pair, PairSet, Word

COLUMNS = Columns(
    ("word_a", "word_b", "group"),
    (
        "pair_id", "gloss_a", "gloss_b", "lang_a", "lang_b", "concept", "score", "concept_a", "concept_b", "cogset",
        "matched", "freq_a", "freq_b",
    ),
)  # fmt: skip
ALLOWED = (COGNATE, *CONTROLS)
SMALLEST_GROUP = 2  # a standard deviation needs two
LINES_SHOWN = 5  # lines named of a group that there is not
SHOWN = 25  # problems printed before the rest is only counted


@dataclass(frozen=True)
class Table:
    """A file of pairs.

    path: the file; columns word_a, word_b, group, and optionally pair_id, gloss_a, gloss_b, lang_a, lang_b, concept (of
    both words) or concept_a and concept_b, cogset (cognate set), matched (pair_id of the cognate pair that a control
    stands beside), score (a person's judgement, a finite number), freq_a, freq_b (how often each word occurs, in one
    unit for all). Other columns are ignored. Text is UTF-8 and used as it stands: no Unicode normalisation, only
    surrounding white space goes. Pairs without a pair_id are numbered in order. name: null takes the file's stem.
    citation: whom to cite for it. reference: a table of further words, in no pair, for similarities that need a
    vocabulary: columns word, and optionally gloss, lang, concept.

    Groups and scores go together: a score says how alike people find two words, and is compared with the similarities
    of all pairs that have one, whatever their group. Groups are needed nevertheless: scores alone answer no question
    about cognates, and half of a table called 'cognate' at random would be a lie.

    The same two words, in either order, are cognates or a control, not both: what is measured of them is one number.
    Two kinds of control may share a pair, and words that differ in language, gloss or concept are other words.

    Raises PairsError with every problem of the file and its line.
    """

    path: str = "???"
    name: str | None = None
    citation: str = ""
    reference: str | None = None

    def read(self) -> PairSet:
        file = Path(self.path)
        name = self.name or file.stem
        problems: list[str] = []
        in_rows = 0  # problems inside rows; the others are of rows that could not be read as such
        pairs: list[Pair] = []
        groups: list[str] = []  # of all rows that could be read, those with problems too
        first_line: dict[str, int] = {}
        stands: dict[frozenset[Any], dict[tuple[str, ...], int]] = {}
        unknown: dict[str, list[int]] = {}  # group that there is not → its lines
        told_at: dict[str, int] = {}  # the same → its place among the problems, that of its first line
        for number, (line, cells) in enumerate(rows(file, COLUMNS, problems), start=1):
            before = len(problems)
            pair = _pair(cells, line, f"{name}_{number:04d}", problems)
            group = text(cells.get("group"))
            groups.append(_meant(group))
            if group not in ALLOWED:
                unknown.setdefault(group, []).append(line)
                if group not in told_at:
                    told_at[group] = len(problems)
                    problems.append("")
                pair = None
            if pair is not None and pair.id in first_line:
                problems.append(f"line {line}: pair_id '{pair.id}' occurs already in line {first_line[pair.id]}.")
            elif pair is not None:
                first_line[pair.id] = line
                pairs.append(pair)
                problems += _contrary(pair, line, stands)
            in_rows += len(problems) - before
        of_groups = _lacking(groups) if in_rows == len(problems) else []  # else what is lacking may be there, unread
        for group, place in told_at.items():
            problems[place] = _no_such_group(group, unknown[group])
        if problems or of_groups:
            shown = [*problems[: SHOWN - len(of_groups)], *of_groups]
            problems += of_groups
            if len(problems) > len(shown):
                shown.append(f"… and {len(problems) - len(shown)} more.")
            head = f"{file.name}: {len(problems)} problem{'s' * (len(problems) > 1)} in this table of pairs."
            raise PairsError([head, *shown], "Mend the file, or choose another with pairs.path=FILE.")
        scored = sum(p.score is not None for p in pairs)
        about = {"scores": f"{scored} of {len(pairs)} pairs have one"} if scored else {}
        words = read_reference(self.reference, pairs) if self.reference else ()
        if words:
            about["reference"] = f"{len(words)} words of {Path(str(self.reference)).name}, in no pair"
        return PairSet(name, tuple(pairs), str(file), self.citation, about, reference=words)


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


def _no_such_group(group: str, lines: list[int]) -> str:
    """One sentence for all rows of a group that there is not: it is usually one mistake, made in a whole column."""
    first = ", ".join(map(str, lines[:LINES_SHOWN]))
    more = f" and {len(lines) - LINES_SHOWN} more" if len(lines) > LINES_SHOWN else ""
    where = f"line {first}" if len(lines) == 1 else f"{len(lines)} rows, lines {first}{more}"
    return f"{where}: unknown group '{group}'; allowed: {', '.join(ALLOWED)}." + nearest(group, ALLOWED)


def _contrary(pair: Pair, line: int, stands: dict[frozenset[Any], dict[tuple[str, ...], int]]) -> list[str]:
    """That an earlier row gives the same two words as the contrary of this one: as cognates, or as a control.

    stands: two words → group and what both mean → the first line that says so; this row is added.
    """
    words = sorted((w.form, w.lang, w.gloss, w.concept or pair.concept) for w in (pair.a, pair.b))
    meant = tuple(concept for *_, concept in words)
    earlier = stands.setdefault(frozenset((form, lang, gloss) for form, lang, gloss, _ in words), {})
    found = [
        f"line {line}: {pair.a.form} – {pair.b.form} is given as {pair.group} here and as {group} in line {first}; a "
        "pair is cognate or a control, not both."
        for (group, *concepts), first in earlier.items()
        if COGNATE in (group, pair.group) and group != pair.group
        if all(x == y or "" in (x, y) for x, y in zip(meant, concepts, strict=True))
    ]
    earlier.setdefault((pair.group, *meant), line)
    return found[:1]


def _pair(cells: dict[str, Any], line: int, own_id: str, problems: list[str]) -> Pair | None:
    before = len(problems)
    of = {key: text(cells.get(key)) for key in COLUMNS.known}
    for key in ("word_a", "word_b"):
        if not of[key]:
            problems.append(f"line {line}: {key} is empty.")
    score = _number("score", of["score"], line, problems)
    often = [_number(key, of[key], line, problems) for key in ("freq_a", "freq_b")]
    problems += [f"line {line}: a frequency of {f:g} cannot be; allowed: 0 or more." for f in often if f and f < 0]
    if len(problems) > before:
        return None
    return Pair(
        id=of["pair_id"] or own_id,
        group=of["group"],
        a=Word(of["word_a"], of["gloss_a"], of["lang_a"], of["concept_a"], often[0]),
        b=Word(of["word_b"], of["gloss_b"], of["lang_b"], of["concept_b"], often[1]),
        concept=of["concept"],
        score=score,
        cogset=of["cogset"],
        matched=of["matched"],
    )


def _number(key: str, cell: str, line: int, problems: list[str]) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        problems.append(f"line {line}: {key} '{cell}' is not a finite number.")
        return None
    return value
