"""MLX's affine quantisation: words that MLX itself has unpacked, its formula, overrides by module, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from packed import dense, headers, int32, on_disk, seen_from_all_sides, words

from pairprobe.checkpoints import packing, reading
from pairprobe.checkpoints.formats import mlx
from pairprobe.errors import CheckpointError

# What mlx 0.32.4 makes of the words 0x9E3779B9 · (i + 1) mod 2³²: mx.dequantize with scale 1, bias 0, group size 32.
MLX = {
    2: [1, 2, 3, 2, 1, 2, 3, 1, 3, 1, 3, 0, 2, 3, 1, 2, 2, 0, 3, 1, 3, 0, 3, 3, 2, 3, 2, 1, 0, 3, 3, 0],
    3: [1, 7, 6, 4, 7, 6, 5, 1, 6, 3, 2, 1, 7, 6, 4, 7, 6, 5, 1, 6, 3, 6, 2, 1, 5, 5, 1, 3, 2, 5, 6, 6],
    4: [9, 11, 9, 7, 7, 3, 14, 9, 2, 7, 3, 15, 14, 6, 12, 3, 11, 2, 13, 6, 6, 10, 10, 13, 4, 14, 6, 14, 13, 13, 8, 7],
    5: [25, 13, 30, 14, 3, 15, 10, 14, 19, 23, 27, 24, 19, 21, 20, 13, 6, 21, 22, 9, 14, 19, 23, 27, 24, 11, 7, 1, 22,
        10, 28, 2],
    6: [57, 38, 55, 13, 30, 10, 55, 60, 46, 49, 51, 10, 45, 25, 42, 54, 36, 27, 30, 55, 56, 53, 9, 24, 21, 28, 33, 21,
        26, 51, 20, 45],
    8: [185, 121, 55, 158, 114, 243, 110, 60, 43, 109, 166, 218, 228, 230, 221, 120, 157, 96, 21, 23, 86, 218, 76, 181,
        15, 84, 132, 83, 200, 205, 187, 241],
}  # fmt: skip


def layer(bits, inputs, outputs, group, seed=0, dtype=torch.float16):
    """(tensors, W float32): W = q · s + b, in float32; `outputs` may be (experts, out)."""
    draw = np.random.default_rng(seed)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    rows = int(np.prod(outputs))
    q = draw.integers(0, 2**bits, (rows, inputs))
    s = torch.from_numpy(draw.uniform(0.01, 0.1, (rows, inputs // group))).to(dtype)
    b = torch.from_numpy(draw.uniform(-1, 0.1, (rows, inputs // group))).to(dtype)
    scales, biases = s.float().numpy(), b.float().numpy()
    w = np.empty((rows, inputs), dtype=np.float32)
    for o in range(rows):
        for i in range(inputs):
            w[o, i] = np.float32(q[o, i]) * scales[o, i // group] + biases[o, i // group]
    packed = torch.tensor([words(row, bits) for row in q.tolist()], dtype=torch.int32).view(torch.uint32)
    tensors = {
        "weight": packed.reshape(*outputs, -1),
        "scales": s.reshape(*outputs, -1),
        "biases": b.reshape(*outputs, -1),
    }
    return tensors, torch.from_numpy(w).reshape(*outputs, inputs)


def recognised(tensors, **config):
    return mlx.recognise("model.layer", headers(tensors), config)


@pytest.mark.parametrize("bits", sorted(MLX))
def test_words_are_unpacked_as_mlx_does(bits):
    row = int32([0x9E3779B9 * (i + 1) % 2**32 for i in range(bits)])
    assert packing.across(row.view(torch.uint32), bits, 32).tolist() == [MLX[bits]]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("inputs", "outputs", "group"), [(64, 5, 32), (192, 4, 64), (128, 3, 128)])
def test_mlx_is_the_published_formula(bits, inputs, outputs, group):
    tensors, w = layer(bits, inputs, outputs, group)
    weight = recognised(tensors, group_size=group, bits=bits)
    assert (weight.format, weight.by_row, weight.step) == (f"MLX {bits} bit, groups of {group}", True, 1)
    assert weight.activations is None
    seen_from_all_sides(weight, tensors, w)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scales_may_be_of_other_dtypes(dtype):
    tensors, w = layer(4, 64, 3, 64, dtype=dtype)
    seen_from_all_sides(recognised(tensors), tensors, w)


def test_stacked_experts_are_read_like_matrices():
    tensors, w = layer(4, 64, (3, 5), 32)
    seen_from_all_sides(recognised(tensors, group_size=32), tensors, w)


def test_a_tile_larger_than_one_piece_is_the_same(monkeypatch):
    tensors, w = layer(3, 64, 7, 32)
    for chunk in (1, 2 * 64):
        monkeypatch.setattr(packing, "CHUNK", chunk)
        seen_from_all_sides(recognised(tensors, group_size=32), tensors, w)


def test_single_rows_of_an_embedding_are_read_from_the_file(tmp_path):
    tensors, w = layer(6, 128, 11, 64)
    weight = mlx.recognise("embed", on_disk(tensors, tmp_path / "x"), {"group_size": 64, "bits": 6})
    assert weight.by_row
    parts = {role: reading.rows(part, [9, 0, 4]) for role, part in weight.parts.items()}
    out = torch.empty(3, 128)
    weight.rows(parts, 0, 3, out)
    assert torch.equal(out, w[[9, 0, 4]])


def test_without_a_config_groups_are_mlxs_default_of_64():
    tensors, w = layer(4, 128, 3, 64)
    assert torch.equal(dense(recognised(tensors), tensors), w)


def test_a_modules_own_settings_come_first():
    tensors, w = layer(8, 128, 3, 32)
    config = {"group_size": 64, "bits": 4, "model.layer": {"group_size": 32, "bits": 8}, "model.other": False}
    assert torch.equal(dense(recognised(tensors, **config), tensors), w)


def test_settings_of_another_module_are_not_taken():
    tensors, _ = layer(4, 128, 3, 64)
    config = {"group_size": 64, "bits": 4, "model": {"bits": 8}, "layer": {"bits": 8}}
    assert recognised(tensors, **config).format == "MLX 4 bit, groups of 64"
    assert recognised(tensors, **{"group_size": 64, "bits": 4, "model.layer": True}).shape == (3, 128)


@pytest.mark.parametrize(
    "config",
    [
        {"group_size": 32},  # would be 8 bits, which the next line rules out
        {"group_size": 64, "bits": 8},
        {"group_size": 128},  # 2 bits
        {"group_size": 96},
        {"group_size": 0},
        {"group_size": "64"},
        {"group_size": None},
    ],
)
def test_a_config_that_does_not_fit_the_shapes_is_told(config):
    tensors, _ = layer(4, 128, 3, 64)
    with pytest.raises(CheckpointError, match=r"model\.layer: weight \[3, 16\].*do not fit the config's group_size"):
        recognised(tensors, **{"bits": 4, **config})


def test_a_number_of_bits_that_mlx_does_not_have_is_refused():
    tensors = {"weight": torch.zeros(2, 14, dtype=torch.int32).view(torch.uint32)}
    tensors |= {n: torch.ones(2, 1) for n in ("scales", "biases")}
    with pytest.raises(CheckpointError, match="allowed: 1, 2, 3, 4, 5, 6, 8 bits"):
        recognised(tensors, group_size=64)


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_floating_point_modes_are_refused_by_name(mode):
    tensors = {"weight": torch.zeros(2, 8, dtype=torch.int32).view(torch.uint32)}
    tensors["scales"] = torch.zeros(2, 2, dtype=torch.uint8)
    for config in ({"mode": mode}, {"model.layer": {"mode": mode}}):
        with pytest.raises(CheckpointError, match=f"model.layer: is stored by MLX in mode '{mode}'"):
            recognised(tensors, **config)
    with pytest.raises(CheckpointError, match="scales U8, biases none; allowed: mode 'affine', with biases"):
        recognised(tensors)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("scales", torch.ones(3, 1)),
        ("scales", torch.ones(2, 2)),
        ("scales", torch.ones(3, 2, dtype=torch.int32)),
        ("biases", torch.ones(3, 2, dtype=torch.int8)),
        ("weight", torch.zeros(4, 16, dtype=torch.int32).view(torch.uint32)),
        ("weight", torch.zeros(16, dtype=torch.int32).view(torch.uint32)),
        ("weight", torch.zeros(3, 0, dtype=torch.int32).view(torch.uint32)),
    ],
)
def test_tensors_that_do_not_fit_together_are_told(name, tensor):
    tensors = {**layer(4, 128, 3, 64)[0], name: tensor}
    with pytest.raises(CheckpointError, match=r"model\.layer: weight .*do not fit together as MLX stores them"):
        recognised(tensors)


def test_tensors_of_other_formats_are_left_alone():
    assert recognised({}) is None
    assert recognised({"weight": torch.ones(2, 2), "scales": torch.ones(2)}) is None
    assert recognised({"weight": torch.zeros(2, 2, dtype=torch.int32).view(torch.uint32)}) is None
