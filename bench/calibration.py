"""python -m bench.calibration [--repeat N]: do the p-values err as often as they say, and do the intervals hold?

Pairs are simulated whose two groups do not differ, for designs of independent and of linked pairs. Similarities are
sums of effects of the words that pairs share and of the pair's own; a true Δ, where one is needed, is added. What is
counted: p-values of at most 0.05 (of the max-T p's, of q and of the specification curve's p's: families with any), and
intervals of 95 % that hold the truth. The table is recorded in docs/decisions/0013-linked-pairs.md; about two minutes;
the same numbers every time. tests/test_calibration.py holds the same simulation to binomial bounds.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pairprobe.records import COGNATE, Pair, Word
from pairprobe.statistics import effects, family
from pairprobe.statistics.group_tests import Compared
from pairprobe.statistics.relabelling import Draws, draws, p_values
from pairprobe.statistics.resampling import resampled
from pairprobe.statistics.sample import Sample
from pairprobe.statistics.schemes import Scheme
from pairprobe.statistics.units import Links

Array = npt.NDArray[np.float64]
ALPHA, CONFIDENCE, SESOI = 0.05, 0.95, 0.5
DEPTHS, AUTOCORRELATION = 6, 0.9
AT_ONCE = 50  # families that share their labellings and resamples; the next ones draw anew


# ── designs ──────────────────────────────────────────────────────────────────────────────────────────────


def _pair(group: str, a: str, b: str) -> Pair:
    return Pair(f"{group} {a} {b}", group, Word(a, lang="A"), Word(b, lang="B"))


def independent(n: int, m: int) -> list[Pair]:
    """No pair shares a word."""
    return [_pair(COGNATE if i < n else "control", f"a{i}", f"b{i}") for i in range(n + m)]


def matched(clusters: int) -> list[Pair]:
    """Each cognate pair's first word has a control partner too."""
    return [p for i in range(clusters) for p in (_pair(COGNATE, f"a{i}", f"b{i}"), _pair("control", f"a{i}", f"c{i}"))]


def couples(clusters: int) -> list[Pair]:
    """Two cognate pairs exchange their second words: each word stands in one cognate and one control pair."""
    return [
        _pair(COGNATE if j == k else "control", f"a{i}.{j}", f"b{i}.{k}")
        for i in range(clusters)
        for j in (0, 1)
        for k in (0, 1)
    ]


def stars(clusters: int) -> list[Pair]:
    """One first word with as many partners as there are, 1 or 2 of them cognates and 1 to 3 not."""
    found = []
    for i in range(clusters):
        cognates, controls = 1 + i % 2, 1 + i % 3
        found += [_pair(COGNATE, f"a{i}", f"b{i}.{j}") for j in range(cognates)]
        found += [_pair("control", f"a{i}", f"c{i}.{j}") for j in range(controls)]
    return found


def meanings(clusters: int, cognates: int, controls: int) -> list[Pair]:
    """One word of each meaning with words of other languages for it, some cognate with it and some not."""
    return [
        Pair(f"{group} {i}.{j}", group, Word(f"a{i}", lang="A"), Word(f"{group}{i}.{j}", lang=f"B{j}"), f"meaning {i}")
        for i in range(clusters)
        for group, count in ((COGNATE, cognates), ("control", controls))
        for j in range(count)
    ]


def uneven_meanings(clusters: int) -> list[Pair]:
    """The same with 1 to 3 cognates and 1 to 5 controls, in no relation to each other."""
    sizes = [(1 + i % 3, 1 + 2 * i % 5) for i in range(clusters)]
    found = []
    for i, (cognates, controls) in enumerate(sizes):
        for p in meanings(1, cognates, controls):
            a, b = (Word(f"{w.form} {i}", lang=w.lang) for w in (p.a, p.b))
            found.append(Pair(f"{p.id} {i}", p.group, a, b, f"meaning {i}"))
    return found


def chains(clusters: int) -> list[Pair]:
    """Two cognate pairs with a control between them, as the published pairs are, and one chain of four in three."""
    found = []
    for i in range(clusters):
        found += [_pair(COGNATE, f"a{i}.{j}", f"b{i}.{j}") for j in (0, 1)] + [_pair("control", f"a{i}.0", f"b{i}.1")]
        if i % 3 == 0:
            found.append(_pair("control", f"a{i}.1", f"c{i}"))
    return found


def families(clusters: int) -> list[Pair]:
    """Clusters of one group and of 1 to 3 pairs, which share their first word."""
    return [
        _pair(COGNATE if i % 2 == 0 else "control", f"a{i}", f"b{i}.{j}")
        for i in range(clusters)
        for j in range(1 + i // 2 % 3)
    ]


def mixture(clusters: int) -> list[Pair]:
    """Stars, chains and clusters of one group beside each other."""
    parts = [("s", stars(clusters)), ("c", chains(clusters)), ("f", families(2 * clusters))]
    return [_pair(p.group, name + p.a.form, name + p.b.form) for name, part in parts for p in part]


def ring(words: int) -> list[Pair]:
    """Every word in one cognate pair and one control pair, all linked into a single cluster."""
    return [_pair(COGNATE, f"a{i}", f"b{i}") for i in range(words)] + [
        _pair("control", f"a{i}", f"b{(i + 1) % words}") for i in range(words)
    ]


def published() -> list[Pair]:
    """As the published pairs are linked: ten cognate pairs, of which four times two are joined by a control pair."""
    alone = [_pair(COGNATE, f"d{i}", f"e{i}") for i in (0, 1)]
    return [p for p in chains(4) if not p.b.form.startswith("c")] + alone


@dataclass(frozen=True)
class Design:
    """Pairs, and how much of a similarity's variance its words make (each side half of it), and what pairs of one
    group and cluster have in common (words for one meaning that come from one root)."""

    name: str
    pairs: list[Pair]
    shared: float
    kindred: float = 0.0


DESIGNS = (
    Design("independent, 10 + 4", independent(10, 4), 0.0),
    Design("independent, 10 + 10", independent(10, 10), 0.0),
    Design("independent, 20 + 20", independent(20, 20), 0.0),
    Design("independent, 60 + 30", independent(60, 30), 0.0),
    Design("matched 1:1, 12 clusters", matched(12), 0.6),
    Design("matched 1:1, 40 clusters", matched(40), 0.6),
    Design("couples 2:2, 12 clusters", couples(12), 0.6),
    Design("couples 2:2, 40 clusters", couples(40), 0.6),
    Design("stars k:l, 12 clusters", stars(12), 0.6),
    Design("chains 2:1 and 2:2, 15 clusters", chains(15), 0.6),
    Design("clusters of one group, 24", families(24), 0.6),
    Design("all of these, 36 clusters", mixture(9), 0.6),
    Design("meanings 3:3 of kindred words, 30 clusters", meanings(30, 3, 3), 0.2, 0.5),
    Design("meanings 1:3 of kindred words, 30 clusters", meanings(30, 1, 3), 0.2, 0.5),
    Design("meanings 3:3 of kindred words, 12 clusters", meanings(12, 3, 3), 0.2, 0.5),
    Design("meanings k:l of kindred words, 33 clusters", uneven_meanings(33), 0.2, 0.5),
    Design("published links 10 + 4, units", published(), 0.6),
    Design("one ring of 20 + 20, units", ring(20), 0.6),
    Design("one ring of 60 + 60, units", ring(60), 0.6),
)


# ── similarities ─────────────────────────────────────────────────────────────────────────────────────────

NOISE: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1.0,
}


def similarities(rng: np.random.Generator, design: Design, count: int, noise: str) -> Array:
    """float64 [count · DEPTHS, pairs], mean 0 and variance 1: families of depths that resemble their neighbours."""
    draw = NOISE[noise]
    found = np.zeros((count, DEPTHS, len(design.pairs)))
    for words, share in (
        ([p.a.form for p in design.pairs], design.shared / 2),
        ([p.b.form for p in design.pairs], design.shared / 2),
        ([f"{p.group} of {p.concept or p.id}" for p in design.pairs], design.kindred),
        ([p.id for p in design.pairs], 1 - design.shared - design.kindred),
    ):
        number: dict[str, int] = {}
        of = [number.setdefault(w, len(number)) for w in words]
        values = draw(rng, (count, DEPTHS, len(number)))
        for depth in range(1, DEPTHS):
            rest = math.sqrt(1 - AUTOCORRELATION**2)
            values[:, depth] = AUTOCORRELATION * values[:, depth - 1] + rest * values[:, depth]
        found += math.sqrt(share) * values[:, :, of]
    return found.reshape(count * DEPTHS, -1)


# ── what is counted ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Counts:
    """How often each thing happened, and of how many."""

    hits: dict[str, int]
    of: dict[str, int]

    def rate(self, what: str) -> float:
        return self.hits[what] / self.of[what]

    def __add__(self, other: Counts) -> Counts:
        names = [*self.hits, *(k for k in other.hits if k not in self.hits)]
        return Counts(
            {k: self.hits.get(k, 0) + other.hits.get(k, 0) for k in names},
            {k: self.of.get(k, 0) + other.of.get(k, 0) for k in names},
        )


def part_of(found: Draws, members: slice) -> Draws:
    """The same labellings of fewer members."""
    return replace(
        found, values=found.values[:, members], errors=found.errors[:, members], observed=found.observed[members],
        error=found.error[members], expected=found.expected[members], sd=found.sd[members], slack=found.slack[members],
    )  # fmt: skip


def simulate(
    design: Design, noise: str, repeat: int, permutations: int = 999, resamples: int = 999, seed: int = 0,
    *, as_if_independent: bool = False,
) -> Counts:  # fmt: skip
    """Of `repeat` families: errors of every p and every interval. Plain p's and intervals are those of one depth.

    as_if_independent: tests and intervals are not told what links the pairs.
    """
    told = independent(len(design.pairs), 0) if as_if_independent else design.pairs
    links, columns = Links.of(told), np.arange(len(design.pairs))
    cognate = np.array([p.group == COGNATE for p in design.pairs])
    total = Counts({}, {})
    for block, start in enumerate(range(0, repeat, AT_ONCE)):
        count = min(AT_ONCE, repeat - start)
        values = similarities(np.random.default_rng([seed, block]), design, count, noise)
        hits: dict[str, list[bool]] = {}
        for what, rows, shift in (("null", values, 0.0), ("bound", values[::DEPTHS], SESOI)):
            sample = Sample((rows + shift * cognate,), columns, cognate, links)
            scheme = Scheme.of(sample)
            found = draws(sample, scheme, permutations, 1100, seed + block)
            if what == "bound":
                interval = resampled(sample, CONFIDENCE, resamples, seed + block)
                compared = Compared(sample, scheme, found, p_values(found), interval, CONFIDENCE, ALPHA, SESOI)
                hits["equivalence"] = list(compared.equivalence <= ALPHA)
                hits["interval of Δ"] = list((interval.low <= SESOI) & (interval.high >= SESOI))
                continue
            chances = [effects.auc(sample, i * DEPTHS, CONFIDENCE)[1] for i in range(count)]
            hits["interval of AUC"] = [c is not None and 0.5 in c for c in chances]
            if scheme.smallest <= ALPHA:
                for i in range(count):
                    part = slice(i * DEPTHS, (i + 1) * DEPTHS)
                    of_family = Sample((values[part],), columns, cognate, links)
                    for name, p in _p_values(of_family, part_of(found, part)).items():
                        hits.setdefault(name, []).append(p <= ALPHA)
        total += Counts({k: int(np.sum(v)) for k, v in hits.items()}, {k: len(v) for k, v in hits.items()})
    return total


def _p_values(sample: Sample, found: Draws) -> dict[str, float]:
    """Of one family; the plain ones are those of its first depth."""
    p = p_values(found)
    curve = family.specification_curve(sample, found, ALPHA)
    assert curve.p_median is not None
    assert curve.p_significant is not None
    return {
        "p": float(p.two_sided[0]),
        "p, one-sided": float(p.greater[0]),
        "max-T": float(p.max_t.min()),
        "q": float(family.benjamini_hochberg(p.two_sided).min()),
        "median": curve.p_median,
        "share": curve.p_significant,
    }


COLUMNS = (
    "p", "p, one-sided", "max-T", "q", "median", "share", "equivalence", "interval of Δ", "interval of AUC",
)  # fmt: skip


def main(words: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibration", description=__doc__)
    parser.add_argument("--repeat", type=int, default=2000, help="families for each line (2000)")
    args = parser.parse_args(words)
    if args.repeat < 1:
        parser.error("--repeat is at least 1")
    print("| design | noise | " + " | ".join(COLUMNS) + " |")
    print("| --- | --- |" + " ---: |" * len(COLUMNS))
    for design in DESIGNS:
        for noise in NOISE:
            counts = simulate(design, noise, args.repeat)
            cells = [f"{100 * counts.rate(c):.1f}" if c in counts.hits else "none given" for c in COLUMNS]
            print(f"| {design.name} | {noise} | " + " | ".join(cells) + " |", flush=True)
    error = [100 * math.sqrt(a * (1 - a) / args.repeat) for a in (ALPHA, CONFIDENCE)]
    print(f"\nPer cent of {args.repeat}; standard error about {error[0]:.1f}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
