"""python run.py plan [overrides]: what a run would read, need and take, each way it could be run. Nothing is loaded."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pairprobe import preflight
from pairprobe.checkpoints import identity
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.hub import SPARE_DISK, room
from pairprobe.checkpoints.model import Model
from pairprobe.commands import compose
from pairprobe.config import Job, build, check_names, home
from pairprobe.errors import ConfigError, PairprobeError
from pairprobe.executions.cache import Cold
from pairprobe.kept import Kept
from pairprobe.preflight import duration, gigabytes, sizes
from pairprobe.records import Estimate
from pairprobe.report import Report, for_errors
from pairprobe.rooms import SUPPOSED
from pairprobe.tokens import counted


def main(words: list[str]) -> int:
    """Exit code: 0 it can be run, 2 it cannot."""
    if any(w in ("-h", "--help") for w in words):
        print(
            "python run.py plan [-m] [group=choice] [key=value]   memory and time of each way to run it; loads nothing"
        )
        return 0
    sweep = bool({"-m", "--multirun"} & {*words})
    flags = [w for w in words if w.startswith("-") and w not in ("-m", "--multirun")]
    if flags:
        raise ConfigError(f"plan does not know {', '.join(flags)}.", "It takes a run's words: group=choice key=value")
    jobs = [build(c) for c in compose.jobs([w for w in words if not w.startswith("-")], multirun=sweep)]
    check_names(jobs)
    with contextlib.ExitStack() as end:

        @functools.cache  # a sweep over one model asks the hub once
        def locate(model: Model) -> Checkpoint:
            found = model.foresee()
            for file in sorted({t.file for t in found.tensors.values() if not t.remote}):
                end.enter_context(_left_as_found(file))
            return found

        return max(_show(job, locate) for job in jobs)


@contextlib.contextmanager
def _left_as_found(file: Path) -> Iterator[None]:
    """Of what is read of a file meanwhile, for its hash or to measure the disk, nothing stays in the machine's memory
    that was not there before: no run follows that would use it."""
    with file.open("rb") as stream:
        cold = Cold(stream.fileno())
        try:
            yield
        finally:
            cold.forget()


def _show(job: Job, locate: Callable[[Model], Checkpoint]) -> int:
    show = Report(quiet=False)
    plan, problems = preflight.check(job, timed=True, locate=locate, kept=Kept(home() / "mlruns" / "kept"))
    for i, problem in enumerate(problems):
        for_errors().error(problem.error, "preflight" if i == 0 else "")
    if plan is None or not _as_named(show, job, plan):
        return 2
    title = f"{job.model_name} × {job.method.name} × {plan.pairs.name}"
    if plan.checkpoint is not None:
        about = plan.checkpoint.storage
        as_what = preflight.stored(plan.checkpoint, plan.execution) if job.method.computes else about.summary
        title += f" · {gigabytes(about.nbytes)} as {as_what}, {about.bits:.1f} bits per weight"
        if about.unquantised:
            title += f", unquantised: {', '.join(about.unquantised)}"
    show.line("pairprobe", title)
    if plan.checkpoint is not None and plan.checkpoint.storage.caution:
        show.line("beware", plan.checkpoint.storage.caution)
    reference = f" · {counted(len(plan.pairs.reference), 'reference word')}" if plan.pairs.reference else ""
    show.line("pairs", sizes(plan.pairs) + reference)
    if plan.estimate is None or plan.execution is None:
        show.line("plan", _rows(job, plan))
        _to_download(show, job, plan)
        return 0
    found = _ways(job, plan)
    show.plain(f"{'':<14}{'read':>10}{'peak cpu':>12}{'peak gpu':>12}   time")
    for estimate in found:
        chosen = estimate.execution == plan.execution.name
        show.plain(_row(estimate, chosen, plan.kept if chosen else None))
    for estimate in found:
        if estimate.execution == plan.execution.name and _all_kept(plan.kept):
            continue  # nothing is run
        if estimate.problem:
            show.line(f"  {estimate.execution}", estimate.problem)
        elif estimate.passes > 1:
            show.line(
                f"  {estimate.execution}",
                f"{estimate.passes} passes over the checkpoint, since not all texts' states fit at once: of the "
                f"{gigabytes(estimate.may)} it may use; {gigabytes(estimate.one_pass)} would do it in one",
            )
    show.line("", f"{plan.estimate.device}, {plan.estimate.dtype}. {_why(job, plan, found)}")
    _to_download(show, job, plan)
    if plan.kept is not None:
        n, texts = plan.kept
        rest = "nothing is read and run" if _all_kept(plan.kept) else "the others alone are run"
        there = "is" if n == 1 else "are"
        show.line("kept", f"{n} of {counted(texts, 'text')} {there} there from an earlier run: {rest}")
    return 0


def _row(estimate: Estimate, chosen: bool, kept: tuple[int, int] | None) -> str:
    """One way of running it. kept: how many of how many texts earlier runs have kept, which need not be run again."""
    head = f"{estimate.execution:<10} {'←' if chosen else ' '}  "
    if _all_kept(kept):
        return f"{head}{'–':>10}{'–':>12}{'–':>12}   nothing to run: see below"
    gpu = gigabytes(estimate.gpu) if estimate.gpu else "–"
    said = "cannot: see below"
    if not estimate.problem:
        passes = f", {estimate.passes} passes" if estimate.passes > 1 else ""
        said = f"{'at most' if kept else 'about'} {duration(estimate.seconds or 0)}{passes}"
    return f"{head}{gigabytes(estimate.reads):>10}{gigabytes(estimate.host):>12}{gpu:>12}   {said}"


def _all_kept(kept: tuple[int, int] | None) -> bool:
    return kept is not None and kept[0] == kept[1]


def _as_named(show: Report, job: Job, plan: preflight.Plan) -> bool:
    """Whether the weights are those of model.sha256. A large file is not read for it; that a run will is said."""
    found = plan.checkpoint
    if found is None or not job.model.sha256:
        return True
    nbytes = identity.hashed_bytes(found)
    if nbytes > identity.HASHED_WHOLE:
        show.line("sha256", f"not checked: a run reads all {gigabytes(nbytes)} for it before it begins")
        return True
    try:
        found.check_sha256(job.model.sha256)
    except PairprobeError as error:
        for_errors().error(error, "preflight")
        return False
    return True


def _to_download(show: Report, job: Job, plan: preflight.Plan) -> None:
    """What must come from the hub before this plan can be run, what is supposed until then, and how to get it."""
    found = plan.checkpoint
    if found is None or not found.to_come:
        return
    (place, free), wanted = room(), found.to_download
    small = "" if wanted + SPARE_DISK <= free else ", which is too little: set HF_HOME to a larger disk"
    text = f"{gigabytes(wanted)} from {job.model.on_hub} to {place}, where {gigabytes(free)} are free{small}."
    if not job.method.computes:
        text = f"not needed: model.fetch=rows reads these rows where they lie. All of it: {text}"
    show.line("download", text)
    said = "So far only headers and the tokenizer were fetched."
    if job.method.computes:
        said += (
            f" The processor's time was measured. The disk's cannot be before the files are on it: "
            f"{gigabytes(SUPPOSED)} a second is supposed."
        )
    show.line("", said)
    show.line(
        "", "A run begins with this download (model.fetch=all)." if job.model.fetch == "all" else job.model.to_get
    )


def _rows(job: Job, plan: preflight.Plan) -> str:
    if plan.checkpoint is None:
        return "no model is used"
    if not hasattr(job.method, "reads"):
        return "no model is run"
    rows, nbytes = job.method.reads(plan.checkpoint, preflight.tokens(job, plan))
    whole = gigabytes(plan.checkpoint.nbytes)
    return f"{rows} rows of the embedding table, {gigabytes(nbytes)} of {whole} stored; no model is run"


def _ways(job: Job, plan: preflight.Plan) -> list[Estimate]:
    """Every execution that could be chosen, the chosen one first."""
    assert plan.estimate is not None
    asked = preflight.workload(job, plan.checkpoint, plan.pairs)
    ways: Any = job.execution.both() if hasattr(job.execution, "both") else (plan.execution,)
    others = []
    for way in ways:
        if way.name == plan.estimate.execution:
            continue
        try:
            others.append(way.estimate(plan.checkpoint, asked, timed=True))
        except PairprobeError as error:
            reads = plan.checkpoint.nbytes if plan.checkpoint else 0
            others.append(Estimate(way.name, "", "", reads, 0, 0, None, 1, problem=error.problems[0]))
    return [plan.estimate, *others]


def _why(job: Job, plan: preflight.Plan, found: list[Estimate]) -> str:
    if job.execution.name != "auto":
        return f"execution={job.execution.name} was asked for."
    if plan.estimate is not None and plan.estimate.execution == "resident":
        return "Small and dense: run whole."
    resident = next((e for e in found if e.execution == "resident"), None)
    if resident is not None and resident.problem:
        return "Only layer by layer is possible."
    if resident is not None and plan.estimate is not None and resident.host:
        return f"Not small: layer by layer, in {plan.estimate.host / resident.host:.0%} of the memory."
    return "Not small: layer by layer."
