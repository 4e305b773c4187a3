"""MLX's affine quantisation: weight U32 [out, in · bits / 32], scales and biases [out, in / g]; W = q · s + b.

Values of a row follow each other without gaps, lowest bits first. Embeddings are stored so too, and stacked experts
as [experts, out, …].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pairprobe.checkpoints import packing
from pairprobe.checkpoints.declared import nested
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.weight import Weight
from pairprobe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

BITS = (1, 2, 3, 4, 5, 6, 8)
GROUP = 64  # inputs in a group where the config names none: MLX's default


def recognise(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Weight | None:
    weight, scales, biases = (tensors.get(n) for n in ("weight", "scales", "biases"))
    if weight is None or weight.dtype != "U32" or scales is None:
        return None
    # mlx-lm writes a module's own settings, or true, under its name
    own = quantisation.get(module)
    declared = quantisation if own is True else {**quantisation, **(nested(own, module) or {})}
    mode = declared.get("mode", "affine")
    if biases is None and mode == "affine" and scales.dtype in packing.FACTORS:
        return None  # it is missing
    if biases is None or mode != "affine":
        raise CheckpointError(
            f"{module}: is stored by MLX in mode '{mode}', scales {scales.dtype}, biases "
            f"{biases.dtype if biases else 'none'}; allowed: mode 'affine', with biases.",
            "Take the same model's checkpoint in MLX's affine mode (plain 4 or 8 bit), or another format.",
        )
    shapes = f"weight {list(weight.shape)}, scales {list(scales.shape)}, biases {list(biases.shape)}"
    if (
        scales.shape != biases.shape
        or len(weight.shape) < 2
        or weight.shape[:-1] != scales.shape[:-1]
        or 0 in (*weight.shape, *scales.shape)
        or not {scales.dtype, biases.dtype} <= set(packing.FACTORS)
    ):
        raise CheckpointError(
            f"{module}: {shapes} ({scales.dtype}, {biases.dtype}) do not fit together as MLX stores them."
        )
    group = declared.get("group_size", GROUP)
    # The shapes give bits · group size; which of several pairs it is, the config says.
    bits, over = divmod(32 * weight.shape[-1], scales.shape[-1] * group) if _whole(group) else (0, 1)
    if over or bits not in BITS or declared.get("bits", bits) != bits:
        raise CheckpointError(
            f"{module}: {shapes} do not fit the config's group_size {group} and bits {declared.get('bits')}; "
            f"allowed: {', '.join(map(str, BITS))} bits in 32 · {weight.shape[-1]} bits a row."
        )
    return Affine(
        shape=(*weight.shape[:-1], scales.shape[-1] * group),
        parts={"weight": weight, "scales": scales, "biases": biases},
        bits_each=bits,
        group=group,
        format=f"MLX {bits} bit, groups of {group}",
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and value > 0


@dataclass(frozen=True, kw_only=True)
class Affine(Weight):
    """[out, in], or [experts, out, in]. group: inputs that share a scale and a bias."""

    bits_each: int
    group: int
    by_row: ClassVar[bool] = True

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> None:
        import torch

        weight, width = parts["weight"], self.shape[-1]
        groups = (width // self.group, self.group)
        several = packing.at_a_time(weight, math.prod(self.shape[1:-1]), width)
        for a in range(start, stop, several):
            b = min(a + several, stop)
            q = torch.unflatten(packing.across(weight[a:b], self.bits_each, width), -1, groups)
            own = torch.unflatten(out[a - start : b - start], -1, groups)
            scaled = torch.mul(q, parts["scales"][a:b, ..., None].float())
            torch.add(scaled, parts["biases"][a:b, ..., None].float(), out=own)
