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
#: What settings are about; others are called as they are written.
WORDS = {
    "experiment.primary.similarity": "the verdict's similarity",
    "experiment.primary.depth": "the verdict's depth",
    "experiment.primary.control": "the verdict's control group",
    "experiment.primary.side": "the side expected",
    "method.pooling": "the pooling of a word's tokens",
    "method.scope": "what is pooled",
    "method.special_tokens": "special tokens counted",
    "method.depths": "the depths measured",
    "template.name": "the template",
    "template.pattern": "the template's sentence",
    "tokens.exclude": "the kinds of pairs left out",
    "tokens.max_length": "the longest text, in tokens,",
    "statistics.seed": "the seed of the statistics",
    "statistics.resamples": "the number of resamples",
    "statistics.permutations": "the number of relabellings drawn",
    "statistics.exact_below": "the number of relabellings up to which all are compared",
    "statistics.confidence": "the level of intervals",
    "statistics.alpha": "the level of tests, alpha,",
    "statistics.effect": "the difference whose power is told",
    "statistics.power": "the power wanted",
    "statistics.sesoi": "the smallest difference of interest",
}
#: What values mean that say it too briefly.
VALUES = {
    ("experiment.primary.control", "None"): "the set's first",
    ("experiment.primary.depth", "-1"): "the last",
    ("method.depths", "None"): "all",
    ("tokens.max_length", "None"): "what the model allows",
    ("tokens.exclude", "[]"): "none",
    ("method.scope", "span"): "the word's own tokens",
    ("method.scope", "text"): "the whole text",
}
TEMPLATE = "template.name"  # where it differs, the template's sentences are no news
BY_LANGUAGE = "template.by_language."


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
            one = self.n == 1 and not self.more
            runs = f"{self.tags['earlier_plans']} earlier {'run' if one else 'runs'}"
            which = "" if one else ", one or another of them"  # no single one need have been all of this
            return (
                f"{runs} on these pairs and this model asked something else{which}: {self._differ}. The first was "
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
    """In what a plan differs from others, each thing once and in words, the primary outcome first."""
    said = []
    for beginning in HASHED:
        keys = {key for params in (here, *there) for key in params if key.startswith(beginning)}
        keys = {key for key in keys if not key.endswith("._target_")}
        changed = {key: others for key in keys if (others := _others(key, here, there))}
        if TEMPLATE in changed:
            changed = {TEMPLATE: changed[TEMPLATE]}
        for key in sorted(changed, key=lambda key: ([*WORDS].index(key) if key in WORDS else len(WORDS), key)):
            before = " or ".join(_value(key, value) for value in changed[key])
            said.append(f"{_called(key)} was {before}, is {_value(key, here.get(key, 'not set'))}")
    said += [f"{name} was a similarity too" for name in _similarities(*there) if name not in _similarities(here)]
    said += [
        f"{name} is a similarity too now"
        for name in _similarities(here)
        if any(name not in _similarities(params) for params in there)
    ]
    shared = {key for params in there for key in params if key.startswith(SIMILARITY) and key in here}
    for key in sorted(shared):
        if others := _others(key, here, [params for params in there if key in params]):
            _, name, setting = key.split(".", 2)
            said.append(f"{setting} of {name} was {' or '.join(others)}, is {here[key]}")
    return said


def _others(key: str, here: Mapping[str, str], there: Sequence[Mapping[str, str]]) -> list[str]:
    """Values that the others had in place of this plan's, each once."""
    values = dict.fromkeys(params.get(key, "not set") for params in there)
    return [value for value in values if value != here.get(key, "not set")]


def _called(key: str) -> str:
    if key.startswith(BY_LANGUAGE):
        return f"the sentence for {key.removeprefix(BY_LANGUAGE)}"
    return WORDS.get(key, key)


def _value(key: str, value: str) -> str:
    return VALUES.get((key, value), {"True": "yes", "False": "no", "None": "not set"}.get(value, value))


def _similarities(*plans: Mapping[str, str]) -> list[str]:
    """Names of the similarities of any of the plans."""
    return sorted({key.split(".")[1] for params in plans for key in params if key.startswith(SIMILARITY)})
