"""CKA and RSA against their definitions written out, SciPy, and what must not change them."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist

from pairprobe.statistics import across
from pairprobe.statistics.across import agreement, debiased_cka, rsa, spearman


def hsic_by_definition(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741  as the paper names it
    """Song et al.'s unbiased estimate as a mean over all ordered quadruples of different words."""
    terms = [k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in permutations(range(len(k)), 4)]
    return float(np.mean(terms))


def hsic_in_closed_form(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Their equation 4, matrix by matrix."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    found = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ l @ one
    return float(found / (n * (n - 3)))


def cka_with(hsic, x: np.ndarray, y: np.ndarray) -> float:
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return hsic(k, l) / float(np.sqrt(hsic(k, k) * hsic(l, l)))


def biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float(np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def related(rng: np.random.Generator, n: int, widths: tuple[int, int] = (7, 11), noise: float = 1.0):
    """Two sets of vectors of the same words that share five dimensions."""
    hidden = rng.normal(size=(n, 5))
    return tuple(hidden @ rng.normal(size=(5, w)) + noise * rng.normal(size=(n, w)) + 3 for w in widths)


@pytest.mark.parametrize("n", [4, 5, 7])
def test_cka_is_its_definition(rng: np.random.Generator, n: int) -> None:
    x, y = related(rng, n)
    assert debiased_cka([x], [y])[0, 0] == pytest.approx(cka_with(hsic_by_definition, x, y), abs=1e-10)


def test_cka_is_its_closed_form(rng: np.random.Generator) -> None:
    x, y = related(rng, 40, (60, 9))
    assert debiased_cka([x], [y])[0, 0] == pytest.approx(cka_with(hsic_in_closed_form, x, y), abs=1e-12)


@pytest.mark.parametrize("n", [4, 23])
def test_rsa_is_spearmans_of_cosine_distances(rng: np.random.Generator, n: int) -> None:
    x, y = related(rng, n)
    expected = stats.spearmanr(pdist(x, "cosine"), pdist(y, "cosine")).statistic
    assert rsa([x], [y])[0, 0] == pytest.approx(expected, abs=1e-12)


def test_every_depth_meets_every_depth_in_blocks_as_in_one(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = rng.normal(size=(5, 17, 6)), rng.normal(size=(3, 17, 9)).astype(np.float32)
    whole = debiased_cka(x, y), rsa(x, y)
    assert whole[0].shape == (5, 3)
    for i, j in [(0, 0), (4, 2), (2, 1)]:
        assert whole[0][i, j] == pytest.approx(cka_with(hsic_in_closed_form, x[i], y[j].astype(float)), abs=1e-12)
        assert whole[1][i, j] == pytest.approx(
            stats.spearmanr(pdist(x[i], "cosine"), pdist(y[j].astype(float), "cosine")).statistic, abs=1e-12
        )
    monkeypatch.setattr(across, "ROWS", 50)  # two rows of words at a time
    monkeypatch.setattr(across, "BLOCK", 300)  # two depths at a time
    assert debiased_cka(x, y) == pytest.approx(whole[0], abs=1e-13)
    assert rsa(x, y) == pytest.approx(whole[1], abs=1e-13)


def test_turning_scaling_and_shifting_change_no_cka(rng: np.random.Generator) -> None:
    x, y = related(rng, 30)
    turn = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    before = debiased_cka([x], [y])[0, 0]
    assert debiased_cka([3.7 * x @ turn + 100], [y])[0, 0] == pytest.approx(before, abs=1e-10)
    assert debiased_cka([x], [3.7 * x @ turn - 5])[0, 0] == pytest.approx(1.0, abs=1e-12)
    assert debiased_cka([x @ rng.normal(size=(7, 7))], [y])[0, 0] != pytest.approx(
        before, abs=1e-3
    )  # but shearing does


def test_turning_and_each_words_length_change_no_rsa(rng: np.random.Generator) -> None:
    x, y = related(rng, 30)
    turn = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    before = rsa([x], [y])[0, 0]
    assert rsa([x @ turn * rng.uniform(0.1, 9, size=(30, 1))], [y])[0, 0] == pytest.approx(before, abs=1e-12)


def test_unrelated_wide_vectors_have_nothing_in_common_which_the_biased_one_denies(rng: np.random.Generator) -> None:
    pairs = [(rng.normal(size=(30, 2000)), rng.normal(size=(30, 3000))) for _ in range(20)]
    assert min(biased_cka(x, y) for x, y in pairs) > 0.9
    assert abs(np.mean([debiased_cka([x], [y])[0, 0] for x, y in pairs])) < 0.03


def test_what_is_undefined_is_not_a_number_and_never_0(rng: np.random.Generator) -> None:
    x, y = related(rng, 12)
    same = np.tile(y[:1], (12, 1)).astype(np.float32)
    alone = np.eye(12)  # all equally far from each other
    for bad in (same, alone, np.where(np.arange(12)[:, None] == 3, np.nan, y)):
        assert np.isnan(debiased_cka([x], [bad])).all()
        assert np.isnan(rsa([bad], [x])).all()
        found = agreement(x, bad, ["a"] * 12, 0.95, 0)
        assert (found.cka, found.cka_ci, found.rsa, found.rsa_ci, found.rsa_p) == (None,) * 5
    no_length = y * (np.arange(12)[:, None] != 3)
    assert np.isnan(rsa([x], [no_length])).all()
    assert np.isfinite(debiased_cka([x], [no_length])).all()
    assert np.isnan(debiased_cka([x[:3]], [y[:3]])).all()
    assert np.isnan(rsa([x[:3]], [y[:3]])).all()


def test_words_that_do_not_match_are_refused(rng: np.random.Generator) -> None:
    x, y = related(rng, 12)
    with pytest.raises(ValueError, match="same words"):
        debiased_cka([x], [y[:11]])


def test_ranks_with_ties_are_scipys(rng: np.random.Generator) -> None:
    for values in (rng.integers(0, 9, 200).astype(float), rng.normal(size=50), np.array([2.0]), np.zeros(4)):
        assert np.array_equal(across._ranks(values), stats.rankdata(values))


def test_spearman_is_scipys_and_undefined_where_it_means_nothing(rng: np.random.Generator) -> None:
    a = rng.integers(0, 5, 20).astype(float)
    b = a + rng.normal(size=20)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert spearman(a, np.full(20, 0.3)) is None
    assert spearman(a[:4], b[:4]) is None


# ── how sure ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [14, 26])
def test_intervals_over_words_hold_the_truth_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(8, 20)), rng.normal(size=(8, 30))

    def draw(words: int) -> tuple[np.ndarray, np.ndarray]:
        hidden = rng.normal(size=(words, 8)) * np.linspace(2, 0.5, 8)
        x, y = (hidden @ m + 2 * rng.normal(size=(words, m.shape[1])) for m in mixing)
        return x, y

    x, y = draw(1500)
    truth = debiased_cka([x], [y])[0, 0], rsa([x], [y])[0, 0]
    assert all(0.2 < t < 0.8 for t in truth)
    held = np.zeros(2)
    for _ in range(150):
        x, y = draw(n)
        ways = (across._u_centred, across._ranked)
        values = [across._product(way(x), way(y)) for way in ways]
        intervals = across._jackknife(x, y, ways, values, 0.95, 0)
        held += [truth[k] in intervals[k] for k in range(2)]  # type: ignore[operator]
    assert (held / 150 > 0.90).all()  # 95 % promised; 150 draws scatter by 2 %


def test_many_words_are_left_out_in_groups(rng: np.random.Generator) -> None:
    x, y = related(rng, 230)
    found = agreement(x, y, ["a"] * 230, 0.95, 0)
    assert found.exchanges == across.PERMUTATIONS_OF_MANY
    assert found.cka in found.cka_ci
    assert found.rsa in found.rsa_ci
    assert found.rsa_p == pytest.approx(1 / 1000)
    assert agreement(x, y, ["a"] * 230, 0.95, 0) == found  # a seed is a seed


def test_the_same_vectors_have_no_interval_and_few_words_neither(rng: np.random.Generator) -> None:
    x, y = related(rng, 15)
    found = agreement(x, 2 * x, ["a"] * 15, 0.95, 0)
    assert found.cka == pytest.approx(1)
    assert found.rsa == pytest.approx(1)
    assert found.cka_ci is found.rsa_ci is None
    few = agreement(x[:9], y[:9], ["a"] * 9, 0.95, 0)
    assert few.cka is not None
    assert few.cka_ci is None


def test_runs_all_but_identical_have_an_interval_at_1(rng: np.random.Generator) -> None:
    """Two neighbours among 435 ranks change places; without one of their words nothing differs, or rounding alone."""
    x, step = rng.normal(size=(30, 8)), np.zeros((30, 8))
    step[3] = rng.normal(size=8)
    moved = (x + size * step for size in np.geomspace(1e-8, 1e-2, 2000))
    y = next(y for y in moved if rsa([x], [y])[0, 0] < 1 - 1e-12)
    found = agreement(x, y, ["a"] * 30, 0.95, 0)
    assert found.rsa == pytest.approx(1 - 6 * 2 / (435 * (435**2 - 1)), abs=1e-12)
    assert found.rsa_ci is not None
    assert found.rsa in found.rsa_ci
    assert found.rsa_ci.low > 1 - 1e-4
    assert str(found.rsa_ci) == "[+1.000, +1.000]"


def test_one_word_that_differs_leaves_a_finite_interval(rng: np.random.Generator) -> None:
    x = rng.normal(size=(40, 30))
    y = x.copy()
    y[7] = rng.normal(size=30)
    found = agreement(x, y, ["a"] * 40, 0.95, 0)
    # by hand: r without the word is 1, without any other nearly r, so the error of r is nearly 1 − r
    for value, interval in ((found.rsa, found.rsa_ci), (found.cka, found.cka_ci)):
        assert value is not None
        assert interval is not None
        assert value < 0.99
        reach = stats.t.ppf(0.975, 39) * (1 - value) / (1 - value**2)
        assert math.atanh(value) - math.atanh(interval.low) == pytest.approx(reach, rel=0.1)
        assert math.atanh(interval.high) - math.atanh(value) == pytest.approx(reach, rel=0.1)


def test_exchanging_words_within_their_language_gives_false_alarms_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(across, "PERMUTATIONS", 199)
    rng = np.random.default_rng(2)
    languages = ["old"] * 7 + ["new"] * 7
    apart = np.repeat([[0.0], [4.0]], 7, axis=0)  # both runs tell the languages apart, and nothing else in common
    within, across_languages = [], []
    for seed in range(200):
        x, y = (rng.normal(size=(14, w)) + apart for w in (8, 12))
        features = across._ranked(x), across._ranked(y)
        within.append(across._exchanged(*features, languages, seed)[0])
        if seed < 20:
            across_languages.append(across._exchanged(*features, ["any"] * 14, seed)[0])
    rate = np.mean([p <= 0.05 for p in within if p is not None])
    assert 0.01 <= rate <= 0.09
    assert np.mean([p <= 0.05 for p in across_languages if p is not None]) > 0.8  # as a plain Mantel test would


def test_no_p_where_no_words_can_be_exchanged(rng: np.random.Generator) -> None:
    x, y = related(rng, 12)
    found = agreement(x, y, [str(i) for i in range(12)], 0.95, 0)
    assert (found.rsa_p, found.exchanges) == (None, 0)
    assert found.rsa is not None
