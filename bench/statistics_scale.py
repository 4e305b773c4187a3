"""python -m bench.statistics_scale [CASE …]: how fast are the statistics of many pairs, and in how much memory?

Each case runs in a process of its own and prints its wall and processor time and the largest memory of its own (Linux:
RssAnon, without the pages of mapped files, which the system may take back), before (numpy, SciPy and the pairs loaded)
and at most. `wide` is the goal for speed: 10 000 pairs × 81 depths with 10 000
relabellings and resamples, under 10 s and 2 GB on two cores. `100k` and `1m` read their similarities from a memory map
on disk and relabel 1 000 times: what they take beyond the pairs themselves (their links and places, some hundred bytes
each) does not grow with them. That is of this kernel alone: a run holds its pairs, texts and similarities in memory,
which do grow with the pairs. `linked` is `wide` with every pair in a cluster of three. All numbers include intervals,
AUC, leave-one-out and equivalence. The measured ones stand in docs/decisions/0013-linked-pairs.md.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pairprobe.records import IntArray
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.sample import Sample
from pairprobe.statistics.units import Links

DEPTHS = 81


@dataclass(frozen=True)
class Case:
    pairs: int
    draws: int
    on_disk: bool
    cluster: int = 1


CASES = {
    "wide": Case(10_000, 10_000, on_disk=False),
    "linked": Case(10_000, 10_000, on_disk=False, cluster=3),
    "100k": Case(100_000, 1_000, on_disk=True),
    "1m": Case(1_000_000, 1_000, on_disk=True),
}


def links(case: Case) -> tuple[IntArray, Links]:
    """(which pairs are cognates, how they are linked): clusters of one cognate pair and controls of its word."""
    number = np.arange(case.pairs)
    cluster = number // case.cluster
    cognate = number % 2 == 0 if case.cluster == 1 else number % case.cluster == 0
    unit = np.stack([2 * cluster, 2 * case.pairs + number], axis=1)
    return cognate, Links(cluster, unit)


def own_memory() -> int:
    """Anonymous resident memory, kB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Peak(threading.Thread):
    """Looks 50 times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.done = own_memory(), threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, own_memory())


def measure(name: str) -> None:
    """Prints one case's numbers as JSON."""
    import scipy.special
    import scipy.stats  # noqa: F401

    case = CASES[name]
    cognate, linked = links(case)
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        if case.on_disk:
            file = Path(folder) / "values.npy"
            values = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(DEPTHS, case.pairs))
            for row in values:
                row[:] = rng.normal(0.6, 0.1, case.pairs)
            values.flush()
            del values
            values = np.load(file, mmap_mode="r")
        else:
            values = rng.normal(0.6, 0.1, (DEPTHS, case.pairs))
        statistics = Statistics(permutations=case.draws, resamples=case.draws)
        before, held = resource.getrusage(resource.RUSAGE_SELF), own_memory()
        peak = Peak()
        peak.start()
        began = time.perf_counter()
        sample = Sample((values,), np.arange(case.pairs), np.asarray(cognate), linked)
        found = statistics.of_sample(sample)
        tests = [found.depth_test(i, i) for i in range(DEPTHS)]
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
        peak.done.set()
        peak.join()
        assert all(t.p is not None and t.delta_ci is not None for t in tests)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall": wall, "cpu": cpu, "before": held, "after": peak.most}))


def main(words: list[str]) -> int:
    if words[:1] == ["--child"]:
        measure(words[1])
        return 0
    unknown = [w for w in words if w not in CASES]
    if unknown:
        print(f"There is no case {unknown[0]}; there are {', '.join(CASES)}.", file=sys.stderr)
        return 2
    print("| case | pairs | draws | wall | processor | memory before | memory at most |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in words or CASES:
        done = subprocess.run(
            [sys.executable, "-m", "bench.statistics_scale", "--child", name], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True,
        )  # fmt: skip
        got, case = json.loads(done.stdout), CASES[name]
        print(
            f"| {name} | {case.pairs} | {case.draws} | {got['wall']:.1f} s | {got['cpu']:.1f} s | "
            f"{got['before'] / 1e3:.0f} MB | {got['after'] / 1e3:.0f} MB |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
