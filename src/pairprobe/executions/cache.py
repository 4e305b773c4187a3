"""Which pages of a file the machine keeps in its cache, and how to let those go that a run brought in."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys

import numpy as np
import numpy.typing as npt


def resident(file: int, start: int = 0, nbytes: int | None = None) -> npt.NDArray[np.bool_] | None:
    """Whether each page of this range of an open file is in the machine's memory; the first one holds `start`.

    None where the system does not tell. It looks without reading: probing with RWF_NOWAIT starts a read instead.
    """
    if sys.platform != "linux":
        return None
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    try:
        size = (os.fstat(file).st_size if nbytes is None else start + nbytes) - first
        with mmap.mmap(file, size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED, offset=first) as mapped:
            view = np.frombuffer(mapped, dtype=np.uint8)
            pages = np.zeros(-(-size // mmap.PAGESIZE), dtype=np.uint8)
            place = (ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data))
            failed = ctypes.CDLL(None).mincore(*place)
            del view  # the mapping cannot be closed before
    except (OSError, ValueError, AttributeError):
        return None
    return None if failed else (pages & 1).astype(bool)


def cached(file: int, start: int, nbytes: int) -> bool:
    """Whether this range of the file is in the machine's memory; True where the system cannot tell."""
    pages = resident(file, start, nbytes) if nbytes else None
    return pages is None or bool(pages.all())


def forget(file: int, start: int, nbytes: int) -> None:
    """Let the kernel drop this range of the file, from the page that holds its first byte to that of its last."""
    if hasattr(os, "posix_fadvise"):
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        end = -(-(start + nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        with contextlib.suppress(OSError):
            os.posix_fadvise(file, first, end - first, os.POSIX_FADV_DONTNEED)


class Cold:
    """The pages of an open file that were not in memory when it was opened, to be let go of when they are read.

    None of them where the system does not tell: what might be somebody's stays.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        before = resident(file)
        self._pages = None if before is None else ~before

    def forget(self, start: int = 0, nbytes: int | None = None) -> None:
        """Those that hold any byte of this range."""
        if self._pages is None:
            return
        first = start // mmap.PAGESIZE
        last = len(self._pages) if nbytes is None else -(-(start + nbytes) // mmap.PAGESIZE)
        edges = np.diff(self._pages[first:last].astype(np.int8), prepend=0, append=0)
        for begin, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            forget(self.file, int(first + begin) * mmap.PAGESIZE, int(end - begin) * mmap.PAGESIZE)
