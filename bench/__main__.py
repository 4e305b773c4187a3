"""python -m bench [--repeat N] [case …]: run the cases, print their table; all of them: write docs/bench.md too.

Every side of every repetition is a fresh process, ours and theirs in turn (A B A B …, A B C A B C … where there are
several), so that a machine which slows down slows all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.case import Answer, Case, Differs, Sample, find
from bench.material import FOLDER
from bench.table import Measured, cpu_seconds, machine, markdown, rows, write
from pairprobe.commands.main import ENVIRONMENT
from pairprobe.config import repository

#: In the order of the table.
CASES = (
    "llama1b.one_thread", "llama1b.two_threads", "llama1b.bf16_one_thread", "llama1b.bf16_two_threads", "texts1000",
    "full_width.int8", "full_width.awq", "integer_products", "cold_read", "static_70b", "layerwise_small",
    "layerwise_batched", "static_rows", "minilm", "startup", "statistics",
)  # fmt: skip
PREPARING = 900  # seconds


def main(words: list[str]) -> int:
    """Exit code: 0 measured, 1 a case's two sides disagree or one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="pairs of processes for each case (5)")
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    args = parser.parse_args(words)
    unknown = [name for name in args.cases if name not in CASES]
    if unknown or args.repeat < 1:
        parser.error(f"no case {unknown[0]}; there are {', '.join(CASES)}" if unknown else "--repeat is at least 1")
    chosen = {name: find(name) for name in args.cases or CASES}
    began = cpu_seconds()
    table: list[list[str]] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="pairprobe-bench-") as temporary:
        folder = Path(os.environ.get(FOLDER) or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[FOLDER] = str(folder)
        for name, case in chosen.items():
            try:
                table += measure(name, case, args.repeat, Path(temporary))
            except (Differs, subprocess.SubprocessError) as error:
                print(f"{name}: {error}\n{(getattr(error, 'stderr', '') or '')[-2000:]}", file=sys.stderr)
                failed.append(name)
    measured = {name: case for name, case in chosen.items() if name not in failed}
    text = markdown(measured, table, machine(" ".join([*_threads(), "python -m bench", *words]), began))
    print(text)
    if set(measured) == set(CASES):
        write(text)
    else:
        print("docs/bench.md is left as it is: only a run of all cases is written.", file=sys.stderr)
    return 1 if failed else 0


def _threads() -> list[str]:
    """What the environment says of threads, which the children inherit."""
    keys = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")
    return [f"{key}={os.environ[key]}" for key in keys if key in os.environ]


def measure(name: str, case: Case, repeat: int, temporary: Path) -> list[list[str]]:
    """The rows of one case. Raises Differs, or SubprocessError where a side failed."""
    _child(name, case, "prepare", timeout=PREPARING)
    found = Measured(absent={rival: of.missing for rival, of in case.rivals.items() if of.missing})
    for i in range(repeat):
        print(f"{name} {i + 1}/{repeat}", file=sys.stderr, flush=True)
        file = temporary / "answer.npz"
        found.ours.append(_side(name, case, "ours", file))
        for rival in (r for r in case.rivals if r not in found.absent):
            found.theirs.setdefault(rival, []).append(_side(name, case, rival, file))
    for rival, theirs in found.theirs.items():
        answers = [(a.answer, b.answer) for a, b in zip(found.ours, theirs, strict=True)]
        try:
            found.agreement[rival] = case.rivals[rival].agreement(answers)
        except Differs as error:
            raise Differs(f"{rival}: {error}") from None
    return rows(name, case, found)


def _side(name: str, case: Case, side: str, file: Path) -> Sample:
    said = json.loads(_child(name, case, side, str(file), timeout=case.timeout).splitlines()[-1])
    with np.load(file) as stored:
        answer: Answer = {key: stored[key] for key in stored.files}
    file.unlink()
    return Sample(answer=answer, **said)


def _child(name: str, case: Case, side: str, *file: str, timeout: float) -> str:
    fixed = {"HF_HUB_OFFLINE": "1"}
    if case.threads:
        fixed["OMP_NUM_THREADS"] = str(case.threads)
    done = subprocess.run(
        [sys.executable, "-m", "bench.child", name, side, *file],
        check=True,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=repository(),
        env={**ENVIRONMENT, **os.environ, **fixed},  # as a run has it, for every side
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
