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

    One thread takes and another gives back. Regions never overlap those that are not given back yet. Whatever the
    order in which they are given back, a taker who holds at most `size − n` bytes of its own, where no region is
    larger than n, is never stuck: at most one region did not fit before the end of the memory and left a gap there.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken: deque[Region] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def take(self, nbytes: int) -> Region | None:
        """A region of so many bytes, once there is room for it; None if the ring is closed meanwhile.

        Raises:
            ValueError: the ring is smaller than this.
        """
        if nbytes > self.size:
            raise ValueError(f"{nbytes} bytes of a ring of {self.size}")
        if nbytes == 0:
            return Region(0, 0, free=True)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._start(nbytes) is not None)
            start = None if self._closed else self._start(nbytes)
            if start is None:
                return None
            region = Region(start, start + nbytes)
            self._taken.append(region)
            return region

    def give_back(self, region: Region) -> None:
        """Nobody looks at these bytes any more. Giving back twice is no harm."""
        with self._changed:
            region.free = True
            while self._taken and self._taken[0].free:
                self._taken.popleft()
            self._changed.notify()

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
        if last.start < first:  # already past the end
            return last.end if last.end + nbytes <= first else None
        if last.end + nbytes <= self.size:
            return last.end
        return 0 if nbytes <= first else None
