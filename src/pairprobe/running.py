"""Runs of this machine that no process makes any more: after kill -9, for want of memory, after a power cut.

    mlruns/.running/HOST.STORE.RUN_ID    locked by the run's process as long as it lives

A run without such a file, as any of another machine or an older version, is none of ours and stays as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pairprobe.locks import HOST, locked

GONE = "its process ended without a word, as after kill -9 or a power cut; when is not known"


class Running:
    """The marks of the runs that this machine's processes have begun in one store.

    folder: where they lie, made when needed. Where it cannot be written or there are no locks, nothing is known of any
    run, and none is touched.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.ours = f"{HOST}.{hashlib.sha256(uri.encode()).hexdigest()[:8]}."

    def mark(self, run_id: str) -> Callable[[], None]:
        """Mark a run as made by this process, until it ends or calls what is returned."""
        file, held = self.folder / f"{self.ours}{run_id}", contextlib.ExitStack()
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            made = self.folder / f".{file.name}.{os.getpid()}"
            if locked(held.enter_context(made.open("wb"))):
                made.replace(file)  # named only now, so that nobody finds it unlocked
            else:
                made.unlink()

        def done() -> None:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
            held.close()

        return done

    def end_left_over(self, client: Any) -> None:
        """Set the runs that nobody makes any more to KILLED. client: MLflow's, of this store."""
        for run_id, file in self._unlocked():
            with contextlib.suppress(Exception):  # no reason not to begin another run: the next one tries again
                if client.get_run(run_id).info.status == "RUNNING":
                    client.set_tag(run_id, "error", GONE)
                    client.set_terminated(run_id, "KILLED")
                file.unlink(missing_ok=True)

    def _unlocked(self) -> Iterator[tuple[str, Path]]:
        """Each run whose process is gone, and its mark, which this process holds meanwhile."""
        for file in sorted(self.folder.glob(f"{self.ours}*")):
            with contextlib.suppress(OSError), file.open("rb") as stream:
                if locked(stream):
                    yield file.name.removeprefix(self.ours), file
