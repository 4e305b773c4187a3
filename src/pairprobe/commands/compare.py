"""python run.py compare RUN_ID RUN_ID … | --sweep ID: what was set differently, what came out, and how alike the
runs see the same words and pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pairprobe import disk, figures
from pairprobe.across import comparison, lines, maps, table
from pairprobe.across.runs import Recorded, labels, read
from pairprobe.config import home
from pairprobe.errors import ConfigError, StoreError
from pairprobe.report import Report, program
from pairprobe.statistics.across import LEAST
from pairprobe.tokens import counted
from pairprobe.tracking import Store, uri_of

WORDS = 500  # that CKA and RSA use: their time grows with the square


def main(words: list[str]) -> int:
    """Exit code 0; 2 where a run cannot be read, or a table not be written."""
    args = _parsed(words)
    if args.table is not None:
        table.check(args.table)
    store = Store(uri_of(args.tracking_uri, home()), home())
    show = Report()
    runs = [read(store, run) for run in _chosen(store, args, show)]
    found = comparison.compare(runs, args.words)
    names = labels(runs)
    lines.show(found, names, show)
    for i, file in enumerate(_draw(found, names)):
        show.line("figures" if i == 0 else "", str(file), always=True)
    if args.table is not None:
        table.write(runs, args.table)
        show.line("table", f"{args.table} · {len(runs)} rows", always=True)
    return 0


def _parsed(words: list[str]) -> Any:
    parser = argparse.ArgumentParser(
        f"{program()} compare",
        description="What differs between runs: settings, Δ and how far it changed, every pair, and how alike the "
        "runs' vectors see the same words (debiased CKA, RSA).",
    )
    parser.add_argument("run_id", nargs="*", help="two runs or more, or enough of the beginning of their ids")
    parser.add_argument("--sweep", metavar="ID", help="all finished runs of a sweep, or the beginning of its sweep_id")
    parser.add_argument(
        "--table", metavar="FILE", type=Path, help=f"one row per run for a paper; ends in {', '.join(table.FORMATS)}"
    )
    parser.add_argument(
        "--words", metavar="N", type=int, default=WORDS,
        help=f"most shared words that CKA and RSA use, drawn at random where there are more ({WORDS})",
    )  # fmt: skip
    parser.add_argument("--tracking-uri", help="the store they are in (else MLFLOW_TRACKING_URI, else mlflow.db)")
    args = parser.parse_intermixed_args(words)
    if args.sweep is not None and args.run_id:
        raise ConfigError("compare was given runs and --sweep; they do not go together.", "Give one of them.")
    if args.sweep is None and len(args.run_id) < 2:
        raise ConfigError(
            f"compare was given {'one run' if args.run_id else 'no run'}; it needs two or more, or --sweep ID.",
            "python run.py ui shows the runs.",
        )
    if args.words < LEAST:
        raise ConfigError(f"--words is {args.words}; allowed: {LEAST} or more.")
    return args


def _chosen(store: Store, args: Any, show: Report) -> list[Any]:
    """The runs as MLflow has them, all finished.

    Raises:
        StoreError: a run is not there or not finished, one is named twice, or a sweep holds fewer than two.
    """
    if args.sweep is not None:
        sweep, runs = store.sweep(args.sweep)
        finished = [r for r in runs if r.info.status == "FINISHED"]
        left_out = [f"{r.info.run_id[:8]} {r.info.status}" for r in runs if r.info.status != "FINISHED"]
        if len(finished) < 2:
            raise StoreError(
                f"sweep {sweep} has {len(finished)} finished of {counted(len(runs), 'run')}; comparing needs two.",
                "python run.py ui shows the runs.",
            )
        show.line("sweep", f"{sweep} · {len(finished)} of {len(runs)} runs finished", always=True)
        if left_out:
            show.line("", f"left out: {', '.join(left_out)}", always=True)
        return finished
    runs = [store.find(run_id) for run_id in args.run_id]
    unfinished = [r for r in runs if r.info.status != "FINISHED"]
    if unfinished:
        raise StoreError(
            [f"run {r.info.run_id} is {r.info.status}; it has no result to compare." for r in unfinished],
            "python run.py ui shows the runs.",
        )
    ids = [r.info.run_id for r in runs]
    twice = [i for i in dict.fromkeys(ids) if ids.count(i) > 1]
    if twice:
        raise ConfigError(f"run {twice[0]} was given {ids.count(twice[0])} times; a run is like itself.")
    return runs


def _draw(found: comparison.Comparison, names: list[str]) -> list[Path]:
    """Δ and pairs of all runs, and how alike they see words, under mlruns/compare/.

    Raises:
        StoreError: the folder cannot be written.
    """
    runs = found.runs
    folder = home() / "mlruns" / "compare"
    reason = disk.unwritable(folder)
    if reason:
        raise StoreError(
            f"figures cannot be written to {folder} ({reason}). What is printed above is complete.",
            "Keep them elsewhere: PAIRPROBE_HOME=/path",
        )
    folder.mkdir(parents=True, exist_ok=True)
    stem = "_".join(r.run_id[:8] for r in runs[:6]) + (f"_and_{len(runs) - 6}" if len(runs) > 6 else "")
    drawn = []
    defined = [(name, run) for name, run in zip(names, runs, strict=True) if run.number("delta") is not None]
    if defined:
        rows = [_row(name, run) for name, run in defined]
        per_pair = {name: {_id(k): v for k, v in run.values.items()} for name, run in defined}
        groups = {_id(key): key[0] for run in runs for key in run.values}
        drawn.append(figures.compare_runs(rows, per_pair, groups, folder / f"{stem}.png"))
    if found.words is not None:
        drawn.append(maps.draw(found.words, names, found.rho, folder / f"{stem}_words.png"))
    return drawn


def _row(name: str, run: Recorded) -> dict[str, Any]:
    interval = run.interval("delta")
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {"name": name, "delta": run.number("delta"), "low": low, "high": high}


def _id(key: tuple[str, str, str, int]) -> str:
    return "\n".join(map(str, key))
