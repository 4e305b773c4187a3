"""From words to MLflow and back: what a user types, and what is then in the store."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from safetensors import safe_open

from pairprobe import runner, tracking
from pairprobe.commands.main import run
from pairprobe.errors import PairprobeError
from pairprobe.report import Report
from pairprobe.tokens import examine

ROOT = Path(__file__).parents[1]
PAIRS = "word_a,word_b,group,lang_a,lang_b,gloss_a,gloss_b\n" + "".join(
    f"{a},{b},{group},English,German,{a},{a}\n"
    for a, b, group in [
        ("water", "Wasser", "cognate"),
        ("father", "Vater", "cognate"),
        ("night", "Nacht", "cognate"),
        ("dog", "Tisch", "control"),
        ("tree", "Auge", "control"),
        ("house", "Zahl", "unrelated"),
        ("stone", "Vogel", "unrelated"),
    ]
)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    file = tmp_path / "germanic.csv"
    file.write_text(PAIRS, encoding="utf-8")
    return file


def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def runs_of(home: Path):
    c = client(home)
    return c.search_runs([e.experiment_id for e in c.search_experiments()], order_by=["attributes.start_time ASC"])


def test_the_main_job_leaves_all_that_it_promises(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    assert "Loading weights" not in said.err
    for label in ("pairprobe", "plan", "tokens", "states", "verdict", "beware", "run"):
        assert f"\n{label} " in f"\n{said.out}"
    assert "\x1b" not in said.out  # no colours into a pipe
    assert "Cannot tell." in said.out
    assert "8 of 8 control words" in said.out

    (recorded,) = runs_of(home)
    assert recorded.info.status == "FINISHED"
    assert recorded.info.run_name == "minilm-layerwise-pie_oc"
    assert f"runs/{recorded.info.run_id}" in said.out

    metrics, params, tags = recorded.data.metrics, recorded.data.params, recorded.data.tags
    for name in (
        "delta",
        "delta_ci_low",
        "delta_ci_high",
        "auc",
        "equivalence_p",
        "hedges_g",
        "best_depth",
        "delta_best",
    ):
        assert np.isfinite(metrics[name])
    # four clusters of two cognates and a control, two cognates alone: 16 relabellings, and no p
    assert (metrics["clusters"], metrics["units"], metrics["smallest_p"]) == (6, 10, 2 / 16)
    assert not {"p", "p_greater", "p_max_t", "q"} & {*metrics}
    assert metrics["memory/host_peak_rss"] > 50e6
    assert metrics["time/forward"] > 0
    assert metrics["primary_depth"] == 6
    packages = "python torch transformers tokenizers safetensors compressed-tensors numpy scipy pairprobe cuda driver"
    for package in packages.split():
        assert params[f"version/{package}"]
    assert params["method.pooling"] == "mean"
    for tag in ("git_commit", "git_dirty", "hostname", "hardware.cpu", "checkpoint", "pairs_sha256", "verdict"):
        assert tags[tag]
    assert tags["computed_in"] == "float32"

    curve = client(home).get_metric_history(recorded.info.run_id, "cosine/delta")
    assert [m.step for m in curve] == list(range(7))
    assert curve[-1].value == metrics["delta"]
    for name in ("cognate", "control", "ci_low", "ci_high", "auc", "left_out_low", "g"):
        for similarity in ("cosine", "centred"):
            assert len(client(home).get_metric_history(recorded.info.run_id, f"{similarity}/{name}")) == 7

    store = tracking.Store(f"sqlite:///{home / 'mlflow.db'}", home)
    rows = store.table(recorded.info.run_id, "tables/similarities.json")
    assert len(rows) == 2 * 7 * 14
    last = [r["similarity"] for r in rows if r["similarity_kind"] == "cosine" and r["depth"] == 6]
    assert np.mean(last[:10]) - np.mean(last[10:]) == pytest.approx(metrics["delta"], abs=1e-12)
    # MLflow's own reader of tables, as a notebook would use it, understands ours
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    assert len(client(home).load_table(recorded.info.experiment_id, "tables/similarities.json")) == len(rows)
    tokens = store.table(recorded.info.run_id, "tables/tokens.json")
    # two of the 28 texts occur twice; of the reference vocabulary's 74, one is nothing MiniLM's tokenizer knows
    assert len(tokens) == 26 + 73
    assert {"word", "pieces", "ids", "span", "unknown_pieces"} <= tokens[0].keys()

    for name in ("delta_by_depth", "similarities_by_group", "word_map"):
        with Image.open(store.artifact(recorded.info.run_id, f"figures/{name}.png")) as image:
            assert image.width > 500
            assert len(image.convert("L").getcolors(256) or []) > 10  # not blank
    with safe_open(store.artifact(recorded.info.run_id, "vectors/vectors.safetensors"), framework="np") as vectors:
        assert vectors.get_tensor("vectors").shape == (7, 99, 384)
        assert len(json.loads(vectors.metadata()["texts"])) == 99
    assert "torch==" in store.artifact(recorded.info.run_id, "config/requirements.txt").read_text()
    assert not list(home.glob("mlruns/jobs/*/artifacts"))  # moved into the store, not kept twice


def test_a_sweep_is_flat_runs_that_share_a_tag(home: Path, pairs_file: Path) -> None:
    words = ["-m", "method=static,layerwise", "pairs=table", f"pairs.path={pairs_file}", "template=bare", "--quiet"]
    assert run(words) == 0
    runs = runs_of(home)
    assert [r.info.run_name for r in runs] == ["minilm-static-germanic-bare", "minilm-layerwise-germanic-bare"]
    assert len({r.data.tags["sweep_id"] for r in runs}) == 1
    assert [r.data.tags["swept"] for r in runs] == ["method=static", "method=layerwise"]
    assert not any("mlflow.parentRunId" in r.data.tags for r in runs)
    assert len({r.info.experiment_id for r in runs}) == 1


def test_each_control_group_has_its_own_delta(home: Path, pairs_file: Path) -> None:
    words = ["method=static", "pairs=table", f"pairs.path={pairs_file}", "template=bare", "--quiet"]
    assert run(words) == 0
    metrics = runs_of(home)[0].data.metrics
    assert "cosine/delta" in metrics
    assert "cosine/unrelated/delta" in metrics
    assert metrics["n/unrelated"] == 2
    # 3 against 2: ten relabellings cannot give a p under 0.1, so none is given
    assert "p" not in metrics
    assert metrics["smallest_p"] == pytest.approx(0.1)


def test_published_similarities_come_out_as_published(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["experiment=paper70_published"]) == 0
    qwen, llama = (r.data.metrics for r in runs_of(home))
    assert [round(qwen[k], 3) for k in ("mean_cognate", "mean_control", "delta")] == [0.714, 0.750, -0.036]
    assert [round(llama[k], 3) for k in ("mean_cognate", "mean_control", "delta")] == [0.592, 0.598, -0.006]
    for metrics in (qwen, llama):
        assert metrics["delta_ci_low"] < metrics["delta"] < metrics["delta_ci_high"]
        assert "p" not in metrics  # their words link them into too few clusters
    assert "no model" in capfd.readouterr().out


def test_missing_weights_stop_the_sweep_before_anything_starts(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["-m", "model=minilm,llama70b_int8,qwen72b_awq", "method=static,layerwise"])
    assert stop.value.code == 2
    said = capfd.readouterr().err
    assert said.count("not found") == 2  # once a model, though each is in two jobs
    assert "hf download RedHatAI/Llama-3.3-70B-Instruct-quantized.w8a8" in said
    assert "hf download Qwen/Qwen2.5-72B-Instruct-AWQ" in said
    assert "(nothing was started)" in said
    assert list(home.iterdir()) == []


def test_bad_pairs_are_told_by_line_and_leave_no_run(home: Path, tmp_path: Path, capfd) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("word_a,word_b,group\na,b,cognat\n,b,control\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        run(["pairs=table", f"pairs.path={file}"])
    assert stop.value.code == 2
    said = capfd.readouterr().err
    assert "line 2: unknown group 'cognat'" in said
    assert "line 3: word_a is empty" in said
    assert not (home / "mlflow.db").exists()


def test_bad_pairs_are_refused_before_torch_is_imported_which_takes_seconds(tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("word_a,word_b,group\na,b,cognat\n", encoding="utf-8")
    words = ["pairs=table", f"pairs.path={file}", "template=bare"]
    code = (
        "import sys\nfrom pairprobe.commands.main import run\n"
        f"try:\n    run({words!r})\nexcept SystemExit as stop:\n    print(stop.code, *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, *modules = done.stdout.split()
    assert status == "2"
    assert "unknown group 'cognat'" in done.stderr
    assert "pairprobe.pairs.table" in modules
    assert not {"torch", "transformers", "mlflow"} & {*modules}


def test_a_failing_run_is_marked_failed_and_says_why(home: Path, tmp_path: Path, capfd) -> None:
    file = tmp_path / "long.csv"
    rows = "".join(f"{'word ' * 600}{i},b{i},{g}\n" for i, g in enumerate(["cognate"] * 2 + ["control"] * 2))
    file.write_text("word_a,word_b,group\n" + rows, encoding="utf-8")
    assert run(["pairs=table", f"pairs.path={file}", "template=bare"]) == 1
    said = capfd.readouterr().err
    assert "the model allows" in said
    assert "tokens.exclude" in said
    assert "Traceback" not in said
    (failed,) = runs_of(home)
    assert failed.info.status == "FAILED"
    assert "the model allows" in failed.data.tags["error"]
    assert failed.data.params["method.name"] == "layerwise"  # what was tried is on record


def test_a_sweep_says_which_failed_runs_are_in_the_store_and_which_were_never_begun(
    home: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    file = tmp_path / "long.csv"
    rows = "".join(f"{'word ' * 600}{i},b{i},{g}\n" for i, g in enumerate(["cognate"] * 2 + ["control"] * 2))
    file.write_text("word_a,word_b,group\n" + rows, encoding="utf-8")
    original = runner.plans.earlier

    def gone(store, params, tags):  # what a run needs has gone between the checks and its turn
        if params["statistics.seed"] == 1:
            raise PairprobeError("the weights have gone.")
        return original(store, params, tags)

    monkeypatch.setattr(runner.plans, "earlier", gone)
    assert run(["-m", "statistics.seed=0,1", "pairs=table", f"pairs.path={file}", "template=bare"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "2 runs, told above: 1 marked FAILED in MLflow, 1 not begun, so that MLflow has nothing of it" in said
    assert [r.info.status for r in runs_of(home)] == ["FAILED"]


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        (["a"], "1 run, told above: marked FAILED in MLflow"),
        ([None], "1 run, told above: not begun, so that MLflow has nothing of it"),
        ([None, None], "2 runs, told above: not begun, so that MLflow has nothing of them"),
    ],
)
def test_failed_runs_of_one_kind_are_told_in_one(failed: list[str | None], told: str, capsys) -> None:
    Report().sweep([], failed, "")
    assert told in " ".join(capsys.readouterr().out.split())


def test_words_of_unknown_pieces_are_counted_named_and_left_out_when_told(
    home: Path, tmp_path: Path, capfd, monkeypatch
) -> None:
    examined = []
    monkeypatch.setattr(runner, "examine", lambda *given: examined.append(given) or examine(*given))
    file = tmp_path / "runes.csv"
    rows = "".join(f"{a},{b},{g}\n" for a, b, g in [
        ("ᚠ", "water", "cognate"), ("night", "nacht", "cognate"), ("hand", "hand", "cognate"),
        ("dog", "tisch", "control"), ("tree", "auge", "control"),
    ])  # fmt: skip
    file.write_text("word_a,word_b,group\n" + rows, encoding="utf-8")
    words = ["pairs=table", f"pairs.path={file}", "template=bare", "method=static"]
    assert run(words) == 0
    said = capfd.readouterr().out
    assert "unknown pieces: all of 1 word" in said
    assert "'ᚠ' becomes only unknown pieces" in said
    assert "1 word of the pairs reaches the model as unknown pieces alone" in said
    assert len(examined) == 1  # nothing was left out, nothing to look at again
    assert runs_of(home)[0].data.metrics["n/cognate"] == 3
    assert run([*words, "tokens.exclude=[unknown]"]) == 0
    said = capfd.readouterr().out
    assert "left out 1 pair: runes_0001" in said
    assert "1 word of the pairs" not in said
    assert "in 1 pair both words become the same tokens" in said
    assert len(examined) == 1 + 2
    assert runs_of(home)[1].data.metrics["n/cognate"] == 2


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_an_interrupted_run_is_marked_killed(home: Path, number: signal.Signals, said: str) -> None:
    # A run that would take minutes: a million relabellings of many pairs.
    file = home / "many.csv"
    rows = "".join(f"word{i},wort{i},{'cognate' if i % 2 else 'control'}\n" for i in range(400))
    file.write_text("word_a,word_b,group\n" + rows, encoding="utf-8")
    words = ["pairs=table", f"pairs.path={file}", "template=bare", "method=static", "statistics.permutations=3000000"]
    process = subprocess.Popen(
        [sys.executable, "run.py", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        assert process.stdout is not None
        for line in process.stdout:  # the run exists in the store once its vectors were measured
            if line.startswith("vectors") or time.monotonic() > deadline:
                break
        process.send_signal(number)
        _, err = process.communicate(timeout=240)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    (killed,) = runs_of(home)
    assert err == f"stopped     {said}; run {killed.info.run_id} is marked KILLED\n"
    assert killed.info.status == "KILLED"


def test_reproduce_gives_the_same_numbers(home: Path, pairs_file: Path, capfd) -> None:
    assert run(["pairs=table", f"pairs.path={pairs_file}", "template=bare", "--quiet"]) == 0
    original = runs_of(home)[0]
    capfd.readouterr()
    assert run(["reproduce", original.info.run_id[:8]]) == 0
    said = capfd.readouterr().out
    assert "same" in said
    assert "CHANGED" not in said
    again = runs_of(home)[1]
    short = original.info.run_id[:8]
    named = [line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("run ")]
    assert again.info.run_name == f"{original.info.run_name} (reproduces {short})"
    assert named == [f"{again.info.run_name} · {again.info.run_id}"]
    assert again.data.tags["reproduces"] == original.info.run_id
    assert again.data.tags["reproduces_same"] == "true"
    assert again.data.metrics["reproduce/largest_difference"] == 0
    assert again.info.experiment_id == original.info.experiment_id


def test_a_branch_of_the_hub_is_recorded_as_the_commit_that_ran(
    home: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants
    from small_models import write

    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "hub" / "models--somebody--tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    write("llama", place / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    words = ["pairs=table", f"pairs.path={pairs_file}", "template=bare", "method=static", "--quiet"]
    assert run(["model=hub", "model.hub=somebody/tiny", *words]) == 0
    (original,) = runs_of(home)
    assert original.data.params["model.revision"] == commit
    assert original.info.run_name == "tiny-static-germanic-bare"
    (place / "refs" / "main").write_text("f" * 40)  # the branch moves on
    assert run(["reproduce", original.info.run_id]) == 0
    assert run([f"model.source={place / 'snapshots' / commit}", "model.sha256=null", *words]) == 0
    assert runs_of(home)[-1].data.params["model.package"] == "None"  # the folder counted, not the package


def test_reproduce_finds_changed_data(home: Path, pairs_file: Path, capfd) -> None:
    assert run(["pairs=table", f"pairs.path={pairs_file}", "template=bare", "method=static", "--quiet"]) == 0
    pairs_file.write_text(PAIRS.replace("Wasser", "Feuer"), encoding="utf-8")
    assert run(["reproduce", runs_of(home)[0].info.run_id]) == 1
    said = " ".join(capfd.readouterr().out.split())
    assert "DIFFERENT" in said
    assert "data: pairs_sha256" in said
    told = re.search(r"CHANGED the pairs \(pairs_sha256\) are not those of the run: \w+… → \w+…", said)
    assert told is not None
    assert told.end() < said.index("vectors ")  # before anything was measured
    assert "the weights" not in said
    assert runs_of(home)[1].data.tags["reproduces_same"] == "false"


def test_reproduce_without_its_data_could_not_run(home: Path, pairs_file: Path, capfd) -> None:
    assert run(["pairs=table", f"pairs.path={pairs_file}", "template=bare", "method=static", "--quiet"]) == 0
    pairs_file.unlink()
    assert run(["reproduce", runs_of(home)[0].info.run_id]) == 2
    assert "is not there" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("run_id", ["feedbeef", "f" * 32, ""])
def test_reproduce_of_no_run_could_not_run(run_id: str, capfd) -> None:
    assert run(["reproduce", run_id]) == 2
    assert "run" in capfd.readouterr().err


def test_compare_tells_what_differs(home: Path, pairs_file: Path, capfd) -> None:
    words = ["pairs=table", f"pairs.path={pairs_file}", "template=bare", "method=static,layerwise"]
    assert run(["-m", *words, "--quiet"]) == 0
    a, b = (r.info.run_id for r in runs_of(home))
    capfd.readouterr()
    assert run(["compare", a, b]) == 0
    said = capfd.readouterr().out
    assert "method.name" in said
    assert "static" in said
    for word in ("Δ", "interval", "g", "p", "ΔΔ", "father – Vater", "CKA", "RSA"):
        assert word in said
    drawn = [Path(line.strip()) for line in said.split("figures")[-1].strip().splitlines()]
    assert len(drawn) == 2
    assert all(file.exists() for file in drawn)
    assert run(["compare", a]) == 2


def test_runs_follow_when_the_folder_is_moved(home: Path, pairs_file: Path, tmp_path: Path, monkeypatch) -> None:
    words = ["pairs=table", f"pairs.path={pairs_file}", "template=bare", "method=static", "--quiet"]
    assert run(words) == 0
    first = runs_of(home)[0].info.run_id
    moved = tmp_path / "moved"
    shutil.move(home, moved)
    monkeypatch.setenv("PAIRPROBE_HOME", str(moved))
    assert run(["reproduce", first]) == 0
    assert not home.exists()  # nothing was written to the old place


def test_a_store_that_breaks_at_the_end_loses_nothing(home: Path, pairs_file: Path, capfd, monkeypatch) -> None:
    original = tracking.OpenRun.log

    def full(self, metrics=None, params=None, tags=None):  # the disk is full once the numbers come
        if metrics:
            raise tracking._store_error("run cannot be written", OSError("database or disk is full"))
        original(self, metrics, params, tags)

    monkeypatch.setattr(tracking.OpenRun, "log", full)
    assert run(["pairs=table", f"pairs.path={pairs_file}", "template=bare", "method=static"]) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "disk is full" in said
    assert "Nothing is lost: the results are in" in said
    (kept,) = home.glob("mlruns/jobs/*/artifacts")
    assert (kept / "tables" / "similarities.json").exists()
    assert (kept / "figures" / "word_map.png").exists()
    assert runs_of(home)[0].info.status == "FAILED"


def test_quiet_prints_the_verdict_and_the_run_only(capfd) -> None:
    assert run(["method=static", "--quiet"]) == 0
    said = capfd.readouterr().out
    assert {line.split()[0] for line in said.splitlines() if not line.startswith(" ")} == {
        "verdict", "beware", "run", "report",
    }  # fmt: skip
    assert "PAIRPROBE_QUIET" not in os.environ


def test_wrong_weights_are_refused_at_load(home: Path, capfd) -> None:
    assert run(["model.sha256=" + "0" * 64, "method=static"]) == 1
    assert "has sha256 53aa5117" in " ".join(capfd.readouterr().err.split())
    assert not (home / "mlflow.db").exists()
