"""What a person sees on the terminal: one idea a line, numbers with their uncertainty, the next step.

Colours only where there is a terminal; piped to a file nothing is lost and nothing is added.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text as Styled

from pairprobe import beside, multiverse
from pairprobe.errors import PairprobeError
from pairprobe.geometry import sentence
from pairprobe.outcomes import PAIRS_RELABELLED, DepthTest, GroupTest, Verdict, p_text, signed
from pairprobe.preflight import Plan, gigabytes, planned, sizes
from pairprobe.records import PairSet, Tokens
from pairprobe.result import Result
from pairprobe.stores import option
from pairprobe.tokens import counted
from pairprobe.xray import reading

WIDTH = 100
LABEL = 12
NAMES_SHOWN = 5
BESIDE = 5  # tests beside the primary one that are written out
DEPTHS_SHOWN = 42  # a longer table shows every n-th depth, and always the marked ones
QUIET = "PAIRPROBE_QUIET"
#: What somebody copies into a shell, so that it stays on one line. It ends where words for people go on: at
#: punctuation, a bracket, three spaces, or the end.
COMMAND = re.compile(
    r"\b(?:hf download|pip (?:un)?install|python run\.py|python -m|pairprobe (?:plan|reproduce|compare|report|ui"
    r"|doctor|-)|mlflow (?:db|ui|server)|chmod) ?(?=\S)(?:'[^']*'|.)*?(?=[.;,:)]?(?: \(| and |   |$)|[.;,:] )"
)
GLUE = "\0"  # in no text


class _Unbroken(Console):
    """A console whose reader may go away (`| head`): what is measured is still recorded."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def program() -> str:
    """How this program was called: `pairprobe` where it is installed, else `python run.py`."""
    return "pairprobe" if Path(sys.argv[0]).stem == "pairprobe" else "python run.py"


class Report:
    """Lines with a label in front. quiet: only the verdict, the run and errors. run_id: None until the store has it."""

    def __init__(self, console: Console | None = None, quiet: bool | None = None) -> None:
        self.console = console or _Unbroken(width=WIDTH, highlight=False, soft_wrap=True)
        self.quiet = bool(os.environ.get(QUIET)) if quiet is None else quiet
        self.run_id: str | None = None

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────

    def line(self, label: str, text: str, *, style: str = "", always: bool = False) -> None:
        """`label      text`, wrapped under the text; an own newline in `text` starts a new line there."""
        if self.quiet and not always:
            return
        text = text.replace("python run.py", program())
        head = label.ljust(LABEL)
        for part in text.split("\n"):
            for piece in _wrapped(part, WIDTH - LABEL):
                self.console.print(Styled.assemble((head, style or "bold"), piece))
                head = " " * LABEL

    def plain(self, text: str) -> None:
        if not self.quiet:
            self.console.print(Styled(text))

    def error(self, error: PairprobeError, label: str = "error") -> None:
        """An error with all its problems and the next step, on this console."""
        for problem in error.problems:
            self.line(label, problem, style="bold red", always=True)
            label = ""
        if error.next_step:
            self.line("", error.next_step, always=True)

    # ── a run ────────────────────────────────────────────────────────────────────────────────────────────

    def plan(self, job: Any, plan: Plan) -> None:
        """Who, what, and at what cost, before anything is loaded."""
        template = f" · template {job.template.name}" if job.method.uses_model else ""
        asked = f"{job.model_name} × {job.method.name} × {plan.pairs.name}"
        self.line("pairprobe", f"{asked} · {sizes(plan.pairs)} pairs{template}")
        for i, (topic, text) in enumerate(plan.pairs.about.items()):
            self.line("" if i else "pairs", f"{topic}: {text}")
        if plan.checkpoint is None:
            self.line("plan", f"no model: similarities from {job.method.path}")
        elif job.method.computes:
            assert plan.estimate is not None
            self.line("plan", planned(plan.estimate, plan.checkpoint, plan.kept, plan.execution))
            if plan.estimate.rounding is not None:
                self.line("", plan.estimate.rounding.sentence)
        else:
            self.line(
                "plan",
                f"embedding rows only, of {gigabytes(plan.checkpoint.nbytes)} stored; no model is loaded",
            )
        for text in (plan.checkpoint.storage.caution if plan.checkpoint else "", plan.remark):
            if text:
                self.line("", text)

    def tokens(self, given: PairSet, used: PairSet, tokens: Tokens, findings: Any, rules: Any) -> None:
        """What the tokenizer made of the words."""
        lengths = tokens.lengths
        texts = 2 * len(used.pairs) + len(used.reference)
        distinct = f" ({len(tokens)} distinct)" if len(tokens) != texts else ""
        unknown = "none in the words" if not findings.unknown else f"all of {counted(len(findings.unknown), 'word')}"
        if findings.partly_unknown:
            unknown += f", {findings.partly_unknown} hold{'s' * (findings.partly_unknown == 1)} some"
        if findings.unknown_around:
            unknown += f", {counted(findings.unknown_around, 'text')} with some around them"
        self.line(
            "tokens",
            f"{texts} texts{distinct}, {lengths.min()}–{lengths.max()} tokens · unknown pieces: {unknown} · "
            f"{counted(findings.sharing, 'pair')} sharing a piece",
        )
        if findings.unknown and "unknown" not in rules.exclude:
            named = list(findings.unknown.values())[:NAMES_SHOWN]
            rest = len(findings.unknown) - len(named)
            self.line("", "\n".join(named) + (f"\n… and {rest} more" if rest else ""))
            self.line("", "The model cannot tell such words apart. Leave their pairs out: tokens.exclude=[unknown]")
        if findings.unfit:
            first = next(iter(findings.unfit.values()))
            lost = counted(len(findings.unfit), "text")
            self.line("", f"left out of the reference vocabulary, since they cannot be measured: {lost}, as {first}")
        if findings.altered:
            shown = ", ".join(list(dict.fromkeys(findings.altered.values()))[:3])
            words = len(set(findings.altered.values()))
            self.line("", f"this model's tokenizer rewrites {words} of the words: {shown}{', …' if words > 3 else ''}")
        if findings.spilling:
            where = counted(findings.spilling, "text")
            self.line("", f"in {where} a token of the word also covers characters beside it")
        kept = {p.id for p in used.pairs}
        left_out = [p.id for p in given.pairs if p.id not in kept]
        if left_out:
            more = f" and {len(left_out) - NAMES_SHOWN} more" if len(left_out) > NAMES_SHOWN else ""
            self.line("", f"left out {counted(len(left_out), 'pair')}: {', '.join(left_out[:NAMES_SHOWN])}{more}")

    @contextmanager
    def progress(self, method: str) -> Iterator[Callable[[int, int], None]]:
        """A bar on a terminal; one line with the time elsewhere."""
        import time

        label = "states" if method == "layerwise" else "vectors"
        start = time.perf_counter()
        done = [0, 0]

        def count(now: int, total: int) -> None:
            done[:] = [now, total]

        if self.quiet or not self.console.is_terminal:
            yield count
        else:
            with Progress(
                TextColumn("[bold]{task.description}[/]"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
            ) as bar:
                task = bar.add_task("loading".ljust(LABEL - 1), total=None)

                def move(now: int, total: int) -> None:
                    count(now, total)
                    bar.update(task, completed=now, total=total, description=label.ljust(LABEL - 1))

                yield move
        self.line(
            label,
            f"{done[0]} of {done[1]} text states in {time.perf_counter() - start:.1f} s, loading included",
        )

    def result(self, result: Result) -> None:
        """The table by depth, the similarities beside it, the verdict."""
        test = result.primary
        if result.vectors and "kept" in result.vectors.about:
            self.line("kept", f"{result.vectors.about['kept']}; execution.resume=false computes them anew")
        if result.vectors and "memory" in result.vectors.about:
            self.line("memory", result.vectors.about["memory"])
        if result.vectors and "precision" in result.vectors.about:
            self.line("", result.vectors.about["precision"])
        self._table(test, result.verdict)
        if result.evidence.geometry is not None and result.vectors is not None:
            width = result.vectors.values.shape[2]
            self.line("space", sentence(result.evidence.geometry, result.verdict.depth, width))
        known = {s.reference for s in result.similarities.values() if s.reference}
        for words in sorted(known):
            users = ", ".join(name for name, s in result.similarities.items() if s.reference == words)
            self.line("reference", f"{words}: {users}")
        broken = reading(result.evidence.xray, test.at(result.verdict.depth)) if result.evidence.xray else ""
        if broken:
            self.line("pieces", broken)
        for i, text in enumerate(_beside(result)):
            self.line("" if i else "beside", text)
        if len(test.depths) > 1 and test.best is not None and test.best.depth != result.verdict.depth:
            found = f"largest |t| at depth {test.best.depth}: Δ = {signed(test.best.delta)}, "
            if test.best.p_max_t is None:
                found += "no p-value; found by looking"
            else:
                found += f"p max-T {p_text(test.best.p_max_t)}; found by looking, so only this corrected p counts"
            self.line("elsewhere", found)
        for label, text in beside.lines(result):
            self.line(label, text)
        if result.evidence.multiverse is not None:
            self.line("multiverse", multiverse.told(result.evidence.multiverse))
        first, *rest = result.verdict.sentences
        self.line("verdict", "\n".join([first, *rest]), always=True)
        for i, text in enumerate(result.verdict.beware):
            self.line("beware" if i == 0 else "", text, style="bold yellow", always=True)

    def _table(self, test: GroupTest, verdict: Verdict) -> None:
        primary, side = verdict.depth, verdict.side
        interval = f"{100 * test.confidence:g} % interval"
        self.plain(
            f"{'depth':>5}{'cognate':>8}{test.control[:12]:>13}{'Δ':>9}{interval:>20}{'g':>7}"
            f"{'p':>9}{'p max-T':>9}{'q':>9}"
        )
        best = test.best.depth if test.best else None
        every = max(1, -(-len(test.depths) // DEPTHS_SHOWN))
        for i, at in enumerate(test.depths):
            if i % every and at.depth not in (primary, best, test.depths[-1].depth):
                continue
            mark = "  ← primary" if at.depth == primary else ""
            self.plain(
                f"{at.depth:>5}{at.mean_cognate:>8.3f}{at.mean_control:>13.3f}{signed(at.delta):>9}"
                f"{_interval(at):>20}{_g(at.g):>7}{_p(at.p):>9}{_p(at.p_max_t):>9}{_p(at.q):>9}{mark}"
            )
        if every > 1:
            self.line("", f"one depth in {every} is shown; all are in the run")
        self.line("tests", _relabelled(test, " ".join(verdict.sentences)))
        if test.why_no_interval:
            self.line("", f"no intervals: {test.why_no_interval}")
        self.line(
            "",
            f"power for d = {test.effect:g}: {100 * test.power:.0f} % · "
            f"found {100 * test.power_wanted:g} % of the time: d = {test.detectable_d:.1f}" + _worth(test),
        )
        at = test.at(primary)
        if at.auc is not None:
            percent = f"{100 * test.confidence:g} %"
            within = f", {percent} interval {at.auc_ci.low:.2f} to {at.auc_ci.high:.2f}" if at.auc_ci else ""
            self.line("", f"chance that a cognate pair is the more similar one: {at.auc:.2f} (AUC{within})")
        if at.left_out:
            self.line("", f"Δ without any one {'unit of linked words' if test.linked else 'pair'}: {at.left_out}")
        if at.p_greater is not None and side != "farther":
            self.line("", f"one-sided (cognates closer): p {p_text(at.p_greater)}")
        if at.p_less is not None and side == "farther":
            self.line("", f"one-sided at the primary depth (cognates farther): p {p_text(at.p_less)}")
        if at.equivalence_p is not None:
            self.line("", f"equivalence, |Δ| under {test.sesoi:g} standard deviations: p {p_text(at.equivalence_p)}")

    def sweep(
        self, finished: list[tuple[Any, str]], failed: list[str | None], sweep_id: str, uri: str | None = None
    ) -> None:
        """One line per run of a sweep, once all are done: what was swept, and what came out.

        failed: ids of the runs that an error ended, None for each that had not begun. uri: of their store, where
        commands must be told of it.
        """
        self.plain("")
        for i, (run, swept) in enumerate(finished):
            result = run.result
            short = _short(result.primary.at(result.verdict.depth), g=False)
            head = counted(len(finished), "run") if i == 0 else ""
            self.line(head, f"{run.run_id[:8]} {swept or run.name}: {short}: {result.verdict.answer}", always=True)
        if failed:
            self.line("failed", _failed(failed), style="bold red", always=True)
        if sweep_id and len(finished) > 1:
            self.line("compare", f"python run.py compare --sweep {sweep_id}{option(uri)}", always=True)

    def recorded(self, record: Any, store: Any, artifacts: Path | None = None, uri: str | None = None) -> None:
        """Where the run is, and how to look at it. artifacts: their folder where it is on this machine. uri: as
        `sweep`'s."""
        self.line("run", f"{record.name} · {record.run_id}", always=True)
        self.line("", f"python run.py ui{option(uri)}, then {store.runs_link(record.experiment_id, record.run_id)}")
        page = f"python run.py report {record.run_id}{option(uri)}"
        page = shortened(artifacts / "report.html") if artifacts else page
        self.line("report", page, always=True)


def shortened(file: Path) -> str:
    """A path as one would type it here: from the current folder where the file lies under it, else whole."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _failed(runs: list[str | None]) -> str:
    recorded = len([run for run in runs if run is not None])
    never = len(runs) - recorded
    said = f"{counted(len(runs), 'run')}, told above: "
    if not never:
        return said + "marked FAILED in MLflow"
    missing = "not begun, so that MLflow has nothing of " + ("it" if never == 1 else "them")
    return said + (f"{recorded} marked FAILED in MLflow, {never} {missing}" if recorded else missing)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns (Han characters take two); paths, links and commands are never broken."""
    lines = [""]
    for word in re.split(r"(?<=\S)(?= )", COMMAND.sub(lambda command: command[0].replace(" ", GLUE), text)):
        if lines[-1] and cell_len((lines[-1] + word).rstrip().replace(GLUE, " ")) > width:
            lines.append(word.lstrip())
        else:
            lines[-1] += word
    return [line.replace(GLUE, " ") for line in lines]


def _relabelled(test: GroupTest, verdict: str) -> str:
    """How p-values came about, or why there are none where the verdict does not say so, and what was resampled."""
    if test.why_no_p:
        return "no p-value; the verdict says why" if test.why_no_p in verdict else f"no p-value: {test.why_no_p}"
    kind = f"all {test.relabellings}" if test.exact else f"{test.relabellings} random"
    said = f"{kind} relabellings; smallest p they can give: {test.smallest_p:.2g}"
    if test.family > 1:
        said += f"\np max-T and q allow for all {test.family} depths × similarities"
    if test.scheme != PAIRS_RELABELLED:
        said += (
            f"\n{test.scheme}, since words, concepts or cognate sets link the "
            f"{test.n_cognate + test.n_control} pairs into {test.clusters} clusters"
        )
    x, y, total = test.moved_cognate, test.moved_control, test.n_cognate + test.n_control
    if x is not None and y is not None and x + y < total:
        said += (
            f"\np rests on the {x + y} of {total} pairs that may change places ({x} of {test.n_cognate} cognates, "
            f"{y} of {test.n_control} controls); Δ and its interval are of all"
        )
    return said


def _worth(test: GroupTest) -> str:
    """What power supposes of linked pairs."""
    n, m = test.effective_cognate, test.effective_control
    if n is None or m is None or not test.linked:
        return ""
    return f", taking linked pairs for {n:.3g} against {m:.3g} independent ones"


def _interval(at: DepthTest) -> str:
    return str(at.delta_ci or ("undefined" if at.g is None else "—"))  # nothing varies, or there are too few pairs


def _g(g: float | None) -> str:
    return signed(g, 2) if g is not None else "—"


def _p(p: float | None) -> str:
    """p for a column: '0.409', '< 0.001', '—'."""
    return p_text(p).removeprefix("= ") if p is not None else "—"


def _short(at: DepthTest, g: bool = True) -> str:
    p = f", p {p_text(at.p)}" if at.p is not None else ""
    size = f", g = {signed(at.g, 2)}" if g and at.g is not None else ""
    within = _interval(at)
    return f"Δ = {signed(at.delta)}{', no interval' if within == '—' else f' {within}'}{size}{p}"


def _beside(result: Result) -> Iterator[str]:
    """The other controls, then the other similarities, at the primary depth: a few in full, the rest as a number."""
    first = result.primary
    others = [t for t in result.tests.values() if t is not first]
    others.sort(key=lambda t: (t.similarity != first.similarity, t.control != first.control))  # stable
    if not others:
        return
    yield f"not the primary outcome, at depth {result.verdict.depth}:"
    shown = others if len(others) <= BESIDE + 1 else others[:BESIDE]
    for test in shown:
        against = "" if test.control == first.control else f" against {test.control}"
        at = test.at(result.verdict.depth)
        p = f", p max-T {p_text(at.p_max_t)}" if at.p_max_t is not None else ""
        why = f" ({test.why_no_interval})" if test.why_no_interval and test.control != first.control else ""
        yield f"{test.similarity}{against}: {_short(replace(at, p=None))}{p}{why}"
    rest = others[len(shown) :]
    if rest:
        found = sum((t.at(result.verdict.depth).p_max_t or 1.0) <= t.alpha for t in rest)
        yield f"… {len(rest)} more in the report, {found} of them with p max-T ≤ {first.alpha:g}"


def for_errors() -> Report:
    """A report on standard error, for what keeps a command from working."""
    return Report(Console(width=WIDTH, highlight=False, soft_wrap=True, file=sys.stderr), quiet=False)
