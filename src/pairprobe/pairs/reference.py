"""A reference vocabulary from a table: words of the pairs' languages that occur in no pair, one a line.

Similarities that centre, scale or rank need to know how vectors of other words lie; were the pairs' own words among
them, a result would partly be about itself. So a shared word or meaning is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pairprobe.errors import PairsError
from pairprobe.pairs.rows import Columns, rows, text
from pairprobe.records import Pair, Word

COLUMNS = Columns(("word",), ("gloss", "lang", "concept"), "pairs.reference", "word")
SHOWN = 10


def read_reference(path: str, pairs: Sequence[Pair]) -> tuple[Word, ...]:
    """The words, in the order of the file.

    Raises:
        PairsError: with every faulty line, and the words whose form or concept is in a pair.
    """
    file = Path(path)
    problems: list[str] = []
    words: dict[tuple[str, str], Word] = {}
    forms = {w.form for p in pairs for w in (p.a, p.b)}
    concepts = {c for p in pairs for c in (p.concept, p.a.concept, p.b.concept) if c}
    overlap: list[str] = []
    for line, cells in rows(file, COLUMNS, problems):
        form, gloss, lang, concept = (text(cells.get(key)) for key in COLUMNS.known)
        if not form:
            problems.append(f"line {line}: word is empty.")
        elif (lang, form) in words:
            problems.append(f"line {line}: '{form}' occurs already.")
        elif form in forms:
            overlap.append(f"'{form}'")
        elif concept in concepts:
            overlap.append(f"'{form}' (concept {concept})")
        words.setdefault((lang, form), Word(form, gloss, lang, concept))
    if overlap:
        more = f" and {len(overlap) - SHOWN} more" if len(overlap) > SHOWN else ""
        problems.append(f"{len(overlap)} of its words are also in the pairs: {', '.join(overlap[:SHOWN])}{more}.")
    if problems:
        rest = [f"… and {len(problems) - SHOWN - 1} more."] if len(problems) > SHOWN + 1 else []
        shown = [*problems[:SHOWN], *problems[SHOWN:][-1:]]
        head = f"{file.name}: {len(problems)} problem{'s' * (len(problems) > 1)} in this reference vocabulary."
        raise PairsError([head, *shown, *rest], "Mend the file; a reference vocabulary shares nothing with the pairs.")
    if not words:
        raise PairsError(f"{file.name}: there are no words in it.", "One word a line, under the column 'word'.")
    return tuple(words.values())
