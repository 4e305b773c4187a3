"""Locks that end with the process that holds them, whatever container it runs in: which files are nobody's any more."""

from __future__ import annotations

import hashlib
import platform
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: nothing is locked
    fcntl = None  # type: ignore[assignment]

#: Stands for this machine: a lock is a word about its own processes only.
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def locked(file: IO[Any]) -> bool | None:
    """Whether this process alone has the file now, until it closes it or ends. None: there are no locks here."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:  # not on this file system
        pass
    return None
