"""bitsandbytes: blocks that the library itself has made, its formula element by element, int8, damaged blobs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from packed import headers, on_disk, seen_from_all_sides

from pairprobe.checkpoints import packing
from pairprobe.checkpoints.formats import bitsandbytes
from pairprobe.checkpoints.weight import Weights
from pairprobe.errors import CheckpointError

# The sixteen values of NormalFloat4 (Dettmers et al. 2023, appendix E) and of bitsandbytes' FP4.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
FP4 = [
    0.0, 0.0052083334885537624, 0.6666666865348816, 1.0, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25,
    0.0, -0.0052083334885537624, -0.6666666865348816, -1.0, -0.3333333432674408, -0.5, -0.1666666716337204, -0.25,
]  # fmt: skip
# Made with bitsandbytes 0.50.2 on a CPU: functional.quantize_4bit(w, blocksize=64) of w[o, i] = ((37 i + 11 o) mod 101
# − 50) / 64 · (1 + o), 3 × 64, and dequantize_4bit: six values of each row, and the sum of each row in float64.
BYTES = {
    "nf4": "04c16e29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05d18e2af4c117e29f3b05d17e2af4c06d18e2a04c16"
    "e29f3b05d17e29f3c05d18e2af4c16e129f3b05d18e2af4c16d18e3b04c17e29f3b05d17e2af4c06d18e2a04c16e29f3",
    "fp4": "bf5a92a63c4be5a02d63c4be2a12d73f5a92a63d4bf5a92d63c4be5a12d73c5ba92d63c4be5a12d73c5be2a12d7bf5a9"
    "2a63c4be5a02d63c4be2a12d73f5a92ad63c4be5a12d73c5be2a63d4bf5a92d63c4be5a12d73c5be2a12d7bf5a92a63c",
}
DEQUANTISED = {
    ("nf4", False): (
        [-0.78125, -0.2222198247909546, 0.34430456161499023, -0.5439006090164185, -0.0711328387260437,
         0.564810037612915],
        [-1.087801218032837, 0.0, 1.12962007522583, -0.8204266428947449, 0.2514534294605255, 1.5625],
        [-1.230639934539795, 0.37718015909194946, 2.34375, -0.9255878925323486, 0.7919888496398926, -2.34375],
        [-0.19342834502458572, -0.7115682363510132, -1.31076018512249],
    ),
    ("nf4", True): (
        [-0.7867431640625, -0.22378231585025787, 0.3467254340648651, -0.5477249026298523, -0.0716329962015152,
         0.5687813758850098],
        [-1.0878127813339233, 0.0, 1.1296319961547852, -0.8204353451728821, 0.2514561116695404, 1.5625165700912476],
        [-1.230639934539795, 0.37718015909194946, 2.34375, -0.9255878925323486, 0.7919888496398926, -2.34375],
        [-0.1947881281375885, -0.7115765064954758, -1.31076018512249],
    ),
    ("fp4", False): (
        [-0.78125, -0.1953125, 0.390625, -0.5208333730697632, -0.004069010727107525, 0.5208333730697632],
        [-1.0416667461395264, -0.00813802145421505, 1.0416667461395264, -0.78125, 0.2604166865348816, 1.5625],
        [-1.171875, 0.390625, 2.34375, -0.78125, 0.78125, -2.34375],
        [-0.1993815405294299, -0.3906250596046448, -0.96435546875],
    ),
    ("fp4", True): (
        [-0.7867431640625, -0.196685791015625, 0.39337158203125, -0.5244954824447632, -0.004097620956599712,
         0.5244954824447632],
        [-1.041677713394165, -0.008138107135891914, 1.041677713394165, -0.7812582850456238, 0.26041942834854126,
         1.5625165700912476],
        [-1.171875, 0.390625, 2.34375, -0.78125, 0.78125, -2.34375],
        [-0.2007834417745471, -0.3906291425228119, -0.96435546875],
    ),
}  # fmt: skip
BLOB = "weight.quant_state.bitsandbytes__"


def blob(kind, shape, block, nested=False, changes=()):
    said = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": list(shape)}
    if nested:
        said |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 1.5625}
    return torch.tensor(list(json.dumps(said | dict(changes)).encode()), dtype=torch.uint8)


def four_bit(shape, block, kind="nf4", outer=None, seed=0):
    """(tensors, W float32): W[n] = code[nibble n] · absmax[n // block], the high nibble first."""
    draw = np.random.default_rng(seed)
    n = int(np.prod(shape))
    blocks = -(-n // block)
    codes = draw.integers(0, 16, n + n % 2)
    tensors = {
        "weight": torch.tensor([[16 * a + b] for a, b in codes.reshape(-1, 2).tolist()], dtype=torch.uint8),
        "weight.quant_map": torch.tensor(NF4 if kind == "nf4" else FP4),
    }
    if outer:
        inner = draw.integers(0, 256, blocks)
        table = draw.uniform(-1, 1, 256).astype(np.float32)
        top = draw.uniform(0.5, 2, -(-blocks // outer)).astype(np.float32)
        absmax = [table[inner[b]] * top[b // outer] + np.float32(1.5625) for b in range(blocks)]
        tensors |= {
            "weight.absmax": torch.tensor(inner.tolist(), dtype=torch.uint8),
            "weight.nested_absmax": torch.from_numpy(top),
            "weight.nested_quant_map": torch.from_numpy(table),
            BLOB + kind: blob(kind, shape, block, nested=True, changes={"nested_blocksize": outer}),
        }
    else:
        absmax = draw.uniform(0.5, 2, blocks).astype(np.float32)
        tensors |= {"weight.absmax": torch.from_numpy(absmax), BLOB + kind: blob(kind, shape, block)}
    code = tensors["weight.quant_map"].numpy()
    w = np.array([code[codes[i]] * absmax[i // block] for i in range(n)], dtype=np.float32)
    return tensors, torch.from_numpy(w).reshape(shape)


def parts_of(tensors):
    return {name.removeprefix("weight.").partition(".")[0]: tensor for name, tensor in tensors.items()}


@pytest.fixture
def recognised(tmp_path):
    """The weight these tensors store in a file."""
    return lambda tensors: bitsandbytes.recognise("layer", on_disk(tensors, tmp_path / "x.safetensors"), {})


# ── 4 bit ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "nested"), sorted(DEQUANTISED))
def test_blocks_of_bitsandbytes_are_read_as_it_reads_them(recognised, kind, nested):
    tensors = {
        "weight": torch.tensor(list(bytes.fromhex(BYTES[kind])), dtype=torch.uint8)[:, None],
        "weight.quant_map": torch.tensor(NF4 if kind == "nf4" else FP4),
        BLOB + kind: blob(kind, (3, 64), 64, nested=nested),
    }
    if nested:
        table = torch.zeros(256)
        table[0], table[131], table[255] = -0.992968738079071, 2.1249998098937795e-05, 1.0  # the entries in use
        tensors |= {
            "weight.absmax": torch.tensor([0, 131, 255], dtype=torch.uint8),
            "weight.nested_absmax": torch.tensor([0.78125]),
            "weight.nested_quant_map": table,
        }
    else:
        tensors["weight.absmax"] = torch.tensor([0.78125, 1.5625, 2.34375])
    weight = recognised(tensors)
    assert weight.format == f"bitsandbytes {kind}, blocks of 64" + (", nested" if nested else "")
    out = torch.empty(3, 64)
    assert weight.rows(parts_of(tensors), 0, 3, out) is None
    *first, sums = DEQUANTISED[kind, nested]
    assert torch.equal(out[:, :6], torch.tensor(first))
    assert out.double().sum(1).tolist() == pytest.approx(sums, abs=1e-12)


@pytest.mark.parametrize("outer", [None, 4, 256])
@pytest.mark.parametrize(
    ("shape", "block", "step"),
    [
        ((9, 128), 64, 1),
        ((9, 32), 64, 2),
        ((7, 33), 64, 64),
        ((10, 100), 64, 16),
        ((3, 64), 4096, 64),
        ((5, 96), 64, 2),
    ],
)
def test_4_bit_is_the_published_formula(recognised, shape, block, step, outer):
    tensors, w = four_bit(shape, block, outer=outer)
    weight = recognised(tensors)
    assert (weight.step, weight.by_row, weight.activations) == (step, False, None)
    seen_from_all_sides(weight, parts_of(tensors), w)


def test_fp4_too(recognised):
    tensors, w = four_bit((4, 64), 64, kind="fp4")
    seen_from_all_sides(recognised(tensors), parts_of(tensors), w)


def test_a_tile_larger_than_one_piece_is_the_same(recognised, monkeypatch):
    tensors, w = four_bit((70, 33), 64, outer=4)
    weight = recognised(tensors)
    for chunk in (1, 2 * 33 * 64):
        monkeypatch.setattr(packing, "CHUNK", chunk)
        seen_from_all_sides(weight, parts_of(tensors), w)


def test_codes_may_be_stored_in_wider_words(recognised):
    # bnb_4bit_quant_storage: the same bytes under another dtype
    tensors, w = four_bit((6, 64), 64)
    for dtype in (torch.bfloat16, torch.float32, torch.int8):
        wide = {**tensors, "weight": tensors["weight"].flatten().view(dtype)[:, None]}
        seen_from_all_sides(recognised(wide), parts_of(wide), w)


def test_every_tensor_of_a_layer_finds_its_place(tmp_path):
    tensors = four_bit((4, 64), 64, outer=256)[0]
    stored = {f"model.layer.{n}": t for n, t in tensors.items()} | {"model.layer.bias": torch.zeros(4)}
    found = Weights(on_disk(stored, tmp_path / "x"), {"quant_method": "bitsandbytes"})
    assert {n: w.format for n, w in found.items()} == {
        "model.layer.weight": "bitsandbytes nf4, blocks of 64, nested",
        "model.layer.bias": "fp32",
    }


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b'{"quant_type": "nf4"}', b'{"quant_type": "nf4", "blocksize": 64}'],
)
def test_a_blob_that_cannot_be_read_is_named(recognised, text):
    tensors = four_bit((4, 64), 64)[0] | {BLOB + "nf4": torch.tensor(list(text), dtype=torch.uint8)}
    with pytest.raises(CheckpointError, match=rf"layer\.{BLOB}nf4 cannot be read"):
        recognised(tensors)


@pytest.mark.parametrize(
    "change",
    [
        *({"blocksize": size} for size in (0, -64, 63, "64")),
        *({"shape": shape} for shape in ([], [4, -64], 256, ["4", 64])),
        {"nested_blocksize": 0},
        *({"nested_offset": offset} for offset in ("x", None)),
    ],
)
def test_a_blob_that_says_what_cannot_be_is_named(recognised, change):
    tensors = four_bit((4, 64), 64, outer=256)[0] | {
        BLOB + "nf4": blob("nf4", (4, 64), 64, nested=True, changes=change)
    }
    with pytest.raises(CheckpointError, match=rf"layer\.{BLOB}nf4 cannot be read"):
        recognised(tensors)


@pytest.mark.parametrize("name", ["weight", "weight.absmax", "weight.quant_map", "weight.nested_quant_map"])
def test_a_missing_tensor_is_named(recognised, name):
    tensors = four_bit((4, 64), 64, outer=256)[0]
    del tensors[name]
    with pytest.raises(CheckpointError, match=f"layer: stored in nf4, but there is no {name}"):
        recognised(tensors)


def test_blocks_without_a_blob_are_named(recognised):
    tensors = four_bit((4, 64), 64)[0]
    del tensors[BLOB + "nf4"]
    with pytest.raises(CheckpointError, match=r"layer: has a weight\.absmax, but no .*nf4 or …fp4"):
        recognised(tensors)


def test_two_blobs_and_one_too_large_are_refused(recognised):
    tensors = four_bit((4, 64), 64)[0]
    with pytest.raises(CheckpointError, match="allowed: one, of at most 65536 bytes"):
        recognised(tensors | {BLOB + "fp4": blob("fp4", (4, 64), 64)})
    with pytest.raises(CheckpointError, match="allowed: one, of at most 65536 bytes"):
        recognised(tensors | {BLOB + "nf4": torch.zeros(65537, dtype=torch.uint8)})


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("absmax", torch.ones(4)),  # nested: should be 8 bits
        ("absmax", torch.zeros(3, dtype=torch.uint8)),
        ("quant_map", torch.zeros(15)),
        ("quant_map", torch.zeros(16, dtype=torch.int32)),
        ("nested_absmax", torch.zeros(2)),
        ("nested_quant_map", torch.zeros(16)),
    ],
)
def test_a_part_of_another_kind_is_named(recognised, name, tensor):
    tensors = four_bit((4, 64), 64, outer=256)[0] | {f"weight.{name}": tensor}
    with pytest.raises(CheckpointError, match=rf"layer\.weight\.{name} is .*; allowed: .* for a weight of \[4, 64\]"):
        recognised(tensors)


def swapped(table):
    return [table[1], table[0], *table[2:]]


@pytest.mark.parametrize(
    ("kind", "table", "told"),
    [
        ("nf4", [0.0] * 16, "code 0 stands for 0 in it; -1 was due"),
        ("nf4", FP4, "code 0 stands for 0 in it; -1 was due"),
        ("nf4", swapped(NF4), "code 0 stands for -0.6962 in it; -1 was due"),
        ("nf4", [*NF4[:15], float("nan")], "code 15 stands for nan in it; 1 was due"),
        ("fp4", [0.0] * 16, "code 1 stands for 0 in it; 0.005208 was due"),
        ("fp4", NF4, "code 0 stands for -1 in it; 0 was due"),
        ("fp4", [12 * value for value in FP4], "code 1 stands for 0.0625 in it; 0.005208 was due"),
    ],
)
def test_a_table_that_is_not_of_its_kind_is_told_with_all_that_helps(tmp_path, kind, table, told):
    # every weight would be 0, or another: all states would be those of the embeddings, and look sound
    stored = four_bit((4, 64), 64, kind=kind)[0] | {"weight.quant_map": torch.tensor(table)}
    tensors = on_disk({f"m.{name}": tensor for name, tensor in stored.items()}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError) as caught:
        len(Weights(tensors, {}, "mine"))
    assert caught.value.problems == (f"mine: m.weight.quant_map in x.safetensors is not the table of {kind}: {told}.",)
    assert caught.value.next_step.startswith("Download this file again")


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_table_that_was_rounded_is_read_as_it_is(recognised, kind, dtype):
    tensors, _ = four_bit((6, 64), 64, kind=kind)
    table = tensors["weight.quant_map"].bfloat16().to(dtype)
    codes = torch.stack([tensors["weight"] >> 4, tensors["weight"] & 15], -1).flatten().long()
    w = table.float()[codes].view(6, 64) * tensors["weight.absmax"][:, None]
    rounded = tensors | {"weight.quant_map": table}
    seen_from_all_sides(recognised(rounded), parts_of(rounded), w)


@pytest.mark.parametrize("value", [0.0, 0.5, float("nan"), float("inf")])
def test_a_nested_table_of_one_value_is_told(recognised, value):
    tensors = four_bit((4, 64), 64, outer=256)[0] | {"weight.nested_quant_map": torch.full((256,), value)}
    with pytest.raises(CheckpointError, match=r"nested_quant_map in x\.safetensors holds .*; 256 different values"):
        recognised(tensors)


def test_a_kind_that_bitsandbytes_has_not_is_refused(recognised):
    tensors = four_bit((4, 64), 64)[0] | {BLOB + "nf4": blob("nf5", (4, 64), 64)}
    with pytest.raises(CheckpointError, match="says quant_type 'nf5'; allowed: nf4, fp4"):
        recognised(tensors)


@pytest.mark.parametrize("count", [127, 132, 256])
def test_codes_of_another_number_are_told(recognised, count):
    tensors = four_bit((4, 64), 64)[0] | {"weight": torch.zeros(count, 1, dtype=torch.uint8)}
    with pytest.raises(CheckpointError, match=rf"layer\.weight has {count} bytes; \[4, 64\] in 4 bits are 128"):
        recognised(tensors)


# ── int8 ─────────────────────────────────────────────────────────────────────────────────────────────────

# bitsandbytes 0.50.2, int8_vectorwise_quant of [[1, −2, 0.5, 3.25], [100, −7, 3, 0]] and int8_vectorwise_dequant.
Q = torch.tensor([[39, -78, 20, 127], [127, -9, 4, 0]], dtype=torch.int8)
SCB = torch.tensor([3.25, 100.0])
INT8 = [
    [0.998031497001648, -1.996062994003296, 0.5118110179901123, 3.25],
    [100.0, -7.08661413192749, 3.149606227874756, 0.0],
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_int8_is_read_as_bitsandbytes_reads_it(dtype):
    weight = bitsandbytes.recognise("layer", headers({"weight": Q, "SCB": SCB}), {})
    assert (weight.format, weight.shape, weight.by_row) == ("bitsandbytes int8", (2, 4), True)
    out = torch.empty(4, 2, dtype=dtype).t()
    factor = weight.rows({"weight": Q, "SCB": SCB}, 0, 2, out)
    assert torch.equal(out.float(), Q.float())
    # the library multiplies by 1 / 127 rounded to float32, last of all: a last place may differ
    torch.testing.assert_close(out.float() * factor[:, None], torch.tensor(INT8), rtol=2**-22, atol=0)


def test_int8_gives_its_integers():
    weight = bitsandbytes.recognise("layer", headers({"weight": Q, "SCB": SCB}), {})
    q, factor = weight.integers({"weight": Q, "SCB": SCB}, 1, 2)
    assert torch.equal(q, Q[1:])
    assert factor.tolist() == pytest.approx([100 / 127], rel=1e-7)


def test_a_weight_format_of_rows_is_read_and_another_refused(recognised):
    tensors = {"weight": Q, "SCB": SCB, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    assert set(recognised(tensors).parts) == {"weight", "SCB"}
    assert recognised(tensors | {"weight_format": torch.zeros(0, dtype=torch.uint8)}).shape == (2, 4)
    with pytest.raises(CheckpointError, match=r"layer\.weight_format is 2, an order made for one kind of GPU"):
        recognised(tensors | {"weight_format": torch.tensor(2, dtype=torch.uint8)})


@pytest.mark.parametrize(
    ("weight", "factors"),
    [(Q.float(), SCB), (Q.flatten(), SCB), (Q, SCB[:1]), (Q, SCB.half()), (Q, SCB[:, None])],
)
def test_int8_of_another_kind_is_refused(weight, factors):
    with pytest.raises(
        CheckpointError, match=r"layer: weight is .* and SCB .*; allowed: I8 \[out, in\] and F32 \[out\]"
    ):
        bitsandbytes.recognise("layer", headers({"weight": weight, "SCB": factors}), {})


def test_tensors_of_other_formats_are_left_alone():
    assert bitsandbytes.recognise("layer", headers({"weight": Q, "weight_scale": SCB}), {}) is None
    assert bitsandbytes.recognise("layer", {}, {"quant_method": "bitsandbytes"}) is None
