"""A dense matrix → the tensors of each storage format, by rounding to the nearest, and what those tensors are worth.

The other side of the dequantisers: nothing here reads `pairprobe.checkpoints.formats`, so that one can be tested
against the other. `dequantised` never unpacks: it is what the integers were worth before they were packed.
Everything is slow and plain; it is meant for small matrices.

    parts = quantise(weight, "awq", group=32)          # {'qweight': …, 'qzeros': …, 'scales': …}
    worth = dequantised(weight, "awq", group=32)       # float32 [out, in]
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pairprobe.errors import ConfigError

if TYPE_CHECKING:
    import torch

#: The 16 values of 4-bit NormalFloat, as bitsandbytes has them (Dettmers et al. 2023, appendix E).
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
#: format → (columns that share a scale, what people call it). None: scales by row or block, or none at all.
FORMATS: dict[str, tuple[int | None, str]] = {
    "int8": (None, "compressed-tensors int-quantized: int8, a scale for each row, activations int8 per token"),
    "int4": (128, "compressed-tensors pack-quantized: W4A16"),
    "awq": (128, "AWQ GEMM, 4 bit with zero points"),
    "gptq": (128, "GPTQ, 4 bit symmetric, checkpoint format v1"),
    "fp8": (None, "compressed-tensors float-quantized: e4m3, a scale for each row, activations fp8 per token"),
    "fp8_block": (None, "fp8 e4m3, a scale for each block of 128 x 128"),
    "nf4": (None, "bitsandbytes NF4 with nested scales"),
    "bnb8": (None, "bitsandbytes int8"),
    "mlx4": (64, "MLX, 4 bit affine"),
    "mlx8": (64, "MLX, 8 bit affine"),
    "bf16": (None, "bfloat16"),
    "fp16": (None, "float16"),
    "fp32": (None, "float32"),
}
DENSE = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
#: nibble k of an AWQ word holds output column AWQ_ORDER[k] of its eight
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
BLOCK = 128  # fp8_block
NF4_BLOCK, NF4_NESTED = 64, 256


@dataclass(frozen=True)
class Encoded:
    """parts: tensor name after the module's path → tensor. values: what they are worth, float32 [out, in]."""

    parts: dict[str, torch.Tensor]
    values: torch.Tensor


def quantise(weight: torch.Tensor, format: str, *, group: int | None = None, **options: Any) -> dict[str, torch.Tensor]:
    """The tensors that store `weight` [out, in] float32 in `format` (a key of FORMATS), by name after the module's.

    Args:
        group: columns that share a scale; None for the format's usual number. -1: all of them.
        options: gptq: act_order=True deals columns to groups as `desc_act` does; v2=True stores zero points plain;
            symmetric=False gives each group its own zero point.
            nf4: nested=False stores plain float32 scales; dtype names the dtype it was made from.
            scales: torch dtype of the scales, where a format leaves that open (int8, int4, fp8, mlx4, mlx8).

    Raises:
        ConfigError: no such format, or the matrix does not divide into its groups or words.
    """
    return encode(weight, format, group=group, **options).parts


def dequantised(weight: torch.Tensor, format: str, *, group: int | None = None, **options: Any) -> torch.Tensor:
    """float32 [out, in]: what `quantise` of the same arguments stands for."""
    return encode(weight, format, group=group, **options).values


def encode(weight: torch.Tensor, format: str, *, group: int | None = None, **options: Any) -> Encoded:
    """Both of them; arguments and errors are those of `quantise`."""
    import torch

    if format not in FORMATS:
        raise ConfigError(f"format={format}: there is no such format.", f"There are {', '.join(FORMATS)}.")
    if weight.ndim != 2 or weight.dtype != torch.float32:
        raise ConfigError(f"A float32 matrix is needed, not {weight.dtype} {list(weight.shape)}.")
    group = FORMATS[format][0] if group is None else group
    group = weight.shape[1] if group == -1 else group
    if FORMATS[format][0] is not None and (not group or group < 1 or weight.shape[1] % group):
        raise ConfigError(f"{format}: {weight.shape[1]} columns do not divide into groups of {group}.")
    if format in DENSE:
        stored = weight.to(getattr(torch, DENSE[format]))
        return Encoded({"weight": stored}, stored.float())
    makers = {"int8": _int8, "fp8": _fp8, "fp8_block": _fp8_block, "bnb8": _bnb8, "nf4": _nf4}
    if format in makers:
        return makers[format](weight, **options)
    if format in ("mlx4", "mlx8"):
        return _mlx(weight, group or 0, 4 if format == "mlx4" else 8, **options)
    return {"awq": _awq, "gptq": _gptq, "int4": _int4}[format](weight, group or 0, **options)


# ── one scale for each row or block ──────────────────────────────────────────────────────────────────────


def _scale_of(peak: torch.Tensor, largest: float, dtype: torch.dtype) -> torch.Tensor:
    """peak / largest in `dtype`, as float32: the rounding a file does is done before the integers are chosen."""
    import torch

    scale = (peak / largest).to(dtype).float()
    return torch.where(scale > 0, scale, torch.ones_like(scale)).to(dtype).float()


def _int8(weight: torch.Tensor, scales: torch.dtype | None = None) -> Encoded:
    import torch

    dtype = scales or torch.bfloat16
    scale = _scale_of(weight.abs().amax(1, keepdim=True), 127.5, dtype)
    q = torch.round(weight / scale).clamp(-128, 127)
    return Encoded({"weight": q.to(torch.int8), "weight_scale": scale.to(dtype)}, q * scale)


def _fp8(weight: torch.Tensor, scales: torch.dtype | None = None) -> Encoded:
    import torch

    dtype = scales or torch.bfloat16
    scale = _scale_of(weight.abs().amax(1, keepdim=True), 448.0, dtype)
    q = (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    return Encoded({"weight": q, "weight_scale": scale.to(dtype)}, q.float() * scale)


def _fp8_block(weight: torch.Tensor, scales: torch.dtype | None = None) -> Encoded:
    import torch

    dtype = scales or torch.float32
    high, wide = (-(-n // BLOCK) for n in weight.shape)
    scale = torch.empty(high, wide)
    q = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    values = torch.empty_like(weight)
    for i in range(high):
        for j in range(wide):
            at = slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK)
            scale[i, j] = _scale_of(weight[at].abs().amax(), 448.0, dtype)
            q[at] = (weight[at] / scale[i, j]).clamp(-448, 448).to(torch.float8_e4m3fn)
            values[at] = q[at].float() * scale[i, j]
    return Encoded({"weight": q, "weight_scale_inv": scale.to(dtype)}, values)


def _bnb8(weight: torch.Tensor) -> Encoded:
    import torch

    peak = _scale_of(weight.abs().amax(1, keepdim=True), 1.0, torch.float32)
    q = torch.round(weight / peak * 127).clamp(-127, 127)
    parts = {"weight": q.to(torch.int8), "SCB": peak[:, 0], "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return Encoded(parts, q * peak / 127)


# ── 4-bit NormalFloat ────────────────────────────────────────────────────────────────────────────────────


def nested_map() -> list[float]:
    """The 256 values of bitsandbytes' 8-bit dynamic map: 7 decades, the bits one does not need for the decade
    spent on its fraction, both signs; 0 and 1.
    """
    values = [0.0, 1.0]
    for decade in range(7):
        steps = 2**decade
        edges = [0.1 + 0.9 * n / steps for n in range(steps + 1)]
        for low, high in itertools.pairwise(edges):
            value = 10.0 ** (decade - 6) * (low + high) / 2
            values += [value, -value]
    return sorted(values)


def _nearest(values: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """Index of the nearest entry of `code` (rising) for each of `values`."""
    import torch

    middles = (code[1:] + code[:-1]) / 2
    return torch.bucketize(values, middles)


def _nf4(weight: torch.Tensor, nested: bool = True, dtype: str = "bfloat16") -> Encoded:
    import torch

    code = torch.tensor(NF4)
    flat = weight.reshape(-1)
    blocks = -(-flat.numel() // NF4_BLOCK)
    padded = torch.zeros(blocks * NF4_BLOCK)
    padded[: flat.numel()] = flat
    padded = padded.view(blocks, NF4_BLOCK)
    absmax = padded.abs().amax(1)
    parts: dict[str, torch.Tensor] = {"weight.quant_map": code}
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": NF4_BLOCK, "dtype": dtype, "shape": list(weight.shape)}
    worth = absmax  # each block's scale as the file gives it back
    if nested:
        offset = float(absmax.mean())
        outer = -(-blocks // NF4_NESTED)
        rest = torch.zeros(outer * NF4_NESTED)
        rest[:blocks] = absmax - offset
        rest = rest.view(outer, NF4_NESTED)
        peak = rest.abs().amax(1)
        map8 = torch.tensor(nested_map())
        q8 = _nearest(rest / peak.clamp(min=1e-12)[:, None], map8)
        worth = (map8[q8] * peak[:, None]).view(-1)[:blocks] + offset
        parts |= {"weight.absmax": q8.view(-1)[:blocks].to(torch.uint8), "weight.nested_absmax": peak}
        parts["weight.nested_quant_map"] = map8
        state |= {"nested_blocksize": NF4_NESTED, "nested_dtype": "float32", "nested_offset": offset}
    else:
        parts["weight.absmax"] = absmax
    q = _nearest(padded / torch.where(absmax > 0, absmax, torch.ones(()))[:, None], code)
    values = (code[q] * worth[:, None]).view(-1)[: flat.numel()].view(weight.shape)
    q = q.view(-1)[: flat.numel()]
    if q.numel() % 2:
        q = torch.cat((q, q.new_zeros(1)))
    parts["weight"] = (q[0::2] * 16 + q[1::2]).to(torch.uint8)[:, None]  # the first of two is the high nibble
    raw = json.dumps(state).encode()
    parts["weight.quant_state.bitsandbytes__nf4"] = torch.tensor(list(raw), dtype=torch.uint8)
    return Encoded(parts, values)


# ── groups of columns, integers packed into words ────────────────────────────────────────────────────────


def _pack(q: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned integers [..., n] of `bits` → int32 [..., n · bits / 32], the first in the lowest bits."""
    import torch

    per = 32 // bits
    if q.shape[-1] % per:
        raise ConfigError(f"{q.shape[-1]} integers of {bits} bits do not fill whole 32-bit words.")
    words = torch.zeros(*q.shape[:-1], q.shape[-1] // per, dtype=torch.int64)
    for k in range(per):
        words += q[..., k::per].long() << (bits * k)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def _grouped(weight: torch.Tensor, group: int) -> torch.Tensor:
    return weight.view(weight.shape[0], -1, group)  # [out, groups, group]


def _int4(weight: torch.Tensor, group: int, scales: torch.dtype | None = None) -> Encoded:
    import torch

    dtype = scales or torch.bfloat16
    own = _grouped(weight, group)
    scale = _scale_of(own.abs().amax(2), 7.5, dtype)  # [out, groups]
    q = torch.round(own / scale[..., None]).clamp(-8, 7)
    flat = q.view(weight.shape)
    words = -(-flat.shape[1] // 8) * 8  # the last word of a row may be part empty
    unsigned = torch.zeros(len(flat), words)
    unsigned[:, : flat.shape[1]] = flat + 8
    parts = {"weight_packed": _pack(unsigned, 4), "weight_scale": scale.to(dtype)}
    parts["weight_shape"] = torch.tensor(weight.shape, dtype=torch.int64)
    return Encoded(parts, (q * scale[..., None]).view(weight.shape))


def _awq(weight: torch.Tensor, group: int) -> Encoded:
    import torch

    own = _grouped(weight, group)
    low, high = own.amin(2).clamp(max=0), own.amax(2).clamp(min=0)
    scale = _scale_of(high - low, 15.0, torch.float16)
    zero = torch.round(-low / scale).clamp(0, 15)  # [out, groups]
    q = (torch.round(own / scale[..., None]) + zero[..., None]).clamp(0, 15)
    values = ((q - zero[..., None]) * scale[..., None]).view(weight.shape)

    def packed(columns: torch.Tensor) -> torch.Tensor:  # [rows, out] → [rows, out / 8]
        if columns.shape[1] % 8:
            raise ConfigError(f"awq: {columns.shape[1]} output columns are not a multiple of 8.")
        eights = columns.view(len(columns), -1, 8)[:, :, list(AWQ_ORDER)]
        return _pack(eights.reshape(columns.shape), 4)

    parts = {"qweight": packed(q.view(weight.shape).T.contiguous()), "qzeros": packed(zero.T.contiguous())}
    parts["scales"] = scale.T.contiguous().to(torch.float16)
    return Encoded(parts, values)


def _gptq(
    weight: torch.Tensor,
    group: int,
    act_order: bool = False,
    v2: bool = False,
    symmetric: bool = True,
    seed: int = 0,
) -> Encoded:
    import torch

    columns = weight.shape[1]
    g_idx = torch.arange(columns) // group
    if act_order:
        g_idx = g_idx[torch.randperm(columns, generator=torch.Generator().manual_seed(seed))]
    scale = torch.empty(weight.shape[0], columns // group)
    zero = torch.full_like(scale, 8.0)
    for g in range(columns // group):
        own = weight[:, g_idx == g]
        if symmetric:
            scale[:, g] = _scale_of(own.abs().amax(1), 7.5, torch.float16)
            continue
        low, high = own.amin(1).clamp(max=0), own.amax(1).clamp(min=0)
        scale[:, g] = _scale_of(high - low, 15.0, torch.float16)
        zero[:, g] = torch.round(-low / scale[:, g]).clamp(1, 15)  # version 1 cannot store a zero point of 0
    q = (torch.round(weight / scale[:, g_idx]) + zero[:, g_idx]).clamp(0, 15)
    values = (q - zero[:, g_idx]) * scale[:, g_idx]
    parts = {
        "qweight": _pack(q, 4).T.contiguous(),  # [in / 8, out]: eight rows of the transposed matrix in a word
        "qzeros": _pack((zero if v2 else zero - 1).T.contiguous(), 4),  # version 1 stores one less
        "scales": scale.T.contiguous().to(torch.float16),
        "g_idx": g_idx.to(torch.int32),
    }
    return Encoded(parts, values)


def _mlx(weight: torch.Tensor, group: int, bits: int, scales: torch.dtype | None = None) -> Encoded:
    import torch

    dtype = scales or torch.float16
    own = _grouped(weight, group)
    low, high = own.amin(2), own.amax(2)
    scale = _scale_of(high - low, float(2**bits - 1), dtype)
    bias = low.to(dtype).float()
    q = torch.round((own - bias[..., None]) / scale[..., None]).clamp(0, 2**bits - 1)
    values = (q * scale[..., None] + bias[..., None]).view(weight.shape)
    words = _pack(q.view(weight.shape), bits).view(torch.uint32)
    return Encoded({"weight": words, "scales": scale.to(dtype), "biases": bias.to(dtype)}, values)
