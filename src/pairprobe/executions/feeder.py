"""Layers' stored tensors, read ahead of their use into memory that is allocated once.

A thread reads while the layers compute. Each tensor may be used as soon as it is there; when the last batch has used
it, its memory is free for the next, so that there need be no more of a layer than the tensors in use and those being
read. On accelerators whole layers are handed over, see `staged`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pairprobe.errors import CheckpointError
from pairprobe.executions.cache import Cold
from pairprobe.executions.ring import Ring
from pairprobe.rooms import Stored, dtype_name

if TYPE_CHECKING:
    import torch

ALIGNED = 64  # bytes; every dtype's views begin at a multiple of its size
CHUNK = 32 * 2**20  # bytes asked of the kernel at once
AHEAD = 256 * 2**20  # bytes that the kernel is told of before they are read: the disk works on while there is no room


def aligned(nbytes: int) -> int:
    """Bytes that a tensor of so many takes up."""
    return -(-nbytes // ALIGNED) * ALIGNED


def layer_bytes(parts: Sequence[Stored]) -> int:
    """Bytes of a layer as stored, in memory."""
    return sum(aligned(part.nbytes) for part in parts)


class Arriving:
    """A layer's tensors by their places in its parts; asking for one waits until it has been read.

    seconds: the feeder's, of which `wait` grows. again: reads a tensor that was let go of once more. want: told how
    many are waited for.
    """

    def __init__(
        self, seconds: dict[str, float], again: Callable[[int], torch.Tensor], want: Callable[[int], None]
    ) -> None:
        self._seconds = seconds
        self._again = again
        self._want = want
        self._tensors: list[torch.Tensor | None] = []
        self._frees: list[Callable[[], None] | None] = []
        self._problem: BaseException | None = None
        self._changed = threading.Condition()

    def __getitem__(self, place: int) -> torch.Tensor:
        self.wait(place + 1)
        found = self._tensors[place]
        if found is None:
            found = self._tensors[place] = self._again(place)
            self._frees[place] = _nothing
        return found

    def wait(self, count: int) -> None:
        """Until the first `count` tensors are there. Raises what the reading thread met instead."""
        if len(self._tensors) < count:
            start = time.perf_counter()
            self._want(count)
            with self._changed:
                self._changed.wait_for(lambda: len(self._tensors) >= count or self._problem is not None)
            self._seconds["wait"] += time.perf_counter() - start
        if len(self._tensors) < count and self._problem is not None:
            raise self._problem

    def let_go(self, places: Iterable[int]) -> None:
        """These tensors are not needed any more: others may be read into their memory. No view of them may be kept.

        One that is not there yet is waited for. Should one be asked for all the same, it is read anew, and stays.
        """
        for place in places:
            self.wait(place + 1)
            free = self._frees[place]
            if free is not None and self._tensors[place] is not None:
                self._tensors[place] = None
                free()

    def arrived(self, tensor: torch.Tensor, free: Callable[[], None] | None = None) -> None:
        """The next of its tensors is there. free: called when it is let go of; None where that is of no use."""
        with self._changed:
            self._frees.append(free)
            self._tensors.append(tensor)
            self._changed.notify_all()

    def fail(self, problem: BaseException) -> None:
        """No more will come."""
        with self._changed:
            self._problem = problem
            self._changed.notify_all()


class Feeder:
    """Iterates over layers; each comes as its parts, typed and shaped as stored, on the CPU, until the next.

    Args:
        layers: the stored tensors of each layer, in the order of use, in which they are read.
        drop: pages of the files that were not in the machine's cache before are dropped from it once read.
        room: bytes of stored tensors in memory at once; None for two of the largest layer. Less is enough where tensors
            are used in the order of `layers` and let go of: what else is asked for comes in memory beside it.
        fence: see `Ring`.
        rolls: a tensor is read once it has room; else once nothing of the layer before is there.

    Attributes:
        seconds: read (of the reading thread), wait (of the computing one, for a tensor that was not there yet).
        read_bytes: so far. beside: of these, what had to be read into memory beside `room`. again: bytes that were read
            once more, beside these.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[Stored]],
        *,
        drop: bool = False,
        room: int | None = None,
        fence: int | None = None,
        rolls: bool = True,
    ) -> None:
        self.layers, self.drop = layers, drop
        self.seconds = {"read": 0.0, "wait": 0.0}
        self.read_bytes = self.beside = self.again = 0
        self._ready: queue.Queue[Arriving | BaseException] = queue.Queue()
        self._files: dict[Path, int] = {}
        self._cold: dict[int, Cold] = {}
        self._stop = threading.Event()
        self._to_come = deque(part for parts in layers for part in parts if part.nbytes)
        self._told = 0  # bytes that the kernel knows of and that are not read yet
        self._rolls = rolls
        self._prepare(2 * max((layer_bytes(parts) for parts in layers), default=0) if room is None else room, fence)

    def _prepare(self, room: int, fence: int | None) -> None:
        """Allocate."""
        self._ring = Ring(room, fence)
        self._memory = _pages(room)

    def __iter__(self) -> Generator[Arriving, None, None]:
        thread = threading.Thread(target=self._read_all, name="pairprobe-reader", daemon=True)
        thread.start()
        try:
            for parts in self.layers:
                start = time.perf_counter()
                found = self._ready.get()
                self.seconds["wait"] += time.perf_counter() - start
                if isinstance(found, BaseException):
                    raise found
                self._given()
                yield found
                found.wait(len(parts))  # what the layer did not use may be damaged all the same
                found.let_go(range(len(parts)))
                self._used()
        finally:
            self._stop.set()
            self._close()
            thread.join()
            for cold in self._cold.values():
                cold.forget()  # what the kernel read ahead of us
            for file in self._files.values():
                os.close(file)
            self._files.clear()
            self._cold.clear()

    def _given(self) -> None:
        """A layer is about to be used."""

    def _used(self) -> None:
        """It has been."""

    def _want(self, before: int, count: int) -> None:
        """So many tensors of a layer are waited for, and there are `before` in those that come earlier."""
        self._ring.want(before + count)

    def _close(self) -> None:
        """Whatever the reading thread waits for will not come."""
        self._ring.close()

    def _read_all(self) -> None:
        import torch

        try:
            with torch.inference_mode():  # which is each thread's own, as the buffers it copies into are
                before = 0
                for parts in self.layers:
                    layer = Arriving(self.seconds, partial(self._again, parts), partial(self._want, before))
                    try:
                        self._read(parts, layer, before)
                    except BaseException as error:
                        layer.fail(error)
                        raise
                    if self._stop.is_set():
                        return
                    before += len(parts)
        except BaseException as error:  # to be raised where the layer is awaited
            self._ready.put(error)

    def _read(self, parts: Sequence[Stored], layer: Arriving, before: int) -> None:
        """Read a layer, and hand it over: at once, so that each tensor is used when it is there."""
        import torch

        self._ready.put(layer)
        if not self._rolls and not self._ring.emptied():
            return
        for number, part in enumerate(parts, before):
            region = self._ring.take(aligned(part.nbytes), number)
            if self._stop.is_set():
                return
            if region is None:  # what is waited for is used before others that are still there
                memory = torch.empty(part.nbytes, dtype=torch.uint8)
                self.beside += part.nbytes
            else:
                memory = self._memory[region.start : region.start + part.nbytes]
            self._fill(part, memory)
            if self._stop.is_set():
                return
            layer.arrived(typed(memory, part), partial(self._ring.give_back, region) if region else _nothing)

    def _fill(self, part: Stored, memory: torch.Tensor) -> None:
        """Read a tensor's bytes into `memory`, uint8 and as many; less of them once the feeder is given up."""
        start = time.perf_counter()
        file = self._open(part.file)
        self._tell()
        _read_into(file, part, memory, self._stop)
        self.read_bytes += part.nbytes
        self._told -= part.nbytes
        if file in self._cold:
            self._cold[file].forget(part.start, part.nbytes)
        self.seconds["read"] += time.perf_counter() - start

    def _tell(self) -> None:
        """Have the kernel begin to read what comes next."""
        if not hasattr(os, "posix_fadvise"):
            return
        while self._to_come and self._told < AHEAD:
            part = self._to_come.popleft()
            os.posix_fadvise(self._open(part.file), part.start, part.nbytes, os.POSIX_FADV_WILLNEED)
            self._told += part.nbytes

    def _again(self, parts: Sequence[Stored], place: int) -> torch.Tensor:
        """A tensor of a layer into memory of its own; in the computing thread."""
        import torch

        part = parts[place]
        memory = torch.empty(part.nbytes, dtype=torch.uint8)
        file = _opened(part.file)
        try:
            _read_into(file, part, memory, self._stop)
        finally:
            os.close(file)
        self.again += part.nbytes
        return typed(memory, part)

    def _open(self, path: Path) -> int:
        if path not in self._files:
            self._files[path] = _opened(path)
            if self.drop:
                self._cold[self._files[path]] = Cold(self._files[path])
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._files[path], 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return self._files[path]


def _nothing() -> None:
    """Memory that nobody holds any more is free."""


def typed(memory: torch.Tensor, part: Stored) -> torch.Tensor:
    """The bytes of a tensor, uint8 [nbytes], as the tensor that is stored: a view."""
    import torch

    return memory.view(getattr(torch, dtype_name(part.dtype))).reshape(part.shape)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read ({error.strerror}).") from error


def _read_into(file: int, part: Stored, memory: torch.Tensor, stop: threading.Event) -> None:
    view = memoryview(memory.numpy())  # type: ignore[arg-type]
    done = 0
    while done < part.nbytes and not stop.is_set():
        end = min(done + CHUNK, part.nbytes)
        try:
            n = os.preadv(file, [view[done:end]], part.start + done)
        except OSError as error:
            raise CheckpointError(f"{part.file.name}: cannot be read ({error.strerror}).") from error
        if n == 0:
            raise CheckpointError(
                f"{part.file.name}: ends at byte {part.start + done}, within a tensor its header promises.",
                "The file has changed since it was opened. Download it again.",
            )
        done += n


def _pages(size: int) -> torch.Tensor:
    """Anonymous memory in huge pages where there are any: its first use is then several times as fast."""
    import torch

    if size == 0 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared ones are never huge
    except OSError:
        raise MemoryError(f"{size} bytes for a layer as stored") from None
    with contextlib.suppress(OSError):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)  # keeps the mapping alive
