"""How much memory a run may use, and a limit that it cannot pass: long before the kernel has to kill anything."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pairprobe.executions import device as devices

#: Left alone on the host for everybody else, of what is free.
RESERVE_SHARE, RESERVE_LEAST = 0.1, 2**30
#: Left alone on an accelerator.
RESERVE_GPU = 512 * 2**20
#: The limit counts addresses: stacks of threads, arenas and holes of the heap are addresses more than memory.
ADDRESSES = 64 * 2**20
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt


@dataclass(frozen=True)
class Short:
    """Of the first memory that does not suffice: where, bytes wanted there and bytes it may use. enough: bytes of
    execution.memory that suffice everywhere; None where no such setting would help."""

    where: str
    wanted: int
    there: int
    enough: int | None = None


@dataclass(frozen=True)
class Budget:
    """Bytes a run may add to what its process holds. gpu: None without one. unified: host and gpu are one memory, so
    that what is taken of one is taken of the other. free: the same of what is free less a reserve, where
    execution.memory allows less; None where it does not."""

    host: int
    gpu: int | None = None
    unified: bool = False
    free: Budget | None = None

    def short(self, host: int, gpu: int) -> Short | None:
        """What does not suffice for a run that wants so many bytes, or None."""
        enough = None
        if self.free is not None and self.free.short(host, gpu) is None:
            enough = host + gpu if self.unified else max(host, gpu)
        if self.unified and host + gpu > self.host:
            return Short("this machine's unified memory", host + gpu, self.host, enough)
        if host > self.host:
            return Short("the host", host, self.host, enough)
        if self.gpu is not None and gpu > self.gpu:
            return Short("the accelerator", gpu, self.gpu, enough)
        return None


def budget(device: str, gigabytes: float | None = None) -> Budget:
    """What may be used: `gigabytes` (10⁹ bytes, of host and accelerator each) where given, never more than is free
    less a reserve. Limits of the process's control group count; unified memory is counted once.
    """
    free = devices.free_memory("cpu")
    host = max(0, free - max(int(free * RESERVE_SHARE), min(RESERVE_LEAST, free // 2)))
    if device == "cpu":
        there = Budget(host)
    elif devices.unified(device):
        there = Budget(host, host, unified=True)
    else:
        there = Budget(host, max(0, devices.free_memory(device) - RESERVE_GPU))
    wanted = None if gigabytes is None else int(gigabytes * 1e9)
    if wanted is None or wanted >= max(there.host, there.gpu or 0):
        return there
    return Budget(min(host, wanted), None if there.gpu is None else min(there.gpu, wanted), there.unified, there)


def lacking(name: str, short: Short) -> str:
    """What to say of `Budget.short`: where execution.memory is what limits it, how much of it would do."""
    need, may = megabytes(short.wanted), megabytes(short.there)
    said = f"{name}: needs about {need} of {short.where}, of which it may use {may}."
    if short.enough is None:
        return said
    return f"{said} execution.memory={math.ceil(short.enough / 1e7) / 100:g} (GB) would suffice."


def megabytes(n: float) -> str:
    """'91 MB', '21.3 GB' (decimal units)."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


@contextlib.contextmanager
def limited(nbytes: int, device: str) -> Iterator[None]:
    """Within, this process cannot take more than `nbytes` of new private memory: asking for more fails at once, as
    a MemoryError or torch's own, while the machine still has room.

    Linux on the CPU only: drivers of accelerators map address space that is no memory.
    """
    if device == "cpu":
        _start_threads()
    taken = _private()
    if device != "cpu" or taken is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    more = nbytes + min(nbytes // 8, 4 * ADDRESSES) + ADDRESSES
    limit = taken + min(more, int(devices.free_memory("cpu") * (1 - RESERVE_SHARE / 2)))
    if before[0] != resource.RLIM_INFINITY:
        limit = min(limit, before[0])
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    except (OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextlib.contextmanager
def retained(device: str) -> Iterator[None]:
    """Within, memory that is given back to the C library stays with the process, to be used again.

    glibc hands large blocks back to the kernel at once, and every layer's intermediates would be new pages each time,
    whose first use is several times as slow as the arithmetic on them. Afterwards the process gives back what it has.
    """
    libc = _glibc() if device == "cpu" else None
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, 65536)  # glibc's own defaults
        libc.mallopt(M_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _start_threads() -> None:
    """Torch's own, before there is a limit: OpenMP ends the process when it cannot have the memory for one."""
    import torch

    torch.zeros(1 << 18).add_(1)


def _private() -> int | None:
    """Bytes of private writable memory mapped by this process, as RLIMIT_DATA counts it; None where unknown."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
