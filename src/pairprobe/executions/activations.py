"""The input of a matrix as the checkpoint's own runtime would quantise it, bit for bit.

- int8, fp8, …, per token or tensor: compressed-tensors' arithmetic, all in x's dtype: scale = absmax / 127.5 for int8,
  absmax / 448 for FP8, the dtype's epsilon where that is 0; q = x / scale, clamped, rounded half to even.
- asymmetric integers: scale = (max − min) / (2^bits − 1), zero point = round(clamp(qmin − min / scale)).
- fp8 per group of columns: the fine-grained FP8 kernels' arithmetic, in float32 whatever x's dtype.
- static: by the stored scale, in the wider of x's and the scale's dtype.

A token's scale is taken over its own columns only, so what else is in the batch changes nothing. A dynamic scale for
the whole tensor cannot be like that: it depends on the batch and its padding, wherever it is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pairprobe.errors import ExecutionError
from pairprobe.rooms import UNKNOWN, Activations

if TYPE_CHECKING:
    import torch

LARGEST = 448.0  # of float8_e4m3fn
#: Values that are quantised at once: what that takes beside its result stays small.
AT_ONCE_CPU, AT_ONCE_GPU = 2**22, 2**26


@dataclass(frozen=True)
class Quantised:
    """x after its quantisation.

    integers: int8 [..., in] where the kind is symmetric int8 without groups, None elsewhere. scale: [..., 1], beside
    integers. dense: in place of integers, where there are none.
    """

    dtype: torch.dtype
    integers: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    dense: torch.Tensor | None = None

    @cached_property
    def values(self) -> torch.Tensor:
        """x with the error its quantisation makes, in x's shape and dtype."""
        if self.dense is not None:
            return self.dense
        assert self.integers is not None
        assert self.scale is not None
        return self.integers.to(self.scale.dtype).mul_(self.scale).to(self.dtype)


def quantise(
    x: torch.Tensor,
    activations: Activations,
    input_scale: torch.Tensor | None = None,
    input_zero_point: torch.Tensor | None = None,
) -> Quantised:
    """Quantise x as the checkpoint's `activations` say; rows of a large x some at a time, each as it would be alone.

    Args:
        x: [..., in], float32 | bfloat16 | float16.
        input_scale: the stored scale, one number, where `activations.scale` is 'static'.
        input_zero_point: the stored zero point, where the kind is asymmetric as well.

    Raises:
        ExecutionError: a kind of activations that is not computed, or a static one without its scale.
    """
    import torch

    rows = max(1, (AT_ONCE_GPU if x.is_cuda else AT_ONCE_CPU) // max(1, x.shape[-1]))
    if x.ndim != 2 or len(x) <= rows or activations.scale == "tensor":
        return _at_once(x, activations, input_scale, input_zero_point)
    parts = (_at_once(of, activations, input_scale, input_zero_point) for of in torch.split(x, rows))
    if activations.kind != "int8" or activations.group is not None:
        dense = torch.empty_like(x)
        for into, part in zip(torch.split(dense, rows), parts, strict=True):
            into.copy_(part.values)
        return Quantised(x.dtype, dense=dense)
    integers, scales = torch.empty(x.shape, dtype=torch.int8, device=x.device), []
    for into, part in zip(torch.split(integers, rows), parts, strict=True):
        assert part.integers is not None
        assert part.scale is not None
        into.copy_(part.integers)
        scales.append(part.scale)
    return Quantised(x.dtype, integers, torch.cat(scales))


def _at_once(
    x: torch.Tensor,
    activations: Activations,
    input_scale: torch.Tensor | None,
    input_zero_point: torch.Tensor | None,
) -> Quantised:
    import torch

    low, high, asymmetric = _range(activations)
    if x.numel() == 0:
        return Quantised(x.dtype, dense=x)
    zero: torch.Tensor | None
    if activations.scale == "static":
        scale = _stored(activations, "input_scale", input_scale)
        zero = _stored(activations, "input_zero_point", input_zero_point) if asymmetric else None
        wide = x.to(torch.promote_types(x.dtype, scale.dtype))
        scale = scale.to(wide.dtype).expand(*x.shape[:-1], 1)
    elif activations.group is None:
        wide = x
        scale, zero = _scale(x, low, high, asymmetric, whole=activations.scale == "tensor")
    else:
        return Quantised(x.dtype, dense=_grouped(x, activations, low, high, asymmetric))
    if activations.kind == "int8":
        return Quantised(x.dtype, (wide / scale).clamp_(low, high).round_().to(torch.int8), scale)
    return Quantised(x.dtype, dense=_there_and_back(wide, scale, zero, low, high, activations).to(x.dtype))


def _grouped(x: torch.Tensor, activations: Activations, low: float, high: float, asymmetric: bool) -> torch.Tensor:
    import torch

    assert activations.group is not None
    width = x.shape[-1]
    lacking = -width % activations.group  # the zeros that are added change no scale
    groups = torch.nn.functional.pad(x, (0, lacking)) if lacking else x
    groups = torch.unflatten(groups, -1, (-1, activations.group))
    if activations.kind == "fp8":
        groups = groups.float()
    scale, zero = _scale(groups, low, high, asymmetric)
    found = _there_and_back(groups, scale, zero, low, high, activations).flatten(-2)
    return found[..., :width].to(x.dtype)


def _stored(activations: Activations, name: str, tensor: torch.Tensor | None) -> torch.Tensor:
    if tensor is not None and tensor.numel() == 1:
        return tensor.reshape(1)
    raise ExecutionError(
        f"Activations of kind '{activations.kind}' are quantised by a stored {name}, which is "
        f"{'missing' if tensor is None else list(tensor.shape)}; allowed: one number.",
        "execution.activations=weight_only runs the model without it.",
    )


def not_computed(activations: Activations) -> str | None:
    """Why inputs cannot be quantised in this way, or None."""
    try:
        _range(activations)
    except ExecutionError as error:
        return f"{error.problems[0]} {error.next_step}"
    return None


def _range(activations: Activations) -> tuple[float, float, bool]:
    """(lowest, highest, asymmetric) of the quantised values."""
    if activations.kind == UNKNOWN:
        raise ExecutionError(
            f"The weights are integers or FP8 beside scales, and config.json declares {activations.declared}: whether "
            "and how inputs of products are quantised is not known.",
            "execution.activations=weight_only runs the model with unquantised inputs.",
        )
    if activations.kind == "fp8":
        return -LARGEST, LARGEST, False
    found = re.fullmatch(r"int([2-8])( asymmetric)?", activations.kind)
    if found is None or activations.scale not in ("token", "tensor", "static"):
        raise ExecutionError(
            f"The checkpoint's activations are of kind '{activations.kind}' ({activations.scale}), which is not "
            "computed; computed: int2 … int8, the same asymmetric, fp8; token, tensor, static.",
            "execution.activations=weight_only runs the model without it.",
        )
    half = 2 ** (int(found[1]) - 1)
    return -half, half - 1, found[2] is not None


def _scale(
    x: torch.Tensor, low: float, high: float, asymmetric: bool, whole: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(scale, zero point), [..., 1], over the last dimension or the whole of x, in x's dtype."""
    import torch

    if whole:
        least, most = (edge.expand(*x.shape[:-1], 1) for edge in torch.aminmax(x))
    else:
        least, most = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)  # a fortieth of the time of aminmax
    least, most = least.clamp(max=0), most.clamp(min=0)  # 0 is always a value
    if asymmetric:
        scale = (most - least) / (high - low)
        # where all values are 0: 0/0, and compressed-tensors makes 0 of that
        zero = (low - least / scale).clamp(low, high).round().nan_to_num(0)
    else:
        scale, zero = torch.maximum(-least, most) / ((high - low) / 2), None
    return torch.where(scale == 0, torch.finfo(x.dtype).eps, scale), zero


def _there_and_back(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    low: float,
    high: float,
    activations: Activations,
) -> torch.Tensor:
    import torch

    q = x / scale
    if zero is not None:
        q += zero
    q = q.clamp_(low, high)
    q = q.to(torch.float8_e4m3fn).to(x.dtype) if activations.kind == "fp8" else q.round_()
    if zero is not None:
        q -= zero
    return q.mul_(scale)
