"""Which pairs are linked: worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pairprobe.records import Pair, Word
from pairprobe.statistics.units import Links, clusters, links, units


def pair(number: int, a: str, b: str, concept: str = "", cogset: str = "", **words: str) -> Pair:
    return Pair(
        str(number), "cognate", Word(a, lang="A", concept=words.get("ca", "")),
        Word(b, lang="B", concept=words.get("cb", "")), concept=concept, cogset=cogset,
    )  # fmt: skip


def test_pairs_that_share_nothing_are_apart() -> None:
    assert clusters([pair(0, "a", "b"), pair(1, "c", "d"), pair(2, "e", "f")]).tolist() == [0, 1, 2]


def test_a_shared_word_links_also_over_steps() -> None:
    assert clusters([pair(0, "a", "b"), pair(1, "c", "d"), pair(2, "a", "d"), pair(3, "x", "y")]).tolist() == [
        0,
        0,
        0,
        1,
    ]


def test_one_form_in_two_languages_is_one_word() -> None:
    # Swedish rot, Dutch rot: the model is given one text. pair() puts its words into languages A and B
    assert clusters([pair(0, "a", "b"), pair(1, "b", "c")]).tolist() == [0, 0]
    assert units([pair(0, "a", "b"), control(1, "b", "c")]).tolist() == [[0, 0], [0, 1]]


def test_case_and_composition_make_no_other_word() -> None:
    given = [pair(0, "mond", "b"), pair(1, "Mond", "c"), pair(2, "Öl", "d"), pair(3, "o\u0308l", "e")]
    assert clusters(given).tolist() == [0, 0, 1, 1]
    assert clusters([pair(0, "kʷel", "b"), pair(1, "kwel", "c")]).tolist() == [0, 1]


def test_concepts_and_cognate_sets_link() -> None:
    assert clusters([pair(0, "a", "b", "dog"), pair(1, "c", "d", "dog"), pair(2, "e", "f")]).tolist() == [0, 0, 1]
    assert clusters([pair(0, "a", "b", cogset="7"), pair(1, "c", "d", cogset="7")]).tolist() == [0, 0]


def test_a_control_of_two_meanings_links_both() -> None:
    found = clusters([pair(0, "a", "b", "dog"), pair(1, "c", "d", "sun"), pair(2, "e", "f", ca="dog", cb="sun")])
    assert found.tolist() == [0, 0, 0]


def test_no_meaning_is_no_link() -> None:
    assert not any(kind == "concept" for kind, *_ in links(pair(0, "a", "b")))


def test_components_are_scipys() -> None:
    rng = np.random.default_rng(3)
    pairs = [pair(i, f"a{rng.integers(40)}", f"b{rng.integers(40)}", f"c{rng.integers(60)}") for i in range(50)]
    edges = [(i, j) for i, j in itertools.combinations(range(50), 2) if links(pairs[i]) & links(pairs[j])]
    i, j = np.array(edges).T
    n, labels = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(50, 50)), directed=False)
    ours = clusters(pairs)
    assert ours.max() + 1 == n
    assert len({*zip(ours.tolist(), labels.tolist(), strict=True)}) == n


# ── units ──────────────────────────────────────────────────────────────────────────────────────────────


def control(number: int, a: str, b: str, concept: str = "") -> Pair:
    return Pair(f"k{number}", "control", Word(a, lang="A"), Word(b, lang="B"), concept=concept)


def test_a_cognate_pair_joins_its_words_and_a_control_crosses() -> None:
    given = [pair(0, "a", "b"), pair(1, "c", "d"), control(2, "a", "d"), control(3, "x", "y")]
    assert units(given).tolist() == [[0, 0], [1, 1], [0, 1], [2, 3]]
    links_of = Links.of(given)
    assert (links_of.units, links_of.crossing, links_of.clusters) == (4, 2, 2)
    assert not links_of.independent


def test_one_meaning_is_one_unit_whoever_says_it() -> None:
    given = [pair(0, "a", "b", "dog"), control(1, "c", "d", "dog"), pair(2, "e", "f", "sun")]
    assert units(given).tolist() == [[0, 0], [0, 0], [1, 1]]


def test_a_cognate_set_joins_across_meanings() -> None:
    given = [pair(0, "a", "b", "dog", cogset="1"), pair(1, "c", "d", "hound", cogset="1")]
    assert units(given).tolist() == [[0, 0], [0, 0]]


def test_pairs_that_share_nothing_are_independent() -> None:
    given = Links.of([pair(0, "a", "b"), control(1, "c", "d")])
    assert given.independent
    assert (given.clusters, given.units, given.crossing) == (2, 3, 1)
