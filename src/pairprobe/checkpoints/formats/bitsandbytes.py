"""bitsandbytes: nf4 and fp4 in blocks over the flattened weight, and int8 by rows (LLM.int8).

4 bit: weight, two codes a byte, the first in the high bits; weight.quant_map [16], what a code stands for, which is
nf4's or fp4's table; weight.absmax, a factor for each block of weights, itself in 8 bits where nested (quant_map of 256
values, factors of its own blocks, an offset). weight.quant_state.bitsandbytes__nf4 | fp4: shape, block sizes as JSON.
8 bit: weight I8 [out, in], SCB F32 [out], W = q · SCB / 127.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pairprobe.checkpoints import packing, reading
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.weight import Weight
from pairprobe.errors import CheckpointError
from pairprobe.rooms import NF4

if TYPE_CHECKING:
    import torch

STATE = "weight.quant_state.bitsandbytes__"
LARGEST_STATE = 65536  # bytes of JSON; they are about 100
#: What the sixteen codes stand for: NormalFloat4, and bitsandbytes' FP4.
TABLES = {
    "nf4": NF4,
    "fp4": tuple(sign * n / 192 for sign in (1, -1) for n in (0, 1, 128, 192, 64, 96, 32, 48)),
}
ROUNDED = 2**-8  # of a value: what a table may differ by that was stored in bfloat16 once
AGAIN = "Download this file again; if it stays so, take another conversion of this model."


def recognise(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Weight | None:  # noqa: ARG001
    if "weight" in tensors and "SCB" in tensors:
        return _int8(module, tensors)
    states = [name for name in tensors if name.startswith(STATE)]
    if states:
        return _four_bit(module, tensors, states)
    if "weight.absmax" in tensors:
        raise CheckpointError(f"{module}: has a weight.absmax, but no {STATE}nf4 or …fp4 that says its shape.")
    return None


def _int8(module: str, tensors: Mapping[str, Tensor]) -> Weight:
    weight, factors = tensors["weight"], tensors["SCB"]
    if weight.dtype != "I8" or len(weight.shape) != 2 or factors.dtype != "F32" or factors.shape != weight.shape[:1]:
        raise CheckpointError(
            f"{module}: weight is {weight.dtype} {list(weight.shape)} and SCB {factors.dtype} {list(factors.shape)}; "
            "allowed: I8 [out, in] and F32 [out]."
        )
    order = tensors.get("weight_format")
    if order is not None and order.nbytes and (code := int(reading.whole(order).flatten()[0])):
        raise CheckpointError(
            f"{module}.weight_format is {code}, an order made for one kind of GPU; allowed: 0, rows.",
            "Save it again with bitsandbytes 0.45 or later, which writes rows.",
        )
    return Int8(shape=weight.shape, parts={"weight": weight, "SCB": factors}, format="bitsandbytes int8")


def _four_bit(module: str, tensors: Mapping[str, Tensor], states: list[str]) -> Weight:
    name = states[0]
    if len(states) > 1 or tensors[name].nbytes > LARGEST_STATE:
        raise CheckpointError(f"{module}: {', '.join(states)}: allowed: one, of at most {LARGEST_STATE} bytes.")
    try:
        state = json.loads(reading.whole(tensors[name]).numpy().tobytes())
        kind, block, shape = str(state["quant_type"]), state["blocksize"], tuple(state["shape"])
        nested = "weight.nested_absmax" in tensors
        outer = state["nested_blocksize"] if nested else 1
        offset = float(state["nested_offset"]) if nested else 0.0
        if not all(isinstance(n, int) and n > 0 for n in (block, outer, *shape)) or not shape or block % 2:
            raise ValueError
    except (KeyError, TypeError, ValueError):  # what is no JSON or no text raises a ValueError, too
        raise CheckpointError(f"{module}.{name} cannot be read.", "Download this checkpoint again.") from None
    if kind not in TABLES:
        raise CheckpointError(f"{module}.{name} says quant_type '{kind}'; allowed: {', '.join(TABLES)}.", AGAIN)
    needed = ["absmax", "quant_map", *(["nested_absmax", "nested_quant_map"] if nested else [])]
    missing = [f"weight.{n}" for n in needed if f"weight.{n}" not in tensors]
    missing += ["weight"] if "weight" not in tensors else []
    if missing:
        raise CheckpointError(f"{module}: stored in {kind}, but there is no {' and no '.join(missing)}.")
    parts = {"weight": tensors["weight"], **{n: tensors[f"weight.{n}"] for n in needed}, "quant_state": tensors[name]}
    count = math.prod(shape)
    blocks = -(-count // block)
    due = {"absmax": blocks, "quant_map": 16, "nested_absmax": -(-blocks // outer), "nested_quant_map": 256}
    for role, values in due.items():
        dtypes = ("U8",) if nested and role == "absmax" else ("F32", "F16", "BF16") if role == "quant_map" else ("F32",)
        if role in parts and (parts[role].dtype not in dtypes or math.prod(parts[role].shape) != values):
            raise CheckpointError(
                f"{module}.weight.{role} is {parts[role].dtype} {list(parts[role].shape)}; allowed: "
                f"{' or '.join(dtypes)} [{values}] for a weight of {list(shape)} in blocks of {block}."
            )
    if not 0 <= 2 * parts["weight"].nbytes - count <= 7:  # what holds the codes may be wider than a byte
        raise CheckpointError(
            f"{module}.weight has {parts['weight'].nbytes} bytes; {list(shape)} in 4 bits are {-(-count // 2)}."
        )
    if parts["quant_map"].remote is None:  # of files on a server, as soon as they are here: each would be a request
        _check_table(module, parts["quant_map"], kind)
        if nested:
            _check_nested(module, parts["nested_quant_map"])
    across = math.prod(shape[1:])
    return FourBit(
        shape=shape,
        parts=parts,
        step=block // math.gcd(across, block),  # rows after which a block begins
        block=block,
        outer=outer,
        offset=offset,
        format=f"bitsandbytes {kind}, blocks of {block}" + (", nested" if nested else ""),
    )


def _check_table(module: str, stored: Tensor, kind: str) -> None:
    """Raise CheckpointError unless the table is that of its kind, to a rounding: every weight is made of its values."""
    found, due = reading.whole(stored).float().flatten().tolist(), TABLES[kind]
    wrong = [i for i in range(16) if not abs(found[i] - due[i]) <= ROUNDED * abs(due[i])]
    if wrong:
        i = wrong[0]
        raise CheckpointError(
            f"{module}.weight.quant_map in {stored.file.name} is not the table of {kind}: code {i} stands for "
            f"{found[i]:.4g} in it; {due[i]:.4g} was due.",
            AGAIN,
        )


def _check_nested(module: str, stored: Tensor) -> None:
    """Raise CheckpointError for a table of factors that says nothing: one value for all codes, or none at all."""
    found = reading.whole(stored).flatten()
    low, high = float(found.min()), float(found.max())
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise CheckpointError(
            f"{module}.weight.nested_quant_map in {stored.file.name} holds {low:.4g} to {high:.4g}; 256 different "
            "values from -1 to 1 were due.",
            AGAIN,
        )


@dataclass(frozen=True, kw_only=True)
class FourBit(Weight):
    """[out, in], flattened in blocks. block: weights that share a factor; outer: factors that share one of their own
    (nested), to which `offset` is added."""

    block: int
    outer: int
    offset: float

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> None:
        import torch

        across, block = math.prod(self.shape[1:]), self.block
        codes = parts["weight"].reshape(-1).view(torch.uint8)
        # What a byte stands for, both its codes at once: half as many look-ups.
        code = parts["quant_map"].float()
        pairs = torch.stack([code[:, None].expand(16, 16), code[None, :].expand(16, 16)], dim=-1).reshape(256, 2)
        several = self.step * packing.at_a_time(codes, self.step, across)
        for a in range(start, stop, several):
            b = min(a + several, stop)
            first, last = a * across, b * across
            values = torch.nn.functional.embedding(codes[first // 2 : -(-last // 2)].int(), pairs).flatten()
            blocks = self._factors(parts, first // block, -(-last // block))
            whole = len(values) // block
            torch.unflatten(values[: whole * block], 0, (whole, block)).mul_(blocks[:whole, None])
            values[whole * block :].mul_(blocks[whole:])  # the matrix's last block, where it is not full
            out[a - start : b - start] = values[: last - first].view(b - a, *self.shape[1:])

    def _factors(self, parts: Mapping[str, torch.Tensor], first: int, last: int) -> torch.Tensor:
        """The factors of blocks `first` … `last`, float32."""
        import torch

        absmax = parts["absmax"].reshape(-1)[first:last]
        if "nested_absmax" not in parts:
            return absmax
        own = torch.arange(first, last, device=absmax.device) // self.outer
        return parts["nested_quant_map"][absmax.int()] * parts["nested_absmax"][own] + self.offset


@dataclass(frozen=True, kw_only=True)
class Int8(Weight):
    """[out, in], a factor for each row."""

    by_row: ClassVar[bool] = True

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
        out.copy_(parts["weight"][start:stop])
        return self._factor(parts, start, stop)

    def integers(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        return parts["weight"][start:stop], self._factor(parts, start, stop)

    def _factor(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> torch.Tensor:
        return parts["SCB"][start:stop] / 127
