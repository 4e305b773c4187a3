"""The charts of a report: records in, pictures out. Every chart says in its title what it shows.

Colours are Okabe & Ito's (2008); what they tell apart, shapes, strokes or words tell apart too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pairprobe.evidence import FragmentedDelta, Geometry, PartnerTest
from pairprobe.outcomes import DepthTest, GroupTest, Interval, signed
from pairprobe.page.markup import Html, count, tag
from pairprobe.page.svg import (
    Axis,
    area,
    both_widths,
    dots,
    drawing,
    label,
    mark,
    reach,
    stroke,
    strokes,
    x_axis,
    y_axis,
)
from pairprobe.records import COGNATE, Balance

LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 40
MANY = 150  # pairs in a group from which single dots say less than bars


def curve(test: GroupTest, primary: int | None, title: str, wide: bool = False) -> Html:
    """Δ over depth with its interval, and the band that Δ must leave to be significant for all depths together."""

    def draw(width: float) -> Html:
        height = 300 if width > 400 else 230
        bounds = [at.max_t_band for at in test.depths]
        ends = [e for at in test.depths if at.delta_ci for e in (at.delta_ci.low, at.delta_ci.high)]
        low, high = reach([*(at.delta for at in test.depths), *ends], hold=(0.0,))
        room = 1.6 * max(high, -low)  # a band far wider than the curve would flatten it
        low = min([low, *(max(1.05 * b.low, -room) for b in bounds if b)])
        high = max([high, *(min(1.05 * b.high, room) for b in bounds if b)])
        y = Axis(low, high, height - BOTTOM, TOP)
        first, last = test.depths[0].depth, test.depths[-1].depth
        x = Axis(first - 0.3, last + 0.3, LEFT, width - RIGHT)
        clip = [None if b is None else (min(b.high, high), max(b.low, low)) for b in bounds]
        shapes: list[Html] = [
            _run_areas([(x(at.depth), *((y(c[0]), y(c[1])) if c else (None, None)))
                        for at, c in zip(test.depths, clip, strict=True)], "maxt"),
            _run_areas([(x(at.depth), *((y(at.delta_ci.high), y(at.delta_ci.low)) if at.delta_ci else (None, None)))
                        for at in test.depths], "band"),
            strokes([((LEFT, y(0)), (width - RIGHT, y(0)))], "zero"),
            stroke([(x(at.depth), y(at.delta)) for at in test.depths], "line"),
        ]  # fmt: skip
        if len(test.depths) <= 60:
            shapes.append(dots([(x(at.depth), y(at.delta)) for at in test.depths], "delta"))
        if primary is not None:
            at = test.at(primary)
            middle = x(at.depth)
            anchor = "end" if middle > width * 0.6 else "start"
            shapes += [
                strokes([((middle, TOP - 4), (middle, height - BOTTOM))], "primary-line"),
                mark(middle, y(at.delta), "diamond", "primary-mark"),
                label(middle + (-5 if anchor == "end" else 5), TOP + 6, "primary depth", anchor, "note"),
            ]
        depths = x.ticks(max(2, round((width - LEFT) / 60)))
        whole = [d for d in depths if d == int(d) and first <= d <= last] or [first, last]
        return drawing(
            width, height, title,
            y_axis(y, LEFT, width - RIGHT, f"Δ in {test.similarity}"),
            x_axis(x, height - BOTTOM, TOP, "depth (layers passed)", whole), shapes,
        )  # fmt: skip

    return both_widths(draw) if wide else draw(340)


def _run_areas(points: Sequence[tuple[float, float | None, float | None]], kind: str) -> Html:
    """Areas between upper and lower, broken where either is missing."""
    runs: list[list[tuple[float, float, float]]] = [[]]
    for x, upper, lower in points:
        if upper is None or lower is None:
            runs.append([])
        else:
            runs[-1].append((x, upper, lower))
    return tag(
        "g",
        [area([(x, u) for x, u, _ in run], [(x, low) for x, _, low in run], kind) for run in runs if len(run) > 1],
        [
            strokes([((run[0][0], run[0][1]), (run[0][0], run[0][2]))], f"{kind}-single")
            for run in runs
            if len(run) == 1
        ],
    )


@dataclass(frozen=True)
class Row:
    """One line of a forest plot. strong: the one to look at."""

    name: str
    value: float | None
    interval: Interval | None
    strong: bool = False
    shape: str = "square"


def forest(rows: Sequence[Row], title: str, axis_name: str, hold: Sequence[float] = (0.0,), digits: int = 3) -> Html:
    """Estimates with intervals under each other, names above their lines, so that it fits any width."""

    def draw(width: float) -> Html:
        wide = width > 400  # else names and numbers have a line each
        step, signs = (38 if wide else 54), 0.0 in hold[:1]
        height = 8 + step * len(rows) + BOTTOM
        ends = [e for r in rows if r.interval for e in (r.interval.low, r.interval.high)]
        low, high = reach([*(r.value for r in rows), *ends], hold=hold)
        x = Axis(low, high, 12, width - 12)
        lines = [8 + step * (i + 1) - 12 for i in range(len(rows))]
        # beside each row's line alone: names are written above it, and would lie on the zero line
        shapes: list[Html] = [strokes([((x(h), y - 8), (x(h), y + 14)) for y in lines], "zero") for h in hold[:1]]
        room = int((width - (190 if wide else 24)) / 6.3)
        for row, y in zip(rows, lines, strict=True):
            kind = "strong" if row.strong else "plain"
            name = row.name if len(row.name) <= room else row.name[: room - 1] + "…"
            shapes.append(label(12, y - (11 if wide else 27), name, "start", f"row {kind}"))
            shapes.append(
                label(
                    width - 12 if wide else 12,
                    y - 11,
                    _written(row, digits, signs),
                    "end" if wide else "start",
                    "value",
                )
            )
            if row.interval is not None:
                shapes.append(strokes([((x(row.interval.low), y), (x(row.interval.high), y))], f"whisker {kind}"))
            if row.value is not None:
                shapes.append(mark(x(row.value), y, "diamond" if row.strong else row.shape, f"estimate {kind}", 4.2))
        return drawing(width, height, title, x_axis(x, height - BOTTOM, 4, axis_name), shapes)  # fmt: skip

    return both_widths(draw)


def _written(row: Row, digits: int, signs: bool) -> str:
    """'+0.073 [−0.062, +0.214]'"""
    if row.value is None:
        return "undefined"
    ends = [row.interval.low, row.interval.high] if row.interval else []
    value, *rest = (signed(v, digits) if signs else f"{v:.{digits}f}".replace("-", "−") for v in (row.value, *ends))
    return f"{value} [{', '.join(rest)}]" if rest else value


def interval_bar(at: DepthTest, level: str) -> Html:
    """The primary Δ on a line with its interval and 0."""

    def draw(width: float) -> Html:
        ends = [at.delta_ci.low, at.delta_ci.high] if at.delta_ci else []
        low, high = reach([at.delta, *ends], hold=(0.0,), margin=0.15)
        x = Axis(low, high, 14, width - 14)
        return drawing(
            width, 84, f"Δ = {signed(at.delta)}" + (f", {level} interval {at.delta_ci}" if at.delta_ci else ""),
            strokes([((x(0), 18), (x(0), 48))], "zero"),
            label(x(0), 12, "no difference", _anchor(x(0), width), "note"),
            strokes([((x(ends[0]), 33), (x(ends[1]), 33))], "whisker strong") if ends else None,
            strokes([((x(e), 27), (x(e), 39)) for e in ends], "whisker strong"),
            mark(x(at.delta), 33, "diamond", "estimate strong", 6),
            label(14, 72, "← controls closer", "start", "note"), label(width - 14, 72, "cognates closer "
                        "→", "end", "note"),
        )  # fmt: skip

    return both_widths(draw, 560, 320)


def _anchor(x: float, width: float) -> str:
    return "start" if x < 50 else "end" if x > width - 50 else "middle"


SHAPES = ("circle", "square", "triangle", "cross", "diamond")


def groups(values: Mapping[str, Sequence[float]], similarity: str) -> Html:
    """The similarity of every pair by group: a dot each, or bars where there are many; the mean as a thick tick."""

    def draw(width: float) -> Html:
        names = list(values)
        step = 64
        height = 14 + step * len(names) + BOTTOM
        x = Axis(*reach([v for found in values.values() for v in found]), 12, width - 12)
        shapes: list[Html] = []
        for i, name in enumerate(names):
            found, base = sorted(values[name]), 14 + step * i + 44
            kind = "cognates" if name == COGNATE else "controls"
            shapes.append(label(12, base - 30, f"{name} · {count(len(found))} pairs", "start", "row strong"))
            if len(found) > MANY:
                shapes.append(_bars(found, x, base + 8, 30, kind))
            else:
                stacked: dict[int, int] = {}
                for v in found:
                    column = int((x(v) - 12) / 7)
                    stacked[column] = stacked.get(column, 0) + 1
                    up = (stacked[column] - 1) * min(7.0, 26 / max(1, len(found) / 12))
                    shapes.append(mark(x(v), base - min(up, 24), SHAPES[min(i, 2)], kind, 3.4))
            mean = math.fsum(found) / len(found)
            shapes.append(strokes([((x(mean), base - 22), (x(mean), base + 9))], "mean"))
        title = f"{similarity} of every pair by group, at the primary depth"
        return drawing(
            width, height, title, x_axis(x, height - BOTTOM, 4, f"{similarity} (larger: more alike)"), shapes
        )

    return both_widths(draw)


def _bars(found: Sequence[float], x: Axis, base: float, tall: float, kind: str) -> Html:
    n = min(60, max(20, round(math.sqrt(len(found)))))
    width = (x.high - x.low) / n
    counts = [0] * n
    for v in found:
        counts[min(n - 1, int((v - x.low) / width))] += 1
    most = max(counts)
    bars = [
        area([(x(x.low + i * width), base - tall * c / most), (x(x.low + (i + 1) * width) - 1, base - tall * c / most)],
             [(x(x.low + i * width), base), (x(x.low + (i + 1) * width) - 1, base)], f"bar {kind}")
        for i, c in enumerate(counts) if c
    ]  # fmt: skip
    return tag("g", bars)


def love(balance: Sequence[Balance], control: str) -> Html:
    """Standardised differences before (open) and after (filled) matching; the band within ±0.1 counts as alike."""

    def draw(width: float) -> Html:
        step = 34
        height = 8 + step * len(balance) + BOTTOM
        low, high = reach([v for b in balance for v in (b.before, b.after)], hold=(-0.25, 0.25))
        x = Axis(low, high, 12, width - 12)
        shapes: list[Html] = [
            area([(x(-0.1), 4), (x(0.1), 4)], [(x(-0.1), height - BOTTOM), (x(0.1), height - BOTTOM)], "alike"),
            strokes([((x(0), 4), (x(0), height - BOTTOM))], "zero"),
        ]
        for i, b in enumerate(balance):
            y = 8 + step * i + 24
            shapes.append(label(12, y - 10, b.covariate, "start", "row plain"))
            if b.before is not None and b.after is not None:
                shapes.append(strokes([((x(b.before), y), (x(b.after), y))], "moved"))
            if b.before is not None:
                shapes.append(mark(x(b.before), y, "circle", "before"))
            if b.after is not None:
                shapes.append(mark(x(b.after), y, "diamond", "after", 3.6))
        return drawing(
            width, height, f"Standardised differences between cognates and {control} pairs, before and after matching",
            x_axis(x, height - BOTTOM, 4, "standardised difference (cognates − controls)"), shapes,
        )  # fmt: skip

    return both_widths(draw)


def partner_curve(test: PartnerTest) -> Html:
    """Similarity with the own and with the other words' partners over depth."""
    width, height = 340, 220
    at = test.depths
    x = Axis(at[0].depth - 0.3, at[-1].depth + 0.3, LEFT, width - RIGHT)
    y = Axis(*reach([v for d in at for v in (d.own, d.others)]), height - BOTTOM, TOP)
    return drawing(
        width, height, f"{test.similarity} of words with their own partners and with others' partners, by depth",
        y_axis(y, LEFT, width - RIGHT, f"mean {test.similarity}"),
        x_axis(x, height - BOTTOM, TOP, "depth (layers passed)", _whole(x, at[0].depth, at[-1].depth)),
        stroke([(x(d.depth), y(d.own)) for d in at], "line"), dots([(x(d.depth), y(d.own)) for d in at], "delta"),
        stroke([(x(d.depth), y(d.others)) for d in at], "line other"),
    )  # fmt: skip


def geometry_curve(geometry: Geometry) -> Html:
    """The cosine of words that are no pair over depth, with one standard deviation on either side."""
    width, height = 340, 220
    at = [
        (d.depth, d.random_cosine, d.random_cosine_sd)
        for d in geometry.depths
        if d.random_cosine is not None and d.random_cosine_sd is not None
    ]
    if not at:
        return Html("")
    x = Axis(at[0][0] - 0.3, at[-1][0] + 0.3, LEFT, width - RIGHT)
    ends = [v for _, mean, sd in at for v in (mean - sd, mean + sd)]
    y = Axis(*reach(ends, hold=(0.0, 1.0), margin=0.03), height - BOTTOM, TOP)
    spread = [(x(depth), y(mean + sd), y(mean - sd)) for depth, mean, sd in at]
    return drawing(
        width, height, "Mean cosine of two words that are in no pair together, by depth",
        y_axis(y, LEFT, width - RIGHT, "cosine of random words"),
        x_axis(x, height - BOTTOM, TOP, "depth (layers passed)", _whole(x, at[0][0], at[-1][0])),
        _run_areas([(a, b, c) for a, b, c in spread], "band"), strokes([((LEFT, y(0)), (width - RIGHT, y(0)))], "zero"),
        stroke([(x(depth), y(mean)) for depth, mean, _ in at], "line"),
        dots([(x(depth), y(mean)) for depth, mean, _ in at], "delta"),
    )  # fmt: skip


def _whole(x: Axis, first: int, last: int) -> list[float]:
    return [d for d in x.ticks(5) if d == int(d) and first <= d <= last] or [float(first)]


def fragmentation(parts: Sequence[FragmentedDelta]) -> Html:
    """Δ among pairs that are broken into about as many pieces."""
    rows = [
        Row(f"{p.pieces} pieces · {p.n_cognate} against {p.n_control} pairs", p.delta, p.ci) for p in parts
    ]  # fmt: skip
    return forest(rows, "Δ by number of pieces of both words together", "Δ")
