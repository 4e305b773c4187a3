"""python -m bench.coverage_of_intervals [--repeat N]: how often do the intervals hold the true difference?

The bootstrap interval of Δ as `Statistics` makes it (BCa, widened for few pairs, 95 %), of pairs whose true Δ is known
to be 0, for small groups and for normal and skewed similarities. What a verdict says of few pairs rests on this table;
it is recorded in docs/decisions/0005-relabelling-and-verdict.md and in verdict.COVERAGE. One or two minutes; the
same numbers every time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.resampling import by_cluster
from pairprobe.statistics.sample import Sample

Array = npt.NDArray[np.float64]
#: Cognate + control pairs. Those of two and three get no interval (LEAST_WORTH), and this is why.
SIZES = (
    (2, 2), (3, 2), (12, 2), (30, 2), (3, 3), (12, 3), (30, 3), (4, 4), (10, 4), (30, 4), (100, 4), (7, 7), (40, 7),
    (150, 7), (10, 10), (20, 8), (50, 10), (200, 10), (20, 20), (50, 50),
)  # fmt: skip
#: Both groups are drawn alike, so that the true difference of means is 0 whatever the shape.
SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape),
}
AT_ONCE = 100  # repetitions that share their resamples; each hundred draws anew


def coverage(shape: str, n: int, m: int, repeat: int, statistics: Statistics) -> float:
    """Share of `repeat` intervals that hold 0."""
    hits = 0
    for block, start in enumerate(range(0, repeat, AT_ONCE)):
        rows = min(AT_ONCE, repeat - start)
        rng = np.random.default_rng([statistics.seed, 20, n, m, block])
        x, y = SHAPES[shape](rng, (rows, n)), SHAPES[shape](rng, (rows, m))
        found = by_cluster(Sample.of(x, y), statistics.confidence, statistics.resamples, statistics.seed + block)
        hits += int(((found.low <= 0) & (found.high >= 0)).sum())
    return hits / repeat


def main(words: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage_of_intervals", description=__doc__)
    parser.add_argument("--repeat", type=int, default=2000, help="intervals for each cell (2000)")
    args = parser.parse_args(words)
    if args.repeat < 1:
        parser.error("--repeat is at least 1")
    statistics = Statistics()
    print("| cognate + control | " + " | ".join(SHAPES) + " |")
    print("| --- |" + " ---: |" * len(SHAPES))
    for n, m in SIZES:
        cells = [f"{100 * coverage(shape, n, m, args.repeat, statistics):.1f} %" for shape in SHAPES]
        print(f"| {n} + {m} | " + " | ".join(cells) + " |", flush=True)
    error = 100 * np.sqrt(0.95 * 0.05 / args.repeat)
    print(f"\n{args.repeat} intervals of {100 * statistics.confidence:g} % a cell, standard error about {error:.1f} %.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
