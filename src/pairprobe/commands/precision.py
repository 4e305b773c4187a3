"""The end of a sweep in which execution.weights varies: what rounding the weights changed, and what it did not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pairprobe.config import Job, flatten, home
from pairprobe.errors import PairprobeError, StatisticsError
from pairprobe.evidence import Agreement, PrecisionEffect
from pairprobe.outcomes import Interval, signed
from pairprobe.report import Report
from pairprobe.runner import Finished
from pairprobe.statistics.precision import agreement, effect
from pairprobe.tracking import OpenRun, Store, uri_of

KEY, REFERENCE = "execution.weights", "as_stored"
NAME = "precision"
DEPTHS_SHOWN = 12

Done = tuple[Job, Finished]


def after(done: Sequence[Done], show: Report, folder: Path) -> None:
    """For each set of runs that differ in execution.weights alone: print what differs, and log it to each of them.

    folder: where the files are made before they are logged. Does nothing where execution.weights does not vary, unless
    the experiment is about it.
    """
    groups: dict[str, list[Done]] = {}
    for job, finished in done:
        rest = sorted((key, str(value)) for key, value in flatten(job.config) if key != KEY)
        groups.setdefault(json.dumps(rest), []).append((job, finished))
    for number, runs in enumerate(groups.values()):
        asked = runs[0][0].experiment.name == NAME
        if len({job.execution.weights for job, _ in runs}) < 2 and not asked:
            continue
        reference = next((finished for job, finished in runs if job.execution.weights == REFERENCE), None)
        others = {job.execution.weights: finished for job, finished in runs if job.execution.weights != REFERENCE}
        if reference is None or not others:
            missing = f"no run has {KEY}={REFERENCE}" if reference is None else f"{KEY} is {REFERENCE} in all runs"
            show.line("precision", f"{runs[0][1].name}: nothing to compare with: {missing}", always=True)
            continue
        try:
            effects = {w: _effects(w, reference, other, len(others)) for w, other in others.items()}
        except StatisticsError as error:
            show.error(error, "precision")
            continue
        _print(reference, others, effects, show)
        _log(runs, effects, folder / str(number), show)


def _effects(weights: str, reference: Finished, other: Finished, among: int) -> list[PrecisionEffect]:
    """Of every similarity and control group, the primary one first. among: how many roundings are compared."""
    before, after = reference.result, other.result
    alike: tuple[Agreement, ...] = ()
    if before.vectors is not None and after.vectors is not None and before.texts is not None:
        alike = agreement(before.vectors, after.vectors, [t.word.form for t in before.texts.texts])
    primary = before.verdict.similarity, before.verdict.control
    return [
        effect(
            weights, before.pairs, (before.similarities[name], after.similarities[name]),
            (before.tests[name, control], after.tests[name, control]), alike, among,
        )
        for name, control in sorted(before.tests, key=lambda key: key != primary)
    ]  # fmt: skip


# ── what a person sees ───────────────────────────────────────────────────────────────────────────────────


def _print(
    reference: Finished, others: dict[str, Finished], effects: dict[str, list[PrecisionEffect]], show: Report
) -> None:
    result = reference.result
    depth = result.primary.at(result.verdict.depth).depth
    first = next(iter(effects.values()))[0]
    show.line("", "")
    show.line(
        "precision",
        f"{reference.name}: weights rounded, against as_stored · {first.similarity} at depth {depth}, cognates against "
        f"{first.control}",
        always=True,
    )
    interval = f"{100 * first.deltas[0].confidence:g} % interval"
    show.plain(
        f"{'weights':<14}{'bits':>6}{'error':>9}{'Δ':>9}{'ΔΔ':>10}{interval:>20}{'cosine':>9}{'least':>8}   verdict"
    )
    show.plain(
        f"{REFERENCE:<14}{'':>6}{'':>9}{signed(result.primary.at(depth).delta):>9}{'':>47}   {result.verdict.answer}"
    )
    for weights, other in others.items():
        show.plain(_row(weights, other, effects[weights][0], depth))
    show.line(
        "",
        "error: of rounding, relative to the weights' size. ΔΔ = Δ(rounded) − Δ(as_stored), pair by pair; its interval "
        f"leaves linked pairs out together ({first.deltas[0].clusters} clusters). cosine, least: between a word's two "
        "vectors at that depth, mean and least over words.",
    )
    _by_depth(effects, show)
    for i, sentence in enumerate(_said(reference, others, effects, depth)):
        show.line("shows" if i == 0 else "", sentence, always=True)


def _row(weights: str, other: Finished, found: PrecisionEffect, depth: int) -> str:
    at = found.depths.index(depth)
    delta, rounding = found.deltas[at], other.result.usage.rounding if other.result.usage else None
    bits = f"{rounding.bits:.2f}" if rounding else "—"
    error = f"{100 * rounding.error:.2f} %" if rounding and rounding.error is not None else "—"
    interval = _interval(delta.ci) if delta.ci else "undefined"
    alike = found.agreement[at] if found.agreement else None
    return (
        f"{weights:<14}{bits:>6}{error:>9}{signed(delta.second):>9}{signed(delta.estimate, 4):>10}{interval:>20}"
        f"{_cosine(alike.mean if alike else None):>9}{_cosine(alike.least if alike else None):>8}   "
        f"{other.result.verdict.answer}"
    )


def _by_depth(effects: dict[str, list[PrecisionEffect]], show: Report) -> None:
    """Mean and least cosine at each depth, a column for each rounding."""
    first = next(iter(effects.values()))[0]
    if not first.agreement or len(first.depths) < 2:
        return
    show.plain(f"{'depth':>5}" + "".join(f"{weights:>18}" for weights in effects) + "   mean, least cosine")
    every = max(1, -(-len(first.depths) // DEPTHS_SHOWN))
    for i, depth in enumerate(first.depths):
        if i % every and i != len(first.depths) - 1:
            continue
        cells = (found[0].agreement[i] for found in effects.values())
        show.plain(f"{depth:>5}" + "".join(f"{_cosine(c.mean):>9}{_cosine(c.least):>9}" for c in cells))


def _said(
    reference: Finished, others: dict[str, Finished], effects: dict[str, list[PrecisionEffect]], depth: int
) -> list[str]:
    """What may be said, in sentences."""
    sentences = []
    for weights, found in effects.items():
        at = found[0].depths.index(depth)
        delta, corrected = found[0].deltas[at], found[0].corrected[at]
        if delta.ci is None or corrected is None:
            sentences.append(f"{weights}: how far Δ changes has no interval: {delta.why_no_ci}.")
            continue
        untested = delta.why_no_claim or ("" if depth in found[0].tested else "Δ of these pairs has no p-value")
        if untested:
            holds = "holds 0" if 0.0 in delta.ci else "does not hold 0"
            sentences.append(
                f"{weights}: ΔΔ = {signed(delta.estimate, 4)}, and its interval {holds}; whether Δ changes is not told "
                f"from so little: {untested}."
            )
            continue
        if 0.0 in delta.ci:
            far = max(-delta.ci.low, delta.ci.high)
            sentences.append(
                f"{weights}: no change of Δ is seen; one larger than {far:.4f} is ruled out by its interval."
            )
            continue
        sentence = f"{weights}: Δ changes by {signed(delta.estimate, 4)}"
        if len(effects) > 1:
            holds = "does not hold" if 0.0 in corrected else "holds"
            sentence += f"; corrected for {len(effects)} comparisons that {holds}: {_interval(corrected)}"
        sentences.append(f"{sentence}.")
    answer = reference.result.verdict.answer
    turned = [f"{w}: '{answer}' → '{o.result.verdict.answer}'" for w, o in others.items()
              if o.result.verdict.answer != answer]  # fmt: skip
    sentences.append(f"The verdict changes with {'; '.join(turned)}." if turned else "The verdict is the same in all.")
    counts = [(w, sum(len(e.changed) for e in f), sum(len(e.tested) for e in f)) for w, f in effects.items()]
    if any(tested for _, _, tested in counts):
        alpha = next(iter(effects.values()))[0].alpha
        each = ", ".join(f"{w} {n}" for w, n, _ in counts)
        sentences.append(
            f"Of {counts[0][2]} tests (similarities × controls × depths, uncorrected), p crosses {alpha:g}: {each}."
        )
    return sentences


def _interval(ci: Interval) -> str:
    return f"[{signed(ci.low, 4)}, {signed(ci.high, 4)}]"


def _cosine(value: float | None) -> str:
    return "—" if value is None else f"{value:.4f}"


# ── what is recorded ─────────────────────────────────────────────────────────────────────────────────────


def rows(effects: dict[str, list[PrecisionEffect]]) -> list[dict[str, Any]]:
    """One row for each rounding, similarity, control group and depth."""
    found = []
    for one in itertools.chain.from_iterable(effects.values()):
        for i, depth in enumerate(one.depths):
            delta, corrected = one.deltas[i], one.corrected[i]
            alike = one.agreement[i] if one.agreement else None
            found.append(
                {
                    "weights": one.weights, "similarity": one.similarity, "control": one.control, "depth": depth,
                    "delta_as_stored": delta.first, "delta_rounded": delta.second, "delta_delta": delta.estimate,
                    "ci_low": delta.ci.low if delta.ci else None, "ci_high": delta.ci.high if delta.ci else None,
                    "ci_low_corrected": corrected.low if corrected else None,
                    "ci_high_corrected": corrected.high if corrected else None,
                    "why_no_ci": delta.why_no_ci, "clusters": delta.clusters,
                    "cosine_mean": alike.mean if alike else None, "cosine_least": alike.least if alike else None,
                    "word_least": alike.word if alike else "", "p_crosses_alpha": depth in one.changed,
                }
            )  # fmt: skip
    return found


def _log(runs: Sequence[Done], effects: dict[str, list[PrecisionEffect]], folder: Path, show: Report) -> None:
    """tables/precision.json (for people) and precision.json (all records), the same with every run."""
    table = rows(effects)
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    columns = list(table[0])
    data = {"columns": columns, "data": [[row[c] for c in columns] for row in table]}
    (folder / "tables" / "precision.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    records = {weights: [asdict(e) for e in found] for weights, found in effects.items()}
    (folder / "precision.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    for job, finished in runs:
        try:
            store = Store(uri_of(job.tracking.uri, home()), home())
            OpenRun(store, finished.run_id, finished.experiment_id, finished.name).upload(folder)
        except PairprobeError as error:
            show.error(error, "precision")
            show.line("", f"Nothing is lost: {folder / 'tables' / 'precision.json'}", always=True)
            return
    show.line("", f"logged with each of these {len(runs)} runs: tables/precision.json")
