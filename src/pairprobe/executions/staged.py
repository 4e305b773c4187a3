"""Layers' stored tensors on an accelerator: read whole into buffers of the host, and copied from there.

On CUDA the buffers are pinned, and a stream of its own copies them, so that reading, copying and computing overlap.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Sequence
from typing import Any

from pairprobe.executions.feeder import Arriving, Feeder, aligned, layer_bytes, typed
from pairprobe.rooms import Stored


class Staged(Feeder):
    """A feeder whose tensors come on `device`. See `Feeder`; room: less than two layers is one."""

    def __init__(
        self, layers: Sequence[Sequence[Stored]], device: str, *, drop: bool = False, room: int | None = None
    ) -> None:
        self.device = device
        self._cuda = device.startswith("cuda")
        super().__init__(layers, drop=drop, room=room)

    def _prepare(self, room: int, fence: int | None) -> None:  # noqa: ARG002
        import torch

        size = max((layer_bytes(parts) for parts in self.layers), default=0)
        count = 2 if room >= 2 * size else 1
        self._host = [torch.empty(size, dtype=torch.uint8, pin_memory=self._cuda) for _ in range(count)]
        self._there = self._host
        self._stream: Any = None
        if self._cuda:
            self._there = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(count)]
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._copied: list[Any] = [None] * count
        self._free: queue.Queue[tuple[int, Any] | None] = queue.Queue()  # (buffer, what still used it)
        for index in range(count):
            self._free.put((index, None))
        self._handed: deque[int] = deque()  # buffers whose layers are ready or in use, in their order

    def _given(self) -> None:
        import torch

        copied = self._copied[self._handed[0]]
        if copied is not None:
            torch.cuda.current_stream(self.device).wait_event(copied)

    def _used(self) -> None:
        self._free.put((self._handed.popleft(), self._event()))

    def _want(self, before: int, count: int) -> None:
        """A layer is handed over when all of it is there."""

    def _close(self) -> None:
        self._free.put(None)

    def _event(self) -> Any:
        """Marks what the computing stream has been given so far."""
        import torch

        if not self._cuda:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _read(self, parts: Sequence[Stored], layer: Arriving, before: int) -> None:  # noqa: ARG002
        import torch

        given = self._free.get()
        if given is None:
            return
        index, used = given
        if self._copied[index] is not None:
            self._copied[index].synchronize()
        start, memory = 0, self._host[index]
        for part in parts:
            self._fill(part, memory[start : start + part.nbytes])
            start += aligned(part.nbytes)
        if self._stop.is_set():
            return
        if self._cuda:
            if used is not None:
                self._stream.wait_event(used)
            size = layer_bytes(parts)
            with torch.cuda.stream(self._stream):
                self._there[index][:size].copy_(memory[:size], non_blocking=True)
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(self._stream)
            self._copied[index] = copied
        start = 0
        for part in parts:
            found = typed(self._there[index][start : start + part.nbytes], part)
            layer.arrived(found if self._cuda else found.to(self.device))
            start += aligned(part.nbytes)
        self._handed.append(index)
        self._ready.put(layer)
