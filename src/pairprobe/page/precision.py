"""Does precision matter? Δ over runs that differ in how exact the weights and the arithmetic were, and in nothing else.

A comparison of precisions says nothing where the runs are of two models or two methods. Runs are one series where they
share the plan of the primary outcome (which covers method, template, pairs, statistics), the tokenizer and the model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pairprobe.outcomes import Interval
from pairprobe.page.charts import BOTTOM, LEFT, RIGHT, TOP
from pairprobe.page.markup import Html, command, paragraph, section, tag
from pairprobe.page.stored import Run
from pairprobe.page.svg import Axis, both_widths, drawing, label, mark, reach, strokes, y_axis
from pairprobe.page.words import Glossary

NOTHING = ("as_stored", "None", "")
COMPARED = 6  # runs that the command to copy names
#: What a repository's name says of the format alone, at its end: Qwen2.5-72B-Instruct-AWQ is Qwen2.5-72B-Instruct.
FORMAT = re.compile(
    r"[-_.](awq|gptq|gguf|mlx|bnb|fp(8|16|32)|bf16|n?[fi]nt[48]|nf4|[48]-?bits?|w[48]a(8|16)|quantized|dynamic)$"
)


@dataclass(frozen=True)
class AtPrecision:
    """One run: how exact it was, in words, and Δ."""

    precision: str
    delta: float
    interval: Interval | None


def precision_of(run: Run) -> str:
    """How exact the weights were: as rounded for the run, else as they are stored."""
    rounded = run.params.get("execution.weights", "as_stored")
    if rounded not in NOTHING:
        return rounded
    bits = run.tags.get("checkpoint_bits_per_weight")
    stored = run.tags.get("checkpoint_stored_as", "").split(",")[0]
    return f"{stored or 'as stored'}" + (f" ({bits} bits)" if bits else "")


def model_of(run: Run) -> str:
    """The model, whatever it is stored as: its name on the hub less words for formats, else its weights' identity.

    Folders, packages and addresses have no name that two formats of one model would share, so that only the same
    weights are the same model there.
    """
    hub, source = (run.params.get(f"model.{key}", "None") for key in ("hub", "source"))
    if hub in NOTHING or source not in NOTHING:
        return run.tags["checkpoint"]
    name = hub.rsplit("/", 1)[-1].lower()
    while (shorter := FORMAT.sub("", name)) != name:
        name = shorter
    return name


def series(runs: Sequence[Run]) -> list[list[tuple[Run, str]]]:
    """Runs that differ in precision alone, each with its precision in words; most bits a weight first."""
    alike: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if "checkpoint" in run.tags and "primary_sha256" in run.tags:
            key = (run.tags["primary_sha256"], model_of(run), run.params.get("model.tokenizer", "None"))
            alike.setdefault(key, []).append(run)
    found = []
    for group in alike.values():
        group.sort(key=lambda r: -_bits(r))
        dtypes = {r.tags.get("computed_in", "") for r in group}
        inputs = {r.params.get("execution.activations", "as_stored") for r in group}
        told = [
            (
                run,
                precision_of(run)
                + (f", computed in {run.tags.get('computed_in') or 'what is not known'}" if len(dtypes) > 1 else "")
                + (f", inputs {run.params.get('execution.activations', 'as_stored')}" if len(inputs) > 1 else ""),
            )
            for run in group
        ]
        if len({words for _, words in told}) > 1:
            found.append(told)
    return found


def _bits(run: Run) -> float:
    if run.params.get("execution.weights", "as_stored") not in NOTHING:
        return 0.0
    return float(run.tags.get("checkpoint_bits_per_weight", 0) or 0)


def precision(runs: Sequence[Run], _words: Glossary) -> Html | None:
    """Δ by precision, a figure for each model and method of which several precisions were run; None where there are
    none."""
    found = series(runs)
    if not found:
        return None
    return section(
        "Does precision matter?",
        [_one(told) for told in found],
        paragraph(
            "Intervals that overlap do not show that precision makes no difference, since all runs of a figure use the "
            "same pairs; the paired interval of ΔΔ, which compare gives, is for that."
        ),
        anchor="precision",
    )


def _one(told: Sequence[tuple[Run, str]]) -> Html:
    runs = [run for run, _ in told]
    first = runs[0]
    answers = {r.verdict.answer for r in runs}
    asked = [first.tags.get(key, f"{key} not recorded") for key in ("model", "method", "pairs")]
    which = f"{' × '.join(asked)}, template {first.params.get('template.name', 'not recorded')}"
    points = [AtPrecision(words, r.at.delta, r.at.delta_ci) for r, words in told]
    return tag(
        "div",
        tag(
            "figure",
            by_precision(points, first.verdict.similarity),
            tag("figcaption", f"{which}: squares are Δ, lines its intervals."),
        ),
        paragraph(
            f"{which}: the verdict is the same at every precision, {first.verdict.answer}."
            if len(answers) == 1
            else f"{which}: the verdicts differ: {'; '.join(f'{words}: {r.verdict.answer}' for r, words in told)}."
        ),
        command("python run.py compare " + " ".join(r.id[:8] for r in runs[:COMPARED])),
    )


def by_precision(points: Sequence[AtPrecision], similarity: str) -> Html:
    """Δ with its interval at every precision, left to right in the order given; runs of one precision side by side."""
    columns = list(dict.fromkeys(p.precision for p in points))

    def draw(width: float) -> Html:
        height = 290
        ends = [e for p in points if p.interval for e in (p.interval.low, p.interval.high)]
        y = Axis(*reach([*(p.delta for p in points), *ends], hold=(0.0,)), height - BOTTOM, TOP)
        x = Axis(-0.5, len(columns) - 0.5, LEFT, width - RIGHT)
        shapes: list[Html] = [strokes([((LEFT, y(0)), (width - RIGHT, y(0)))], "zero")]
        room = max(4, int((width - LEFT - RIGHT) / len(columns) / 6.4))
        for i, name in enumerate(columns):
            shown = name if len(name) <= room else name[: room - 1] + "…"
            shapes.append(label(x(i), height - BOTTOM + 16, shown, "middle", "tick"))
            here = [p for p in points if p.precision == name]
            for k, p in enumerate(here):
                at = x(i + (k - (len(here) - 1) / 2) * min(0.2, 0.7 / len(here)))
                if p.interval:
                    shapes.append(strokes([((at, y(p.interval.low)), (at, y(p.interval.high)))], "whisker plain"))
                shapes.append(mark(at, y(p.delta), "square", "estimate plain", 4.5))
        shapes.append(label((LEFT + width) / 2, height - 6, "precision", "middle", "axis"))
        return drawing(
            width, height, f"Δ in {similarity} by precision",
            y_axis(y, LEFT, width - RIGHT, f"Δ in {similarity}"), shapes,
        )  # fmt: skip

    return both_widths(draw)
