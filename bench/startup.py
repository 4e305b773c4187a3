"""How long `python run.py` needs before it says anything, beside the floor: a Python that imports Hydra.

No alternative does what these do. Each time is a whole process, from its start to its end.
"""

from __future__ import annotations

import subprocess
import sys

from bench.case import Answers, Case, Clock, Rival, Sample
from pairprobe.config import repository

PROMISE = 1.5  # seconds
WORDS = (("--help",), ("--cfg", "job"))


def prepare() -> None:
    """Write the .pyc files, fill the page cache."""
    ours(), theirs()


def ours() -> Sample:
    return _timed(*(("run.py", *words) for words in WORDS))


def theirs() -> Sample:
    return _timed(*(("-c", "import hydra") for _ in WORDS))


def agreement(answers: Answers) -> str:
    """There are no numbers to compare: the slowest start of all, and the promise."""
    slowest = max(float(ours["seconds"].max()) for ours, _ in answers)
    return f"promise {PROMISE} s: {'kept' if slowest <= PROMISE else 'BROKEN'}, slowest {slowest:.2f} s"


def _timed(*commands: tuple[str, ...]) -> Sample:
    clock = Clock()
    for words, command in zip(WORDS, commands, strict=True):
        with clock(" ".join(words)):
            subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=repository())
    return clock.stop(seconds=list(clock.seconds.values()))  # type: ignore[arg-type]


CASE = Case(
    "python run.py --help, --cfg job",
    ours,
    {"theirs": Rival('python -c "import hydra" (the floor)', theirs, agreement)},
    prepare,
    memory=False,
)
