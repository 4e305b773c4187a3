"""The token X-ray as a figure: every pair's pieces as boxes beside its similarity, or a summary where they are many.

What a piece is, is told by its outline, filling and mark; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pairprobe.evidence import PairTokens, TokenXRay, WordTokens
from pairprobe.figures import BLUE, OTHERS, _missing_glyphs_are_boxes, _palette, _use_fonts, figure, save
from pairprobe.records import COGNATE

LISTED = 40  # pairs drawn one by one; more are summed up
ROW = 0.42  # inches
RIGHT = 2.6  # inches for the similarities
BOXES = 14  # pieces of a word that are drawn; of more the rest is counted
LONGEST = 14  # characters of a word or piece that are written
MARKERS = ("o", "s", "^", "D", "v", "P")  # by group, cognates first
KINDS: dict[str, dict[str, Any]] = {
    "piece": {"facecolor": "white", "edgecolor": "0.45", "linewidth": 0.9},
    "in both words": {"facecolor": "#DCEBF7", "edgecolor": BLUE, "linewidth": 2.4},
    "part of a character": {"facecolor": "#FFF3D6", "linestyle": ":"},
    "unknown": {"facecolor": "0.85", "linestyle": "--", "hatch": "////"},
}
SINK = "▲"


def token_xray(found: TokenXRay, file: Path) -> Path:
    """Pairs as rows with their pieces, or, of more than 40 pairs, counts and Δ by fragmentation."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return _pairs(found, file) if len(found.pairs) <= LISTED else _summary(found, file)


# ── pair by pair ─────────────────────────────────────────────────────────────────────────────────────────


def _pairs(found: TokenXRay, file: Path) -> Path:
    groups = _groups(found)
    rows: list[PairTokens | None] = []
    for group in groups:  # an empty line between groups
        members = [p for p in found.pairs if p.group == group]
        rows += [*([None] if rows else []), *sorted(members, key=lambda p: -p.similarity)]
    fig, (left, right) = figure(1, 2, (11.0, 1.5 + ROW * len(rows)))
    right.sharey(left)
    colours = _palette(groups)
    fig.draw_without_rendering()  # so that widths of texts can be measured
    widths: dict[tuple[str, float], float] = {}
    placed = [(place, pair) for place, pair in enumerate(rows) if pair is not None]
    middle = max(_word(left, 0.1, place, pair.a, widths) for place, pair in placed) + 0.6
    end = max(_word(left, middle, place, pair.b, widths) for place, pair in placed) + 0.2
    fig.set_size_inches(end * ROW + RIGHT + 0.6, 1.5 + ROW * len(rows))
    left.get_gridspec().set_width_ratios([end * ROW, RIGHT])
    for place, pair in placed:
        mark = MARKERS[groups.index(pair.group) % len(MARKERS)]
        right.plot(pair.similarity, place, mark, color=colours[pair.group], markersize=7)
    for group in groups:
        here = [i for i, p in enumerate(rows) if p is not None and p.group == group]
        mean = float(np.mean([p.similarity for p in found.pairs if p.group == group]))
        right.plot([mean, mean], [here[0] - 0.45, here[-1] + 0.45], color=colours[group], linewidth=1.4, zorder=1)
        right.text(mean, here[0] - 0.5, f"{group}, mean {mean:.3f}", fontsize=8, ha="center", va="bottom")
    left.set_xlim(0, end)
    left.set_ylim(len(rows) - 0.4, -1.1)
    left.grid(visible=False)
    left.set_xticks([])
    left.tick_params(left=False, labelleft=False)
    for side in ("top", "right", "bottom", "left"):
        left.spines[side].set_visible(False)
    right.grid(visible=False, axis="y")
    right.margins(x=0.25)
    right.tick_params(left=False, labelleft=False)
    right.set_xlabel(f"{found.similarity} at depth {found.depth}")
    left.set_title("what the model was given: the pieces of both words", loc="left")
    _legend(fig, found)
    return save(fig, file)


def _word(axis: Any, at: float, place: int, word: WordTokens, widths: dict[tuple[str, float], float]) -> float:
    """Draw a word and its pieces from `at` on; where they end, in the units of the row's height."""
    name = axis.text(at, place, _cut(word.word), fontsize=9, va="center", fontweight="bold")
    at += max(1.9, _width(name, widths)) + 0.25
    for i in range(len(word.pieces[:BOXES])):
        at = _box(axis, at, place, word, i, widths) + 0.14
    if len(word.pieces) > BOXES:
        rest = axis.text(at, place, f"+ {len(word.pieces) - BOXES}", fontsize=8, va="center")
        at += _width(rest, widths)
    return at


def _box(axis: Any, at: float, place: int, word: WordTokens, i: int, widths: dict[tuple[str, float], float]) -> float:
    from matplotlib.patches import Rectangle

    text = axis.text(at, place, _cut(word.shown[i]), fontsize=8, va="center", ha="center", zorder=4)
    wide = _width(text, widths) + 0.3
    text.set_x(at + wide / 2)
    style: dict[str, Any] = {}
    for kind in _kinds(word, i):
        style |= KINDS[kind]
    axis.add_patch(Rectangle((at, place - 0.33), wide, 0.66, zorder=2, **style))
    if word.unknown[i]:  # readable over the hatching
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    if word.sinks is not None and word.sinks[i]:
        axis.text(at + wide / 2, place - 0.33, SINK, fontsize=7, ha="center", va="center", color=OTHERS[0], zorder=5)
    return at + wide


def _kinds(word: WordTokens, i: int) -> list[str]:
    """What a piece is; a later one's outline or filling covers an earlier one's, and what it leaves open stays."""
    is_so = {"in both words": word.shared[i], "part of a character": word.byte[i], "unknown": word.unknown[i]}
    return ["piece", *(kind for kind, so in is_so.items() if so)]


def _width(text: Any, known: dict[tuple[str, float], float]) -> float:
    """Of a text, in row heights."""
    key = (text.get_text(), text.get_fontsize())
    if key not in known:
        _use_fonts(text)
        with _missing_glyphs_are_boxes():
            known[key] = text.get_window_extent().width / text.figure.dpi / ROW
    return known[key]


def _legend(fig: Any, found: TokenXRay) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    words = [w for p in found.pairs for w in (p.a, p.b)]
    seen = {kind for w in words for i in range(len(w.pieces)) for kind in _kinds(w, i)}
    handles: list[Any] = [Patch(**(KINDS["piece"] | style), label=k) for k, style in KINDS.items() if k in seen]
    if any(w.sinks and any(w.sinks) for w in words):
        handles.append(Line2D([], [], marker="^", linestyle="", color=OTHERS[0], label="attention sink"))
    fig.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9, handleheight=1.4)


# ── many pairs ───────────────────────────────────────────────────────────────────────────────────────────


def _summary(found: TokenXRay, file: Path) -> Path:
    groups = _groups(found)
    fig, (counts, delta, shares) = figure(1, 3, (13.0, 4.6), width_ratios=(1.15, 1, 1.15))
    colours = _palette(groups)
    styles = ("-", "--", "-.", ":")
    most = max(p.pieces for p in found.pairs)
    for i, group in enumerate(groups):
        pieces = np.array([p.pieces for p in found.pairs if p.group == group])
        share = np.bincount(pieces, minlength=most + 1) / len(pieces)
        counts.plot(
            np.arange(2, most + 1), share[2:], marker=MARKERS[i % len(MARKERS)], linestyle=styles[i % len(styles)],
            color=colours[group], markersize=5, label=f"{group} ({len(pieces)}), mean {pieces.mean():.1f}",
        )  # fmt: skip
    counts.set_xlabel("pieces of both words together")
    counts.set_ylabel("share of the group's pairs")
    counts.xaxis.get_major_locator().set_params(integer=True)
    counts.set_title("how far words are broken up", loc="left")
    counts.legend(frameon=False, fontsize=8)
    _by_fragmentation(delta, found)
    _shares(shares, found, groups, colours)
    return save(fig, file)


def _by_fragmentation(axis: Any, found: TokenXRay) -> None:
    for place, part in enumerate(found.fragmentation):
        if part.ci is not None:
            axis.plot([place, place], [part.ci.low, part.ci.high], color=BLUE, linewidth=2)
        if part.delta is None:
            axis.text(place, 0, "too few", rotation=90, ha="center", va="bottom", fontsize=8)
        else:
            axis.plot(place, part.delta, "o", color=BLUE)
    axis.axhline(0, color="0.4", linewidth=0.8)
    names = [f"{part.pieces}\n{part.n_cognate} : {part.n_control}" for part in found.fragmentation]
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(visible=False, axis="x")
    axis.set_xlabel(f"pieces, and pairs (cognate : {found.control})")
    axis.set_ylabel(f"Δ {found.similarity}, depth {found.depth}")
    axis.set_title(f"Δ among them ({100 * found.level:g} % interval)", loc="left")


def _shares(axis: Any, found: TokenXRay, groups: list[str], colours: dict[str, str]) -> None:
    kinds: dict[str, Callable[[PairTokens], bool]] = {
        "share a piece": lambda p: bool(p.shared),
        "hold unknown pieces": lambda p: any(p.a.unknown + p.b.unknown),
        "hold parts of characters": lambda p: any(p.a.byte + p.b.byte),
    }
    if all(p.a.sinks is not None for p in found.pairs):
        kinds["hold an attention sink"] = lambda p: any((p.a.sinks or ()) + (p.b.sinks or ()))
    hatches = ("", "////", "....", "xxxx", "----", "++++")
    height = 0.8 / len(groups)
    for i, group in enumerate(groups):
        members = [p for p in found.pairs if p.group == group]
        values = [100 * sum(test(p) for p in members) / len(members) for test in kinds.values()]
        places = np.arange(len(kinds)) + (i - (len(groups) - 1) / 2) * height
        hatch = hatches[i % len(hatches)]
        axis.barh(places, values, height * 0.92, color=colours[group], hatch=hatch, edgecolor="white", label=group)
        for place, value in zip(places, values, strict=True):
            axis.text(value + 1, place, f"{value:.0f} %", va="center", fontsize=8)
    axis.set_yticks(range(len(kinds)), list(kinds))
    axis.invert_yaxis()
    axis.set_xlim(0, 115)
    axis.set_xticks(range(0, 101, 25))
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("% of the group's pairs")
    axis.set_title("pairs whose words …", loc="left")
    axis.legend(frameon=False, fontsize=8, loc="lower right")


def _groups(found: TokenXRay) -> list[str]:
    names = dict.fromkeys(p.group for p in found.pairs)
    return [*([COGNATE] if COGNATE in names else []), *(g for g in names if g != COGNATE)]


def _cut(text: str) -> str:
    """So long that a row stays readable; a dollar sign is no formula."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return short.replace("$", r"\$")
