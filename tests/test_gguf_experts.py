"""Mixtures of experts in GGUF: states against transformers with the gguf package's own values, and what is refused.

The reference reads files with the package's reader and its dequantise, and puts all experts of a layer into the
parameters of transformers at once; ours reads each expert's bytes alone.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from gguf_files import MIXTURES, facts, quantise, small, tensors, write
from small_models import tokens_of
from test_streamed import TOLERANCE, States, far, observed, own
from transformers import AutoConfig
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.gguf import open_file
from pairprobe.commands.main import run
from pairprobe.errors import CheckpointError, Unfilled
from pairprobe.executions.auto import Auto
from pairprobe.executions.resident import Resident
from pairprobe.executions.streamed import Streamed
from pairprobe.records import Tokens
from pairprobe.rooms import Workload

CPU = Streamed(device="cpu", dtype="float32", batch_tokens=50)  # two or three texts a batch
RESIDENT = Resident(device="cpu", dtype="float32", batch_tokens=50)
PROJECTIONS = ("ffn_gate", "ffn_up", "ffn_down")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A GGUF file by kind and type, written once for all tests, alone in its folder; not to be changed."""

    @functools.cache
    def of(kind: str, type: str) -> Path:
        return write(kind, tmp_path_factory.mktemp("written") / "model.gguf", type)

    return of


def values(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor whole, in float32, by GGUF's name, as the gguf package reads and dequantises it."""
    return {t.name: torch.tensor(quants.dequantize(t.data, t.tensor_type)) for t in GGUFReader(file).tensors}


def reference(kind: str, file: Path) -> Any:
    """transformers' own model, of the class and config that the file was written from, with the file's weights."""
    model = small(kind)
    config, arch = model.config, MIXTURES[kind][0]
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    stored = values(file)
    state = {}
    for name, like in model.state_dict().items():
        layer = f"blk.{name.split('.')[2]}" if ".layers." in name else ""
        if name.endswith("experts.gate_up_proj"):
            data = torch.cat([stored[f"{layer}.ffn_{part}_exps.weight"] for part in ("gate", "up")], dim=1)
        elif name.endswith("experts.down_proj"):
            data = stored[f"{layer}.ffn_down_exps.weight"]
        else:
            data = stored[names.get_name(name, try_suffixes=(".weight", ".bias"))]
        if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            data = data.reshape(heads, -1, 2, data.shape[1]).swapaxes(1, 2)
        state[name] = data.reshape(like.shape)
    model.load_state_dict(state)
    return model


def states_of(model: Any, tokens: Tokens) -> States:
    """transformers' own states, one text per forward."""
    found: States = {}
    with torch.inference_mode():
        for row, text in enumerate(tokens.of):
            states = model.model(torch.tensor(text.ids.tolist())[None], output_hidden_states=True).hidden_states
            found |= {(row, depth): h[0].numpy() for depth, h in enumerate(states)}
    return found


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", MIXTURES)
def test_a_mixture_comes_back_with_its_config_and_states(written, kind):
    checkpoint = Checkpoint.open(written(kind, "F32"))
    tokens = tokens_of(checkpoint)
    model = small(kind)
    assert far(observed(CPU, checkpoint, tokens), states_of(model, tokens)) <= TOLERANCE
    invented = {"initializer_range", "dtype", "architectures", "_name_or_path"}
    theirs, ours = model.config.to_dict(), AutoConfig.for_model(**checkpoint.config).to_dict()
    assert {k for k in theirs if theirs[k] != ours.get(k)} <= invented


@pytest.mark.parametrize("type", ["Q8_0", "Q4_K"])
@pytest.mark.parametrize("kind", MIXTURES)
def test_a_quantised_mixture_gives_the_states_of_its_dequantised_weights(written, tmp_path, kind, type):
    file = written(kind, type)
    checkpoint = Checkpoint.open(file)
    tokens = tokens_of(checkpoint)
    model = reference(kind, file)
    found = observed(CPU, checkpoint, tokens)
    assert checkpoint.quantisation == f"GGUF {type}"
    assert far(found, states_of(model, tokens)) <= TOLERANCE
    model.save_pretrained(tmp_path)
    checkpoint.tokenizer().save_pretrained(tmp_path)
    dense = Checkpoint.open(tmp_path)
    assert dense.weights.keys() == checkpoint.weights.keys()
    assert far(found, observed(RESIDENT, dense, tokens)) <= TOLERANCE
    assert far(found, own(tmp_path, tokens)) <= TOLERANCE


@pytest.mark.parametrize("type", ["Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("kind", MIXTURES)
def test_each_expert_is_its_own_run_of_bytes(written, kind, type):
    file = written(kind, type)
    opened, expected = open_file(file), values(file)
    checkpoint = Checkpoint.open(file)
    theirs = {t.name: t for t in GGUFReader(file).tensors}
    names = {"ffn_gate": "w1", "ffn_up": "w3", "ffn_down": "w2"}  # of Mixtral, as published
    for stem in PROJECTIONS:
        whole = theirs[f"blk.1.{stem}_exps.weight"]
        for expert in range(4):
            path = f"model.layers.1.mlp.experts.{expert}.{stem.removeprefix('ffn_')}_proj.weight"
            if kind == "mixtral":
                path = f"model.layers.1.block_sparse_moe.experts.{expert}.{names[stem]}.weight"
            tensor = opened.tensors[path]
            assert tensor.nbytes == whole.n_bytes // 4
            assert tensor.start == whole.data_offset + expert * tensor.nbytes
            assert torch.equal(checkpoint.dense(checkpoint.weights[path]), expected[whole.name][expert])


def test_every_tensor_of_qwen3_is_the_one_transformers_makes_of_the_file(written):
    file = written("qwen3moe", "Q8_0")
    model = small("qwen3moe")
    theirs = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)["tensors"]
    checkpoint = Checkpoint.open(file)
    for name, weight in checkpoint.assigned(model).items():
        if name.endswith(("gate_up_proj", "down_proj")):
            ours = torch.stack([torch.cat([checkpoint.dense(w) for w in expert]) for expert in weight.of])
        else:
            ours = checkpoint.dense(weight)
        assert torch.equal(ours, theirs[name]), name


def apart(file: Path, type: str) -> Path:
    """Mixtral as llama.cpp wrote it before April 2024: a tensor for each expert, blk.0.ffn_gate.0.weight."""
    model = small("mixtral")
    writer = GGUFWriter(file, "llama")
    for key, value in facts("llama", model.config).items():
        if value is not None:
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    for name, tensor in tensors("llama", model).items():
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
            continue
        one = {name: tensor}
        if tensor.ndim == 3:
            one = {name.replace("_exps", f".{i}"): tensor[i] for i in reversed(range(len(tensor)))}
        for part, data in one.items():
            writer.add_tensor(part, quantise(data, type), raw_dtype=GGMLQuantizationType[type])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_tensor_for_each_expert_is_the_same_model(written, tmp_path):
    old = open_file(apart(tmp_path / "old.gguf", "F32"))
    new = open_file(written("mixtral", "F32"))
    assert (tmp_path / "old.gguf").read_bytes().count(b".ffn_down.3.weight") == 2
    assert old.tensors.keys() == new.tensors.keys()
    assert {n: t.shape for n, t in old.tensors.items()} == {n: t.shape for n, t in new.tensors.items()}
    first, second = Checkpoint.open(tmp_path / "old.gguf"), Checkpoint.open(written("mixtral", "F32"))
    for name in old.tensors:
        assert torch.equal(first.dense(first.weights[name]), second.dense(second.weights[name])), name


def test_experts_in_several_files_are_those_of_one(written, tmp_path):
    first = write("qwen3moe", tmp_path / "model.gguf", "Q8_0", parts=5)
    several, one = Checkpoint.open(first), Checkpoint.open(written("qwen3moe", "Q8_0"))
    assert len({t.file for t in several.tensors.values()}) > 2
    assert several.tensors.keys() == one.tensors.keys()
    for name, weight in several.weights.items():
        assert torch.equal(several.dense(weight), one.dense(one.weights[name])), name


def test_routers_may_be_quantised_as_old_files_have_them(tmp_path):
    checkpoint = Checkpoint.open(apart(tmp_path / "old.gguf", "Q8_0"))
    assert checkpoint.weights["model.layers.0.block_sparse_moe.gate.weight"].format == "GGUF Q8_0"
    assert checkpoint.assigned(checkpoint.empty_model())["layers.1.mlp.gate.weight"].shape == (4, 256)


# ── plan ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", MIXTURES)
def test_all_experts_of_a_layer_are_read_once(written, kind):
    file = written(kind, "Q4_K")
    checkpoint = Checkpoint.open(file)
    found = CPU.estimate(checkpoint, Workload.of(tokens_of(checkpoint)))
    assert found.problem == ""
    assert found.reads == sum(t.n_bytes for t in GGUFReader(file).tensors if t.name.startswith("blk."))


def test_memory_holds_two_layers_as_stored_and_one_expert_dense(written, tmp_path):
    four = Checkpoint.open(written("qwen3moe", "Q4_K"))
    eight = Checkpoint.open(write("qwen3moe", tmp_path / "x.gguf", "Q4_K", model=small("qwen3moe", num_experts=8)))
    asked = Workload.of(tokens_of(four))
    matrix = 512 * 256 // 256 * 144  # bytes
    router = 4 * 256 * 4  # of four more experts, which is dense as stored
    more = CPU.estimate(eight, asked).host - CPU.estimate(four, asked).host
    assert more == 2 * (4 * 3 * matrix + router) + router


def test_a_plan_of_a_mixture_tells_reads_and_memory(written, capfd):
    file = written("qwen3moe", "Q8_0")
    assert run(["plan", "model=local", f"model.source={file}", "execution.device=cpu", "template=bare"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "GGUF Q8_0" in said
    assert re.search(r"streamed ← [\d.]+ [kM]B +[\d.]+ [kM]B", said)


@pytest.mark.parametrize("kind", ["llama", "qwen3moe"])
def test_a_dense_file_is_not_loaded_by_transformers_and_streamed_by_itself(written, kind):
    checkpoint = Checkpoint.open(written(kind, "F32"))
    tokens = tokens_of(checkpoint)
    assert "execution=streamed reads it" in (RESIDENT.estimate(checkpoint, Workload.of(tokens)).problem or "")
    execution = Auto(device="cpu", dtype="float32", batch_tokens=50)
    assert execution.settle(checkpoint, Workload.of(tokens)).name == "streamed"
    assert far(observed(execution, checkpoint, tokens), states_of(small(kind), tokens)) <= TOLERANCE


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_mixture_of_another_architecture_is_refused_as_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"a mixture of experts \(qwen2\)") as caught:
        open_file(write("qwen2", tmp_path / "x.gguf", metadata={"qwen2.expert_count": 8}))
    assert "llama, qwen2moe, qwen3moe" in caught.value.next_step


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("expert_count", None, "qwen3moe.expert_count is None; a positive number was due"),
        ("expert_count", 0, "qwen3moe.expert_count is 0; a positive number was due"),
        ("expert_count", "many", "qwen3moe.expert_count is many; a positive number was due"),
        ("expert_count", True, "qwen3moe.expert_count is True; a positive number was due"),
        ("expert_count", 8, r"ffn_gate_exps.weight is F32 \[4, 512, 256\]; a matrix for each of 8 experts was due"),
        ("expert_used_count", None, "qwen3moe.expert_used_count is None; a positive number was due"),
        ("expert_used_count", 5, "qwen3moe.expert_used_count is 5, of 4 experts"),
        ("expert_gating_func", 2, "qwen3moe.expert_gating_func is 2, which is not read"),
        ("expert_weights_scale", 2.5, "qwen3moe.expert_weights_scale is 2.5, which is not read"),
        ("expert_weights_norm", False, "qwen3moe.expert_weights_norm is False, which is not read"),
        ("expert_shared_count", 1, "qwen3moe.expert_shared_count is 1, which is not read"),
        ("expert_shared_feed_forward_length", 64, "qwen3moe.expert_shared_feed_forward_length is 64, which is not"),
        ("expert_group_count", 4, "qwen3moe.expert_group_count is 4, which is not read"),
    ],
)
def test_a_key_that_would_make_another_model_of_it_is_named(tmp_path, key, value, said):
    file = write("qwen3moe", tmp_path / "x.gguf", metadata={f"qwen3moe.{key}": value})
    with pytest.raises(CheckpointError, match=rf"x\.gguf: .*{said}"):
        open_file(file)


def test_keys_that_say_what_is_so_anyway_are_no_reason_to_refuse(tmp_path):
    more = {
        "expert_gating_func": 1,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_shared_count": 0,
        "expert_group_count": 1,
    }
    file = write("qwen3moe", tmp_path / "x.gguf", metadata={f"qwen3moe.{k}": v for k, v in more.items()})
    assert open_file(file).config["num_experts"] == 4


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.ffn_gate_up_exps.weight",
        "blk.0.ffn_gate_shexp.weight",
        "blk.0.ffn_gate_inp_shexp.weight",
        "blk.0.exp_probs_b.bias",
        "blk.0.ffn_gate_exps.scale",
        "blk.0.ffn_gate_exps.bias",
        "blk.0.ffn_gate.weight",
        "blk.0.ffn_gate.0.bias",
        "blk.0.ffn_norm_exps.weight",
        "blk.0.attn_q.0.weight",
    ],
)
@pytest.mark.parametrize("kind", ["mixtral", "qwen3moe"])
def test_tensors_that_a_mixture_of_its_kind_does_not_have_are_named(tmp_path, kind, name):
    file = write(kind, tmp_path / "x.gguf", extra={name: np.ones(256, np.float32)})
    arch = "llama with experts" if kind == "mixtral" else "qwen3moe"
    with pytest.raises(CheckpointError, match=rf"not known in the architecture {arch}: {re.escape(name)}\."):
        open_file(file)


def test_experts_in_a_model_without_any_are_not_dropped(tmp_path):
    extra = {"blk.0.ffn_gate_exps.weight": np.ones((4, 256, 256), np.float32)}
    with pytest.raises(CheckpointError, match=r"not known in the architecture llama: blk\.0\.ffn_gate_exps\.weight"):
        open_file(write("llama", tmp_path / "x.gguf", extra=extra))


def test_an_expert_that_is_stored_twice_is_named_with_both(tmp_path):
    extra = {"blk.0.ffn_up.2.weight": np.ones((512, 256), np.float32)}
    with pytest.raises(CheckpointError, match=r"experts\.2\.w3\.weight is stored twice") as caught:
        open_file(write("mixtral", tmp_path / "x.gguf", extra=extra))
    assert "blk.0.ffn_up_exps.weight and as blk.0.ffn_up.2.weight" in caught.value.problems[0]


@pytest.mark.parametrize("shape", [(256, 256), (3, 512, 256), (2, 2, 512, 256)])
def test_experts_of_another_number_are_refused_with_their_tensor(tmp_path, shape):
    name = "blk.1.ffn_up_exps.weight"
    file = write("mixtral", tmp_path / "x.gguf", extra={name: np.ones(shape, np.float32)})
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)} is F32 {re.escape(str(list(shape)))}; a matrix"):
        open_file(file)


@pytest.mark.parametrize("lost", ["blk.1.ffn_gate_inp.weight", "blk.1.ffn_up_exps.weight"])
def test_a_mixture_that_lacks_a_tensor_is_told_before_anything_runs(tmp_path, lost):
    checkpoint = Checkpoint.open(write("qwen3moe", tmp_path / "x.gguf", without=(lost,)))
    with pytest.raises(Unfilled, match=r"layers\.1\.mlp\.(gate\.weight|experts\.gate_up_proj)"):
        CPU.estimate(checkpoint, Workload.of(tokens_of(checkpoint)))


# ── the config ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_says_little_is_read_with_llama_cpps_defaults(tmp_path):
    # src/models/qwen2moe.cpp: n_ff / n_expert_used, and n_ff for the shared one
    silent = ("qwen2moe.expert_feed_forward_length", "qwen2moe.expert_shared_feed_forward_length")
    found = open_file(write("qwen2moe", tmp_path / "x.gguf", without=silent)).config
    assert (found["intermediate_size"], found["moe_intermediate_size"]) == (1024, 512)
    assert found["shared_expert_intermediate_size"] == 1024


def test_a_window_does_not_make_a_mistral_of_a_mixtral(tmp_path):
    file = write("mixtral", tmp_path / "x.gguf", metadata={"llama.attention.sliding_window": 4})
    found = open_file(file).config
    assert (found["model_type"], found["sliding_window"]) == ("mixtral", 4)


@pytest.mark.parametrize("kind", MIXTURES)
def test_the_config_beside_a_mixture_is_believed_where_it_is_of_that_model(tmp_path, kind):
    model = small(kind)
    file = write(kind, tmp_path / "x.gguf", model=model)
    model.config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    published = json.loads(path.read_text())
    number = next(key for key in published if key in ("num_experts", "num_local_experts"))
    assert open_file(file).config == published
    for key, value in ((number, 8), ("num_experts_per_tok", 1), ("model_type", "llama")):
        path.write_text(json.dumps(published | {key: value}))
        with pytest.raises(CheckpointError, match=f"config.json beside it says {key} {value}; the file, "):
            open_file(file)
