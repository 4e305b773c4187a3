"""Figures can be drawn from whatever a run may find, and leave a notebook's own settings alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from pairprobe import figures
from pairprobe.outcomes import DepthTest, GroupTest, Interval
from pairprobe.records import Pair, PairSet, Similarities, Text, Texts, Vectors, Word

NAMES = ["delta_by_depth.png", "similarities_by_group.png", "word_map.png"]
LATIN = [f"word{i}" for i in range(26)]
# The last two are in no font of an ordinary machine: a rune, and a letter of Unicode's private area.
ODD = ["*dʰéǵʰōm", "*kʷel-", "*h₂ŵl̥h₁neh₂", "環", "轮", "地面", "ᚠᚢᚦ", "\ue000"]


def pair_set(words: list[str], controls: list[str], n: int) -> PairSet:
    """n pairs; every third belongs to a control group, the groups in turn."""
    groups = ["cognate" if i % 3 else controls[(i // 3) % len(controls)] for i in range(n)]
    pairs = [
        Pair(f"p{i}", group, Word(words[2 * i % len(words)]), Word(words[(2 * i + 1) % len(words)]))
        for i, group in enumerate(groups)
    ]
    return PairSet("by hand", tuple(pairs), "by hand")


def texts_of(pairs: PairSet) -> Texts:
    words = list(dict.fromkeys(w for p in pairs.pairs for w in (p.a, p.b)))
    return Texts(
        tuple(Text(w.form, 0, len(w.form), w) for w in words),
        np.array([words.index(p.a) for p in pairs.pairs]),
        np.array([words.index(p.b) for p in pairs.pairs]),
        "{word}",
    )


def depth_test(depth: int, defined: bool) -> DepthTest:
    delta = 0.1 * np.sin(depth)
    interval = Interval(delta - 0.05, delta + 0.07) if defined else None
    number = 0.5 if defined else None
    return DepthTest(depth, 0.5, 0.5 - delta, 0.1, 0.1, delta, interval, number, interval, *[number] * 4)


def group_test(similarity: str, control: str, depths: range, defined: bool) -> GroupTest:
    tests = tuple(depth_test(d, defined) for d in depths)
    return GroupTest(similarity, control, 10, 4, tests, 1001, True, 1 / 1001, 0.05, 0.95, 0.8, 0.24, 0.8, 1.8)


def draw(
    folder: Path,
    *,
    depths: range = range(7),
    controls: tuple[str, ...] = ("control",),
    n: int = 14,
    words: list[str] = LATIN,
    defined: bool = True,
    identical: bool = False,
    width: int = 16,
) -> list[Path]:
    """All figures of a run made by hand."""
    pairs = pair_set(words, list(controls), n)
    texts = texts_of(pairs)
    rng = np.random.default_rng(0)
    names = ("cosine", "centred")
    values = np.ones if identical else rng.standard_normal
    vectors = Vectors(values((len(depths), len(texts), width)).astype(np.float32), tuple(depths), "float32")
    tests = {(s, c): group_test(s, c, depths, defined) for s in names for c in controls}
    similarities = {
        s: Similarities(
            s, np.ones((len(depths), n)) if identical else rng.uniform(-1, 1, (len(depths), n)), tuple(depths)
        )
        for s in names
    }
    return figures.draw_all(folder, tests, similarities, pairs, texts, vectors, (controls[0], depths[-1]))


def check(files: list[Path]) -> None:
    """Every file is a PNG of some size, with ink on more than its frame."""
    for file in files:
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert min(image.size) > 300
            grey = np.asarray(image.convert("L"))
        assert len(np.unique(grey)) > 10, file
        inner = grey[grey.shape[0] // 5 : -grey.shape[0] // 5, grey.shape[1] // 5 : -grey.shape[1] // 5]
        assert inner.std() > 1, file


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """No figure stays in memory: a sweep of hundreds of runs would fill it."""
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"depths": range(1)},
        {"depths": range(81)},
        {"controls": ("control", "same_concept", "form_matched", "shuffled", "unrelated"), "n": 40},
        {"defined": False},
        {"defined": False, "depths": range(1)},
        {"words": ODD},
        {"identical": True},
        {"n": 2, "words": ["a", "b"]},
        {"width": 1},
        {"n": 1000, "words": [f"w{i}" for i in range(2000)]},
    ],
    ids=[
        "main job", "one depth", "81 depths", "five controls", "undefined", "undefined, one depth",
        "IPA, Han, runes", "identical vectors", "two words", "one dimension", "1000 pairs",
    ],
)  # fmt: skip
def test_every_figure_is_drawn(how: dict[str, Any], tmp_path: Path) -> None:
    files = draw(tmp_path / "figures", **how)
    assert [f.name for f in files] == NAMES
    check(files)


def test_without_vectors_the_other_figures_are_drawn(tmp_path: Path) -> None:
    pairs = pair_set(LATIN, ["control"], 14)
    similarities = {"cosine": Similarities("cosine", np.random.default_rng(0).uniform(0, 1, (1, 14)), (0,))}
    tests = {("cosine", "control"): group_test("cosine", "control", range(1), True)}
    files = figures.draw_all(tmp_path, tests, similarities, pairs, None, None, ("control", 0))
    assert [f.name for f in files] == NAMES[:2]
    check(files)


def test_the_same_records_give_the_same_picture(tmp_path: Path) -> None:
    first, second = draw(tmp_path / "first", words=ODD), draw(tmp_path / "second", words=ODD)
    for a, b in zip(first, second, strict=True):
        with Image.open(a) as one, Image.open(b) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other)), a.name


@pytest.mark.parametrize("runs", [2, 6])
def test_runs_are_compared_in_one_figure(runs: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [{"name": f"model{i}-layerwise-pie_oc", "delta": i / 10, "low": i / 10 - 0.1, "high": i / 10 + 0.1} for i in
            range(runs)]  # fmt: skip
    per_pair = {r["name"]: {f"pie_oc_{j:04}": float(rng.uniform(0.3, 0.9)) for j in range(14)} for r in rows}
    groups = {f"pie_oc_{j:04}": "cognate" if j < 10 else "control" for j in range(14)}
    check([figures.compare_runs(rows, per_pair, groups, tmp_path / "compare.png")])


def test_runs_without_intervals_or_shared_pairs_are_compared_too(tmp_path: Path) -> None:
    rows = [{"name": n, "delta": 0.1, "low": None, "high": None} for n in "ab"]
    file = figures.compare_runs(
        rows, {"a": {"p1": 0.5}, "b": {"p2": 0.5}}, {"p1": "cognate", "p2": "cognate"}, tmp_path / "compare.png"
    )
    with Image.open(file) as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 10


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn, as matplotlib has them."""
    kept: list[Any] = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda fig, file: kept.append(fig) or save(fig, file))
    return kept


@pytest.mark.parametrize(("depth", "called"), [(0, "embedding"), (6, "depth 6")])
def test_a_single_depth_is_a_named_place_and_no_scale(
    depth: int, called: str, drawn: list[Any], tmp_path: Path
) -> None:
    test = group_test("cosine", "control", range(depth, depth + 1), True)
    figures.delta_by_depth([test], depth, tmp_path / "delta.png")
    (axis,) = drawn[0].axes
    assert [(t.get_position()[0], t.get_text()) for t in axis.get_xticklabels()] == [(depth, called)]
    assert axis.get_xlim()[0] < depth < axis.get_xlim()[1]


@pytest.mark.parametrize("depths", [range(1), range(7)])
def test_a_legend_shows_a_swatch_of_an_interval_only_where_one_is_drawn(
    depths: range, drawn: list[Any], tmp_path: Path
) -> None:
    none, some = (group_test(name, "control", depths, name == "centred") for name in ("cosine", "centred"))
    figures.delta_by_depth([none, some], depths[-1], tmp_path / "both.png")
    figures.delta_by_depth([none], depths[-1], tmp_path / "none.png")
    both, alone = ([t.get_text() for t in fig.legends[0].get_texts()] for fig in drawn)
    assert both == ["no interval: similarities do not vary", "primary depth", "95 % interval of Δ"]
    assert alone == ["no interval: similarities do not vary", "primary depth"]
    words = drawn[1].legends[0].legend_handles[0]
    assert words.get_linestyle() == "None"  # words alone
    assert words.get_marker() in ("None", " ")
    assert not drawn[1].axes[0].collections  # no band, no bar


def test_pairs_of_runs_compared_have_the_colour_of_their_group(drawn: list[Any], tmp_path: Path) -> None:
    rows = [{"name": n, "delta": 0.1, "low": None, "high": None} for n in "ab"]
    values = {"p1": 0.1, "p2": 0.2, "p3": 0.3, "p4": 0.4}
    groups = {"p1": "cognate", "p2": "shuffled", "p3": "control", "p4": "cognate"}
    figures.compare_runs(
        rows, {"a": values, "b": {**values, "p5": 0.5}}, {**groups, "p5": "cognate"}, tmp_path / "c.png"
    )
    right = drawn[0].axes[1]
    found = {float(line.get_ydata()[0]): line.get_color() for line in right.get_lines()}
    assert found[0.1] == found[0.4] == figures.BLUE
    assert len({found[0.1], found[0.2], found[0.3]}) == 3
    texts = [t.get_text() for t in right.get_legend().get_texts()]
    assert texts == ["cognate (2)", "control (1)", "shuffled (1)"]


@pytest.mark.parametrize("n", [30, 200])
def test_every_line_of_a_word_map_joins_the_two_words_of_a_pair(n: int, drawn: list[Any], tmp_path: Path) -> None:
    pairs = pair_set([f"w{i}" for i in range(2 * n)], ["control", "shuffled"], n)
    texts = texts_of(pairs)
    places = np.random.default_rng(0).normal(size=(1, len(texts), 2)).astype(np.float32)  # its own plane, but turned
    figures.word_map(Vectors(places, (0,), "float32"), texts, pairs, 0, tmp_path / "map.png")
    lines = {c.get_label(): c.get_segments() for c in drawn[0].axes[0].collections if hasattr(c, "get_segments")}
    few = 2 * n <= figures.LABELLED  # of more, lines of all groups would hide every point
    shown = pairs.sizes if few else {"cognate": pairs.sizes["cognate"]}
    assert {group: len(segments) for group, segments in lines.items()} == shown
    for group, segments in lines.items():
        members = pairs.members(group)
        length = np.linalg.norm(places[0, texts.a[members]] - places[0, texts.b[members]], axis=1)
        assert np.linalg.norm(np.array(segments)[:, 1] - np.array(segments)[:, 0], axis=1) == pytest.approx(
            length, rel=1e-5
        )


# ── a notebook's own settings ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def notebook() -> Iterator[None]:
    """A caller with a backend and a style of its own."""
    backend = matplotlib.get_backend()
    with matplotlib.rc_context():
        matplotlib.use("svg")
        matplotlib.rcParams.update({"font.size": 17, "axes.grid": False, "lines.linewidth": 3, "figure.dpi": 42})
        yield
    plt.close("all")
    matplotlib.use(backend)


def draw_both(folder: Path) -> None:
    draw(folder / "figures", depths=range(2), n=4, words=LATIN[:8])
    rows = [{"name": n, "delta": 0.1, "low": 0.0, "high": 0.2} for n in "ab"]
    figures.compare_runs(rows, {n: {"p": 0.5} for n in "ab"}, {"p": "control"}, folder / "compare.png")


@pytest.mark.usefixtures("notebook")
def test_the_callers_settings_are_as_before(tmp_path: Path) -> None:
    before = {k: v for k, v in matplotlib.rcParams.items() if k != "backend"}
    draw_both(tmp_path)
    assert {k: v for k, v in matplotlib.rcParams.items() if k != "backend"} == before


@pytest.mark.usefixtures("notebook")
def test_the_callers_backend_is_as_before(tmp_path: Path) -> None:
    # a notebook whose backend became Agg shows none of its own figures any more
    draw_both(tmp_path)
    assert matplotlib.get_backend() == "svg"


@pytest.mark.usefixtures("notebook")
def test_the_callers_open_figures_stay_open_and_current(tmp_path: Path) -> None:
    mine = plt.figure()
    draw_both(tmp_path)
    assert plt.get_fignums() == [mine.number]
    assert plt.gcf() is mine
    plt.close(mine)
