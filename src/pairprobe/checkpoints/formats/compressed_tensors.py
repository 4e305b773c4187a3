"""compressed-tensors (llm-compressor): integers or FP8 with one scale per matrix, row, group or block; packed words.

Written by compressed-tensors 0.9 … 0.20:

- int-quantized, float-quantized, naive-quantized, mxfp8-quantized: `weight` I8 or F8_E4M3 [out, in], `weight_scale`
  [1] | [out, 1] | [out, in/group] | [out/rows, in/columns], `weight_zero_point` of the same shape where asymmetric.
- pack-quantized: `weight_packed` I32 [out, words], q + 2^(bits−1) in unsigned fields from the lowest bit up.
  Since 0.16 or so fields may straddle words; before, a word held ⌊32/bits⌋ of them: the same for 1, 2, 4 and 8 bits.
  `weight_zero_point` is I32, packed along `out`, or (0.9) I8. `weight_g_idx` (0.9): the group of each column.

W = (q − zero point) · scale. The library computes this in the scale's dtype; here it is computed in float32 and
rounded once to `out`'s dtype, which is the library's value wherever `out` has the scale's dtype.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pairprobe.checkpoints import reading
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.weight import FLOATS, Weight
from pairprobe.errors import CheckpointError
from pairprobe.rooms import Activations

if TYPE_CHECKING:
    import torch

#: Scales that are exponents of two, less 127.
EXPONENTS = ("U8", "F8_E8M0")
NOT_READ = "Choose a checkpoint of this model in one of the formats that are read: README, 'Formats'."
DAMAGED = "Download the checkpoint again; if it stays so, its files do not belong together."


@dataclass(frozen=True, kw_only=True)
class Scaled(Weight):
    """One stored value for each weight, and a grid of scales. `block`: (rows, columns) that share a scale.

    Parts: weight I8 | F8 [out, in]; weight_scale, one for each block, of any shape; weight_zero_point like it, or
    none; weight_g_idx [in] or none.
    """

    block: tuple[int, int]

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> torch.Tensor | None:
        """See `Weight.rows`."""
        out.copy_(self.values(parts, start, stop))
        zero = self.zeros(parts, start, stop)
        if zero is not None:
            _by_columns(out, zero.to(out.dtype), self.block[1], parts.get("weight_g_idx"), "sub_")
        scale = self.scales(parts, start, stop)
        if scale.shape[1] == 1:
            return scale[:, 0]
        _by_columns(out, scale, self.block[1], parts.get("weight_g_idx"), "mul_")
        return None

    def integers(
        self, parts: Mapping[str, torch.Tensor], start: int, stop: int
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See `Weight.integers`; only symmetric integers with one scale for each row, or one in all."""
        import torch

        scale = self.scales(parts, start, stop)
        if "weight_zero_point" in parts or scale.shape[1] > 1:
            return None
        q = self.values(parts, start, stop)
        return (q, scale[:, 0]) if q.dtype == torch.int8 else None

    def values(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> torch.Tensor:
        """The stored values [stop − start, in], int8 or FP8."""
        return parts["weight"][start:stop]

    def scales(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> torch.Tensor:
        """The scales of these rows, float32 [stop − start, column blocks]."""
        import torch

        scale = self._grid(parts["weight_scale"], start, stop)
        if scale.dtype != torch.uint8:
            return scale.float()
        # 2^(e − 127) by its bits: exact on every device; e = 0 is the subnormal 2^−127
        bits = scale.int()
        return torch.where(bits == 0, 1 << 22, bits << 23).view(torch.float32)

    def zeros(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> torch.Tensor | None:
        """The zero points of these rows [stop − start, column blocks], None where symmetric."""
        zero = parts.get("weight_zero_point")
        return None if zero is None else self._grid(zero, start, stop)

    def _grid(self, scale: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        import torch

        height, width = self.block
        grid = scale.reshape(-1, math.ceil(self.shape[1] / width))
        if height == 1:
            return grid[start:stop]
        return grid[torch.arange(start, stop, device=grid.device) // height]


@dataclass(frozen=True, kw_only=True)
class ScaledByRow(Scaled):
    """Its scales are each row's own: rows can be read alone."""

    by_row: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Packed(Scaled):
    """Fields of `stored_bits` bits in 32-bit words. dense: fields straddle words, else words are padded.

    Parts: weight_packed I32 [out, words] in place of weight; weight_zero_point I32 [words, groups] or I8 [out, groups].
    """

    stored_bits: int
    dense_words: bool

    def values(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> torch.Tensor:
        """The stored values [stop − start, in], int8."""
        return unpack(parts["weight_packed"][start:stop], self.stored_bits, self.shape[1], self.dense_words)

    def zeros(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> torch.Tensor | None:
        """See `Scaled.zeros`."""
        import torch

        zero = parts.get("weight_zero_point")
        if zero is None or zero.dtype != torch.int32:
            return super().zeros(parts, start, stop)
        # Only the words that hold these rows: 32 rows fill `bits` words, or one word holds ⌊32/bits⌋.
        rows, words = (32, self.stored_bits) if self.dense_words else (32 // self.stored_bits, 1)
        first = start // rows
        held = zero[first * words : math.ceil(stop / rows) * words].T.contiguous()
        unpacked = unpack(held, self.stored_bits, stop - first * rows, self.dense_words)
        return unpacked.T[start - first * rows :]


@dataclass(frozen=True, kw_only=True)
class PackedByRow(Packed):
    """Its scales are each row's own: rows can be read alone."""

    by_row: ClassVar[bool] = True


def unpack(words: torch.Tensor, bits: int, columns: int, dense: bool) -> torch.Tensor:
    """Fields of `bits` bits, less 2^(bits−1), int8 [rows, columns], from int32 words [rows, words], contiguous."""
    import torch

    q = torch.empty(words.shape[0], columns, dtype=torch.uint8, device=words.device)
    if 8 % bits == 0:  # no field straddles a byte
        data = words.contiguous().view(torch.uint8)
        for k in range(8 // bits):
            place = q[:, k :: 8 // bits]
            place.copy_(((data >> (k * bits)) & (2**bits - 1))[:, : place.shape[1]])
    elif dense:
        for k in range(min(32, columns)):
            word, shift = divmod(k * bits, 32)
            place = q[:, k::32]
            low = min(bits, 32 - shift)  # bits of the field in its first word
            field = (words[:, word::bits] >> shift)[:, : place.shape[1]] & (2**low - 1)
            if low < bits:
                field |= (words[:, word + 1 :: bits][:, : place.shape[1]] & (2 ** (bits - low) - 1)) << low
            place.copy_(field)
    else:
        for k in range(32 // bits):
            place = q[:, k :: 32 // bits]
            place.copy_(((words >> (k * bits)) & (2**bits - 1))[:, : place.shape[1]])
    return q.sub_(2 ** (bits - 1)).view(torch.int8)  # wraps round as int8 does


def _by_columns(out: torch.Tensor, value: torch.Tensor, width: int, index: torch.Tensor | None, how: str) -> None:
    """out[:, c] −= or ·= value[:, c // width], or value[:, index[c]] where there is an index."""
    import torch

    if value.shape[1] == 1:
        getattr(out, how)(value)
        return
    if index is not None:
        # −1 marks an index that was never set: groups are then in order
        plain = torch.arange(out.shape[1], device=out.device) // width
        getattr(out, how)(value[:, torch.where((index < 0).any(), plain, index.long())])
        return
    full = out.shape[1] // width
    getattr(out[:, : full * width].unflatten(1, (full, width)), how)(value[:, :full, None])
    if full < value.shape[1]:
        getattr(out[:, full * width :], how)(value[:, full:])


# ── recognising ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Scheme:
    """What one of the config's groups says. None: not said."""

    kind: str = "int"
    bits: int | None = None
    group: int | None = None
    block: tuple[int, int] | None = None
    activations: Activations | None = None


def recognise(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Weight | None:
    """See `checkpoints.weight.Format`."""
    if "weight_packed" in tensors:
        if "scale_packed" in tensors:
            raise CheckpointError(f"{module}: stored as marlin-24, which is not read.", NOT_READ)
        return _packed(module, tensors, quantisation)
    if "weight.bitmask" in tensors or "bitmask" in tensors:
        raise CheckpointError(f"{module}: stored as a sparse bitmask, which is not read.", NOT_READ)
    weight = tensors.get("weight")
    if weight is None or "weight_scale" not in tensors or weight.dtype not in ("I8", "F8_E4M3"):
        return None
    return _scaled(module, tensors, quantisation)


def _scaled(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Scaled:
    weight, scale = tensors["weight"], tensors["weight_scale"]
    _matrix(module, "weight", weight)
    kind = "int" if weight.dtype == "I8" else "float"
    for scheme in _schemes(module, quantisation, kind):
        block = grid(weight.shape, scale.shape, scheme.group, scheme.block)
        if block is not None:
            return _made(
                module,
                tensors,
                scheme,
                "weight",
                weight.shape,
                block,
                f"int{scheme.bits or 8}" if kind == "int" else "fp8",
            )
    raise CheckpointError(
        f"{module}: weight_scale {list(scale.shape)} fits weight {list(weight.shape)} in none of the config's groups; "
        "allowed: [1], [out, 1], [out, in/group], [out/rows, in/columns].",
        DAMAGED,
    )


def _packed(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Scaled:
    packed, scale = tensors["weight_packed"], tensors.get("weight_scale")
    if packed.dtype == "U8":
        name = "NVFP4" if "weight_global_scale" in tensors else "MXFP4 or MXFP6"
        raise CheckpointError(f"{module}: stored as {name} (compressed-tensors), which is not read.", NOT_READ)
    if packed.dtype != "I32":
        raise CheckpointError(f"{module}: weight_packed is {packed.dtype}; allowed: I32.", DAMAGED)
    _matrix(module, "weight_packed", packed)
    if scale is None:
        raise CheckpointError(f"{module}: weight_packed without weight_scale.", DAMAGED)
    rows, words = packed.shape
    said: tuple[int, ...] | None = None
    for scheme in _schemes(module, quantisation, "int"):
        groups = scale.shape[1] if len(scale.shape) == 2 else 1
        columns = groups * scheme.group if scheme.group and groups > 1 else 0
        if not (columns and scheme.bits and words in _words(columns, scheme.bits)):
            # One scale for a row, or no group size: the number of columns is written down, and nowhere else
            said = said or _said_shape(module, tensors)
            if said and said[0] != rows:
                raise CheckpointError(f"{module}: weight_shape says {said[0]} rows, weight_packed has {rows}.", DAMAGED)
            columns = said[1] if said else words * 32 // (scheme.bits or 4)
        for bits in [scheme.bits] if scheme.bits else (4, 8, 2, 3, 5, 6, 7, 1):
            block = grid((rows, columns), scale.shape, scheme.group, None)
            if words in _words(columns, bits) and block is not None:
                dense = words == _words(columns, bits)[0]
                return _made(
                    module, tensors, scheme, "weight_packed", (rows, columns), block, f"int{bits} packed", bits, dense
                )
    raise CheckpointError(
        f"{module}: weight_packed {list(packed.shape)} and weight_scale {list(scale.shape)} fit none of the config's "
        "groups (num_bits, group_size).",
        DAMAGED,
    )


def _words(fields: int, bits: int) -> tuple[int, int]:
    """32-bit words that hold so many fields: straddling words, and padded words."""
    return math.ceil(fields * bits / 32), math.ceil(fields / (32 // bits))


def _said_shape(module: str, tensors: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    tensor = tensors.get("weight_shape")
    if tensor is None:
        return None
    if tensor.shape != (2,) or tensor.dtype not in ("I64", "I32"):
        raise CheckpointError(
            f"{module}: weight_shape is {tensor.dtype} {list(tensor.shape)}; allowed: I64 or I32 [2].", DAMAGED
        )
    return tuple(reading.whole(tensor).tolist())


def grid(
    weight: tuple[int, ...], scale: tuple[int, ...], group: int | None, block: tuple[int, int] | None
) -> tuple[int, int] | None:
    """(rows, columns) of `weight` that share one of the scales, None where their shapes do not fit.

    group, block: what the config says; where it says nothing, groups divide the columns, and blocks are 128 × 128.
    """
    rows, columns = weight
    if math.prod(scale) == 1:
        return (1, columns) if rows == 1 else (rows, columns)
    if len(scale) == 1:
        return (1, columns) if scale == (rows,) else None
    if len(scale) != 2:
        return None
    if scale == (rows, 1):
        return 1, columns
    if scale[0] == rows and block is None:
        width = group or math.ceil(columns / scale[1])
        return (1, width) if math.ceil(columns / width) == scale[1] else None
    height, width = block or (128, 128)
    return (height, width) if scale == (math.ceil(rows / height), math.ceil(columns / width)) else None


def _made(
    module: str,
    tensors: Mapping[str, Tensor],
    scheme: Scheme,
    role: str,
    shape: tuple[int, ...],
    block: tuple[int, int],
    name: str,
    bits: int = 0,
    dense: bool = True,
) -> Scaled:
    """The weight, once it is known which of the config's groups stores it."""
    parts = {role: tensors[role], "weight_scale": tensors["weight_scale"]}
    scale = tensors["weight_scale"]
    if scale.dtype not in (*FLOATS, *EXPONENTS):
        raise CheckpointError(f"{module}: weight_scale is {scale.dtype}; allowed: {', '.join(FLOATS)}, U8.", DAMAGED)
    zero = tensors.get("weight_zero_point")
    if zero is not None:
        fits = scale.shape
        if zero.dtype == "I32" and bits:
            fits = (_words(shape[0], bits)[0 if dense else 1], math.ceil(shape[1] / block[1]))
        if zero.shape != fits:
            raise CheckpointError(
                f"{module}: weight_zero_point is {zero.dtype} {list(zero.shape)}; {list(fits)} was due.", DAMAGED
            )
        parts["weight_zero_point"] = zero
    if "weight_g_idx" in tensors:
        index = tensors["weight_g_idx"]
        if index.shape != (shape[1],):
            raise CheckpointError(
                f"{module}: weight_g_idx is {list(index.shape)}; [{shape[1]}], one for each column, was due.", DAMAGED
            )
        parts["weight_g_idx"] = index
    for extra in ("input_scale", "input_zero_point"):
        if extra in tensors:
            parts[extra] = tensors[extra]
    activations = scheme.activations
    if activations is not None and activations.scale == "static" and "input_scale" not in parts:
        raise CheckpointError(
            f"{module}: its input is quantised by a stored scale, but input_scale is missing.", DAMAGED
        )
    spread = "one scale" if block == shape else "a scale per row" if block == (1, shape[1]) else ""
    spread = spread or (f"groups of {block[1]}" if block[0] == 1 else f"blocks of {block[0]} × {block[1]}")
    name = f"compressed-tensors {name}, {spread}" + (", asymmetric" if zero is not None else "")
    own = block[0] == 1 and not any(p.shape[:1] != shape[:1] for p in parts.values())
    common: dict[str, Any] = {
        "shape": shape,
        "parts": parts,
        "activations": activations,
        "format": name,
        "block": block,
    }
    if bits:
        return (PackedByRow if own else Packed)(**common, stored_bits=bits, dense_words=dense)
    return (ScaledByRow if own else Scaled)(**common)


def _matrix(module: str, role: str, tensor: Tensor) -> None:
    if len(tensor.shape) != 2:
        raise CheckpointError(f"{module}: {role} is {list(tensor.shape)}; a matrix was due.", NOT_READ)


# ── the config ───────────────────────────────────────────────────────────────────────────────────────────


def _schemes(module: str, quantisation: Mapping[str, Any], kind: str) -> Iterator[Scheme]:
    """The config's groups for weights of this kind, likeliest first; what is not said, where there is none."""
    ranked = []
    groups = quantisation.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
            continue
        weights = group["weights"]
        if str(weights.get("type", "int")) == kind:
            structure = weights.get("block_structure")
            size = weights.get("group_size")
            scheme = Scheme(
                kind,
                int(weights.get("num_bits", 8)),
                size if isinstance(size, int) and size > 0 else None,
                (int(structure[0]), int(structure[1])) if isinstance(structure, list) else None,
                activations(group.get("input_activations")),
            )
            ranked.append((min((_rank(module, str(t)) for t in group.get("targets", ())), default=4), scheme))
    yield from (scheme for _, scheme in sorted(ranked, key=lambda found: found[0]))
    if not ranked:
        yield Scheme(kind)


def _rank(module: str, target: str) -> int:
    """How closely a target means this module, as compressed-tensors orders them: name, pattern, class, not at all."""
    if target == module:
        return 0
    if target.startswith("re:"):
        return 1 if re.match(target.removeprefix("re:"), module) else 4
    # Classes: nearly every quantised weight is a Linear's; the input of an Embedding is never quantised.
    return 2 if target == "Linear" else 3 if "." not in target else 4


def activations(said: Any) -> Activations | None:
    """What `input_activations` says. Kinds: int8, fp8, other widths likewise; 'int8 asymmetric' and the like."""
    if not isinstance(said, Mapping):
        return None
    kind = f"{'fp' if said.get('type') == 'float' else 'int'}{said.get('num_bits', 8)}"
    if said.get("symmetric") is False:
        kind += " asymmetric"
    if not said.get("dynamic"):
        return Activations(kind, "static")
    size = said.get("group_size")
    group = size if isinstance(size, int) and size > 0 else None
    return Activations(kind, "tensor" if said.get("strategy") == "tensor" else "token", group)
