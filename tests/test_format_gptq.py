"""GPTQ: AutoGPTQ's own words, GPTQModel's own weights, the formula element by element, both versions of zero points,
groups in any order."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from packed import dense, headers, int32, seen_from_all_sides, words

from pairprobe.checkpoints import packing
from pairprobe.checkpoints.formats import awq, gptq
from pairprobe.errors import CheckpointError

# Made with AutoGPTQ 0.7.1, qlinear_cuda.QuantLinear.pack, of q[o, i] = (7 o + 5 i + 3) mod 2^bits and zero points
# 1 + 5 o mod (2^bits − 1), 32 × 32 in one group: qweight of outputs 0 and 5 (a column each), qzeros.
AUTOGPTQ = {
    2: ((0x93939393, 0x93939393), (0x4E4E4E4E, 0x4E4E4E4E), (0x18618618, 0x86186186)),
    3: (
        (0x43C67543, 0x7543C675, 0xC67543C6),
        (0x1E33AA1E, 0xAA1E33AA, 0x33AA1E33),
        (0x5D0A62E8, 0x298BA14C, 0x2E853174),
    ),
    4: (
        (0x61C72D83, 0xE94FA50B, 0x61C72D83, 0xE94FA50B),
        (0x94FA50B6, 0x1C72D83E, 0x94FA50B6, 0x1C72D83E),
        (0x50A50A50, 0x0A50A50A, 0xA50A50A5, 0x50A50A50),
    ),
    8: (
        (0x120D0803, 0x26211C17, 0x3A35302B, 0x4E49443F, 0x625D5853, 0x76716C67, 0x8A85807B, 0x9E99948F),
        (0x35302B26, 0x49443F3A, 0x5D58534E, 0x716C6762, 0x85807B76, 0x99948F8A, 0xADA8A39E, 0xC1BCB7B2),
        (0x0F0A0500, 0x231E1914, 0x37322D28, 0x4B46413C, 0x5F5A5550, 0x736E6964, 0x87827D78, 0x9B96918C),
    ),
}


# Beginnings of the sha256 of what GPTQModel 7.7.0 makes of `counted_layer`: float16 [96, 128], by
# nn_modules.qlinear.torch.TorchLinear.dequantize_weight, for bits and order by activation.
GPTQMODEL = {
    (2, False): "a41ea89cccee1d1f", (2, True): "3b472f37b9fac84e",
    (3, False): "d21ba30929371ab8", (3, True): "0aaec37a0118e8f2",
    (4, False): "3fb92292e2f323b7", (4, True): "1909d350014f5102",
    (8, False): "309e966ea9b25ce5", (8, True): "23aa722c567fec31",
}  # fmt: skip


def counted_layer(bits, by_activation):
    """Tensors of 96 outputs and 128 inputs in groups of 32, zero points as they are (v2); nothing in it is drawn."""
    order = [(37 * i % 128 if by_activation else i) // 32 for i in range(128)]
    q = [[(7 * o + 5 * i + 3) % 2**bits for i in range(128)] for o in range(96)]
    z = [[(1 + 5 * o + 3 * g) % 2**bits for o in range(96)] for g in range(4)]
    return {
        "qweight": torch.tensor([words(row, bits) for row in q], dtype=torch.int32).t().contiguous(),
        "qzeros": torch.tensor([words(row, bits) for row in z], dtype=torch.int32),
        "scales": torch.tensor([[(1 + (3 * o + g) % 11) / 100 for o in range(96)] for g in range(4)]).half(),
        "g_idx": torch.tensor(order, dtype=torch.int32),
    }


def gptq_layer(bits, inputs, outputs, groups_of, stored_less=1, seed=0, dtype=torch.float16):
    """(tensors, W float32 [out, in]): `groups_of` is the group of each input; W = (q − z) · s of that group."""
    draw = np.random.default_rng(seed)
    groups = max(groups_of) + 1
    q = draw.integers(0, 2**bits, (inputs, outputs))
    z = draw.integers(0, 2**bits, (groups, outputs))
    s = torch.from_numpy(draw.uniform(0.01, 0.1, z.shape)).to(dtype)
    stored = (z - stored_less) % 2**bits
    exact = s.float().numpy()
    w = np.empty((outputs, inputs), dtype=np.float32)
    for o in range(outputs):
        for i, g in enumerate(groups_of):
            w[o, i] = np.float32(q[i, o] - z[g, o]) * exact[g, o]
    tensors = {
        "qweight": torch.tensor([words(column, bits) for column in q.T.tolist()], dtype=torch.int32).t().contiguous(),
        "qzeros": torch.tensor([words(row, bits) for row in stored.tolist()], dtype=torch.int32),
        "scales": s,
        "g_idx": torch.tensor(groups_of, dtype=torch.int32),
    }
    return tensors, torch.from_numpy(w)


def runs(inputs, group):
    return [i // group for i in range(inputs)]


def recognised(tensors, **config):
    assert awq.recognise("layer", headers(tensors), config) is None
    return gptq.recognise("layer", headers(tensors), config)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("bits", "by_activation"), GPTQMODEL)
def test_weights_are_gptqmodels_bit_for_bit(bits, by_activation):
    tensors = counted_layer(bits, by_activation)
    config = {"bits": bits, "group_size": 32, "desc_act": by_activation, "checkpoint_format": "gptq_v2"}
    found = dense(recognised(tensors, **config), tensors).half()  # theirs are rounded to the scales' dtype
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest().startswith(GPTQMODEL[bits, by_activation])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_words_of_autogptq_are_read(bits):
    first, sixth, zeros = AUTOGPTQ[bits]
    column = int32(first, sixth).t().contiguous()
    m = 2**bits
    assert packing.down(column, bits, 32).t().tolist() == [[(7 * o + 5 * i + 3) % m for i in range(32)] for o in (0, 5)]
    assert packing.across(int32(zeros), bits, 32).tolist() == [[5 * o % (m - 1) for o in range(32)]]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("inputs", "outputs", "group"), [(64, 32, 32), (128, 96, 128), (96, 64, 16), (96, 32, 96)])
def test_gptq_is_the_published_formula(bits, inputs, outputs, group):
    tensors, w = gptq_layer(bits, inputs, outputs, runs(inputs, group))
    weight = recognised(tensors, quant_method="gptq", bits=bits, group_size=group, desc_act=False)
    assert (weight.format, weight.transposed) == (f"GPTQ {bits} bit, groups of {group}", True)
    assert weight.step == {2: 16, 3: 32, 4: 8, 8: 4}[bits]
    assert weight.activations is None
    seen_from_all_sides(weight, tensors, w)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_version_2_stores_zero_points_as_they_are(bits):
    tensors, w = gptq_layer(bits, 64, 32, runs(64, 32), stored_less=0)
    seen_from_all_sides(recognised(tensors, checkpoint_format="gptq_v2"), tensors, w)


@pytest.mark.parametrize(
    ("packing_format", "less"), [("auto_round:auto_gptq", 1), ("auto_round:gptqmodel", 0), ("auto_round", 0)]
)
def test_autoround_says_its_version_by_its_packing_format(packing_format, less):
    tensors, w = gptq_layer(4, 64, 32, runs(64, 32), stored_less=less)
    weight = recognised(tensors, quant_method="auto-round", packing_format=packing_format)
    assert torch.equal(dense(weight, tensors), w)


def test_a_zero_point_of_nought_is_stored_as_all_ones_in_version_1():
    # AutoGPTQ's cuda_old and GPTQModel wrap (z + 1) & 15; two values of 9, scale 1
    tensors = {
        "qweight": int32([0x99999999] * 8),
        "qzeros": int32([0xFFFFFFFF]),
        "scales": torch.ones(1, 8).half(),
    }
    assert torch.equal(dense(recognised(tensors, bits=4), tensors), torch.full((8, 8), 9.0))


def test_groups_by_activation_are_not_guessed_where_g_idx_is_missing():
    groups = [(7 * i + 3) % 64 // 32 for i in range(64)]  # 7 and 64 share no divisor: a permutation, then runs of 32
    tensors, w = gptq_layer(4, 64, 32, groups)
    config = {"bits": 4, "group_size": 32, "desc_act": True}
    assert torch.equal(dense(recognised(tensors, **config), tensors), w)
    del tensors["g_idx"]
    with pytest.raises(CheckpointError, match=r"layer\.g_idx is missing: by the config \(desc_act\) .* the 2 groups"):
        recognised(tensors, **config)


@pytest.mark.parametrize(
    ("group", "config"),
    [
        (64, {"group_size": -1, "desc_act": True}),  # one group holds every column, whatever their order
        (64, {"group_size": 64, "desc_act": True}),
        (32, {"group_size": 32, "desc_act": True, "static_groups": True}),  # groups were cut before columns were sorted
        (32, {"group_size": 32, "desc_act": False}),
        (32, {"group_size": 32}),
    ],
)
def test_g_idx_is_not_asked_for_where_groups_are_runs_of_columns(group, config):
    tensors, w = gptq_layer(4, 64, 32, runs(64, group))
    del tensors["g_idx"]
    assert torch.equal(dense(recognised(tensors, bits=4, **config), tensors), w)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scales_may_be_of_other_dtypes(dtype):
    tensors, w = gptq_layer(4, 64, 8, runs(64, 32), dtype=dtype)
    seen_from_all_sides(recognised(tensors), tensors, w)


# ── groups ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_inputs_grouped_by_activation_are_each_of_their_own_group(bits):
    order = np.random.default_rng(3).permutation(128)
    tensors, w = gptq_layer(bits, 128, 32, (order // 32).tolist())
    weight = recognised(tensors, bits=bits, group_size=32, desc_act=True)
    assert weight.format == f"GPTQ {bits} bit, groups of 32, by activation"
    seen_from_all_sides(weight, tensors, w)


def test_order_is_told_by_g_idx_whatever_the_config_says():
    tensors, w = gptq_layer(4, 64, 8, [i % 2 for i in range(64)])
    assert torch.equal(dense(recognised(tensors, group_size=32, desc_act=False), tensors), w)
    tensors["g_idx"] = tensors["g_idx"].long()
    assert torch.equal(dense(recognised(tensors, group_size=32, desc_act=False), tensors), w)


@pytest.mark.parametrize("config", [{}, {"group_size": 32}, {"group_size": -1}, {"group_size": "x"}])
def test_without_g_idx_groups_are_runs(config):
    tensors, w = gptq_layer(4, 96, 8, runs(96, 32))
    del tensors["g_idx"]
    seen_from_all_sides(recognised(tensors, bits=4, **config), tensors, w)


def test_groups_that_shapes_leave_open_are_not_guessed_against_the_config():
    tensors, w = gptq_layer(4, 384, 8, runs(384, 256))  # 256 and 128; or 192 and 192
    del tensors["g_idx"]
    seen_from_all_sides(recognised(tensors, bits=4, group_size=256), tensors, w)
    with pytest.raises(CheckpointError, match="384 inputs in 2 groups may be in groups of 192, 256; the config's"):
        recognised(tensors, bits=4, group_size=64)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_last_group_may_be_smaller(indexed):
    tensors, w = gptq_layer(4, 96, 8, runs(96, 64))
    if not indexed:
        del tensors["g_idx"]
    seen_from_all_sides(recognised(tensors, bits=4, group_size=64), tensors, w)


def test_a_width_that_fills_no_last_word_is_known_by_g_idx():
    tensors, w = gptq_layer(4, 52, 8, runs(52, 26))
    assert tensors["qweight"].shape == (7, 8)
    seen_from_all_sides(recognised(tensors), tensors, w)


def test_a_tile_larger_than_one_piece_is_the_same(monkeypatch):
    order = np.random.default_rng(3).permutation(160)
    for bits in (3, 4):
        for groups in (runs(160, 32), runs(160, 20), (order // 32).tolist()):
            tensors, w = gptq_layer(bits, 160, 32, groups)
            for chunk in (1, 64 * 32 + 1):
                monkeypatch.setattr(packing, "CHUNK", chunk)
                seen_from_all_sides(recognised(tensors, bits=bits), tensors, w)


@pytest.mark.parametrize("wrong", [-1, 2, 2**31 - 1])
def test_a_group_that_is_not_stored_is_named(wrong):
    tensors, _ = gptq_layer(4, 64, 8, runs(64, 32))
    tensors["g_idx"][5] = wrong
    weight = recognised(tensors)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: layer\.g_idx \[64\] holds {wrong}; allowed: 0"):
        weight.rows(tensors, 0, 8, torch.empty(8, 64))


def moved(groups: list[int], column: int, to: int) -> list[int]:
    return [to if at == column else group for at, group in enumerate(groups)]


@pytest.mark.parametrize("config", [{}, {"group_size": 32}], ids=["as stored", "declared"])
@pytest.mark.parametrize(
    ("index", "said"),
    [
        ([0] * 128, "128 columns into group 0"),
        ([3] * 128, "no columns into group 0"),
        (moved(runs(128, 32), 127, 0), "33 columns into group 0"),
        (moved(runs(128, 32), 0, 3), "31 columns into group 0"),
        ([2 if g == 1 else g for g in runs(128, 32)], "no columns into group 1"),
    ],
    ids=["all in the first", "all in the last", "one more in the first", "one fewer in the first", "one is empty"],
)
def test_groups_that_columns_are_not_shared_out_to_are_refused(index, said, config):
    # values of the right range, by which all of a wrong model was computed without a word
    tensors, _ = gptq_layer(4, 128, 8, runs(128, 32))
    tensors["g_idx"] = torch.tensor(index, dtype=torch.int32)
    weight = recognised(tensors, **config)
    with pytest.raises(CheckpointError, match=rf"^model\.safetensors: layer\.g_idx \[128\] puts {said}; due") as caught:
        weight.rows(tensors, 0, 8, torch.empty(8, 128))
    assert "; due were 32 in each of the 4 groups, in the last perhaps fewer." in caught.value.problems[0]
    assert caught.value.next_step


def test_a_group_has_no_more_columns_than_the_config_says():
    tensors, w = gptq_layer(4, 384, 8, runs(384, 256))
    order = np.random.default_rng(1).permutation(384)
    shuffled, by_order = gptq_layer(4, 384, 8, (order // 256).tolist())
    for size in ({}, {"group_size": 256}):
        assert torch.equal(dense(recognised(tensors, **size), tensors), w)
        assert torch.equal(dense(recognised(shuffled, **size), shuffled), by_order)
    with pytest.raises(CheckpointError, match="puts 256 columns into group 0; due were 192 in each of the 2 groups"):
        dense(recognised(tensors, group_size=192), tensors)


# ── bits and shapes ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_bits_are_told_by_shapes_of_square_weights_too(bits, size):
    tensors, w = gptq_layer(bits, size, size, runs(size, 16), seed=size)
    for config in ({}, {"bits": 4}, {"bits": 8, "quant_method": "awq", "version": "gemm"}):
        assert torch.equal(dense(recognised(tensors, **config), tensors), w)


def test_bits_that_shapes_leave_open_are_the_configs():
    # 8 outputs: one word of zero points for 2, 3 and 4 bits
    tensors, w = gptq_layer(2, 96, 8, runs(96, 96))
    del tensors["g_idx"]
    assert torch.equal(dense(recognised(tensors, bits=2), tensors), w)
    assert recognised(tensors, bits=4).shape == (8, 48)
    assert recognised(tensors, bits=3).shape == (8, 64)
    with pytest.raises(CheckpointError, match="fit GPTQ with 2 or 3 or 4 bits; the config says bits None"):
        recognised(tensors)


def test_bits_that_would_leave_a_value_cut_off_are_not_taken():
    tensors, _ = gptq_layer(2, 128, 8, runs(128, 128))
    del tensors["g_idx"]  # 8 words an output: no whole number of values of 3 bits
    with pytest.raises(CheckpointError, match="fit GPTQ with 2 or 4 bits; the config says bits 3"):
        recognised(tensors, bits=3)


def test_g_idx_settles_bits_that_are_open():
    tensors, w = gptq_layer(2, 96, 8, runs(96, 96))
    assert torch.equal(dense(recognised(tensors), tensors), w)


def test_a_g_idx_of_another_width_is_refused():
    tensors, _ = gptq_layer(4, 64, 32, runs(64, 32))
    tensors["g_idx"] = tensors["g_idx"][:48]
    with pytest.raises(CheckpointError, match=r"layer: .*g_idx \[48\] fit GPTQ with no number of bits"):
        recognised(tensors)


@pytest.mark.parametrize("index", [torch.zeros(64), torch.zeros(8, 8, dtype=torch.int32)])
def test_a_g_idx_of_another_kind_is_refused(index):
    tensors = {**gptq_layer(4, 64, 32, runs(64, 32))[0], "g_idx": index}
    with pytest.raises(CheckpointError, match=r"layer\.g_idx is .*; allowed: I32 or I64, \[in\]"):
        recognised(tensors)


def test_groups_that_cannot_be_shared_out_are_refused():
    tensors, _ = gptq_layer(4, 64, 32, [*runs(63, 21), 2])
    del tensors["g_idx"]
    with pytest.raises(
        CheckpointError, match="64 inputs cannot be shared out to 3 groups; the config says group_size 7"
    ):
        recognised(tensors, group_size=7)


@pytest.mark.parametrize("key", ["checkpoint_format", "packing_format"])
def test_another_checkpoint_format_is_refused_by_name(key):
    tensors, _ = gptq_layer(4, 64, 32, runs(64, 32))
    with pytest.raises(
        CheckpointError, match=f"config.json, .*: {key} is 'gptq_p'; of GPTQ's, gptq, gptq_v2, .* are read"
    ):
        recognised(tensors, **{key: "gptq_p"})


def test_marlin_is_refused_by_name():
    tensors = {"B": torch.zeros(8, 64, dtype=torch.int32), "s": torch.ones(1, 32).half()}
    with pytest.raises(CheckpointError, match="layer: its weight lies in Marlin's layout"):
        gptq.recognise("layer", headers(tensors), {"quant_method": "gptq"})


def test_tensors_of_other_formats_are_left_alone():
    assert gptq.recognise("layer", headers({"weight": torch.ones(2, 2)}), {"quant_method": "gptq"}) is None
