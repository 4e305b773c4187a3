"""python run.py report RUN_ID … | --sweep ID: a page that tells what came out, to read, print or send."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pairprobe import archive, disk
from pairprobe.config import home
from pairprobe.errors import ConfigError, StoreError
from pairprobe.page import stored
from pairprobe.page.document import page, page_of_several
from pairprobe.report import Report, program, shortened
from pairprobe.tokens import counted
from pairprobe.tracking import Store, uri_of

#: What of a run's artifacts a page is made from.
NEEDED = ("outcome.json", "tables/similarities.json", "tables/pairs.json", "tables/tokens.json")


def main(words: list[str]) -> int:
    """Exit code 0; 2 where a run cannot be read or the page not be written."""
    parser = argparse.ArgumentParser(
        f"{program()} report",
        description="A page that tells what runs found, in plain words and figures: one HTML file.",
        epilog="Every run logs its own as artifact report.html; this makes it anew, or one page of several runs.",
    )
    parser.add_argument("run_id", nargs="*", help="runs, or enough of the beginning of their ids")
    parser.add_argument("--sweep", metavar="ID", help="all runs of a sweep, or enough of the beginning of its id")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it (else under mlruns/reports/)")
    parser.add_argument("--tracking-uri", help="the store they are in (else MLFLOW_TRACKING_URI, else mlflow.db)")
    args = parser.parse_args(words)
    if bool(args.run_id) == bool(args.sweep):
        raise ConfigError(
            "report was given runs and a sweep." if args.sweep else "report was given neither a run nor a sweep.",
            "Say which: python run.py report RUN_ID, or python run.py report --sweep ID",
        )
    store = Store(uri_of(args.tracking_uri, home()), home())
    if args.sweep:
        name, runs = store.sweep(args.sweep)
        file, text = f"sweep_{name}.html", _of_sweep(store, name, runs)
    else:
        runs = _finished([store.find(run_id) for run_id in dict.fromkeys(args.run_id)])
        file = "_".join(r.info.run_id[:8] for r in runs[:6]) + ".html"
        text = _of_runs(store, runs)
    target = args.out.expanduser() if args.out else home() / "mlruns" / "reports" / file
    _write(target, text)
    Report().line("report", f"{shortened(target.absolute())}", always=True)
    return 0


def of_sweep(run_id: str, uri: str | None) -> Path:
    """Write the page of the sweep of a run in the store at `uri` beside the jobs' folders; where it is."""
    store = Store(uri_of(uri, home()), home())
    run = store.find(run_id)
    name, runs = store.sweep(run.data.tags["sweep_id"])
    target = home() / "mlruns" / "sweeps" / name / archive.REPORT
    _write(target, _of_sweep(store, name, runs))
    return target


def _of_runs(store: Store, runs: Sequence[Any]) -> str:
    read = [_read(store, run) for run in runs]
    return page(read[0]) if len(read) == 1 else page_of_several(read, "Runs side by side")


def _of_sweep(store: Store, name: str, runs: Sequence[Any]) -> str:
    done = [r for r in runs if r.info.status == "FINISHED"]
    rest = [(r.info.run_name, r.info.run_id, r.info.status) for r in runs if r.info.status != "FINISHED"]
    if not done:
        raise StoreError(
            f"of {counted(len(runs), 'run')} in sweep {name} none has finished; there is nothing to report.",
            "python run.py ui shows what became of them.",
        )
    return page_of_several([_read(store, run) for run in done], f"Sweep {name}", rest)


def _finished(runs: Sequence[Any]) -> list[Any]:
    """Each run once. Raises StoreError, naming those that have no result."""
    once = list({r.info.run_id: r for r in runs}.values())
    unfinished = [r for r in once if r.info.status != "FINISHED"]
    if unfinished:
        raise StoreError(
            [f"run {r.info.run_id} is {r.info.status}; it has no result to report." for r in unfinished],
            "python run.py ui shows the runs.",
        )
    return once


def _read(store: Store, run: Any) -> stored.Run:
    """A run's files where they lie on this machine, else local copies of those that are needed."""
    import tempfile

    folder = store.artifacts_of(run)
    if folder is not None:
        return stored.read(folder, run, store.original(run))
    with tempfile.TemporaryDirectory(prefix="pairprobe-") as copies:
        there = store.files(run.info.run_id) | store.files(run.info.run_id, "tables")
        for path in (p for p in NEEDED if p in there):
            store.artifact(run.info.run_id, path, Path(copies))
        return stored.read(Path(copies), run, store.original(run))


def _write(file: Path, text: str) -> None:
    if file.is_dir():
        raise ConfigError(f"--out is {file}, which is a folder.", "Name a file: --out report.html")
    reason = disk.unwritable(file.parent)
    if reason:
        raise StoreError(f"{file} cannot be written ({reason}).", "Write it elsewhere: --out FILE")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{file} cannot be written ({error.strerror}).", "Write it elsewhere: --out FILE") from None
