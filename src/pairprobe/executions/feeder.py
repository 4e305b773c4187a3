"""Layers' stored tensors, read ahead of their use into buffers that are allocated once.

A thread reads layer i + 1 while layer i computes, and on the CPU the first tensors of a layer may be used while its
last ones are read. On CUDA the buffers are pinned, and a stream of its own copies them to the device, so that reading,
copying and computing overlap.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairprobe.errors import CheckpointError
from pairprobe.executions.cache import Cold
from pairprobe.rooms import Stored, dtype_name

if TYPE_CHECKING:
    import torch

ALIGNED = 64  # bytes; every dtype's views begin at a multiple of its size
CHUNK = 32 * 2**20  # bytes asked of the kernel at once
BUFFERS = 2


def layout(parts: Sequence[Stored]) -> tuple[list[int], int]:
    """(offset of each part in a buffer, bytes in all)."""
    offsets, end = [], 0
    for part in parts:
        offsets.append(end)
        end += -(-part.nbytes // ALIGNED) * ALIGNED
    return offsets, end


def buffer_bytes(layers: Sequence[Sequence[Stored]]) -> int:
    """Bytes of one buffer: the largest layer as stored."""
    return max((layout(parts)[1] for parts in layers), default=0)


class Arriving:
    """A layer's tensors by their places in its parts; asking for one waits until it has been read.

    seconds: the feeder's, of which `wait` grows.
    """

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._tensors: Sequence[torch.Tensor] = ()
        self._there = 0
        self._problem: BaseException | None = None
        self._changed = threading.Condition()

    def __getitem__(self, place: int) -> torch.Tensor:
        self.wait(place + 1)
        return self._tensors[place]

    def wait(self, count: int) -> None:
        """Until the first `count` tensors are there. Raises what the reading thread met instead."""
        if self._there < count:
            start = time.perf_counter()
            with self._changed:
                self._changed.wait_for(lambda: self._there >= count or self._problem is not None)
            self._seconds["wait"] += time.perf_counter() - start
        if self._there < count and self._problem is not None:
            raise self._problem

    def handed(self, tensors: Sequence[torch.Tensor]) -> Arriving:
        """Itself, with the tensors that are filled meanwhile."""
        self._tensors = tensors
        return self

    def arrived(self, count: int) -> None:
        """So many of its tensors are there, from the first on."""
        with self._changed:
            self._there = count
            self._changed.notify()

    def fail(self, problem: BaseException) -> None:
        """No more will come."""
        with self._changed:
            self._problem = problem
            self._changed.notify()


class Feeder:
    """Iterates over layers; each comes as its parts, typed and shaped as stored, on the device, until the next.

    Args:
        layers: the stored tensors of each layer, in the order of use, in which they are read.
        drop: pages of the files that were not in the machine's cache before are dropped from it once read.
        ahead: read the next layer meanwhile, in a second buffer.

    Attributes:
        seconds: read (of the reading thread), wait (of the computing one, for a layer that was not there yet).
        read_bytes: so far.
    """

    def __init__(
        self, layers: Sequence[Sequence[Stored]], device: str, *, drop: bool = False, ahead: bool = True
    ) -> None:
        import torch

        self.layers, self.device, self.drop = layers, device, drop
        self.seconds = {"read": 0.0, "wait": 0.0}
        self.read_bytes = 0
        self._cuda = device.startswith("cuda")
        size = buffer_bytes(layers)
        count = BUFFERS if ahead else 1
        self._host = [_pinned(size) if self._cuda else _pages(size) for _ in range(count)]
        self._there = self._host
        self._stream: Any = None
        if self._cuda:
            self._there = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(count)]
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copied: list[Any] = [None] * count
        self._free: queue.Queue[tuple[int, Any] | None] = queue.Queue()
        self._ready: queue.Queue[tuple[int, Any, Arriving] | BaseException] = queue.Queue()
        self._files: dict[Path, int] = {}
        self._cold: dict[int, Cold] = {}
        self._stop = threading.Event()

    def __iter__(self) -> Generator[Arriving, None, None]:
        import torch

        for index in range(len(self._host)):
            self._free.put((index, None))
        thread = threading.Thread(target=self._read_all, name="pairprobe-reader", daemon=True)
        thread.start()
        try:
            for parts in self.layers:
                start = time.perf_counter()
                found = self._ready.get()
                self.seconds["wait"] += time.perf_counter() - start
                if isinstance(found, BaseException):
                    raise found
                index, copied, layer = found
                if copied is not None:
                    torch.cuda.current_stream(self.device).wait_event(copied)
                yield layer.handed(self._views(self._there[index], parts))
                layer.wait(len(parts))  # what the layer did not use may be damaged all the same
                self._free.put((index, self._event()))
        finally:
            self._stop.set()
            self._free.put(None)
            thread.join()
            for cold in self._cold.values():
                cold.forget()  # what the kernel read ahead of us
            for file in self._files.values():
                os.close(file)
            self._files.clear()
            self._cold.clear()

    def _event(self) -> Any:
        """Marks what the computing stream has been given so far."""
        import torch

        if not self._cuda:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _views(self, buffer: torch.Tensor, parts: Sequence[Stored]) -> list[torch.Tensor]:
        import torch

        on_mps = self.device == "mps"
        views = []
        for part, offset in zip(parts, layout(parts)[0], strict=True):
            dtype = getattr(torch, dtype_name(part.dtype))
            if part.nbytes == 0:
                views.append(torch.empty(part.shape, dtype=dtype, device=self.device))
                continue
            view = buffer[offset : offset + part.nbytes].view(dtype).reshape(part.shape)
            views.append(view.to(self.device) if on_mps else view)
        return views

    def _read_all(self) -> None:
        import torch

        try:
            with torch.inference_mode():  # which is each thread's own, as the buffers it copies into are
                for parts in self.layers:
                    given = self._free.get()
                    if given is None:
                        return
                    index, used = given
                    if self._copied[index] is not None:
                        self._copied[index].synchronize()
                    layer = Arriving(self.seconds)
                    at_once = self.device == "cpu"
                    if at_once:
                        self._ready.put((index, None, layer))
                    start = time.perf_counter()
                    try:
                        self._read(parts, self._host[index], layer)
                    except BaseException as error:
                        layer.fail(error)
                        raise
                    self.seconds["read"] += time.perf_counter() - start
                    copied = None
                    if self._cuda:
                        if used is not None:
                            self._stream.wait_event(used)
                        size = layout(parts)[1]
                        with torch.cuda.stream(self._stream):
                            self._there[index][:size].copy_(self._host[index][:size], non_blocking=True)
                            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                            copied.record(self._stream)
                        self._copied[index] = copied
                    if not at_once:
                        self._ready.put((index, copied, layer))
        except BaseException as error:  # to be raised where the layer is awaited
            self._ready.put(error)

    def _read(self, parts: Sequence[Stored], buffer: torch.Tensor, layer: Arriving) -> None:
        view = memoryview(buffer.numpy())  # type: ignore[arg-type]
        for count, (part, offset) in enumerate(zip(parts, layout(parts)[0], strict=True), 1):
            file = self._open(part.file)
            done = 0
            while done < part.nbytes and not self._stop.is_set():
                end = min(done + CHUNK, part.nbytes)
                try:
                    n = os.preadv(file, [view[offset + done : offset + end]], part.start + done)
                except OSError as error:
                    raise CheckpointError(f"{part.file.name}: cannot be read ({error.strerror}).") from error
                if n == 0:
                    raise CheckpointError(
                        f"{part.file.name}: ends at byte {part.start + done}, within a tensor its header promises.",
                        "The file has changed since it was opened. Download it again.",
                    )
                done += n
            self.read_bytes += part.nbytes
            if file in self._cold:
                self._cold[file].forget(part.start, part.nbytes)
            if not self._stop.is_set():
                layer.arrived(count)

    def _open(self, path: Path) -> int:
        if path not in self._files:
            try:
                self._files[path] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise CheckpointError(f"{path.name}: cannot be read ({error.strerror}).") from error
            if self.drop:
                self._cold[self._files[path]] = Cold(self._files[path])
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._files[path], 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return self._files[path]


def _pinned(size: int) -> torch.Tensor:
    import torch

    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


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
