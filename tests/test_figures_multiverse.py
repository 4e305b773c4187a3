"""The specification curve can be drawn of few ways and many, with and without intervals, p-values and a primary one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from pairprobe import figures_multiverse as drawing
from pairprobe.evidence import Multiverse, Specification
from pairprobe.figures_multiverse import specification_curve
from pairprobe.outcomes import Interval


def found(
    templates: int, poolings: int, similarities: int, depths: int, p: bool = True, ci: bool = True, primary: bool = True
) -> Multiverse:
    """A full grid with random g; the first way at the last depth is the primary one."""
    rng = np.random.default_rng(0)
    ways = [
        (t, k, s, d)
        for t in range(templates)
        for k in range(poolings)
        for s in range(similarities)
        for d in range(depths)
    ]
    specs = []
    for t, k, s, d in ways:
        g = float(rng.normal(0.3, 0.4))
        delta = g / 5
        specs.append(
            Specification(
                f"template_{t}", f"mean of {k}", f"similarity {s}", d, delta,
                Interval(delta - 0.1, delta + 0.1) if ci else None, g, float(rng.random()) if p else None, None,
                primary and (t, k, s, d) == (0, 0, 0, depths - 1),
            )
        )  # fmt: skip
    median = float(np.median([s.g for s in specs if s.g is not None]))
    return Multiverse("control", tuple(specs), 0.05, median, 0.4 if p else None, 0.1, 0.3, 0.8, 1001, "x" if p else "")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn."""
    figures: list[Any] = []
    save = drawing.save
    monkeypatch.setattr(drawing, "save", lambda fig, file: figures.append(fig) or save(fig, file))
    return figures


@pytest.mark.parametrize("grid", [(1, 2, 1, 7), (4, 2, 2, 7), (6, 4, 2, 7), (6, 4, 2, 10), (6, 4, 2, 81)])
def test_few_ways_and_many(tmp_path: Path, grid: tuple[int, int, int, int], kept: list[Any]) -> None:
    before = dict(plt.rcParams)
    file = specification_curve(found(*grid), tmp_path / "new" / "curve.png")
    with Image.open(file) as image:
        assert 1000 <= image.width <= 2000
        assert image.height <= 2000
        assert len(image.convert("L").getcolors(256) or []) > 10  # not blank
    assert dict(plt.rcParams) == before
    (fig,) = kept
    choices = [a.get_ylabel() for a in fig.axes[1:]]
    names = ("similarity", "pooling", "template", "depth")
    assert choices == [n for n, many in zip(names, (grid[2] > 1, grid[1] > 1, grid[0] > 1, True), strict=True) if many]


def test_the_curve_rises_and_marks_stand_under_what_they_explain(tmp_path: Path, kept: list[Any]) -> None:
    many = found(3, 2, 2, 5)
    specification_curve(many, tmp_path / "curve.png")
    curve, *matrix = kept[0].axes
    drawn = sorted(many.specifications, key=lambda s: s.g or 0.0)
    points = np.asarray(curve.collections[1].get_offsets())
    np.testing.assert_allclose(points[:, 1], [s.g for s in drawn])
    assert (np.diff(points[:, 1]) >= 0).all()
    # intervals of Δ, brought to g's scale: here g is 5 Δ
    ends = np.array([path.vertices for path in curve.collections[0].get_paths()])[:, :, 1]
    np.testing.assert_allclose(ends, [[(s.g or 0) - 0.5, (s.g or 0) + 0.5] for s in drawn])
    templates = matrix[2]
    labels = [t.get_text() for t in templates.get_yticklabels()]
    assert labels == ["template_0", "template_1", "template_2"]
    rows = np.asarray(templates.collections[0].get_offsets())[:, 1].astype(int)
    assert [labels[r] for r in rows] == [s.template for s in drawn]
    first = next(i for i, s in enumerate(drawn) if s.primary)
    assert np.asarray(curve.collections[2].get_offsets()).tolist() == [[first, drawn[first].g]]


@pytest.mark.parametrize("lacking", [{"p": False}, {"ci": False}, {"primary": False}])
def test_what_is_not_there_is_not_drawn(tmp_path: Path, lacking: dict[str, bool], kept: list[Any]) -> None:
    specification_curve(found(2, 2, 2, 3, **lacking), tmp_path / "curve.png")
    legend = [t.get_text() for t in kept[0].axes[0].get_legend().get_texts()]
    assert ("the primary outcome" in legend) == lacking.get("primary", True)
    assert any("p ≤ 0.05" in t for t in legend) == lacking.get("p", True)


def test_undefined_ways_are_counted(tmp_path: Path, kept: list[Any]) -> None:
    few = found(2, 2, 1, 3)
    undefined = Specification("template_0", "x", "similarity 0", 0, 0.0, None, None, None, None)
    specification_curve(
        Multiverse(
            "control", (*few.specifications, undefined), 0.05, 0.1, None, None, None, None, 0, "", ("bare: why",)
        ),
        tmp_path / "curve.png",
    )  # fmt: skip
    assert "2 undefined" in kept[0].axes[0].get_title(loc="left")


def test_nothing_defined_at_all_is_still_a_figure(tmp_path: Path) -> None:
    undefined = Specification("a", "x", "cosine", 0, 0.0, None, None, None, None, primary=True)
    none = Multiverse("control", (undefined,), 0.05, None, None, None, None, None, 0, "")
    assert specification_curve(none, tmp_path / "curve.png").exists()
