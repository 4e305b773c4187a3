"""The plan of a run, what auto chooses, and large checkpoints down the whole corridor to MLflow."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from small_models import edit_config, tokens_of, write

from bench.twins import quantise_folder
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.commands.main import run
from pairprobe.executions import device, streamed
from pairprobe.executions.auto import SMALL, Auto
from pairprobe.executions.feeder import Feeder
from pairprobe.executions.memory import Budget, Short
from pairprobe.executions.resident import Resident
from pairprobe.executions.streamed import Streamed
from pairprobe.kept import Writing
from pairprobe.rooms import Workload

WIDER = {"hidden_size": 64, "intermediate_size": 96}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write("llama", tmp_path_factory.mktemp("models") / "dense", **WIDER)


@pytest.fixture(scope="module")
def int8(dense: Path) -> Path:
    return quantise_folder(dense, dense.parent / "int8", "int8")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 100 rows with a tokenizer of some 290 pieces, the first 100 of which hold the ASCII letters."""
    return write("llama", tmp_path_factory.mktemp("models") / "foreign", vocab_size=100)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each streamed pass of this test read."""
    passes: list[int] = []
    begin = Feeder.__init__

    def watched(self: Feeder, layers: list, *args: object, **more: object) -> None:
        passes.append(len(layers))
        begin(self, layers, *args, **more)

    monkeypatch.setattr(Feeder, "__init__", watched)
    return passes


def words_for(folder: Path, *more: str) -> list[str]:
    return ["model=local", f"model.source={folder}", "execution.device=cpu", "template=bare", *more]


def exit_of(words: list[str]) -> int:
    """The exit code, however the command leaves."""
    try:
        return run(words)
    except SystemExit as left:
        return int(left.code or 0)


def runs_of(home: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    ids = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(ids, order_by=["attributes.start_time ASC"])


# ── plan ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_shows_both_ways_marks_the_chosen_one_and_says_why(dense: Path, home: Path, capfd) -> None:
    assert run(["plan", *words_for(dense)]) == 0
    said = capfd.readouterr().out
    rows = {line.split()[0]: line for line in said.splitlines() if line.startswith(("resident", "streamed"))}
    assert set(rows) == {"resident", "streamed"}
    assert "←" in rows["resident"]
    assert "←" not in rows["streamed"]
    assert all(re.search(r"about \d+ s", row) for row in rows.values())
    assert "Small and dense: run whole." in said
    assert re.search(r"^pairs +10 cognate, 4 control · 74 reference words$", said, flags=re.MULTILINE)
    assert list(home.iterdir()) == []  # nothing was loaded, written or recorded


def test_a_plan_of_a_quantised_checkpoint_says_what_it_is_stored_as(int8: Path, capfd) -> None:
    assert run(["plan", *words_for(int8)]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "compressed-tensors int8" in said
    assert re.search(r"\d+\.\d bits per weight, unquantised: ", said)
    assert re.search(r"streamed ← ", said)
    assert "cannot: " in said  # resident
    assert "Only layer by layer is possible." in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "a scale per row, inputs as int8 per token"),
        (
            ["execution.activations=weight_only"],
            "inputs unquantised (execution.activations=weight_only; by the checkpoint int8 per token)",
        ),
    ],
    ids=["as stored", "weight only"],
)
def test_plan_and_run_say_what_enters_the_products(int8: Path, capfd, more: list[str], said: str) -> None:
    assert run(["plan", *words_for(int8, *more)]) == 0
    assert f"{said}, " in lines(capfd.readouterr().out)
    assert run(words_for(int8, *more)) == 0
    assert f"{said} · reads " in lines(capfd.readouterr().out)


def test_a_plan_of_static_says_that_nothing_is_run(int8: Path, capfd) -> None:
    assert run(["plan", *words_for(int8, "method=static")]) == 0
    assert "of 245 kB stored; no model is run" in capfd.readouterr().out


def test_a_plan_of_a_sweep_shows_each_of_its_runs(int8: Path, capfd) -> None:
    assert run(["plan", "-m", *words_for(int8, "execution.activations=as_stored,weight_only")]) == 0
    assert capfd.readouterr().out.count("←") == 2


def test_a_plan_that_cannot_be_run_says_why(capfd) -> None:
    assert run(["plan", "model=llama70b_int8"]) == 2
    assert "not found" in capfd.readouterr().err


@pytest.mark.parametrize(("value", "said"), [(-1, "is -1"), ("two", "is 'two'"), (None, "does not say how many")])
def test_a_number_of_layers_that_is_none_is_told_once(int8: Path, tmp_path: Path, capfd, value, said) -> None:
    folder = edit_config(Path(shutil.copytree(int8, tmp_path / "odd")), num_hidden_layers=value)
    assert run(["plan", *words_for(folder)]) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert told.count("odd: ") == 1
    assert said in told
    assert "LlamaModel" not in told


def test_depths_that_the_model_lacks_are_told_beside_what_else_is_wrong(int8: Path, tmp_path: Path, capfd) -> None:
    folder = edit_config(Path(shutil.copytree(int8, tmp_path / "odd")), hidden_act="sillu")
    assert run(["plan", *words_for(folder, "method.depths=[9]")]) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert "method.depths is [9]" in told
    assert "hidden_act is 'sillu'" in told


def test_a_plan_knows_no_flags_of_hydra(capfd) -> None:
    assert run(["plan", "--cfg", "job"]) == 2
    assert "plan does not know --cfg" in capfd.readouterr().err


def test_too_little_memory_is_told_before_anything_starts(int8: Path, home: Path, capfd) -> None:
    with pytest.raises(SystemExit) as left:
        run(words_for(int8, "execution.memory=0.01"))
    assert left.value.code == 2
    said = capfd.readouterr().err
    assert re.search(r"needs about \d+ MB of the host, of which it may use 10 MB", " ".join(said.split()))
    assert not (home / "mlflow.db").exists()


@pytest.mark.parametrize("way", [Streamed, Resident])
def test_too_little_memory_is_told_with_the_setting_that_suffices(way: type, dense: Path, monkeypatch) -> None:
    asked, checkpoint = Workload(np.full(512, 40)), Checkpoint.open(dense)
    problem = way(device="cpu", memory=0.01).estimate(checkpoint, asked).problem
    (enough,) = re.findall(r" execution\.memory=([\d.]+) \(GB\) would suffice\.$", problem)
    assert way(device="cpu", memory=float(enough)).estimate(checkpoint, asked).problem == ""
    assert way(device="cpu", memory=float(enough) - 0.01).estimate(checkpoint, asked).problem  # and no less
    monkeypatch.setattr(device, "free_memory", lambda _: 2_000_000)  # then no setting helps
    problem = way(device="cpu", memory=0.01).estimate(checkpoint, asked).problem
    assert "needs about" in problem
    assert "suffice" not in problem


def test_one_setting_suffices_for_host_and_accelerator_and_for_memory_they_share() -> None:
    apart = Budget(10, 10, free=Budget(100, 100))
    assert apart.short(20, 5) == Short("the host", 20, 10, enough=20)
    assert apart.short(5, 30) == Short("the accelerator", 30, 10, enough=30)
    assert apart.short(20, 30) == Short("the host", 20, 10, enough=30)
    assert apart.short(20, 101) == Short("the host", 20, 10, enough=None)
    one = Budget(10, 10, unified=True, free=Budget(100, 100, unified=True))
    assert one.short(20, 30) == Short("this machine's unified memory", 50, 10, enough=50)
    assert one.short(60, 60) == Short("this machine's unified memory", 120, 10, enough=None)
    assert apart.short(10, 10) is one.short(5, 5) is None


@pytest.mark.parametrize(
    "words", [["execution=resident"], ["execution=streamed"], ["execution=auto"], ["method=static"]], ids="".join
)
@pytest.mark.parametrize("command", [[], ["plan"]], ids=["run", "plan"])
def test_tokens_outside_the_table_are_told_before_anything_starts(
    foreign: Path, home: Path, capfd, words: list[str], command: list[str]
) -> None:
    code = exit_of([*command, *words_for(foreign, *words)])
    said = " ".join(capfd.readouterr().err.split())
    assert code == 2
    assert re.search(r"token '[^']+' \(id [12]\d\d\), in the text of '[^']+', has no row", said)
    assert "embedding table, which has 100: ids 0 … 99." in said
    assert "The tokenizer does not belong to this checkpoint." in said
    assert "model.tokenizer=" in said
    assert said.count("has no row") == 1
    assert "did not foresee" not in said
    assert not (home / "mlflow.db").exists()


def test_the_tokens_of_every_template_are_looked_at(foreign: Path, tmp_path: Path, capfd) -> None:
    file = tmp_path / "pairs.csv"
    words = ("zig,zag", "fax,fox", "jug,jag", "cuz,caz")  # single letters to this tokenizer
    groups = ("cognate", "cognate", "control", "control")
    rows = [f"{i},{group},{of}" for i, (group, of) in enumerate(zip(groups, words, strict=True))]
    file.write_text("\n".join(["id,group,word_a,word_b", *rows]), encoding="utf-8")
    fits = ["method=static", "pairs=table", f"pairs.path={file}", "similarity=cosine"]
    assert exit_of(["plan", *words_for(foreign, *fits)]) == 0, capfd.readouterr().err
    other = "+multiverse.templates.other='{word} 轮'"
    assert exit_of(["plan", *words_for(foreign, *fits, other)]) == 2
    assert "has no row" in " ".join(capfd.readouterr().err.split())


# ── auto ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_auto_runs_small_dense_models_whole_and_everything_else_by_layer(dense: Path, int8: Path, monkeypatch) -> None:
    auto, asked = Auto(device="cpu"), Workload(np.array([5]))
    assert auto.settle(Checkpoint.open(dense), asked).name == "resident"
    assert auto.settle(Checkpoint.open(int8), asked).name == "streamed"
    large = Checkpoint.open(dense)
    monkeypatch.setattr("pairprobe.executions.auto.SMALL", 1000)
    assert auto.settle(large, asked).name == "streamed"
    assert SMALL == 512 * 2**20  # as decision 10 has it


def test_auto_runs_whole_what_cannot_be_taken_apart(tmp_path: Path, monkeypatch) -> None:
    # Its states change between the layers for a streamed run; whole it is as good as any.
    checkpoint = Checkpoint.open(write("llama", tmp_path / "odd"))
    monkeypatch.setattr("pairprobe.executions.auto.SMALL", 0)
    monkeypatch.setattr(streamed.Streamed, "refuse", lambda *_: "cannot be taken apart")
    assert Auto(device="cpu").settle(checkpoint, Workload.of(tokens_of(checkpoint))).name == "resident"


# ── the corridor ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_quantised_checkpoint_goes_down_the_whole_corridor_and_says_what_it_was(int8: Path, home: Path) -> None:
    assert run(words_for(int8, "--quiet")) == 0
    (done,) = runs_of(home)
    tags = done.data.tags
    assert done.info.status == "FINISHED"
    assert (tags["execution"], tags["computed_in"], tags["passes"]) == ("streamed", "float32", "1")
    assert "compressed-tensors int8" in tags["checkpoint_formats"]
    assert float(tags["checkpoint_bits_per_weight"]) > 8
    assert set(tags["checkpoint_unquantised"].split(", ")) == {"embeddings", "head", "norms"}
    assert done.data.params["execution.activations"] == "as_stored"
    assert done.data.metrics["time/read"] >= 0


def test_the_same_texts_again_read_nothing_and_reproduce_reads_everything(
    int8: Path, home: Path, reads: list[int], capfd
) -> None:
    assert run(words_for(int8)) == 0
    assert run(words_for(int8, "similarity=[cosine]", "experiment.primary.depth=1")) == 0
    assert reads == [3]
    assert "texts were kept from an earlier run" in capfd.readouterr().out
    assert run(["plan", *words_for(int8)]) == 0
    said = capfd.readouterr().out
    assert re.search(r"kept +(\d+) of \1 texts are there from an earlier run: nothing is read", said)
    assert re.search(r"^streamed +← +– +– +–   nothing to run: see below$", said, flags=re.MULTILINE)
    first, second = runs_of(home)
    assert "kept" not in " ".join(first.data.tags)
    assert "kept from an earlier run" in second.data.tags["vectors.kept"]
    for kept in (first, second):
        assert run(["reproduce", kept.info.run_id]) == 0
    assert reads == [3, 3, 3]
    assert run(words_for(int8, "execution.resume=false", "--quiet")) == 0
    assert reads == [3, 3, 3, 3]


@pytest.mark.usefixtures("home")
def test_passes_are_told_of_a_plan_that_runs_something_alone(int8: Path, capfd, monkeypatch) -> None:
    real = streamed.Streamed.estimate

    def in_passes(*args: Any, **more: Any) -> Any:
        return replace(real(*args, **more), passes=13, may=10**9, one_pass=2 * 10**9)

    monkeypatch.setattr(streamed.Streamed, "estimate", in_passes)
    assert run(["plan", *words_for(int8)]) == 0
    assert "13 passes over the checkpoint" in lines(capfd.readouterr().out)
    assert run(words_for(int8, "--quiet")) == 0
    capfd.readouterr()
    assert run(["plan", *words_for(int8)]) == 0
    said = capfd.readouterr().out
    assert "nothing is read and run" in said
    assert "passes" not in said


def test_an_interrupt_names_the_run_and_the_same_command_goes_on(int8: Path, home: Path, capfd, monkeypatch) -> None:
    whole = Writing.depth

    def stopped(writing: Writing, depth: int, *args: Any) -> None:
        if depth == 2:
            raise KeyboardInterrupt
        whole(writing, depth, *args)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Writing, "depth", stopped)
        assert run(words_for(int8, "--quiet")) == 130
        (killed,) = runs_of(home)
        said = capfd.readouterr().err.splitlines()
        assert said == [
            f"stopped     interrupted; run {killed.info.run_id} is marked KILLED",
            "            The same command goes on from the vectors that are kept.",
        ]
        assert run(words_for(int8, "execution.resume=false", "--quiet")) == 0
        assert run(["reproduce", runs_of(home)[1].info.run_id]) == 0
    assert killed.info.status == "KILLED"
    assert run(words_for(int8)) == 0
    assert "went on from depth" in lines(capfd.readouterr().out)


def test_an_interrupt_before_anything_is_kept_promises_nothing(int8: Path, home: Path, capfd, monkeypatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writing, "depth", stopped)
    assert run(words_for(int8, "--quiet")) == 130
    (killed,) = runs_of(home)
    assert capfd.readouterr().err == f"stopped     interrupted; run {killed.info.run_id} is marked KILLED\n"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("command", "told"), [([], "interrupted; no run was being recorded"), (["plan"], "interrupted")]
)
def test_an_interrupt_before_there_is_a_run_says_so(command: list[str], told: str, capfd, monkeypatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pairprobe.commands.compose.jobs", stopped)
    assert run(command) == 130
    assert capfd.readouterr().err == f"stopped     {told}\n"


def lines(text: str) -> str:
    """What was printed, its wrapped lines as one."""
    return " ".join(text.split())


@pytest.mark.usefixtures("home")
def test_a_plan_checks_the_sha256_of_a_small_file_and_says_where_it_does_not(int8: Path, capfd, monkeypatch) -> None:
    (file,) = int8.glob("*.safetensors")
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    assert run(["plan", *words_for(int8, f"model.sha256={right}")]) == 0
    assert "sha256" not in capfd.readouterr().out
    assert run(["plan", *words_for(int8, "model.sha256='00'")]) == 2
    said = capfd.readouterr()
    assert f"{file.name} has sha256 {right}, but model.sha256 is 00." in lines(said.err)
    assert "streamed" not in said.out
    monkeypatch.setattr("pairprobe.checkpoints.identity.HASHED_WHOLE", file.stat().st_size - 1)
    assert run(["plan", *words_for(int8, "model.sha256='00'")]) == 0
    assert re.search(r"sha256 not checked: a run reads all [\d.]+ [kM]B for it", lines(capfd.readouterr().out))


def test_the_plan_of_a_run_says_what_earlier_runs_leave_to_be_read(int8: Path, home: Path, tmp_path: Path, capfd):
    # The last pair is left out, so that its word is no text of the run: it is not missing among what was kept.
    table = tmp_path / "pairs.csv"
    rows = ["word_a,word_b,group", *(f"w{i},v{i},{'cognate' if i < 3 else 'control'}" for i in range(6)), "w,w,control"]
    table.write_text("\n".join(rows) + "\n")
    words = words_for(int8, "pairs=table", f"pairs.path={table}", "template=bare", "tokens.exclude=[identical]")
    assert run(words) == 0
    assert re.search(r" · reads [0-9.]+ [kM]B ", lines(capfd.readouterr().out))
    assert run(words) == 0
    said = lines(capfd.readouterr().out)
    assert re.search(r"plan streamed on cpu, .* · reads nothing: all 12 texts kept from an earlier run", said)
    table.write_text("\n".join([*rows, "new,newer,cognate"]) + "\n")
    assert run(["plan", *words]) == 0
    assert re.search(r"^streamed +← +[0-9.]+ [kM]B .* at most \d+ s$", capfd.readouterr().out, flags=re.MULTILINE)
    assert run(words) == 0
    said = lines(capfd.readouterr().out)
    assert re.search(
        r" · reads [0-9.]+ [kM]B .* 12 of 14 texts kept from an earlier run: the others alone are run", said
    )
    for again in (["reproduce", runs_of(home)[-1].info.run_id], [*words, "execution.resume=false"]):
        assert run(again) == 0
        assert "kept from" not in capfd.readouterr().out


def test_memory_that_vanishes_during_a_run_fails_that_run_alone(int8: Path, home: Path, capfd, monkeypatch) -> None:
    planned = streamed.Streamed.forward

    def less_now(self: streamed.Streamed, *args: object) -> object:
        monkeypatch.setattr(streamed, "budget", lambda *_: Budget(1000))
        return planned(self, *args)

    monkeypatch.setattr(streamed.Streamed, "forward", less_now)
    assert run(words_for(int8)) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "of the host, of which it may use 0 MB" in said
    assert "Traceback" not in said
    (failed,) = runs_of(home)
    assert failed.info.status == "FAILED"


def test_weight_only_and_as_stored_are_told_apart(int8: Path, home: Path) -> None:
    assert run(["-m", *words_for(int8, "execution.activations=as_stored,weight_only", "--quiet")]) == 0
    one, other = (r.data.metrics["mean_cognate"] for r in runs_of(home))
    assert one != other
    assert abs(one - other) < 0.2


def test_a_plan_of_rows_counts_them(dense: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("word_a,word_b,group\ndog,cat,cognate\ncat,dog,cognate\ndog,dog,control\ncat,cat,control\n")
    assert run(["plan", *words_for(dense, "method=static", "pairs=table", f"pairs.path={pairs}")]) == 0
    said = re.search(r"plan +(\d+) rows of the embedding table, (\d+) kB", capfd.readouterr().out)
    assert said
    checkpoint = Checkpoint.open(dense, name="x")
    ids = {i for word in ("dog", "cat") for i in checkpoint.tokenizer()(word, add_special_tokens=False)["input_ids"]}
    table = checkpoint.weights[checkpoint.embedding_name]
    assert int(said[1]) == len(ids)
    assert int(said[2]) == round(len(ids) * table.shape[1] * table.nbytes / (table.shape[0] * table.shape[1]) / 1000)
