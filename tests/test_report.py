"""What a person reads: the same words on a terminal and in a file, no line too wide, nothing undefined as a number."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from pairprobe import report
from pairprobe.errors import ExecutionError, PairprobeError, StoreError
from pairprobe.outcomes import DepthTest, GroupTest, Interval, Verdict
from pairprobe.preflight import Plan, gigabytes
from pairprobe.records import Estimate, Pair, PairSet, Similarities, Text, Texts, TokenisedText, Tokens, Word
from pairprobe.report import WIDTH, Report
from pairprobe.result import Result
from pairprobe.tokens import Findings, TokenRules
from pairprobe.tracking import Store

COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SENTENCES = (
    "Cannot tell. Cognates and controls differ by Δ = +0.035 (95 % interval −0.074 to +0.148) at the primary depth.",
    "With 10 against 4 pairs, only a difference of 1.8 standard deviations would be found four times in five; "
    "smaller ones cannot be seen with this pair set.",
)
BEWARE = ("8 of 8 control words also occur in cognate pairs: their similarities are not independent.", "And more.")


# ── records by hand ──────────────────────────────────────────────────────────────────────────────────────


def at(depth: int, **values: Any) -> DepthTest:
    """A depth where all is defined; `values` replace some of it. The mean of cognates tells depths apart."""
    known: dict[str, Any] = {
        "mean_cognate": depth / 1000, "mean_control": 0.4, "sd_cognate": 0.1, "sd_control": 0.1, "delta": -0.036,
        "delta_ci": Interval(-0.149, 0.074), "g": -0.28, "g_ci": Interval(-1.1, 0.6), "t": -0.5, "p": 0.579,
        "p_greater": 0.7, "p_max_t": 0.811, "q": 0.6,
    }  # fmt: skip
    return DepthTest(depth, **{**known, **values})


def undefined(depth: int) -> DepthTest:
    nothing = dict.fromkeys(("delta_ci", "g", "g_ci", "t", "p", "p_greater", "p_max_t", "q"))
    return at(depth, sd_cognate=0.0, sd_control=0.0, **nothing)


def group_test(
    depths: list[DepthTest], similarity: str = "cosine", control: str = "control", **values: Any
) -> GroupTest:
    known: dict[str, Any] = {
        "relabellings": 1001, "exact": True, "smallest_p": 1 / 1001, "alpha": 0.05, "confidence": 0.95, "effect": 0.8,
        "power": 0.24, "power_wanted": 0.8, "detectable_d": 1.79,
    }  # fmt: skip
    return GroupTest(similarity, control, 10, 4, tuple(depths), **{**known, **values})


def pair_set() -> PairSet:
    pairs = [Pair(f"pie_oc_{i:04}", "cognate", Word("*kʷel-"), Word("輪")) for i in range(10)]
    pairs += [Pair(f"pie_oc_{i:04}", "control", Word("*kʷel-"), Word("犬")) for i in range(10, 14)]
    return PairSet("pie_oc", tuple(pairs), "by hand")


def texts_of(pairs: PairSet) -> Texts:
    words = [w for p in pairs.pairs for w in (p.a, p.b)]
    index = np.arange(len(words))
    return Texts(tuple(Text(w.form, 0, len(w.form), w) for w in words), index[::2], index[1::2], "{word}")


def tokens_of(pairs: PairSet) -> Tokens:
    one = TokenisedText(
        ids=np.array([1, 2]), pieces=("a", "b"), spans=np.array([[0, 1], [1, 2]]), word=np.array([True, True]),
        special=np.array([False, False]), unknown=np.array([False, False]),
    )  # fmt: skip
    texts = texts_of(pairs)
    return Tokens(texts, (one,) * len(texts), "Tokenizer")


def result_of(*tests: GroupTest, depth: int, beware: tuple[str, ...] = BEWARE) -> Result:
    first = tests[0]
    pairs = pair_set()
    depths = tuple(t.depth for t in first.depths)
    return Result(
        None, None, None, None, None, pairs,
        similarities={t.similarity: Similarities(t.similarity, np.zeros((len(depths), 14)), depths) for t in tests},
        tests={(t.similarity, t.control): t for t in tests},
        verdict=Verdict("cannot tell", SENTENCES, beware, first.similarity, first.control, depth),
    )  # fmt: skip


JOB: Any = SimpleNamespace(
    model_name="minilm",
    method=SimpleNamespace(name="layerwise", uses_model=True, computes=True),
    template=SimpleNamespace(name="gloss"),
    execution=SimpleNamespace(name="resident", dtype="float32"),
)
CHECKPOINT = SimpleNamespace(
    nbytes=90_870_000, storage=SimpleNamespace(summary="float32", inputs=lambda _: "", caution="")
)
ESTIMATE = Estimate("resident", "cpu", "float32", 90_870_000, 400_000_000, 0, 1.6, 1)
REMARK = "no accelerator found; computing on the CPU"


def shown(terminal: bool = False, quiet: bool = False) -> tuple[Report, io.StringIO]:
    file = io.StringIO()
    console = Console(
        file=file, width=WIDTH, highlight=False, soft_wrap=True, force_terminal=terminal,
        color_system="truecolor" if terminal else None,
    )  # fmt: skip
    return Report(console, quiet=quiet), file


def main_job(show: Report, last: int = 6) -> None:
    """All that `python run.py` prints, but for the link to the run."""
    show.plan(JOB, Plan(pair_set(), CHECKPOINT, None, ESTIMATE, REMARK))
    pairs = pair_set()
    show.tokens(pairs, pairs, tokens_of(pairs), Findings({}, {}, {}, 6, 0), TokenRules())
    with show.progress("layerwise") as progress:
        progress(182, 182)
    depths = [at(d) for d in range(last + 1)]
    depths[2] = at(2, t=-3.0, delta=-0.2, p=0.01, p_max_t=0.04)
    centred = group_test([replace(d, delta=0.013) for d in depths], "centred")
    show.result(result_of(group_test(depths), centred, depth=last))


def said(**how: bool) -> str:
    show, file = shown(**how)
    main_job(show)
    return file.getvalue()


def rows(text: str) -> list[str]:
    """The lines of the table: they begin with a depth."""
    return [line for line in text.splitlines() if re.match(r" +\d+ ", line[:6])]


# ── the main job ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_main_job_is_told_room_by_room() -> None:
    labels = [line.split()[0] for line in said().splitlines() if line[:1] not in (" ", "")]
    first = ["pairprobe", "plan", "tokens", "states"]
    assert labels == [*first, "depth", "tests", "beside", "elsewhere", "verdict", "beware"]


def test_nothing_but_words_goes_into_a_file() -> None:
    text = said()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "━" not in text  # no remains of a bar


def test_no_line_is_wider_than_the_page() -> None:
    assert max(cell_len(line) for line in said().splitlines()) <= 100


def test_the_lines_that_name_the_run_fit_the_page() -> None:
    show, file = shown()
    record = SimpleNamespace(name="minilm-layerwise-pie_oc", run_id="3f" * 16, experiment_id="1")
    show.recorded(record, Store("sqlite:////nowhere/mlflow.db", None))  # type: ignore[arg-type]
    assert "3f" * 16 in file.getvalue()
    lines = file.getvalue().splitlines()
    # a link is of no use in two pieces, and without its workflow it opens another page
    assert [line.strip() for line in lines if cell_len(line) > 100] == [
        f"http://127.0.0.1:5000/#/experiments/1/runs/{'3f' * 16}?workflowType=machine_learning"
    ]


def test_the_lines_that_name_the_run_tell_of_a_store_that_only_the_configuration_named() -> None:
    show, file = shown()
    record = SimpleNamespace(name="minilm-layerwise-pie_oc", run_id="3f" * 16, experiment_id="1")
    show.recorded(record, Store("sqlite:////own/m.db", None), uri="sqlite:////own/m.db")  # type: ignore[arg-type]
    said = " ".join(file.getvalue().split())
    assert "python run.py ui --tracking-uri sqlite:////own/m.db, then http" in said
    assert f"python run.py report {'3f' * 16} --tracking-uri sqlite:////own/m.db" in said


def test_a_terminal_shows_the_same_words_with_colours() -> None:
    coloured = said(terminal=True)
    assert "\x1b[1" in coloured
    bare = COLOURS.sub("", coloured)
    words = [line for line in said().splitlines() if not line.startswith("states")]
    for line in words:
        assert line in bare


def test_quiet_leaves_the_verdict_and_its_warnings() -> None:
    labels = [line[:12].strip() for line in said(quiet=True).splitlines() if line[:1] != " "]
    assert labels == ["verdict", "beware"]
    assert "8 of 8 control words" in said(quiet=True)


def test_quiet_does_not_hide_an_error() -> None:
    show, file = shown(quiet=True)
    show.error(StoreError(["first.", "second."], "Do this."))
    assert file.getvalue().split() == ["error", "first.", "second.", "Do", "this."]


def test_a_whole_verdict_is_printed() -> None:
    text = " ".join(said().split())
    for sentence in (*SENTENCES, *BEWARE):
        assert sentence in text


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_too_long_for_a_line_goes_on_under_its_beginning() -> None:
    show, file = shown()
    show.line("verdict", "word " * 50)
    first, *rest = file.getvalue().splitlines()
    assert first.startswith("verdict     word")
    assert rest
    assert all(line.startswith(" " * 12 + "word") for line in rest)
    assert file.getvalue().split() == ["verdict", *["word"] * 50]


def test_a_newline_begins_a_new_line_under_the_label() -> None:
    show, file = shown()
    show.line("beware", "one\ntwo")
    assert file.getvalue() == "beware      one\n            two\n"


def test_han_characters_take_two_columns_each() -> None:
    show, file = shown()
    show.line("beware", "輪犬 " * 40)
    assert file.getvalue().split() == ["beware", *["輪犬"] * 40]
    assert max(cell_len(line) for line in file.getvalue().splitlines()) <= 100


@pytest.mark.parametrize("text", ["/a/path/" + "long/" * 30 + "file", "http://127.0.0.1/" + "x" * 120])
def test_a_path_or_link_is_never_broken(text: str) -> None:
    show, file = shown()
    show.line("report", f"it is in {text}")
    assert text in file.getvalue()


@pytest.mark.parametrize("word", ["[bold]", "[/]", "[red]*kʷel-[/red]", ":smile:"])
def test_a_word_in_brackets_is_printed_as_it_is(word: str) -> None:
    show, file = shown(terminal=True)
    show.line("tokens", word)
    assert word in COLOURS.sub("", file.getvalue())


def test_an_error_tells_all_its_problems_and_then_the_next_step() -> None:
    show, file = shown()
    show.error(ExecutionError(["one is wrong.", "so is two."], "Mend both."))
    assert file.getvalue().splitlines() == [
        "error       one is wrong.", "            so is two.", "            Mend both.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("called", "told"),
    [("run.py", "python run.py ui"), ("/env/bin/pairprobe", "pairprobe ui"), ("-c", "python run.py ui")],
)
def test_the_next_step_is_told_as_the_program_was_called(
    called: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [called])
    show, file = shown()
    show.line("run", "python run.py ui")
    assert file.getvalue() == f"run         {told}\n"


def test_errors_go_to_standard_error(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(report.QUIET, "1")
    report.for_errors().error(StoreError("nothing there."))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "error       nothing there.\n"


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────


def table(*tests: GroupTest, depth: int) -> str:
    show, file = shown()
    show.result(result_of(*tests, depth=depth))
    return file.getvalue()


@pytest.mark.parametrize(("primary", "best"), [(33, 51), (0, 79), (80, 1)])
def test_a_table_of_81_depths_is_thinned_but_keeps_what_counts(primary: int, best: int) -> None:
    depths = [at(d, t=-9.0 if d == best else -0.5) for d in range(81)]
    text = table(group_test(depths), depth=primary)
    kept = [int(row.split()[0]) for row in rows(text)]
    assert {0, primary, best, 80} <= set(kept)
    assert kept == sorted(set(kept))
    assert len(kept) <= 45
    assert "all are in the run" in text
    assert [row.split()[0] for row in rows(text) if "← primary" in row] == [str(primary)]


def test_thinning_is_told_in_english() -> None:
    text = table(group_test([at(d) for d in range(81)]), depth=80)
    assert "2th" not in text


def test_a_table_that_fits_is_shown_whole() -> None:
    text = table(group_test([at(d) for d in range(42)]), depth=41)
    assert [int(row.split()[0]) for row in rows(text)] == list(range(42))
    assert "depth shown" not in text


@pytest.mark.parametrize(
    ("p", "told"),
    [(0.579, "= 0.579"), (0.00099, "= 0.001"), (0.0005, "= 0.001"), (0.00049, "< 0.001"), (1e-5, "< 0.001")],
)
def test_a_p_value_is_told_alike_everywhere_and_never_as_zero(p: float, told: str) -> None:
    depths = [at(0, p=p, p_max_t=p, p_greater=p, q=p), at(1, t=-9.0, p=p, p_max_t=p, p_greater=p, q=p)]
    drawn = {"smallest_p": 1e-5, "relabellings": 99_999, "exact": False}
    text = table(group_test(depths, **drawn), group_test(depths, "centred", **drawn), depth=0)
    cells = [re.split(r"\s{2,}", row.replace("← primary", "").strip())[-3:] for row in rows(text)]
    assert cells == [[told.removeprefix("= ")] * 3] * 2  # p, p max-T and q of two depths
    assert len(re.findall(rf"p(?: max-T)? {re.escape(told)}", text)) == 3  # one-sided, beside, elsewhere


def test_an_undefined_depth_shows_no_number_where_there_is_none() -> None:
    text = table(group_test([undefined(0)]), depth=0)
    (row,) = rows(text)
    assert row.split() == ["0", "0.000", "0.400", "−0.036", "undefined", *["—"] * 4, "←", "primary"]
    assert "nan" not in text.lower()
    assert "None" not in text


def test_an_undefined_similarity_beside_is_told_as_undefined() -> None:
    text = table(group_test([at(0)]), group_test([undefined(0)], "centred"), depth=0)
    (line,) = [line for line in text.splitlines() if line.strip().startswith("centred")]
    assert "undefined" in line
    assert "g =" not in line
    assert "p =" not in line


def test_an_interval_that_few_pairs_do_not_allow_is_not_called_undefined() -> None:
    without = replace(at(0), delta_ci=None)
    text = table(group_test([without]), group_test([without], "centred"), depth=0)
    assert rows(text)[0].split()[4] == "—"
    assert "centred: Δ = −0.036, no interval, g = " in text
    assert "undefined" not in text


def test_where_no_p_value_is_given_the_largest_depth_says_so() -> None:
    depths = [at(0, p=None, p_max_t=None), at(1, t=-9.0, p=None, p_max_t=None)]
    assert "largest |t| at depth 1: Δ = −0.036, no p-value" in table(group_test(depths), depth=0)


def test_minus_signs_line_up_with_plus_signs() -> None:
    text = table(group_test([at(0, delta=0.05), at(1, delta=-0.05)]), depth=0)
    places = [re.search(r"[+−]0\.050", row) for row in rows(text)]
    assert places[0] is not None
    assert places[1] is not None
    assert places[0].span() == places[1].span()


def test_other_control_groups_are_told_beside() -> None:
    text = table(group_test([at(0)]), group_test([at(0, delta=0.2)], control="unrelated"), depth=0)
    assert "cosine against unrelated: Δ = +0.200" in text


@pytest.mark.parametrize(("exact", "words"), [(True, "all 1001 relabellings"), (False, "1001 random relabellings")])
def test_the_kind_of_test_is_told(exact: bool, words: str) -> None:
    text = " ".join(table(group_test([at(0)], exact=exact), depth=0).split())
    assert words in text
    assert "power for d = 0.8: 24 %" in text
    assert "found 80 % of the time: d = 1.8" in text


def test_linked_pairs_are_told_with_their_scheme_and_clusters() -> None:
    linked = {
        "scheme": "clusters of one size exchanged whole and labels exchanged within clusters", "clusters": 6,
        "effective_cognate": 4.54, "effective_control": 3.0, "family": 26, "moved_cognate": 8, "moved_control": 4,
    }  # fmt: skip
    shown_text = table(group_test([at(0, auc=0.6, auc_ci=Interval(0.41, 0.77), equivalence_p=0.3)], **linked), depth=0)
    assert max(cell_len(line) for line in shown_text.splitlines()) <= WIDTH
    text = " ".join(shown_text.split())
    assert "labels exchanged within clusters, since words, concepts or cognate sets link the 14 pairs into 6" in text
    assert "p max-T and q allow for all 26 depths × similarities" in text
    assert "p rests on the 12 of 14 pairs that may change places (8 of 10 cognates, 4 of 4 controls)" in text
    assert "taking linked pairs for 4.54 against 3 independent ones" in text
    assert "the more similar one: 0.60 (AUC, 95 % interval 0.41 to 0.77)" in text
    assert "equivalence, |Δ| under 0 standard deviations: p = 0.300" in text


def test_where_no_p_is_given_the_reason_stands_where_tests_are_told() -> None:
    none = at(0, p=None, p_greater=None, p_max_t=None, q=None)
    text = " ".join(table(group_test([none], scheme="", why_no_p="two clusters are too few."), depth=0).split())
    assert "tests no p-value: two clusters are too few." in text
    assert "relabellings; smallest p" not in text
    assert "exchanged" not in text


def test_the_widest_numbers_still_fit_the_page() -> None:
    wide = at(80, mean_cognate=-12.345, mean_control=-12.345, delta=-12.345, delta_ci=Interval(-12.345, -10.123),
              g=-10.25, p=0.0001, p_max_t=0.0001, q=0.0001)  # fmt: skip
    text = table(group_test([wide], control="form_matched"), depth=80)
    assert max(cell_len(line) for line in text.splitlines()) <= WIDTH
    assert rows(text)[0].split() == [
        "80", "-12.345", "-12.345", "−12.345", "[−12.345,", "−10.123]", "−10.25", *["<", "0.001"] * 3, "←", "primary",
    ]  # fmt: skip


# ── commands to copy ─────────────────────────────────────────────────────────────────────────────────────


LONG = (
    "hf download somebody/A-Model-With-A-Very-Long-Name-Indeed-INT8 --revision 0123456789abcdef0123456789abcdef01234567"
)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (f"Get it: {LONG}   or point to a folder: model.source=/models/mine", LONG),
        (f"{LONG}", LONG),
        (f"It is not on this machine, and nothing was fetched, as was asked for. {LONG}", LONG),
        ("Some package that is needed here is outside of what works. pip install 'mlflow>=3.5,<4, !=3.18.0'",
         "pip install 'mlflow>=3.5,<4, !=3.18.0'"),
        ("It was made by another version of MLflow, thus: mlflow db upgrade sqlite:///mlflow.db (keep a copy first).",
         "mlflow db upgrade sqlite:///mlflow.db"),
        ("Whoever wants to see more of the runs that are in this store may call python run.py ui --port 5001, or not.",
         "python run.py ui --port 5001"),
    ],
)  # fmt: skip
def test_a_command_is_never_broken(text: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    show, file = shown()
    show.error(PairprobeError("Something is missing.", text))
    lines = file.getvalue().splitlines()
    assert sum(command in line for line in lines) == 1
    assert all(cell_len(line) <= WIDTH or command in line for line in lines)
    assert " ".join(" ".join(line.strip() for line in lines[1:]).split()) == " ".join(text.split())


def test_words_beside_a_command_still_wrap() -> None:
    show, file = shown()
    show.line("", "pip uninstall autoawq; and so on" + " and so on" * 20)
    assert max(cell_len(line) for line in file.getvalue().splitlines()) <= WIDTH


# ── plan, tokens, progress ───────────────────────────────────────────────────────────────────────────────


def test_a_plan_tells_the_cost_and_the_remark() -> None:
    text = said()
    assert "resident on cpu, float32 · float32 · reads 91 MB · needs about 400 MB · about 2 s" in text
    assert REMARK in text
    assert "10 cognate, 4 control pairs" in text
    assert "template gloss" in text


def test_a_plan_without_computation_says_that_no_model_is_loaded() -> None:
    show, file = shown()
    method = SimpleNamespace(name="static", uses_model=True, computes=False)
    job = SimpleNamespace(**{**vars(JOB), "method": method})
    show.plan(job, Plan(pair_set(), CHECKPOINT))
    assert "embedding rows only, of 91 MB stored; no model is loaded" in file.getvalue()


def test_words_of_unknown_pieces_are_named_but_not_endlessly() -> None:
    show, file = shown()
    pairs = pair_set()
    unknown = {i: f"'ᚠ{i}' becomes only unknown pieces" for i in range(9)}
    show.tokens(pairs, pairs, tokens_of(pairs), Findings({}, unknown, {}, 0, 0), TokenRules())
    text = file.getvalue()
    assert "unknown pieces: all of 9 words" in text
    assert "'ᚠ4'" in text
    assert "'ᚠ5'" not in text
    assert "… and 4 more" in text
    assert "tokens.exclude=[unknown]" in text


def test_pairs_that_were_left_out_are_named() -> None:
    show, file = shown()
    given = pair_set()
    used = PairSet(given.name, given.pairs[2:], given.source)
    show.tokens(given, used, tokens_of(used), Findings({}, {}, {}, 0, 0), TokenRules())
    assert "left out 2 pairs: pie_oc_0000, pie_oc_0001" in file.getvalue()


def test_progress_into_a_file_is_one_line_at_the_end() -> None:
    show, file = shown()
    with show.progress("layerwise") as progress:
        for done in range(0, 100, 10):
            progress(done, 90)
        assert file.getvalue() == ""
    assert re.fullmatch(r"states      90 of 90 text states in \d+\.\d s, loading included\n", file.getvalue())


def test_progress_on_a_terminal_is_a_bar_that_goes_away() -> None:
    show, file = shown(terminal=True)
    with show.progress("static") as progress:
        progress(1, 2)
        progress(2, 2)
    text = file.getvalue()
    assert "━" in text
    assert COLOURS.sub("", text).splitlines()[-1].startswith("vectors     2 of 2 text states in ")


# ── bytes for people ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 kB"),
        (16_000, "16 kB"),
        (90_870_000, "91 MB"),
        (1e6, "1 MB"),
        (1e9, "1.0 GB"),
        (21_340_000_000, "21.3 GB"),
        (999_400, "999 kB"),
        (999_400_000, "999 MB"),
    ],
)
def test_bytes_are_told_in_the_largest_unit_that_fits(n: float, text: str) -> None:
    assert gigabytes(n) == text


@pytest.mark.parametrize(
    ("clusters", "said"),
    [(14, "any one pair: [−0.050, −0.020]"), (6, "any one unit of linked words: [−0.050, −0.020]")],
)
def test_what_is_left_out_is_called_linked_words_only_where_words_are_linked(clusters: int, said: str) -> None:
    show, file = shown()
    show.result(result_of(group_test([at(0, left_out=Interval(-0.05, -0.02))], clusters=clusters), depth=0))
    assert f"Δ without {said}" in file.getvalue()
