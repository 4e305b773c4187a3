"""python run.py ui: MLflow's pages for this store, on this machine only, with few processes."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import IO

from pairprobe.config import Tracking, home
from pairprobe.errors import ConfigError, StoreError
from pairprobe.report import Report, program
from pairprobe.tracking import Store, uri_of

HOST = "127.0.0.1"
PATIENCE = 90  # seconds until the server must answer


def main(words: list[str]) -> int:
    """Runs until interrupted. Exit code 0; 2 where it cannot start."""
    parser = argparse.ArgumentParser(f"{program()} ui", description="Browse the runs in MLflow's UI.")
    parser.add_argument("--port", type=int, default=5000, help="on 127.0.0.1 (5000)")
    parser.add_argument("--experiment", help=f"whose runs to open ({Tracking().experiment})")
    parser.add_argument("--tracking-uri", help="the store (else MLFLOW_TRACKING_URI, else mlflow.db)")
    args = parser.parse_args(words)
    if not 0 < args.port < 65536:
        raise ConfigError(f"--port is {args.port}; allowed: 1 to 65535.")
    show = Report()
    store = Store(uri_of(args.tracking_uri, home()), home())
    if store.uri.startswith(("http://", "https://")):
        show.line("ui", store.runs_link(_experiment(store, args.experiment)), always=True)
        return 0
    _check_free(args.port)
    show.line("ui", "MLflow's server is starting, which takes several seconds …")
    link = store.runs_link(_experiment(store, args.experiment), base=f"http://{HOST}:{args.port}")
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as said:  # an unread pipe would fill
        server = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri,
                "--default-artifact-root", store.artifacts.as_uri(), "--host", HOST, "--port", str(args.port),
                "--workers", "1",
            ],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # Ctrl-C reaches us; we end it
        )  # fmt: skip
        try:
            _wait(server, args.port, said)
            show.line("ui", link, always=True)
            show.line("", "Ctrl-C ends it.")
            return 0 if server.wait() == 0 else 1
        except KeyboardInterrupt:
            return 0
        finally:
            _end(server)


def _experiment(store: Store, name: str | None) -> str:
    """The id of the experiment to open. A fresh store gets ours, to show where runs will be; a name must be there."""
    return store.experiment_id(Tracking().experiment) if name is None else store.known_experiment(name)


def _check_free(port: int) -> None:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ConfigError(
                f"port {port} on {HOST} is taken, perhaps by a UI that is open already: http://{HOST}:{port}",
                f"Choose another: python run.py ui --port {port + 1}",
            ) from None


def _wait(server: subprocess.Popen[bytes], port: int, said: IO[str]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            said.seek(0)
            lines = said.read().strip().splitlines()
            raise StoreError(f"MLflow's server ended at once: {lines[-1] if lines else 'it said nothing'}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
            return
        time.sleep(0.2)
    raise StoreError(f"MLflow's server did not answer within {PATIENCE} s.")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and the workers it started: its whole process group, by id."""
    import signal

    for number in (signal.SIGTERM, signal.SIGKILL):
        if server.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=10)
