"""What a case is, and the clock that both of its sides are measured with.

A case is a module of this package that defines CASE, or CASES by name: a new file is a new case once its name stands
in `__main__.CASES`. It imports heavy packages inside its functions and before the clock starts, so that no import is
ever timed.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pairprobe.provenance import peak_memory, reset_peak_memory

#: The numbers a side arrived at, by name.
Answer = dict[str, npt.NDArray[np.float64]]
#: (ours, theirs), one for each time the case was run.
Answers = Sequence[tuple[Answer, Answer]]
PEAK = "peak memory"


class Differs(Exception):
    """The two sides disagree by more than the case allows: then their speed means nothing."""


@dataclass(frozen=True)
class Sample:
    """One side, run once. seconds: by what was timed; bytes: peak when the clock started, and at the end."""

    seconds: dict[str, float]
    answer: Answer
    peak_before: int
    peak: int


@dataclass(frozen=True)
class Rival:
    """Another way to the same numbers.

    says: what it is. side: called in a process of its own. agreement: how closely the two sides agreed at worst, in a
    few words; raises Differs. must: by what was timed, or PEAK → how many times as much as ours it should take at
    least. needs: packages, room: bytes of free memory it cannot run without; lacking them it is left out, and the
    table says so.
    """

    says: str
    side: Callable[[], Sample]
    agreement: Callable[[Answers], str]
    must: Mapping[str, float] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    room: int = 0

    @property
    def missing(self) -> tuple[str, ...]:
        """What it needs that is not here, in words."""
        import psutil

        found = [f"{p} is not installed" for p in self.needs if importlib.util.find_spec(p) is None]
        if psutil.virtual_memory().available < self.room:
            found.append(f"{self.room / 1e9:.0f} GB of memory are not free")
        return tuple(found)


@dataclass(frozen=True)
class Fact:
    """A row that is no ratio of two sides. what: in a few words. ours, theirs: as they are shown. must: what was
    asked for, '' where nothing was; met: whether that is so."""

    what: str
    ours: str
    theirs: str = ""
    must: str = ""
    met: bool = True


@dataclass(frozen=True)
class Case:
    """One thing measured, in one or several ways.

    ours: what pairprobe does, in words. side: our side. rivals: by a short name. prepare: called unmeasured, in a
    process of its own, before the first repetition: writes and warms what all sides read. memory: whether peak memory
    is compared. threads: of the CPU, None leaves torch's own choice. timeout: seconds a side may take. facts: further
    rows, from our samples and those of each rival. over: MiB that our side may take at most, beyond what its process
    held before.
    """

    ours: str
    side: Callable[[], Sample]
    rivals: Mapping[str, Rival]
    prepare: Callable[[], None]
    memory: bool = True
    threads: int | None = None
    timeout: float = 300
    facts: Callable[[Sequence[Sample], Mapping[str, Sequence[Sample]]], Sequence[Fact]] | None = None
    over: float | None = None


def find(name: str) -> Case:
    """The case `module` or `module.name`: a module's CASE, or one of its CASES."""
    module, _, which = name.partition(".")
    found = importlib.import_module(f"bench.{module}")
    return cast(Case, found.CASES[which] if which else found.CASE)


class Clock:
    """Made after the imports; `with clock("forward"):` adds to that name's seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        reset_peak_memory()
        self._before = peak_memory()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        self.seconds.setdefault(what, 0.0)
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start

    def stop(self, **answer: npt.NDArray[Any]) -> Sample:
        """The sample; the peak is read before the answer is copied."""
        peak = peak_memory()
        return Sample(
            self.seconds, {name: np.asarray(a, dtype=np.float64) for name, a in answer.items()}, self._before, peak
        )


def equal_within(tolerance: float, answers: Answers) -> str:
    """Vectors: largest difference over the largest value, depth by depth (first axis).

    Raises:
        Differs: it is above `tolerance`, or the shapes are not the same.
    """
    worst = 0.0
    for ours, theirs in answers:
        a, b = ours["vectors"], theirs["vectors"]  # [depths, texts, width]
        if a.shape != b.shape:
            raise Differs(f"shapes {a.shape} and {b.shape}")
        off = float((np.abs(a - b).max(axis=(1, 2)) / np.abs(b).max(axis=(1, 2))).max())
        if not off <= tolerance:  # NaN must fail too
            raise Differs(f"vectors differ by {off:.1e} of the largest; {tolerance:g} is allowed")
        worst = max(worst, off)
    return f"vectors: {worst:.1g} of {tolerance:g}"
