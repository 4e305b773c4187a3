"""A run whose process was killed is KILLED once the next one begins; one that lives, or may, stays as it is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pairprobe.running import GONE
from pairprobe.tracking import Store

#: Begins a run, says its id, and waits for a line; {more}: what is different about this process's machine.
CHILD = """
import sys
from pathlib import Path
from pairprobe import locks, running
from pairprobe.tracking import Store
{more}
with Store({uri!r}, Path({home!r})).start("pairprobe", "run", {{}}, {{}}) as run:
    print(run.run_id, flush=True)
    sys.stdin.readline()
"""
ELSEWHERE = "running.HOST = '00000000'"
NO_LOCKS = "locks.fcntl = None"


def uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


def begin(home: Path, more: str = "") -> tuple[subprocess.Popen[str], str]:
    """A process that makes a run, and the run's id."""
    code = CHILD.format(uri=uri(home), home=str(home), more=more)
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)


def next_run(home: Path) -> str:
    """The status with which it ends."""
    store = Store(uri(home), home)
    with store.start("pairprobe", "next", {}, {}) as run:
        pass
    return str(store.find(run.run_id).info.status)


def status(home: Path, run_id: str) -> str:
    return str(Store(uri(home), home).find(run_id).info.status)


def marks(home: Path) -> list[str]:
    return [file.name for file in (home / "mlruns" / ".running").iterdir()]


def test_the_next_run_ends_one_that_was_killed_and_says_why(home: Path) -> None:
    child, run_id = begin(home)
    kill(child)
    assert status(home, run_id) == "RUNNING"
    assert next_run(home) == "FINISHED"
    found = Store(uri(home), home).find(run_id)
    assert (found.info.status, found.data.tags["error"]) == ("KILLED", GONE)
    assert marks(home) == []


def test_a_run_that_a_process_is_making_is_left_to_it(home: Path) -> None:
    child, run_id = begin(home)
    try:
        assert next_run(home) == "FINISHED"
        assert status(home, run_id) == "RUNNING"
        child.communicate("\n", timeout=60)
    finally:
        kill(child)
    assert status(home, run_id) == "FINISHED"
    assert marks(home) == []


@pytest.mark.parametrize("more", [ELSEWHERE, NO_LOCKS], ids=["another machine's", "no locks"])
def test_a_run_of_which_nothing_is_known_is_not_touched(home: Path, more: str) -> None:
    child, run_id = begin(home, more)
    kill(child)
    assert next_run(home) == "FINISHED"
    assert status(home, run_id) == "RUNNING"


def test_runs_of_another_store_are_left_to_it(home: Path) -> None:
    child, run_id = begin(home)
    kill(child)
    store = Store(f"sqlite:///{home / 'other.db'}", home)  # its artifacts and marks lie in the same folder
    with store.start("pairprobe", "next", {}, {}):
        pass
    assert status(home, run_id) == "RUNNING"
    assert next_run(home) == "FINISHED"
    assert status(home, run_id) == "KILLED"


def test_where_runs_cannot_be_marked_they_are_made_all_the_same(home: Path) -> None:
    (home / "mlruns").mkdir()
    (home / "mlruns" / ".running").write_text("a file where the folder would be")
    assert next_run(home) == "FINISHED"
