"""AWQ: AutoAWQ's own words, its formula element by element, and shapes that could be mistaken for another's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from packed import dense, headers, int32, seen_from_all_sides, words

from pairprobe.checkpoints import packing
from pairprobe.checkpoints.formats import awq, gptq
from pairprobe.errors import CheckpointError

# Made with AutoAWQ 0.2.9, WQLinear_GEMM and WQLinear_GEMV.from_linear, of q[o, i] = (7 o + 3 i + 3) mod 16 and zero
# points (5 o + 1) mod 16, 32 × 32 in one group: the words of inputs 0 and 5, of outputs 0 and 5, of the zero points.
GEMM_INPUT_0 = (0x468ADF13, 0xCE02579B, 0x468ADF13, 0xCE02579B)
GEMM_INPUT_5 = (0x3579CE02, 0xBDF1468A, 0x3579CE02, 0xBDF1468A)
GEMM_ZEROS = (0x4A06F5B1, 0xC28E7D39, 0x4A06F5B1, 0xC28E7D39)
GEMV_OUTPUT_0 = (0x852FC963, 0x0DA741EB, 0x852FC963, 0x0DA741EB)
GEMV_OUTPUT_5 = (0xB852FC96, 0x30DA741E, 0xB852FC96, 0x30DA741E)


def gemm(inputs, outputs, group, seed=0, dtype=torch.float16):
    """(tensors, W float32 [out, in]): nibble k of word c is output 8 c + order[k]; W = (q − z) · s."""
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    draw = np.random.default_rng(seed)
    q = draw.integers(0, 16, (inputs, outputs))
    z = draw.integers(0, 16, (inputs // group, outputs))
    s = torch.from_numpy(draw.uniform(0.01, 0.1, z.shape)).to(dtype)

    def pack(matrix):
        return torch.tensor(
            [[words([row[8 * c + k] for k in order], 4)[0] for c in range(outputs // 8)] for row in matrix.tolist()],
            dtype=torch.int32,
        )

    exact = s.float().numpy()
    w = np.empty((outputs, inputs), dtype=np.float32)
    for o in range(outputs):
        for i in range(inputs):
            w[o, i] = np.float32(q[i, o] - z[i // group, o]) * exact[i // group, o]
    return {"qweight": pack(q), "qzeros": pack(z), "scales": s}, torch.from_numpy(w)


def gemv(inputs, outputs, group, zero_words, seed=0):
    """(tensors, W): as `gemm`, nibbles in order, rows of scales and zero points filled up to `zero_words` words."""
    draw = np.random.default_rng(seed)
    q = draw.integers(0, 16, (outputs, inputs))
    z = np.zeros((outputs, 8 * zero_words), dtype=np.int64)
    z[:, : inputs // group] = draw.integers(0, 16, (outputs, inputs // group))
    s = torch.from_numpy(draw.uniform(0.01, 0.1, z.shape)).half()
    exact = s.float().numpy()
    w = np.empty((outputs, inputs), dtype=np.float32)
    for o in range(outputs):
        for i in range(inputs):
            w[o, i] = np.float32(q[o, i] - z[o, i // group]) * exact[o, i // group]
    packed = [torch.tensor([words(row, 4) for row in m.tolist()], dtype=torch.int32) for m in (q, z)]
    return {"qweight": packed[0], "qzeros": packed[1], "scales": s}, torch.from_numpy(w)


def recognised(tensors, **config):
    assert gptq.recognise("layer", headers(tensors), config) is None
    return awq.recognise("layer", headers(tensors), config)


# ── GEMM ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_words_of_autoawq_gemm_are_read():
    q = packing.awq(int32(GEMM_INPUT_0, GEMM_INPUT_5))
    assert q.tolist() == [[(7 * o + 3 * i + 3) % 16 for o in range(32)] for i in (0, 5)]
    assert packing.awq(int32(GEMM_ZEROS)).tolist() == [[(5 * o + 1) % 16 for o in range(32)]]


@pytest.mark.parametrize(
    ("inputs", "outputs", "group"), [(64, 32, 32), (128, 40, 128), (96, 8, 48), (64, 64, 64), (32, 256, 16)]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gemm_is_the_published_formula(inputs, outputs, group, dtype):
    tensors, w = gemm(inputs, outputs, group, dtype=dtype)
    weight = recognised(tensors)
    assert (weight.format, weight.step, weight.transposed) == (f"AWQ 4 bit, groups of {group}", 8, True)
    assert weight.activations is None
    seen_from_all_sides(weight, tensors, w)


def test_a_tile_larger_than_one_piece_is_the_same(monkeypatch):
    tensors, w = gemm(96, 32, 16)
    for chunk in (1, 16 * 32, 4 * 16 * 32 + 1):
        monkeypatch.setattr(packing, "CHUNK", chunk)
        seen_from_all_sides(recognised(tensors), tensors, w)


def test_a_zero_point_may_be_larger_than_the_value_and_there_is_no_one_added():
    tensors = {"qweight": int32([0]).expand(2, 1), "qzeros": int32([0xFFFFFFFF]), "scales": torch.ones(1, 8).half()}
    assert torch.equal(dense(recognised(tensors), tensors), torch.full((8, 2), -15.0))


# ── GEMV ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_words_of_autoawq_gemv_are_read():
    q = packing.across(int32(GEMV_OUTPUT_0, GEMV_OUTPUT_5), 4, 32)
    assert q.tolist() == [[(7 * o + 3 * i + 3) % 16 for i in range(32)] for o in (0, 5)]


# AutoAWQ's calculate_zeros_width: words of zero points rounded up to 1 (128 and more), 2 (64) or 4 (32).
@pytest.mark.parametrize(
    ("inputs", "outputs", "group", "zero_words"),
    [(256, 7, 128, 1), (256, 8, 64, 2), (256, 5, 32, 4), (192, 3, 192, 1), (1152, 2, 64, 4), (1152, 2, 128, 2)],
)
def test_gemv_is_the_published_formula(inputs, outputs, group, zero_words):
    tensors, w = gemv(inputs, outputs, group, zero_words)
    weight = recognised(tensors, group_size=group if group != inputs else -1)
    assert (weight.format, weight.by_row) == (f"AWQ 4 bit, groups of {group} (GEMV)", True)
    seen_from_all_sides(weight, tensors, w)


def test_gemv_rows_are_read_alone():
    tensors, w = gemv(256, 9, 64, 2)
    out = torch.empty(2, 256)
    recognised(tensors).rows({n: t[[3, 8]] for n, t in tensors.items()}, 0, 2, out)
    assert torch.equal(out, w[[3, 8]])


@pytest.mark.parametrize(("group", "zero_words"), [(128, 4), (64, 8), (32, 16)])
def test_gemv_tells_its_groups_by_shape_where_the_config_is_silent_or_wrong(group, zero_words):
    tensors = gemv(4096, 1, group, zero_words)[0]
    for config in ({}, {"group_size": 7}, {"group_size": None}, {"group_size": "128"}):
        assert recognised(tensors, **config).group == group


def test_gemv_says_where_the_config_is_wrong():
    tensors = gemv(4096, 1, 128, 4)[0]
    assert recognised(tensors, group_size=64, bits=3).unlike == ("bits 3 (stored: 4)", "group_size 64 (stored: 128)")
    assert recognised(tensors, group_size=128, bits=4).unlike == ()


def test_gemv_groups_that_shapes_leave_open_are_the_configs():
    tensors, w = gemv(256, 3, 128, 1)  # one word of zero points is room for groups of 256, too
    assert torch.equal(dense(recognised(tensors, group_size=128), tensors), w)
    assert recognised(tensors, group_size=-1).group == 256
    with pytest.raises(CheckpointError, match=r"layer: .*groups of 128 and of 256; the config's group_size.* is None"):
        recognised(tensors)


def test_gemv_has_no_groups_below_32_whatever_the_config_says():
    assert recognised(gemv(256, 2, 32, 4)[0], group_size=8).group == 32


def test_gemv_zero_points_of_no_group_size_are_told():
    tensors = gemv(128, 2, 128, 1)[0] | {"qzeros": int32([0] * 3, [0] * 3), "scales": torch.ones(2, 24).half()}
    with pytest.raises(CheckpointError, match=r"qzeros \[2, 3\] fit together neither"):
        recognised(tensors)


# ── one for the other ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [64, 128])
def test_a_square_weight_is_not_taken_for_another_layout(size):
    for group in (32, 64):
        tensors, w = gemm(size, size, group, seed=size)
        weight = recognised(tensors, quant_method="gptq", group_size=group)  # a config that lies
        assert isinstance(weight, awq.Gemm)
        assert weight.group == group
        assert torch.equal(dense(weight, tensors), w)


def test_gemv_whose_rows_have_as_many_words_as_scales_is_no_gptq():
    tensors, w = gemv(256, 6, 32, 4)
    assert tensors["qweight"].shape == tensors["scales"].shape == (6, 32)  # as GPTQ in groups of 8
    weight = recognised(tensors, quant_method="awq", group_size=32)
    seen_from_all_sides(weight, tensors, w)
    alike = headers({**tensors, "g_idx": torch.arange(48, dtype=torch.int32) // 8})
    assert awq.recognise("layer", alike, {}) is None
    assert awq.recognise("layer", headers(tensors), {"quant_method": "gptq", "bits": 4}) is None
    assert gptq.recognise("layer", headers(tensors), {"quant_method": "gptq", "bits": 4}).shape == (32, 48)


def test_gemv_with_as_many_zero_points_as_inputs_is_no_gemm_in_groups_of_one():
    tensors, w = gemv(32, 6, 32, 4)
    assert isinstance(recognised(tensors, quant_method="gptq"), awq.Gemv)
    assert torch.equal(dense(recognised(tensors), tensors), w)


# ── damaged ──────────────────────────────────────────────────────────────────────────────────────────────


def test_tensors_of_other_formats_are_left_alone():
    assert awq.recognise("layer", headers({"weight": torch.ones(2, 2)}), {}) is None
    assert awq.recognise("layer", {}, {"quant_method": "awq"}) is None


@pytest.mark.parametrize("missing", ["qzeros", "scales"])
def test_a_missing_tensor_is_named(missing):
    tensors = gemm(64, 32, 32)[0]
    del tensors[missing]
    with pytest.raises(CheckpointError, match=f"layer: has a qweight, but no {missing}"):
        awq.recognise("layer", headers(tensors), {})


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("qweight", torch.zeros(64, 4, dtype=torch.int64)),
        ("qweight", torch.zeros(256, dtype=torch.int32)),
        ("qweight", torch.zeros(0, 4, dtype=torch.int32)),
        ("qzeros", torch.zeros(2, 4)),
        ("scales", torch.zeros(2, 32, dtype=torch.int8)),
    ],
)
def test_a_tensor_of_another_kind_is_named(name, tensor):
    tensors = {**gemm(64, 32, 32)[0], name: tensor}
    with pytest.raises(CheckpointError, match=rf"layer\.{name} is .*; allowed: a matrix of"):
        awq.recognise("layer", headers(tensors), {})


@pytest.mark.parametrize(
    ("name", "shape"),
    [("qweight", (65, 4)), ("qweight", (64, 5)), ("qzeros", (3, 4)), ("qzeros", (2, 5)), ("scales", (2, 31))],
)
def test_shapes_that_do_not_fit_together_are_all_told(name, shape):
    tensors = gemm(64, 32, 32)[0]
    tensors[name] = torch.zeros(shape, dtype=tensors[name].dtype)
    with pytest.raises(CheckpointError, match=r"layer: qweight .*, scales .*, qzeros .* fit together neither"):
        awq.recognise("layer", headers(tensors), {})


@pytest.mark.parametrize("extra", [{}, {"scaled_zeros": torch.zeros(8, 32).half()}])
def test_gemv_fast_is_refused_by_name(extra):
    tensors = {"qweight": torch.zeros(8, 64, dtype=torch.int16), "scales": torch.ones(8, 32).half(), **extra}
    with pytest.raises(CheckpointError, match=r"layer: its qweight is I16 \[8, 64\] in AWQ's GEMV-fast layout"):
        awq.recognise("layer", headers(tensors), {})
