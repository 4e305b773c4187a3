"""Pairs: four file formats, one pair set; every fault of a table told at once, by line."""

import csv
import hashlib
import json
import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pairprobe.errors import PairsError
from pairprobe.pairs.pie_oc import PieOc
from pairprobe.pairs.pie_oc_modern import PieOcModern
from pairprobe.pairs.reference import read_reference
from pairprobe.pairs.table import SHOWN, Table
from pairprobe.records import COGNATE, Pair, PairSet, Similarities, Word
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.scores import score_checks
from pairprobe.statistics.units import clusters

HEADER = ("pair_id", "group", "word_a", "gloss_a", "lang_a", "word_b", "gloss_b", "lang_b", "concept", "score")
ROWS = (
    ("p1", "cognate", "*kʷel-", "wheel, cycle", "PIE", "*kʰʷeːŋ", "環/轮", "OC", "WHEEL", "0.5"),
    ("p2", "cognate", "*ḱwṓ", 'the "hound"', "PIE", "*mˤaʔ", "犬", "OC", "DOG", ""),
    ("p3", "control", "*h₁ék̂wos", "horse", "PIE", "*baʔ", "父", "OC", "", "-1"),
    ("p4", "control", "*pH₂tḗr", "father", "PIE", "*suːl", "雪", "OC", "", ""),
    ("p5", "unrelated", "Haus", "house", "de", "кот", "cat", "ru", "", "2e-3"),
    ("p6", "unrelated", "Mond", "moon", "de", "пёс", "dog", "ru", "", ""),
)
PAIRS = tuple(
    Pair(i, group, Word(a, ga, la), Word(b, gb, lb), concept, float(score) if score else None)
    for i, group, a, ga, la, b, gb, lb, concept, score in ROWS
)
NEEDED = "word_a,word_b,group\n"
GOOD = "a,b,cognate\nc,d,cognate\ne,f,control\ng,h,control\n"


def write(folder: Path, suffix: str) -> Path:
    """ROWS in the format of `suffix`, each the way its own ecosystem writes it."""
    file = folder / f"set{suffix}"
    records = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    if suffix in (".csv", ".tsv"):
        with file.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, delimiter="," if suffix == ".csv" else "\t").writerows([HEADER, *ROWS])
    elif suffix == ".parquet":
        typed = [{**r, "score": float(r["score"]) if r["score"] else None} for r in records]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(typed), file)
    else:
        typed = [{**r, "score": float(r["score"]) if r["score"] else None} for r in records]
        file.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in typed), encoding="utf-8")
    return file


def saved(folder: Path, content: str | bytes, name: str = "set.csv") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read(file: Path) -> PairSet:
    return Table(path=str(file), name="set").read()


def problems_of(file: Path) -> tuple[str, ...]:
    with pytest.raises(PairsError) as caught:
        read(file)
    return caught.value.problems


# ── the same pairs from every format ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_every_format_gives_the_same_pairs(tmp_path, suffix):
    pairs = read(write(tmp_path, suffix))
    assert pairs.pairs == PAIRS
    assert pairs.sha256 == PairSet("any name", PAIRS, "any source").sha256


def test_the_suffix_may_be_written_in_capitals(tmp_path):
    assert len(read(saved(tmp_path, NEEDED + GOOD, "SET.CSV")).pairs) == 4


def test_the_set_is_named_after_its_file_and_remembers_where_it_came_from(tmp_path):
    file = saved(tmp_path, NEEDED + GOOD, "mine.csv")
    pairs = Table(path=str(file), citation="me").read()
    assert (pairs.name, pairs.source, pairs.citation) == ("mine", str(file), "me")


def test_sizes_put_cognates_first_whatever_the_order_of_the_file(tmp_path):
    turned = NEEDED + "".join(reversed((GOOD + "i,j,shuffled\nk,l,shuffled\n").splitlines(keepends=True)))
    pairs = read(saved(tmp_path, turned))
    assert list(pairs.sizes.items()) == [("cognate", 2), ("shuffled", 2), ("control", 2)]
    assert pairs.controls == ("shuffled", "control")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_does_not_become_part_of_the_first_column(tmp_path, suffix):
    file = write(tmp_path, suffix)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read(file).pairs == PAIRS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_are_read(tmp_path, end):
    pairs = read(saved(tmp_path, (NEEDED + GOOD).replace("\n", end)))
    assert [p.b.form for p in pairs.pairs] == ["b", "d", "f", "h"]


def test_other_columns_are_ignored(tmp_path):
    pairs = read(saved(tmp_path, "note,word_a,word_b,group\n" + "".join(f"x,{r}\n" for r in GOOD.split())))
    assert pairs.pairs[0] == Pair("set_0001", "cognate", Word("a"), Word("b"))


def test_pairs_without_ids_are_numbered_in_order_whatever_the_format(tmp_path):
    pairs = read(saved(tmp_path, NEEDED + "\n" + GOOD))
    assert [p.id for p in pairs.pairs] == ["set_0001", "set_0002", "set_0003", "set_0004"]


# ── forms are kept as given ──────────────────────────────────────────────────────────────────────────────

FORMS = {
    "composed": "ḗ",
    "decomposed": "e\u0304\u0301",
    "modifier letters": "kʷʰˤ",
    "subscripts": "h₁h₂H₃",
    "compatibility": "ﬁ①",  # NFKC would write 'fi1'
    "marks with no composed letter": "r̥k̂",
    "private use": "\ue000",
    "joiner": "a\u200db",
    "inner space": "ab  c",
    "outside the first plane": "𐎠𐤀",
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_forms_are_kept_byte_for_byte(tmp_path, suffix, form):
    rows = [dict(zip(("word_a", "word_b", "group"), r.split(","), strict=True)) for r in GOOD.split()]
    rows[0]["word_a"] = form
    file = tmp_path / f"set{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif suffix == ".jsonl":
        file.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    else:
        between = "," if suffix == ".csv" else "\t"
        lines = [between.join(rows[0]), *(between.join(r.values()) for r in rows)]
        file.write_text("\n".join(lines), encoding="utf-8")
    assert read(file).pairs[0].a.form.encode() == form.encode()


def test_composed_and_decomposed_forms_are_different_words(tmp_path):
    composed, decomposed = FORMS["composed"], FORMS["decomposed"]
    assert unicodedata.normalize("NFC", decomposed) == composed  # they look alike
    pairs = read(saved(tmp_path, NEEDED + f"{composed},{decomposed},cognate\n" + GOOD))
    assert pairs.pairs[0].a != pairs.pairs[0].b


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b"], ids=["U+2028", "U+0085", "U+000B"])
def test_only_line_feeds_and_returns_end_a_line(tmp_path, suffix, mark):
    # str.splitlines would break the row here; JSON lets the first two stand unescaped
    cell = json.dumps(f"a{mark}z", ensure_ascii=False)
    first = {".csv": f"a{mark}z,b,cognate\n", ".jsonl": f'{{"word_a": {cell}, "word_b": "b", "group": "cognate"}}\n'}
    rows = [dict(zip(("word_a", "word_b", "group"), r.split(","), strict=True)) for r in GOOD.split()]
    rest = {".csv": GOOD, ".jsonl": "\n".join(json.dumps(r) for r in rows)}
    head = NEEDED if suffix == ".csv" else ""
    pairs = read(saved(tmp_path, head + first[suffix] + rest[suffix], f"set{suffix}"))
    assert pairs.pairs[0].a.form == f"a{mark}z"
    assert len(pairs.pairs) == 5


def test_surrounding_white_space_goes(tmp_path):
    pairs = read(saved(tmp_path, NEEDED + " a\t,\u00a0b, cognate \n" + GOOD))
    assert (pairs.pairs[0].a.form, pairs.pairs[0].b.form, pairs.pairs[0].group) == ("a", "b", COGNATE)


def test_numbers_in_parquet_and_json_become_text(tmp_path):
    # an id column of integers is what pandas writes
    rows = [
        {"pair_id": n, "word_a": f"a{n}", "word_b": n, "group": "cognate" if n < 2 else "control"} for n in range(4)
    ]
    file = tmp_path / "set.parquet"
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, file)
    lines = tmp_path / "set.jsonl"
    lines.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    assert read(file).pairs == read(lines).pairs
    assert [(p.id, p.b.form) for p in read(file).pairs] == [("0", "0"), ("1", "1"), ("2", "2"), ("3", "3")]


def test_parquet_text_stored_as_bytes_is_read_as_text(tmp_path):
    # some writers store text as binary; str() of it would probe the word "b'*k\\xca\\xb7el-'"
    file = tmp_path / "set.parquet"
    table = pyarrow.table(
        {
            "word_a": pyarrow.array(["*kʷel-".encode(), b"c", b"e", b"g"], pyarrow.binary()),
            "word_b": ["b", "d", "f", "h"],
            "group": ["cognate", "cognate", "control", "control"],
        }
    )
    pyarrow.parquet.write_table(table, file)
    assert read(file).pairs[0].a.form == "*kʷel-"


# ── what is wrong, and where ─────────────────────────────────────────────────────────────────────────────


def test_one_error_lists_every_fault_with_its_line(tmp_path):
    file = saved(
        tmp_path,
        "pair_id,word_a,word_b,group,score\n"
        "one,a,b,cognate,1\n"
        "one,c,d,cognate,\n"  # 3: id again
        "two,e,,control,\n"  # 4: no second word
        "three, ,\t,control,\n"  # 5: neither word
        "four,g,h,cognat,\n"  # 6: group misspelt
        "five,i,j,control\n"  # 7: a cell short
        "six,k,l,control,,\n"  # 8: a cell too many
        "seven,m,n,control,high\n"  # 9: no number
        "eight,o,p,control,inf\n",  # 10: not finite
    )
    head, *problems = problems_of(file)
    assert head == "set.csv: 9 problems in this table of pairs."
    assert problems == [
        "line 3: pair_id 'one' occurs already in line 2.",
        "line 4: word_b is empty.",
        "line 5: word_a is empty.",
        "line 5: word_b is empty.",
        "line 6: unknown group 'cognat'; allowed: cognate, control, same_concept, form_matched, shuffled, "
        "unrelated. Did you mean 'cognate'?",
        "line 7: 4 cells under 5 columns.",
        "line 8: 6 cells under 5 columns.",
        "line 9: score 'high' is not a finite number.",
        "line 10: score 'inf' is not a finite number.",
    ]


def test_faults_beyond_the_shown_ones_are_counted(tmp_path):
    file = saved(tmp_path, NEEDED + ",b,control\n" * (SHOWN + 5) + "c,d,cognate\n" * 2)
    head, *problems = problems_of(file)
    assert head == f"set.csv: {SHOWN + 5} problems in this table of pairs."
    assert len(problems) == SHOWN + 1
    assert problems[-1] == "… and 5 more."


def test_a_wrong_group_name_is_one_problem_however_many_rows_it_stands_in(tmp_path):
    rows = "a,b,cognate\nc,d,cognate\n" + "e,f,controls\n" * 12
    (problem,) = problems_of(saved(tmp_path, NEEDED + rows))[1:]
    assert problem == (
        "12 rows, lines 4, 5, 6, 7, 8 and 7 more: unknown group 'controls'; allowed: cognate, control, same_concept, "
        "form_matched, shuffled, unrelated. Did you mean 'control'?"
    )


def test_a_pair_given_both_as_cognate_and_as_control_is_refused_with_both_lines(tmp_path):
    rows = "a,b,cognate\nc,d,cognate\nb,a,control\ne,f,control\ne,f,unrelated\ng,h,unrelated\nc,d,unrelated\n"
    assert list(problems_of(saved(tmp_path, NEEDED + rows))[1:]) == [
        "line 4: b – a is given as control here and as cognate in line 2; a pair is cognate or a control, not both.",
        "line 8: c – d is given as unrelated here and as cognate in line 3; a pair is cognate or a control, not both.",
    ]


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (("en", "", ""), ("sv", "", ""), False),
        (("en", "bank", ""), ("en", "bench", ""), False),
        (("en", "", "BANK"), ("en", "", "BENCH"), False),
        (("en", "", "BANK"), ("en", "", "BANK"), True),
        (("en", "", "BANK"), ("en", "", ""), True),  # not said to be another
    ],
)
def test_words_of_another_language_gloss_or_concept_are_another_pair(tmp_path, first, second, refused):
    rows = "".join(
        f"bank,Bank,{group},{lang},{gloss},{concept}\n"
        for group, (lang, gloss, concept) in (("cognate", first), ("control", second))
    )
    others = "c,d,cognate,,,\ne,f,control,,,\n"
    file = saved(tmp_path, f"word_a,word_b,group,lang_a,gloss_a,concept\n{rows}{others}")
    if refused:
        assert "line 3: bank – Bank is given as control here and as cognate in line 2" in problems_of(file)[1]
    else:
        assert len(Table(str(file)).read().pairs) == 4


FAULTY = "a,b,cognate\nc,,cognate\n"  # line 3 lacks a word


def test_groups_that_are_too_small_are_told_beside_the_faults_of_rows(tmp_path):
    assert problems_of(saved(tmp_path, NEEDED + FAULTY + "e,f,control\ng,h,shuffled\ni,j,shuffled\n"))[1:] == (
        "line 3: word_b is empty.",
        "group 'control' has 1 pair; at least 2 are needed for a spread.",
    )


def test_a_row_with_a_fault_still_counts_for_its_group(tmp_path):
    rows = FAULTY + "e,f,control\n,h,control\n"
    assert problems_of(saved(tmp_path, NEEDED + rows))[1:] == ("line 3: word_b is empty.", "line 5: word_a is empty.")


def test_a_misspelt_group_counts_as_the_one_that_was_meant(tmp_path):
    (problem,) = problems_of(saved(tmp_path, NEEDED + "a,b,cognat\nc,d,cognate\ne,f,control\ng,h,control\n"))[1:]
    assert problem.startswith("line 2: unknown group 'cognat'")


def test_nothing_is_said_to_lack_where_a_row_may_be_of_any_group(tmp_path):
    problems = problems_of(saved(tmp_path, NEEDED + "a,b,xyz\nc,d,cognate\n"))[1:]
    assert problems[0].startswith("line 2: unknown group 'xyz'")
    assert problems[1:] == ("group 'cognate' has 1 pair; at least 2 are needed for a spread.",)


@pytest.mark.parametrize("broken", ["e,f\n", '"e,f,control\n'])  # a cell short; a quote that never ends
def test_nothing_is_said_to_lack_where_rows_could_not_be_read(tmp_path, broken):
    (problem,) = problems_of(saved(tmp_path, NEEDED + "a,b,cognate\nc,d,cognate\n" + broken))[1:]
    assert problem.startswith("line 4: ")


def test_a_small_group_is_not_hidden_by_many_faults(tmp_path):
    rows = "".join(f"w{i},,cognate\n" for i in range(SHOWN + 5))
    problems = problems_of(saved(tmp_path, NEEDED + rows + "a,b,control\n"))
    assert problems[0] == f"set.csv: {SHOWN + 6} problems in this table of pairs."
    assert problems[-2:] == (
        "group 'control' has 1 pair; at least 2 are needed for a spread.",
        "… and 6 more.",
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_breaks_inside_quotes_do_not_shift_line_numbers(tmp_path, end):
    table = (
        "word_a,word_b,group,gloss_a\n"
        'a,b,cognate,"first\nsecond\nthird"\n'  # lines 2 to 4
        "\n"  # line 5
        "c,,cognate,x\n"  # line 6
        'e,f,odd,"y\nz"\n'  # lines 7 and 8
        "g,,control,x\n"  # line 9
        "h,i,control,x\n"
    )
    lines = [p.split(":")[0] for p in problems_of(saved(tmp_path, table.replace("\n", end)))[1:]]
    assert lines == ["line 6", "line 7", "line 9"]


def test_a_line_break_inside_quotes_stays_in_the_cell(tmp_path):
    pairs = read(saved(tmp_path, 'word_a,word_b,group,gloss_a\na,b,cognate,"one\ntwo"\n' + GOOD.replace("\n", ",\n")))
    assert pairs.pairs[0].a.gloss == "one\ntwo"


def test_an_unclosed_quote_is_told_with_its_line(tmp_path):
    problems = problems_of(saved(tmp_path, NEEDED + GOOD + '"i,j,control\n'))
    assert problems[1].startswith("line 6: unexpected end of data")


@pytest.mark.parametrize(
    ("wrong", "meant"), [("Cognate", "cognate"), ("controls", "control"), ("unrelatd", "unrelated")]
)
def test_a_misspelt_group_is_answered_with_the_nearest(tmp_path, wrong, meant):
    assert problems_of(saved(tmp_path, NEEDED + f"a,b,{wrong}\n"))[1].endswith(f" Did you mean '{meant}'?")


def test_a_group_like_no_other_gets_no_suggestion(tmp_path):
    problem = problems_of(saved(tmp_path, NEEDED + "a,b,xyz\n"))[1]
    assert "unknown group 'xyz'" in problem
    assert "Did you mean" not in problem


@pytest.mark.parametrize("group", ["cognate", "control", "shuffled"])
def test_a_group_of_one_pair_is_refused(tmp_path, group):
    whole = GOOD + "i,j,shuffled\nk,l,shuffled\n"
    rows = whole.splitlines()
    rows.remove(next(r for r in rows if r.endswith(group)))
    assert problems_of(saved(tmp_path, NEEDED + "\n".join(rows)))[1:] == (
        f"group '{group}' has 1 pair; at least 2 are needed for a spread.",
    )


def test_a_table_without_cognates_is_refused(tmp_path):
    assert problems_of(saved(tmp_path, NEEDED + "a,b,control\nc,d,control\n"))[1:] == (
        "no pair is in group 'cognate': there is nothing to compare the controls with.",
    )


def test_a_table_without_controls_is_refused(tmp_path):
    problems = problems_of(saved(tmp_path, NEEDED + "a,b,cognate\nc,d,cognate\n"))[1:]
    assert len(problems) == 1
    assert "every pair is in group 'cognate'" in problems[0]
    assert "same_concept" in problems[0]  # the choices are named


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ((NEEDED + "a,b,cognate\né,b,cognate\n").encode("latin-1"), "line 3 is not UTF-8 (byte 0xe9)."),
        ((NEEDED + GOOD).encode("utf-16"), "line 1 is not UTF-8 (byte 0xff). It looks like UTF-16."),
        (b"\xfe\xff" + (NEEDED + GOOD).encode("utf-16-be"), "(byte 0xfe). It looks like UTF-16."),
    ],
    ids=["latin-1", "UTF-16, little end first", "UTF-16, big end first"],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_other_encodings_are_refused_with_line_and_byte(tmp_path, content, where, suffix):
    (problem,) = problems_of(saved(tmp_path, content, f"set{suffix}"))
    assert problem.endswith(where)


def test_missing_columns_are_all_named_with_those_that_may_be_meant(tmp_path):
    # 'word_b' is as near to 'word_a' as 'word_1' is, but it is there for itself
    problems = problems_of(saved(tmp_path, "word_1,word_b,grp\na,b,cognate\n"))
    assert problems == (
        "set.csv: no column 'word_a'. Did you mean 'word_1'?",
        "set.csv: no column 'group'. Did you mean 'grp'?",
        "columns found: 'word_1', 'word_b', 'grp'.",
    )


@pytest.mark.parametrize(
    ("name", "delimiter"), [("set.csv", ";"), ("set.csv", "\t"), ("set.tsv", ","), ("set.tsv", ";")]
)
def test_another_separator_is_recognised(tmp_path, name, delimiter):
    problems = problems_of(saved(tmp_path, (NEEDED + GOOD).replace(",", delimiter), name))
    used = "," if name.endswith("csv") else "\t"
    assert problems[-1] == f"this file seems to be separated by {delimiter!r}, not {used!r}."


def test_a_column_given_twice_is_refused(tmp_path):
    assert "word_a occurs twice" in problems_of(saved(tmp_path, "word_a,word_b,group,word_a\na,b,cognate,c\n"))[0]


@pytest.mark.parametrize("name", ["set.csv", "set.tsv", "set.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \n\n"], ids=["nothing", "only a mark", "only blanks"])
def test_an_empty_file_is_called_empty(tmp_path, name, content):
    assert problems_of(saved(tmp_path, content, name)) == (f"{name}: the file is empty.",)


def test_a_header_without_rows_has_no_pairs(tmp_path):
    assert problems_of(saved(tmp_path, NEEDED))[1:] == ("there are no pairs.",)


def test_a_missing_file_is_named_as_it_would_be_set(tmp_path):
    file = tmp_path / "none.csv"
    assert problems_of(file) == (f"pairs.path={file} is not there.",)


def test_a_folder_is_no_table(tmp_path):
    assert problems_of(tmp_path) == (f"pairs.path={tmp_path} is a folder.",)


@pytest.mark.parametrize("name", ["set.xlsx", "set.txt", "set"])
def test_other_suffixes_are_refused_with_the_choices(tmp_path, name):
    (problem,) = problems_of(saved(tmp_path, NEEDED + GOOD, name))
    assert ".csv, .tsv, .jsonl, .ndjson, .json, .parquet" in problem
    assert f"'{Path(name).suffix}'" in problem


def test_broken_json_is_told_with_line_and_character(tmp_path):
    lines = (
        '{"word_a": "a", "word_b": "b", "group": "cognate"}',
        "",
        '{"word_a": "a", "word_b": }',  # line 3; the value is missing at character 27
        '["a", "b", "cognate"]',
        '{"word_a": "a", "word_b": "", "group": "cognate"}',
    )
    head, *problems = problems_of(saved(tmp_path, "\n".join(lines), "set.jsonl"))
    assert head == "set.jsonl: 3 problems in this table of pairs."
    assert problems == [
        "line 3: not JSON (Expecting value at character 27).",
        "line 4: a JSON object is needed, one pair a line.",
        "line 5: word_b is empty.",
    ]


@pytest.mark.parametrize("cell", [["x"], {"form": "x"}], ids=["list", "object"])
def test_a_json_cell_that_is_no_text_is_refused(tmp_path, cell):
    # otherwise the word that is probed would be "['x']"
    rows = [dict(zip(("word_a", "word_b", "group"), r.split(","), strict=True)) for r in GOOD.split()]
    rows[1]["word_b"] = cell
    problems = problems_of(saved(tmp_path, "\n".join(json.dumps(r) for r in rows), "set.jsonl"))
    assert problems[1].startswith("line 2: word_b ")


def test_json_without_a_needed_column_names_it(tmp_path):
    problems = problems_of(saved(tmp_path, '{"word_a": "a", "group": "cognate"}', "set.jsonl"))
    assert problems[0].startswith("set.jsonl: no column 'word_b'.")


def test_what_is_not_parquet_is_told_so(tmp_path):
    (problem,) = problems_of(saved(tmp_path, NEEDED + GOOD, "set.parquet"))
    assert problem.startswith("set.parquet: not a readable Parquet file")


def test_parquet_without_a_needed_column_names_it(tmp_path):
    file = tmp_path / "set.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"word_a": ["a"], "group": ["cognate"]}), file)
    assert "no column 'word_b'" in problems_of(file)[0]


def test_every_refusal_says_what_to_do_next(tmp_path):
    for file in (saved(tmp_path, NEEDED), tmp_path / "none.csv", saved(tmp_path, "", "e.csv")):
        with pytest.raises(PairsError) as caught:
            read(file)
        assert caught.value.next_step


# ── the published pairs ──────────────────────────────────────────────────────────────────────────────────


def test_the_published_set_has_ten_cognates_and_four_controls():
    assert PieOc().read().sizes == {"cognate": 10, "control": 4}


@pytest.mark.parametrize("shipped", [PieOc(), PieOcModern()])
def test_the_source_of_a_set_that_comes_with_pairprobe_is_a_file_one_can_open(shipped):
    source = Path(shipped.read().source)
    assert source.is_absolute()
    assert source.is_file()


def test_all_eight_control_words_occur_in_cognate_pairs_too():
    pairs = PieOc().read()
    assert pairs.reused_words("control") == (8, 8)
    # each of the 4 controls shares both its words: 4 controls and the 8 cognate pairs 01-04, 05, 06, 07, 09
    assert pairs.dependent_pairs("control") == 12


def test_pairs_share_a_word_by_its_spelling_as_the_clusters_of_the_statistics_do():
    def pair(group, lang_a, a, lang_b, b):
        return Pair(f"{a}-{b}", group, Word(a, lang=lang_a), Word(b, lang=lang_b))

    pairs = PairSet(
        "set",
        (
            pair(COGNATE, "Swedish", "rot", "English", "root"),
            pair(COGNATE, "Dutch", "maand", "German", "Mond"),
            pair(COGNATE, "English", "hand", "German", "Hand"),  # one spelling, and no other pair has it
            pair(COGNATE, "Dutch", "twee", "German", "zwei"),
            pair("control", "Dutch", "rot", "Swedish", "tva\u030a"),
            pair("control", "Dutch", "mond", "Swedish", "TV\u00c5"),
            pair("unrelated", "Dutch", "twee", "German", "Hand"),
        ),
        "here",
    )
    # rot, mond and två: two cognates and both controls; två is one word, of three in the controls
    assert pairs.dependent_pairs("control") == 4
    assert pairs.reused_words("control") == (2, 3)
    of = clusters([p for p in pairs.pairs if p.group in (COGNATE, "control")])
    assert sum(np.bincount(of)[of] > 1) == pairs.dependent_pairs("control")
    assert pairs.dependent_pairs("unrelated") == 3
    assert pairs.reused_words("unrelated") == (2, 2)


def test_the_published_forms_are_composed_and_keep_their_marks():
    forms = [w.form for p in PieOc().read().pairs for w in (p.a, p.b)]
    assert all(unicodedata.is_normalized("NFC", f) for f in forms)
    assert "*snéygʷʰ-" in forms
    assert "*h₁ék̂wos" in forms
    assert "*mˤraːʔ" in forms


def test_the_hash_of_the_published_set_is_stable():
    # runs are compared by it: a change of this value makes old runs incomparable
    assert PieOc().read().sha256 == "8a91a31e74a02ba1c7f4ba6df824a78e77931f75cf64aae0b78138280727af5b"


def test_the_hash_is_of_the_rows_as_json():
    pairs = PieOc().read()
    rows = [
        [p.id, p.group, p.a.form, p.a.gloss, p.a.lang, p.b.form, p.b.gloss, p.b.lang, p.concept, p.score]
        for p in pairs.pairs
    ]
    assert pairs.sha256 == hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def test_the_hash_depends_on_content_and_order_but_not_on_name_or_source():
    same = PairSet("other", PAIRS, "elsewhere", "cite")
    decomposed = tuple(
        Pair(p.id, p.group, Word(unicodedata.normalize("NFD", p.a.form), p.a.gloss, p.a.lang), p.b, p.concept, p.score)
        for p in PAIRS
    )
    whole = PairSet("set", PAIRS, "here").sha256
    assert same.sha256 == whole
    assert PairSet("set", PAIRS[::-1], "here").sha256 != whole
    assert PairSet("set", decomposed, "here").sha256 != whole


def test_the_published_set_equals_the_shared_data_row_by_row():
    folder = Path(os.environ.get("PAIRPROBE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    file = folder / "paper70" / "pie_oc.csv"
    if not file.is_file():
        pytest.skip("paper70/pie_oc.csv is neither in $PAIRPROBE_DATA nor in ../shared/data")
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = [
        (r["pair_id"], r["group"], r["word_a"], r["gloss_a"], r["lang_a"], r["word_b"], r["gloss_b"], r["lang_b"])
        for r in rows
    ]
    assert [
        (p.id, p.group, p.a.form, p.a.gloss, p.a.lang, p.b.form, p.b.gloss, p.b.lang) for p in PieOc().read().pairs
    ] == expected


def test_frequencies_are_read_and_wrong_ones_told(tmp_path: Path) -> None:
    file = tmp_path / "often.csv"
    head = "word_a,word_b,group,freq_a,freq_b\n"
    good = "a,b,cognate,12.5,0\nc,d,cognate,,3\ne,f,control,1,1\ng,h,control,1e-6,1\n"
    file.write_text(head + good, encoding="utf-8")
    pairs = Table(path=str(file)).read().pairs
    assert [(p.a.frequency, p.b.frequency) for p in pairs] == [(12.5, 0.0), (None, 3.0), (1.0, 1.0), (1e-6, 1.0)]
    file.write_text(head + good + "i,j,control,often,nan\nk,l,control,-2,1\n", encoding="utf-8")
    with pytest.raises(PairsError) as error:
        Table(path=str(file)).read()
    assert error.value.problems[1:] == (
        "line 6: freq_a 'often' is not a finite number.",
        "line 6: freq_b 'nan' is not a finite number.",
        "line 7: a frequency of -2 cannot be; allowed: 0 or more.",
    )


# ── a reference vocabulary's faults, and scores beside groups ────────────────────────────────────────────

BESIDE = (Pair("p", "cognate", Word("hand", concept="hand"), Word("Hand", concept="hand"), concept="hand"),)


def reference_fails(folder: Path, text: str, name: str = "words.csv") -> PairsError:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PairsError) as error:
        read_reference(str(file), BESIDE)
    return error.value


def test_a_reference_is_read_in_the_order_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "words.tsv"
    file.write_text("word\tlang\tconcept\ntree\tEnglish\ttree\nBaum\tGerman\ttree\n", encoding="utf-8")
    assert [(w.form, w.lang, w.concept) for w in read_reference(str(file), BESIDE)] == [
        ("tree", "English", "tree"), ("Baum", "German", "tree"),
    ]  # fmt: skip


def test_every_word_that_a_reference_shares_with_the_pairs_is_named(tmp_path: Path) -> None:
    error = reference_fails(tmp_path, "word,lang,concept\nhand,English,\nmain,French,hand\ntree,English,tree\n")
    assert error.problems == (
        "words.csv: 1 problem in this reference vocabulary.",
        "2 of its words are also in the pairs: 'hand', 'main' (concept hand).",
    )
    assert "shares nothing with the pairs" in error.next_step


def test_of_many_shared_words_ten_are_named(tmp_path: Path) -> None:
    rows = "".join(f"w{i},hand\n" for i in range(12))
    assert (
        "12 of its words are also in the pairs: 'w0' (concept hand)"
        in reference_fails(tmp_path, f"word,concept\n{rows}").problems[-1]
    )
    assert reference_fails(tmp_path, f"word,concept\n{rows}").problems[-1].endswith("'w9' (concept hand) and 2 more.")


def test_every_faulty_line_of_a_reference_is_named(tmp_path: Path) -> None:
    told = reference_fails(tmp_path, "word,lang\ntree,English\n ,English\ntree,English\ntree,Dutch\n").problems
    assert told == (
        "words.csv: 2 problems in this reference vocabulary.",
        "line 3: word is empty.",
        "line 4: 'tree' occurs already.",  # in Dutch it is another word
    )


def test_a_reference_without_words_or_without_their_column(tmp_path: Path) -> None:
    assert "there are no words in it" in str(reference_fails(tmp_path, "word,lang\n"))
    assert "word" in str(reference_fails(tmp_path, "wrd,lang\ntree,English\n"))
    with pytest.raises(PairsError, match=r"pairs\.reference=.*is not there"):
        read_reference(str(tmp_path / "none.csv"), BESIDE)


def test_the_published_reference_holds_what_was_checked_and_nothing_of_the_pairs() -> None:
    pairs = PieOc().read()
    assert Counter(w.lang for w in pairs.reference) == {"Proto-Indo-European": 40, "Old Chinese": 34}
    # forms that no source was found for
    assert not {"兄", "齒", "米", "舊", "荷", "坐"} & {w.gloss for w in pairs.reference}


def test_scores_and_groups_of_one_table_are_both_used(tmp_path: Path) -> None:
    # scores are of pairs of every group; groups make the difference. One pair has no score
    file = tmp_path / "scored.csv"
    rows = [f"a{i},b{i},{'cognate' if i < 6 else 'control'},{'' if i == 11 else 12 - i}" for i in range(12)]
    file.write_text("\n".join(["word_a,word_b,group,score", *rows]) + "\n", encoding="utf-8")
    pairs = Table(path=str(file)).read()
    assert pairs.sizes == {"cognate": 6, "control": 6}
    assert [p.score for p in pairs.pairs] == [*range(12, 1, -1), None]
    measured = Similarities("cosine", np.array([[1.2 - 0.1 * i for i in range(12)]]), (0,))
    statistics = Statistics(resamples=200, permutations=200)
    (test,) = statistics.tests([measured], pairs).values()
    assert test.at(0).delta == pytest.approx(0.6)  # means 0.95 and 0.35
    (check,) = score_checks(statistics, [measured], pairs)
    assert (check.n, check.rho) == (11, pytest.approx(1.0))


def test_a_logged_table_of_pairs_is_a_table_of_pairs(tmp_path: Path) -> None:
    from pairprobe import archive
    from pairprobe.pairs.pie_oc import PieOc

    pairs = PieOc().read()
    file = tmp_path / "pairs.json"
    archive._write_table(file, archive.pair_rows(pairs))
    assert Table(path=str(file)).read().sha256 == pairs.sha256


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"columns": ["a"], "data": [[1, 2]]}', "not json", '{"columns": 1, "data": 2}']
)
def test_other_json_is_no_table(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(text)
    with pytest.raises(PairsError, match="no table as runs log them"):
        Table(path=str(file)).read()
