"""python run.py reproduce RUN_ID: repeat a run from its logged config alone, and compare every similarity."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pairprobe import archive
from pairprobe.config import Job, build, home
from pairprobe.errors import ConfigError, PairprobeError, StoreError
from pairprobe.preflight import Plan
from pairprobe.report import Report, program
from pairprobe.runner import Finished, run
from pairprobe.tracking import Metric, Store, uri_of

SAME, DIFFERENT, COULD_NOT = 0, 1, 2
#: Largest difference of one similarity that counts as the same, by the dtype computed in: some ulps of a
#: cosine, which other hardware or another library's order of summation may change.
TOLERANCE = {"none": 0.0, "float64": 1e-12, "float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}
#: What is known before anything is computed, by its tag.
MEASURED_ON = {"pairs_sha256": "the pairs", "reference_sha256": "the reference words", "checkpoint": "the weights"}


def main(words: list[str]) -> int:
    """Exit code: 0 the same, 1 something differs, 2 could not run."""
    parser = argparse.ArgumentParser(
        f"{program()} reproduce",
        description="Repeat a run from its logged config alone, in the same store, and compare every similarity.",
        epilog="Exit code: 0 the same, 1 different, 2 could not run.",
    )
    parser.add_argument("run_id", help="the run, or enough of the beginning of its id")
    parser.add_argument("--tracking-uri", help="the store it is in (else MLFLOW_TRACKING_URI, else mlflow.db)")
    parser.add_argument("--tolerance", type=float, help="largest difference that counts as the same")
    args = parser.parse_args(words)
    if args.tolerance is not None and not args.tolerance >= 0:
        raise ConfigError(f"--tolerance is {args.tolerance}; allowed: 0 or more.")
    store = Store(uri_of(args.tracking_uri, home()), home())
    original = store.find(args.run_id)
    if original.info.status != "FINISHED":
        raise StoreError(f"run {original.info.run_id} is {original.info.status}; it has no numbers to compare with.")
    store.artifact(original.info.run_id, "tables/similarities.json")  # else nothing is computed in vain
    show = Repeating(original)
    finished = repeat(store, original, show)
    return compare(store, original, finished, args.tolerance, show)


#: Stands in a run's name between that of its original and the beginning of its id.
REPRODUCES = " (reproduces "


class Repeating(Report):
    """What a repetition shows: before anything is computed, whether it has the words and the weights of the first."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.original = original

    def plan(self, job: Job, plan: Plan) -> None:
        super().plan(job, plan)
        label = "CHANGED"
        for what, old, new in changed(self.original.data.tags, plan):
            text = f"{what} are not those of the run: {_short(old)} → {_short(new)}"
            self.line(label, text, style="bold yellow", always=True)
            label = ""
        if not label:
            self.line("", "What follows is compared all the same.", always=True)


def changed(tags: Mapping[str, str], plan: Plan) -> Iterator[tuple[str, str, str]]:
    """(what, before, now) of what a plan measures on and the run with these tags did not."""
    now = {"pairs_sha256": plan.pairs.sha256, "reference_sha256": archive.reference_key(plan.pairs)}
    if plan.checkpoint is not None:
        now["checkpoint"] = plan.checkpoint.identity
    for tag, what in MEASURED_ON.items():
        if tag in tags and tags[tag] != now.get(tag, "none"):  # older runs have fewer tags
            yield f"{what} ({tag})", tags[tag], now.get(tag, "none")


def repeat(store: Store, original: Any, show: Report) -> Finished:
    """Run again what `original` logged, tagged with it."""
    run_id = original.info.run_id
    job = job_of(store, run_id)
    job = replace(
        job,
        tracking=replace(
            job.tracking,
            uri=store.uri,
            experiment=store.client.get_experiment(original.info.experiment_id).name,
        ),
    )
    folder = home() / "mlruns" / "jobs" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    name = f"{str(original.info.run_name).partition(REPRODUCES)[0]}{REPRODUCES}{run_id[:8]})"
    return run(job, show, folder, {"reproduces": run_id}, anew=True, name=name)


def job_of(store: Store, run_id: str) -> Job:
    """The job that a run's config/config.yaml describes."""
    from omegaconf import OmegaConf

    file = store.artifact(run_id, "config/config.yaml")
    try:
        config = OmegaConf.create(file.read_text(encoding="utf-8"))
        return build(config)  # type: ignore[arg-type]
    except PairprobeError:
        raise
    except Exception as error:  # YAML's and OmegaConf's errors have no common kind
        raise ConfigError(f"config/config.yaml of run {run_id} cannot be read ({error}).") from None


def compare(store: Store, original: Any, finished: Finished, tolerance: float | None, show: Report) -> int:
    """Print and log what is the same and what differs."""
    old_id = original.info.run_id
    again = store.find(finished.run_id)
    dtype = again.data.tags.get("computed_in", "none")
    allowed = TOLERANCE[dtype] if tolerance is None else tolerance
    before = _by_place(store.table(old_id, "tables/similarities.json"))
    after = _by_place(store.table(finished.run_id, "tables/similarities.json"))
    shared = before.keys() & after.keys()
    differences = {place: abs(before[place] - after[place]) for place in shared}
    beyond = {place: d for place, d in differences.items() if not d <= allowed}
    largest = max(differences.values(), default=0.0)
    unmatched = sorted(before.keys() ^ after.keys())
    numbers_same = not beyond and not unmatched and bool(shared)
    other = what_differs(original, again)
    identical = [what for what in ("config", "data", "weights", "code", "versions", "hardware") if what not in other]

    kind = "" if dtype == "none" else f" ({dtype})"
    within = f"within {allowed:.0e}{kind}" if allowed else "exactly"
    same = f"{len(shared) - len(beyond)} of {len(before)} similarities {within}"
    if shared:
        same += f", largest difference {largest:.1e}" if largest else ", all to the last bit"
    show.line("same" if numbers_same else "DIFFERENT", same, always=True)
    if identical:
        show.line("", f"{', '.join(identical)} identical", always=True)
    for (name, depth, pair), d in sorted(beyond.items(), key=lambda item: -item[1])[:5]:
        show.line("", f"{name} at depth {depth}, {pair}: {d:.2e} apart", always=True)
    if unmatched:
        are = "1 similarity is" if len(unmatched) == 1 else f"{len(unmatched)} similarities are"
        show.line(
            "",
            f"{are} in one of the runs only, as {unmatched[0]}",
            always=True,
        )
    label = "different"
    for what, changes in other.items():
        text = " · ".join(f"{key} {old} → {new}" for key, (old, new) in list(changes.items())[:6])
        more = f" · and {len(changes) - 6} more" if len(changes) > 6 else ""
        show.line(label, f"{what}: {text}{more}", always=True)
        label = ""

    folder = home() / "mlruns" / "jobs" / finished.run_id
    summary = {
        "reproduces": old_id, "same": numbers_same, "tolerance": allowed, "largest_difference": largest,
        "compared": len(shared), "beyond_tolerance": len(beyond), "unmatched": len(unmatched), "different": other,
    }  # fmt: skip
    _log(store, again, folder, summary)
    return SAME if numbers_same else DIFFERENT


def what_differs(a: Any, b: Any) -> dict[str, dict[str, tuple[str, str]]]:
    """Differences between two runs' records: config, data, weights, code, versions, hardware → key → (a, b)."""
    found: dict[str, dict[str, tuple[str, str]]] = {}

    def note(what: str, key: str, old: str, new: str) -> None:
        if old != new:
            found.setdefault(what, {})[key] = (old, new)

    for key in sorted(a.data.params.keys() | b.data.params.keys()):
        what = "versions" if key.startswith("version/") else "config"
        if key.startswith("tracking."):
            continue  # where a run is kept says nothing about what it measured
        if a.data.params.get(key, "None") == b.data.params.get(key, "None"):
            continue  # null, and not known to an older version, are both unset
        note(
            what,
            key.removeprefix("version/"),
            a.data.params.get(key, "(absent)"),
            b.data.params.get(key, "(absent)"),
        )
    kinds = {
        "data": ("pairs_sha256", "reference_sha256"),
        "weights": ("checkpoint",),
        "code": ("git_commit", "git_dirty", "git_diff_sha256"),
        "hardware": (
            "hostname",
            "device",
            "hardware.cpu",
            "hardware.gpu",
            "hardware.cores",
            "hardware.memory",
        ),
    }
    for what, keys in kinds.items():
        for key in keys:
            if key == "reference_sha256" and key not in a.data.tags:  # older runs have none
                continue
            old, new = a.data.tags.get(key, "none"), b.data.tags.get(key, "none")
            note(what, key, _short(old), _short(new))
    return found


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:28]}…"


def _by_place(rows: list[dict[str, Any]]) -> dict[tuple[str, int, str], float]:
    return {(r["similarity_kind"], int(r["depth"]), r["pair_id"]): float(r["similarity"]) for r in rows}


def _log(store: Store, run: Any, folder: Path, summary: dict[str, Any]) -> None:
    """Add the comparison to the finished run."""
    import shutil

    from pairprobe.tracking import OpenRun

    record = OpenRun(store, run.info.run_id, run.info.experiment_id, run.info.run_name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reproduce.json").write_text(json.dumps(summary, ensure_ascii=False, indent=2), encoding="utf-8")
    try:
        record.log(
            [
                Metric("reproduce/largest_difference", summary["largest_difference"]),
                Metric("reproduce/beyond_tolerance", summary["beyond_tolerance"]),
            ],
            tags={"reproduces_same": str(summary["same"]).lower()},
        )
        record.upload(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
