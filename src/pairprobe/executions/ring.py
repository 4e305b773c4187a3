"""Memory that stored tensors pass through: taken in the order of use, and given back as a rule in the same order."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass


@dataclass
class Region:
    """Bytes start … end of a ring. free: given back, and behind others that are not."""

    start: int
    end: int
    free: bool = False


class Ring:
    """Hands out regions of `size` bytes, each in one piece; whoever finds no room waits until some is given back.

    One thread takes and another gives back. Regions never overlap those that are not given back yet.

    fence: no region crosses a multiple of this many bytes, None for no such rule. In a ring of two times n with a fence
    at n there is always room for a region of n while another of n is in use.
    """

    def __init__(self, size: int, fence: int | None = None) -> None:
        self.size = size
        self._fence = fence or max(1, size)
        self._taken: deque[Region] = deque()
        self._changed = threading.Condition()
        self._wanted = 0
        self._closed = False

    def take(self, nbytes: int, number: int = 0) -> Region | None:
        """A region of so many bytes, once there is room for it; None where there is none and it is wanted, or once the
        ring is closed. number: of what is to be put into it, counted from 0.

        Raises:
            ValueError: there is never room for so many.
        """
        if nbytes > self._fence:
            raise ValueError(f"{nbytes} bytes in one piece of a ring that has {self._fence}")
        if nbytes == 0:
            return Region(0, 0, free=True)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or number < self._wanted or self._start(nbytes) is not None)
            start = None if self._closed else self._start(nbytes)
            if start is None:
                return None
            region = Region(start, start + nbytes)
            self._taken.append(region)
            return region

    def want(self, count: int) -> None:
        """Somebody waits for the first `count` things, and may hold regions until they are there."""
        with self._changed:
            self._wanted = count
            self._changed.notify_all()

    def give_back(self, region: Region) -> None:
        """Nobody looks at these bytes any more. Giving back twice is no harm."""
        with self._changed:
            region.free = True
            while self._taken and self._taken[0].free:
                self._taken.popleft()
            self._changed.notify_all()

    def emptied(self) -> bool:
        """Wait until everything has been given back; False if the ring is closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._taken)
            return not self._closed

    def close(self) -> None:
        """Let go whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _start(self, nbytes: int) -> int | None:
        """Where so many bytes are free in one piece, behind those that were taken last or, past the end, at 0."""
        if not self._taken:
            return 0
        first, last = self._taken[0].start, self._taken[-1]
        start = last.end
        if start % self._fence + nbytes > self._fence:
            start = -(-start // self._fence) * self._fence
        if last.start < first:  # already past the end
            return start if start + nbytes <= first else None
        if start + nbytes <= self.size:
            return start
        return 0 if nbytes <= first else None
