"""Quantised inputs equal compressed-tensors' own, and the fine-grained FP8 kernels' formula, bit for bit."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

from pairprobe.checkpoints.groups import activations as said
from pairprobe.errors import ExecutionError
from pairprobe.executions.activations import quantise
from pairprobe.rooms import Activations

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def states(dtype: torch.dtype, width: int = 96) -> torch.Tensor:
    """[2, 7, width]: ordinary tokens, one with an outlier, one of zeros, one tiny, one of one sign, one huge."""
    torch.manual_seed(width)
    x = torch.randn(2, 7, width)
    x[0, 1, 3] = 60.0
    x[0, 2] = 0.0
    x[0, 3] *= 1e-4
    x[1, 0] = x[1, 0].abs()
    x[1, 1] *= 300
    return x.to(dtype)


def library(x: torch.Tensor, args: dict) -> torch.Tensor:
    args = QuantizationArgs(**args)
    scale, zero = compute_dynamic_scales_and_zp(x, args, torch.nn.Identity())
    return fake_quantize(x, scale, zero, args)


INT8 = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}
FP8 = INT8 | {"type": "float"}
KINDS = {
    "int8 token": INT8,
    "int8 tensor": INT8 | {"strategy": "tensor"},
    "int8 group": INT8 | {"strategy": "group", "group_size": 32},
    "int4 token": INT8 | {"num_bits": 4},
    "int8 asymmetric token": INT8 | {"symmetric": False},
    "int8 asymmetric tensor": INT8 | {"symmetric": False, "strategy": "tensor"},
    "fp8 token": FP8,
    "fp8 tensor": FP8 | {"strategy": "tensor"},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("args", KINDS.values(), ids=KINDS)
def test_dynamic_activations_are_the_librarys(args, dtype):
    x = states(dtype)
    before = x.clone()
    found = quantise(x, said(args, "input_activations")).values
    assert found.dtype == dtype
    assert torch.equal(found, library(x, args))
    assert torch.equal(x, before)  # the input is not written into


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_integers_times_scale_are_the_quantised_values(dtype):
    x = states(dtype)
    found = quantise(x, Activations("int8", "token"))
    assert (found.integers.dtype, found.scale.shape) == (torch.int8, (2, 7, 1))
    assert torch.equal(found.integers.to(dtype) * found.scale, library(x, INT8))
    assert int(found.integers.max()) == 127
    assert int(found.integers.min()) >= -128


@pytest.mark.parametrize("kind", ["fp8", "int4", "int8 asymmetric"])
def test_only_symmetric_int8_has_integers(kind):
    assert quantise(states(torch.float32), Activations(kind)).integers is None
    assert quantise(states(torch.float32), Activations("int8", "token", 32)).integers is None


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_tokens_values_do_not_depend_on_the_batch_around_it(kind):
    # The library takes one scale for all of a matrix [tokens, in]; a token of ours keeps its own.
    x = states(torch.float32)
    whole = quantise(x.flatten(0, 1), Activations(kind)).values
    for n, row in enumerate(x.flatten(0, 1)):
        assert torch.equal(quantise(row[None], Activations(kind)).values[0], whole[n])
    assert torch.equal(whole.unflatten(0, (2, 7)), library(x, INT8 if kind == "int8" else FP8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_static_activations_are_the_librarys_in_the_wider_dtype(kind, stored, dtype):
    x = states(dtype)
    scale = torch.tensor([0.031], dtype=stored)
    found = quantise(x, Activations(kind, "static"), scale).values
    wide = torch.promote_types(dtype, stored)
    args = QuantizationArgs(num_bits=8, type="int" if kind == "int8" else "float", strategy="tensor")
    assert found.dtype == dtype
    assert torch.equal(found, fake_quantize(x.to(wide), scale.to(wide), None, args).to(dtype))
    assert torch.equal(found, quantise(x, Activations(kind, "static"), scale[0]).values)  # stored without dimensions


def test_a_static_zero_point_shifts_as_the_librarys():
    x, scale, zero = states(torch.float32), torch.tensor([0.02]), torch.tensor([-37], dtype=torch.int8)
    args = QuantizationArgs(num_bits=8, strategy="tensor", symmetric=False)
    found = quantise(x, Activations("int8 asymmetric", "static"), scale, zero).values
    assert torch.equal(found, fake_quantize(x, scale, zero, args))


def e4m3(value: float, codes: list[float]) -> float:
    """The nearest of FP8's values, ties to the even code; codes: value of each code from 0 to 448."""
    distance = [abs(abs(value) - c) for c in codes]
    least = min(distance)
    code = min((n for n, d in enumerate(distance) if d == least), key=lambda n: n % 2)
    return codes[code] if value >= 0 else -codes[code]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [256, 200, 5])
def test_groups_of_fp8_follow_the_kernels_formula(width, dtype):
    # e4m3 by its definition: subnormals m/8 · 2^−6, then (1 + m/8) · 2^(e − 7); 0x7F is no number
    codes = [m / 8 * 2**-6 for m in range(8)]
    codes += [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8)][:-1]
    assert codes[-1] == 448
    x = states(dtype, width)[:, :3]
    found = quantise(x, Activations("fp8", "token", 128)).values
    assert (found.shape, found.dtype) == (x.shape, dtype)
    for token, ours in zip(x.flatten(0, 1), found.flatten(0, 1), strict=True):
        for at in range(0, width, 128):
            group = token[at : at + 128].float()
            scale = group.abs().max() / 448.0
            if scale == 0:
                expected = group
            else:
                y = torch.tensor([e4m3(v, codes) for v in (group / scale).tolist()])
                expected = y * scale
            assert torch.equal(ours[at : at + 128], expected.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 5])
@pytest.mark.parametrize(
    "kind",
    [
        Activations("int8", "token"),
        Activations("int8", "static"),
        Activations("int8 asymmetric", "token"),
        Activations("int8", "token", 32),
        Activations("fp8", "token"),
        Activations("fp8", "token", 32),
    ],
    ids=str,
)
def test_rows_that_are_quantised_some_at_a_time_are_what_they_are_at_once(kind, rows, dtype, monkeypatch):
    x, scale = states(dtype).flatten(0, 1), torch.tensor([0.03])
    whole = quantise(x, kind, scale)
    monkeypatch.setattr("pairprobe.executions.activations.AT_ONCE_CPU", rows * x.shape[1])
    parted = quantise(x, kind, scale)
    assert torch.equal(parted.values, whole.values)
    assert (parted.integers is None) == (whole.integers is None)
    if whole.integers is not None:
        assert torch.equal(parted.integers, whole.integers)
        assert torch.equal(parted.scale, whole.scale)
        assert parted.scale.dtype == whole.scale.dtype


def test_no_tokens_are_no_error():
    assert quantise(torch.empty(0, 8), Activations("int8", "tensor")).values.shape == (0, 8)


@pytest.mark.parametrize("kind", ["int16", "fp4", "fp8 bounded", "fp8 asymmetric", "int8 of a kind"])
def test_kinds_that_are_not_computed_are_refused_with_what_to_do(kind):
    with pytest.raises(ExecutionError, match=f"kind '{kind}'") as caught:
        quantise(torch.ones(1, 8), Activations(kind))
    assert "weight_only" in caught.value.next_step


def test_an_unknown_scale_is_refused():
    with pytest.raises(ExecutionError, match="channel"):
        quantise(torch.ones(1, 8), Activations("int8", "channel"))


@pytest.mark.parametrize(
    ("kind", "scale", "message"),
    [
        ("int8", None, "input_scale, which is missing"),
        ("fp8", torch.ones(3), r"input_scale, which is \[3\]; allowed: one number"),
        ("int8 asymmetric", torch.ones(1), "input_zero_point, which is missing"),
    ],
)
def test_static_activations_without_their_scale_are_refused(kind, scale, message):
    with pytest.raises(ExecutionError, match=message):
        quantise(torch.ones(1, 8), Activations(kind, "static"), scale)
