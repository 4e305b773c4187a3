"""What a safetensors file says of itself: names, dtypes, shapes, places. No weight is read.

Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes end to end.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from pairprobe.errors import CheckpointError

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
LARGEST_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class Tensor:
    """One stored tensor. start: its first byte in the file; nbytes: its size there."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int = 0


def read_header(file: Path) -> tuple[dict[str, Tensor], bytes]:
    """The tensors a file holds, and the raw header.

    Raises:
        CheckpointError: the file is cut off, or its header does not agree with itself or with the file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 < length <= min(size - 8, LARGEST_HEADER):
            raise CheckpointError(
                f"{file.name}: not a whole safetensors file ({size} bytes).", "Download this file again."
            )
        raw = stream.read(length)
    try:
        entries = json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise CheckpointError(f"{file.name}: its header is not JSON.", "Download this file again.") from None
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file.name}: its header is JSON, but no object.", "Download this file again.")
    tensors = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
            if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)) or begin > end:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{file.name}: the header's entry for {name} is not readable.") from None
        if dtype in BITS and end - begin != math.prod(shape) * BITS[dtype] // 8:
            raise CheckpointError(
                f"{file.name}: {name} is said to be {dtype} {list(shape)}, but has {end - begin} bytes.",
                "Download this file again.",
            )
        if 8 + length + end > size:
            raise CheckpointError(
                f"{file.name}: cut off. {name} ends at byte {8 + length + end}, the file at {size}.",
                "Download this file again.",
            )
        tensors[name] = Tensor(file, dtype, shape, end - begin, 8 + length + begin)
        places.append((begin, end, name))
    expected = 0
    for begin, end, name in sorted(places):
        if begin != expected:
            raise CheckpointError(
                f"{file.name}: {name} begins at byte {begin} of the data; {expected} was due, where the tensor before "
                "it ends.",
                "Download this file again.",
            )
        expected = end
    if 8 + length + expected != size:
        raise CheckpointError(
            f"{file.name}: {size - 8 - length - expected} bytes at its end belong to no tensor.",
            "Download this file again.",
        )
    return tensors, raw
