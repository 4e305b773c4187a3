"""How Δ changes with the precision of the weights, over the runs of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pairprobe.outcomes import Interval
from pairprobe.page.charts import BOTTOM, LEFT, RIGHT, SHAPES, TOP
from pairprobe.page.markup import Html
from pairprobe.page.svg import Axis, both_widths, drawing, label, mark, reach, strokes, y_axis


@dataclass(frozen=True)
class AtPrecision:
    """One run: its model, the precision of its weights, and Δ."""

    model: str
    precision: str
    delta: float
    interval: Interval | None


def by_precision(runs: Sequence[AtPrecision], similarity: str) -> Html:
    """Δ with its interval at every precision, models side by side and told apart by their marker."""
    columns = list(dict.fromkeys(r.precision for r in runs))
    models = list(dict.fromkeys(r.model for r in runs))

    def draw(width: float) -> Html:
        height = 290
        ends = [e for r in runs if r.interval for e in (r.interval.low, r.interval.high)]
        y = Axis(*reach([*(r.delta for r in runs), *ends], hold=(0.0,)), height - BOTTOM, TOP)
        x = Axis(-0.5, len(columns) - 0.5, LEFT, width - RIGHT)
        shapes: list[Html] = [strokes([((LEFT, y(0)), (width - RIGHT, y(0)))], "zero")]
        room = max(4, int((width - LEFT - RIGHT) / len(columns) / 6.4))
        for i, name in enumerate(columns):
            shown = name if len(name) <= room else name[: room - 1] + "…"
            shapes.append(label(x(i), height - BOTTOM + 16, shown, "middle", "tick"))
        for r in runs:
            aside = (models.index(r.model) - (len(models) - 1) / 2) * min(0.2, 0.7 / len(models))
            at = x(columns.index(r.precision) + aside)
            if r.interval:
                shapes.append(strokes([((at, y(r.interval.low)), (at, y(r.interval.high)))], "whisker plain"))
            shapes.append(mark(at, y(r.delta), SHAPES[models.index(r.model) % len(SHAPES)], "estimate plain", 4.5))
        shapes.append(label((LEFT + width) / 2, height - 6, "precision of the weights", "middle", "axis"))
        return drawing(
            width, height, f"Δ in {similarity} by precision of the weights",
            y_axis(y, LEFT, width - RIGHT, f"Δ in {similarity}"), shapes,
        )  # fmt: skip

    return both_widths(draw)
