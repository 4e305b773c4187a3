"""What charts are made of: axes, shapes, ticks. Pure functions of numbers; colours and fonts are style.css's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pairprobe.page.markup import Child, Html, tag

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """From values `low` … `high` to pixels `start` … `end` (end may lie before start, as for y)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers within the axis, about so many: steps of 1, 2 or 5 times a power of ten."""
        if not self.high > self.low:
            return [self.low]
        raw = (self.high - self.low) / max(1, about)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def reach(values: Iterable[float | None], hold: Sequence[float] = (), margin: float = 0.06) -> tuple[float, float]:
    """Lowest and highest of the values and of what must be in the picture, with some margin."""
    found = [v for v in values if v is not None and math.isfinite(v)] + list(hold)
    low, high = min(found, default=0.0), max(found, default=1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    pad = margin * (high - low)
    return low - pad, high + pad


def drawing(width: float, height: float, title: str, *shapes: Child) -> Html:
    """A picture that says in words what it shows, as wide as its place and never wider than drawn by a quarter."""
    return tag(
        "svg", tag("title", title), *shapes,
        viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title, style=f"max-width:{1.25 * width:g}px",
    )  # fmt: skip


def both_widths(draw: object, wide: int = 680, narrow: int = 340) -> Html:
    """The chart drawn twice, so that its letters are as large on a telephone as on a desk; style.css shows one."""
    assert callable(draw)
    return Html(tag("div", draw(wide), class_="wide") + tag("div", draw(narrow), class_="narrow"))


def label(x: float, y: float, text: Child, anchor: str = "start", kind: str = "") -> Html:
    return tag("text", text, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=kind or None)


def stroke(points: Iterable[Point], kind: str, closed: bool = False) -> Html:
    """One line through the points."""
    return tag("path", d="M" + "L".join(_at(p) for p in points) + ("Z" if closed else ""), class_=kind)


def strokes(lines: Iterable[tuple[Point, Point]], kind: str) -> Html:
    """Many separate lines as one shape, which keeps thousands of them small."""
    return tag("path", d="".join(f"M{_at(a)}L{_at(b)}" for a, b in lines), class_=kind)


def dots(points: Iterable[Point], kind: str) -> Html:
    """Many round dots as one shape: lines without length, whose round ends are seen."""
    return tag("path", d="".join(f"M{_at(p)}h0" for p in points), class_=f"dots {kind}")


def area(upper: Sequence[Point], lower: Sequence[Point], kind: str) -> Html:
    return stroke([*upper, *reversed(lower)], kind, closed=True)


def mark(x: float, y: float, shape: str, kind: str, size: float = 4.5) -> Html:
    """One marker: circle, square, diamond, triangle, cross. Shapes tell apart what colours alone would not."""
    s = size
    corners: dict[str, list[Point]] = {
        "square": [(-s, -s), (s, -s), (s, s), (-s, s)],
        "diamond": [(0, -1.4 * s), (1.4 * s, 0), (0, 1.4 * s), (-1.4 * s, 0)],
        "triangle": [(0, -1.2 * s), (1.15 * s, s), (-1.15 * s, s)],
    }
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=s, class_=kind)
    if shape == "cross":
        return strokes([((x - s, y - s), (x + s, y + s)), ((x - s, y + s), (x + s, y - s))], kind)
    return stroke([(x + a, y + b) for a, b in corners[shape]], kind, closed=True)


def x_axis(axis: Axis, y: float, top: float, name: Child, ticks: Sequence[float] | None = None) -> Html:
    """Ticks with faint lines up to `top`, and the axis's name below its middle."""
    at = list(axis.ticks(max(2, round(abs(axis.end - axis.start) / 75)))) if ticks is None else list(ticks)
    return tag(
        "g",
        strokes([((axis(v), y), (axis(v), top)) for v in at], "grid"),
        [label(axis(v), y + 15, shown(v, at), "middle", "tick") for v in at],
        label((axis.start + axis.end) / 2, y + 32, name, "middle", "axis"),
    )


def y_axis(axis: Axis, x: float, right: float, name: Child) -> Html:
    """Ticks with faint lines up to `right`; the axis's name stands above it, where it can be read without turning."""
    at = axis.ticks(max(2, round(abs(axis.end - axis.start) / 40)))
    return tag(
        "g",
        strokes([((x, axis(v)), (right, axis(v))) for v in at], "grid"),
        [label(x - 6, axis(v) + 4, shown(v, at), "end", "tick") for v in at],
        label(4, min(axis.start, axis.end) - 10, name, "start", "axis"),
    )


def shown(value: float, beside: Sequence[float]) -> str:
    """A tick's number with as many digits as the ticks beside it need."""
    step = min((b - a for a, b in itertools.pairwise(beside)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 2
    return f"{value:.{digits}f}".replace("-", "−") if abs(value) > step * 1e-6 else f"{0:.{digits}f}"


def _at(point: Point) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}".replace(".0 ", " ").removesuffix(".0")
