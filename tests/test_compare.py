"""Runs side by side: what is read back, what is said of it, tables for papers, and whole sweeps."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from scipy import stats

from pairprobe.across import comparison, maps, table
from pairprobe.across.comparison import compare
from pairprobe.across.lines import _numbers, show
from pairprobe.across.runs import Recorded, labels, read
from pairprobe.across.table import Row, latex, latex_text, markdown, markdown_text
from pairprobe.commands import compose
from pairprobe.commands.main import run
from pairprobe.commands.run import Done
from pairprobe.outcomes import Interval
from pairprobe.records import Pair, PairSet, Word
from pairprobe.report import Report
from pairprobe.statistics.across import debiased_cka
from pairprobe.tracking import Store

GROUPS = {
    "cognate": ["water Wasser", "father Vater", "night Nacht", "hand Hand", "fire Feuer", "milk Milch"],
    "control": ["dog Tisch", "tree Auge", "house Zahl", "stone Vogel", "bread Wolke"],
}
ROWS = [(*words.split(), group) for group, pairs in GROUPS.items() for words in pairs]


def write_pairs(file: Path, rows: list[tuple[str, str, str]]) -> Path:
    head = "word_a,word_b,group,lang_a,lang_b,gloss_a,gloss_b\n"
    file.write_text(head + "".join(f"{a},{b},{g},English,German,{a},{a}\n" for a, b, g in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, written) -> Path:
    """A store with a sweep of two methods × two templates, two small random models, and another pair set."""
    root = tmp_path_factory.mktemp("recorded")
    home = root / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIRPROBE_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        few = ["statistics.resamples=200", "statistics.permutations=200", "pairs=table", "--quiet"]
        file = f"pairs.path={write_pairs(root / 'germanic.csv', ROWS)}"
        assert run(["-m", "method=static,layerwise", "template=bare,gloss", file, *few]) == 0
        small = [written("llama"), written("qwen2", num_hidden_layers=5, hidden_size=64)]
        for folder in small:
            assert run(["model=local", f"model.source={folder}", "template=bare", file, *few]) == 0
        rest = ROWS[2:]
        others = [(a, other, g) for (a, _, g), (_, other, _) in zip(rest, rest[1:] + rest[:1], strict=True)]
        assert run(["template=bare", f"pairs.path={write_pairs(root / 'other.csv', others)}", *few]) == 0
    return home


@pytest.fixture
def kept(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That store, to be read only."""
    monkeypatch.setenv("PAIRPROBE_HOME", str(recorded))
    return recorded


def store_of(home: Path) -> Store:
    return Store(f"sqlite:///{home / 'mlflow.db'}", home)


def runs_of(home: Path) -> list[Recorded]:
    store = store_of(home)
    return [read(store, r) for r in sorted(store.runs(), key=lambda r: r.info.start_time)]


def one(runs: list[Recorded], *parts: str) -> Recorded:
    (found,) = [r for r in runs if all(p in f"{r.name} {r.swept}" for p in parts)]
    return found


# ── what is read back ────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_read_back_as_it_was(kept: Path) -> None:
    found = one(runs_of(kept), "layerwise", "template=bare")
    assert (found.similarity, found.depth, found.control, found.missing) == ("cosine", 6, "control", ())
    assert [(p.a.form, p.b.form, p.group) for p in found.pair_set.pairs] == ROWS
    assert found.pair_set.pairs[0].a.lang == "English"
    delta = np.mean([v for k, v in found.values.items() if k[0] == "cognate"])
    delta -= np.mean([v for k, v in found.values.items() if k[0] == "control"])
    assert delta == pytest.approx(found.number("delta"))
    assert found.weights == "fp32"
    assert found.vectors is not None
    words = [("Wasser", "German"), ("dog", "English")]
    with safe_open(found.vectors.file, framework="np") as file:
        texts = json.loads(file.metadata()["texts"])
        rows = [next(i for i, t in enumerate(texts) if t["word"] == w) for w, _ in words]
        assert np.array_equal(found.vectors.of(words)[3], file.get_tensor("vectors")[3][rows])


def test_runs_of_a_sweep_are_named_by_what_was_swept(kept: Path) -> None:
    runs = runs_of(kept)[:4]
    assert [r.swept for r in runs] == [f"method={m} template={t}" for m in ("static", "layerwise")
                                       for t in ("bare", "gloss")]  # fmt: skip
    assert [r.name for r in runs] == [f"minilm-{m}-germanic · template={t}" for m in ("static", "layerwise")
                                      for t in ("bare", "gloss")]  # fmt: skip
    assert labels(runs) == [r.name for r in runs]
    assert len(set(labels(runs_of(kept)))) == 7  # all are told apart


def test_a_name_is_plain_where_it_is_alone() -> None:
    done = Done([], names=["a-static-x", "a-layerwise-x"])
    assert done.name("a-static-x", "method=static") == "a-static-x"
    done = Done([], names=["a-static-x", "a-static-x"])
    assert done.name("a-static-x", "method=static template.pattern=in {word} here") == (
        "a-static-x · template.pattern=in {word} here"
    )
    assert done.name("a-static-x", "") == "a-static-x"


def test_a_name_tells_of_a_template_that_is_not_the_usual_one_once() -> None:
    assert Done([], names=["a-static-x"]).name("a-static-x", "", "bare") == "a-static-x-bare"
    done = Done([], names=["a-static-x"] * 4)
    assert done.name("a-static-x", "statistics.seed=1", "bare") == "a-static-x-bare · statistics.seed=1"
    assert done.name("a-static-x", "template=bare", "bare") == "a-static-x · template=bare"


def test_what_was_swept_comes_from_the_words_and_from_the_sweeper() -> None:
    class Config:
        sweeper = {"params": {"method.model": "a,b"}}  # noqa: RUF012
        overrides = type("O", (), {"task": ["+statistics.seed=3", "pairs.path=/" + "x" * 60, "method.model=b", "n=1"]})

    given = ["+statistics.seed=range(3)", "pairs.path=p,q", "n=1"]
    assert compose.swept(given, Config) == f"statistics.seed=3 pairs.path=…{'x' * 39} method.model=b"


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────


def test_two_runs_of_different_shapes_are_compared(kept: Path) -> None:
    runs = [r for r in runs_of(kept) if r.tags["model"] != "minilm"]
    found = compare(runs, 500)
    words = found.words
    assert words is not None
    assert (words.shared, words.used, words.held, words.depths) == (22, 22, (22, 22), (3, 5))
    assert words.cka_by_depth is not None
    assert words.cka_by_depth.shape == (4, 6)
    assert not words.same_depths
    assert words.primary is not None
    assert words.primary.cka == pytest.approx(words.cka_by_depth[3, 5], abs=1e-12)
    vectors = []
    for r in runs:
        assert r.vectors is not None
        with safe_open(r.vectors.file, framework="np") as file:
            vectors.append(file.get_tensor("vectors"))  # the same pairs: the same texts in the same order
    assert words.cka_by_depth[1, 4] == pytest.approx(debiased_cka(vectors[0][1:2], vectors[1][4:5])[0, 0], abs=1e-12)
    together = {t.group: t for t in found.together}
    values = [list(r.values.values()) for r in runs]
    assert together[""].rho == pytest.approx(stats.spearmanr(*values).statistic)
    assert together["control"].rho == pytest.approx(stats.spearmanr(*(v[6:] for v in values)).statistic)
    assert [t.pairs for t in found.together] == [11, 6, 5]


def test_delta_of_deltas_is_the_difference_of_the_deltas(kept: Path) -> None:
    runs = runs_of(kept)
    bare, gloss = one(runs, "layerwise", "template=bare"), one(runs, "layerwise", "template=gloss")
    (changed,) = compare([bare, gloss], 500).changed
    assert changed.found is not None
    assert changed.found.estimate == pytest.approx(gloss.metrics["delta"] - bare.metrics["delta"])
    assert changed.found.ci is not None
    assert changed.found.clusters == 11


def test_delta_of_deltas_is_refused_with_its_reason(kept: Path) -> None:
    runs = runs_of(kept)
    bare = one(runs, "layerwise", "template=bare")
    other = compare([bare, one(runs, "other")], 500)
    assert other.changed[0].found is None
    assert other.changed[0].why_not == "the pairs differ: 0 are in both, 11 in run 1 alone, 9 in run 2 alone"
    assert other.pairs == ()  # the same words, exchanged
    assert other.words is not None
    assert other.words.shared == 18
    assert other.words.primary is not None
    assert other.words.primary.cka == pytest.approx(1, abs=1e-5)  # each word alone has the same vector in both


def test_a_changed_similarity_or_control_is_a_reason() -> None:
    a, b = by_hand("a", [0.1, 0.2, 0.3, 0.4, 0.5]), by_hand("b", [0.2, 0.1, 0.3, 0.5, 0.4], similarity="centred")
    assert compare([a, b], 500).changed[0].why_not == "the primary similarities differ (cosine, centred)"
    c = by_hand("c", [0.2, 0.1, 0.3, 0.5, 0.4], control="shuffled")
    assert compare([a, c], 500).changed[0].why_not == "the control groups differ (control, shuffled)"


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        (({}, {"method.depths": "None"}), ()),
        (({"method.depths": "None"}, {}, {"method.depths": "None"}), ()),
        (({}, {"method.depths": "[1]"}), ("(absent)", "[1]")),
        (({"method.depths": "None"}, {"method.depths": "[1]"}, {}), ("None", "[1]", "(absent)")),
    ],
)
def test_a_setting_that_is_null_or_unknown_to_all_runs_differs_in_none(settings: tuple, seen: tuple) -> None:
    runs = [replace(by_hand(str(i), [0.1]), params=params) for i, params in enumerate(settings)]
    assert [d.values for d in comparison.differing(runs)] == ([seen] if seen else [])


def test_what_weights_are_stored_as_and_which_tokenizer_read_the_words_are_differences_too() -> None:
    runs = [by_hand(name, [0.1]) for name in "ab"]
    runs[0].tags.update(checkpoint_stored_as="fp32", tokenizer="BertTokenizer, 30522 tokens", computed_in="float32")
    runs[1].tags.update(checkpoint_stored_as="int8", tokenizer="GPT2Tokenizer, 50257 tokens", computed_in="float32")
    assert {d.key: d.values for d in comparison.differing(runs)} == {
        "checkpoint_stored_as": ("fp32", "int8"),
        "tokenizer": ("BertTokenizer, 30522 tokens", "GPT2Tokenizer, 50257 tokens"),
    }


def test_more_shared_words_than_wanted_are_drawn_alike_each_time(kept: Path) -> None:
    runs = [r for r in runs_of(kept) if r.tags["model"] != "minilm"]
    first, again = (compare(runs, 8).words for _ in range(2))
    assert first is not None
    assert again is not None
    assert (first.shared, first.used) == (22, 8)
    assert np.array_equal(first.cka, again.cka)
    assert first.primary is not None
    assert first.primary.cka_ci is None  # too few words


# ── on the terminal ──────────────────────────────────────────────────────────────────────────────────────


def test_two_runs_on_the_terminal(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runs = runs_of(kept)
    ids = [one(runs, m, "template=bare").run_id for m in ("-static", "-layerwise")]
    assert run(["compare", *ids]) == 0
    said = capfd.readouterr().out
    for text in ("method.name", "ΔΔ", "run 2 less run 1, paired", "Spearman ρ = ", "night – Nacht", "CKA +", "RSA +",
                 "22 shared of 22 and 22", "largest at depths 0 and"):  # fmt: skip
        assert text in said, text
    assert re.search(r"^differs +setting +run 1 +│ run 2$", said, flags=re.MULTILINE)
    assert re.search(r"^outcome +run 1 +│ run 2$", said, flags=re.MULTILINE)
    assert re.search(r"^ +pair +run 1 +run 2 +change$", said, flags=re.MULTILINE)
    assert "germanic_0002" not in said
    assert max(len(line) for line in said.splitlines() if "/" not in line) <= 100
    drawn = [Path(line.strip()) for line in said.split("figures")[-1].strip().splitlines()]
    for file in drawn:
        with Image.open(file) as image:
            assert len(image.convert("L").getcolors(256) or []) > 20
    assert drawn[1].name.endswith("_words.png")


@pytest.mark.parametrize(
    ("moved", "said", "listed"),
    [
        ({}, "none of them differs, each at its run's primary depth (0, 0)", 0),
        ({3: 2e-7}, "none of them differs by 0.0005 or more, the most by 2e-07, each", 0),
        ({3: 0.1}, "the one that differs, each", 1),
        ({3: 0.1, 5: 0.2}, "the 2 that differ, each", 2),
        (dict.fromkeys(range(13), 0.1), "the 12 that differ most, each", 12),
        (dict.fromkeys(range(20), 0.1), "the 12 that differ most, each", 12),
    ],
)
def test_only_pairs_that_differ_are_listed_as_differing(moved: dict[int, float], said: str, listed: int, capfd) -> None:
    values = [0.1 + 0.02 * i for i in range(20)]
    others = [v + moved.get(i, 0.0) for i, v in enumerate(values)]
    show(compare([by_hand("a", values), by_hand("b", others)], 500), ["a", "b"], Report(quiet=False))
    out = capfd.readouterr().out
    assert said in out
    assert len(re.findall(r"^ +a\d+ – b\d+ ", out, flags=re.MULTILINE)) == listed


@pytest.mark.parametrize(
    ("cognates", "p", "told"),
    [
        (10, 0.2, "; Δ differs between the two"),
        (10, None, "; not called a change: Δ itself has no p-value in both runs"),
        (
            4,
            0.2,
            "; not called a change: cognates are worth 4 and control pairs 16 independent pairs, and a claim needs",
        ),
    ],
)
def test_a_change_is_claimed_only_where_delta_can_be_tested(cognates: int, p: float | None, told: str, capfd) -> None:
    values = [0.1 + 0.02 * i for i in range(20)]
    others = [v + (0.5 if i < cognates else 0.0) + 0.001 * (i % 3) for i, v in enumerate(values)]
    runs = [by_hand(name, v, cognates=cognates) for name, v in (("a", values), ("b", others))]
    runs = [replace(r, metrics={**r.metrics, **({"p": p} if p else {})}) for r in runs]
    show(compare(runs, 500), ["a", "b"], Report(quiet=False))
    assert told in " ".join(capfd.readouterr().out.split())


def test_a_sweep_is_compared_by_the_beginning_of_its_id(kept: Path, capfd, tmp_path: Path) -> None:
    sweep = runs_of(kept)[0].tags["sweep_id"]
    file = tmp_path / "sweep.csv"
    assert run(["compare", "--sweep", sweep[:-3], "--table", str(file)]) == 0
    said = capfd.readouterr().out
    for text in (f"{sweep} · 4 of 4 runs finished", "static: 1, 2 · layerwise: 3, 4", "run 4 less run 1",
                 "debiased CKA, run with run"):  # fmt: skip
        assert text in said, text
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert [r["setting"] for r in rows] == ["template=bare", "template=gloss"] * 2
    assert [r["method"] for r in rows] == ["static", "static", "layerwise", "layerwise"]
    runs = runs_of(kept)[:4]
    assert [float(r["delta"]) for r in rows] == [r.metrics["delta"] for r in runs]


def test_runs_of_an_older_pairprobe_and_runs_without_vectors_are_compared_as_far_as_it_goes(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    home = tmp_path / "old"
    shutil.copytree(recorded, home)
    monkeypatch.setenv("PAIRPROBE_HOME", str(home))
    runs = runs_of(home)
    ids = [one(runs, "layerwise", f"template={t}").run_id for t in ("bare", "gloss")]
    store = store_of(home)
    for name in ("outcome.json", "tables/pairs.json", "vectors/vectors.safetensors"):
        store.artifact(ids[0], name).unlink()
    store.artifact(ids[1], "vectors/vectors.safetensors").write_bytes(b"cut off")
    assert run(["compare", *ids]) == 0
    said = " ".join(capfd.readouterr().out.split())
    for text in ("run 1: no outcome.json", "run 1: no tables/pairs.json", "run 1: no vectors",
                 "run 2: vectors that cannot be read", "CKA and RSA are not given: 0 of these 2 runs have vectors",
                 "run 2 less run 1, paired"):  # fmt: skip
        assert text in said, text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare"], "was given no run"),
        (["compare", "abc"], "was given one run"),
        (["compare", "abc", "def", "--sweep", "2026"], "do not go together"),
        (["compare", "abc", "def", "--table", "x.docx"], "Allowed: .tex, .md, .csv, .json"),
        (["compare", "abc", "def", "--table", "nowhere/x.tex"], "there is no such folder"),
        (["compare", "abc", "def", "--words", "3"], "allowed: 4 or more"),
        (["compare", "feedbeef", "feedbeef"], "no run begins with 'feedbeef'"),
        (["compare", "--sweep", "1999"], "no sweep begins with '1999'"),
    ],
)
@pytest.mark.usefixtures("kept")
def test_what_cannot_be_compared_is_told_in_one_error(words: list[str], said: str, capfd) -> None:
    assert run(words) == 2
    err = capfd.readouterr().err
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_an_unknown_sweep_lists_those_there_are(kept: Path, capfd) -> None:
    assert run(["compare", "--sweep", "1999"]) == 2
    assert f"{runs_of(kept)[0].tags['sweep_id']} (4 runs)" in capfd.readouterr().err


def test_a_run_is_not_compared_with_itself_nor_before_it_ended(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    home = tmp_path / "unfinished"
    shutil.copytree(recorded, home)
    monkeypatch.setenv("PAIRPROBE_HOME", str(home))
    runs = runs_of(home)
    assert run(["compare", runs[0].run_id, runs[0].run_id[:12]]) == 2
    assert "given 2 times" in capfd.readouterr().err
    store = store_of(home)
    for r in runs[:2]:
        store.client.set_terminated(r.run_id, "FAILED")
    assert run(["compare", runs[0].run_id, runs[2].run_id]) == 2
    assert "is FAILED" in capfd.readouterr().err
    assert run(["compare", "--sweep", runs[0].tags["sweep_id"]]) == 0
    said = capfd.readouterr().out
    assert "2 of 4 runs finished" in said
    assert f"left out: {runs[0].run_id[:8]} FAILED" in said
    store.client.set_terminated(runs[2].run_id, "KILLED")
    assert run(["compare", "--sweep", runs[0].tags["sweep_id"]]) == 2
    assert "has 1 finished of 4 runs" in capfd.readouterr().err


def test_a_table_that_cannot_be_written_at_the_end_loses_nothing(
    kept: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    ids = [r.run_id for r in runs_of(kept)[:2]]
    assert run(["compare", *ids, "--table", str(tmp_path / "t.md")]) == 2
    said = capfd.readouterr()
    assert "CKA" in said.out
    assert "No space left on device). What is printed above is complete." in " ".join(said.err.split())


def test_places_are_told_in_ranges() -> None:
    assert _numbers([1, 2, 3, 5, 7, 8]) == "1–3, 5, 7, 8"
    assert _numbers([4]) == "4"


# ── tables for papers ────────────────────────────────────────────────────────────────────────────────────


def by_hand(
    name: str, values: list[float], similarity: str = "cosine", control: str = "control", cognates: int = 3
) -> Recorded:
    """A run without a store: its first pairs are cognates, the rest of one control group."""
    pairs = [
        Pair(str(i), "cognate" if i < cognates else control, Word(f"a{i}"), Word(f"b{i}")) for i in range(len(values))
    ]
    keyed = {(p.group, p.a.form, p.b.form, 0): v for p, v in zip(pairs, values, strict=True)}
    pair_set = PairSet("by hand", tuple(pairs), "by hand")
    return Recorded(name, name, {}, {"model": name}, {"delta": 0.1}, similarity, 0, control, pair_set, keyed, None, ())


def row(**values: object) -> Row:
    plain = {
        "run": "abc", "model": "m", "weights": "fp32", "method": "static", "setting": "", "pairs": "pie_oc",
        "n_cognate": 10, "n_control": 4, "control": "control", "similarity": "cosine", "depth": 6, "delta": -0.0364,
        "interval": Interval(-0.092, 0.009), "confidence": 0.95, "g": 0.5, "p": 0.0001, "p_max_t": None, "auc": 0.61,
        "verdict": "cannot tell",
    }  # fmt: skip
    return Row(**{**plain, **values})  # type: ignore[arg-type]


HOSTILE = '50% & a_b {x} #1 $2 ~^\\ [q] <i> | "w"\nnew *row* `c`'


def test_latex_sets_every_character_as_it_is() -> None:
    assert latex_text("a_b & 50%") == r"a\_b \& 50\%"
    assert latex_text("\\{}~^") == r"\textbackslash{}\{\}\textasciitilde{}\textasciicircum{}"
    assert latex_text("[x] <y> Δ − …") == r"{[}x{]} \textless{}y\textgreater{} $\Delta$ $-$ \dots{}"
    text = latex_text(HOSTILE)
    bare = re.sub(r"\\[a-zA-Z]+\{\}|\\[&%$#_{}]|\{[\[\]]\}", "", text)  # what is left once every escape is taken out
    assert not set('&%$#_{}~^\\<>[]|"\n') & set(bare)


def test_latex_of_rows_has_the_columns_it_declares() -> None:
    text = latex([row(model=HOSTILE, setting="x=1"), row(interval=None, p=None)])
    lines = text.splitlines()
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None
    body = [line for line in lines if line.endswith(r" \\")]
    assert len(body) == 3
    for line in body:
        assert len(re.split(r"(?<!\\)&", line)) == len(columns[1])
        assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
        assert line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}")
    assert "$-0.036$" in body[1]
    assert "$[-0.092, +0.009]$" in body[1]
    assert "$<0.001$" in body[1]
    assert " -- " in body[2]
    assert [line for line in lines if line.startswith("% row")] == [
        "% row 1: run abc, control group control",
        "% row 2: run abc, control group control",
    ]
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert lines.count(rule) == 1
    assert "−" not in text  # pdfTeX does not know it


def test_columns_that_no_row_fills_are_left_out() -> None:
    assert " setting " not in markdown([row()])
    assert " setting " in markdown([row(), row(setting="x=1")])


def test_markdown_keeps_a_row_a_row() -> None:
    lines = markdown([row(model=HOSTILE)]).splitlines()
    assert len(lines) == 3
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in lines]
    assert len(set(cells)) == 1
    assert markdown_text("a|b_*") == r"a\|b\_\*"


def test_csv_and_json_hold_unrounded_numbers_and_nothing_where_undefined() -> None:
    rows = [row(model=HOSTILE), row(interval=None, p=None)]
    first, second = csv.DictReader(io.StringIO(table.as_csv(rows)))
    assert first["model"] == HOSTILE
    assert float(first["delta"]) == -0.0364
    assert (float(first["delta_ci_low"]), float(first["delta_ci_high"])) == (-0.092, 0.009)
    assert (second["delta_ci_low"], second["p"]) == ("", "")
    found = json.loads(table.as_json(rows))
    assert found[0]["p"] == 0.0001
    assert found[1]["p"] is None
    assert "interval" not in found[0]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────


def words_of(depths: tuple[int, ...], others: tuple[int, ...]) -> comparison.Words:
    rng = np.random.default_rng(0)
    values = rng.uniform(-0.2, 1, (len(depths), len(others)))
    values[0, 0] = np.nan
    return comparison.Words(
        (0, 1), 30, (30, 40), 30, (depths[-1], others[-1]), np.eye(2), np.eye(2), None, (depths, others), values,
        values, depths == others,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("depths", "others"),
    [((0,), (0,)), ((0,), tuple(range(7))), (tuple(range(81)), tuple(range(33))), ((0, 3, 6), (0, 3, 6))],
)
def test_depths_of_any_number_are_drawn(depths: tuple[int, ...], others: tuple[int, ...], tmp_path: Path) -> None:
    names = ["a-very-long-model-name-" * 4, "*ḱwṓ 犬"]
    file = maps.draw(words_of(depths, others), names, np.eye(2), tmp_path / "map.png")
    with Image.open(file) as image:
        assert len(image.convert("L").getcolors(256) or []) > 20


@pytest.mark.parametrize("n", [3, 20])
def test_runs_of_any_number_are_drawn(n: int, tmp_path: Path) -> None:
    values = np.full((n, n), np.nan)
    values[:2, :2] = 0.5
    words = comparison.Words(tuple(range(1, n + 1)), 30, (30,) * n, 30, (6,) * n, values, values)
    file = maps.draw(words, [f"run {i}" for i in range(n + 1)], np.eye(n + 1), tmp_path / "map.png")
    with Image.open(file) as image:
        assert image.width > 800
