"""The specification curve: every way of measuring, sorted by what it gave, above what it was."""

from __future__ import annotations

from collections.abc import Sequence

from pairprobe.evidence import Specification
from pairprobe.page.markup import Html
from pairprobe.page.svg import Axis, both_widths, dots, drawing, label, mark, reach, strokes, y_axis

MOST = 1500  # columns drawn; a picture has no room for more
HALF = 190


def drawn(specifications: Sequence[Specification]) -> list[Specification]:
    """Sorted by Δ in standard deviations where all have it, else by Δ; of too many, evenly spaced ones and the "
    "primary."""
    by_g = all(s.g is not None for s in specifications)
    ordered = sorted(specifications, key=lambda s: _size(s, by_g))
    if len(ordered) <= MOST:
        return ordered
    chosen = {round(i * (len(ordered) - 1) / (MOST - 1)) for i in range(MOST)}
    return [s for i, s in enumerate(ordered) if i in chosen or s.primary]


def _size(s: Specification, by_g: bool) -> float:
    return (s.g or 0.0) if by_g else s.delta


def specification_curve(specifications: Sequence[Specification], alpha: float) -> Html:
    """Above: the effect of each specification; filled where p max-T is at most alpha. Below: which choices it made."""
    shown = drawn(specifications)
    by_g = all(s.g is not None for s in specifications)
    same_unit = len({s.similarity for s in specifications}) == 1 and not by_g
    choices = [
        (what, values)
        for what, values in (
            ("template", list(dict.fromkeys(s.template for s in specifications))),
            ("pooling", list(dict.fromkeys(s.pooling for s in specifications))),
            ("similarity", list(dict.fromkeys(s.similarity for s in specifications))),
        )
        if len(values) > 1
    ]
    depths = sorted({s.depth for s in specifications})

    def draw(width: float) -> Html:
        left = 150 if width > 400 else 104
        rows = sum(len(values) + 1 for _, values in choices) + (2 if len(depths) > 1 else 0)
        step = 17
        height = HALF + 14 + step * rows + (58 if len(depths) > 1 else 0)
        x = Axis(0, max(1, len(shown) - 1), left + 8, width - 12)
        ends = [e for s in shown if same_unit and s.ci for e in (s.ci.low, s.ci.high)]
        y = Axis(*reach([*(_size(s, by_g) for s in shown), *ends], hold=(0.0,)), HALF - 12, 30)
        at = [(x(i), y(_size(s, by_g))) for i, s in enumerate(shown)]
        strong = [s.p_max_t is not None and s.p_max_t <= alpha for s in shown]
        shapes: list[Html] = [y_axis(y, left, width - 8, "g (Δ in standard deviations)" if by_g else "Δ")]
        if same_unit:
            bars = [((x(i), y(s.ci.low)), (x(i), y(s.ci.high))) for i, s in enumerate(shown) if s.ci]
            shapes.append(strokes(bars, "thin"))
        shapes += [
            strokes([((left, y(0)), (width - 8, y(0)))], "zero"),
            dots([p for p, s in zip(at, strong, strict=True) if not s], "weak"),
            dots([p for p, s in zip(at, strong, strict=True) if s], "holds"),
        ]
        top = HALF + 14
        for what, values in choices:
            shapes.append(label(4, top + 10, what, "start", "row strong"))
            top += step
            for value in values:
                room = int((left - 14) / 6.2)
                name = value if len(value) <= room else value[: room - 1] + "…"
                shapes.append(label(left - 4, top + 10, name, "end", "tick"))
                cells = [i for i, s in enumerate(shown) if getattr(s, what) == value]
                shapes.append(strokes([((x(i), top + 2), (x(i), top + step - 4)) for i in cells], "cell"))
                top += step
        if len(depths) > 1:
            shapes.append(label(4, top + 10, "depth", "start", "row strong"))
            d = Axis(depths[0], depths[-1], top + step + 56, top + step + 4)
            shapes += [label(left - 4, d(v) + 4, str(v), "end", "tick") for v in (depths[0], depths[-1])]
            shapes.append(dots([(x(i), d(s.depth)) for i, s in enumerate(shown)], "small"))
        shapes += [mark(*p, "diamond", "primary-mark") for p, s in zip(at, shown, strict=True) if s.primary]
        shapes += [
            strokes([((x(i), 26), (x(i), height - 6))], "primary-line") for i, s in enumerate(shown) if s.primary
        ]
        return drawing(width, height, f"Specification curve of {len(shown)} ways of measuring, sorted", shapes)

    return both_widths(draw)
