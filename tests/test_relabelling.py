"""Relabelling of linked pairs: all labellings by hand, and independent pairs as before."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from groups import drawn
from scipy import stats

from bench.calibration import chains, couples, families, independent, matched, mixture, ring, stars
from pairprobe.outcomes import PAIRS_RELABELLED
from pairprobe.records import COGNATE, Pair, Word
from pairprobe.statistics import relabelling
from pairprobe.statistics.relabelling import band, draws, p_values, relabel
from pairprobe.statistics.sample import Sample
from pairprobe.statistics.schemes import Scheme
from pairprobe.statistics.units import Links


def sample(pairs: list[Pair], values: np.ndarray) -> Sample:
    cognate = np.array([p.group == COGNATE for p in pairs])
    return Sample((values,), np.arange(len(pairs)), cognate, Links.of(pairs))


def normal(pairs: list[Pair], members: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(members, len(pairs)))


def by_hand(pairs: list[Pair], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Δ and its standard error, each [labellings], of one member, whichever clusters change places; from the rule.

    Clusters of one group of one size exchange labels; in mixed clusters the means of the two groups change places. The
    squared error is Welch's among clusters of one group and size (of a group of one, the variance over labellings),
    and that of a sum of independent numbers among mixed ones.
    """
    links = Links.of(pairs)
    cognate = np.array([p.group == COGNATE for p in pairs])
    n, m = cognate.sum(), (~cognate).sum()
    blocks: list[list[tuple[float, float, float | None]]] = []  # each: (what its labellings add to Δ, error², flip)
    one_group: dict[int, list[tuple[bool, float]]] = {}
    for c in range(links.clusters):
        inside = np.flatnonzero(links.cluster == c)
        x, y = values[inside[cognate[inside]]], values[inside[~cognate[inside]]]
        if not len(x) or not len(y):
            one_group.setdefault(len(inside), []).append((len(x) > 0, float(values[inside].sum())))
        else:
            ends = [len(x) * a / n - len(y) * b / m for a, b in ((x.mean(), y.mean()), (y.mean(), x.mean()))]
            blocks.append([(end, 0.0, end - np.mean(ends)) for end in ends])
    for clusters in one_group.values():
        k = sum(first for first, _ in clusters)
        sums = np.array([v for _, v in clusters])
        found = []
        for chosen in itertools.combinations(range(len(sums)), k):
            first = np.isin(np.arange(len(sums)), chosen)
            added = float(sums[first].sum() / n - sums[~first].sum() / m)
            spread = 0.0
            if min(k, len(sums) - k) > 1:
                spread = k * sums[first].var(ddof=1) / n**2 + (len(sums) - k) * sums[~first].var(ddof=1) / m**2
            found.append((added, spread, None))
        if min(k, len(sums) - k) == 1:
            found = [(added, float(np.var([f[0] for f in found])), None) for added, *_ in found]
        blocks.append(found)
    deltas, errors = [], []
    for labelling in itertools.product(*blocks):
        flips = np.array([f for *_, f in labelling if f is not None])
        spread = len(flips) * flips.var(ddof=1) if len(flips) > 1 else (flips**2).sum()
        deltas.append(sum(d for d, *_ in labelling))
        errors.append(np.sqrt(sum(v for _, v, _ in labelling) + spread))
    return np.array(deltas), np.array(errors)


DESIGNS = {
    "matched": matched(5), "couples": couples(4), "stars": stars(4), "chains": chains(5), "families": families(9),
    "mixture": mixture(2), "independent": independent(4, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("seed", range(3))
def test_every_labelling_is_that_of_the_rule_worked_by_hand(name: str, seed: int) -> None:
    pairs = DESIGNS[name]
    values = normal(pairs, seed=seed) + 0.4 * np.array([p.group == COGNATE for p in pairs])
    one = sample(pairs, values)
    found = draws(one, Scheme.of(one), 100, 10**6, 0)
    expected, errors = by_hand(pairs, values[0])
    assert found.exact
    assert found.count == len(expected)
    assert np.sort(found.values[:, 0] + found.expected[0]) == pytest.approx(np.sort(expected), abs=1e-12)
    assert found.expected[0] == pytest.approx(expected.mean(), abs=1e-12)
    assert found.sd[0] == pytest.approx(expected.std(), abs=1e-12)
    delta = one.moments.delta[0]
    assert found.observed[0] == pytest.approx(delta - expected.mean(), abs=1e-12)
    p = p_values(found)
    t = (expected - expected.mean()) / errors
    assert np.sort(found.values[:, 0] / found.errors[:, 0]) == pytest.approx(np.sort(t), abs=1e-7)
    here = found.observed[0] / found.error[0]
    assert p.two_sided[0] == pytest.approx((np.abs(t) >= abs(here) - 1e-9).mean())
    assert p.greater[0] == pytest.approx((t >= here - 1e-9).mean())
    assert p.less[0] == pytest.approx((t <= here + 1e-9).mean())


@pytest.mark.parametrize("name", DESIGNS)
def test_drawn_labellings_have_the_mean_and_spread_of_all(name: str) -> None:
    pairs = DESIGNS[name]
    one = sample(pairs, normal(pairs, members=4))
    many = draws(one, Scheme.of(one), 20_000, 1, 0)
    assert not many.exact
    assert many.values.mean(axis=0) == pytest.approx(0.0, abs=5 * many.sd.max() / math.sqrt(20_000))
    assert many.values.std(axis=0) == pytest.approx(many.sd, rel=0.03)


@pytest.mark.parametrize("name", DESIGNS)
def test_drawn_labellings_are_of_all_with_equal_chance(name: str) -> None:
    pairs = DESIGNS[name]
    one = sample(pairs, normal(pairs))
    scheme = Scheme.of(one)
    every = np.sort(draws(one, scheme, 100, 10**6, 0).values[:, 0])
    if len(every) > 4000:
        every = every[:: len(every) // 500]
    many = np.sort(draws(one, scheme, 20_000, 1, 0).values[:, 0])
    assert stats.ks_2samp(every, many).pvalue > 1e-4


@pytest.mark.parametrize("blocks", [64, 100, 20_000])
@pytest.mark.parametrize("name", [*DESIGNS, "large"])
def test_reading_in_blocks_gives_the_same_distribution(name: str, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # strata that span blocks have their cognates dealt to them
    pairs = independent(150, 200) if name == "large" else DESIGNS[name]
    one = sample(pairs, normal(pairs, members=2))
    monkeypatch.setattr(Sample, "at_once", blocks)
    found = draws(one, Scheme.of(one), 5000, 1, 1)
    assert found.values.mean(axis=0) == pytest.approx(0.0, abs=5 * found.sd.max() / math.sqrt(5000))
    assert found.values.std(axis=0) == pytest.approx(found.sd, rel=0.06)
    assert found.observed + found.expected == pytest.approx(one.moments.delta)


def test_dealt_labellings_keep_the_numbers_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = independent(150, 200)
    # the value marks nothing but a constant: any labelling of 150 gives the same Δ, 0
    values = np.ones((1, 350)) + np.concatenate([np.zeros(349), [1e-3]])
    one = sample(pairs, values)
    monkeypatch.setattr(Sample, "at_once", 64)
    found = draws(one, Scheme.of(one), 2000, 1, 0)
    # Δ takes two values: whether the odd pair is a cognate, which it is with chance 150/350
    levels, counts = np.unique(np.round(found.values[:, 0], 12), return_counts=True)
    assert len(levels) == 2
    low, high = stats.binom.interval(0.9999, 2000, 150 / 350)
    assert low <= counts[1] <= high


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_pairs_that_share_nothing_are_relabelled_as_scipy_does(shift: float) -> None:
    x, y = drawn(3, 6, 4, shift=shift)
    theirs = stats.permutation_test(
        (x[0], y[0]), lambda a, b, axis: np.abs(stats.ttest_ind(a, b, axis=axis, equal_var=False).statistic),
        vectorized=True, n_resamples=np.inf, alternative="greater",
    )  # fmt: skip
    pairs = independent(6, 4)
    one = sample(pairs, np.concatenate([x, y], axis=1))
    assert Scheme.of(one).words == PAIRS_RELABELLED
    assert p_values(draws(one, Scheme.of(one), 100, 50_000, 0)).two_sided[0] == pytest.approx(theirs.pvalue)
    assert relabel(x, y, 100, 50_000, 0).two_sided[0] == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("seed", range(4))
def test_matched_pairs_are_tested_as_scipys_paired_samples_are(seed: int) -> None:
    # sign flips of the differences are SciPy's permutation_type "samples"
    pairs = matched(9)
    values = normal(pairs, seed=seed)
    theirs = stats.permutation_test(
        (values[0, ::2], values[0, 1::2]), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf, alternative="greater",
    )  # fmt: skip
    one = sample(pairs, values)
    found = p_values(draws(one, Scheme.of(one), 100, 50_000, 0))
    assert found.count == 2**9
    assert found.greater[0] == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(
    ("pairs", "count", "smallest"),
    [
        (matched(5), 32, 2 / 32),
        (couples(6), 64, 2 / 64),
        (stars(2), 2 * 2, 2 / 4),  # 1:1 and 2:2
        (chains(2), 4, 2 / 4),
        (families(12), 6**3, 8 / 6**3 / 4),  # two clusters of each group, of each of three sizes
        (ring(8), 2, 1.0),
    ],
)
def test_the_number_of_labellings_and_the_smallest_p(pairs: list[Pair], count: int, smallest: float) -> None:
    scheme = Scheme.of(sample(pairs, normal(pairs)))
    assert scheme.count == count
    assert scheme.smallest == pytest.approx(smallest)


def test_what_cannot_change_places_stays_and_has_no_p() -> None:
    # one cluster of three cognates, one of two controls: neither has another of its size
    pairs = [
        Pair(str(i), COGNATE if i < 3 else "control", Word("a" if i < 3 else "x"), Word(f"b{i}")) for i in range(5)
    ]
    one = sample(pairs, normal(pairs))
    found = draws(one, Scheme.of(one), 100, 50_000, 0)
    assert found.count == 1
    assert np.isnan(found.sd[0])
    assert np.isnan(p_values(found).two_sided[0])


def test_of_very_many_labellings_the_number_is_not_worked_out() -> None:
    pairs = independent(3000, 3000)
    assert Scheme.of(sample(pairs, normal(pairs))).count == 2**62


def test_max_t_of_linked_pairs_equals_brute_force() -> None:
    pairs = couples(5)
    values = normal(pairs, members=3) + np.array([[0.0], [0.5], [1.0]]) * np.array([p.group == COGNATE for p in pairs])
    one = sample(pairs, values)
    every, errors = np.stack([by_hand(pairs, row) for row in values], axis=1)  # each [members, labellings]
    t = np.abs(every - every.mean(axis=1, keepdims=True)) / errors
    observed = t[np.arange(3), np.abs(every - one.moments.delta[:, None]).argmin(axis=1)]
    largest = t.max(axis=0)
    found = p_values(draws(one, Scheme.of(one), 100, 50_000, 0))
    assert found.max_t == pytest.approx([(largest >= t - 1e-9).mean() for t in observed])


def test_values_on_disk_are_read_as_those_in_memory(tmp_path) -> None:
    pairs = mixture(3)
    values = normal(pairs, members=5)
    np.save(tmp_path / "values.npy", values)
    mapped = sample(pairs, np.load(tmp_path / "values.npy", mmap_mode="r"))
    inside = sample(pairs, values)
    a, b = (p_values(draws(s, Scheme.of(s), 500, 1, 0)) for s in (inside, mapped))
    np.testing.assert_array_equal(a.two_sided, b.two_sided)


def test_exact_labellings_are_limited_by_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = independent(5, 5)
    one = sample(pairs, normal(pairs))
    monkeypatch.setattr(relabelling, "MOST", 251)
    assert not draws(one, Scheme.of(one), 100, 50_000, 0).exact  # 252 labellings of one member


@pytest.mark.parametrize("exact_below", [1, 100_000])
def test_outside_the_band_and_only_there_p_max_t_is_at_most_alpha(exact_below: int) -> None:
    """Shifting one member's cognates moves its Δ through the band's end, where its p max-T passes alpha."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(3, 16))
    sample = Sample.of(values[:, :8], values[:, 8:])
    found = draws(sample, Scheme.of(sample), 999, exact_below, 0)
    low, high = band(found, 0.05)
    p = p_values(found).max_t
    delta = sample.moments.delta
    assert ((delta < low) | (delta > high)).tolist() == (p <= 0.05).tolist()
    # the quantile itself, by sorting: as many labellings may reach Δ as alpha allows
    largest = np.sort((np.abs(found.values) / found.errors).max(axis=1))[::-1]
    allowed = int(0.05 * (found.count + found.extra)) - found.extra
    assert np.allclose(high - found.expected, largest[allowed] * found.error)
    assert np.allclose(found.expected - low, largest[allowed] * found.error)


def test_too_few_labellings_have_no_band() -> None:
    values = np.random.default_rng(6).normal(size=(2, 5))
    sample = Sample.of(values[:, :3], values[:, 3:])  # 10 labellings, of which one is the observed
    assert np.isnan(band(draws(sample, Scheme.of(sample), 100, 1000, 0), 0.05)).all()
