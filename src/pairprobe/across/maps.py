"""How alike runs see the same words, drawn: depth against depth for two runs, run against run for more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pairprobe import figures
from pairprobe.across.comparison import Array, Words

#: Sequential, of even steps in lightness, and read alike by people with and without colour vision (Nuñez et al. 2018).
MAP = "cividis"
WRITTEN = 12  # rows or columns; more cells are too small for a number
TICKS = 12


def draw(words: Words, names: Sequence[str], rho: Array, file: Path) -> Path:
    """The figure for as many runs as hold vectors; names: of all runs, rho: of their pair similarities."""
    if words.cka_by_depth is not None and words.rsa_by_depth is not None:
        return by_depth(words, [names[i] for i in words.runs], file)
    return by_run(words, [f"{i + 1}  {names[i]}" for i in words.runs], rho[np.ix_(words.runs, words.runs)], file)


def by_depth(words: Words, names: Sequence[str], file: Path) -> Path:
    """CKA and RSA, depth of the first run (upwards) against depth of the second, and along equal depths where both
    runs are of one shape."""
    assert words.cka_by_depth is not None
    assert words.rsa_by_depth is not None
    first, second = words.all_depths
    curve = words.same_depths and len(first) > 1
    panes = 3 if curve else 2
    fig, axes = figures.figure(1, panes, (4.6 * panes, 2.7 + min(2.4, 0.5 * len(first))))
    panels = (("debiased CKA", words.cka_by_depth), ("RSA (Spearman)", words.rsa_by_depth))
    for axis, (title, values) in zip(axes, panels, strict=False):
        _map(fig, axis, values, title)
        _depths(axis.set_xticks, second)
        _depths(axis.set_yticks, first)
        axis.invert_yaxis()  # depth 0 below
        axis.set_xlabel(f"depth in run {words.runs[1] + 1}")
        axis.set_ylabel(f"depth in run {words.runs[0] + 1}")
        place = (second.index(words.depths[1]), first.index(words.depths[0]))
        axis.plot(*place, "s", markersize=19, markerfacecolor="none", markeredgecolor=figures.OTHERS[0],
                  markeredgewidth=2, label="primary depths")  # fmt: skip
    axes[0].legend(loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False, fontsize=9)
    if curve:
        axis = axes[2]
        styles = (("o-", figures.BLUE), ("s--", figures.OTHERS[0]))
        for (title, values), (style, colour) in zip(panels, styles, strict=True):
            axis.plot(first, np.diagonal(values), style, color=colour, markersize=4, label=title)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_ylim(min(-0.05, *(float(np.nanmin(np.diagonal(v), initial=0.0)) for _, v in panels)), 1.05)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("the same depth in both")
        axis.set_title("depth by depth", loc="left")
        axis.legend(frameon=False, fontsize=9)
    runs = [i + 1 for i in words.runs]
    title = "\n".join([*(f"run {n}: {_short(name)}" for n, name in zip(runs, names, strict=True)), _of(words)])
    fig.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figures.save(fig, file)


def by_run(words: Words, names: Sequence[str], rho: Array, file: Path) -> Path:
    """CKA, RSA and the correlation of pair similarities, run against run at their primary depths."""
    n = len(names)
    fig, axes = figures.figure(1, 3, (13.5 + 0.25 * n, 3.2 + 0.32 * n))
    panels = (("debiased CKA", words.cka), ("RSA (Spearman)", words.rsa), ("pair similarities (Spearman)", rho))
    for k, (axis, (title, values)) in enumerate(zip(axes, panels, strict=True)):
        _map(fig, axis, values, title)
        axis.set_xticks(range(n), [str(i + 1) for i in words.runs], fontsize=8)
        axis.set_yticks(range(n), names if k == 0 else [str(i + 1) for i in words.runs], fontsize=8)
        axis.set_xlabel("run")
    fig.suptitle(f"{_of(words)}, each run at its primary depth", fontsize=9, x=0.01, ha="left")
    return figures.save(fig, file)


def _map(fig: Any, axis: Any, values: Array, title: str) -> None:
    low = min(0.0, float(np.nanmin(values, initial=0.0)))  # 0: nothing in common
    image = axis.imshow(np.ma.masked_invalid(values), cmap=MAP, vmin=low, vmax=1.0, aspect="auto")
    axis.set_facecolor("0.85")  # undefined cells
    axis.grid(visible=False)
    axis.set_title(title, loc="left")
    fig.colorbar(image, ax=axis, shrink=0.85)
    if max(values.shape) <= WRITTEN:
        middle = (low + 1.0) / 2
        for (i, j), value in np.ndenumerate(values):
            text = f"{value:.2f}".replace("-", "−") if np.isfinite(value) else "–"
            dark = np.isfinite(value) and value < middle
            axis.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")


def _depths(set_ticks: Any, depths: Sequence[int]) -> None:
    every = max(1, -(-len(depths) // TICKS))
    set_ticks(range(0, len(depths), every), [str(d) for d in depths[::every]])


def _of(words: Words) -> str:
    drawn = f", {words.used} of them drawn" if words.used < words.shared else ""
    return f"{words.shared} words in all of these runs{drawn}"


def _short(name: str) -> str:
    return name if len(name) <= 90 else f"{name[:44]}…{name[-45:]}"
