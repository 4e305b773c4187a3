"""python run.py compare RUN_ID RUN_ID …: what was set differently, and what came out."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pairprobe import figures
from pairprobe.config import home
from pairprobe.errors import ConfigError, StoreError
from pairprobe.outcomes import Interval, p_text, signed
from pairprobe.report import LABEL, WIDTH, Report, program
from pairprobe.tracking import Store, uri_of

PAIRS_SHOWN = 12
HIDDEN = ("tracking.uri", "experiment.question")  # say nothing that other keys do not


def main(words: list[str]) -> int:
    """Exit code 0; 2 where a run cannot be read."""
    parser = argparse.ArgumentParser(
        f"{program()} compare", description="What differs between runs: settings, Δ, g, p, and every pair."
    )
    parser.add_argument("run_id", nargs="+", help="two runs or more, or enough of the beginning of their ids")
    parser.add_argument("--tracking-uri", help="the store they are in (else MLFLOW_TRACKING_URI, else mlflow.db)")
    args = parser.parse_args(words)
    if len(args.run_id) < 2:
        raise ConfigError("compare was given one run; it needs two or more.", "python run.py ui shows the runs.")
    store = Store(uri_of(args.tracking_uri, home()), home())
    runs = [store.find(run_id) for run_id in args.run_id]
    unfinished = [r for r in runs if r.info.status != "FINISHED"]
    if unfinished:
        raise StoreError(
            [f"run {r.info.run_id} is {r.info.status}; it has no result to compare." for r in unfinished],
            "python run.py ui shows the runs.",
        )
    _print(store, runs, Report())
    return 0


def _print(store: Store, runs: list[Any], show: Report) -> None:
    groups: dict[str, str] = {}
    primaries = [_primary_similarities(store, r, groups) for r in runs]  # first: what cannot be read is told at once
    names = _labels(runs)
    for number, (name, run) in enumerate(zip(names, runs, strict=True), start=1):
        show.line("runs" if number == 1 else "", f"{number}  {name} · {run.info.run_id}", always=True)
    differing = [
        (key, [r.data.params.get(key, "(absent)") for r in runs])
        for key in sorted({k for r in runs for k in r.data.params if not k.endswith("_target_")} - {*HIDDEN})
    ]
    differing = [(key, values) for key, values in differing if len(set(values)) > 1]
    differing += [
        (key, values)
        for key in ("pairs_sha256", "checkpoint", "git_commit", "device")
        if len(set(values := [r.data.tags.get(key, "none") for r in runs])) > 1
    ]
    if not differing:
        show.line("differs", "nothing that was recorded: the same settings, versions, data and weights", always=True)
    width = max([len(key) for key, _ in differing], default=0) + 2
    for i, (key, values) in enumerate(differing):
        show.line("differs" if i == 0 else "", key.ljust(width) + _cells(values, width), always=True)

    show.line("", "", always=True)
    width = max(width, 12)
    for key, values in _outcomes(runs).items():
        show.line("outcome" if key == "Δ" else "", key.ljust(width) + _cells(values, width), always=True)
    if len({r.data.tags.get("pairs_sha256") for r in runs}) > 1:
        show.line(
            "beware",
            "the pair sets differ: their Δ do not measure the same thing",
            style="bold yellow",
            always=True,
        )
    kinds = {p[0] for p in primaries}
    if len(kinds) > 1:
        show.line(
            "beware",
            f"the primary similarities differ: {', '.join(sorted(kinds))}",
            style="bold yellow",
            always=True,
        )

    shared = [pair for pair in primaries[0][2] if all(pair in values for _, _, values in primaries)]
    spread = sorted(shared, key=lambda pair: -_range([values[pair] for _, _, values in primaries]))
    show.line("", "", always=True)
    if shared:
        show.line(
            "pairs",
            f"{len(shared)} shared; the {min(PAIRS_SHOWN, len(shared))} that differ most, each at its run's primary "
            f"depth ({', '.join(str(depth) for _, depth, _ in primaries)})",
            always=True,
        )
    else:
        show.line("pairs", "no pair is in all of these runs", always=True)
    for pair in spread[:PAIRS_SHOWN]:
        found = [v[pair] for _, _, v in primaries]
        last = f"   {signed(found[1] - found[0])}" if len(found) == 2 else ""
        show.line("", pair[:30].ljust(32) + "  ".join(f"{v:7.3f}" for v in found) + last, always=True)
    folder = home() / "mlruns" / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ("_".join(r.info.run_id[:8] for r in runs[:6]) + ".png")
    rows = [
        {
            "name": name,
            "delta": r.data.metrics["delta"],
            "low": r.data.metrics.get("delta_ci_low"),
            "high": r.data.metrics.get("delta_ci_high"),
        }
        for name, r in zip(names, runs, strict=True)
    ]
    per_pair = {name: values for name, (_, _, values) in zip(names, primaries, strict=True)}
    figures.compare_runs(rows, per_pair, groups, file)
    show.line("figure", str(file), always=True)


def _labels(runs: list[Any]) -> list[str]:
    """Run names, told apart by the beginning of their ids where they are equal."""
    names = [r.info.run_name for r in runs]
    if len(set(names)) == len(names):
        return names
    return [f"{n} {r.info.run_id[:6]}" for n, r in zip(names, runs, strict=True)]


def _outcomes(runs: list[Any]) -> dict[str, list[str]]:
    metrics = [r.data.metrics for r in runs]

    def interval(m: dict[str, float], low: str, high: str) -> str:
        return str(Interval(m[low], m[high])) if low in m and high in m else "undefined"

    return {
        "Δ": [signed(m["delta"]) if "delta" in m else "undefined" for m in metrics],
        "interval": [interval(m, "delta_ci_low", "delta_ci_high") for m in metrics],
        "g": [signed(m["hedges_g"], 2) if "hedges_g" in m else "undefined" for m in metrics],
        "g interval": [interval(m, "hedges_g_ci_low", "hedges_g_ci_high") for m in metrics],
        "p": [p_text(m["p"]).removeprefix("= ") if "p" in m else "none given" for m in metrics],
        "p max-T": [p_text(m["p_max_t"]).removeprefix("= ") if "p_max_t" in m else "none given" for m in metrics],
        "verdict": [r.data.tags.get("verdict", "—") for r in runs],
    }


def _primary_similarities(store: Store, run: Any, groups: dict[str, str]) -> tuple[str, int, dict[str, float]]:
    """(similarity, depth, value by pair id) of the run's primary outcome; adds each pair's group to `groups`."""
    rows = store.table(run.info.run_id, "tables/similarities.json")
    groups.update((r["pair_id"], r["group"]) for r in rows)
    kinds = list(dict.fromkeys(r["similarity_kind"] for r in rows))
    kind = run.data.params.get("experiment.primary.similarity", kinds[0])
    kind = kind if kind in kinds else kinds[0]
    depth = int(run.data.metrics["primary_depth"])
    return kind, depth, {
        r["pair_id"]: float(r["similarity"]) for r in rows if r["similarity_kind"] == kind and int(r["depth"]) == depth
    }  # fmt: skip


def _range(values: list[float]) -> float:
    return max(values) - min(values)


def _cells(values: list[str], taken: int) -> str:
    """The values side by side in what is left of a line; long ones are cut so that their difference shows."""
    room = max(8, (WIDTH - LABEL - taken) // len(values) - 3)
    start = 0
    if len({v[: room - 1] for v in values}) < len(set(values)):
        start = max(0, len(os.path.commonprefix(values)) - 3)  # noqa: RUF071  characters are meant
    shown = [("…" if start else "") + v[start:] for v in values]
    return " │ ".join((v if len(v) <= room else v[: room - 1] + "…").ljust(room) for v in shown).rstrip()
