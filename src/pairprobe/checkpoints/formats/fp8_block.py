"""Block-scaled FP8, as DeepSeek and Qwen publish it and transformers writes it (quant_method 'fp8').

`weight` F8_E4M3 [out, in], `weight_scale_inv` F32 | BF16 | F8_E8M0 [out/128, in/128], the last blocks cut off; or one
scale in all (Mistral's). W = weight · scale: the name is of the quantiser's point of view. The input is quantised to
FP8 as well: 'dynamic', for each token and 128 columns (for each token where there is one scale), or 'static', by
`activation_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pairprobe.checkpoints.declared import misdeclared
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.scaled import SCALES, Scaled, ScaledByRow, grid, spread
from pairprobe.checkpoints.weight import DAMAGED, Weight
from pairprobe.errors import CheckpointError
from pairprobe.rooms import Activations


def recognise(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Weight | None:
    """See `checkpoints.weight.Format`."""
    weight, scale = tensors.get("weight"), tensors.get("weight_scale_inv")
    if weight is None or scale is None:
        return None
    if weight.dtype != "F8_E4M3":
        raise CheckpointError(
            f"{module}: weight is {weight.dtype} beside weight_scale_inv; allowed: F8_E4M3 (I8 is FP4, two in a byte).",
            "Choose a checkpoint of this model in one of the formats that are read: README, 'Formats'.",
        )
    if len(weight.shape) != 2:
        raise CheckpointError(f"{module}: weight is {list(weight.shape)}; [out, in] was due.", DAMAGED)
    if scale.dtype not in SCALES:
        raise CheckpointError(f"{module}: weight_scale_inv is {scale.dtype}; allowed: {', '.join(SCALES)}.", DAMAGED)
    shape = (weight.shape[0], weight.shape[1])
    said = quantisation.get("weight_block_size")
    if said is not None and not (isinstance(said, list) and len(said) == 2 and all(_positive(n) for n in said)):
        raise misdeclared("weight_block_size", said, "two numbers above 0, as [128, 128]")
    size = None if said is None else (said[0], said[1])
    block = grid(shape, scale.shape, None, size or (128, 128))
    if block is None:
        raise CheckpointError(
            f"{module}: weight_scale_inv {list(scale.shape)} does not fit weight {list(shape)} in blocks of "
            f"{list(size or (128, 128))}.",
            DAMAGED,
        )
    parts = {"weight": weight, "weight_scale": scale}
    scheme = quantisation.get("activation_scheme", "dynamic")
    if scheme == "static" or "activation_scale" in tensors:
        if "activation_scale" not in tensors:
            raise CheckpointError(f"{module}: activation_scheme is 'static', but activation_scale is missing.", DAMAGED)
        parts["input_scale"] = tensors["activation_scale"]
        activations = Activations("fp8", "static")
    elif scheme == "dynamic":
        # one scale for a token is a group of all columns: the kernels compute both alike, in float32
        activations = Activations("fp8", "token", size[1] if size else block[1])
    else:
        raise misdeclared("activation_scheme", scheme, "dynamic, static")
    own = block[0] == 1 and all(p.shape[:1] == shape[:1] for p in parts.values())
    kind = ScaledByRow if own else Scaled
    return kind(shape=shape, parts=parts, block=block, format=f"fp8, {spread(shape, block)}", activations=activations)


def _positive(number: Any) -> bool:
    return isinstance(number, int) and number > 0
