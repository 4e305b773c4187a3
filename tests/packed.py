"""What the tests of storage formats share: packing by Python's own big integers, headers, and a look from all sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.weight import Weight

NAMES = {
    torch.int32: "I32", torch.int64: "I64", torch.uint32: "U32", torch.uint8: "U8", torch.int8: "I8",
    torch.int16: "I16", torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
}  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def words(values: Sequence[int], bits: int) -> list[int]:
    """Values one after another, the first in the lowest bits, cut into signed 32-bit words; the last filled with 0."""
    whole = sum(int(value) << (bits * place) for place, value in enumerate(values))
    count = -(-len(values) * bits // 32)
    return np.frombuffer(whole.to_bytes(4 * count, "little"), dtype="<i4").tolist()


def int32(*rows: Sequence[int]) -> torch.Tensor:
    """Words given as they are written in hexadecimal, unsigned."""
    return torch.tensor([[w - 2**32 if w >= 2**31 else w for w in row] for row in rows], dtype=torch.int32)


def headers(tensors: Mapping[str, torch.Tensor], file: str = "model.safetensors") -> dict[str, Tensor]:
    """What a file's header says of these tensors."""
    return {name: Tensor(Path(file), NAMES[t.dtype], tuple(t.shape), t.nbytes) for name, t in tensors.items()}


def on_disk(tensors: Mapping[str, torch.Tensor], file: Path) -> dict[str, Tensor]:
    """The same for tensors whose bytes are asked for, end to end in `file`."""
    found, data = {}, b""
    for name, tensor in tensors.items():
        own = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        found[name] = Tensor(file, NAMES[tensor.dtype], tuple(tensor.shape), len(own), len(data))
        data += own
    file.write_bytes(data)
    return found


def dense(weight: Weight, parts: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The whole weight, factors of rows applied."""
    out = torch.full(weight.shape, torch.nan, dtype=dtype)
    factor = weight.rows(parts, 0, weight.shape[0], out)
    return out if factor is None else out.float() * factor[:, None]


def seen_from_all_sides(weight: Weight, parts: Mapping[str, torch.Tensor], expected: torch.Tensor) -> None:
    """`rows` gives `expected` [out, in] float32, rounded once, in every dtype, range of rows and kind of `out`."""
    assert weight.shape == tuple(expected.shape)
    assert set(weight.parts) == set(parts)
    rows, step = weight.shape[0], weight.step
    spans = {(0, rows), (0, min(step, rows)), ((rows - 1) // step * step, rows)}
    spans |= {(a, min(a + 2 * step, rows)) for a in range(step, rows, 3 * step)}
    for dtype in DTYPES:
        for start, stop in sorted(spans):
            due = expected[start:stop].to(dtype)
            n = stop - start
            plain = torch.full(due.shape, torch.nan, dtype=dtype)
            wide = torch.full((n + 1, *due.shape[1:-1], 2 * due.shape[-1] + 1), torch.nan, dtype=dtype)
            outs = [plain, wide[1:, ..., 1::2]]
            if due.ndim == 2:
                outs.append(torch.full((due.shape[1], n), torch.nan, dtype=dtype).t())
            for out in outs:
                assert weight.rows(parts, start, stop, out) is None
                assert torch.equal(out, due), (dtype, start, stop, out.stride())
            assert torch.isnan(wide[0]).all()
            assert torch.isnan(wide[1:, ..., ::2]).all()
