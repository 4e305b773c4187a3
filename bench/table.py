"""Samples → the Markdown table of docs/bench.md, and the lines that say where and when it was measured."""

from __future__ import annotations

import datetime
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.case import PEAK, Case, Fact, Rival, Sample
from pairprobe.config import repository
from pairprobe.provenance import git, hardware, versions

FILE = "docs/bench.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
HEAD = ("case", "what", "ours", "theirs", "theirs ÷ ours", "must", "agreement")
QUIET = 0.1  # of the cores' time; with more of it taken by others, threads wait for each other
SHOWN = ("pairprobe", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "hydra-core")


@dataclass
class Measured:
    """One case: our samples, those of each rival, in the same order; how well each agreed; rivals that are not here."""

    ours: list[Sample] = field(default_factory=list)
    theirs: dict[str, list[Sample]] = field(default_factory=dict)
    agreement: dict[str, str] = field(default_factory=dict)
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)


def rows(name: str, case: Case, found: Measured) -> list[list[str]]:
    """For each rival a row for everything timed and one for peak memory, ratios pair by pair; then the case's facts."""
    table = []
    for rival, theirs in found.theirs.items():
        table += _against(name, case, rival, found.ours, theirs, found.agreement[rival])
    if not found.theirs:
        for what in found.ours[0].seconds:
            table.append([name, what, _seconds([s.seconds[what] for s in found.ours]), "", "", "", ""])
        if case.memory:
            table.append([name, PEAK, _memory(found.ours), "", "", "", ""])
    for rival, why in found.absent.items():
        table.append([name, f"{rival}: not measured, {', '.join(why)}", "", "", "", "", ""])
    facts = list(case.facts(found.ours, found.theirs)) if case.facts else []
    if case.over is not None:
        over = statistics.median((s.peak - s.peak_before) / 2**20 for s in found.ours)
        facts.insert(0, Fact("memory over base", f"{over:.0f} MiB", "", f"≤ {case.over:g} MiB", over <= case.over))
    for fact in facts:
        table.append([name, fact.what, fact.ours, fact.theirs, "", _verdict(fact.must, fact.met), ""])
    return table


def _against(
    name: str, case: Case, rival: str, ours: Sequence[Sample], theirs: Sequence[Sample], agreement: str
) -> list[list[str]]:
    found = []
    of: Rival = case.rivals[rival]
    label = f"{rival}: " if len(case.rivals) > 1 else ""
    for what in [w for w in ours[0].seconds if w in theirs[0].seconds]:
        a, b = ([sample.seconds[what] for sample in side] for side in (ours, theirs))
        must = _must(of.must.get(what), a, b)
        found.append([name, label + what, _seconds(a), _seconds(b), _ratio(a, b), must, agreement])
    if case.memory:
        a, b = ([float(sample.peak) for sample in side] for side in (ours, theirs))
        must = _must(of.must.get(PEAK), a, b)
        found.append([name, label + PEAK, _memory(ours), _memory(theirs), _ratio(a, b), must, agreement])
    return found


def markdown(cases: Mapping[str, Case], table: Sequence[Sequence[str]], about: str) -> str:
    """What is compared, the table, and `about`. What a case's row shares with the row above is not repeated."""
    lines = []
    for name, case in cases.items():
        several = len(case.rivals) > 1
        theirs = [f" *{rival if several else 'Theirs'}:* {of.says}." for rival, of in case.rivals.items()]
        lines.append(f"- `{name}`: {case.ours}.{''.join(theirs)}")
    lines += ["", "| " + " | ".join(HEAD) + " |", "| --- | --- | ---: | ---: | ---: | --- | --- |"]
    above, said = "", ""
    for name, *cells, agreement in table:
        first = name != above
        shown = agreement if first or agreement != said else ""
        lines.append("| " + " | ".join([f"`{name}`" if first else "", *cells, shown]) + " |")
        above, said = name, agreement
    return "\n".join([*lines, "", about])


def cpu_seconds() -> tuple[float, float, float]:
    """(of all cores, of these the busy ones, of these our own and our finished children's), since boot or start."""
    import psutil

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # user and nice time already hold the guests' time
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total, total - idle, sum(os.times()[:4])


def machine(command: str, began: tuple[float, float, float]) -> str:
    """Where, when, with what and how this was measured. began: `cpu_seconds` before the first case."""
    code, parts, found = git(repository()), hardware(), versions()
    total, busy, own = (now - then for now, then in zip(cpu_seconds(), began, strict=True))
    share = max(0.0, busy - own) / total
    others = f"Other processes took {share:.0%} of its cores' time meanwhile"
    commit = f"{code.commit[:10]}{' with uncommitted changes' if code.dirty else ''}" if code.commit else "no git"
    rough = ["**Measured beside other work: the ratios of seconds are rough. Measure again on a quiet machine.**", ""]
    return "\n".join(
        [
            *(rough if share > QUIET else []),
            f"Measured on {datetime.date.today().isoformat()} with `{command}` ({commit}).",
            f"Machine: {parts['cpu']}, {parts['cores']} cores, {parts['memory']} of memory, CPU only. {others}.",
            f"Python {found['python']}, " + ", ".join(f"{p} {found[p]}" for p in SHOWN) + ".",
        ]
    )


def write(text: str) -> None:
    """Put `text` between the markers of docs/bench.md."""
    file = (repository() or Path.cwd()) / FILE
    before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} s"


def _memory(samples: Sequence[Sample]) -> str:
    return f"{_mib([s.peak for s in samples])} MiB ({_mib([s.peak_before for s in samples])} before)"


def _mib(values: Sequence[float]) -> str:
    return f"{statistics.median(values) / 2**20:.0f}"


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [b / a for a, b in zip(ours, theirs, strict=True)]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = _ratios(ours, theirs)
    return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}–{max(ratios):.2f})"


def _must(least: float | None, ours: Sequence[float], theirs: Sequence[float]) -> str:
    if least is None:
        return ""
    met = statistics.median(_ratios(ours, theirs)) >= least
    return _verdict(f"≥ {least:g}", met)


def _verdict(must: str, met: bool) -> str:
    return must and f"{must}: {'met' if met else '**not met**'}"
