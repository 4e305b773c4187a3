"""A comparison on the terminal: settings, outcomes, ΔΔ, words and pairs, one idea a line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from rich.cells import cell_len

from pairprobe.across.comparison import Array, Changed, Comparison, Words
from pairprobe.across.runs import Recorded
from pairprobe.outcomes import Interval, p_text, signed
from pairprobe.records import Pair
from pairprobe.report import LABEL, WIDTH, Report
from pairprobe.statistics.across import LEAST_INTERVAL

PAIRS_SHOWN = 12
SEEN = 0.0005  # smaller differences of a pair are not seen in the three decimals that are shown
SIDE_BY_SIDE = 3  # runs; more are shown below each other
MATRIX = 10  # runs; more only in the figure


def show(found: Comparison, names: Sequence[str], report: Report) -> None:
    """All of a comparison, the figures' places left out."""
    for i, (name, run) in enumerate(zip(names, found.runs, strict=True)):
        report.line("runs" if i == 0 else "", f"{i + 1}  {name} · {run.run_id}", always=True)
    for i, sentence in enumerate(dict.fromkeys(s for run in found.runs for s in run.missing)):
        which = [k for k, run in enumerate(found.runs, start=1) if sentence in run.missing]
        report.line("missing" if i == 0 else "", f"run {_numbers(which)}: {sentence}", always=True)
    _differing(found, report)
    report.line("", "", always=True)
    _outcomes(found.runs, report)
    _changed(found, report)
    _beware(found, report)
    report.line("", "", always=True)
    _pairs(found, report)
    report.line("", "", always=True)
    _words(found, report)


# ── settings and outcomes ────────────────────────────────────────────────────────────────────────────────


def _differing(found: Comparison, report: Report) -> None:
    if not found.differing:
        report.line("differs", "nothing that was recorded: the same settings, versions, data and weights", always=True)
    width = max([len(d.key) for d in found.differing], default=0) + 2
    beside = len(found.runs) <= SIDE_BY_SIDE
    if found.differing and beside:
        report.line("differs", "setting".ljust(width) + _heads(found.runs, width), always=True)
    for i, d in enumerate(found.differing):
        if beside:
            text = d.key.ljust(width) + _cells(d.values, width)
        else:
            text = d.key.ljust(width) + " · ".join(
                f"{_cut(value)}: {_numbers([k for k, v in enumerate(d.values, start=1) if v == value])}"
                for value in dict.fromkeys(d.values)
            )
        report.line("differs" if i == 0 and not beside else "", text, always=True)


def _outcomes(runs: Sequence[Recorded], report: Report) -> None:
    columns: dict[str, Callable[[Recorded], str]] = {
        "Δ": lambda r: _number(r.number("delta"), 3),
        "interval": lambda r: _interval(r.interval("delta")),
        "g": lambda r: _number(r.number("hedges_g"), 2),
        "g interval": lambda r: _interval(r.interval("hedges_g")),
        "p": lambda r: _p(r.number("p")),
        "p max-T": lambda r: _p(r.number("p_max_t")),
        "AUC": lambda r: f"{auc:.2f}" if (auc := r.number("auc")) is not None else "not recorded",
        "at": lambda r: f"{r.similarity}, depth {r.depth}, against {r.control}",
        "verdict": lambda r: r.tags.get("verdict", "—"),
    }
    if not any(r.number("auc") is not None for r in runs):
        del columns["AUC"]
    if len(runs) <= SIDE_BY_SIDE:
        report.line("outcome", " " * 12 + _heads(runs, 12), always=True)
        for key, of in columns.items():
            report.line("", key.ljust(12) + _cells([of(r) for r in runs], 12), always=True)
        return
    shown = [key for key in columns if key not in ("g interval", "at")]
    cells = [["run", *shown], *([str(i), *(columns[k](r) for k in shown)] for i, r in enumerate(runs, start=1))]
    widths = [max(cell_len(row[k]) for row in cells) for k in range(len(cells[0]))]
    for i, row in enumerate(cells):
        text = "  ".join(t + " " * (w - cell_len(t)) for t, w in zip(row, widths, strict=True)).rstrip()
        report.line("outcome" if i == 0 else "", text, always=True)


def _changed(found: Comparison, report: Report) -> None:
    """ΔΔ of each further run less the first."""
    for reason in dict.fromkeys(c.why_not for c in found.changed if c.found is None):
        which = [c.second + 1 for c in found.changed if c.found is None and c.why_not == reason]
        of = "" if len(found.runs) == 2 else f"of run {_numbers(which)} less run 1 "
        report.line("ΔΔ", f"{of}is not given: {reason}", always=True)
    for i, c in enumerate([c for c in found.changed if c.found is not None]):
        report.line("ΔΔ" if i == 0 else "", _delta_of_deltas(c, found.runs), always=True)


def _delta_of_deltas(changed: Changed, runs: Sequence[Recorded]) -> str:
    d = changed.found
    assert d is not None
    tested = all(runs[k].number("p") is not None for k in (changed.first, changed.second))
    untested = d.why_no_claim or ("" if tested else "Δ itself has no p-value in both runs")
    interval = f"{100 * d.confidence:g} % interval {d.ci}" if d.ci else f"no interval: {d.why_no_ci}"
    pairs = f"{d.n_cognate} / {d.n_control} pairs in {d.clusters} unlinked group{'s' * (d.clusters != 1)}"
    said = ""
    if d.ci is not None and 0.0 in d.ci:
        said = "; it holds 0: no change shown"
    elif d.ci is not None:
        said = f"; not called a change: {untested}" if untested else "; Δ differs between the two"
    which = f"run {changed.second + 1} less run {changed.first + 1}"
    return f"{signed(d.estimate)}, {which}, paired, {interval}{said} · {pairs}"


def _beware(found: Comparison, report: Report) -> None:
    runs = found.runs
    said = []
    if len({r.tags.get("pairs_sha256") for r in runs}) > 1:
        said.append("the pair sets differ: their Δ do not measure the same thing")
    primary = {"similarities": {r.similarity for r in runs}, "control groups": {r.control for r in runs}}
    said += [f"the primary {what} differ: {', '.join(sorted(of))}" for what, of in primary.items() if len(of) > 1]
    for i, text in enumerate(said):
        report.line("beware" if i == 0 else "", text, style="bold yellow", always=True)


# ── pairs and words ──────────────────────────────────────────────────────────────────────────────────────


def _pairs(found: Comparison, report: Report) -> None:
    if not found.pairs:
        report.line("pairs", "no pair is in all of these runs", always=True)
        return
    if len(found.runs) == 2:
        whole, *groups = found.together
        parts = [f"Spearman ρ = {_rho(whole.rho)}", *(f"{t.group} {_rho(t.rho)} ({t.pairs})" for t in groups)]
        report.line("pairs", f"{len(found.pairs)} shared; how their similarities go together: {' · '.join(parts)}",
                    always=True)  # fmt: skip
    else:
        report.line("pairs", f"{len(found.pairs)} shared; Spearman ρ of their similarities, run with run:", always=True)
        _matrix(found.rho, range(len(found.runs)), report)
    depths = ", ".join(str(r.depth) for r in found.runs)
    differing = sorted((p for p in found.pairs if p.spread > 0), key=lambda p: -p.spread)
    if not differing or differing[0].spread < SEEN:
        most_apart = f" by {SEEN:g} or more, the most by {differing[0].spread:.1g}" if differing else ""
        report.line("", f"none of them differs{most_apart}, each at its run's primary depth ({depths})", always=True)
        return
    shown = differing[:PAIRS_SHOWN]
    if len(shown) == len(found.pairs):
        what = "all of them"
    elif len(shown) < len(differing):
        what = f"the {len(shown)} that differ most"
    else:
        what = "the one that differs" if len(shown) == 1 else f"the {len(shown)} that differ"
    report.line("", f"{what}, each at its run's primary depth ({depths})", always=True)
    width = min(44, max(cell_len(_words_of(s.pair)) for s in shown)) + 2
    most = (WIDTH - LABEL - width) // 8 - 1
    heads = "".join(f"{f'run {i + 1}':>8}" for i in range(len(shown[0].values[:most])))
    report.line("", _fit("pair", width) + heads + ("  change" if len(found.runs) == 2 else ""), always=True)
    for s in shown:
        name = _fit(_words_of(s.pair), width)
        values = "".join(f"{signed(v):>8}" if v < 0 else f"{v:8.3f}" for v in s.values[:most])
        end = f"  {signed(s.values[1] - s.values[0])}" if len(s.values) == 2 else " …" if len(s.values) > most else ""
        report.line("", f"{name}{values}{end}", always=True)


def _words(found: Comparison, report: Report) -> None:
    words = found.words
    if words is None:
        report.line("words", f"CKA and RSA are not given: {found.why_no_words}", always=True)
        return
    drawn = f", {words.used} of them drawn at random (--words {words.used})" if words.used < words.shared else ""
    held = " and ".join(str(n) for n in words.held) if len(words.held) == 2 else f"{min(words.held)}–{max(words.held)}"
    depths = ", ".join(str(d) for d in words.depths)
    some = len(words.runs) < len(found.runs)
    which = f"of runs {_numbers([i + 1 for i in words.runs])}, which have vectors: " if some else ""
    report.line(
        "words", f"{which}{words.shared} shared of {held}{drawn}; at the primary depths ({depths}):", always=True
    )
    a = words.primary
    if a is None:
        for name, values in (("debiased CKA", words.cka), ("RSA", words.rsa)):
            report.line("", f"{name}, run with run", always=True)
            _matrix(values, words.runs, report)
        return
    exchange = ""
    if a.rsa_p is not None:
        exchange = f", p {p_text(a.rsa_p)} (words exchanged within languages)"
    cka, rsa = (f"{_rho(v)}{_within(v, ci, a.words)}" for v, ci in ((a.cka, a.cka_ci), (a.rsa, a.rsa_ci)))
    report.line("", f"CKA {cka}  debiased; 0: unrelated, 1: the same, turned or scaled", always=True)
    report.line("", f"RSA {rsa}  Spearman of cosine distances{exchange}", always=True)
    _depth_by_depth(words, report)


def _depth_by_depth(words: Words, report: Report) -> None:
    """Where the runs are most alike, if there is a choice of depths."""
    assert words.cka_by_depth is not None
    values = words.cka_by_depth
    if values.size < 2 or not np.isfinite(values).any():
        return
    i, j = np.unravel_index(int(np.nanargmax(values)), values.shape)
    at = f"depths {words.all_depths[0][i]} and {words.all_depths[1][j]}"
    least, most = (signed(float(of(values)), 2) for of in (np.nanmin, np.nanmax))
    report.line("", f"over all depths CKA is {least} to {most}, largest at {at} (found by looking)", always=True)
    if words.same_depths and len(words.all_depths[0]) > 1:
        same = np.diagonal(values)
        k = int(np.nanargmin(same)) if np.isfinite(same).any() else 0
        report.line("", f"at equal depths it is least at depth {words.all_depths[0][k]}: {signed(float(same[k]), 2)}",
                    always=True)  # fmt: skip


def _matrix(values: Array, runs: Sequence[int], report: Report) -> None:
    """The upper triangle, run with run."""
    if len(runs) > MATRIX:
        least, most = float(np.nanmin(values)), float(np.nanmax(values[~np.eye(len(runs), dtype=bool)]))
        report.line("", f"{signed(least, 2)} to {signed(most, 2)}; each of them is in the figure", always=True)
        return
    report.line("", "   " + "".join(f"{j + 1:>7}" for j in runs[1:]), always=True)
    for k, i in enumerate(runs[:-1]):
        cells = ["" if m <= k else _rho(float(values[k, m]), 2) for m in range(1, len(runs))]
        report.line("", f"{i + 1:>3}" + "".join(c.rjust(7) for c in cells), always=True)


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────


def _words_of(pair: Pair) -> str:
    return f"{pair.a.form} – {pair.b.form}"


def _fit(text: str, width: int) -> str:
    """Cut or padded to `width` columns; Han characters take two."""
    while cell_len(text) > width - 2:
        text = text.rstrip("…")[:-1] + "…"
    return text + " " * (width - cell_len(text))


def _number(value: float | None, digits: int) -> str:
    return signed(value, digits) if value is not None else "undefined"


def _interval(interval: Interval | None) -> str:
    return str(interval) if interval else "undefined"


def _within(value: float | None, interval: Interval | None, words: int) -> str:
    """The interval, or why there is none of a value that is defined."""
    if interval or value is None:
        return f" {interval}" if interval else ""
    return f" (no interval: fewer than {LEAST_INTERVAL} words)" if words < LEAST_INTERVAL else " (nothing varies)"


def _rho(value: float | None, digits: int = 3) -> str:
    return signed(value, digits) if value is not None and np.isfinite(value) else "undefined"


def _p(p: float | None) -> str:
    return p_text(p).removeprefix("= ") if p is not None else "none given"


def _cut(value: str) -> str:
    return value if len(value) <= 24 else f"{value[:12]}…{value[-11:]}"


def _numbers(places: Sequence[int]) -> str:
    """1, 2, 3, 5 → '1–3, 5'."""
    parts: list[list[int]] = []
    for n in places:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{p[0]}–{p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)


def _heads(runs: Sequence[Recorded], taken: int) -> str:
    return _cells([f"run {i}" for i in range(1, len(runs) + 1)], taken)


def _cells(values: Sequence[str], taken: int) -> str:
    """The values side by side in what is left of a line; long ones are cut so that their difference shows."""
    room = max(8, (WIDTH - LABEL - taken) // len(values) - 3)
    start = 0
    if len({v[: room - 1] for v in values}) < len(set(values)):
        start = max(0, len(os.path.commonprefix(list(values))) - 3)  # noqa: RUF071  characters are meant
    shown = [("…" if start else "") + v[start:] for v in values]
    return " │ ".join((v if len(v) <= room else v[: room - 1] + "…").ljust(room) for v in shown).rstrip()
