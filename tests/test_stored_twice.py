"""A weight that the files hold twice, or with scales that nothing asks for: never one of the two without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from packed import headers
from safetensors.torch import load_file, save_file

from bench.make_checkpoint import make
from bench.shapes import SHAPES
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.weight import Weights
from pairprobe.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint of a format whose files hold further tensors, the latter in a second file."""

    def of(format: str, more: dict[str, torch.Tensor]) -> Path:
        folder = make(tmp_path / "damaged", SHAPES["tiny"], format)
        tensors = load_file(folder / SINGLE)
        (folder / SINGLE).unlink()
        save_file({n: t for n, t in tensors.items() if n not in more}, folder / FIRST)
        save_file(more, folder / SECOND)
        placed = dict.fromkeys(tensors, FIRST) | dict.fromkeys(more, SECOND)
        (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
        return folder

    return of


def refused(folder: Path) -> str:
    opened = Checkpoint.open(folder)
    with pytest.raises(CheckpointError) as caught:
        opened.assigned(opened.empty_model())
    assert len(caught.value.problems) == 1
    assert "get the repository again" in caught.value.next_step.lower()
    return caught.value.problems[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int8], ids=str)
@pytest.mark.parametrize(
    ("format", "as_what", "parts"),
    [
        ("awq", "AWQ 4 bit, groups of 128", "qweight and qzeros and scales"),
        ("gptq", "GPTQ 4 bit, groups of 128", "qweight and qzeros and scales and g_idx"),
        ("int4", "compressed-tensors int4 packed, groups of 128", "weight_packed and weight_scale"),
    ],
)
def test_a_weight_beside_the_parts_of_a_quantised_one_is_not_chosen_between(made, format, as_what, parts, dtype):
    said = refused(made(format, {f"{Q_PROJ}.weight": torch.ones(256, 256).to(dtype)}))
    assert said.startswith(f"damaged: {Q_PROJ}: its weight is stored twice")
    name = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int8: "I8"}[dtype]
    assert f"as weight {name} [256, 256] (in {SECOND})" in said
    assert f"as {as_what}, {parts} (in {FIRST})" in said


def test_words_beside_whole_integers_are_not_chosen_between(made):
    packed = {"weight_packed": torch.zeros(256, 64, dtype=torch.int32), "weight_shape": torch.tensor([256, 256])}
    said = refused(made("int8", {f"{Q_PROJ}.{name}": tensor for name, tensor in packed.items()}))
    assert f"as weight I8 [256, 256] (in {FIRST})" in said
    assert f"int8 packed, a scale per row, weight_packed (in {SECOND}), weight_scale (in {FIRST})" in said


@pytest.mark.parametrize(
    ("format", "scales"), [("int8", "weight_scale"), ("fp8", "weight_scale"), ("mlx4", "scales and biases")]
)
def test_a_dense_weight_beside_the_scales_of_a_quantised_one_is_not_taken_as_it_is(made, format, scales):
    said = refused(made(format, {f"{Q_PROJ}.weight": torch.ones(256, 256, dtype=torch.bfloat16)}))
    assert f"{Q_PROJ}: weight BF16 [256, 256] (in {SECOND}) is stored dense, beside the scales" in said
    assert f"{scales} " in said
    assert f"(in {FIRST})" in said


@pytest.mark.parametrize("format", ["fp8_block", "nf4", "bnb8"])
def test_nor_beside_those_that_a_format_knows_as_its_own(made, format):
    folder = made(format, {f"{Q_PROJ}.weight": torch.ones(256, 256, dtype=torch.bfloat16)})
    opened = Checkpoint.open(folder)
    with pytest.raises(CheckpointError, match=rf"damaged: {Q_PROJ}.*weight"):
        opened.assigned(opened.empty_model())


def test_rows_of_an_embedding_that_is_stored_twice_are_not_read(made):
    opened = Checkpoint.open(made("mlx4", {"model.embed_tokens.weight": torch.ones(300, 256, dtype=torch.bfloat16)}))
    with pytest.raises(CheckpointError, match=r"embed_tokens: weight BF16 \[300, 256\].*is stored dense, beside"):
        _ = opened.embedding_name


def test_what_is_published_beside_dense_weights_is_no_second_weight():
    # scales of inputs and of a cache, in checkpoints whose other layers are quantised; norms have no scales
    tensors = {
        **{"a.weight": torch.ones(4, 4), "a.input_scale": torch.ones(1), "a.k_scale": torch.ones(1)},
        **{"norm.weight": torch.ones(4), "norm.weight_scale": torch.ones(1)},
    }
    assert Weights(headers(tensors), {})["a.weight"].format == "fp32"
    assert Weights(headers(tensors), {})["norm.weight"].format == "fp32"


def test_experts_stored_together_and_one_by_one_are_not_chosen_between(written, tmp_path):
    folder = shutil.copytree(written("mixtral"), tmp_path / "both")
    tensors = load_file(folder / SINGLE)
    experts = sorted(n for n in tensors if n.startswith("model.layers.0.") and n.endswith(".w1.weight"))
    assert len(experts) == 4  # as published: one tensor for each
    together = "model.layers.0.mlp.experts.gate_up_proj"
    rows, width = tensors[experts[0]].shape
    save_file(tensors | {together: torch.ones(4, 2 * rows, width)}, folder / SINGLE, metadata={"format": "pt"})
    opened = Checkpoint.open(folder)
    with pytest.raises(CheckpointError) as caught:
        opened.assigned(opened.empty_model())
    assert "layers.0.mlp.experts.gate_up_proj is stored twice: as model.layers.0.mlp" in caught.value.problems[0]
    assert experts[0] in caught.value.problems[0]
    assert SINGLE in caught.value.problems[0]
