"""Which recorded runs belong together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pairprobe.errors import StoreError, nearest

SHOWN = 8  # sweeps that an error lists


def named(runs: Iterable[Any], beginning: str) -> tuple[str, list[Any]]:
    """(id, runs in the order in which they began) of the only sweep whose id begins so, unfinished runs included.

    Raises StoreError for none or several; the sweeps there are stand in it.
    """
    sweeps: dict[str, list[Any]] = {}
    for run in runs:
        if "sweep_id" in run.data.tags:
            sweeps.setdefault(run.data.tags["sweep_id"], []).append(run)
    found = [s for s in sweeps if s == beginning] or [s for s in sweeps if beginning and s.startswith(beginning)]
    if len(found) == 1:
        return found[0], sorted(sweeps[found[0]], key=lambda r: (r.info.start_time, r.info.run_id))
    there = sorted(sweeps, reverse=True)
    listed = ", ".join(f"{s} ({len(sweeps[s])} run{'s' * (len(sweeps[s]) != 1)})" for s in there[:SHOWN])
    more = f" and {len(there) - SHOWN} older ones" if len(there) > SHOWN else ""
    many = f"{len(found)} sweeps begin" if found else "no sweep begins"
    raise StoreError(
        f"{many} with '{beginning}'.{'' if found else nearest(beginning, there)}",
        f"Sweeps there: {listed}{more}." if there else "There are no sweeps yet: python run.py -m …",
    )
