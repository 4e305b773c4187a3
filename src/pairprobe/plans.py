"""Was something else asked before? Earlier runs of a store on the same pairs and model, with another plan."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pairprobe.errors import StoreError
from pairprobe.result import Result
from pairprobe.tracking import LONGEST_PARAM, Store

PATIENCE = 10.0  # seconds for which a store is asked; what it has said until then counts
SHOWN = 4  # settings that are named
SIMILARITY = "similarity."
#: Beginnings of the settings that primary_sha256 covers, similarities apart.
HASHED = ("experiment.primary.", "method.", "template.", "tokens.", "statistics.")


@dataclass(frozen=True)
class Earlier:
    """Finished runs before the first one with this plan. n: how many; None where the store did not answer. more: it
    did not answer to the end, so that there may be more. first: id of the one that began first. differ: the settings
    in which they differ from this run, in words."""

    n: int | None
    more: bool = False
    first: str = ""
    differ: tuple[str, ...] = ()

    @property
    def tags(self) -> dict[str, str]:
        """What the run logs of it: earlier_plans is a number, 'N or more', or 'unknown'."""
        if self.n is None or (self.more and not self.n):
            return {"earlier_plans": "unknown"}
        many = f"{self.n} or more" if self.more else str(self.n)
        if not self.n:
            return {"earlier_plans": many}
        return {"earlier_plans": many, "earlier_plans_first": self.first, "earlier_plans_differ": self._differ}

    @property
    def said(self) -> tuple[str, ...]:
        """For a person; nothing where there are none."""
        if "earlier_plans_first" in self.tags:
            runs = f"{self.tags['earlier_plans']} earlier {'run' if self.n == 1 and not self.more else 'runs'}"
            return (
                f"{runs} on these pairs and this model asked something else: {self._differ}. The first was "
                f"{self.first[:8]}; nothing here shows that this plan was fixed before their numbers were seen.",
            )
        if self.tags["earlier_plans"] == "unknown":
            return ("the store did not say in time whether earlier runs on these pairs asked something else",)
        return ()

    @property
    def _differ(self) -> str:
        more = f"; and {len(self.differ) - SHOWN} more settings" if len(self.differ) > SHOWN else ""
        return "; ".join(self.differ[:SHOWN]) + more or "their settings are named otherwise"

    def beside(self, result: Result) -> Result:
        """The result, its verdict with what to beware of because of them."""
        if not self.n:
            return result
        verdict = result.verdict
        return replace(result, verdict=replace(verdict, beware=(*self.said, *verdict.beware)))


def earlier(store: Store, params: Mapping[str, Any], tags: Mapping[str, Any], patience: float = PATIENCE) -> Earlier:
    """Ask the store for runs that asked something else of the same pairs, the same model and by the same method.

    Those count that began before the first run with this plan, whichever it was: a repeated plan stays as old as it
    is. Runs of its sweep do not: their plans were all made before the first of them began (decision 22).

    Raises nothing of the store's: what is wrong with it, recording the run tells.

    Args:
        params, tags: of the run that is to be recorded.
    """
    model = "checkpoint" if "checkpoint" in tags else "model"
    like = {key: str(tags[key]) for key in ("pairs_sha256", "method", model)}
    plan = {"primary_sha256": str(tags["primary_sha256"])}
    others: list[Any] = []
    same: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        try:
            for page in store.finished(like, plan):
                others.extend(page)
            if others:
                same.extend(next(store.finished({**like, **plan}, {}, most=1), []))
            done.set()
        except Exception:  # a store that cannot be read keeps no run from being made
            return

    try:
        assert store.client is not None  # opened here, not by two threads at once
    except StoreError:
        return Earlier(None)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    before = same[0].info.start_time if same else math.inf
    sweeps = {tags.get("sweep_id"), *(run.data.tags.get("sweep_id") for run in same)} - {None}
    found = [r for r in list(others) if r.info.start_time < before and r.data.tags.get("sweep_id") not in sweeps]
    if not found:
        return Earlier(0, more=not done.is_set())
    here = {key: str(value)[:LONGEST_PARAM] for key, value in params.items()}
    differ = differences(here, [run.data.params for run in found])
    if any(run.data.tags.get("reference_sha256") != str(tags.get("reference_sha256")) for run in found):
        differ.append("other reference words")
    return Earlier(len(found), not done.is_set(), found[0].info.run_id, tuple(differ))


def differences(here: Mapping[str, str], there: Sequence[Mapping[str, str]]) -> list[str]:
    """In what a plan differs from others: its settings in words, those of the primary outcome first."""

    def named(params: Mapping[str, str]) -> set[str]:
        return {key.split(".")[1] for key in params if key.startswith(SIMILARITY)}

    said = []
    for beginning in HASHED:
        keys = {key for params in (here, *there) for key in params if key.startswith(beginning)}
        for key in sorted(key for key in keys if not key.endswith("._target_")):
            mine = here.get(key, "not set")
            theirs = dict.fromkeys(params.get(key, "not set") for params in there)
            if others := [value for value in theirs if value != mine]:
                said.append(f"{key} was {' or '.join(others)}, is {mine}")
    for params in there:
        for name in sorted(named(params) ^ named(here)):
            said.append(f"similarity {name} {'was there' if name in named(params) else 'is new'}")
        alike = {k for k in params if k.startswith(SIMILARITY) and k.split(".")[1] in named(here)}
        said += [f"{k} was {params[k]}, is {here.get(k, 'not set')}" for k in sorted(alike) if params[k] != here.get(k)]
    return list(dict.fromkeys(said))
