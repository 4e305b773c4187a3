"""A store is asked before a run begins: what is not there, does not answer or does not let us in is said at once."""

from __future__ import annotations

import shutil
import socket
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from pairprobe import stores
from pairprobe.commands.main import run
from pairprobe.tracking import Store

HOST = "127.0.0.1"
SECRET = "geheim"


def refuses(*_: object) -> None:
    raise AssertionError("a database that cannot be reached was logged into")


@pytest.fixture
def listening() -> Iterator[int]:
    """A port that takes connections, and says nothing."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def problem(connect, uri: str) -> str:
    found = stores.database_problems(uri, "the shown address", connect)
    assert len(found) <= 1
    return str(found[0]) if found else ""


def test_a_database_that_lets_us_in_has_no_problem(listening: int) -> None:
    assert problem(lambda: None, f"postgresql+psycopg2://a:{SECRET}@{HOST}:{listening}/runs") == ""


def test_a_database_that_is_not_running_is_told_before_a_driver_waits_for_it(closed: int) -> None:
    said = problem(refuses, f"postgresql+psycopg2://a:{SECRET}@{HOST}:{closed}/runs")
    assert "the database the shown address cannot be connected to (connection refused)" in said
    assert "tracking.uri=sqlite:///mlflow.db" in said


# What psycopg2 2.9 said to PostgreSQL 15; the address in it is left out.
LOGIN = [
    (f'connection to server at "{HOST}", port 5432 failed: FATAL:  password authentication failed for user "a"',
     "it does not accept this user and password"),
    ('FATAL:  database "runs" does not exist', "it knows no such user or database"),
    (f"something else with {SECRET}", "RuntimeError"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "told"), LOGIN)
@pytest.mark.parametrize("address", ["postgresql+psycopg2:///runs", "mssql+pyodbc://dsn"])
def test_a_database_that_lets_nobody_in_says_why(address: str, error: str, told: str) -> None:
    def connect() -> None:
        raise RuntimeError(error)

    said = problem(connect, address)
    assert f"({told})" in said
    assert SECRET not in said


def test_a_driver_that_is_not_installed_is_named(listening: int, home: Path) -> None:
    store = Store(f"mysql+no_such_driver://a:{SECRET}@{HOST}:{listening}/runs", home)
    (found,) = store.problems()
    assert SECRET not in str(found)
    assert "mysql+no_such_driver" in str(found)


def test_a_port_that_is_no_number_is_a_problem_and_no_traceback() -> None:
    assert "cannot be connected to (ValueError)" in problem(refuses, f"postgresql://{HOST}:port/runs")


def test_doctor_connects_to_a_database_before_it_says_that_it_answers(
    closed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = f"postgresql+psycopg2://a:{SECRET}@{HOST}:{closed}/runs"
    began = time.monotonic()
    assert run(["doctor", "method=static", f"tracking.uri={uri}"]) == 1
    assert time.monotonic() - began < 20
    said = " ".join(capfd.readouterr().out.split())
    assert "✗ store the database postgresql+psycopg2://a:…@" in said
    assert "cannot be connected to (connection refused)" in said
    assert " answers" not in said


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    (found,) = stores.folder_problems(tmp_path, None)
    assert "has 1 MB free; a run needs up to 200 MB" in str(found)


def test_folders_that_can_be_written_have_no_problem_and_are_not_made(home: Path) -> None:
    assert stores.folder_problems(home / "mlruns", home / "deep" / "mlflow.db") == []
    assert list(home.iterdir()) == []
