"""Stored tensors that the config does not ask for: never left out of a layer without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.model import Model
from pairprobe.errors import CheckpointError
from pairprobe.executions.resident import Resident
from pairprobe.executions.streamed import Streamed
from pairprobe.records import Text, Texts, Tokens, Word
from pairprobe.tokens import tokenise

EXECUTIONS = [Resident(device="cpu", dtype="float32"), Streamed(device="cpu", dtype="float32", resume=False)]


def changed(folder: Path, to: Path, more: dict[str, torch.Tensor] | None = None, **config: object) -> Checkpoint:
    """A copy of a checkpoint with further tensors, and another config."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors") | (more or {})
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    old = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(old | config))
    return Model("changed", source=str(to)).locate()


def forward(execution: Resident | Streamed, checkpoint: Checkpoint) -> int:
    """How many depths are observed."""
    none = np.empty(0, dtype=np.int64)
    texts = Texts((Text("the dog", 4, 7, Word("dog")),), none, none, "bare")
    tokens: Tokens = tokenise(checkpoint.tokenizer(), texts)
    seen: list[int] = []
    execution.forward(checkpoint, tokens, lambda depth, *_: seen.append(depth))
    return len(seen)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda e: e.name)
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_config_with_fewer_layers_than_the_files_is_refused(
    written: Callable[..., Path], tmp_path: Path, execution: Resident | Streamed, kind: str
) -> None:
    there = Model("x", source=str(written(kind))).locate().layers
    with pytest.raises(CheckpointError, match=f"asks for {there - 1} layers, and the files hold 1 more") as caught:
        forward(execution, changed(written(kind), tmp_path / "x", num_hidden_layers=there - 1))
    assert "method.depths" in str(caught.value)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda e: e.name)
def test_a_bias_that_the_config_denies_is_named(
    written: Callable[..., Path], tmp_path: Path, execution: Resident | Streamed
) -> None:
    name = "model.layers.0.self_attn.q_proj.bias"
    width = load_file(written("llama") / "model.safetensors")[name.replace("bias", "weight")].shape[0]
    with pytest.raises(CheckpointError, match=r"1 stored tensors have no place .*layers\.0\.self_attn\.q_proj\.bias"):
        forward(execution, changed(written("llama"), tmp_path / "x", {name: torch.ones(width)}))


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda e: e.name)
@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight", "score.weight"])
def test_what_is_computed_or_lies_above_the_last_state_is_left_out(
    written: Callable[..., Path], tmp_path: Path, execution: Resident | Streamed, name: str
) -> None:
    checkpoint = changed(written("llama"), tmp_path / "x", {name: torch.ones(4)})
    assert forward(execution, checkpoint) == checkpoint.layers + 1


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda e: e.name)
@pytest.mark.parametrize("name", ["self_attn.k_scale", "self_attn.v_zero_point", "self_attn.k_proj.output_scale"])
def test_scales_for_a_cache_of_keys_and_values_are_left_alone(
    written: Callable[..., Path], tmp_path: Path, execution: Resident | Streamed, name: str
) -> None:
    folder = written("llama")
    more = {f"model.layers.1.{name}": torch.tensor([0.5])}
    assert forward(execution, changed(folder, tmp_path / "x", more)) == forward(execution, Checkpoint.open(folder))


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda e: e.name)
def test_a_scale_for_what_a_layer_gives_is_not(
    written: Callable[..., Path], tmp_path: Path, execution: Resident | Streamed
) -> None:
    more = {"model.layers.1.mlp.up_proj.output_scale": torch.tensor([0.5])}
    with pytest.raises(CheckpointError, match=r"up_proj\.output_scale"):
        forward(execution, changed(written("llama"), tmp_path / "x", more))
