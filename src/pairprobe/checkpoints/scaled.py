"""Weights that are stored as small values and a grid of scales: integers or FP8, one by one or packed into words.

W = (q − zero point) · scale. Vendors compute this in the scale's dtype; here it is computed in float32 and rounded
once to `out`'s dtype, which gives the vendor's value wherever `out` has the scale's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pairprobe.checkpoints.headers import FLOATS
from pairprobe.checkpoints.weight import Weight
from pairprobe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

#: Dtypes of scales that are exponents of two, less 127; those of all others are FLOATS.
EXPONENTS = ("U8", "F8_E8M0")
SCALES = (*FLOATS, *EXPONENTS)


@dataclass(frozen=True, kw_only=True)
class Scaled(Weight):
    """One stored value for each weight, and a grid of scales. `block`: (rows, columns) that share a scale.

    Parts: weight I8 | F8 [out, in]; weight_scale, one for each block, of any shape; weight_zero_point like it, or
    none; weight_g_idx [in] or none.
    """

    block: tuple[int, int]

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> torch.Tensor | None:
        """See `Weight.rows`."""
        out.copy_(half(self.values(parts, start, stop)))
        zero = self.zeros(parts, start, stop)
        if zero is not None:
            _by_columns(out, zero.to(out.dtype), self.block[1], self._index(parts, zero.shape[1]), "sub_")
        scale = self.scales(parts, start, stop)
        if scale.shape[1] == 1:
            return scale[:, 0]
        _by_columns(out, scale, self.block[1], self._index(parts, scale.shape[1]), "mul_")
        return None

    def _index(self, parts: Mapping[str, torch.Tensor], groups: int) -> torch.Tensor | None:
        """The group of each column [in], None where they are runs. Raises CheckpointError for a group there is not."""
        index = parts.get("weight_g_idx")
        if index is not None and groups > 1 and (most := int(index.max())) >= groups:
            raise CheckpointError(
                f"{self.parts['weight_g_idx'].file.name}: a weight_g_idx [{len(index)}] holds {most}; allowed: 0 to "
                f"{groups - 1}.",
                "Download this file again.",
            )
        return index

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
    """Fields of `stored_bits` bits in 32-bit words. straddled: fields cross from word to word,
    else words are padded.

    Parts: weight_packed I32 [out, words] in place of weight; weight_zero_point I32 [words, groups] or I8 [out, groups].
    """

    stored_bits: int
    straddled: bool

    def values(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> torch.Tensor:
        """The stored values [stop − start, in], int8."""
        return unpack(parts["weight_packed"][start:stop], self.stored_bits, self.shape[1], self.straddled)

    def zeros(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> torch.Tensor | None:
        """See `Scaled.zeros`."""
        import torch

        zero = parts.get("weight_zero_point")
        if zero is None or zero.dtype != torch.int32:
            return super().zeros(parts, start, stop)
        # Only the words that hold these rows: 32 rows fill `bits` words, or one word holds ⌊32/bits⌋.
        rows, words = (32, self.stored_bits) if self.straddled else (32 // self.stored_bits, 1)
        first = start // rows
        held = zero[first * words : math.ceil(stop / rows) * words].T.contiguous()
        unpacked = unpack(held, self.stored_bits, stop - first * rows, self.straddled)
        return unpacked.T[start - first * rows :]


@dataclass(frozen=True, kw_only=True)
class PackedByRow(Packed):
    """Its scales are each row's own: rows can be read alone."""

    by_row: ClassVar[bool] = True


def unpack(words: torch.Tensor, bits: int, columns: int, straddled: bool) -> torch.Tensor:
    """Fields of `bits` bits, less 2^(bits−1), int8 [rows, columns], from int32 words [rows, words], contiguous."""
    import torch

    q = torch.empty(words.shape[0], columns, dtype=torch.uint8, device=words.device)
    if 8 % bits == 0:  # no field straddles a byte
        data = words.contiguous().view(torch.uint8)
        for k in range(8 // bits):
            place = q[:, k :: 8 // bits]
            place.copy_(((data >> (k * bits)) & (2**bits - 1))[:, : place.shape[1]])
    elif straddled:
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


def half(q: torch.Tensor) -> torch.Tensor:
    """FP8 (e4m3) on the CPU → float16, exactly; all else, and what holds a NaN, as it is.

    torch converts FP8 on the CPU one by one. With sign, exponent and fraction moved into float16's fields, subnormals
    included, and 2^8 for the exponents' biases of 15 and 7, it takes a quarter of the time.
    """
    import torch

    if q.dtype != torch.float8_e4m3fn or q.is_cuda or q.numel() == 0:
        return q
    data = q.view(torch.int8)
    if int((data & 0x7F).max()) == 0x7F:
        return q
    fields = data.to(torch.int16).bitwise_left_shift_(7).bitwise_and_(0xBF80 - 0x10000)
    return fields.view(torch.float16).mul_(2**8)


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
    blocks = torch.unflatten(out[:, : full * width], 1, (full, width))
    getattr(blocks, how)(value[:, :full, None])
    if full < value.shape[1]:
        getattr(out[:, full * width :], how)(value[:, full:])


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


def spread(shape: tuple[int, ...], block: tuple[int, int]) -> str:
    """How scales are spread over a weight, in words."""
    if block == shape:
        return "one scale"
    if block == (1, shape[1]):
        return "a scale per row"
    return f"groups of {block[1]}" if block[0] == 1 else f"blocks of {block[0]} × {block[1]}"


def words_of(fields: int, bits: int) -> tuple[int, int]:
    """32-bit words that hold so many fields: where fields straddle words, and where words are padded."""
    return math.ceil(fields * bits / 32), math.ceil(fields / (32 // bits))
