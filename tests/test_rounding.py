"""execution.weights: linear layers as a quantised twin of the checkpoint holds them, in both executions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import LAYERS, WORDS, tokens_of, write
from test_grids import WRITTEN

from bench.encode import encode
from bench.twins import quantise_folder
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.commands.main import run
from pairprobe.errors import ConfigError, ExecutionError
from pairprobe.executions import rounding
from pairprobe.executions.auto import Auto
from pairprobe.executions.grids import GRIDS
from pairprobe.executions.resident import Resident
from pairprobe.executions.rounding import WEIGHTS
from pairprobe.executions.slots import Place
from pairprobe.executions.streamed import Streamed
from pairprobe.methods.layerwise import Layerwise
from pairprobe.records import Usage
from pairprobe.rooms import Workload

STREAMED = Streamed(device="cpu", dtype="float32", batch_tokens=50, threads=1)
RESIDENT = Resident(device="cpu", dtype="float32", batch_tokens=50, threads=1)
WIDE = {"hidden_size": 128, "intermediate_size": 256}
SIZES = {"gpt2": {"n_embd": 128}, "qwen3_moe": {**WIDE, "moe_intermediate_size": 128, "head_dim": 32}}
#: Streamed products are summed tile by tile: a few units in the last place of states of a few tens.
CLOSE = 1e-5


def wide(written: Callable[..., Path], kind: str) -> Path:
    return written(kind, **SIZES.get(kind, WIDE))


def states(folder: Path, execution: Streamed | Resident) -> tuple[np.ndarray, Usage]:
    """(vectors of each text at each depth, what running cost)"""
    checkpoint = Checkpoint.open(folder)
    vectors, usage = Layerwise().vectors(checkpoint, tokens_of(checkpoint), execution)
    return vectors.values, usage


def far(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def with_values(dense: Path, folder: Path, format: str, options: dict, transposed: bool = False) -> Path:
    """The dense checkpoint whose layers' matrices are worth what `format` makes of them, by bench's own encoder."""
    folder.mkdir(parents=True)
    for file in dense.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(dense / "model.safetensors")
    for name, tensor in tensors.items():
        layer = ".layer." in name or ".layers." in name or ".h." in name or name.startswith("h.")
        if tensor.ndim == 2 and layer and not name.endswith(".gate.weight"):
            matrix = tensor.T.contiguous() if transposed else tensor
            worth = encode(matrix.float(), format, **options).values
            tensors[name] = (worth.T if transposed else worth).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# ── as the twin ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("weights", GRIDS)
def test_streamed_gives_the_states_of_the_checkpoint_written_in_that_format(written, tmp_path, weights) -> None:
    dense = wide(written, "llama")
    format, options = WRITTEN[weights]
    twin = quantise_folder(dense, tmp_path / "twin", format, **options)
    found, _ = states(dense, replace(STREAMED, weights=weights))
    expected, _ = states(twin, replace(STREAMED, activations="weight_only"))
    assert far(found, expected) <= CLOSE
    if weights != "fp8_block":  # one block wide, it is scaled after it is summed there, and before it here
        assert (found == expected).all()
    assert far(found, states(dense, STREAMED)[0]) > 1e-3  # rounding is seen at all


@pytest.mark.parametrize("execution", [STREAMED, RESIDENT], ids=["streamed", "resident"])
@pytest.mark.parametrize("weights", ["int8", "int4_g128", "nf4", "fp8_block"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "qwen3_moe", "mixtral"])
def test_every_kind_of_linear_layer_gives_the_states_of_a_dense_twin(
    written, tmp_path, kind, weights, execution
) -> None:
    dense = wide(written, kind)
    format, options = WRITTEN[weights]
    twin = with_values(dense, tmp_path / "twin", format, options, transposed=kind == "gpt2")
    found, usage = states(dense, replace(execution, weights=weights))
    assert far(found, states(twin, execution)[0]) <= CLOSE
    assert usage.rounding is not None
    assert usage.rounding.layers == usage.rounding.of


@pytest.mark.parametrize("weights", GRIDS)
def test_resident_and_streamed_agree_on_all_that_is_logged(written, weights) -> None:
    dense = wide(written, "llama")
    found, usage = states(dense, replace(RESIDENT, weights=weights))
    streamed, other = states(dense, replace(STREAMED, weights=weights))
    assert far(found, streamed) <= CLOSE
    assert usage.rounding is not None and other.rounding is not None  # noqa: PT018
    assert usage.rounding == replace(other.rounding, error=usage.rounding.error)
    assert usage.rounding.error == pytest.approx(other.rounding.error, rel=1e-5)


def test_what_is_logged_is_what_was_rounded(written) -> None:
    dense = wide(written, "llama")
    _, usage = states(dense, replace(STREAMED, weights="int4_g128"))
    assert usage.rounding is not None
    tensors = {n: t for n, t in load_file(dense / "model.safetensors").items() if "_proj" in n}
    assert usage.rounding.layers == len(tensors) == 7 * LAYERS
    assert usage.rounding.values == sum(t.numel() for t in tensors.values())
    assert usage.rounding.bits == pytest.approx(4 + 20 / 128)
    errors = [(encode(t, "awq").values - t).double().square().sum() for t in tensors.values()]
    weights = [t.double().square().sum() for t in tensors.values()]
    assert usage.rounding.error == pytest.approx(float((sum(errors) / sum(weights)) ** 0.5), rel=1e-5)
    assert usage.rounding.sentence.startswith(
        "all 21 linear layers rounded as int4 with zero points, groups of 128, 4.16"
    )


@pytest.mark.parametrize("weights", ["int8", "nf4", "fp8_block"])
def test_a_bfloat16_checkpoint_is_rounded_from_what_it_stores_whatever_is_computed_in(tmp_path, weights) -> None:
    dense = write("llama", tmp_path / "bf16", dtype="bfloat16", **WIDE)
    format, options = WRITTEN[weights]
    options = {**options, **({"scales": torch.bfloat16} if weights == "int8" else {})}
    twin = quantise_folder(dense, tmp_path / "twin", format, **options)
    for dtype in ("float32", "bfloat16"):
        execution = replace(STREAMED, dtype=dtype)
        found, _ = states(dense, replace(execution, weights=weights))
        expected, _ = states(twin, replace(execution, activations="weight_only"))
        assert far(found, expected) <= (CLOSE if dtype == "float32" else 0.05)


def test_small_chunks_change_nothing(written, monkeypatch) -> None:
    dense = wide(written, "llama")
    whole = {w: states(dense, replace(STREAMED, weights=w))[0] for w in ("int8", "nf4", "fp8_block")}
    monkeypatch.setattr(rounding, "CHUNK_CPU", 1)
    for weights, expected in whole.items():
        assert far(states(dense, replace(STREAMED, weights=weights))[0], expected) <= CLOSE


# ── what is not rounded ──────────────────────────────────────────────────────────────────────────────────


def test_embeddings_norms_and_biases_stay(written) -> None:
    dense = wide(written, "llama")
    assert (states(dense, replace(STREAMED, weights="nf4"))[0][0] == states(dense, STREAMED)[0][0]).all()


@pytest.mark.parametrize("execution", [STREAMED, RESIDENT], ids=["streamed", "resident"])
def test_a_matrix_that_does_not_fill_its_groups_stays_and_is_named(tmp_path, execution) -> None:
    dense = write("llama", tmp_path / "narrow", hidden_size=128, intermediate_size=192)
    _, usage = states(dense, replace(execution, weights="int4_g128"))
    assert usage.rounding is not None
    assert (usage.rounding.layers, usage.rounding.of) == (6 * LAYERS, 7 * LAYERS)
    assert usage.rounding.kept == (f"{LAYERS} × mlp.down_proj (192 columns are no multiple of 128)",)
    assert "18 of 21 linear layers" in usage.rounding.sentence
    assert "down_proj" in usage.rounding.sentence


@pytest.mark.parametrize("execution", [STREAMED, RESIDENT, Auto(device="cpu")], ids=["streamed", "resident", "auto"])
def test_a_model_of_which_nothing_can_be_rounded_is_refused(written, execution) -> None:
    checkpoint = Checkpoint.open(written("llama"))
    with pytest.raises(
        ExecutionError, match=r"none of its linear .* 18 × .*v_proj, … \(32 columns.* Allowed .* int8_bnb, nf4"
    ):
        replace(execution, weights="int4_g128").estimate(checkpoint, Workload.of(tokens_of(checkpoint)))


@pytest.mark.parametrize("execution", [STREAMED, RESIDENT, Auto(device="cpu")], ids=["streamed", "resident", "auto"])
def test_a_quantised_checkpoint_is_refused(written, tmp_path, execution) -> None:
    checkpoint = Checkpoint.open(quantise_folder(wide(written, "llama"), tmp_path / "int8", "int8"))
    said = replace(execution, weights="nf4").refuse(checkpoint)
    assert said is not None
    for part in ("'nf4'", "int8, a scale per row", "Allowed for it: as_stored", "dense checkpoint"):
        assert part in said


def test_experts_in_one_tensor_are_refused() -> None:
    from pairprobe.checkpoints.headers import Tensor
    from pairprobe.checkpoints.weight import Dense

    stored = Dense(shape=(4, 8, 8), parts={"weight": Tensor(Path("x"), "F32", (4, 8, 8), 1024)})
    place = Place(torch.nn.Module(), "gate_up_proj", "mlp.experts.gate_up_proj", "dense", ((stored,),))
    with pytest.raises(ExecutionError, match=r"mlp.experts.gate_up_proj holds all experts in one tensor \[4, 8, 8\]"):
        rounding.applied([[place]], "int8", "model")


@pytest.mark.parametrize("of", [Streamed, Resident, Auto])
def test_a_format_that_is_none(of) -> None:
    with pytest.raises(ConfigError, match=r"execution.weights is 'int4'; allowed: as_stored, int8, .*Did you mean"):
        of(weights="int4")


# ── its costs ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_plan_knows_of_it(written) -> None:
    checkpoint = Checkpoint.open(wide(written, "llama"))
    asked = Workload.of(tokens_of(checkpoint))
    for execution in (STREAMED, RESIDENT):
        plain = execution.estimate(checkpoint, asked)
        more = replace(execution, weights="fp8_block").estimate(checkpoint, asked, timed=True)
        assert plain.rounding is None
        assert more.rounding is not None
        assert more.host > plain.host
        assert more.seconds is not None
    assert (
        replace(STREAMED, weights="nf4").estimate(checkpoint, asked).reads == STREAMED.estimate(checkpoint, asked).reads
    )


def test_planning_counts_no_error(written) -> None:
    """The time is measured on rows of zeros, with the very weights that are run afterwards."""
    checkpoint = Checkpoint.open(wide(written, "llama"))
    tokens = tokens_of(checkpoint)
    execution = replace(STREAMED, weights="int8")
    execution.estimate(checkpoint, Workload.of(tokens), timed=True)
    _, usage = Layerwise().vectors(checkpoint, tokens, execution)
    _, fresh = states(checkpoint.folder, execution)
    assert usage.rounding == fresh.rounding


def test_rounding_keeps_within_its_memory() -> None:
    """What a tile of each grid takes beside itself, at its peak, is no more than is planned for each of its values."""
    from torch.profiler import ProfilerActivity, profile

    for name, grid in GRIDS.items():
        rows = torch.randn(512, 512)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            before = rows.clone()
            grid.rounds(rows, torch.float32)
            del before
        now = peak = 0
        for event in sorted(seen.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
            if event.name() == "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
        assert 0 < peak <= rounding.EACH * rows.numel(), name


# ── the corridor ─────────────────────────────────────────────────────────────────────────────────────────


def logged(home: Path) -> list:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    ids = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(ids, order_by=["attributes.start_time ASC"])


def test_it_is_logged_and_shown_also_where_vectors_were_kept(written, home, capfd) -> None:
    folder = wide(written, "llama")
    words = ["model=local", f"model.source={folder}", "execution=streamed", "execution.device=cpu", "template=bare"]
    assert [run([*words, "execution.weights=nf4"]) for _ in range(2)] == [0, 0]
    said = capfd.readouterr().out
    assert said.count("all 21 linear layers rounded as nf4, blocks of 64, 4.50 bits a weight") == 2
    first, second = logged(home)
    assert first.data.params["execution.weights"] == "nf4"
    assert first.data.tags["rounding"].startswith("all 21 linear layers rounded as nf4")
    assert first.data.metrics["rounding/bits_per_weight"] == pytest.approx(4.5)
    assert 0.05 < first.data.metrics["rounding/relative_error"] < 0.15
    assert "were kept" in second.data.tags["vectors.kept"]
    assert second.data.metrics["rounding/layers"] == 21
    assert "rounding/relative_error" not in second.data.metrics  # nothing was rounded in that run


def test_static_vectors_say_that_they_are_not_touched(written, home, capfd) -> None:
    words = ["model=local", f"model.source={wide(written, 'llama')}", "method=static", "template=bare"]
    assert run([*words, "execution.weights=int8"]) == 0
    assert "execution.weights=int8 rounds linear layers, and method=static uses none" in capfd.readouterr().out
    (found,) = logged(home)
    assert "numbers are those of as_stored" in found.data.tags["remark"]


def test_a_quantised_checkpoint_stops_the_run_before_it_starts(written, tmp_path, home, capfd) -> None:
    folder = quantise_folder(wide(written, "llama"), tmp_path / "int8", "int8")
    words = ["model=local", f"model.source={folder}", "execution.device=cpu", "template=bare"]
    with pytest.raises(SystemExit) as stopped:
        run([*words, "-m", "execution.weights=as_stored,int8"])
    assert stopped.value.code == 2
    said = capfd.readouterr().err
    assert "execution.weights is 'int8', but it is stored quantised" in " ".join(said.split())
    assert "nothing was started" in said
    assert not (home / "mlflow.db").exists() or logged(home) == []


def test_every_format_is_named_where_it_is_chosen() -> None:
    conf = Path(__file__).parents[1] / "conf" / "execution"
    for file in conf.glob("*.yaml"):
        line = next(n for n in file.read_text(encoding="utf-8").splitlines() if n.startswith("weights:"))
        assert [w.strip() for w in line.partition("# ")[2].partition(":")[0].split("|")] == list(WEIGHTS), file.name


def test_the_config_of_a_run_is_what_it_was_before(written) -> None:
    """config.json is not touched: it is the stored file that is described."""
    checkpoint = Checkpoint.open(wide(written, "llama"))
    before = json.dumps(checkpoint.config), checkpoint.quantisation
    Layerwise().vectors(checkpoint, tokens_of(checkpoint, WORDS[:2]), replace(STREAMED, weights="int8"))
    assert (json.dumps(checkpoint.config), checkpoint.quantisation) == before
