"""What a safetensors file says of itself: names, dtypes, shapes, places. No weight is read.

Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes end to end.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairprobe.checkpoints.remote import Remote, is_web_page
from pairprobe.errors import CheckpointError

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "C64": 64,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
#: Floating-point dtypes that are dense as they are.
FLOATS = ("F64", "F32", "F16", "BF16")
LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
LARGEST_RANK = 32  # dimensions; torch stops at 64, models at 5
AGAIN = "Download this file again."


@dataclass(frozen=True)
class Tensor:
    """One stored tensor. start: its first byte in the file; nbytes: its size there.

    remote: where its bytes are to be had, if not on this machine; `file` then only says how the file is called.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int = 0
    remote: Remote | None = None


def read_header(file: Path | Remote) -> tuple[dict[str, Tensor], bytes]:
    """The tensors a file holds, and the raw header.

    Raises:
        CheckpointError: the file is cut off, or its header does not agree with itself or with the file.
    """
    if isinstance(file, Remote):
        return _parse(Path(file.name), file, file.size, lambda start, size: file.read([(start, size)])[0])
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:

            def read(start: int, size: int) -> bytes:
                stream.seek(start)
                return stream.read(size)

            return _parse(file, None, size, read)
    except OSError as error:
        step = "Something else lies under the name of this file: remove it, and download the file again."
        if not file.is_dir():
            step = "Let this user read it, or download it again."
        raise CheckpointError(f"{file.name}: cannot be read ({error.strerror}).", step) from None


def _parse(
    file: Path, remote: Remote | None, size: int, read: Callable[[int, int], bytes]
) -> tuple[dict[str, Tensor], bytes]:
    start = read(0, min(8, size))
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
    if not 0 < length <= min(size - 8, LARGEST_HEADER):
        what, step = _instead(read(0, min(512, size)))
        raise CheckpointError(f"{file.name}: not a whole safetensors file ({size} bytes){what}.", step)
    raw = read(8, length)
    if len(raw) != length:  # cut off since its size was asked
        raise CheckpointError(f"{file.name}: not a whole safetensors file ({len(raw) + 8} bytes).", AGAIN)
    try:
        entries = json.loads(raw)
        if raw.count(b":") != _colons(entries):
            entries = json.loads(raw, object_pairs_hook=_once)  # slower, and tells of names that are there twice
    except _Twice as error:
        raise CheckpointError(f"{file.name}: its header names {error} twice.", AGAIN) from None
    except (ValueError, RecursionError):  # ValueError: not UTF-8, not JSON, integers of thousands of digits
        raise CheckpointError(f"{file.name}: its header is not JSON.", AGAIN) from None
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file.name}: its header is JSON, but no object.", AGAIN)
    said = entries.pop("__metadata__", None)
    if said is not None and not (isinstance(said, dict) and all(isinstance(v, str) for v in said.values())):
        raise CheckpointError(f"{file.name}: its header's __metadata__ is not text by name.", AGAIN)
    tensors = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        if not name.isprintable():
            raise CheckpointError(f"{file.name}: its header names a tensor {shown(name)}, which none can be.", AGAIN)
        try:
            dtype, shape, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
            for n in (*shape, begin, end):
                if type(n) is not int or not 0 <= n < 2**63:  # True is an int to Python, and no size to anybody
                    raise ValueError
            if begin > end or len(shape) > LARGEST_RANK or not isinstance(entry["shape"], list):
                raise ValueError
        except (KeyError, TypeError, ValueError, IndexError):
            said = shown(json.dumps(entry))
            raise CheckpointError(
                f"{file.name}: the header's entry for {shown(name)} is {said}; allowed: dtype, shape and data_offsets, "
                "sizes and places in whole numbers.",
                AGAIN,
            ) from None
        if dtype in BITS and 8 * (end - begin) != math.prod(shape) * BITS[dtype]:
            raise CheckpointError(
                f"{file.name}: {shown(name)} is said to be {dtype} {list(shape)}, but has {end - begin} bytes.", AGAIN
            )
        if 8 + length + end > size:
            raise CheckpointError(
                f"{file.name}: cut off. {shown(name)} ends at byte {8 + length + end}, the file at {size}.", AGAIN
            )
        tensors[name] = Tensor(file, dtype, shape, end - begin, 8 + length + begin, remote)
        places.append((begin, end, name))
    expected = 0
    for begin, end, name in sorted(places):
        if begin != expected:
            raise CheckpointError(
                f"{file.name}: {shown(name)} begins at byte {begin} of the data; {expected} was due, where the tensor "
                "before it ends.",
                AGAIN,
            )
        expected = end
    if 8 + length + expected != size:
        raise CheckpointError(
            f"{file.name}: {size - 8 - length - expected} bytes at its end belong to no tensor.", AGAIN
        )
    return tensors, raw


def shown(text: str) -> str:
    """A name from a file for one line of an error: unprintable characters escaped, not too long."""
    plain = text if text.isprintable() else ascii(text)
    return plain if len(plain) <= 200 else plain[:200] + "…"


def as_json(value: Any) -> str:
    """A value of a config as its file writes it, for one line of an error."""
    return shown(json.dumps(value, ensure_ascii=False))


def _instead(start: bytes) -> tuple[str, str]:
    """What a file that begins so is, and what to do."""
    if start.startswith(b"version https://git-lfs"):
        return ": a git-lfs pointer to the weights", "Get what it points to: git lfs pull"
    if is_web_page(start):
        return ": a web page saved under this name", "Log in, or accept the licence, and download this file again."
    if start.startswith(b"PK\x03\x04"):
        return ": a zip archive, as torch.save writes pickles", "Convert it to safetensors."
    return "", AGAIN


def _colons(entries: Any) -> int:
    """How many colons a header of these entries has, if each entry is whole, no name has a colon and none is there
    twice; any name more adds one."""
    if not isinstance(entries, dict):
        return 0
    said = entries.get("__metadata__")
    about = 1 + len(said) if isinstance(said, dict) else 0
    return about + 4 * (len(entries) - bool(about))


class _Twice(Exception):
    """A key that an object has twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice(shown(Counter(name for name, _ in pairs).most_common(1)[0][0]))
    return found
