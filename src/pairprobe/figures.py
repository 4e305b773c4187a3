"""What a run looks like: PNG figures from the records. Drawn without a display."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pairprobe.outcomes import GroupTest, signed
from pairprobe.records import COGNATE, PairSet, Similarities, Texts, Vectors

# Okabe & Ito's palette, told apart by the colour-blind; cognates blue, controls in order.
BLUE = "#0072B2"
OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SWARM = 150  # pairs drawn as points; more are drawn as a shape
LABELLED = 80  # words; more would hide each other
FONTS = [
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Arial Unicode MS",
    "PingFang SC",
]


def draw_all(
    folder: Path,
    tests: dict[tuple[str, str], GroupTest],
    similarities: dict[str, Similarities],
    pairs: PairSet,
    texts: Texts | None,
    vectors: Vectors | None,
    primary: tuple[str, int],
) -> list[Path]:
    """Draw every figure this run allows into `folder`; primary: (control, depth)."""
    control, depth = primary
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [
        delta_by_depth([t for (_, c), t in tests.items() if c == control], depth, folder / "delta_by_depth.png"),
        similarities_by_group(similarities, pairs, depth, folder / "similarities_by_group.png"),
    ]
    if texts is not None and vectors is not None:
        drawn.append(word_map(vectors, texts, pairs, depth, folder / "word_map.png"))
    return drawn


def delta_by_depth(tests: list[GroupTest], primary_depth: int, file: Path) -> Path:
    """Δ with its interval over depth, one panel per similarity; the primary depth marked."""
    fig, axes = figure(len(tests), 1, (7.5, 2.9 * len(tests) + 0.4))
    for axis, test in zip(axes, tests, strict=True):
        depth = np.array([t.depth for t in test.depths])
        delta = np.array([t.delta for t in test.depths])
        low = np.array([t.delta_ci.low if t.delta_ci else np.nan for t in test.depths])
        high = np.array([t.delta_ci.high if t.delta_ci else np.nan for t in test.depths])
        axis.axhline(0, color="0.4", linewidth=0.8)
        known = np.isfinite(low)
        if known.any():
            label = f"{100 * test.confidence:g} % interval of Δ"
        else:  # words without a swatch: nothing is drawn that it could stand for
            label = None
            axis.plot([], [], " ", label=f"no interval: {test.why_no_interval or 'similarities do not vary'}")
        bands = [t.max_t_band for t in test.depths]
        if len(depth) > 1 and all(bands):
            ends = np.array([(b.low, b.high) for b in bands if b])
            style = {"color": "0.35", "linestyle": "--", "linewidth": 1.0}
            axis.plot(depth, ends[:, 0], **style, label=f"beyond: p max-T ≤ {test.alpha:g}")
            axis.plot(depth, ends[:, 1], **style)
        if label and len(depth) == 1:
            axis.errorbar(depth, delta, [delta - low, high - delta], fmt="o", color=BLUE, capsize=5, label=label)
        elif label:
            axis.fill_between(depth, low, high, color=BLUE, alpha=0.2, linewidth=0, label=label)
        axis.plot(depth, delta, "o-", color=BLUE, markersize=4)
        here = depth == primary_depth
        axis.plot(depth[here], delta[here], "o", color=OTHERS[0], markersize=8, label="primary depth", zorder=5)
        axis.set_ylabel(f"Δ {test.similarity}")
        if len(depth) == 1:  # a place with a name, not a scale from −0.04 to 0.04
            axis.set_xticks(depth, ["embedding" if depth[0] == 0 else f"depth {depth[0]}"])
            axis.set_xlim(depth[0] - 1, depth[0] + 1)
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_title(
            f"{test.similarity}: {test.n_cognate} cognate − {test.n_control} {test.control} pairs", loc="left"
        )
    # below all panels: over a curve it would hide some of it
    named = {name: mark for axis in axes for mark, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    fig.legend([*named.values()], [*named], loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    if any(len(test.depths) > 1 for test in tests):
        axes[-1].set_xlabel("depth (0: embedding output, last: after the final norm)")
    return save(fig, file)


def similarities_by_group(similarities: dict[str, Similarities], pairs: PairSet, depth: int, file: Path) -> Path:
    """Every pair's similarity at the primary depth, by group, with the group's mean."""
    import pandas as pd
    import seaborn as sns

    groups = [g for g, n in pairs.sizes.items() if n]
    fig, axes = figure(1, len(similarities), (1.2 + max(3.2, len(groups)) * len(similarities), 4.4))
    # both place points without drawing random numbers: the same run gives the same picture
    few = sum(pairs.sizes.values()) <= SWARM
    draw = sns.swarmplot if few else sns.violinplot
    how = {"size": 6, "alpha": 0.85} if few else {"inner": "quart", "cut": 0, "density_norm": "width"}
    for axis, (name, values) in zip(axes, similarities.items(), strict=True):
        row = values.depths.index(depth) if depth in values.depths else len(values.depths) - 1
        data = pd.DataFrame({"group": [p.group for p in pairs.pairs], name: values.values[row]})
        draw(
            data, x="group", y=name, order=groups, hue="group", hue_order=groups, palette=_palette(groups), ax=axis,
            legend=False, **how,
        )  # fmt: skip
        labels = []
        for i, group in enumerate(groups):
            mean = float(data.loc[data["group"] == group, name].mean())
            axis.plot([i - 0.28, i + 0.28], [mean, mean], color="0.15", linewidth=1.6)
            labels.append(f"{group}\n{signed(mean)}")
        slant = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(groups) > 3 else {}
        axis.set_xticks(range(len(groups)), labels, fontsize=9, **slant)
        axis.set_xlim(-0.6, len(groups) - 0.4)
        axis.set_xlabel("")
        axis.set_title(f"{name}, depth {values.depths[row]}", loc="left", fontsize=9)
    fig.supxlabel("stroke and number: the mean of the group", x=0.01, ha="left", fontsize=8, color="0.35")
    return save(fig, file)


def word_map(vectors: Vectors, texts: Texts, pairs: PairSet, depth: int, file: Path) -> Path:
    """Words in the plane of their first two principal components, each pair joined by a line."""
    from matplotlib.collections import LineCollection
    from sklearn.decomposition import PCA

    row = vectors.depths.index(depth) if depth in vectors.depths else len(vectors.depths) - 1
    values = vectors.values[row].astype(np.float64)
    ours = np.unique(np.concatenate([texts.a, texts.b]))  # the reference vocabulary is not drawn
    parts = min(2, len(ours), values.shape[1])
    places, share = np.zeros((len(values), 2)), [0.0, 0.0]
    if np.ptp(values[ours], axis=0).max() > 0:  # identical vectors have no components: all points lie at 0
        pca = PCA(n_components=parts, svd_solver="full").fit(values[ours])
        places[:, :parts] = pca.transform(values)
        share = [*pca.explained_variance_ratio_, 0.0][:2]

    fig, (axis,) = figure(1, 1, (8.5, 6.6))
    groups = [g for g, n in pairs.sizes.items() if n]
    colours = _palette(groups)
    of = np.array([p.group for p in pairs.pairs])
    crowded = len(ours) > LABELLED  # then lines of all groups would hide all points
    drawn = [COGNATE] if crowded else groups
    stroke: dict[str, Any] = {"linewidths": 0.7, "alpha": 0.35} if crowded else {"linewidths": 1.3, "alpha": 0.6}
    for group in drawn:  # one collection a group: ten thousand lines drawn one by one take a minute
        lines = np.stack([places[texts.a[of == group]], places[texts.b[of == group]]], axis=1)  # [pairs, 2 ends, 2]
        style = "-" if group == COGNATE else "--"
        axis.add_collection(LineCollection(list(lines), colors=colours[group], linestyles=style, label=group, **stroke))
    shown = np.isin(of, drawn)
    sides = [(texts.a[shown], "o", "word a"), (texts.b[shown], "s", "word b")]
    for index, marker, label in sides:
        used = np.unique(index)
        axis.scatter(places[used, 0], places[used, 1], marker=marker, s=26, color="0.2", zorder=3, label=label)
    axis.margins(0.14)
    if len(ours) <= LABELLED:
        _label(axis, [texts.texts[i].word.form for i in ours], places[ours])
    axis.set_xlabel(f"principal component 1 ({100 * share[0]:.0f} % of variance)")
    axis.set_ylabel(f"principal component 2 ({100 * share[1]:.0f} %)")
    which = "words and their cognates" if crowded else "words"
    axis.set_title(f"{which} at depth {vectors.depths[row]}; distances in the plane are not similarities", loc="left")
    # the best place is sought among all points, which takes long where there are many, and then there is none
    axis.legend(frameon=False, fontsize=9, loc="best" if len(ours) <= LABELLED else "upper right")
    return save(fig, file)


def _label(axis: Any, words: list[str], places: Any) -> None:
    """Write each word beside its point, once for points that nearly coincide, where it hides least."""
    extent = np.ptp(places, axis=0).max() or 1.0
    points: list[tuple[str, Any]] = []
    for word, place in zip(words, places, strict=True):
        if not any(w == word and np.linalg.norm(place - p) < 0.1 * extent for w, p in points):
            points.append((word, place))
    with _missing_glyphs_are_boxes():
        _place(axis, points, places)


def _place(axis: Any, points: list[tuple[str, Any]], places: Any) -> None:
    axis.figure.canvas.draw()  # fixes the axes' size, which the boxes of words depend on
    dots = axis.transData.transform(places)
    taken: list[Any] = []
    for word, place in points:
        best = None
        for x, y in [
            (6, 4),
            (-6, 4),
            (6, -10),
            (-6, -10),
            (0, 8),
            (0, -14),
            (14, 14),
            (-14, 14),
            (14, -20),
            (-14, -20),
        ]:
            side = "left" if x > 0 else "right" if x < 0 else "center"
            text = axis.annotate(word, place, xytext=(x, y), textcoords="offset points", fontsize=8, ha=side)
            _use_fonts(text)
            box = text.get_window_extent()
            hidden = sum(box.overlaps(other) for other in taken) * 3 + int(
                ((dots >= box.min) & (dots <= box.max)).all(axis=1).sum()
            )
            if best is None or hidden < best[0]:
                if best is not None:
                    best[1].remove()
                best = (hidden, text, box)
            else:
                text.remove()
            if best[0] == 0:
                break
        assert best is not None
        taken.append(best[2])


def compare_runs(
    rows: list[dict[str, Any]], per_pair: dict[str, dict[str, float]], groups: dict[str, str], file: Path
) -> Path:
    """Δ with its interval by run, and every pair's similarity in each run, joined, in the colour of its group.

    Args:
        rows: one dict per run: name, delta, low, high (the last two may be None).
        per_pair: similarity by pair id, by run name.
        groups: group by pair id.
    """
    fig, (left, right) = figure(1, 2, (11.0, 1.6 + 0.5 * max(len(rows), 5)), width_ratios=(1, 1.3))
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        if row["low"] is not None:
            left.plot([row["low"], row["high"]], [place, place], color=BLUE, linewidth=2)
        left.plot(row["delta"], place, "o", color=BLUE)
    left.axvline(0, color="0.4", linewidth=0.8)
    left.set_yticks(places, [r["name"] for r in rows], fontsize=8)
    left.set_ylim(-0.6, len(rows) - 0.4)
    left.set_xlabel("Δ at each run's primary outcome, with interval")
    shared = [i for i in next(iter(per_pair.values()), {}) if all(i in values for values in per_pair.values())]
    names = sorted({groups[pair] for pair in shared}, key=lambda g: (g != COGNATE, g))
    colours = _palette(names)
    for group in names:
        values = np.array([[per_pair[r["name"]][p] for r in rows] for p in shared if groups[p] == group])
        lines = right.plot(
            np.arange(len(rows)), values.T, "o-" if group == COGNATE else "s--", color=colours[group], alpha=0.5
        )
        lines[0].set_label(f"{group} ({len(values)})")
    right.set_xticks(range(len(rows)), [str(i + 1) for i in range(len(rows))])
    right.set_xlabel("run, in the order at the left")
    right.set_ylabel("similarity")
    right.set_title(f"{len(shared)} shared pairs", loc="left")
    if names:
        right.legend(frameon=False, fontsize=8, loc="best" if len(shared) <= SWARM else "upper right")
    return save(fig, file)


def _palette(groups: list[str]) -> dict[str, str]:
    controls = [g for g in groups if g != COGNATE]
    return {COGNATE: BLUE} | {g: OTHERS[i % len(OTHERS)] for i, g in enumerate(controls)}


def figure(rows: int, columns: int, size: tuple[float, float], **grid: Any) -> tuple[Any, list[Any]]:
    import matplotlib
    import seaborn as sns
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Neither the style nor the backend of a notebook that calls this is touched.
    with matplotlib.rc_context():
        sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
        fig = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.subplots(rows, columns, squeeze=False, gridspec_kw=grid)
    return fig, list(axes.ravel())


@contextmanager
def _missing_glyphs_are_boxes() -> Iterator[None]:
    """No font has every script: a box is drawn, and the tables have the word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message=".* of the points cannot be placed")  # they overlap then
        yield


def _use_fonts(*artists: Any) -> None:
    """Fonts that hold IPA and CJK, as far as this machine has them."""
    from matplotlib import font_manager

    installed = {f.name for f in font_manager.fontManager.ttflist}
    family = [f for f in FONTS if f in installed] or ["sans-serif"]
    for artist in artists:
        artist.set_fontfamily(family)


def save(fig: Any, file: Path) -> Path:
    _use_fonts(*fig.findobj(lambda artist: hasattr(artist, "set_fontfamily")))
    with _missing_glyphs_are_boxes():
        fig.savefig(file, dpi=150)
    return file
