"""The specification curve: every way of measuring, sorted by what it gave, and the choices it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pairprobe.evidence import Multiverse, Specification
from pairprobe.figures import BLUE, OTHERS, figure, save
from pairprobe.outcomes import p_text, signed

GREY = "0.6"
SINGLE = 120  # specifications whose marks are drawn apart; more are drawn as ticks
DEPTH_ROWS = 13  # depths that get a row each; more are a curve of their own


def specification_curve(found: Multiverse, file: Path) -> Path:
    """Hedges' g of each specification, sorted, with the interval of its Δ on the same scale; below, its choices.

    Those of the median's side with p at most alpha (uncorrected) are in colour, the primary one has a diamond and a
    line through all rows. Specifications whose g is undefined are not drawn, and counted in the title.
    """
    drawn = sorted((s for s in found.specifications if s.g is not None), key=lambda s: s.g or 0.0)
    depths = sorted({s.depth for s in drawn})
    choices = [
        ("similarity", _names(found, "similarity")),
        ("pooling", _names(found, "pooling")),
        ("template", _names(found, "template")),
        ("depth", [str(d) for d in depths] if len(depths) <= DEPTH_ROWS else []),
    ]
    choices = [(what, names) for what, names in choices if len(names) > 1]
    curve_of_depth = len(depths) > DEPTH_ROWS
    rows = [max(len(names), 2) for _, names in choices] + ([4] if curve_of_depth else [])
    height = 3.4 + 0.21 * sum(rows) + 0.25 * len(rows)
    width = float(np.clip(3.5 + 0.022 * len(drawn), 9.0, 13.0))
    file.parent.mkdir(parents=True, exist_ok=True)
    fig, axes = figure(1 + len(rows), 1, (width, height), height_ratios=[14, *rows])
    for axis in axes:
        axis.grid(visible=False)
        axis.set_xlim(-1, max(len(drawn), 1))
        axis.tick_params(bottom=False, labelbottom=False, length=0)
    first = next((i for i, s in enumerate(drawn) if s.primary), None)
    for axis in axes:
        if first is not None:
            axis.axvline(first, color=OTHERS[0], linewidth=1.1, alpha=0.7, zorder=0)
    _curve(axes[0], drawn, found, first)
    size = float(np.clip(1500 / max(len(drawn), 1), 1.5, 7.0))
    for axis, (what, names) in zip(axes[1:], choices, strict=False):
        at = np.array([names.index(str(getattr(s, what))) for s in drawn])
        _matrix(axis, at, names, what, drawn, found, size)
    if curve_of_depth:
        axes[-1].scatter(range(len(drawn)), [s.depth for s in drawn], s=size, c=_colours(drawn, found), linewidths=0)
        axes[-1].set_ylabel("depth", rotation=0, ha="right", va="center", fontsize=9)
    fig.align_ylabels(axes[1:])
    axes[-1].set_xlabel(f"{len(drawn)} ways of measuring, sorted by g")
    return save(fig, file)


def _curve(axis: Any, drawn: Sequence[Specification], found: Multiverse, first: int | None) -> None:
    places = np.arange(len(drawn))
    g = np.array([s.g for s in drawn], dtype=float)
    # g is Δ over the groups' standard deviation, corrected: the same factor brings the interval of Δ to g's scale
    scale = np.array([(s.g or 0.0) / s.delta if s.delta else np.nan for s in drawn])
    low = np.array([s.ci.low if s.ci else np.nan for s in drawn]) * scale
    high = np.array([s.ci.high if s.ci else np.nan for s in drawn]) * scale
    colours = _colours(drawn, found)
    known = np.isfinite(low) & np.isfinite(high)
    line = float(np.clip(300 / max(len(drawn), 1), 0.15, 1.6))
    axis.vlines(
        places[known], low[known], high[known], colors=[_pale(colours[i]) for i in places[known]], linewidth=line
    )
    axis.axhline(0, color="0.3", linewidth=0.9)
    size = 16 if len(drawn) <= SINGLE else 6
    axis.scatter(places, g, s=size, c=colours, linewidths=0, zorder=3)
    if found.median_g is not None:
        axis.axhline(found.median_g, color="0.3", linewidth=0.9, linestyle=":")
    axis.set_ylabel("Hedges' g, interval of Δ")
    from matplotlib.lines import Line2D

    side = "> 0" if (found.median_g or 0.0) >= 0 else "< 0"
    marks = [Line2D([], [], linestyle=":", color="0.3", label="median g")]
    if any(s.p is not None for s in drawn):
        chosen = f"Δ {side} and p ≤ {found.alpha:g}, uncorrected"
        marks += [
            Line2D([], [], marker="o", linestyle="", color=BLUE, label=chosen),
            Line2D([], [], marker="o", linestyle="", color=GREY, label="others"),
        ]
    if first is not None:
        axis.scatter([first], [g[first]], marker="D", s=60, color=OTHERS[0], edgecolors="white", zorder=5)
        marks.append(Line2D([], [], marker="D", linestyle="", color=OTHERS[0], label="the primary outcome"))
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom, top + 0.2 * (top - bottom))  # the legend hides nothing
    axis.legend(handles=marks, frameon=False, fontsize=8, loc="upper left", ncols=2)
    axis.set_title(_title(found, len(drawn)), loc="left", fontsize=10)


def _title(found: Multiverse, drawn: int) -> str:
    said = f"cognate − {found.control}"
    if found.median_g is not None:
        said += f": median g {signed(found.median_g, 2)}"
    if found.p_median is not None:
        said += f", joint p {p_text(found.p_median)}"
    if found.significant is not None:
        said += f" · {100 * found.significant:.0f} % significant"
    if found.p_significant is not None:
        said += f", joint p {p_text(found.p_significant)}"
    lost = len(found.specifications) - drawn + len(found.undefined)
    return said + (f" · {lost} undefined" if lost else "")


def _matrix(
    axis: Any, at: Any, names: list[str], what: str, drawn: Sequence[Specification], found: Multiverse, size: float
) -> None:
    """One row of marks for each choice: where it was taken."""
    colours = np.array(_colours(drawn, found), dtype=object)
    few = len(drawn) <= SINGLE
    for row in range(len(names)):
        axis.axhline(row, color="0.92", linewidth=0.6, zorder=0)
    axis.scatter(
        np.arange(len(drawn)), at, marker="o" if few else "|", s=size**2 if few else 26, c=list(colours),
        linewidths=0 if few else 0.9, zorder=2,
    )  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_ylabel(what, rotation=0, ha="right", va="center", fontsize=9)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _names(found: Multiverse, what: str) -> list[str]:
    """Choices in the order they were given in, that of the primary outcome first."""
    ordered = sorted(found.specifications, key=lambda s: not s.primary)
    return list(dict.fromkeys(str(getattr(s, what)) for s in ordered))


def _colours(drawn: Sequence[Specification], found: Multiverse) -> list[str]:
    sign = np.sign(found.median_g or 0.0) or 1.0
    return [BLUE if s.p is not None and s.p <= found.alpha and s.delta * sign > 0 else GREY for s in drawn]


def _pale(colour: str) -> tuple[float, float, float, float]:
    from matplotlib.colors import to_rgba

    red, green, blue, _ = to_rgba(colour)
    return red, green, blue, 0.45
