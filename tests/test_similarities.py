"""Similarities: by hand, and against scikit-learn and SciPy."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from groups import FAST, pair_set
from scipy import stats
from scipy.spatial import distance
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from pairprobe import norms
from pairprobe.errors import ConfigError, StatisticsError
from pairprobe.records import Text, Texts, Vectors, Word
from pairprobe.similarities import pairwise
from pairprobe.similarities.all_but_the_top import AllButTheTop
from pairprobe.similarities.centred import Centred
from pairprobe.similarities.cosine import Cosine
from pairprobe.similarities.csls import Csls
from pairprobe.similarities.euclidean import Euclidean
from pairprobe.similarities.language_centred import LanguageCentred
from pairprobe.similarities.rank_cosine import RankCosine, centred_ranks
from pairprobe.similarities.zscored import ZScored
from pairprobe.verdict import verdict


def texts_of(n: int, *pairs: tuple[int, int]) -> Texts:
    """n texts named w0, w1, …, and pairs of their indices."""
    a, b = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    return Texts(tuple(Text(f"w{i}", 0, 2, Word(f"w{i}")) for i in range(n)), a, b, "bare")


def vectors_of(*depths: list[list[float]], numbered: tuple[int, ...] | None = None) -> Vectors:
    """One list of vectors per depth; depths are numbered from 0 unless said otherwise."""
    values = np.array(depths, dtype=np.float32)
    return Vectors(values, numbered or tuple(range(len(depths))), "float32")


@pytest.fixture
def drawn() -> tuple[Vectors, Texts]:
    """Four depths of nine random vectors that share a direction, and twelve pairs of them."""
    rng = np.random.default_rng(3)
    values = (rng.normal(size=(4, 9, 16)) + 2.0).astype(np.float32)
    pairs = [(int(i), int(j)) for i, j in rng.integers(0, 9, (12, 2))]
    return Vectors(values, (0, 1, 2, 3), "float32"), texts_of(9, *pairs)


# ── raw cosine ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([3.0, 4.0], [4.0, 3.0], 24 / 25),  # (12 + 12) / (5 · 5)
        ([1.0, 0.0], [0.0, 5.0], 0.0),
        ([1.0, 2.0], [-2.0, -4.0], -1.0),
        ([1.0, 2.0], [10.0, 20.0], 1.0),  # length does not matter
        ([1.0, 1.0], [1.0, 0.0], 2**-0.5),  # 45°
        ([5.0, 12.0], [3.0, 4.0], 63 / 65),
    ],
)
def test_cosine_by_hand(a, b, expected):
    measured = Cosine().measure(vectors_of([a, b]), texts_of(2, (0, 1)))
    assert measured.values[0, 0] == pytest.approx(expected, abs=1e-15)


def test_cosine_equals_scikit_learns_at_every_depth(drawn):
    vectors, texts = drawn
    expected = [cosine_similarity(v.astype(np.float64))[texts.a, texts.b] for v in vectors.values]
    np.testing.assert_allclose(Cosine().measure(vectors, texts).values, expected, atol=1e-14)


def test_there_is_one_number_per_depth_and_pair_in_their_order():
    # a text's vector turns by 90° from one depth to the next
    vectors = vectors_of([[1, 0], [1, 0], [0, 1]], [[1, 0], [0, 1], [0, 1]], numbered=(0, 7))
    measured = Cosine().measure(vectors, texts_of(3, (0, 1), (1, 2)))
    assert measured.values.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert measured.depths == (0, 7)
    assert measured.values.dtype == np.float64


def test_a_text_paired_with_itself_has_a_cosine_of_one(drawn):
    vectors, _ = drawn
    same = texts_of(9, *((i, i) for i in range(9)))
    values = Cosine().measure(vectors, same).values
    assert values.max() <= 1.0
    np.testing.assert_allclose(values, 1.0, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_square_of_a_float32_may_over_or_underflow_but_not_its_cosine(scale):
    vectors = vectors_of([[3 * scale, 4 * scale], [4 * scale, 3 * scale]])
    assert Cosine().measure(vectors, texts_of(2, (0, 1))).values[0, 0] == pytest.approx(24 / 25, abs=1e-6)


def test_a_vector_of_length_zero_is_refused_with_its_word_and_depth():
    vectors = vectors_of([[1, 0], [1, 1], [1, 2]], [[1, 0], [1, 1], [0, 0]], numbered=(3, 5))
    with pytest.raises(StatisticsError, match="the vector of 'w2' at depth 5 has length zero"):
        Cosine().measure(vectors, texts_of(3, (0, 1), (1, 2)))


# ── centred ──────────────────────────────────────────────────────────────────────────────────────────────


def test_centred_by_hand():
    # mean (2, 2); left: (−1, 0), (1, −1), (0, 1); cosines −1/√2, −1/√2, 0
    vectors = vectors_of([[1, 2], [3, 1], [2, 3]])
    measured = Centred().measure(vectors, texts_of(3, (0, 1), (1, 2), (0, 2)))
    np.testing.assert_allclose(measured.values[0], [-(2**-0.5), -(2**-0.5), 0.0], atol=1e-15)


def test_centred_equals_scikit_learns_cosine_of_the_centred_vectors(drawn):
    vectors, texts = drawn
    exact = vectors.values.astype(np.float64)
    expected = [cosine_similarity(v - v.mean(axis=0))[texts.a, texts.b] for v in exact]
    np.testing.assert_allclose(Centred().measure(vectors, texts).values, expected, atol=1e-14)


def test_centring_takes_out_the_direction_all_words_share(drawn):
    vectors, texts = drawn
    moved = Vectors(vectors.values + np.float32(64.0), vectors.depths, "float32")
    np.testing.assert_allclose(
        Centred().measure(moved, texts).values, Centred().measure(vectors, texts).values, atol=1e-4
    )
    assert Cosine().measure(moved, texts).values.min() > 0.99  # raw cosine sees only the shared direction


@pytest.mark.parametrize("n", [2, 4, 10])
def test_unrelated_words_have_a_centred_cosine_just_under_zero(n):
    # n orthogonal unit vectors less their mean: (−2/n + 1/n) / (1 − 1/n) = −1/(n − 1)
    vectors = vectors_of(np.eye(n).tolist())
    measured = Centred().measure(vectors, texts_of(n, *((0, j) for j in range(1, n))))
    np.testing.assert_allclose(measured.values, -1 / (n - 1), atol=1e-12)


@pytest.mark.parametrize("similarity", [Centred(), ZScored()])
@pytest.mark.parametrize(("n", "told"), [(8, True), (19, True), (20, False)])
def test_a_mean_of_few_of_the_compared_words_is_to_be_bewared_of(similarity, n, told):
    vectors = vectors_of(np.random.default_rng(n).normal(size=(n, 4)).tolist())
    said = similarity.measure(vectors, texts_of(n, (0, 1), (2, 3))).beware
    assert bool(said) == told
    if n == 8:
        assert said.startswith(
            f"{similarity.name} takes out the mean of the 8 texts that are compared themselves: each"
        )
        assert "each makes 12 % of that mean, and unrelated ones have a cosine of about −0.14." in said


def test_every_distinct_text_counts_once_in_the_mean_however_many_pairs_use_it():
    vectors = vectors_of([[1, 2], [3, 1], [2, 3]])
    once = Centred().measure(vectors, texts_of(3, (0, 1))).values[0, 0]
    often = Centred().measure(vectors, texts_of(3, (0, 1), (0, 2), (0, 2), (0, 2))).values[0, 0]
    assert once == often


def test_each_depth_is_centred_by_itself():
    shifted = [[101, 2], [103, 1], [102, 3]]
    measured = Centred().measure(vectors_of([[1, 2], [3, 1], [2, 3]], shifted), texts_of(3, (0, 1), (1, 2)))
    np.testing.assert_allclose(measured.values[0], measured.values[1], atol=1e-13)


def test_a_vector_that_is_the_mean_is_refused_with_its_word_and_depth():
    vectors = vectors_of([[1, 0], [1, 1], [1, 3]], [[0, 0], [1, 1], [2, 2]])
    with pytest.raises(StatisticsError, match="the centred vector of 'w1' at depth 1"):
        Centred().measure(vectors, texts_of(3, (0, 1)))


def test_vectors_that_are_all_equal_have_no_centred_cosine():
    # so it is at depth 0 where a model pools only its first token; 0.1 is not exact in binary
    with pytest.raises(StatisticsError, match="at depth 0"):
        Centred().measure(vectors_of([[0.1, 0.7]] * 7), texts_of(7, (0, 1)))


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("similarity", "name"), [(Cosine(), "cosine"), (Centred(), "centred")])
def test_similarities_bear_their_name_and_cannot_be_changed(drawn, similarity, name):
    measured = similarity.measure(*drawn)
    assert measured.name == name
    assert measured.about
    with pytest.raises(ValueError, match="read-only"):
        measured.values[0, 0] = 0.0


@pytest.mark.parametrize("similarity", [Cosine(), Centred()])
def test_turning_a_pair_round_changes_nothing(drawn, similarity):
    vectors, texts = drawn
    turned = Texts(texts.texts, texts.b, texts.a, texts.template)
    np.testing.assert_array_equal(similarity.measure(vectors, texts).values, similarity.measure(vectors, turned).values)


# ── with a reference vocabulary ──────────────────────────────────────────────────────────────────────────


ALL = {
    s.name: s
    for s in (Cosine(), Centred(), ZScored(), LanguageCentred(), AllButTheTop(), Csls(), RankCosine(), Euclidean())
}
REFERRING = ("centred", "zscored", "language_centred", "all_but_the_top", "csls")


def with_reference(seed: int = 5, words: int = 24, reference: int = 80, width: int = 12, depths: int = 2):
    """Words of two languages, each with its own direction, and twelve pairs across them; then reference words."""
    rng = np.random.default_rng(seed)
    n = words + reference
    language = np.arange(n) % 2
    values = rng.normal(size=(depths, n, width)) * np.linspace(0.5, 4, width) + 1.5
    values[:, language == 1, 3] += 6
    said = [Word(f"w{i}", lang=("PIE", "Chinese")[language[i]]) for i in range(n)]
    pairs = np.arange(words).reshape(-1, 2)
    texts = Texts(
        tuple(Text(w.form, 0, 2, w) for w in said), pairs[:, 0], pairs[:, 1], "bare",
        np.arange(words, n), "list of mine",
    )  # fmt: skip
    return Vectors(values.astype(np.float32), tuple(range(depths)), "float32"), texts


def changed(whole: Texts, /, **fields) -> Texts:
    return dataclasses.replace(whole, **fields)


def exact(vectors: Vectors) -> np.ndarray:
    return vectors.values.astype(np.float64)


def of_pairs(matrix: np.ndarray, texts: Texts) -> np.ndarray:
    return matrix[texts.a, texts.b]


def test_the_mean_is_that_of_words_in_no_pair():
    vectors, texts = with_reference()
    measured = Centred().measure(vectors, texts)
    expected = [of_pairs(cosine_similarity(v - v[texts.reference].mean(axis=0)), texts) for v in exact(vectors)]
    np.testing.assert_allclose(measured.values, expected, atol=1e-13)
    assert measured.reference == "80 words of list of mine that are in no pair"
    assert measured.reference in measured.about


def test_a_language_of_few_words_is_named_and_a_reference_leaves_nothing_to_beware_of():
    vectors, texts = with_reference(words=50, reference=0)
    said = [Word(t.word.form, lang="PIE" if i < 31 else "Chinese") for i, t in enumerate(texts.texts)]
    own = changed(texts, texts=tuple(dataclasses.replace(t, word=w) for t, w in zip(texts.texts, said, strict=True)))
    beware = LanguageCentred().measure(vectors, own).beware
    assert beware.startswith("language_centred takes out the mean of the 19 texts of Chinese that are compared")
    vectors, texts = with_reference()
    assert {ALL[name].measure(vectors, texts).beware for name in REFERRING} == {""}


def test_z_scores_are_scikit_learns_and_scipys():
    vectors, texts = with_reference()
    measured = ZScored().measure(vectors, texts)
    for found, v in zip(measured.values, exact(vectors), strict=True):
        known = v[texts.reference]
        z = stats.zmap(v, known, ddof=1)
        np.testing.assert_allclose(found, of_pairs(cosine_similarity(z), texts), atol=1e-13)
        scaled = StandardScaler().fit(known).transform(v)  # divides by n, which no cosine sees
        np.testing.assert_allclose(found, of_pairs(cosine_similarity(scaled), texts), atol=1e-13)


def test_languages_are_centred_on_their_own_reference_words():
    vectors, texts = with_reference()
    measured = LanguageCentred().measure(vectors, texts)
    lang = np.array([t.word.lang for t in texts.texts])
    for found, v in zip(measured.values, exact(vectors), strict=True):
        x = v.copy()
        for one in ("PIE", "Chinese"):
            x[lang == one] -= v[texts.reference][lang[texts.reference] == one].mean(axis=0)
        np.testing.assert_allclose(found, of_pairs(cosine_similarity(x), texts), atol=1e-13)
    assert "(PIE 40, Chinese 40)" in measured.about
    assert measured.reference.startswith("80 words")


def test_the_directions_taken_out_are_scikit_learns_principal_components():
    for reference in (80, 40):  # more words than dimensions, and fewer
        vectors, texts = with_reference(reference=reference, width=60)
        measured = AllButTheTop(k=4).measure(vectors, texts)
        for found, v in zip(measured.values, exact(vectors), strict=True):
            pca = PCA(n_components=4, svd_solver="full").fit(v[texts.reference])
            left = v - pca.mean_ - pca.transform(v) @ pca.components_
            np.testing.assert_allclose(found, of_pairs(cosine_similarity(left), texts), atol=1e-12)


def test_csls_by_hand():
    # unit vectors in the plane at 0°, 60° and, as reference, 30°, 90°, 180°; k = 2, no languages:
    # r(0°) = (cos 30 + cos 90) / 2, r(60°) = (cos 30 + cos 30) / 2, 2 cos 60 − both
    angle = np.deg2rad([0, 60, 30, 90, 180])
    vectors = vectors_of(np.stack([3 * np.cos(angle), 3 * np.sin(angle)], axis=1).tolist())
    texts = changed(texts_of(5, (0, 1)), reference=np.array([2, 3, 4]))
    root = np.sqrt(3) / 2
    measured = Csls(k=2).measure(vectors, texts)
    assert measured.values[0, 0] == pytest.approx(1 - root / 2 - root, abs=1e-6)


def test_csls_takes_neighbours_of_the_partners_language():
    vectors, texts = with_reference(width=9)
    measured = Csls(k=7).measure(vectors, texts)
    lang = np.array([t.word.lang for t in texts.texts])
    for found, v in zip(measured.values, exact(vectors), strict=True):
        cosine = cosine_similarity(v)
        for i, (a, b) in enumerate(zip(texts.a, texts.b, strict=True)):
            near = [
                sum(sorted((cosine[one, r] for r in texts.reference if lang[r] == lang[other]), reverse=True)[:7]) / 7
                for one, other in ((a, b), (b, a))
            ]
            assert found[i] == pytest.approx(2 * cosine[a, b] - sum(near), abs=1e-12)
    assert "of the partner's language" in measured.about


def test_csls_takes_all_where_a_language_has_too_few():
    vectors, texts = with_reference(reference=15)  # seven of one language, eight of the other
    cosine = cosine_similarity(exact(vectors)[0])
    near = np.sort(cosine[:, texts.reference], axis=1)[:, -8:].mean(axis=1)
    expected = 2 * of_pairs(cosine, texts) - near[texts.a] - near[texts.b]
    np.testing.assert_allclose(Csls(k=8).measure(vectors, texts).values[0], expected, atol=1e-13)


def test_a_hub_loses_by_csls_what_it_is_near_to_all():
    vectors, texts = with_reference(width=30)
    hub = exact(vectors)
    hub[:, 0] = hub[:, texts.reference].mean(axis=1)
    hub = Vectors(hub.astype(np.float32), vectors.depths, "float32")
    drop = Cosine().measure(hub, texts).values - Csls().measure(hub, texts).values / 2
    assert (drop.argmax(axis=1) == 0).all()


def test_rank_cosine_is_scipys_spearman_with_and_without_ties():
    rng = np.random.default_rng(2)
    for values in (rng.normal(size=(2, 9, 21)), rng.integers(0, 4, (2, 9, 21))):
        vectors, texts = vectors_of(*values.tolist()), texts_of(9, *((i, j) for i in range(9) for j in range(i)))
        measured = RankCosine().measure(vectors, texts)
        for found, v in zip(measured.values, exact(vectors), strict=True):
            expected = [stats.spearmanr(v[a], v[b]).statistic for a, b in zip(texts.a, texts.b, strict=True)]
            np.testing.assert_allclose(found, expected, atol=1e-7)


def test_centred_ranks_are_scipys():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(40, 300)).astype(np.float32) * np.float32(10) ** rng.integers(-30, 30, (40, 1)).astype(
        "f"
    )
    values[::3] = rng.integers(-3, 4, values[::3].shape)
    values[1, :4] = [0.0, -0.0, np.float32(1e-45), -np.float32(1e-45)]
    expected = stats.rankdata(values, axis=1) - 150.5
    np.testing.assert_array_equal(centred_ranks(values), expected)


def test_rank_cosine_does_not_see_how_far_out_an_outlier_is():
    v = [[1.0, 2, 3, 4], [2.0, 1, 4, 3]]
    far = [[1.0, 2, 3, 4e6], [2.0, 1, 4e9, 3]]
    measured = [RankCosine().measure(vectors_of(x), texts_of(2, (0, 1))).values[0, 0] for x in (v, far)]
    assert measured == pytest.approx([0.6, 0.6])  # 1 − 6 · 4 / (4 · 15)


def test_euclidean_is_the_negative_of_scipys_distance():
    vectors, texts = with_reference()
    measured = Euclidean().measure(vectors, texts)
    expected = [
        [-distance.euclidean(v[a], v[b]) for a, b in zip(texts.a, texts.b, strict=True)] for v in exact(vectors)
    ]
    np.testing.assert_allclose(measured.values, expected, atol=1e-12)
    assert measured.values.max() < 0
    twins = Euclidean().measure(vectors_of([[1, 2], [1, 2], [4, 6]]), texts_of(3, (0, 1), (0, 2))).values[0]
    assert twins.tolist() == [0.0, -5.0]


# ── what they all share ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ALL)
def test_every_similarity_is_larger_for_words_that_are_more_alike(name):
    vectors, texts = with_reference(width=40)
    values = np.array(vectors.values)
    values[:, 1] = values[:, 0] + 0.01 * values[:, 3]  # the first pair all but coincides
    measured = ALL[name].measure(Vectors(values, vectors.depths, "float32"), texts)
    assert measured.name == name
    assert (measured.values.argmax(axis=1) == 0).all()
    assert measured.values.shape == (2, 12)


@pytest.mark.parametrize("name", ALL)
def test_a_whole_matrix_of_words_says_of_each_pair_what_the_pair_alone_does(name):
    vectors, texts = with_reference(words=140)  # 70 × 70 couples, which are computed as a table
    rows, columns = np.repeat(texts.a, 70), np.tile(texts.b, 70)
    whole = ALL[name].measure(vectors, changed(texts, a=rows, b=columns)).values.reshape(2, 70, 70)
    alone = ALL[name].measure(vectors, texts).values
    np.testing.assert_allclose(whole[:, np.arange(70), np.arange(70)], alone, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_neither_blocks_nor_tiles_change_a_number(name, monkeypatch):
    vectors, texts = with_reference(words=60)
    rows, columns = np.repeat(texts.a, 30), np.tile(texts.b, 30)
    rng = np.random.default_rng(0)
    some = rng.permutation(len(rows))[:700]
    texts = changed(texts, a=rows[some], b=columns[some])
    before = ALL[name].measure(vectors, texts).values
    monkeypatch.setattr(norms, "BLOCK", 60)  # five vectors
    np.testing.assert_allclose(ALL[name].measure(vectors, texts).values, before, atol=1e-12)
    monkeypatch.setattr(pairwise, "TABLE", 100)
    np.testing.assert_allclose(ALL[name].measure(vectors, texts).values, before, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_turning_every_pair_round_changes_nothing(name):
    vectors, texts = with_reference()
    turned = changed(texts, a=texts.b, b=texts.a)
    np.testing.assert_array_equal(ALL[name].measure(vectors, texts).values, ALL[name].measure(vectors, turned).values)


@pytest.mark.parametrize("name", ALL)
def test_settings_and_name_are_what_the_yaml_says(name):
    import yaml

    text = (Path(__file__).parents[1] / "conf" / "similarity" / f"{name}.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    target = settings.pop("_target_")
    assert target == f"{type(ALL[name]).__module__}.{type(ALL[name]).__name__}"
    assert settings == dataclasses.asdict(ALL[name])
    assert f"# @package similarity.{name}\n" in text


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_an_error_with_its_word_and_depth(name, bad):
    vectors, texts = with_reference()
    values = np.array(vectors.values)
    values[1, 7, 2] = bad
    with pytest.raises(StatisticsError, match="the vector of 'w7' at depth 1 holds NaN or infinity"):
        ALL[name].measure(Vectors(values, vectors.depths, "float32"), texts)


@pytest.mark.parametrize("name", REFERRING)
def test_so_is_one_of_the_reference(name):
    vectors, texts = with_reference()
    values = np.array(vectors.values)
    values[1, 90, 2] = np.nan
    with pytest.raises(StatisticsError, match="the vector of 'w90' at depth 1 holds NaN or infinity"):
        ALL[name].measure(Vectors(values, vectors.depths, "float32"), texts)


@pytest.mark.parametrize("name", REFERRING)
def test_a_reference_that_overlaps_the_pairs_is_an_error_that_names_the_words(name):
    vectors, texts = with_reference()
    both = changed(texts, reference=np.concatenate([[3, 5], texts.reference]))
    with pytest.raises(StatisticsError, match="2 of the 82 reference words are also in pairs: 'w3', 'w5'"):
        ALL[name].measure(vectors, both)
    assert "also in pairs" in str(ALL[name].refuse(both))
    # the same word in another text (another gloss around it) is the same word
    again = list(texts.texts)
    again[50] = dataclasses.replace(again[50], text="w4!", word=again[4].word)
    assert "1 of the 80 reference words are also in pairs: 'w4'" in str(
        ALL[name].refuse(changed(texts, texts=tuple(again)))
    )


@pytest.mark.parametrize("name", ["all_but_the_top", "csls"])
def test_what_cannot_do_without_a_reference_says_how_to_give_one(name):
    vectors, texts = with_reference()
    none = changed(texts, reference=np.empty(0, dtype=np.int64), reference_name="")
    with pytest.raises(StatisticsError, match=r"reference words, words that are in no pair .* there are none") as error:
        ALL[name].measure(vectors, none)
    assert "pairs.reference=…" in error.value.next_step
    few = changed(texts, reference=texts.reference[:9])
    assert "there are 9 in list of mine" in str(ALL[name].refuse(few))


def test_how_many_reference_words_are_needed_follows_from_k():
    _, texts = with_reference(reference=40)
    assert Csls(k=40).refuse(texts) is None
    assert "at least 41 reference words" in str(Csls(k=41).refuse(texts))
    assert AllButTheTop(k=4).refuse(texts) is None
    assert "at least 50 reference words" in str(AllButTheTop(k=5).refuse(texts))
    for wrong in (Csls, AllButTheTop):
        with pytest.raises(ConfigError, match="k is 0; allowed: 1 or more"):
            wrong(k=0)


@pytest.mark.parametrize("name", ["centred", "zscored", "language_centred"])
def test_too_small_a_reference_leaves_the_runs_own_words_and_says_so(name):
    vectors, texts = with_reference()
    few = changed(texts, reference=texts.reference[:19])
    rest = changed(texts, texts=texts.texts[:43], reference=texts.reference[:19])
    none = changed(texts, texts=texts.texts[:24], reference=np.empty(0, dtype=np.int64))
    own = Vectors(vectors.values[:, :24], vectors.depths, "float32")
    measured = ALL[name].measure(Vectors(vectors.values[:, :43], vectors.depths, "float32"), rest)
    np.testing.assert_allclose(measured.values, ALL[name].measure(own, none).values, atol=1e-14)
    assert measured.reference == ""
    assert "24 distinct texts" in measured.about
    assert "20" in measured.about  # what would have been enough
    assert ALL[name].refuse(few) is None


def test_language_centring_without_a_reference_makes_all_couples_of_two_languages_sum_to_zero():
    vectors, texts = with_reference(reference=0)
    a, b = np.repeat(texts.a, 12), np.tile(texts.b, 12)
    means = [np.stack([v[::2].mean(axis=0), v[1::2].mean(axis=0)]) for v in exact(vectors)]
    lengths = [np.linalg.norm(v - m[np.arange(24) % 2], axis=1) for v, m in zip(exact(vectors), means, strict=True)]
    values = LanguageCentred().measure(vectors, changed(texts, a=a, b=b)).values
    for cosine, length in zip(values, lengths, strict=True):
        assert abs((cosine * length[a] * length[b]).sum()) < 1e-9


def test_language_centring_needs_languages_and_two_words_of_each():
    assert "2 of 2 have none, the first is 'w0'" in str(LanguageCentred().refuse(texts_of(2, (0, 1))))
    words = [Word("a", lang="PIE"), Word("b", lang="PIE"), Word("c", lang="Chinese")]
    texts = Texts(tuple(Text(w.form, 0, 1, w) for w in words), np.array([0, 1]), np.array([2, 2]), "bare")
    assert "the only one of Chinese is its own mean" in str(LanguageCentred().refuse(texts))


def test_a_dimension_without_spread_is_an_error_that_names_it():
    vectors, texts = with_reference()
    values = np.array(vectors.values)
    values[1, 24:, [4, 9]] = np.float32(0.1)
    with pytest.raises(StatisticsError, match=r"at depth 1: 2 of 12 dimensions \(the first is 4\) have the same value"):
        ZScored().measure(Vectors(values, vectors.depths, "float32"), texts)


def test_a_reference_of_few_directions_cannot_lose_its_top():
    vectors, texts = with_reference()
    values = np.array(vectors.values)
    values[0, 24:, 3:] = 1.0  # three dimensions vary, and three are to be taken out
    with pytest.raises(StatisticsError, match="at depth 0: the reference words vary in too few directions for k=3"):
        AllButTheTop(k=3).measure(Vectors(values, vectors.depths, "float32"), texts)
    with pytest.raises(StatisticsError, match="too few directions for k=12"):
        AllButTheTop(k=12).measure(*with_reference(reference=130))


def test_a_vector_within_the_directions_taken_out_has_nothing_left():
    along = [[64.0, 0, 0], [-64.0, 0, 0], [0, 2.0, 0], [0, -2.0, 0]] * 5  # the first dimension is the first direction
    vectors = vectors_of([[1, 2, 3], [8, 0, 0], *along])
    texts = changed(texts_of(22, (0, 1)), reference=np.arange(2, 22))
    with pytest.raises(StatisticsError, match="the vector less the top 1 of 'w1' at depth 0 has length zero"):
        AllButTheTop(k=1).measure(vectors, texts)


@pytest.mark.parametrize("name", ["rank_cosine"])
def test_a_vector_of_equal_numbers_has_no_ranks(name):
    with pytest.raises(StatisticsError, match="the vector of ranks of 'w1' at depth 0 has length zero"):
        ALL[name].measure(vectors_of([[1, 2], [3, 3]]), texts_of(2, (0, 1)))


@pytest.mark.parametrize("name", ALL)
def test_a_similarity_that_is_constant_has_no_verdict_in_numbers(name):
    # every pair is the same couple of vectors, at every place and in every group
    vectors, texts = with_reference(words=32)
    values = np.array(vectors.values)
    values[:, :32:2], values[:, 1:32:2] = values[:, :1], values[:, 1:2]
    similarity = ALL[name].measure(Vectors(values, vectors.depths, "float32"), texts)
    pairs = pair_set(9, 7)
    test = FAST.tests([similarity], pairs)[similarity.name, "control"]
    assert all(t.t is None and t.p is None and t.delta_ci is None for t in test.depths)
    assert verdict(test, pairs, -1).answer == "undefined"


def test_orthogonal_words_are_exactly_so_and_have_no_verdict_in_numbers():
    # right angles that rounding leaves at 1e-17 must not become a difference
    rng = np.random.default_rng(3)
    q, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    vectors = Vectors((q * 2.0 ** np.arange(16)[:, None]).astype(np.float32)[None], (0,), "float32")
    similarity = Cosine().measure(vectors, texts_of(16, *((i, i + 1) for i in range(0, 16, 2))))
    assert np.abs(similarity.values).max() < 1e-7  # float32's own rounding is there, and is the model's
    exactly = np.zeros((1, 16, 16), dtype=np.float32)
    exactly[0, np.arange(16), np.arange(16)] = rng.uniform(1, 9, 16)
    similarity = Cosine().measure(
        Vectors(exactly, (0,), "float32"), texts_of(16, *((i, i + 1) for i in range(0, 16, 2)))
    )
    assert (similarity.values == 0).all()
    pairs = pair_set(5, 3)
    assert verdict(FAST.tests([similarity], pairs)[similarity.name, "control"], pairs, -1).answer == "undefined"
