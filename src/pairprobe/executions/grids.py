"""The grids that storage formats round a matrix to, each by rounding to the nearest: float32 rows in, rounded rows out.

Rows are [rows, in], of whole groups or blocks, and are overwritten. Each grid is what our own reader of that format
gives for a file whose writer rounds to the nearest; no calibration data, no search (GPTQ's and AWQ's writers move
weights, or scale channels, so as to make up for the error: here nothing does).

- int8: compressed-tensors' W8A8 and W8A16: symmetric, a scale for each row, absmax / 127.5, q in −128 … 127.
- int8_bnb: LLM.int8 (Dettmers et al. 2022) without its outlier columns: absmax / 127, q in −127 … 127.
- int4_g128: AWQ's (Lin et al. 2024): 16 steps from each group's smallest to its largest weight, 0 among them, the
  zero point rounded.
- int4_sym_g128: GPTQ's and W4A16's symmetric one (Frantar et al. 2023): absmax of the group / 7.5, q in −8 … 7.
- nf4: bitsandbytes' 4-bit NormalFloat (Dettmers et al. 2023): blocks of 64 over the flattened matrix, absmax in float32
  (not nested).
- fp8: e4m3 (Micikevicius et al. 2022) with a scale for each row, absmax / 448.
- fp8_block: e4m3 with a float32 scale for each block of 128 × 128, as DeepSeek-V3 publishes it.

Scales are rounded as files hold them before the integers are chosen: to the checkpoint's own dtype (int8, fp8), float16
(int4), float32 (nf4, fp8_block, int8_bnb). Quotients are taken in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pairprobe.rooms import NF4

if TYPE_CHECKING:
    import torch

#: Columns of a group, blocks of a flattened matrix, sides of a block of FP8.
GROUP, NF4_BLOCK, FP8_BLOCK = 128, 64, 128
#: Largest e4m3 number.
LARGEST = 448.0
CELLS = 64  # of −1 … 1, so fine that none holds two of the 15 borders between NF4's values

#: (rows [n, in], dtype of the checkpoint's floats) → None, or factors [n] that the rows still lack
Rounds = Callable[["torch.Tensor", "torch.dtype"], "torch.Tensor | None"]


@dataclass(frozen=True)
class Grid:
    """rounds: see above. bits: of a value alone. scale_bits: of one scale (and zero point) as stored, None: as the
    checkpoint's dtype. share: values of a matrix [rows, in] that have one scale. step: rows that must be rounded
    together, of a matrix so wide. fits: whether so many columns can be rounded."""

    described: str
    rounds: Rounds
    bits: int
    scale_bits: int | None
    share: Callable[[int, int], int]
    step: Callable[[int], int] = lambda columns: 1
    fits: Callable[[int], bool] = lambda columns: True

    def stored_bits(self, rows: int, columns: int, itemsize: int) -> float:
        """Bits of a whole matrix [rows, in] in a file of this format. itemsize: of the checkpoint's floats."""
        per_scale = 8 * itemsize if self.scale_bits is None else self.scale_bits
        return self.bits * rows * columns + per_scale * math.ceil(rows * columns / self.share(rows, columns))


def _held(scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As a file of `dtype` holds it, float32; where that is 0, all weights are 0 and any scale serves."""
    import torch

    scale = scale.to(dtype).float()
    return torch.where(scale > 0, scale, 1.0).to(dtype).float()


def _absmax(values: torch.Tensor) -> torch.Tensor:
    import torch

    low, high = values.amin(-1), values.amax(-1)
    return torch.maximum(-low, high)


def _int8(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    scale = _held(_absmax(rows) / 127.5, dtype)
    rows.div_(scale[:, None]).round_().clamp_(-128, 127)
    return scale


def _int8_bnb(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:  # noqa: ARG001  its factors are float32
    import torch

    peak = _held(_absmax(rows), torch.float32)
    rows.div_(peak[:, None]).mul_(127).round_().clamp_(-127, 127)
    return peak / 127


def _int4(rows: torch.Tensor, dtype: torch.dtype) -> None:  # noqa: ARG001  AWQ's scales are float16
    import torch

    groups = rows.view(len(rows), -1, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    low, high = low.clamp_(max=0), high.clamp_(min=0)
    scale = _held((high - low) / 15, torch.float16)
    zero = torch.round(-low / scale).clamp_(0, 15)
    groups.div_(scale).round_().add_(zero).clamp_(0, 15).sub_(zero).mul_(scale)


def _int4_sym(rows: torch.Tensor, dtype: torch.dtype) -> None:  # noqa: ARG001  GPTQ's scales are float16
    import torch

    groups = rows.view(len(rows), -1, GROUP)
    scale = _held(_absmax(groups) / 7.5, torch.float16)[..., None]
    groups.div_(scale).round_().clamp_(-8, 7).mul_(scale)


def _nf4(rows: torch.Tensor, dtype: torch.dtype) -> None:  # noqa: ARG001
    flat = rows.view(-1)
    whole = flat.numel() // NF4_BLOCK * NF4_BLOCK
    for part in (flat[:whole].view(-1, NF4_BLOCK), flat[whole:].view(1, -1)):  # the matrix's last block may be shorter
        if part.numel():
            _nf4_blocks(part)


def _nf4_blocks(blocks: torch.Tensor) -> None:
    """[blocks, values]. Of each value's cell a table knows the border in it and NF4's values on both sides of it: one
    look-up, where a search among the borders takes three times as long."""
    import torch

    absmax = _absmax(blocks)[:, None]
    blocks.div_(torch.where(absmax > 0, absmax, 1.0))
    cells = (blocks + 1).mul_(CELLS / 2).int()
    border, below, above = torch.nn.functional.embedding(cells, _cells(str(blocks.device))).unbind(-1)
    blocks.copy_(torch.where(blocks > border, above, below)).mul_(absmax)


@cache
def _cells(device: str) -> torch.Tensor:
    """[CELLS + 1, 3]: the border in each cell (2 where there is none), NF4's value below it and above; 1 is a cell."""
    import torch

    code = torch.tensor(NF4, dtype=torch.float32)
    borders = (code[1:] + code[:-1]) / 2
    edges = torch.linspace(-1, 1, CELLS + 1)
    below = torch.bucketize(edges, borders)  # NF4's value at each cell's left edge
    own = torch.full((CELLS + 1,), 2.0)
    for border in borders:
        own[torch.bucketize(border, edges) - 1] = border
    return torch.stack([own, code[below], code[(below + 1).clamp(max=15)]], 1).contiguous().to(device)


def _e4m3(values: torch.Tensor) -> None:
    """Each value, of at most 448, to the nearest e4m3 number, ties to even, in place.

    Adding 1.5 · 2^(e + 20), e the value's exponent but at least −6, leaves float32 no digits below 2^(e − 3), which are
    those that e4m3 has none for. torch's own conversion is one by one on a CPU, and missing on some devices.
    """
    import torch

    exponent = (values.view(torch.int32) & 0x7F800000).clamp_(min=(127 - 6) << 23).add_(20 << 23)
    more = exponent.view(torch.float32).mul_(1.5)
    values.add_(more).sub_(more)


def _fp8(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    scale = _held(_absmax(rows) / LARGEST, dtype)
    _e4m3(rows.div_(scale[:, None]).clamp_(-LARGEST, LARGEST))
    return scale


def _fp8_block(rows: torch.Tensor, dtype: torch.dtype) -> None:  # noqa: ARG001  its scales are float32
    import torch

    high, wide = (n // FP8_BLOCK * FP8_BLOCK for n in rows.shape)
    for band in (rows[:high], rows[high:]):  # the last blocks are cut off
        for part in (band[:, :wide], band[:, wide:]):
            if part.numel() == 0:
                continue
            height, width = (min(n, FP8_BLOCK) for n in part.shape)
            blocks = torch.unflatten(
                torch.unflatten(part, 1, (-1, width)), 0, (-1, height)
            )  # [high, height, wide, width]
            scale = _held(_absmax(blocks).amax(dim=1) / LARGEST, torch.float32)[:, None, :, None]
            _e4m3(blocks.div_(scale).clamp_(-LARGEST, LARGEST))
            blocks.mul_(scale)


def _in_row(rows: int, columns: int) -> int:  # noqa: ARG001
    return columns


def _in_groups(columns: int) -> bool:
    return columns % GROUP == 0


#: execution.weights → how rows are rounded.
GRIDS: Mapping[str, Grid] = {
    "int8": Grid("int8, a scale per row", _int8, 8, None, _in_row),
    "int8_bnb": Grid("int8 as bitsandbytes has it, a factor per row", _int8_bnb, 8, 32, _in_row),
    "int4_g128": Grid(
        "int4 with zero points, groups of 128", _int4, 4, 16 + 4, lambda rows, columns: GROUP, fits=_in_groups
    ),
    "int4_sym_g128": Grid(
        "int4 symmetric, groups of 128", _int4_sym, 4, 16, lambda rows, columns: GROUP, fits=_in_groups
    ),
    "nf4": Grid(
        "nf4, blocks of 64", _nf4, 4, 32, lambda rows, columns: NF4_BLOCK,
        step=lambda columns: NF4_BLOCK // math.gcd(columns, NF4_BLOCK),
    ),
    "fp8": Grid("fp8 (e4m3), a scale per row", _fp8, 8, None, _in_row),
    "fp8_block": Grid(
        "fp8 (e4m3), blocks of 128 × 128", _fp8_block, 8, 32,
        lambda rows, columns: min(rows, FP8_BLOCK) * min(columns, FP8_BLOCK), step=lambda columns: FP8_BLOCK,
    ),
}  # fmt: skip
