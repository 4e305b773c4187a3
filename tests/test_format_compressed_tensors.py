"""compressed-tensors: what is read equals the library's own decompression, and what does not fit is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.utils.match import match_targets
from safetensors.torch import save_file

from pairprobe.checkpoints import reading
from pairprobe.checkpoints.formats.compressed_tensors import recognise
from pairprobe.checkpoints.groups import activations
from pairprobe.checkpoints.headers import Tensor, read_header
from pairprobe.checkpoints.weight import Weights
from pairprobe.errors import CheckpointError
from pairprobe.rooms import UNKNOWN, Activations

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MODULE = "model.layers.0.mlp.down_proj"


def config(said: dict, inputs: dict | None = None, targets: tuple[str, ...] = ("Linear",)) -> dict:
    group = {"targets": list(targets), "weights": said, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


def on_disk(folder: Path, state: dict[str, torch.Tensor]) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    save_file({n: t.contiguous() for n, t in state.items()}, file)
    return read_header(file)[0]


def grid_of(said: dict, rows: int, columns: int) -> tuple[int, ...]:
    if said["strategy"] == "tensor":
        return (1,)
    if said["strategy"] == "channel":
        return rows, 1
    if said["strategy"] == "group":
        return rows, columns // said["group_size"]
    height, width = said["block_structure"]
    return -(-rows // height), -(-columns // width)


def compress(
    format: str, said: dict, shape: tuple[int, int], dtype: torch.dtype = torch.float32
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(what the library stores, what it decompresses that to), with scales of this dtype."""
    torch.manual_seed(sum(shape))
    scheme = QuantizationScheme(targets=["Linear"], weights=copy.deepcopy(said))
    grid = grid_of(said, *shape)
    bits = said["num_bits"]
    state = {
        "weight": torch.randn(shape).to(dtype),
        "weight_scale": (torch.rand(grid) * 2.0**-bits * 4 + 1e-3).to(dtype),
    }
    if not said.get("symmetric", True):
        state["weight_zero_point"] = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), grid, dtype=torch.int8)
    compressor = BaseCompressor.get_value_from_registry(format)
    stored = compressor.compress(state, scheme)
    return stored, compressor.decompress(stored, scheme)["weight"]


def dense(weight, start: int = 0, stop: int | None = None, dtype=torch.float32, transposed: bool = False):
    """Rows as float32, the factor applied; `out` begins full of NaN, so that nothing is left out."""
    parts = {role: reading.whole(part) for role, part in weight.parts.items()}
    stop = weight.shape[0] if stop is None else stop
    size = (stop - start, weight.shape[1])
    out = torch.full(size[::-1], torch.nan, dtype=dtype).t() if transposed else torch.full(size, torch.nan, dtype=dtype)
    factor = weight.rows(parts, start, stop, out)
    if factor is None:
        return out.float()
    assert (factor.dtype, factor.shape) == (torch.float32, (stop - start,))
    return out.float() * factor[:, None]


def i(bits: int, strategy: str, **more) -> dict:
    return {"num_bits": bits, "type": "int", "strategy": strategy, **more}


def f(strategy: str, **more) -> dict:
    return {"num_bits": 8, "type": "float", "strategy": strategy, **more}


ASYMMETRIC = {"symmetric": False}
WHOLE = [
    ("int-quantized", i(8, "channel"), (12, 40)),
    ("int-quantized", i(8, "channel"), (1, 7)),
    ("int-quantized", i(8, "channel", **ASYMMETRIC), (12, 40)),
    ("int-quantized", i(8, "tensor"), (5, 9)),
    ("int-quantized", i(8, "tensor", **ASYMMETRIC), (5, 9)),
    ("int-quantized", i(8, "group", group_size=8), (7, 40)),
    ("int-quantized", i(8, "group", group_size=8, **ASYMMETRIC), (7, 40)),
    ("int-quantized", i(4, "group", group_size=16), (7, 48)),
    ("float-quantized", f("channel"), (12, 40)),
    ("float-quantized", f("tensor"), (12, 40)),
    ("float-quantized", f("group", group_size=8), (12, 40)),
    ("float-quantized", f("block", block_structure=[128, 128]), (256, 128)),
    ("float-quantized", f("block", block_structure=[128, 128]), (130, 140)),  # cut-off blocks
    ("naive-quantized", f("block", block_structure=[4, 16]), (9, 40)),
]
PACKED = [
    ("pack-quantized", i(bits, strategy, **size, **symmetric), shape)
    for bits in (1, 2, 3, 4, 5, 6, 7, 8)
    for strategy, size, shape in (
        ("group", {"group_size": 16}, (37, 96)),
        ("channel", {}, (37, 45)),  # neither dimension a multiple of a word
        ("group", {"group_size": 5}, (33, 15)),
    )
    for symmetric in ({}, ASYMMETRIC)
]


def name(case) -> str:
    format, said, shape = case
    rest = "-".join(str(v) for k, v in said.items() if k not in ("num_bits", "type"))
    return f"{format}-{said['type']}{said['num_bits']}-{rest}-{shape[0]}x{shape[1]}"


@pytest.mark.parametrize("case", WHOLE + PACKED, ids=name)
def test_weights_are_the_librarys_bit_for_bit(tmp_path, case):
    format, said, shape = case
    stored, expected = compress(format, said, shape)
    weight = recognise(MODULE, on_disk(tmp_path, stored), config(said))
    assert weight.shape == shape
    assert torch.equal(dense(weight), expected)
    assert torch.equal(dense(weight, transposed=True), expected)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("case", WHOLE + PACKED[::5], ids=name)
def test_half_precision_scales_give_the_librarys_values_once_rounded_to_that_dtype(tmp_path, case, dtype):
    format, said, shape = case
    stored, expected = compress(format, said, shape, dtype)
    assert stored["weight_scale"].dtype == expected.dtype == dtype
    weight = recognise(MODULE, on_disk(tmp_path, stored), config(said))
    assert torch.equal(dense(weight).to(dtype), expected)
    assert torch.equal(dense(weight, dtype=dtype).to(dtype), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*WHOLE, *PACKED[3::7]], ids=name)
def test_every_range_of_rows_is_the_same_part_of_the_whole(tmp_path, case, dtype):
    format, said, shape = case
    stored, expected = compress(format, said, shape)
    weight = recognise(MODULE, on_disk(tmp_path, stored), config(said))
    whole = dense(weight, dtype=dtype)
    # one rounding to `out`, at most one more of the factor's product
    error = {torch.float32: 0, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
    assert torch.allclose(whole, expected, rtol=error, atol=1e-7 if error else 0)
    ends = sorted({0, 1, shape[0] // 3, shape[0] // 2, shape[0] - 1, shape[0]})
    for start in ends:
        for stop in ends:
            if start < stop:
                for transposed in (False, True):
                    assert torch.equal(dense(weight, start, stop, dtype, transposed), whole[start:stop])


def test_mxfp8_scales_are_exponents_of_two(tmp_path):
    # The library's scheme stores E8M0 bytes: W = fp8 · 2^(e − 127), here by Python's own powers.
    exponents = torch.tensor([[127, 120], [0, 254], [130, 1]], dtype=torch.uint8)
    values = torch.linspace(-2, 2, 3 * 64).reshape(3, 64).to(torch.float8_e4m3fn)
    tensors = on_disk(tmp_path, {"weight": values, "weight_scale": exponents})
    weight = recognise(MODULE, tensors, config(f("group", group_size=32)))
    powers = torch.tensor([[2.0 ** (int(e) - 127) for e in row] for row in exponents], dtype=torch.float64)
    expected = (values.double() * powers.repeat_interleave(32, dim=1)).float()
    assert torch.equal(dense(weight), expected)


# ── older versions' layouts, by hand ─────────────────────────────────────────────────────────────────────


def padded(q: torch.Tensor, bits: int) -> torch.Tensor:
    """0.9 … 0.15: ⌊32/bits⌋ fields to a word, along the last dimension; plain Python integers."""
    each = 32 // bits
    rows = []
    for row in q.tolist():
        words = []
        for at in range(0, len(row), each):
            word = sum((v + 2 ** (bits - 1)) << (k * bits) for k, v in enumerate(row[at : at + each]))
            words.append(word - 2**32 if word >= 2**31 else word)
        rows.append(words)
    return torch.tensor(rows, dtype=torch.int32)


def by_hand(q: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, group: list[int]) -> torch.Tensor:
    """(q − z) · s, one value after the other; group: of each column."""
    out = torch.empty(q.shape)
    for r in range(q.shape[0]):
        for c in range(q.shape[1]):
            z = 0 if zero is None else int(zero[r, group[c]])
            out[r, c] = (int(q[r, c]) - z) * scale[r, group[c]]
    return out


def example(bits: int, shape: tuple[int, int], group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    grid = (shape[0], shape[1] // group)
    q = torch.randint(low, high, shape, dtype=torch.int8)
    return q, torch.rand(grid), torch.randint(low, high, grid, dtype=torch.int8)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("packed_zero", [True, False])
def test_padded_words_of_older_versions_are_told_from_the_shapes(tmp_path, bits, packed_zero):
    q, scale, zero = example(bits, (35, 330), 33)
    state = {
        "weight_packed": padded(q, bits),
        "weight_shape": torch.tensor([35, 330]),
        "weight_scale": scale,
        "weight_zero_point": padded(zero.T, bits).T if packed_zero else zero,
    }
    weight = recognise(MODULE, on_disk(tmp_path, state), config(i(bits, "group", group_size=33, **ASYMMETRIC)))
    expected = by_hand(q, scale, zero, [c // 33 for c in range(330)])
    assert torch.equal(dense(weight), expected)
    assert torch.equal(dense(weight, 11, 34), expected[11:34])


@pytest.mark.parametrize("where", ["packed", "whole"])
def test_activation_ordering_takes_each_columns_own_group(tmp_path, where):
    q, scale, zero = example(4, (6, 24), 8)
    order = torch.arange(24)[torch.randperm(24)] // 8
    state = {"weight_scale": scale, "weight_zero_point": zero, "weight_g_idx": order.int()}
    state |= {"weight": q} if where == "whole" else {"weight_packed": padded(q, 4)}
    weight = recognise(MODULE, on_disk(tmp_path, state), config(i(4, "group", group_size=8, **ASYMMETRIC)))
    assert torch.equal(dense(weight), by_hand(q, scale, zero, order.tolist()))
    assert not weight.by_row


def test_an_order_that_was_never_set_is_the_plain_order(tmp_path):
    q, scale, _ = example(4, (6, 24), 8)
    state = {"weight_scale": scale, "weight": q, "weight_g_idx": torch.full((24,), -1, dtype=torch.int32)}
    weight = recognise(MODULE, on_disk(tmp_path, state), config(i(4, "group", group_size=8)))
    assert torch.equal(dense(weight), by_hand(q, scale, None, [c // 8 for c in range(24)]))


def test_a_column_of_a_group_that_there_is_not_is_refused(tmp_path):
    q, scale, _ = example(4, (6, 24), 8)
    order = torch.arange(24, dtype=torch.int32) // 8
    order[5] = 3
    weight = recognise(
        MODULE,
        on_disk(tmp_path, {"weight_scale": scale, "weight": q, "weight_g_idx": order}),
        config(i(4, "group", group_size=8)),
    )
    with pytest.raises(CheckpointError, match=r"weight_g_idx \[24\] holds 3; allowed: 0 to 2\."):
        dense(weight)


def test_a_last_group_may_be_cut_off(tmp_path):
    q, scale, _ = example(8, (3, 24), 8)
    tensors = on_disk(tmp_path, {"weight": q[:, :20], "weight_scale": scale})
    weight = recognise(MODULE, tensors, config(i(8, "group", group_size=8)))
    assert torch.equal(dense(weight), by_hand(q[:, :20], scale, None, [c // 8 for c in range(20)]))


# ── shapes and bits ──────────────────────────────────────────────────────────────────────────────────────


def test_columns_come_from_the_groups_without_reading_weight_shape(tmp_path, monkeypatch):
    said = i(4, "group", group_size=16)
    stored, _ = compress("pack-quantized", said, (8, 48))
    tensors = on_disk(tmp_path, stored)
    monkeypatch.setattr(reading, "whole", lambda tensor: pytest.fail("was read"))
    assert recognise(MODULE, tensors, config(said)).shape == (8, 48)


def test_weight_shape_is_read_where_nothing_else_says_the_columns(tmp_path):
    said = i(4, "channel")
    stored, expected = compress("pack-quantized", said, (8, 45))
    tensors = on_disk(tmp_path, stored | {"weight_shape": stored["weight_shape"].int()})
    assert torch.equal(dense(recognise(MODULE, tensors, config(said))), expected)
    del tensors["weight_shape"]
    assert recognise(MODULE, tensors, config(said)).shape == (8, 48)  # whole words: all that is left to believe


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bits_follow_from_the_shapes_where_there_is_no_config(tmp_path, bits):
    said = i(bits, "group", group_size=16)
    stored, expected = compress("pack-quantized", said, (8, 64))
    weight = recognise(MODULE, on_disk(tmp_path, stored), {})
    assert torch.equal(dense(weight), expected)


def test_without_config_and_weight_shape_packed_words_say_nothing(tmp_path):
    stored, _ = compress("pack-quantized", i(4, "group", group_size=16), (8, 64))
    del stored["weight_shape"]
    with pytest.raises(CheckpointError, match=r"down_proj: .*fit none"):
        recognise(MODULE, on_disk(tmp_path, stored), {})


@pytest.mark.parametrize("case", WHOLE[:3] + WHOLE[5:6] + WHOLE[8:11], ids=name)
def test_whole_weights_need_no_config(tmp_path, case):
    format, said, shape = case
    stored, expected = compress(format, said, shape)
    assert torch.equal(dense(recognise(MODULE, on_disk(tmp_path, stored), {})), expected)


def test_integers_give_the_same_product_as_rows(tmp_path):
    for at, (format, said, shape) in enumerate((WHOLE[0], WHOLE[3], PACKED[20])):
        stored, expected = compress(format, said, shape)
        (tmp_path / str(at)).mkdir()
        weight = recognise(MODULE, on_disk(tmp_path / str(at), stored), config(said))
        parts = {role: reading.whole(part) for role, part in weight.parts.items()}
        q, factor = weight.integers(parts, 1, shape[0])
        assert (q.dtype, factor.dtype) == (torch.int8, torch.float32)
        assert torch.equal(q * factor[:, None], expected[1:])


@pytest.mark.parametrize("case", [WHOLE[2], WHOLE[5], WHOLE[8], PACKED[0]], ids=name)
def test_zero_points_groups_and_fp8_have_no_integers(tmp_path, case):
    format, said, shape = case
    stored, _ = compress(format, said, shape)
    weight = recognise(MODULE, on_disk(tmp_path, stored), config(said))
    assert weight.integers({role: reading.whole(part) for role, part in weight.parts.items()}, 0, 1) is None


@pytest.mark.parametrize(
    ("case", "alone"),
    [
        (WHOLE[0], True),
        (WHOLE[6], True),
        (WHOLE[3], False),
        (WHOLE[11], False),
        (PACKED[18], True),
        (PACKED[19], False),
    ],
    ids=str,
)
def test_single_rows_can_be_read_where_every_part_has_them(tmp_path, case, alone):
    format, said, shape = case
    stored, expected = compress(format, said, shape)
    weight = recognise(MODULE, on_disk(tmp_path, stored), config(said))
    assert weight.by_row is alone
    if alone:
        parts = {role: reading.rows(part, [3, 1]) for role, part in weight.parts.items()}
        out = torch.empty(2, shape[1])
        factor = weight.rows(parts, 0, 2, out)
        assert torch.equal(out if factor is None else out * factor[:, None], expected[[3, 1]])


def test_formats_say_what_they_are(tmp_path):
    expected = {
        0: "compressed-tensors int8, a scale per row",
        4: "compressed-tensors int8, one scale, asymmetric",
        10: "compressed-tensors fp8, groups of 8",
        11: "compressed-tensors fp8, blocks of 128 × 128",
        14 + 18: "compressed-tensors int4 packed, groups of 16",
    }
    for at, said in expected.items():
        format, args, shape = (WHOLE + PACKED)[at]
        stored, _ = compress(format, args, shape)
        (tmp_path / str(at)).mkdir()
        assert recognise(MODULE, on_disk(tmp_path / str(at), stored), config(args)).format == said


# ── detection ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_module_stored_dense_stays_dense_though_the_config_targets_it(tmp_path):
    tensors = on_disk(tmp_path, {f"{MODULE}.weight": torch.ones(4, 4, dtype=torch.bfloat16)})
    assert Weights(tensors, config(i(8, "channel")))[f"{MODULE}.weight"].format == "bf16"


def test_a_module_on_the_ignore_list_that_is_stored_quantised_is_read(tmp_path):
    stored, expected = compress("int-quantized", i(8, "channel"), (4, 8))
    tensors = on_disk(tmp_path, {f"{MODULE}.{n}": t for n, t in stored.items()})
    found = Weights(tensors, config(i(8, "channel")) | {"ignore": [MODULE]})
    assert torch.equal(dense(found[f"{MODULE}.weight"]), expected)


@pytest.mark.parametrize(
    "state",
    [
        {"weight": torch.ones(2, 2)},
        {"weight": torch.ones(2, 2, dtype=torch.int8)},
        {"weight_packed": torch.ones(2, 2, dtype=torch.int32)},
        {"weight": torch.ones(2, 2), "weight_scale": torch.ones(1)},
        {"bias": torch.ones(2)},
    ],
    ids=["dense", "int8 without scale", "words without scale", "dense beside a scale", "no weight"],
)
def test_other_tensors_are_left_to_other_formats(tmp_path, state):
    assert recognise(MODULE, on_disk(tmp_path, state), config(i(8, "channel"))) is None


I8, U8, I32 = torch.int8, torch.uint8, torch.int32
BYTES = torch.ones(2, 4, dtype=U8)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"weight_packed": BYTES, "weight_scale": torch.ones(2, 1), "weight_global_scale": torch.ones(1)}, "NVFP4"),
        ({"weight_packed": BYTES, "weight_scale": torch.ones(2, 1, dtype=U8)}, "MXFP4"),
        ({"weight_packed": BYTES.int(), "scale_packed": torch.ones(2), "meta": torch.ones(2)}, "marlin-24"),
        ({"weight.compressed": torch.ones(4), "weight.bitmask": torch.ones(2, dtype=U8)}, "sparse"),
        ({"compressed": torch.ones(4), "bitmask": torch.ones(2, dtype=U8)}, "sparse"),
    ],
    ids=["nvfp4", "mxfp4", "marlin-24", "sparse", "sparse without weight"],
)  # fmt: skip
def test_formats_that_are_not_read_are_refused_by_name(tmp_path, state, said):
    with pytest.raises(CheckpointError, match=f"down_proj: .*{said}.*not read") as caught:
        recognise(MODULE, on_disk(tmp_path, state), {})
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("weight", "scale", "said"),
    [
        (torch.ones(4, 64, dtype=I8), torch.full((4, 1), 120), i(8, "channel")),
        (torch.ones(4, 64, dtype=I8), torch.full((4, 2), 120), i(8, "group", group_size=32)),
        (torch.ones(4, 64).to(torch.float8_e4m3fn), torch.full((4, 1), 120), f("channel")),
        (torch.ones(4, 64).to(torch.float8_e4m3fn), torch.full((1,), 120), f("tensor")),
    ],
)
def test_bytes_as_scales_are_exponents_of_mxfp8_alone(tmp_path, weight, scale, said):
    # beside float scales of other modules one of 8 bits would be read as 2^(e − 127), without a word
    tensors = on_disk(tmp_path, {"weight": weight, "weight_scale": scale.to(U8)})
    with pytest.raises(CheckpointError, match=r"weight_scale is U8 .* groups of 32; its weight is .* Allowed: F64"):
        recognise(MODULE, tensors, config(said))


WEIGHT = torch.ones(4, 16, dtype=I8)
WORDS = torch.ones(4, 2, dtype=I32)


@pytest.mark.parametrize(
    ("state", "said", "message"),
    [
        ({"weight": WEIGHT, "weight_scale": torch.ones(3, 1)}, i(8, "channel"), r"weight_scale \[3, 1\] fit none"),
        ({"weight": WEIGHT, "weight_scale": torch.ones(3)}, i(8, "channel"), "fit none"),
        ({"weight": WEIGHT, "weight_scale": torch.ones(4, 1, 2)}, i(8, "channel"), "fit none"),
        ({"weight": WEIGHT, "weight_scale": torch.ones(4, 3)}, i(8, "group", group_size=8), "fit none"),
        ({"weight": WEIGHT, "weight_scale": torch.ones(4, 1, dtype=I32)}, i(8, "channel"), "weight_scale is I32"),
        ({"weight": WEIGHT[0], "weight_scale": torch.ones(4, 1)}, i(8, "channel"), r"weight is \[16\]"),
        ({"weight": WEIGHT, "weight_scale": torch.ones(4, 1)}, i(8, "channel", **ASYMMETRIC), "zero_point is missing"),
        (
            {"weight": WEIGHT, "weight_scale": torch.ones(4, 1), "weight_zero_point": torch.ones(3, 1, dtype=I8)},
            i(8, "channel"),
            r"weight_zero_point is I8 \[3, 1\]; \[4, 1\]",
        ),
        (
            {"weight": WEIGHT, "weight_scale": torch.ones(4, 2), "weight_g_idx": torch.ones(15, dtype=I32)},
            i(8, "group", group_size=8),
            r"weight_g_idx is \[15\]",
        ),
        ({"weight_packed": WORDS.float(), "weight_scale": torch.ones(4, 1)}, i(4, "channel"), "weight_packed is F32"),
        ({"weight_packed": WORDS[0], "weight_scale": torch.ones(4, 1)}, i(4, "channel"), "weight_packed is"),
        (
            {"weight_packed": WORDS, "weight_scale": torch.ones(4, 1), "weight_shape": torch.tensor([5, 16])},
            i(4, "channel"),
            "weight_shape says 5 rows",
        ),
        (
            {"weight_packed": WORDS, "weight_scale": torch.ones(4, 1), "weight_shape": torch.tensor([4, 99])},
            i(4, "channel"),
            "fit none",
        ),
        (
            {"weight_packed": WORDS, "weight_scale": torch.ones(4, 1), "weight_shape": torch.ones(2)},
            i(4, "channel"),
            "weight_shape is F32",
        ),
        ({"weight_packed": WORDS, "weight_scale": torch.ones(4, 3)}, i(4, "group", group_size=8), "fit none"),
    ],
)
def test_tensors_that_do_not_fit_together_are_named(tmp_path, state, said, message):
    with pytest.raises(CheckpointError, match=f"down_proj: .*{message}") as caught:
        recognise(MODULE, on_disk(tmp_path, state), config(said))
    assert caught.value.next_step


def test_a_cut_off_weight_shape_is_an_error_of_ours(tmp_path):
    stored, _ = compress("pack-quantized", i(4, "channel"), (8, 45))
    tensors = on_disk(tmp_path, stored)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[: tensors["weight_shape"].start])
    with pytest.raises(CheckpointError, match="ends early"):
        recognise(MODULE, tensors, config(i(4, "channel")))


# ── the config's groups ──────────────────────────────────────────────────────────────────────────────────

TOKEN8 = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        (TOKEN8, Activations("int8", "token")),
        (TOKEN8 | {"type": "float"}, Activations("fp8", "token")),
        (TOKEN8 | {"strategy": "tensor"}, Activations("int8", "tensor")),
        (TOKEN8 | {"type": "float", "strategy": "group", "group_size": 128}, Activations("fp8", "token", 128)),
        (TOKEN8 | {"strategy": "tensor", "dynamic": False}, Activations("int8", "static")),
        (TOKEN8 | {"symmetric": False}, Activations("int8 asymmetric", "token")),
        (TOKEN8 | {"num_bits": 4}, Activations("int4", "token")),
    ],
)
def test_activations_are_read_from_the_config(said, expected):
    assert activations(said, "input_activations") == expected


def groups(*targets: list[str]) -> dict:
    """One group for each list of targets, told apart by their input: int8 per token, then fp8, then none."""
    inputs = [TOKEN8, TOKEN8 | {"type": "float"}, None]
    said = [config(i(8, "channel"), inputs[n], tuple(t))["config_groups"]["group_0"] for n, t in enumerate(targets)]
    return {"config_groups": {f"group_{n}": group for n, group in enumerate(said)}}


@pytest.mark.parametrize(
    "targets",
    [
        (["Linear"], [MODULE]),
        (["Linear"], ["re:.*down_proj"]),
        (["re:.*down_proj"], [MODULE]),
        (["re:.*up_proj"], ["Linear"]),
        (["model.layers.1.mlp.down_proj"], ["Linear"]),
        (["re:layers"], ["Linear"], ["lm_head"]),
    ],
)
def test_the_group_is_the_one_the_library_takes(tmp_path, targets):
    of = {target: n for n, group in enumerate(targets) for target in group}
    expected = of[match_targets(MODULE, torch.nn.Linear(2, 2), list(of))[0]]
    stored, _ = compress("int-quantized", i(8, "channel"), (4, 8))
    weight = recognise(MODULE, on_disk(tmp_path, stored), groups(*targets))
    # 're:layers' matches no name of the library's; by its ending it would match a stored one with a prefix
    if targets[0] == ["re:layers"]:
        assert (expected, weight.activations) == (1, Activations("int8"))
    else:
        assert weight.activations == (Activations("int8"), Activations("fp8"))[expected]


@pytest.mark.parametrize("target", ["layers.0.mlp.down_proj", "re:layers.0.*down_proj"])
def test_a_target_may_lack_the_prefix_of_the_stored_name(tmp_path, target):
    stored, _ = compress("int-quantized", i(8, "channel"), (4, 8))
    weight = recognise(MODULE, on_disk(tmp_path, stored), groups(["Linear"], [target]))
    assert weight.activations == Activations("fp8")


def test_shapes_overrule_targets(tmp_path):
    # The group that targets the module has 8 bits; its words are of 4.
    said = config(i(8, "group", group_size=16), TOKEN8, (MODULE,))
    said["config_groups"]["other"] = {"targets": ["Linear"], "weights": i(4, "group", group_size=16)}
    stored, expected = compress("pack-quantized", i(4, "group", group_size=16), (8, 48))
    weight = recognise(MODULE, on_disk(tmp_path, stored), said)
    assert weight.activations is None
    assert torch.equal(dense(weight), expected)


def test_groups_that_differ_and_do_not_mean_the_module_are_not_chosen_between(tmp_path):
    stored, _ = compress("int-quantized", i(8, "channel"), (4, 8))
    with pytest.raises(CheckpointError, match="none of quantization_config's groups targets it"):
        recognise(MODULE, on_disk(tmp_path, stored), groups(["a.b"], ["a.c"]))


def test_a_target_that_is_no_pattern_is_named(tmp_path):
    stored, _ = compress("int-quantized", i(8, "channel"), (4, 8))
    with pytest.raises(CheckpointError, match=r'a target is "re:\(".*allowed: a pattern after'):
        recognise(MODULE, on_disk(tmp_path, stored), groups(["re:("]))


def test_groups_of_activations_only_are_passed_over(tmp_path):
    stored, expected = compress("int-quantized", i(8, "channel"), (4, 8))
    said = config(i(8, "channel"))
    said["config_groups"] |= {"attention": {"targets": ["Linear"], "weights": None, "input_activations": TOKEN8}}
    assert torch.equal(dense(recognise(MODULE, on_disk(tmp_path, stored), said)), expected)


def test_a_stored_scale_of_the_input_is_a_part(tmp_path):
    static = TOKEN8 | {"strategy": "tensor", "dynamic": False, "type": "float"}
    stored, expected = compress("float-quantized", f("tensor"), (4, 8))
    with pytest.raises(CheckpointError, match="input_scale is missing"):
        recognise(MODULE, on_disk(tmp_path, stored), config(f("tensor"), static))
    tensors = on_disk(tmp_path, stored | {"input_scale": torch.ones(1)})
    weight = recognise(MODULE, tensors, config(f("tensor"), static))
    assert weight.activations == Activations("fp8", "static")
    assert "input_scale" in weight.parts
    assert torch.equal(dense(weight), expected)


def test_other_configs_that_store_alike_are_read(tmp_path):
    # ModelOpt's FP8: scales without dimensions, a static one for the input
    stored, expected = compress("float-quantized", f("tensor"), (4, 8))
    state = {"weight": stored["weight"], "weight_scale": stored["weight_scale"][0], "input_scale": torch.tensor(0.5)}
    weight = recognise(MODULE, on_disk(tmp_path, state), {"quant_method": "modelopt", "quant_algo": "FP8"})
    assert weight.activations == Activations("fp8", "static")
    assert torch.equal(dense(weight), expected)
    for declared in ({}, {"quant_method": "modelopt"}, {"quant_algo": "FP8"}):  # older releases: in another file
        assert recognise(MODULE, on_disk(tmp_path, state), declared).activations == Activations("fp8", "static")
    del state["input_scale"]
    assert recognise(MODULE, on_disk(tmp_path, state), {"quant_method": "modelopt"}).activations.kind == UNKNOWN
    assert recognise(MODULE, on_disk(tmp_path, state), {"quant_method": "fbgemm_fp8"}).activations.kind == "fp8 bounded"
