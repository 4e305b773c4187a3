"""Own against other partners: answers by hand and by brute force, and how often the tests cry wolf."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from pairprobe.errors import StatisticsError
from pairprobe.evidence import PartnerTest
from pairprobe.records import COGNATE, Pair, Word
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.partners import Design, Pool, design, mean_and_interval, partner_tests

FAST = Statistics(resamples=200, permutations=999)


def pairs_of(n: int, langs: str = "y", concept: str = "", cogset: str = "") -> list[Pair]:
    """n cognate pairs of language x against `langs` in turn; concept, cogset: one letter a pair, '.' for none."""
    return [
        Pair(
            f"p{i}", COGNATE, Word(f"a{i}", lang="x"), Word(f"b{i}", lang=langs[i % len(langs)]),
            concept=concept[i : i + 1].strip("."), cogset=cogset[i : i + 1].strip("."),
        )
        for i in range(n)
    ]  # fmt: skip


def planned(pairs: list[Pair], cells: int = 10**9, seed: int = 0) -> Design:
    texts: dict[tuple[str, str], int] = {}
    a, b = (
        np.array([texts.setdefault((w.lang, w.form), len(texts)) for w in side])
        for side in zip(*((p.a, p.b) for p in pairs), strict=True)
    )
    return design(pairs, a, b, cells, seed)


def asked(
    values: np.ndarray, pairs: list[Pair] | None = None, settings: Statistics = FAST, **more: object
) -> PartnerTest:
    """values: [depths, n, n] or [n, n] over all pairs."""
    values = values if values.ndim == 3 else values[None]
    plan = planned(pairs or pairs_of(values.shape[1]), **more)  # type: ignore[arg-type]

    def measured(pool: Pool) -> dict[str, np.ndarray]:
        return {"cosine": values[:, pool.rows[:, None], pool.rows]}

    return partner_tests(plan, measured, {"cosine": tuple(range(len(values)))}, settings)["cosine"]


def test_a_matrix_of_three_by_hand() -> None:
    #                 own 0.9: 1st of 3; 0.5: 2nd (0.6 is closer); 0.1: 3rd
    values = np.array([[0.9, 0.2, 0.3], [0.6, 0.5, 0.4], [0.7, 0.8, 0.1]])
    test = asked(values)
    at = test.depths[0]
    assert at.own == pytest.approx(0.5)
    assert at.others == pytest.approx((0.2 + 0.3 + 0.6 + 0.4 + 0.7 + 0.8) / 6)
    assert at.delta == pytest.approx(0.0)
    # second words see columns: 0.9 1st; 0.5 2nd (0.8); 0.1 3rd
    assert at.rank == pytest.approx(2.0)
    assert at.mrr == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert at.precision_at_1 == pytest.approx(1 / 3)
    assert (test.words, test.candidates, test.shuffles, test.exact) == (3, 3.0, 6, True)
    assert (test.chance_rank, test.chance_precision_at_1) == (2.0, pytest.approx(1 / 3))
    assert test.chance_mrr == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert test.smallest_p == pytest.approx(1 / 6)
    assert at.p is None  # six ways cannot give one under 0.05
    assert "only 6 ways" in test.why_no_p


@pytest.mark.parametrize("seed", range(3))
def test_exact_p_values_are_those_of_all_permutations(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2, 5, 5)) + seed * 0.5 * np.eye(5)
    test = asked(values)
    sums = np.array([[v[np.arange(5), order].mean() for order in itertools.permutations(range(5))] for v in values])
    means = values.mean(axis=(1, 2))
    spread = sums.std(axis=1)  # over all permutations: exact
    for k, at in enumerate(test.depths):
        far = np.abs(sums[k] - means[k])
        assert at.p == pytest.approx((far >= abs(at.own - means[k]) - 1e-12).mean())
        assert at.p_greater == pytest.approx((sums[k] >= at.own - 1e-12).mean())
        assert at.p_less == pytest.approx((sums[k] <= at.own + 1e-12).mean())
        largest = (np.abs(sums - means[:, None]) / spread[:, None]).max(axis=0)
        assert at.p_max_t == pytest.approx((largest >= abs(at.own - means[k]) / spread[k] - 1e-12).mean())


def test_drawn_p_values_agree_with_scipy_on_products() -> None:
    # where S[i, j] = x[i] y[j], the sum over own partners is that of a correlation: SciPy permutes it
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 12))
    y = y + 0.5 * x
    at = asked(np.outer(x, y), settings=Statistics(permutations=20_000, resamples=100)).depths[0]
    centred = y - y.mean()
    known = stats.permutation_test(
        (x,), lambda x: np.dot(x - x.mean(), centred), permutation_type="pairings", n_resamples=20_000,
        alternative="greater", rng=np.random.default_rng(1),
    )  # fmt: skip
    assert at.p_greater == pytest.approx(known.pvalue, abs=0.01)


def test_two_pairs_exchanged_have_a_mirror_image() -> None:
    values = np.random.default_rng(0).normal(size=(12, 12))
    # six concepts in twelve languages, two of each: each can be exchanged with one other alone
    test = asked(values, pairs_of(12, langs="abcdef"))
    assert (test.shuffles, test.smallest_p) == (2**6, 2 / 2**6)
    assert test.scheme == "partners exchanged within their languages"
    assert test.candidates == 2.0


def test_partners_of_another_language_are_no_rivals() -> None:
    # second words of language z are far from everything: that must not count for those of language y
    values = np.zeros((8, 8))
    values[:, 1::2] = -5.0
    test = asked(values, pairs_of(8, langs="yz"))
    assert test.depths[0].delta == 0.0
    assert test.depths[0].rank == test.chance_rank == 2.5  # all four tie
    assert test.depths[0].precision_at_1 == pytest.approx(0.25)
    assert test.depths[0].p is None  # nothing varies
    assert test.chance_precision_at_1 == 0.25


def test_linked_words_are_not_others_and_are_exchanged_together() -> None:
    values = np.random.default_rng(1).normal(size=(6, 6))
    # pairs 0 and 1 share a cognate set, 2 and 3 a concept, 4 and 5 nothing
    pairs = pairs_of(6, cogset="cc....", concept="..dd..")
    (pool,) = planned(pairs).pools
    assert not pool.candidates[0, 1]
    assert not pool.candidates[3, 2]
    assert pool.candidates[0, [0, 2, 3, 4, 5]].all()
    assert [e.tolist() for e in pool.exchanged] == [[[0, 1], [2, 3]], [[4], [5]]]
    test = asked(values, pairs)
    assert (test.shuffles, test.clusters) == (4, 4)
    assert test.scheme == "partners exchanged, linked pairs together"
    others = [np.mean([values[i, j] for j in range(6) if pool.candidates[i, j] and i != j]) for i in range(6)]
    others += [np.mean([values[i, j] for i in range(6) if pool.candidates[i, j] and i != j]) for j in range(6)]
    assert test.depths[0].others == pytest.approx(np.mean(others))


def test_a_word_with_two_partners_in_one_language_stands_in_once_and_its_other_partner_is_no_rival() -> None:
    pairs = pairs_of(4)
    twice = [
        *pairs,
        Pair("again", COGNATE, pairs[0].a, Word("b9", lang="y")),
        Pair("b9", COGNATE, Word("a9", lang="x"), Word("b9", lang="y")),
    ]
    (pool,) = planned(twice).pools
    assert pool.rows.tolist() == [0, 1, 2, 3, 5]  # pair 4 repeats a0, pair 5 is linked to it through b9
    assert not pool.candidates[0, 4]


def test_one_word_against_several_languages_is_asked_in_each() -> None:
    pairs = [
        Pair(f"{i}{lang}", COGNATE, Word(f"a{i}", lang="x"), Word(f"b{i}{lang}", lang=lang))
        for i in range(4)
        for lang in "yz"
    ]
    (pool,) = planned(pairs).pools
    assert len(pool.rows) == 8
    assert [e.tolist() for e in pool.exchanged] == [[[0, 1], [2, 3], [4, 5], [6, 7]]]
    assert planned(pairs).arrangements == 24


def test_words_without_any_other_candidate_stay_out() -> None:
    assert planned(pairs_of(3, langs="yzw")).pools == ()
    assert partner_tests(planned(pairs_of(3, langs="yzw")), lambda _: {}, {"cosine": (0,)}, FAST) == {}
    # one concept links all: there is nothing free of it
    assert planned(pairs_of(4, concept="cccc")).pools == ()


def test_what_cannot_be_exchanged_has_no_p_and_says_why() -> None:
    pairs = pairs_of(5, cogset="cc...")[:3]  # a cluster of two and one of one
    test = asked(np.random.default_rng(0).normal(size=(3, 3)), pairs)
    assert test.scheme == ""
    assert "cannot be exchanged" in test.why_no_p
    assert test.depths[0].p is None


def test_a_large_matrix_is_asked_in_pools_of_bounded_cells() -> None:
    plan = planned(pairs_of(900, langs="yz"), cells=60_000)
    used = np.concatenate([p.rows for p in plan.pools])
    assert len(np.unique(used)) == len(used)
    assert sum(len(p.rows) ** 2 for p in plan.pools) <= 1.1 * 60_000
    assert min(len(p.rows) for p in plan.pools) >= 20
    for pool in plan.pools:
        assert (pool.candidates.sum(axis=1) > 1).all()
    again = planned(pairs_of(900, langs="yz"), cells=60_000)
    assert all((p.rows == q.rows).all() for p, q in zip(plan.pools, again.pools, strict=True))
    huge = planned(pairs_of(3000), cells=10_000)
    assert sum(len(p.rows) for p in huge.pools) == 500
    assert sum(len(p.rows) ** 2 for p in huge.pools) <= 11_000


def test_pools_find_what_the_whole_matrix_finds() -> None:
    values = np.random.default_rng(0).normal(size=(200, 200)) + 0.5 * np.eye(200)
    whole, pooled = asked(values), asked(values, cells=8000)
    assert whole.candidates == 200
    assert pooled.candidates == 40
    assert "5 groups drawn at random" in pooled.scheme
    assert whole.depths[0].own == pytest.approx(pooled.depths[0].own)
    assert whole.depths[0].p == pooled.depths[0].p == 1 / 1000
    assert pooled.depths[0].delta == pytest.approx(whole.depths[0].delta, abs=0.05)


def test_a_similarity_that_is_not_finite_is_an_error() -> None:
    values = np.zeros((4, 4))
    values[2, 1] = np.nan
    with pytest.raises(StatisticsError, match="first word of cognate pair 3 with the second word of cognate pair 2"):
        asked(values)


def test_adding_to_a_row_or_a_column_moves_no_p() -> None:
    # a word that is close to everything (a hub) is no sign of partnership
    rng = np.random.default_rng(5)
    values = rng.normal(size=(7, 7))
    moved = values + 10 * rng.normal(size=(7, 1)) + 10 * rng.normal(size=(1, 7))
    assert asked(values).depths[0].p == pytest.approx(asked(moved).depths[0].p)


def test_interval_of_means_of_independent_words_is_scipys_bca() -> None:
    values = np.random.default_rng(2).exponential(size=40)
    _, (found,) = mean_and_interval(values[None], np.arange(40), Statistics(resamples=20_000), 12)
    known = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    assert found is not None
    assert found.low == pytest.approx(known.confidence_interval.low, abs=0.02)
    assert found.high == pytest.approx(known.confidence_interval.high, abs=0.02)


def test_interval_is_undefined_where_all_words_are_alike() -> None:
    _, (found,) = mean_and_interval(np.ones((1, 6)), np.arange(6), FAST, 12)
    assert found is None


def test_intervals_of_clustered_words_hold_the_truth() -> None:
    rng = np.random.default_rng(7)
    cluster = np.repeat(np.arange(40), 3)
    values = rng.normal(size=(300, 40))[:, cluster] + 0.3 * rng.normal(size=(300, 120))
    _, intervals = mean_and_interval(values, cluster, Statistics(resamples=1000), 12)
    held = sum(i is not None and 0.0 in i for i in intervals)
    assert stats.binom.cdf(held, 300, 0.95) > 1e-4
    assert held > 0.9 * 300  # pairs drawn one by one would hold it about 74 times in a hundred


def alarms(draw, pairs: list[Pair], rounds: int, names: tuple[str, ...]) -> dict[str, int]:
    """How often each p is at most 0.05 where partners mean nothing."""
    settings = Statistics(resamples=100, permutations=199)
    plan = planned(pairs)
    hits = dict.fromkeys((*names, "family"), 0)
    rng = np.random.default_rng(11)
    for r in range(rounds):
        values = draw(rng)
        test = partner_tests(
            plan, lambda pool, v=values: {"s": v[:, pool.rows[:, None], pool.rows]},
            {"s": tuple(range(len(values)))}, Statistics(resamples=100, permutations=199, seed=r),
        )["s"]  # fmt: skip
        for name in names:
            hits[name] += getattr(test.depths[0], name) <= settings.alpha
        hits["family"] += min(at.p_max_t for at in test.depths) <= settings.alpha
    return hits


def hubs_and_depths(n: int):
    """Vectors that drift from depth to depth; some words are close to everything."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        a, b = np.cumsum(rng.normal(size=(2, 4, n, 5)), axis=1)  # autocorrelated depths
        a = a + 2 * rng.normal(size=(1, n, 1))
        return np.einsum("dik,djk->dij", a, b)

    return draw


def test_five_in_a_hundred_false_alarms() -> None:
    rounds = 400
    hits = alarms(hubs_and_depths(12), pairs_of(12), rounds, ("p", "p_greater"))
    low, high = stats.binom.ppf([0.0005, 0.9995], rounds, 0.05)
    for name, count in hits.items():
        assert low <= count <= high, (name, count)


def test_five_in_a_hundred_also_with_linked_words_in_two_languages() -> None:
    pairs = [
        Pair(f"{i}{lang}", COGNATE, Word(f"a{i}", lang="x"), Word(f"b{i}{lang}", lang=lang))
        for i in range(9)
        for lang in "yz"
    ]

    def draw(rng: np.random.Generator) -> np.ndarray:
        a = np.repeat(rng.normal(size=(3, 9, 4)), 2, axis=1)  # the same word twice
        b = np.repeat(rng.normal(size=(3, 9, 4)), 2, axis=1) + 0.3 * rng.normal(size=(3, 18, 4))
        b[:, 1::2] += 3.0  # the languages lie apart
        return np.einsum("dik,djk->dij", a, b)

    rounds = 400
    hits = alarms(draw, pairs, rounds, ("p", "p_greater"))
    low, high = stats.binom.ppf([0.0005, 0.9995], rounds, 0.05)
    for name, count in hits.items():
        assert low <= count <= high, (name, count)
