"""compressed-tensors (llm-compressor): integers or FP8 with one scale per matrix, row, group or block; packed words.

Written by compressed-tensors 0.9 … 0.20:

- int-quantized, float-quantized, naive-quantized, mxfp8-quantized: `weight` I8 or F8_E4M3 [out, in], `weight_scale`
  [1] | [out, 1] | [out, in/group] | [out/rows, in/columns], `weight_zero_point` of the same shape where asymmetric.
- pack-quantized: `weight_packed` I32 [out, words], q + 2^(bits−1) in unsigned fields from the lowest bit up. In late
  versions fields straddle words; before, a word held ⌊32/bits⌋ of them: the same for 1, 2, 4 and 8 bits.
  `weight_zero_point` is I32, packed along `out`, or (0.9) I8. `weight_g_idx` (0.9): the group of each column.

W = (q − zero point) · scale. NVFP4, MXFP4, MXFP6, marlin-24 and sparse bitmasks are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pairprobe.checkpoints import reading
from pairprobe.checkpoints.groups import NOT_MEANT, Scheme, schemes
from pairprobe.checkpoints.headers import FLOATS, Tensor
from pairprobe.checkpoints.scaled import SCALES, Packed, PackedByRow, Scaled, ScaledByRow, grid, spread, words_of
from pairprobe.checkpoints.weight import DAMAGED, Weight
from pairprobe.errors import CheckpointError

MX = 32  # weights that share an exponent of two (OCP Microscaling)
NOT_READ = "Choose a checkpoint of this model in one of the formats that are read: README, 'Formats'."


@dataclass(frozen=True)
class Fit:
    """How a module's tensors are to be read by a scheme. words: 'straddled' | 'padded', None where not packed."""

    shape: tuple[int, int]
    block: tuple[int, int]
    bits: int
    words: str | None = None


def recognise(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Weight | None:
    """See `checkpoints.weight.Format`."""
    weight, packed, scale = (tensors.get(n) for n in ("weight", "weight_packed", "weight_scale"))
    if "weight.bitmask" in tensors or "bitmask" in tensors:
        raise CheckpointError(f"{module}: stored as a sparse bitmask, which is not read.", NOT_READ)
    if "scale_packed" in tensors:
        raise CheckpointError(f"{module}: stored as marlin-24, which is not read.", NOT_READ)
    if packed is not None and packed.dtype == "U8":
        name = "NVFP4" if "weight_global_scale" in tensors else "MXFP4 or MXFP6"
        raise CheckpointError(f"{module}: stored as {name} (compressed-tensors), which is not read.", NOT_READ)
    if packed is None and (weight is None or scale is None or weight.dtype not in ("I8", "F8_E4M3")):
        return None
    role, stored = ("weight", weight) if packed is None else ("weight_packed", packed)
    assert stored is not None
    if packed is not None and packed.dtype != "I32":
        raise CheckpointError(f"{module}: weight_packed is {packed.dtype}; allowed: I32.", DAMAGED)
    if len(stored.shape) != 2:
        raise CheckpointError(f"{module}: {role} is {list(stored.shape)}; [out, in] was due.", NOT_READ)
    if scale is None:  # of a whole weight, it is what tells the format
        return None
    if scale.dtype not in SCALES:
        raise CheckpointError(f"{module}: weight_scale is {scale.dtype}; allowed: {', '.join(SCALES)}.", DAMAGED)

    kind = "float" if stored.dtype == "F8_E4M3" else "int"
    fit = _fit_whole if packed is None else _fit_packed
    scheme, read = _fitting(module, tensors, schemes(module, tensors, quantisation, kind), fit)
    if scale.dtype == "U8" and (kind == "int" or read.block[0] != 1 or read.block[1] > MX):
        raise CheckpointError(
            f"{module}: weight_scale is U8 {list(scale.shape)}, exponents of two as of FP8 in groups of {MX}; its "
            f"weight is {stored.dtype}, {spread(read.shape, read.block)}. Allowed: {', '.join(FLOATS)}.",
            DAMAGED,
        )
    parts = {role: stored, "weight_scale": scale, **_extras(module, tensors, scheme, read)}
    name = f"compressed-tensors {'fp8' if kind == 'float' else f'int{read.bits}'}{' packed' if read.words else ''}, "
    name += spread(read.shape, read.block) + (", asymmetric" if "weight_zero_point" in parts else "")
    own = read.block[0] == 1 and all(p.shape[:1] == read.shape[:1] for p in parts.values())
    common: dict[str, Any] = {"shape": read.shape, "block": read.block, "parts": parts, "format": name}
    common["activations"], common["unlike"] = scheme.activations, _unlike(scheme, read)
    if read.words:
        packing: dict[str, Any] = {"stored_bits": read.bits, "straddled": read.words == "straddled"}
        return (PackedByRow if own else Packed)(**common, **packing)
    return (ScaledByRow if own else Scaled)(**common)


# ── the tensors ──────────────────────────────────────────────────────────────────────────────────────────


def _fitting(
    module: str,
    tensors: Mapping[str, Tensor],
    likeliest: list[Scheme],
    fit: Callable[[str, Mapping[str, Tensor], Scheme], Fit | None],
) -> tuple[Scheme, Fit]:
    """The likeliest scheme that the tensors' shapes fit."""
    found = [(s, read) for s in likeliest if (read := fit(module, tensors, s)) is not None]
    if not found:
        shapes = ", ".join(
            f"{n} {list(tensors[n].shape)}" for n in ("weight", "weight_packed", "weight_scale") if n in tensors
        )
        said = dict.fromkeys(f"num_bits {s.bits}, group_size {s.group}" for s in likeliest if s.bits or s.group)
        groups = f"the config's groups ({'; '.join(said)})" if said else "the config's groups"
        raise CheckpointError(
            f"{module}: {shapes} fit none of {groups}. Scales are [1], [out, 1], [out, in/group_size] or one for each "
            "block.",
            DAMAGED,
        )
    if found[0][0].rank == NOT_MEANT and any(
        (s.activations, r) != (found[0][0].activations, found[0][1]) for s, r in found
    ):
        raise CheckpointError(
            f"{module}: none of quantization_config's groups targets it, and {len(found)} that differ fit its shapes.",
            "Name the module in 'targets' of the right group of config.json.",
        )
    return found[0]


def _unlike(scheme: Scheme, read: Fit) -> tuple[str, ...]:
    """What the scheme says of how scales are spread that the shapes do not bear out."""
    (rows, columns), group, block = read.shape, scheme.group, scheme.block
    due: dict[str, tuple[int, int]] = {"tensor": (1, 1), "channel": (rows, 1)}
    if group:
        due["group"] = rows, math.ceil(columns / group)
    if block:
        due["block"] = math.ceil(rows / block[0]), math.ceil(columns / block[1])
    stored = math.ceil(rows / read.block[0]), math.ceil(columns / read.block[1])
    said = {
        f"strategy {scheme.strategy}": due.get(str(scheme.strategy)),
        f"group_size {group}": due.get("group"),
        f"block_structure {list(block or ())}": due.get("block"),
    }
    lie = spread(read.shape, read.block)
    return tuple(f"{what} (stored: {lie})" for what, shape in said.items() if shape not in (None, stored))


def _fit_whole(_: str, tensors: Mapping[str, Tensor], scheme: Scheme) -> Fit | None:
    rows, columns = shape = tensors["weight"].shape
    block = grid((rows, columns), tensors["weight_scale"].shape, scheme.group, scheme.block)
    return block and Fit((shape[0], shape[1]), block, scheme.bits or 8)


def _fit_packed(module: str, tensors: Mapping[str, Tensor], scheme: Scheme) -> Fit | None:
    scale = tensors["weight_scale"].shape
    rows, words = tensors["weight_packed"].shape
    groups = scale[1] if len(scale) == 2 else 1
    columns = groups * scheme.group if scheme.group and groups > 1 else 0
    if not (columns and scheme.bits and words in words_of(columns, scheme.bits)):
        # One scale for a row, or no group size: the number of columns is written down, and nowhere else. Read only
        # then, as a large checkpoint has hundreds of these 16 bytes, each in another place of the file.
        said = _said_shape(module, tensors)
        if said is not None and said[0] != rows:
            raise CheckpointError(f"{module}: weight_shape says {said[0]} rows, weight_packed has {rows}.", DAMAGED)
        if said is None and scheme.bits is None:
            return None
        columns = said[1] if said else words * 32 // (scheme.bits or 1)
    block = grid((rows, columns), scale, scheme.group, scheme.block)
    for bits in [scheme.bits] if scheme.bits else (4, 8, 2, 3, 5, 6, 7, 1):
        straddled, padded = words_of(columns, bits)
        if block is not None and words in (straddled, padded):
            return Fit((rows, columns), block, bits, "straddled" if words == straddled else "padded")
    return None


def _said_shape(module: str, tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    tensor = tensors.get("weight_shape")
    if tensor is None:
        return None
    if tensor.shape != (2,) or tensor.dtype not in ("I64", "I32"):
        raise CheckpointError(
            f"{module}: weight_shape is {tensor.dtype} {list(tensor.shape)}; allowed: I64 or I32 [2].", DAMAGED
        )
    rows, columns = (int(n) for n in reading.whole(tensor))
    return rows, columns


def _extras(module: str, tensors: Mapping[str, Tensor], scheme: Scheme, read: Fit) -> dict[str, Tensor]:
    """The parts beside weight and scale, checked."""
    found = {
        n: tensors[n] for n in ("input_scale", "input_zero_point", "weight_zero_point", "weight_g_idx") if n in tensors
    }
    zero, index = found.get("weight_zero_point"), found.get("weight_g_idx")
    if zero is None and scheme.asymmetric:
        raise CheckpointError(f"{module}: asymmetric by the config, but weight_zero_point is missing.", DAMAGED)
    due = tensors["weight_scale"].shape
    if zero is not None and zero.dtype == "I32" and read.words:
        due = (words_of(read.shape[0], read.bits)[read.words == "padded"], due[1] if len(due) == 2 else 1)
    if zero is not None and zero.shape != due:
        raise CheckpointError(
            f"{module}: weight_zero_point is {zero.dtype} {list(zero.shape)}; {list(due)} was due.", DAMAGED
        )
    if index is not None and index.shape != read.shape[1:]:
        raise CheckpointError(
            f"{module}: weight_g_idx is {list(index.shape)}; one for each of {read.shape[1]} columns was due.", DAMAGED
        )
    if scheme.activations is not None and scheme.activations.scale == "static" and "input_scale" not in found:
        raise CheckpointError(
            f"{module}: its input has a stored scale by the config, but input_scale is missing.", DAMAGED
        )
    return found
