"""Whole or layer by layer, whichever the plan says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pairprobe.errors import ExecutionError
from pairprobe.executions.resident import Resident
from pairprobe.executions.streamed import Streamed
from pairprobe.records import Estimate, Tokens, Usage
from pairprobe.rooms import Checkpointed, Keep, Observe, Workload

#: Bytes of weights, as computed with, up to which a dense model is run whole: building and filling it takes no longer
#: than streaming it.
SMALL = 512 * 2**20
#: The least there can be to run: for what follows from the checkpoint alone.
LEAST = Workload(np.array([1]))


@dataclass(frozen=True)
class Auto(Streamed):
    """Run small dense models whole (`resident`) and all others layer by layer (`streamed`).

    The choice follows from the checkpoint alone, never from what a clock said, so that a run repeats; `plan` shows
    both ways with their costs. Args: as of `streamed`.
    """

    name: str = "auto"

    def settle(self, checkpoint: Checkpointed, asked: Workload) -> Resident | Streamed:  # type: ignore[override]
        """The execution that fits this checkpoint. Raises ExecutionError where neither does."""
        resident, streamed = self.both()
        refused = resident.refuse(checkpoint)
        small = not refused and resident.memory_needed(checkpoint) <= SMALL
        if small and not resident.estimate(checkpoint, asked).problem:
            return resident
        found = streamed.refuse(checkpoint)
        if not found:
            return streamed
        if refused or resident.estimate(checkpoint, asked).problem:
            raise ExecutionError([found, *([refused] if refused else [])])
        return resident

    def both(self) -> tuple[Resident, Streamed]:
        """The two ways, with the settings they share."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        names = {f.name for f in dataclasses.fields(Resident)}
        return Resident(**{k: v for k, v in own.items() if k in names}), Streamed(**own)

    def refuse(self, checkpoint: Checkpointed) -> str | None:
        """Why neither way can run this checkpoint, or None."""
        try:
            self.settle(checkpoint, LEAST)
        except ExecutionError as error:
            return error.problems[0]
        return None

    def estimate(self, checkpoint: Checkpointed, asked: Workload, timed: bool = False) -> Estimate:
        """Of the one that is chosen."""
        return self.settle(checkpoint, asked).estimate(checkpoint, asked, timed)

    def key(self, checkpoint: Checkpointed) -> dict[str, Any] | None:
        """Of the one that is chosen."""
        return self.settle(checkpoint, LEAST).key(checkpoint)

    def chunks(self, checkpoint: Checkpointed, asked: Workload) -> Iterator[npt.NDArray[np.int64]]:
        """Of the one that is chosen."""
        return self.settle(checkpoint, asked).chunks(checkpoint, asked)

    def forward(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        observe: Observe,
        keep: Keep | None = None,
        asked: Workload | None = None,
    ) -> Usage:
        """By the one that is chosen."""
        asked = asked or Workload.of(tokens)
        return self.settle(checkpoint, asked).forward(checkpoint, tokens, observe, keep, asked)
