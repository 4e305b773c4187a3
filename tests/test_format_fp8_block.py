"""Block-scaled FP8: what is read equals transformers' own dequantisation, and a hand-made one where blocks are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from pairprobe.checkpoints import reading
from pairprobe.checkpoints.formats.fp8_block import recognise
from pairprobe.checkpoints.headers import Tensor, read_header
from pairprobe.checkpoints.weight import Weights
from pairprobe.errors import CheckpointError
from pairprobe.rooms import Activations

MODULE = "model.layers.3.self_attn.o_proj"
DEEPSEEK = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "fmt": "e4m3"}


def on_disk(folder: Path, state: dict[str, torch.Tensor]) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    save_file({n: t.contiguous() for n, t in state.items()}, file)
    return read_header(file)[0]


def example(
    rows: int, columns: int, block: tuple[int, int] = (128, 128), dtype=torch.float32
) -> dict[str, torch.Tensor]:
    torch.manual_seed(rows + columns)
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    weight = (torch.randn(rows, columns) * 100).to(torch.float8_e4m3fn)
    return {"weight": weight, "weight_scale_inv": (torch.rand(grid) * 1e-3).to(dtype)}


def by_block(state: dict[str, torch.Tensor], block: tuple[int, int] = (128, 128)) -> torch.Tensor:
    """Block after block, the last ones as they are cut."""
    out = state["weight"].float()
    for r in range(0, out.shape[0], block[0]):
        for c in range(0, out.shape[1], block[1]):
            scale = state["weight_scale_inv"][r // block[0], c // block[1]].float()
            out[r : r + block[0], c : c + block[1]] *= scale
    return out


def dense(weight, start: int = 0, stop: int | None = None, dtype=torch.float32, transposed: bool = False):
    parts = {role: reading.whole(part) for role, part in weight.parts.items()}
    stop = weight.shape[0] if stop is None else stop
    size = (stop - start, weight.shape[1])
    out = torch.full(size[::-1], torch.nan, dtype=dtype).t() if transposed else torch.full(size, torch.nan, dtype=dtype)
    factor = weight.rows(parts, start, stop, out)
    return out.float() if factor is None else out.float() * factor[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(128, 128), (256, 384), (512, 128)], ids=str)
def test_whole_blocks_are_what_transformers_makes_of_them(tmp_path, shape, dtype):
    state = example(*shape, dtype=dtype)
    expected = Fp8Dequantize(None)._dequantize_one(state["weight"], state["weight_scale_inv"], torch.float32)
    weight = recognise(MODULE, on_disk(tmp_path, state), DEEPSEEK)
    assert weight.shape == shape
    assert torch.equal(dense(weight), expected)


@pytest.mark.parametrize("block", [(128, 128), (64, 32), (1, 16)], ids=str)
@pytest.mark.parametrize("shape", [(130, 140), (127, 129), (1, 300), (300, 1), (384, 576), (3, 5)], ids=str)
def test_blocks_are_cut_off_at_the_edges(tmp_path, shape, block):
    state = example(*shape, block)
    weight = recognise(MODULE, on_disk(tmp_path, state), DEEPSEEK | {"weight_block_size": list(block)})
    assert torch.equal(dense(weight), by_block(state, block))
    assert weight.activations == Activations("fp8", "token", block[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_range_of_rows_is_the_same_part_of_the_whole(tmp_path, dtype):
    state = example(260, 200)
    weight = recognise(MODULE, on_disk(tmp_path, state), DEEPSEEK)
    expected = by_block(state).to(dtype).float()  # rounded once
    for start, stop in [(0, 260), (0, 128), (128, 256), (256, 260), (1, 2), (100, 200), (127, 129)]:
        for transposed in (False, True):
            assert torch.equal(dense(weight, start, stop, dtype, transposed), expected[start:stop])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("numbers", [True, False], ids=["numbers", "with NaN"])
def test_every_code_has_the_value_of_its_definition(tmp_path, numbers, dtype):
    # e4m3: (−1)^s · m/8 · 2^−6 where e = 0, else (1 + m/8) · 2^(e − 7); 0x7F and 0xFF are no numbers
    codes = [c for c in range(256) if c & 0x7F != 0x7F or not numbers]
    fields = [(c >> 7, c >> 3 & 15, c & 7) for c in codes]
    values = [(-1) ** s * (m / 8 * 2**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7)) for s, e, m in fields]
    expected = torch.tensor([values])
    expected[0, [n for n, c in enumerate(codes) if c & 0x7F == 0x7F]] = torch.nan
    weight = torch.tensor([codes], dtype=torch.uint8).view(torch.float8_e4m3fn)
    tensors = on_disk(tmp_path, {"weight": weight, "weight_scale_inv": torch.tensor(0.5)})
    found = dense(recognise(MODULE, tensors, DEEPSEEK | {"weight_block_size": None}), dtype=dtype)
    assert torch.equal(found.nan_to_num(-1e9), (expected * 0.5).nan_to_num(-1e9))


def test_no_rows_are_none(tmp_path):
    weight = recognise(MODULE, on_disk(tmp_path, example(130, 140)), DEEPSEEK)
    assert dense(weight, 5, 5).shape == (0, 140)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_one_scale_in_all_is_a_factor(tmp_path, shape):
    state = example(6, 10) | {"weight_scale_inv": torch.full(shape, 0.25)}
    weight = recognise(MODULE, on_disk(tmp_path, state), DEEPSEEK | {"weight_block_size": None})
    assert torch.equal(dense(weight, 2, 5), state["weight"].float()[2:5] * 0.25)
    assert weight.activations == Activations("fp8", "token", 10)  # of all columns
    assert weight.format == "fp8, one scale"


def test_exponents_as_scales_are_powers_of_two(tmp_path):
    state = example(256, 128)
    file = on_disk(tmp_path, state | {"weight_scale_inv": torch.tensor([[120], [130]], dtype=torch.uint8)})
    e8m0 = file["weight_scale_inv"]
    file["weight_scale_inv"] = Tensor(e8m0.file, "F8_E8M0", e8m0.shape, e8m0.nbytes, e8m0.start)
    expected = state["weight"].float()
    expected[:128] *= 2**-7
    expected[128:] *= 2**3
    assert torch.equal(dense(recognise(MODULE, file, DEEPSEEK)), expected)


def test_blocks_of_128_need_no_config(tmp_path):
    state = example(130, 300)
    weight = recognise(MODULE, on_disk(tmp_path, state), {})
    assert torch.equal(dense(weight), by_block(state))
    assert weight.format == "fp8, blocks of 128 × 128"
    assert not weight.by_row


def test_a_stored_scale_of_the_input_is_a_part(tmp_path):
    state = example(6, 10) | {"weight_scale_inv": torch.tensor(0.5), "activation_scale": torch.tensor(0.25)}
    static = {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}
    weight = recognise(MODULE, on_disk(tmp_path, state), static)
    assert weight.activations == Activations("fp8", "static")
    assert weight.parts["input_scale"].shape == ()
    del state["activation_scale"]
    with pytest.raises(CheckpointError, match="activation_scale is missing"):
        recognise(MODULE, on_disk(tmp_path, state), static)


def test_no_other_format_takes_these_tensors_as_well(tmp_path):
    state = {f"{MODULE}.{n}": t for n, t in example(130, 140).items()}
    found = Weights(on_disk(tmp_path, state), DEEPSEEK)
    assert list(found) == [f"{MODULE}.weight"]


def test_other_tensors_are_left_to_other_formats(tmp_path):
    fp8 = torch.ones(2, 2).to(torch.float8_e4m3fn)
    assert recognise(MODULE, on_disk(tmp_path, {"weight": fp8, "weight_scale": torch.ones(1)}), DEEPSEEK) is None
    assert recognise(MODULE, on_disk(tmp_path, {"weight": torch.ones(2, 2)}), DEEPSEEK) is None


@pytest.mark.parametrize(
    ("changed", "said", "message"),
    [
        ({"weight_scale_inv": torch.ones(2, 3)}, {}, r"weight_scale_inv \[2, 3\] does not fit weight \[130, 140\]"),
        ({"weight_scale_inv": torch.ones(2)}, {}, "does not fit"),
        ({}, {"weight_block_size": [64, 64]}, r"blocks of \[64, 64\]"),
        ({"weight": torch.ones(130, 140, dtype=torch.int8)}, {}, "weight is I8 .* FP4"),
        ({"weight": torch.ones(2, 3, 4).to(torch.float8_e4m3fn)}, {}, r"weight is \[2, 3, 4\]"),
        ({"weight_scale_inv": torch.ones(2, 2, dtype=torch.int32)}, {}, "weight_scale_inv is I32"),
    ],
)
def test_tensors_that_do_not_fit_together_are_named(tmp_path, changed, said, message):
    with pytest.raises(CheckpointError, match=f"o_proj: .*{message}") as caught:
        recognise(MODULE, on_disk(tmp_path, example(130, 140) | changed), DEEPSEEK | said)
    assert caught.value.next_step
