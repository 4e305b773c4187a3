"""Many tests at once: statsmodels for Benjamini and Hochberg, brute force for the specification curve."""

from __future__ import annotations

import numpy as np
import pytest
from groups import FAST, drawn, pair_set, similarities
from scipy import stats
from statsmodels.stats.multitest import multipletests
from test_relabelling import normal, sample

from bench.calibration import couples, independent, matched, ring
from pairprobe.errors import StatisticsError
from pairprobe.records import COGNATE, Similarities
from pairprobe.statistics.effects import hedges_correction
from pairprobe.statistics.family import benjamini_hochberg, specification_curve
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.relabelling import draws, p_values
from pairprobe.statistics.schemes import Scheme


@pytest.mark.parametrize("seed", range(5))
def test_q_is_statsmodels_fdr_bh(seed: int) -> None:
    p = np.random.default_rng(seed).beta(0.5, 2, 30).round(2)  # ties too
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


def test_what_is_undefined_has_no_q_and_does_not_count() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03])
    found = benjamini_hochberg(p)
    assert np.isnan(found[1])
    assert found[[0, 2, 3]] == pytest.approx(multipletests(p[[0, 2, 3]], method="fdr_bh")[1])


def test_all_similarities_and_depths_are_one_family() -> None:
    x, y = drawn(3, 7, 6, depths=4, shift=0.8)
    both = similarities(x, y)
    one, two = (Similarities(name, both.values[rows], (0, 1)) for name, rows in (("a", [0, 1]), ("b", [2, 3])))
    pairs = pair_set(7, 6)
    together = FAST.tests([one, two], pairs)
    whole = FAST.tests([both], pairs)["cosine", "control"]
    assert list(together) == [("a", "control"), ("b", "control")]
    split = [at for test in together.values() for at in test.depths]
    for field in ("delta", "p", "p_greater", "p_max_t", "q", "delta_ci", "auc", "equivalence_p", "left_out"):
        assert [getattr(at, field) for at in split] == [getattr(at, field) for at in whole.depths], field
    assert {t.family for t in (*together.values(), whole)} == {4}
    alone = FAST.tests([one], pairs)["a", "control"]
    for at, corrected in zip(alone.depths, together["a", "control"].depths, strict=True):
        assert corrected.p == at.p
        assert corrected.p_max_t >= at.p_max_t


def test_q_of_a_test_is_that_of_its_p() -> None:
    x, y = drawn(1, 8, 6, depths=5, shift=0.7)
    depths = FAST.tests([similarities(x, y)], pair_set(8, 6))["cosine", "control"].depths
    assert [at.q for at in depths] == pytest.approx(multipletests([at.p for at in depths], method="fdr_bh")[1])


# ── the specification curve ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(6))
def test_the_joint_tests_are_those_of_every_relabelled_data_set_analysed_anew(seed: int) -> None:
    # couples: 2⁷ labellings; each is written out as data, and analysed as the observed data are
    pairs = couples(7)
    cognate = np.array([p.group == COGNATE for p in pairs])
    values = normal(pairs, members=5, seed=seed) + 0.35 * (seed % 3) * cognate
    one = sample(pairs, values)
    scheme = Scheme.of(one)
    curve = specification_curve(one, draws(one, scheme, 100, 50_000, 0), 0.05)
    labellings = []
    for signs in np.ndindex(*(2,) * 7):
        flipped = np.repeat(np.array(signs, dtype=bool), 4)
        labellings.append(cognate ^ flipped)
    differences = np.array([values[:, z].mean(axis=1) - values[:, ~z].mean(axis=1) for z in labellings])
    t = np.array([stats.ttest_ind(values[:, z], values[:, ~z], axis=1).statistic for z in labellings])
    g = hedges_correction(26) * t * np.sqrt(2 / 14)
    medians = np.median(g, axis=1)
    size = np.abs(differences)
    p = np.array([[(size[:, j] >= size[b, j] - 1e-9).mean() for j in range(5)] for b in range(len(labellings))])
    counts = ((p <= 0.05) & (np.sign(differences) == np.sign(medians)[:, None])).sum(axis=1)
    assert curve.median_g == pytest.approx(medians[0])
    assert curve.p_median == pytest.approx((np.abs(medians) >= abs(medians[0]) - 1e-9).mean())
    assert curve.significant == pytest.approx(counts[0] / 5)
    assert curve.p_significant == pytest.approx((counts >= counts[0]).mean())
    assert curve.agree == pytest.approx((np.sign(g[0]) == np.sign(medians[0])).mean())


def test_of_one_specification_the_joint_p_is_its_own() -> None:
    pairs = matched(10)
    one = sample(pairs, normal(pairs, seed=2))
    found = draws(one, Scheme.of(one), 100, 50_000, 0)
    # the median of one g is that g, which orders labellings as Δ does
    assert specification_curve(one, found, 0.05).p_median == pytest.approx(p_values(found).two_sided[0])


def test_drawn_and_exact_joint_tests_agree() -> None:
    pairs = independent(8, 7)
    values = normal(pairs, members=9, seed=5) + 0.5 * np.array([p.group == COGNATE for p in pairs])
    one = sample(pairs, values)
    exact, many = (specification_curve(one, draws(one, Scheme.of(one), 20_000, n, 0), 0.05) for n in (10**6, 1))
    assert many.p_median == pytest.approx(exact.p_median, abs=0.012)
    assert many.p_significant == pytest.approx(exact.p_significant, abs=0.012)
    assert many.significant == pytest.approx(exact.significant, abs=1 / 9)


def test_where_nothing_can_be_relabelled_the_curve_has_no_p() -> None:
    pairs = ring(12)
    one = sample(pairs, normal(pairs, members=3))
    curve = specification_curve(one, draws(one, Scheme.of(one), 100, 50_000, 0), 0.05)
    assert curve.median_g is not None
    assert (curve.p_median, curve.significant, curve.p_significant) == (None, None, None)


def test_an_undefined_specification_is_left_out() -> None:
    pairs = couples(6)
    values = normal(pairs, members=3, seed=1)
    with_flat = np.concatenate([values, np.full((1, len(pairs)), 0.4)])
    curves = []
    for some in (values, with_flat):
        one = sample(pairs, some)
        curves.append(specification_curve(one, draws(one, Scheme.of(one), 100, 50_000, 0), 0.05))
    assert curves[0] == curves[1]


def test_a_multiverse_holds_every_depth_of_every_specification() -> None:
    x, y = drawn(3, 7, 6, depths=4, shift=0.8)
    one, two = (Similarities("cosine", similarities(x[r], y[r]).values, (0, 6)) for r in ([0, 1], [2, 3]))
    pairs = pair_set(7, 6)
    found = Statistics(resamples=200).multiverse(
        [("gloss", "mean", one), ("bare", "last", two)], pairs, "control", ("bare", "last", "cosine", -1)
    )
    whole = FAST.tests([similarities(x, y)], pairs)["cosine", "control"]
    assert [(s.template, s.pooling, s.depth) for s in found.specifications] == [
        ("gloss", "mean", 0), ("gloss", "mean", 6), ("bare", "last", 0), ("bare", "last", 6),
    ]  # fmt: skip
    assert [s.primary for s in found.specifications] == [False, False, False, True]
    for field, ours in (("delta", "delta"), ("g", "g"), ("p", "p"), ("p_max_t", "p_max_t"), ("delta_ci", "ci")):
        assert [getattr(s, ours) for s in found.specifications] == [getattr(at, field) for at in whole.depths]
    assert found.median_g == pytest.approx(np.median([at.g for at in whole.depths]))
    assert (found.relabellings, found.scheme, found.alpha) == (whole.relabellings, whole.scheme, 0.05)


def test_a_multiverse_of_numbers_that_are_none_is_refused() -> None:
    x, y = drawn(3, 7, 6)
    x[0, 1] = np.nan
    with pytest.raises(StatisticsError, match="cosine of pair g1 at depth 0 is nan"):
        FAST.multiverse([("gloss", "mean", similarities(x, y))], pair_set(7, 6), "control")
