"""Where runs are kept: refused early, opened safely, filled completely, and found again after a move."""

from __future__ import annotations

import collections
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from pairprobe import archive, tracking
from pairprobe.commands import compose
from pairprobe.commands.main import run
from pairprobe.config import build
from pairprobe.errors import StoreError
from pairprobe.provenance import Git
from pairprobe.tracking import Metric, Store, uri_of

HOST = "127.0.0.1"
SECRET = "geheim"


def store_in(folder: Path) -> Store:
    return Store(f"sqlite:///{folder / 'mlflow.db'}", folder)


def files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def web_server(health: int, other: int = 404) -> Iterator[str]:
    """A web server on this machine that answers /health with `health`, everything else with `other`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(health if self.path == "/health" else other)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def tcp_server(says: bytes | None) -> Iterator[str]:
    """What is no web server: it answers every connection with `says`, or with silence where that is None."""
    listening = socket.create_server((HOST, 0))

    def answer() -> None:
        with suppress(OSError):  # closed at the end of the test
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(says or b"")
                    connection.recv(4096)

    if says is not None:  # without accept() the kernel takes the connection and nobody ever answers
        threading.Thread(target=answer, daemon=True).start()
    try:
        yield f"http://{HOST}:{listening.getsockname()[1]}"
    finally:
        listening.close()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and one finished run; making one takes seconds, so all tests share it."""
    folder = tmp_path_factory.mktemp("origin")
    kept = folder / "made"
    kept.mkdir()
    (kept / "word.txt").write_text("*kʷel-", encoding="utf-8")
    for experiment in ("words", "Δ of words"):
        with store_in(folder).start(experiment, "first", {"a": 1}, {"b": 2}) as record:
            record.upload(kept)
    return folder


@pytest.fixture
def store(origin: Path) -> Store:
    return store_in(origin)


# ── can it be used? ──────────────────────────────────────────────────────────────────────────────────────


def test_a_store_that_can_be_made_has_no_problems_and_is_not_made_yet(tmp_path: Path, home: Path) -> None:
    assert store_in(home / "not" / "yet" / "there").problems() == []
    assert files_under(tmp_path) == ["home"]


def test_a_folder_below_a_file_cannot_be_written(home: Path) -> None:
    (home / "file").write_text("", encoding="utf-8")  # not even root can make a folder in it
    problems = store_in(home / "file" / "runs").problems()
    assert problems
    assert f"{home / 'file'} is not a folder" in str(problems[0])
    assert "keep runs elsewhere" in problems[0].next_step
    assert files_under(home) == ["file"]


def test_what_cannot_be_written_is_refused_before_it_is_opened(home: Path) -> None:
    (home / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        _ = store_in(home / "file" / "runs").client
    assert files_under(home) == ["file"]


def test_a_folder_in_the_place_of_the_database_is_a_problem(home: Path) -> None:
    # MLflow itself would try for 102 s to open it
    assert Store(f"sqlite:///{home}", home).problems()


def test_too_little_disk_is_told_in_numbers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 12_000_000, 12_000_000))
    (problem,) = store_in(home).problems()
    assert "12 MB free; a run needs up to 200 MB" in str(problem)
    assert files_under(home) == []


def test_a_dead_server_is_told_within_seconds(home: Path) -> None:
    began = time.monotonic()
    (problem,) = Store(f"http://{HOST}:{free_port()}", home).problems()
    assert time.monotonic() - began < 5
    assert "does not answer" in str(problem)
    assert "tracking.uri=sqlite:///mlflow.db" in problem.next_step


def test_a_server_that_never_answers_is_told_within_seconds(home: Path) -> None:
    began = time.monotonic()
    with tcp_server(says=None) as uri:
        (problem,) = Store(uri, home).problems()
    assert time.monotonic() - began < 12
    assert "does not answer" in str(problem)


def test_what_is_no_web_server_is_a_problem(home: Path) -> None:
    with tcp_server(says=b"SSH-2.0-OpenSSH_9.6\r\n") as uri:
        (problem,) = Store(uri, home).problems()
    assert "tracking server" in str(problem)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_says_it_is_broken_is_a_problem(home: Path, status: int) -> None:
    # 502 is what a proxy says in front of a dead MLflow: a sweep must not begin
    with web_server(health=status) as uri:
        (problem,) = Store(uri, home).problems()
    assert str(status) in str(problem)


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_answers_is_no_problem_and_the_home_is_not_touched(home: Path, status: int) -> None:
    with web_server(health=status) as uri:  # 401: it wants a password, which MLflow has from its own variables
        assert Store(uri, home).problems() == []
    assert files_under(home) == []


def test_a_server_whose_address_holds_a_password_is_found(home: Path) -> None:
    with web_server(health=200) as uri:
        assert Store(uri.replace("//", f"//someone:{SECRET}@"), home).problems() == []


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_no_database_is_refused_and_left_alone(home: Path) -> None:
    (home / "mlflow.db").write_text("a letter, no database\n" * 50, encoding="utf-8")
    with pytest.raises(StoreError, match=r"cannot be opened.*not a database"):
        _ = store_in(home).client
    assert (home / "mlflow.db").read_text(encoding="utf-8") == "a letter, no database\n" * 50


RACER = """
import sys, time
from pathlib import Path
import mlflow.tracking
from pairprobe.tracking import Metric, Store

home, number = Path(sys.argv[1]), sys.argv[2]
(home / f"ready{number}").touch()
while not (home / "go").exists():
    time.sleep(0.002)
with Store(f"sqlite:///{home / 'mlflow.db'}", home).start("pairprobe", f"run{number}", {"number": number}, {}) as run:
    run.log([Metric("number", float(number))])
"""


def test_four_processes_share_a_fresh_store_and_one_experiment(home: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(home), str(i)], stderr=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    try:
        deadline = time.monotonic() + 60
        while len(list(home.glob("ready*"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        (home / "go").touch()
        told = [racer.communicate(timeout=120)[1] for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert [racer.returncode for racer in racers] == [0, 0, 0, 0], told
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = {e.name: client.search_runs([e.experiment_id]) for e in client.search_experiments()}
    assert {name: len(found) for name, found in runs.items()} == {"pairprobe": 4, "Default": 0}
    assert sorted(r.data.metrics["number"] for r in runs["pairprobe"]) == [0, 1, 2, 3]
    assert {r.info.status for r in runs["pairprobe"]} == {"FINISHED"}


def test_an_experiment_is_made_once(store: Store) -> None:
    assert store.experiment_id("made once") == store.experiment_id("made once")


def test_a_deleted_experiment_is_told_and_not_made_again(store: Store) -> None:
    store.client.delete_experiment(store.experiment_id("thrown away"))
    with pytest.raises(StoreError, match="'thrown away' was deleted") as error:
        store.start("thrown away", "run", {}, {})
    assert "tracking.experiment=" in error.value.next_step


@pytest.mark.parametrize(
    ("setting", "variable", "taken"),
    [
        ("http://a", "http://b", "http://a"),
        (None, "http://b", "http://b"),
        ("http://a", None, "http://a"),
        (None, None, "sqlite:///HOME/mlflow.db"),
        (None, "", "sqlite:///HOME/mlflow.db"),
    ],
)
def test_the_setting_wins_over_the_variable_and_both_over_the_default(
    setting: str | None, variable: str | None, taken: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    assert uri_of(setting, home) == taken.replace("HOME", str(home))


@pytest.mark.parametrize("words", [[], ["tracking.uri=sqlite:///SETTING/mlflow.db"]])
def test_a_run_goes_where_the_setting_or_else_the_variable_says(
    words: list[str], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'variable' / 'mlflow.db'}")
    job = ["model=recorded", "method=recorded", "method.path=paper70_published"]
    job.append("method.model=Llama-3.3-70B-Instruct-INT8")
    assert run([*job, *(w.replace("SETTING", str(tmp_path / "setting")) for w in words), "--quiet"]) == 0
    meant, other = ("setting", "variable") if words else ("variable", "setting")
    assert store_in(tmp_path / meant).count_runs() == 1
    assert not (tmp_path / other).exists()
    assert not (home / "mlflow.db").exists()


def test_the_variables_that_calm_mlflow_are_set_unless_the_user_set_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in tracking.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    store_in(home)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["DO_NOT_TRACK"] == "true"
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 3
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"


def test_no_telemetry_client_is_there_after_a_store_was_opened() -> None:
    code = (
        "from pathlib import Path; from pairprobe.tracking import Store; Store('http://127.0.0.1:9', Path('.')); "
        "import mlflow; from mlflow.telemetry.client import get_telemetry_client; print(get_telemetry_client())"
    )
    clean = {k: v for k, v in os.environ.items() if k not in tracking.ENVIRONMENT and k not in ("CI", "PYTEST_VERSION")}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────


def test_thousands_of_metrics_and_hundreds_of_params_arrive_exactly_once(store: Store) -> None:
    metrics = [Metric(f"curve{c}/delta", c + step / 1000, step) for c in range(25) for step in range(100)]
    params = {f"group.key{i}": i for i in range(250)}
    tags = {f"tag{i}": i for i in range(120)}
    with store.start("chunks", "run", {}, {}) as record:
        record.log(metrics, params, tags)
    logged = store.client.get_run(record.run_id).data
    assert {k: logged.params[k] for k in params} == {k: str(v) for k, v in params.items()}
    assert {k: logged.tags[k] for k in tags} == {k: str(v) for k, v in tags.items()}
    for c in range(25):  # a point logged twice would double the curve
        history = store.client.get_metric_history(record.run_id, f"curve{c}/delta")
        assert [(m.step, m.value) for m in history] == [(step, c + step / 1000) for step in range(100)]


def test_a_value_longer_than_mlflow_allows_is_cut_instead_of_refused(store: Store) -> None:
    with store.start("long", "run", {"long": "x" * 6000 + "y" * 6000}, {"long": "x" * 20_000}) as record:
        pass
    logged = store.client.get_run(record.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.params["long"] == "x" * 6000
    assert set(logged.data.tags["long"]) == {"x"}


def test_a_param_that_mlflow_refuses_is_a_store_error_and_closes_the_run(store: Store) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        store.start("refused", "run", {"a\nb": 1}, {})
    (left,) = store.client.search_runs([store.experiment_id("refused")])
    assert left.info.status == "FAILED"


@pytest.mark.parametrize(
    ("error", "status", "tag"),
    [
        (None, "FINISHED", None),
        (ValueError("ᚠ is not a word"), "FAILED", "ᚠ is not a word"),
        (ValueError(), "FAILED", "ValueError"),  # an empty tag would say nothing
        (ValueError("x" * 20_000), "FAILED", "x" * 5000),
        (KeyboardInterrupt(), "KILLED", None),
    ],
    ids=["well", "error", "wordless error", "endless error", "interrupt"],
)
def test_how_a_run_was_left_is_its_status(
    store: Store, error: BaseException | None, status: str, tag: str | None
) -> None:
    record = store.start("left", "run", {}, {})
    with suppress(ValueError, KeyboardInterrupt), record:
        if error is not None:
            raise error
    left = store.client.get_run(record.run_id)
    assert left.info.status == status
    said = [f"run {record.run_id} is marked KILLED"] if isinstance(error, KeyboardInterrupt) else []
    assert getattr(error, "__notes__", []) == said
    assert left.info.end_time is not None
    assert left.data.tags.get("error") == tag


def test_an_error_is_not_hidden_by_a_store_that_broke_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_words: object, **_named: object) -> None:
        raise OSError("database or disk is full")

    with pytest.raises(ValueError, match="the first"), store.start("broken", "run", {}, {}):  # noqa: PT012
        monkeypatch.setattr(MlflowClient, "log_batch", broken)
        monkeypatch.setattr(MlflowClient, "set_terminated", broken)
        raise ValueError("the first error")


def test_an_interrupt_does_not_claim_a_mark_that_the_store_did_not_take(store: Store, monkeypatch) -> None:
    def broken(*_words: object, **_named: object) -> None:
        raise OSError("database or disk is full")

    record = store.start("broken", "run", {}, {})
    monkeypatch.setattr(MlflowClient, "set_terminated", broken)
    with pytest.raises(KeyboardInterrupt) as interrupt, record:
        raise KeyboardInterrupt
    assert interrupt.value.__notes__ == [f"run {record.run_id} could not be marked KILLED"]


def test_a_run_that_cannot_be_closed_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: object) -> None:
        raise OSError("database or disk is full")

    record = store.start("unclosed", "run", {}, {})
    monkeypatch.setattr(MlflowClient, "set_terminated", full)
    with pytest.raises(StoreError, match="cannot be closed") as error, record:
        pass
    assert "Free some disk" in error.value.next_step


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def run_ids(origin: Path) -> list[str]:
    """17 runs: two of them begin with the same of 16 hexadecimal digits."""
    store = store_in(origin)
    experiment = store.experiment_id("many")
    return [str(store.client.create_run(experiment).info.run_id) for _ in range(17)]


@pytest.mark.parametrize("length", [12, 31, 32])
def test_a_run_is_found_by_its_id_or_the_beginning_of_it(store: Store, run_ids: list[str], length: int) -> None:
    assert store.find(run_ids[3][:length]).info.run_id == run_ids[3]


def test_a_beginning_that_several_runs_share_is_refused_with_their_number(store: Store, run_ids: list[str]) -> None:
    digit, _ = collections.Counter(i[0] for i in run_ids).most_common(1)[0]
    every = store.client.search_runs([e.experiment_id for e in store.client.search_experiments()])
    count = sum(r.info.run_id.startswith(digit) for r in every)
    with pytest.raises(StoreError, match=f"{count} runs begin with '{digit}'"):
        store.find(digit)


@pytest.mark.parametrize("run_id", ["", "0123456789", "g" * 32, "f" * 40])
@pytest.mark.usefixtures("run_ids")
def test_an_unknown_run_is_refused_with_the_way_to_see_those_there_are(store: Store, run_id: str) -> None:
    with pytest.raises(StoreError, match="no run") as error:
        store.find(run_id)
    assert "python run.py ui" in error.value.next_step


def test_a_missing_artifact_is_an_error_that_names_it(store: Store, run_ids: list[str]) -> None:
    with pytest.raises(StoreError, match=r"has no tables/similarities\.json"):
        store.table(run_ids[0], "tables/similarities.json")


@pytest.mark.parametrize("ask", ["start", "find", "count_runs"])
def test_a_server_that_is_not_mlflow_is_a_store_error(home: Path, ask: str) -> None:
    with web_server(health=200, other=404) as uri:
        store = Store(uri, home)
        with pytest.raises(StoreError):
            {
                "start": lambda: store.start("pairprobe", "run", {}, {}),
                "find": lambda: store.find("0123"),
                "count_runs": store.count_runs,
            }[ask]()


@pytest.mark.parametrize("name", [".", "..", "...", "../../up", "a/b", "/etc", "..\\\\up", "Wörter 1"])
def test_an_experiment_s_folder_lies_in_mlruns_whatever_its_name(name: str, home: Path) -> None:
    store = store_in(home)
    with store.start(name, "run", {}, {}) as record:
        pass
    place = Path(store.client.get_run(record.run_id).info.artifact_uri.removeprefix("file://"))
    folder = Path(unquote(str(place))).resolve().relative_to((home / "mlruns").resolve())
    assert folder.parts[1:] == (record.run_id, "artifacts")  # one folder for the experiment


# ── passwords ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "uri",
    [
        f"http://someone:{SECRET}@{HOST}:CLOSED",
        f"http://someone:{SECRET}@{HOST}",  # without a port, the password is what http.client takes for one
        f"postgresql+psycopg2://someone:{SECRET}@{HOST}:CLOSED/mlflow",
        f"nonsense://someone:{SECRET}@{HOST}/mlflow",  # MLflow's own words repeat the whole address
    ],
)
def test_a_password_is_never_in_an_error(uri: str, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoreError) as error:
        Store(uri.replace("CLOSED", str(free_port())), home).find("0123")
    assert SECRET not in str(error.value)
    assert SECRET not in "".join(capfd.readouterr())


def test_a_password_is_not_in_the_link_that_a_run_prints(home: Path) -> None:
    store = Store(f"http://someone:{SECRET}@{HOST}:5000", home)
    assert SECRET not in store.runs_link("1", "f" * 32)


def test_a_password_is_not_recorded_with_the_settings(home: Path) -> None:
    job = build(compose.jobs([f"tracking.uri=http://someone:{SECRET}@{HOST}:5000"], multirun=False)[0])
    archive.write_config(home, job, Git())
    assert SECRET not in str(archive.params(job))
    assert SECRET not in (home / "config" / "config.yaml").read_text(encoding="utf-8")


def test_doctor_does_not_print_a_password(capfd: pytest.CaptureFixture[str]) -> None:
    with web_server(health=200) as uri:
        run(["doctor", "method=static", f"tracking.uri={uri.replace('//', f'//someone:{SECRET}@')}"])
    out, err = capfd.readouterr()
    assert "store" in out
    assert SECRET not in out + err


# ── folders that move ────────────────────────────────────────────────────────────────────────────────────

NAMES = ["plain", "with space", "Wörter", "a+b"]


def place(origin: Path, how: str, target: Path) -> Path:
    """`target` with a copy of the origin, or with what was moved there; returns where it came from."""
    if how == "copied":
        shutil.copytree(origin, target)
        return origin
    shutil.copytree(origin, target.with_name("was"))
    store_in(target.with_name("was")).count_runs()  # opened there once, so that its runs lie there
    shutil.move(target.with_name("was"), target)
    return target.with_name("was")


def first_run(store: Store, experiment: str) -> Any:
    found = store.client.get_experiment_by_name(experiment)
    (first,) = store.client.search_runs([found.experiment_id], "attributes.run_name = 'first'")
    return first


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_runs_follow_their_folder(origin: Path, tmp_path: Path, how: str, name: str) -> None:
    place(origin, how, tmp_path / name)
    store = store_in(tmp_path / name)
    first = first_run(store, "words")
    assert first.info.artifact_uri.startswith((tmp_path / name).as_uri() + "/")
    assert store.artifact(first.info.run_id, "word.txt").read_text(encoding="utf-8") == "*kʷel-"


def test_runs_of_an_experiment_with_a_name_beyond_ascii_follow_their_folder(origin: Path, tmp_path: Path) -> None:
    place(origin, "moved", tmp_path / "plain")
    store = store_in(tmp_path / "plain")
    first = first_run(store, "Δ of words")
    assert store.artifact(first.info.run_id, "word.txt").read_text(encoding="utf-8") == "*kʷel-"
    assert first.info.artifact_uri.startswith((tmp_path / "plain").as_uri() + "/")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_new_run_is_written_where_the_folder_is_now(origin: Path, tmp_path: Path, how: str, name: str) -> None:
    source = place(origin, how, tmp_path / name)
    before = files_under(source / "mlruns")
    with store_in(tmp_path / name).start("words", "second", {}, {}) as record:
        record.upload(origin / "made")
    assert files_under(source / "mlruns") == before
    assert list((tmp_path / name / "mlruns").glob(f"*/{record.run_id}/artifacts/word.txt"))


def test_an_experiment_that_has_no_files_yet_follows_too(tmp_path: Path, origin: Path) -> None:
    # as `run.py ui` makes it before the first run
    source = place(origin, "moved", tmp_path / "was it")
    store_in(tmp_path / "was it").experiment_id("empty")
    shutil.move(tmp_path / "was it", tmp_path / "now")
    with store_in(tmp_path / "now").start("empty", "run", {}, {}) as record:
        record.upload(origin / "made")
    assert not (tmp_path / "was it").exists()
    assert not source.exists()
    assert list((tmp_path / "now" / "mlruns").glob(f"empty/{record.run_id}/artifacts/word.txt"))


# ── a real tracking server ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """MLflow's own server with a fresh store: its address and the folder it keeps everything in."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    words = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination"]
    words += [(folder / "kept").as_uri(), "--host", HOST, "--port", str(port), "--workers", "1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # ten more processes
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 90
            while True:
                with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                    break
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"http://{HOST}:{port}", folder
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def served(server: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The id of a run made on the server, and the home it was started from."""
    home = tmp_path_factory.mktemp("home of served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIRPROBE_HOME", str(home))
        assert run(["method=static", "--quiet", f"tracking.uri={server[0]}"]) == 0
    client = MlflowClient(server[0])
    experiment = client.get_experiment_by_name("pairprobe")
    (recorded,) = client.search_runs([experiment.experiment_id], "tags.method = 'static'", max_results=1)
    return str(recorded.info.run_id), home


def test_a_run_on_a_server_is_complete_there(server: tuple[str, Path], served: tuple[str, Path], home: Path) -> None:
    store = Store(server[0], home)
    recorded = store.find(served[0][:10])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params["method.name"] == "static"
    assert recorded.data.params["tracking.uri"] == server[0]
    rows = store.table(served[0], "tables/similarities.json")
    cosines = {g: [r["similarity"] for r in rows if r["similarity_kind"] == "cosine" and r["group"] == g] for g in
               ("cognate", "control")}  # fmt: skip
    assert [len(values) for values in cosines.values()] == [10, 4]
    delta = sum(cosines["cognate"]) / 10 - sum(cosines["control"]) / 4
    assert delta == pytest.approx(recorded.data.metrics["delta"], abs=1e-12)


@pytest.mark.parametrize("name", ["delta_by_depth", "similarities_by_group", "word_map"])
def test_figures_come_back_through_the_server(
    server: tuple[str, Path], served: tuple[str, Path], home: Path, name: str
) -> None:
    with Image.open(Store(server[0], home).artifact(served[0], f"figures/{name}.png")) as image:
        assert image.width > 500


def test_a_run_on_a_server_leaves_neither_store_nor_results_at_home(
    server: tuple[str, Path], served: tuple[str, Path]
) -> None:
    assert not list(served[1].glob("mlflow.db*"))
    assert not [p for p in served[1].rglob("*") if p.suffix in (".json", ".png", ".safetensors")]
    assert list((server[1] / "kept").rglob("word_map.png"))


def test_a_run_on_a_server_is_reproduced_there(server: tuple[str, Path], served: tuple[str, Path], home: Path) -> None:
    assert run(["reproduce", served[0], "--tracking-uri", server[0]]) == 0
    store = Store(server[0], home)
    experiment = store.find(served[0]).info.experiment_id
    (again,) = store.client.search_runs([experiment], f"tags.reproduces = '{served[0]}'")
    assert again.data.tags["reproduces_same"] == "true"
    assert not list(home.glob("mlflow.db*"))


def test_the_ui_of_a_server_is_a_link_to_it(server: tuple[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["ui", "--tracking-uri", server[0]]) == 0
    assert f"{server[0]}/#/experiments/" in capfd.readouterr().out


def test_a_missing_run_on_a_server_is_an_error(server: tuple[str, Path], home: Path) -> None:
    with pytest.raises(StoreError, match="no run begins with"):
        Store(server[0], home).find("0123456789")
