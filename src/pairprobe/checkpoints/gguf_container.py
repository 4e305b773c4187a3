"""One GGUF file's header: its metadata and its table of tensors, on this machine or behind a URL. No weight is read.

Format: 'GGUF', version, counts; key–value pairs; name, dimensions, type and offset of each tensor; from the next
multiple of general.alignment on, the data. Little-endian. Source: ggml, docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pairprobe.checkpoints.formats.gguf_blocks import READ, TYPES
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.remote import Remote
from pairprobe.errors import CheckpointError

AGAIN = "Download this file again."
#: Number of a metadata value's kind → struct's letter. 8 is a string, 9 an array.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
STEP = 2**22  # bytes of a remote header that are asked for at once: Llama 3's vocabulary and merges take 8 MB
LARGEST_HEADER = 2**26  # bytes; vocabularies of 262,000 pieces with their merges take a sixth of it


@dataclass(frozen=True)
class Container:
    """What one file says of itself. tensors: by GGUF's names, block types with the shape [out, bytes of a row].
    shapes: as the model has them. raw: all bytes before the data. pairs: where its table of tensors begins in them."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    raw: bytes
    pairs: int

    @property
    def without_tensors(self) -> bytes:
        """A GGUF file of the metadata alone: all that a tokenizer is made from."""
        return self.raw[:8] + struct.pack("<Q", 0) + self.raw[16 : self.pairs]


def read_container(file: Path) -> Container:
    """Metadata and tensor table of one file. Raises CheckpointError where it is damaged."""
    try:
        size = file.stat().st_size
        if size < 24:
            raise CheckpointError(f"{file.name}: not a whole GGUF file ({size} bytes).", AGAIN)
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(file, data, size).container()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from None


def read_remote(file: Remote) -> Container:
    """`read_container` of a file on a server. How long its header is no file says, so it is read piece by piece.

    Raises:
        CheckpointError: damaged, out of reach, or no header ends within the first 64 MiB.
    """
    data = b""
    wanted = STEP
    while True:
        stop = min(wanted, LARGEST_HEADER, file.size)
        data += file.read([(len(data), stop - len(data))])[0]
        try:
            return _Reader(Path(file.name), data, file.size, file).container()
        except _More as more:
            if more.stop > LARGEST_HEADER:
                where = f"{LARGEST_HEADER} bytes and more of header, as {more.where} has it"
                raise CheckpointError(f"{file.name}: {where}.", "Its repository is damaged: tell its owner.") from None
            wanted = max(len(data) + STEP, more.stop)


class _More(Exception):
    """The file goes on, but what is at hand of it ends before byte `stop`."""

    def __init__(self, stop: int, where: str) -> None:
        self.stop, self.where = stop, where


class _Reader:
    """Walks through a file's header. data: its bytes from the first on, all of them or some; size: of the file."""

    def __init__(self, file: Path, data: mmap.mmap | bytes, size: int, remote: Remote | None = None) -> None:
        self.file, self.data, self.size, self.remote, self.at = file, data, size, remote, 0
        self.where = "its header"

    def container(self) -> Container:
        try:
            return self._container()
        except struct.error:
            raise CheckpointError(f"{self.file.name}: cut off in {self.where}.", AGAIN) from None
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.file.name}: {self.where} is not readable.", AGAIN) from None

    def _container(self) -> Container:
        magic, version, tensors, pairs = self.numbers("4sIQQ")
        if magic != b"GGUF":
            raise CheckpointError(f"{self.file.name}: not a GGUF file (it begins with {magic!r}).", AGAIN)
        if version not in (2, 3):
            raise CheckpointError(
                f"{self.file.name}: GGUF version {version}; little-endian files of versions 2 and 3 are read.",
                "Convert the model again with a current llama.cpp.",
            )
        metadata = {}
        for _ in range(pairs):
            self.where = "its metadata"
            key = self.text()
            self.where = f"the value of {key}"
            metadata[key] = self.value(self.numbers("I")[0])
        table = self.at
        entries = []
        for _ in range(tensors):
            self.where = "its table of tensors"
            name = self.text()
            self.where = f"the table's entry for {name}"
            (rank,) = self.numbers("I")
            if not 1 <= rank <= 4:
                raise CheckpointError(f"{self.file.name}: {name} has {rank} dimensions; 1 to 4 are allowed.", AGAIN)
            shape = tuple(reversed(self.numbers(f"{rank}Q")))  # GGUF names the fastest first
            entries.append((name, shape, *self.numbers("IQ")))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise CheckpointError(f"{self.file.name}: general.alignment is {alignment!r}.", AGAIN)
        start = -(-self.at // alignment) * alignment
        found: dict[str, Tensor] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape, kind, offset in entries:
            if name in found:
                raise CheckpointError(f"{self.file.name}: {name} is in its table twice.", AGAIN)
            found[name] = self.tensor(name, shape, kind, start + offset)
            shapes[name] = shape
        self.check_places(found)
        return Container(metadata, found, shapes, self.data[: self.at], table)

    def tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> Tensor:
        if kind not in TYPES:
            raise CheckpointError(
                f"{self.file.name}: {name} has the GGML type {kind}, which is not known.",
                f"Types that are read: {', '.join(READ)}.",
            )
        dtype, weights, nbytes = TYPES[kind]
        if shape[-1] % weights:
            raise CheckpointError(
                f"{self.file.name}: {name} is {dtype} {list(shape)}; its rows are no multiple of {weights}.", AGAIN
            )
        size = math.prod(shape) // weights * nbytes
        if start + size > self.size:
            raise CheckpointError(
                f"{self.file.name}: cut off. {name} ends at byte {start + size}, the file at {self.size}.", AGAIN
            )
        if weights > 1:
            shape = (*shape[:-1], shape[-1] // weights * nbytes)
        return Tensor(self.file, dtype, shape, size, start, self.remote)

    def check_places(self, tensors: Mapping[str, Tensor]) -> None:
        end, before = 0, ""
        for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
            if tensor.start < end:
                raise CheckpointError(f"{self.file.name}: {name} and {before} share bytes.", AGAIN)
            end, before = tensor.start + tensor.nbytes, name

    def need(self, nbytes: int) -> None:
        """Raise unless so many bytes follow."""
        if self.at + nbytes > self.size:
            raise struct.error
        if self.at + nbytes > len(self.data):
            raise _More(self.at + nbytes, self.where)

    def numbers(self, layout: str) -> tuple[Any, ...]:
        self.need(struct.calcsize("<" + layout))
        found = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def text(self, errors: str = "strict") -> str:
        (length,) = self.numbers("Q")
        self.need(length)
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", errors)

    def value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            (found,) = self.numbers(_NUMBERS[kind])
            # the shortest decimal that is this float32: 1e-05, not 9.999999747378752e-06
            return float(str(np.float32(found))) if kind == 6 else found
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise CheckpointError(f"{self.file.name}: {self.where} is of kind {kind}, which is not known.", AGAIN)
        element, count = self.numbers("IQ")
        if element == _STRING:
            self.need(8 * count)
            return [self.text("replace") for _ in range(count)]  # pieces of a vocabulary may be parts of letters
        if element not in _NUMBERS:
            raise CheckpointError(f"{self.file.name}: {self.where} is an array of kind {element}.", AGAIN)
        self.need(count * struct.calcsize(_NUMBERS[element]))
        return list(self.numbers(f"{count}{_NUMBERS[element]}"))
