"""GGUF's blocks: Q8_0, Q4_K and the like, each row of a matrix a run of blocks with scales of their own.

Source: llama.cpp, ggml/src/ggml-common.h (the structs) and ggml-quants.c (`dequantize_row_*`). A block is 32 or 256
weights; scales are fp16, and in the K types each of 8 or 16 sub-blocks has a small integer scale (and minimum) besides.
Arithmetic is float32 in ggml's own order, so that values are ggml's to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pairprobe.checkpoints.headers import FLOATS, Tensor
from pairprobe.checkpoints.weight import Weight
from pairprobe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

#: GGML's type number → its name, weights in a block, bytes of a block. Numbers that are missing were withdrawn.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
#: Name → (weights in a block, bytes of a block).
SIZES = {name: (weights, nbytes) for name, weights, nbytes in TYPES.values()}

#: The sixteen values of the IQ4 types (kvalues_iq4nl).
NON_LINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
#: Weights made dense at a time on a CPU: temporaries stay in its cache and are small enough to be used again.
PIECE = 2**18


@dataclass(frozen=True)
class GgufTensor(Tensor):
    """A tensor of a GGUF file: block types have the shape [out, bytes of a row], so that rows can be read.

    heads: 0, or the number of heads whose rows llama.cpp's conversion interleaved for its own rotary embedding.
    added: what the conversion added to each value (Gemma's norms: 1).
    """

    heads: int = 0
    added: float = 0.0


def recognise(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Weight | None:  # noqa: ARG001
    """See `weight.Format`: any 'weight' of a block type, and floats that a GGUF conversion changed."""
    tensor = tensors.get("weight")
    if tensor is None:
        return None
    heads, added = (tensor.heads, tensor.added) if isinstance(tensor, GgufTensor) else (0, 0.0)
    if tensor.dtype in FLOATS:
        if not heads and not added:
            return None  # dense as it is
        _check_heads(module, tensor.shape[0], heads)
        kind = InterleavedFloats if heads else Floats
        return kind(shape=tensor.shape, parts={"weight": tensor}, heads=heads, added=added)
    if tensor.dtype not in SIZES or SIZES[tensor.dtype][0] == 1:
        return None
    if tensor.dtype not in DEQUANTISERS:
        raise CheckpointError(
            f"{module}.weight is stored as {tensor.dtype}; GGUF types that are read: {', '.join(READ)}.",
            "Take another quantisation of this model, such as Q4_K_M or Q8_0.",
        )
    weights, nbytes = SIZES[tensor.dtype]
    if len(tensor.shape) != 2 or tensor.shape[1] % nbytes or added:
        raise CheckpointError(
            f"{module}.weight: {tensor.dtype} {list(tensor.shape)} is no matrix of blocks of {nbytes} bytes."
        )
    _check_heads(module, tensor.shape[0], heads)
    shape = (tensor.shape[0], tensor.shape[1] // nbytes * weights)
    kind_of_blocks = InterleavedBlocks if heads else Blocks
    return kind_of_blocks(
        shape=shape, parts={"weight": tensor}, heads=heads, type=tensor.dtype, format=f"GGUF {tensor.dtype}"
    )


def _check_heads(module: str, rows: int, heads: int) -> None:
    if heads and rows % (2 * heads):
        raise CheckpointError(f"{module}.weight: {rows} rows are no even number for each of {heads} heads.")


def interleaved(rows: int, heads: int, start: int, stop: int, device: torch.device) -> torch.Tensor:
    """Where rows `start` … `stop` of the model's matrix lie in one whose heads llama.cpp interleaved; int64.

    The conversion writes each head's two halves (x, y), which Hugging Face rotates against each other, as
    x0 y0 x1 y1 …: row i of half h lies at 2 i + h.
    """
    import torch

    row = torch.arange(start, stop, device=device)
    size = rows // heads
    head, within = row // size, row % size
    half, i = within // (size // 2), within % (size // 2)
    return head * size + 2 * i + half


@dataclass(frozen=True, kw_only=True)
class Blocks(Weight):
    """Rows of GGML blocks. type: GGML's name."""

    type: str
    heads: int = 0

    by_row: ClassVar[bool] = True

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> None:
        """See `Weight.rows`."""
        data = parts["weight"]
        chosen = data[start:stop]
        if self.heads:
            chosen = data[interleaved(self.shape[0], self.heads, start, stop, data.device)]
        weights, nbytes = SIZES[self.type]
        columns = chosen.shape[1] // nbytes * weights
        piece = max(1, PIECE // max(1, columns)) if data.device.type == "cpu" else max(1, len(chosen))
        for n in range(0, len(chosen), piece):
            blocks = chosen[n : n + piece].reshape(-1, nbytes)
            out[n : n + piece].copy_(DEQUANTISERS[self.type](blocks).reshape(-1, columns))


@dataclass(frozen=True, kw_only=True)
class InterleavedBlocks(Blocks):
    """Rows of blocks in another order than the model's: some rows of it alone are not those that were asked for."""

    by_row: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class Floats(Weight):
    """Floating-point values to which the conversion added something. `added` is taken off in float32."""

    heads: int = 0
    added: float = 0.0

    dense: ClassVar[bool] = True
    by_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        names = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
        object.__setattr__(self, "format", names[self.parts["weight"].dtype])

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> None:
        """See `Weight.rows`."""
        data = parts["weight"]
        if self.heads:
            chosen = data[interleaved(self.shape[0], self.heads, start, stop, data.device)]
        else:
            chosen = data[start:stop]
        out.copy_(chosen.float() - self.added if self.added else chosen)


@dataclass(frozen=True, kw_only=True)
class InterleavedFloats(Floats):
    """Floating-point rows in another order than the model's."""

    by_row: ClassVar[bool] = False


# ── one function a type: blocks uint8 [n, bytes] → float32 [n, weights] ──────────────────────────────────────


def _half(data: torch.Tensor) -> torch.Tensor:
    """Two bytes [n, 2] → float32 [n, 1]. Copied, because fp16 must begin at an even address."""
    import torch

    return data.clone(memory_format=torch.contiguous_format).view(torch.float16).float()


def _signed(data: torch.Tensor) -> torch.Tensor:
    """Bytes as int8, in float32."""
    import torch

    return data.contiguous().view(torch.int8).float()


def _nibbles(data: torch.Tensor) -> torch.Tensor:
    """[…, n] → […, 2 n]: all low nibbles, then all high ones."""
    import torch

    return torch.cat((data & 15, data >> 4), dim=-1)


def _bits(data: torch.Tensor, width: int) -> torch.Tensor:
    """[…, n] → […, 8 / width, n]: the lowest `width` bits of all bytes, then the next."""
    import torch

    return torch.stack([(data >> shift) & (2**width - 1) for shift in range(0, 8, width)], dim=-2)


def _fifth(data: torch.Tensor) -> torch.Tensor:
    """Four bytes, whose bit i is the fifth of weight i → [n, 32], 0 or 16."""
    import torch

    return torch.stack([(data >> bit) & 1 for bit in range(8)], dim=-1).flatten(1) << 4


def q4_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b[:, :2]) * (_nibbles(b[:, 2:]).float() - 8)


def q4_1(b: torch.Tensor) -> torch.Tensor:
    return _half(b[:, :2]) * _nibbles(b[:, 4:]).float() + _half(b[:, 2:4])


def q5_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b[:, :2]) * ((_nibbles(b[:, 6:]) | _fifth(b[:, 2:6])).float() - 16)


def q5_1(b: torch.Tensor) -> torch.Tensor:
    return _half(b[:, :2]) * (_nibbles(b[:, 8:]) | _fifth(b[:, 4:8])).float() + _half(b[:, 2:4])


def q8_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b[:, :2]) * _signed(b[:, 2:])


def iq4_nl(b: torch.Tensor) -> torch.Tensor:
    return _half(b[:, :2]) * _non_linear(_nibbles(b[:, 2:]))


def iq4_xs(b: torch.Tensor) -> torch.Tensor:
    low = _bits(b[:, 4:8], 4).transpose(1, 2).flatten(1)  # sub-block 2 i in the low nibble of byte i
    high = _bits(b[:, 2:4], 2).transpose(1, 2).flatten(1)
    scale = _half(b[:, :2]) * ((low | high << 4).float() - 32)  # [n, 8]
    return (scale[:, :, None] * _non_linear(_nibbles(b[:, 8:].reshape(-1, 8, 16)))).flatten(1)


def q2_k(b: torch.Tensor) -> torch.Tensor:
    scale = _half(b[:, 80:82]) * (b[:, :16] & 15).float()  # [n, 16], for 16 weights each
    least = _half(b[:, 82:84]) * (b[:, :16] >> 4).float()
    q = _bits(b[:, 16:80].reshape(-1, 2, 32), 2).reshape(-1, 16, 16).float()
    return (scale[:, :, None] * q - least[:, :, None]).flatten(1)


def q3_k(b: torch.Tensor) -> torch.Tensor:
    low = _nibbles(b[:, 96:104])
    high = _bits(b[:, 104:108], 2).flatten(1)
    scale = _half(b[:, 108:110]) * ((low | high << 4).float() - 32)  # [n, 16]
    q = _bits(b[:, 32:96].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    third = _bits(b[:, :32], 1).reshape(-1, 16, 16)  # bit j of byte i: weight 32 j + i
    return (scale[:, :, None] * ((q | third << 2).float() - 4)).flatten(1)


def q4_k(b: torch.Tensor) -> torch.Tensor:
    scale, least = _scales_and_minima(b)
    q = _nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32).float()
    return (scale[:, :, None] * q - least[:, :, None]).flatten(1)


def q5_k(b: torch.Tensor) -> torch.Tensor:
    scale, least = _scales_and_minima(b)
    q = _nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32) | _bits(b[:, 16:48], 1) << 4
    return (scale[:, :, None] * q.float() - least[:, :, None]).flatten(1)


def q6_k(b: torch.Tensor) -> torch.Tensor:
    low = _bits(b[:, :128].reshape(-1, 2, 64), 4).reshape(-1, 2, 4, 32)
    high = _bits(b[:, 128:192].reshape(-1, 2, 32), 2)
    scale = _half(b[:, 208:]) * _signed(b[:, 192:208])  # [n, 16], for 16 weights each
    return (scale[:, :, None] * ((low | high << 4).reshape(-1, 16, 16).float() - 32)).flatten(1)


def _scales_and_minima(b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of Q4_K and Q5_K: float32 [n, 8] each. Eight scales and eight minima of six bits lie in twelve bytes."""
    import torch

    first, second, third = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scale = torch.cat((first & 63, third & 15 | (first >> 6) << 4), dim=1)
    least = torch.cat((second & 63, third >> 4 | (second >> 6) << 4), dim=1)
    return _half(b[:, :2]) * scale.float(), _half(b[:, 2:4]) * least.float()


def _non_linear(nibbles: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.tensor(NON_LINEAR, dtype=torch.float32, device=nibbles.device)[nibbles.int()]


DEQUANTISERS = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k,
    "Q5_K": q5_k, "Q6_K": q6_k, "IQ4_NL": iq4_nl, "IQ4_XS": iq4_xs,
}  # fmt: skip
#: GGML types from which weights are made.
READ = ("F32", "F16", "BF16", *DEQUANTISERS)
