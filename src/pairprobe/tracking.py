"""The only file that knows MLflow: where runs are kept, how one is opened, filled, closed and read back."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from pairprobe import stores, sweeps
from pairprobe.errors import StoreError, nearest
from pairprobe.running import Running
from pairprobe.stores import without_password

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",  # its notes on migrations are not the user's
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # a dead server otherwise hangs one call for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
BATCH = {"metrics": 1000, "params": 100, "tags": 100}  # MLflow's own limits a call
LONGEST_PARAM, LONGEST_TAG = 6000, 5000
TABLES = ("tables/similarities.json", "tables/tokens.json")


@dataclass(frozen=True)
class Metric:
    """One number; step is the depth for curves, 0 for scalars."""

    key: str
    value: float
    step: int = 0


def uri_of(setting: str | None, home: Path) -> str:
    """The tracking URI: the setting, else MLFLOW_TRACKING_URI, else mlflow.db under `home`."""
    return setting or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"


def _database(uri: str) -> Path | None:
    """The file of a sqlite URI, absolute; None for other stores."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()


class Store:
    """An MLflow store, not yet opened.

    Args:
        uri: of the store, see `uri_of`.
        home: where mlruns/ lies for stores that do not keep artifacts themselves.
    """

    def __init__(self, uri: str, home: Path) -> None:
        for key, value in ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        self.uri = uri
        self.database = _database(uri)
        self.artifacts = (self.database.parent if self.database else home) / "mlruns"
        self.running = Running(self.artifacts / ".running", uri)
        self._client: Any = None

    # ── can it be used? ──────────────────────────────────────────────────────────────────────────────────

    def problems(self) -> list[StoreError]:
        """Everything that would keep a run from being recorded. Writes nothing that stays."""
        shown = without_password(self.uri)
        if self.uri.startswith(stores.WEB):
            return stores.server_problems(self.uri, shown)
        if self.database is None and not self.uri.startswith(stores.DATABASES):
            return [StoreError(f"tracking.uri={shown} is no store that MLflow 3 keeps runs in.", stores.ALLOWED)]
        found = stores.folder_problems(self.artifacts, self.database)
        return found if self.database else found + stores.database_problems(self.uri, shown, self._log_in)

    def _log_in(self) -> None:
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(self.uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def client(self) -> Any:
        """MLflow's client; the first use creates or opens the store."""
        if self._client is None:
            problems = self.problems()
            if problems:
                raise StoreError([p for e in problems for p in e.problems], problems[0].next_step)
            self._client = self._connect()
        return self._client

    def _connect(self) -> Any:
        try:
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            logging.getLogger("alembic").setLevel(logging.WARNING)
            import mlflow  # noqa: F401  registers its stores
            from mlflow.tracking import MlflowClient

            if self.database is None:
                return MlflowClient(self.uri)
            from filelock import FileLock

            self.database.parent.mkdir(parents=True, exist_ok=True)
            # Several processes that create a fresh sqlite store at once break it.
            with FileLock(f"{self.database}.lock", timeout=120):
                fresh = not self.database.exists()
                client = MlflowClient(f"sqlite:///{self.database}", registry_uri=f"sqlite:///{self.database}")
                for experiment in client.search_experiments():
                    self._follow_the_move(experiment)
                if fresh:
                    with sqlite3.connect(self.database, timeout=60) as db:
                        db.execute("PRAGMA journal_mode=WAL")  # readers and a writer side by side
            return client
        except Exception as error:
            raise _store_error(f"the store {without_password(self.uri)} cannot be opened", error) from error

    def known_experiment(self, name: str) -> str:
        """The id of an experiment that is there. Raises StoreError, naming the nearest, where it is not."""
        client = self.client
        there = self._ask("the experiments cannot be read", lambda: {e.name: e for e in client.search_experiments()})
        if name in there:
            return str(there[name].experiment_id)
        raise StoreError(
            f"there is no experiment '{name}' in {without_password(self.uri)}.{nearest(name, there)}",
            f"Experiments there: {', '.join(sorted(there)) or 'none'}.",
        )

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, created once; racing creators agree on one."""
        client = self.client
        for attempt in range(5):
            found = self._ask(f"experiment '{name}' cannot be read", lambda: client.get_experiment_by_name(name))
            if found is not None:
                if found.lifecycle_stage != "active":
                    raise StoreError(
                        f"MLflow's experiment '{name}' was deleted.",
                        "Restore it in the UI's trash, or choose another: tracking.experiment=NAME",
                    )
                return str(found.experiment_id)
            try:
                local = not self.uri.startswith(stores.WEB)
                client.create_experiment(
                    name,
                    artifact_location=(self.artifacts / stores.slug(name)).as_uri() if local else None,
                    # opens the UI on the runs table, not on the page for chat agents
                    tags={"mlflow.experimentKind": "custom_model_development"},
                )
            except Exception as error:  # somebody else was faster, or the store is broken
                if attempt == 4:
                    raise _store_error(f"experiment '{name}' cannot be created", error) from error
                time.sleep(0.2 * (attempt + 1))
        raise StoreError(f"experiment '{name}' cannot be created.")

    def _ask(self, failure: str, question: Callable[[], Any]) -> Any:
        """The client's answer; what it raises becomes a StoreError that begins with `failure`."""
        try:
            return question()
        except StoreError:
            raise
        except Exception as error:
            raise _store_error(failure, error) from error

    def _follow_the_move(self, experiment: Any) -> None:
        """Artifact paths are absolute: when the folder was moved or copied, point them at this one."""
        slug = stores.slug(experiment.name)
        old, new = experiment.artifact_location, (self.artifacts / slug).as_uri()
        ours = old.startswith("file:") and unquote(old).endswith(f"/mlruns/{slug}")  # as experiment_id makes them
        if self.database is None or not ours or old == new:
            return
        with sqlite3.connect(self.database, timeout=60) as db:
            db.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (new, experiment.experiment_id),
            )
            db.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (new, len(old) + 1, experiment.experiment_id, len(old), old),
            )

    # ── writing a run ────────────────────────────────────────────────────────────────────────────────────

    def start(self, experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, Any]) -> OpenRun:
        """Create a run with its params and tags; use it as a context manager. Runs here that processes of this machine
        left RUNNING when they were killed are KILLED from then on."""
        experiment_id = self.experiment_id(experiment)
        self.running.end_left_over(self.client)
        try:
            run = self.client.create_run(
                experiment_id,
                run_name=name,
                tags={"mlflow.source.name": "pairprobe", "mlflow.source.type": "LOCAL", "mlflow.user": stores.user()},
            )
        except Exception as error:
            raise _store_error("a run cannot be created", error) from error
        opened = OpenRun(self, str(run.info.run_id), experiment_id, name, self.running.mark(str(run.info.run_id)))
        try:
            opened.log(params=params, tags=tags)
        except BaseException as error:
            opened.__exit__(type(error), error, None)
            raise
        return opened

    # ── reading runs ─────────────────────────────────────────────────────────────────────────────────────

    def find(self, run_id: str) -> Any:
        """The run with this id, or the only one whose id begins so. Raises StoreError."""
        from mlflow.exceptions import MlflowException

        if len(run_id) >= 32:
            try:
                return self.client.get_run(run_id)
            except MlflowException:
                raise StoreError(
                    f"no run {run_id} in {without_password(self.uri)}.", "python run.py ui shows the runs."
                ) from None
        found = [r for r in self.runs() if run_id and r.info.run_id.startswith(run_id)]
        if len(found) == 1:
            return found[0]
        many = f"{len(found)} runs begin with" if found else "no run begins with"
        raise StoreError(
            f"{many} '{run_id}' in {without_password(self.uri)}.",
            "Give more of its id; python run.py ui shows the runs.",
        )

    def finished(self, like: Mapping[str, str], unlike: Mapping[str, str], most: int = 100) -> Iterator[list[Any]]:
        """Finished runs that have the tags `like` and other values of the tags `unlike`, those in the UI's trash too,
        the first begun first: in pages of `most`, so that a slow store can be left."""
        from mlflow.entities import ViewType

        return self._pages(stores.wanted(like, unlike), ViewType.ALL, most, ["attributes.start_time ASC"])

    def original(self, run: Any) -> Any | None:
        """The run that this one reproduces; None where it reproduces none, or that one is not here."""
        wanted = run.data.tags.get("reproduces")
        return next((r for r in self.runs() if r.info.run_id == wanted), None) if wanted else None

    def sweep(self, beginning: str) -> tuple[str, list[Any]]:
        """(id, runs in the order in which they began) of the only sweep whose id begins so; see `sweeps.named`."""
        return sweeps.named(self.runs(), beginning)

    def artifacts_of(self, run: Any) -> Path | None:
        """The folder of a run's artifacts where it is on this machine, else None."""
        folder = Path(unquote(str(run.info.artifact_uri).removeprefix("file://")))  # a server's: mlflow-artifacts:…
        return folder if folder.is_absolute() and folder.is_dir() else None

    def count_runs(self) -> int:
        return len(self.runs())

    def runs(self) -> list[Any]:
        def ask() -> list[Any]:
            return [run for page in self._pages() for run in page]

        found: list[Any] = self._ask(f"the runs of {without_password(self.uri)} cannot be read", ask)
        return found

    def _pages(self, wanted: str = "", kind: int = 1, most: int = 1000, order: Any = None) -> Iterator[list[Any]]:
        """Runs of all experiments by MLflow's own filter; kind: of MLflow's ViewType, 1 leaves deleted ones out."""
        ids = [e.experiment_id for e in self.client.search_experiments(kind)]
        token = None
        while ids:
            page = self.client.search_runs(ids, wanted, kind, most, order, token)
            yield list(page)
            token = page.token
            if not token:
                return

    def files(self, run_id: str, folder: str | None = None) -> set[str]:
        """Paths of a run's artifacts at the top, or in a folder of them."""
        return {a.path for a in self._ask("files cannot be listed", lambda: self.client.list_artifacts(run_id, folder))}

    def artifact(self, run_id: str, path: str, into: Path | None = None) -> Path:
        """One artifact's own file where it lies on this machine, else a local copy, under `into` where that is given:
        read it only.

        Raises StoreError where the run has none.
        """
        try:
            where = str(self.client.get_run(run_id).info.artifact_uri)
            file = Path(unquote(where.removeprefix("file://"))) / path  # MLflow would copy it, gigabytes of vectors too
            if where.startswith("file:///") and file.exists():
                return file
            return Path(self.client.download_artifacts(run_id, path, str(into) if into else None))
        except Exception as error:
            raise _store_error(f"run {run_id} has no {path}", error) from error

    def table(self, run_id: str, path: str) -> list[dict[str, Any]]:
        """A logged table as one dict per row."""
        data = json.loads(self.artifact(run_id, path).read_text(encoding="utf-8"))
        return [dict(zip(data["columns"], row, strict=True)) for row in data["data"]]

    def runs_link(self, experiment_id: str, run_id: str | None = None, base: str | None = None) -> str:
        """Where the UI shows a run, or the experiment's table of runs."""
        base = (base or (self.uri if self.uri.startswith("http") else "http://127.0.0.1:5000")).rstrip("/")
        page = f"{re.sub('//[^/@]*@', '//', base)}/#/experiments/{experiment_id}/runs{f'/{run_id}' if run_id else ''}"
        return f"{page}?workflowType=machine_learning"  # else it may open as MLflow's page for chat agents


class OpenRun:
    """A run being recorded. Left by an exception it ends FAILED, by an interrupt KILLED, else FINISHED.

    ended: called once the store knows how it ended.
    """

    def __init__(
        self, store: Store, run_id: str, experiment_id: str, name: str, ended: Callable[[], None] = lambda: None
    ) -> None:
        self.store, self.run_id, self.experiment_id, self.name = store, run_id, experiment_id, name
        self._ended = ended

    def log(
        self,
        metrics: list[Metric] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Write in as few calls as MLflow allows: one, unless there are more than 1000 metrics."""
        from mlflow.entities import Metric as Logged
        from mlflow.entities import Param, RunTag

        now = int(time.time() * 1000)
        waiting: dict[str, list[Any]] = {
            "metrics": [Logged(m.key, float(m.value), now, m.step) for m in metrics or []],
            "params": [Param(k, str(v)[:LONGEST_PARAM]) for k, v in (params or {}).items()],
            "tags": [RunTag(k, str(v)[:LONGEST_TAG]) for k, v in (tags or {}).items()],
        }
        try:
            while any(waiting.values()):
                room = 1000  # entities of all kinds in one call
                call = {}
                for kind, most in BATCH.items():
                    call[kind] = waiting[kind][: min(most, room)]
                    waiting[kind] = waiting[kind][len(call[kind]) :]
                    room -= len(call[kind])
                self.store.client.log_batch(self.run_id, **call)
        except Exception as error:
            raise _store_error(f"run {self.run_id} cannot be written", error) from error

    def upload(self, folder: Path) -> None:
        """Log every file under `folder`, and mark the tables so that the UI can compare them across runs."""
        try:
            self.store.client.log_artifacts(self.run_id, str(folder))
        except Exception as error:
            raise _store_error(f"artifacts of run {self.run_id} cannot be written", error) from error
        tables = [{"path": t, "type": "table"} for t in TABLES if (folder / t).exists()]
        if tables:
            self.log(tags={"mlflow.loggedArtifacts": json.dumps(tables)})

    def end(self, status: str) -> None:
        """Set the final status: FINISHED, FAILED or KILLED."""
        self.store.client.set_terminated(self.run_id, status)
        self._ended()

    def __enter__(self) -> OpenRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self.end("FINISHED")
            except Exception as failure:
                raise _store_error(f"run {self.run_id} cannot be closed", failure) from failure
            return
        ended = "is marked"
        try:
            if isinstance(error, Exception):
                self.log(tags={"error": str(error) or type(error).__name__})
            self.end("FAILED" if isinstance(error, Exception) else "KILLED")
        except Exception:  # the store itself is what broke: the first error is the one to tell
            ended = "could not be marked"
        if isinstance(error, KeyboardInterrupt):  # whoever tells of it knows no run
            error.add_note(f"run {self.run_id} {ended} KILLED")


def _store_error(what: str, error: Exception) -> StoreError:
    text = without_password(str(error).strip().split("\n")[0])[:300] or type(error).__name__
    return StoreError(f"{what}: {text}", stores.next_step(text))
