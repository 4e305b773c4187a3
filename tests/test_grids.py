"""Rounding to a storage format's grid: equal to what the format's own reader gives for a file written in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

from bench.encode import encode
from pairprobe.checkpoints import reading
from pairprobe.checkpoints.headers import read_header
from pairprobe.checkpoints.weight import Weights
from pairprobe.executions.grids import GRIDS, NF4, _cells, _e4m3

#: execution.weights → (format as bench writes it, its options for a checkpoint of float32, whose scales are that, too)
WRITTEN = {
    "int8": ("int8", {"scales": torch.float32}),
    "int8_bnb": ("bnb8", {}),
    "int4_g128": ("awq", {}),
    "int4_sym_g128": ("gptq", {}),
    "nf4": ("nf4", {"nested": False}),
    "fp8": ("fp8", {"scales": torch.float32}),
    "fp8_block": ("fp8_block", {}),
}
#: what the config says of them, where shapes do not
SAID = {
    "int8": {"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int"}}}},
    "fp8": {"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}}},
    "int4_g128": {"quant_method": "awq", "bits": 4, "group_size": 128},
    "int4_sym_g128": {"quant_method": "gptq", "bits": 4, "group_size": 128},
}


def matrix(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Heavy-tailed, as weights are; one row and one group of zeros."""
    generator = torch.Generator().manual_seed(seed)
    normal, chi = torch.randn(2, rows, columns, generator=generator)
    found = 0.02 * normal / (chi.abs() + 0.3)
    found[1] = 0
    found[2, : columns // 2] = 0
    return found.to(dtype).float()


def rounded(weight: torch.Tensor, name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    rows = weight.clone()
    factor = GRIDS[name].rounds(rows, dtype)
    return rows if factor is None else rows * factor[:, None]


def read_back(weight: torch.Tensor, name: str, folder: Path) -> torch.Tensor:
    """Written by bench, read by pairprobe's own reader of the format."""
    format, options = WRITTEN[name]
    parts = encode(weight, format, **options).parts
    save_file({f"a.b.{n}": t.contiguous() for n, t in parts.items()}, folder / "model.safetensors")
    (found,) = Weights(read_header(folder / "model.safetensors")[0], SAID.get(name, {})).values()
    out = torch.empty(found.shape)
    factor = found.rows({role: reading.whole(p) for role, p in found.parts.items()}, 0, found.shape[0], out)
    return out if factor is None else out * factor[:, None]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("shape", [(64, 256), (192, 384)])
def test_it_is_what_the_reader_of_that_format_gives(name, shape, tmp_path) -> None:
    weight = matrix(*shape)
    assert torch.equal(rounded(weight, name), read_back(weight, name, tmp_path))


@pytest.mark.parametrize("name", ["nf4", "fp8_block", "int8", "fp8"])
def test_blocks_that_are_cut_off(name, tmp_path) -> None:
    weight = matrix(130, 250)
    assert torch.equal(rounded(weight, name), read_back(weight, name, tmp_path))


@pytest.mark.parametrize(("name", "format"), [("int8", "int8"), ("fp8", "fp8")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scales_are_held_in_the_checkpoints_dtype(name, format, dtype) -> None:
    weight = matrix(64, 256, dtype=dtype)
    expected = encode(weight, format, scales=dtype).values
    assert torch.equal(rounded(weight, name, dtype), expected)
    assert not torch.equal(rounded(weight, name, torch.float32), expected)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("int8", {"num_bits": 8, "strategy": "channel"}),
        ("fp8", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    ],
)
def test_it_is_compressed_tensors_own_rounding(name, said) -> None:
    """Of float32 weights; for bfloat16 the library takes quotients in bfloat16, too, which moves some by a step."""
    weight = matrix(64, 256)
    weight[1], weight[2] = weight[0] * 3, weight[3]  # it has another scale for zeros
    args = QuantizationArgs(symmetric=True, **said)
    scale, zero = calculate_qparams(weight.amin(1, keepdim=True), weight.amax(1, keepdim=True), args)
    expected = fake_quantize(weight, scale, zero, args)
    torch.testing.assert_close(rounded(weight, name), expected, rtol=1e-6, atol=0)


def test_autoawqs_formula_of_groups() -> None:
    """AutoAWQ's pseudo_quantize_tensor, written out; it has no groups of one sign here, where it would differ."""
    weight = matrix(8, 256, seed=3)
    weight[1:3] = weight[3:5]
    groups = weight.view(-1, 128)
    high, low = groups.amax(1, keepdim=True), groups.amin(1, keepdim=True)
    scales = ((high - low).clamp(min=1e-5) / 15).half().float()
    zeros = (-torch.round(low / scales)).clamp_(0, 15)
    expected = (torch.clamp(torch.round(groups / scales) + zeros, 0, 15) - zeros) * scales
    assert torch.equal(rounded(weight, "int4_g128"), expected.view(8, 256))


def test_every_e4m3_number_its_neighbours_and_all_ties() -> None:
    exact = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    exact = exact[exact.isfinite()].sort().values
    middles = (exact[1:] + exact[:-1]) / 2
    values = torch.cat([exact, middles, torch.nextafter(middles, exact[1:]), torch.nextafter(middles, exact[:-1])])
    values = torch.cat([values, torch.linspace(-448, 448, 100_001), torch.linspace(-0.03, 0.03, 100_001)])
    found = values.clone()
    _e4m3(found)
    assert torch.equal(found, values.to(torch.float8_e4m3fn).float())


def test_nf4_is_the_nearest_of_its_sixteen_values() -> None:
    code = torch.tensor(NF4, dtype=torch.float64)
    values = torch.linspace(-1, 1, 64 * 1563, dtype=torch.float64).float().view(-1, 64)
    values[:, 0] = 1.0  # each block's absmax
    nearest = code[(values.double()[..., None] - code).abs().argmin(-1)].float()
    assert torch.equal(rounded(values, "nf4"), nearest)


def test_no_cell_of_nf4_holds_two_borders_or_one_at_its_edge() -> None:
    code = torch.tensor(NF4)
    borders = (code[1:] + code[:-1]) / 2
    cells = (borders.double() + 1) * 32
    assert len(set(cells.floor().tolist())) == 15
    assert ((cells - cells.round()).abs() > 1e-4).all()  # x + 1 is rounded in float32
    assert (_cells("cpu")[:, 0] < 2).sum() == 15


@pytest.mark.parametrize("name", GRIDS)
def test_rounding_twice_changes_little_more_than_the_last_digits(name) -> None:
    """A value on the grid stays there, where the largest of a group is on it; int8's 127.5 and int4's 7.5 are not."""
    weight = matrix(128, 256)
    once = rounded(weight, name)
    twice = rounded(once, name)
    change = (twice - once).norm() / once.norm()
    assert change < (1e-6 if name in ("nf4", "fp8", "fp8_block", "int8_bnb") else 0.1 if "int4" in name else 0.01)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("int8", 8 + 16 / 256), ("int8_bnb", 8 + 32 / 256), ("int4_g128", 4 + 20 / 128), ("int4_sym_g128", 4 + 16 / 128),
     ("nf4", 4.5), ("fp8", 8 + 16 / 256), ("fp8_block", 8 + 32 / 128**2)],
)  # fmt: skip
def test_bits_of_a_weight(name, bits) -> None:
    assert GRIDS[name].stored_bits(128, 256, 2) / (128 * 256) == pytest.approx(bits)
    if name in ("int8_bnb", "int4_g128", "nf4", "fp8_block"):  # what bench writes takes as many bytes
        format, options = WRITTEN[name]
        parts = encode(matrix(128, 256), format, **options).parts
        about = ("quant_map", "quant_state", "weight_format")
        written = 8 * sum(t.nbytes for n, t in parts.items() if not any(a in n for a in about))
        assert written == GRIDS[name].stored_bits(128, 256, 2)
