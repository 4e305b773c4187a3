"""Small integers packed into words: their unpacking, and which layout a module's `qweight` is in.

Unpacking goes bytewise over a uint8 view of the words: five and more times as fast on a CPU as shifting 32-bit
words, at a byte a value, and the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pairprobe.checkpoints.headers import Tensor
from pairprobe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

#: Values unpacked at a time on a CPU, so that they stay in its cache; other devices take a tile at once.
CHUNK = 2**20
#: Of a packed word, nibble k holds output column AWQ_ORDER[k] (AutoAWQ's GEMM kernels).
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
GPTQ_BITS = (2, 3, 4, 8)
FACTORS = ("F16", "BF16", "F32")


def at_a_time(words: torch.Tensor, unit: int, width: int) -> int:
    """How many units of `unit` × `width` values to unpack at a time on the device of `words`, at least one."""
    return max(1, (CHUNK if words.device.type == "cpu" else 2**62) // max(1, unit * width))


def across(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Words […, n] of 32 bits → their first `count` values, uint8 […, count], the lowest bits first.

    Values follow each other without gaps: of 3, 5 or 6 bits some lie across two words.
    """
    import torch

    data = words.view(torch.uint8)
    if bits == 8:
        return data[..., :count]
    # The shortest run of whole bytes that holds whole values: 1 byte of 2 or 4 bits, 3 bytes of 3 or 6, …
    run = bits // math.gcd(bits, 8)
    data = torch.unflatten(data, -1, (-1, run))
    values = torch.empty(*data.shape[:-1], 8 * run // bits, dtype=torch.uint8, device=words.device)
    for k in range(values.shape[-1]):
        byte, shift = divmod(k * bits, 8)
        values[..., k] = _cut(data[..., byte], data[..., byte + 1] if shift + bits > 8 else None, shift, bits)
    return values.flatten(-2)[..., :count]


def down(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Words [n, columns] of 32 bits, packed down each column → uint8 [count, columns]."""
    import torch

    run = bits // math.gcd(bits, 32)  # words that hold whole values: 3 of 3 bits, else 1
    data = torch.unflatten(words.view(torch.uint8), -1, (-1, 4))
    data = torch.unflatten(data, 0, (-1, run))  # [runs, run, columns, 4]
    values = torch.empty(data.shape[0], 32 * run // bits, words.shape[1], dtype=torch.uint8, device=words.device)
    for k in range(values.shape[1]):
        byte, shift = divmod(k * bits, 8)
        after = data[:, (byte + 1) // 4, :, (byte + 1) % 4] if shift + bits > 8 else None
        values[:, k] = _cut(data[:, byte // 4, :, byte % 4], after, shift, bits)
    return values.flatten(0, 1)[:count]


def awq(words: torch.Tensor) -> torch.Tensor:
    """Words int32 [n, columns / 8] in AutoAWQ's GEMM order → uint8 [n, columns]."""
    import torch

    data = torch.unflatten(words.view(torch.uint8), -1, (-1, 4))
    values = torch.empty(*words.shape, 8, dtype=torch.uint8, device=words.device)
    low, high = data & 15, data >> 4
    for byte in range(4):
        values[..., AWQ_ORDER[2 * byte]] = low[..., byte]
        values[..., AWQ_ORDER[2 * byte + 1]] = high[..., byte]
    return values.flatten(-2)


def _cut(byte: torch.Tensor, after: torch.Tensor | None, shift: int, bits: int) -> torch.Tensor:
    """The `bits` bits from `shift` on of a byte, and of the byte after it where they go on there."""
    value = byte >> shift if shift else byte
    if after is not None:
        value = value | (after << (8 - shift))
    return value & (2**bits - 1) if after is not None or shift + bits < 8 else value


def layout(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> str | None:
    """'gptq' | 'awq' (its GEMM) | 'awq_gemv', as the shapes of `qweight`, `qzeros` and `scales` say.

    None without a `qweight`. Raises CheckpointError where there is one, but no layout that is known fits.
    """
    if "qweight" not in tensors:
        if {"B", "s"} <= tensors.keys() and tensors["B"].dtype == "I32":
            raise CheckpointError(
                f"{module}: its weight lies in Marlin's layout (B, s), made for one kind of GPU, which is not read.",
                "Take the same model's GPTQ checkpoint (checkpoint_format gptq).",
            )
        return None
    qweight = tensors["qweight"]
    if "scaled_zeros" in tensors or qweight.dtype == "I16":
        raise CheckpointError(
            f"{module}: its qweight is {qweight.dtype} {list(qweight.shape)} in AWQ's GEMV-fast layout, "
            "which is not read; AWQ is read as GEMM or GEMV.",
            "Take the same model's AWQ checkpoint of version gemm.",
        )
    missing = [n for n in ("scales", "qzeros") if n not in tensors]
    if missing:
        raise CheckpointError(f"{module}: has a qweight, but no {' and no '.join(missing)}.")
    scales, qzeros = tensors["scales"], tensors["qzeros"]
    for name, allowed in (("qweight", ("I32",)), ("qzeros", ("I32",)), ("scales", FACTORS)):
        found = tensors[name]
        if found.dtype not in allowed or len(found.shape) != 2 or 0 in found.shape:
            raise CheckpointError(
                f"{module}.{name} is {found.dtype} {list(found.shape)}; allowed: a matrix of {' or '.join(allowed)}."
            )
    fits = []
    if scales.shape[0] == qzeros.shape[0]:
        if qweight.shape[1] == scales.shape[1] and any(
            qzeros.shape[1] == words(scales.shape[1], bits) for bits in GPTQ_BITS
        ):
            fits.append("gptq")
        if (
            8 * qweight.shape[1] == 8 * qzeros.shape[1] == scales.shape[1]
            and qweight.shape[0] % scales.shape[0] == 0
            and qweight.shape[0] > scales.shape[0]
        ):
            fits.append("awq")
        if (
            qweight.shape[0] == scales.shape[0]
            and scales.shape[1] == 8 * qzeros.shape[1]
            and gemv_groups(8 * qweight.shape[1], qzeros.shape[1], quantisation.get("group_size"))
        ):
            fits.append("awq_gemv")
    if not fits:
        shapes = ", ".join(f"{n} {list(tensors[n].shape)}" for n in ("qweight", "scales", "qzeros"))
        raise CheckpointError(
            f"{module}: {shapes} fit together neither as AWQ (GEMM or GEMV, 4 bit) nor as GPTQ (2, 3, 4 or 8 bit)."
        )
    if len(fits) > 1:
        # GPTQ against GEMV: groups of 8 inputs against one word of zeros a row. Only what else is there can tell.
        told = "g_idx" in tensors or "gptq" in str(quantisation.get("quant_method"))
        return "gptq" if told else "awq_gemv"
    return fits[0]


def gemv_groups(width: int, zero_words: int, declared: Any) -> list[int]:
    """The group sizes with which rows of `width` have so many words of zero points in AWQ's GEMV layout.

    Only `declared` where that is one of them. The words are rounded up to 2 for groups of 64, to 4 for 32.
    """

    def fits(group: int) -> bool:
        multiple = {32: 4, 64: 2}.get(group, 1)
        return width % group == 0 and -(-(width // group) // (8 * multiple)) * multiple == zero_words

    if declared == -1:
        declared = width
    if isinstance(declared, int) and declared >= 32 and fits(declared):
        return [declared]
    return [group for group in sorted({32, 64, 128, width}) if group >= 32 and fits(group)]


def words(values: int, bits: int) -> int:
    """Words of 32 bits that hold so many values without gaps."""
    return -(-values * bits // 32)
