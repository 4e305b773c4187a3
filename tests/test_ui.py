"""`python run.py ui` shows the runs with few processes and leaves none; a plain `mlflow ui` shows them too."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from pairprobe.tracking import Metric, Store

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
PATIENCE = 90  # seconds; a cold start of MLflow takes ten on a slow machine


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home with one run, and the run's id."""
    folder = tmp_path_factory.mktemp("recorded")
    with Store(f"sqlite:///{folder / 'mlflow.db'}", folder).start("pairprobe", "a run", {"a": 1}, {}) as record:
        record.log([Metric("delta", -0.036)])
    return folder, record.run_id


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(words: list[str], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is read as it comes; it and its children are ended by id, however the test ends."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, **how)
    family: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:  # else its id may be another's by now
            family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ask(port: int, path: str, **body: Any) -> Any:
    """The server's answer to GET, or to POST where there is a body; parsed where it is JSON."""
    request = urllib.request.Request(
        f"http://{HOST}:{port}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read().decode()
    return json.loads(text) if text.startswith("{") else text


def runs_shown(port: int) -> list[dict[str, Any]]:
    """All runs that MLflow's REST API lists."""
    experiments = ask(port, "/api/2.0/mlflow/experiments/search", max_results=100)["experiments"]
    ids = [e["experiment_id"] for e in experiments]
    found: list[dict[str, Any]] = ask(port, "/api/2.0/mlflow/runs/search", experiment_ids=ids).get("runs", [])
    return found


def test_the_ui_shows_the_runs_and_ends_with_all_its_processes(
    recorded: tuple[Path, str], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, run_id = recorded
    monkeypatch.setenv("PAIRPROBE_HOME", str(home))
    with started(["run.py", "ui", "--port", str(port)], cwd=ROOT, stderr=subprocess.PIPE) as ui:
        assert ui.stdout is not None
        assert "is starting" in ui.stdout.readline()
        link = ui.stdout.readline()
        assert re.search(rf"http://{HOST}:{port}/#/experiments/\d+/runs", link)
        assert "Ctrl-C" in ui.stdout.readline()
        # the link is printed once it can be followed
        assert ask(port, "/health") == "OK"
        assert "<html" in ask(port, "/")
        (shown,) = runs_shown(port)
        assert shown["info"]["run_id"] == run_id
        assert shown["data"]["metrics"][0]["value"] == -0.036
        assert shown["info"]["experiment_id"] in link

        me = psutil.Process(ui.pid)
        family = [me, *me.children(recursive=True)]
        assert 2 <= len(family) <= 4  # MLflow alone starts a dozen, at 250 MB each
        ui.send_signal(signal.SIGINT)
        _, err = ui.communicate(timeout=120)
        assert ui.returncode == 0
        assert err == ""
        _, alive = psutil.wait_procs(family, timeout=5)
        for left in alive:
            left.kill()
        assert alive == []
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)) != 0


def test_a_port_that_is_taken_is_one_clear_error(recorded: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRPROBE_HOME", str(recorded[0]))
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "run.py", "ui", "--port", str(port)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2
    assert done.stdout == ""
    said = " ".join(done.stderr.split())
    assert said.startswith(f"error port {port} on {HOST} is taken")
    assert f"python run.py ui --port {port + 1}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_that_cannot_be_is_refused(port: str, capfd: pytest.CaptureFixture[str], home: Path) -> None:
    from pairprobe.commands.main import run

    assert run(["ui", f"--port={port}"]) == 2
    assert f"--port is {port}; allowed: 1 to 65535" in capfd.readouterr().err
    assert list(home.iterdir()) == []


def test_an_experiment_that_is_not_there_is_refused_with_the_nearest_and_not_made(
    recorded: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from pairprobe.commands.main import run

    home, _ = recorded
    monkeypatch.setenv("PAIRPROBE_HOME", str(home))
    with socket.create_server((HOST, 0)) as taken:
        free = taken.getsockname()[1]
    assert run(["ui", "--experiment", "pairprope", "--port", str(free)]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "there is no experiment 'pairprope'" in said
    assert "Did you mean 'pairprobe'? Experiments there: Default, pairprobe." in said
    store = Store(f"sqlite:///{home / 'mlflow.db'}", home)
    assert {e.name for e in store.client.search_experiments()} == {"Default", "pairprobe"}
    assert store.known_experiment("pairprobe") == store.experiment_id("pairprobe")


def test_a_plain_mlflow_ui_in_the_home_folder_shows_the_same_runs(recorded: tuple[Path, str], port: int) -> None:
    home, run_id = recorded
    # fewer processes than it would start by itself, to be quick; where it looks for runs is its own default
    few = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_WORKERS": "1"}
    words = ["-m", "mlflow", "ui", "--port", str(port), "--host", HOST]
    with started(words, cwd=home, env={**os.environ, **few}, stderr=subprocess.STDOUT) as ui:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError):
                ask(port, "/health")
                break
            assert ui.poll() is None, ui.stdout and ui.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert [r["info"]["run_id"] for r in runs_shown(port)] == [run_id]
