"""Configuration → a plan and a list of problems, before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.model import Model
from pairprobe.config import Job
from pairprobe.errors import CheckpointError, ConfigError, PairprobeError, StatisticsError
from pairprobe.executions.memory import megabytes
from pairprobe.multiverse import asked_of_the_model, ways, write_all
from pairprobe.records import Estimate, PairSet, Tokens
from pairprobe.rooms import Keeping, Workload
from pairprobe.tokens import examine, leave_out, tokenise

LESS = (
    "execution=streamed needs least; fewer or shorter texts, fewer depths (method.depths) or a smaller model need less."
)

OTHER = "similarity=[cosine] experiment.primary.similarity=cosine"


@dataclass(frozen=True, eq=False)
class Plan:
    """What will be done. execution: the one that will run, as `auto` chose it; estimate: what it takes; both None
    where nothing is computed. remark: about the device, or a setting that has no effect; '' where there is nothing to
    say. kept: how many of how many texts earlier runs have kept; None where none are."""

    pairs: PairSet
    checkpoint: Any | None = None
    execution: Any | None = None
    estimate: Estimate | None = None
    remark: str = ""
    kept: tuple[int, int] | None = None


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a run from starting."""

    topic: str
    error: PairprobeError


def check(
    job: Job,
    timed: bool = False,
    locate: Callable[[Model], Checkpoint] = Model.locate,
    kept: Keeping | None = None,
) -> tuple[Plan | None, list[Problem]]:
    """Look at everything a run needs: pairs, template, tokenizer, checkpoint, device, memory.

    Reads the pair set, the checkpoint's config, tokenizer and headers, and asks torch for devices. Loads no weights.
    timed: estimate how long it will take, from a short measurement of disk and processor. locate: how the model is
    found; with `Model.foresee` it may lie on the hub. kept: where vectors of earlier runs are.

    Returns:
        the plan (None where there are problems) and every problem found.
    """
    problems: list[Problem] = []

    def attempt(topic: str, step: Any) -> Any:
        try:
            return step()
        except PairprobeError as error:
            problems.append(Problem(topic, error))
            return None

    pairs = attempt("pairs", lambda: _pairs(job))
    if pairs is not None:
        control = job.experiment.primary.control
        if control is not None and control not in pairs.controls:
            allowed = f"allowed with these pairs ({pairs.name}): {', '.join(pairs.controls)}"
            message = f"experiment.primary.control is '{control}'; {allowed}."
            problems.append(Problem("primary", PairprobeError(message)))
    if not job.method.uses_model:
        if pairs is not None:
            attempt("recorded", lambda: job.method.similarities(pairs))
        attempt("primary", lambda: _check_primary(job, (job.method.depth,)))
        plan = Plan(pairs, remark=_not_rounded(job)) if pairs is not None else None
        return (plan if not problems else None), problems

    texts = attempt("template", lambda: write_all(job.multiverse, job.template, pairs)) if pairs is not None else None
    if texts is not None:
        attempt("reference", lambda: _check_similarities(job, texts[0]))
    checkpoint = attempt("model", lambda: locate(job.model))
    if checkpoint is not None and kept is not None:
        checkpoint = replace(checkpoint, hashes=kept.hashes)
    layered = True
    remark, execution, estimate = "" if job.method.computes else _not_rounded(job), None, None
    if checkpoint is not None:
        depths = attempt("method", lambda: job.method.depths_of(checkpoint))
        if depths is not None:
            attempt("primary", lambda: _check_primary(job, depths))
        else:  # a config that does not say how many layers there are: what they are run by would say it again
            layered = not isinstance(problems[-1].error, CheckpointError)
        if not job.method.computes:
            attempt("model", lambda: len(checkpoint.weights))  # every tensor is in a format that is known
    if job.method.computes:
        placed = attempt("device", job.execution.place)
        able = checkpoint is not None and placed is not None and layered
        refusal = attempt("model", lambda: job.method.refuse(checkpoint, job.execution)) if able else None
        if refusal:
            problems.append(Problem("model", PairprobeError(refusal)))
        if not problems and texts is not None:
            remark = placed[1]
            execution, estimate = attempt("plan", lambda: _estimate(job, checkpoint, pairs, timed)) or (None, None)
            if estimate is not None and estimate.problem:
                problems.append(Problem("memory", PairprobeError(estimate.problem, LESS)))
    elif not problems and texts is not None:
        attempt("tokens", lambda: workload(job, checkpoint, pairs))
    if problems or pairs is None or checkpoint is None:
        return None, problems
    plan = Plan(pairs, checkpoint, execution, estimate, remark)
    return replace(plan, kept=_kept(job, plan, kept) if kept is not None else None), problems


def _pairs(job: Job) -> PairSet:
    """The pair set, without its reference vocabulary where no similarity reads one: it would be run for nothing."""
    pairs: PairSet = job.pairs.read()
    if any(getattr(s, "reads_reference", False) for s in job.similarities):
        return pairs
    about = {topic: text for topic, text in pairs.about.items() if topic != "reference"}
    return replace(pairs, reference=(), about=about)


def tokens(job: Job, plan: Plan) -> Tokens:
    """The tokens of the primary template's texts, of a plan that has a checkpoint."""
    return tokenise(plan.checkpoint.tokenizer(), job.template.write(plan.pairs))  # type: ignore[union-attr]


def limit(job: Job, checkpoint: Any, tokenizer: Any) -> tuple[int | None, str]:
    """(tokens a text may have, None: any number; why no more, '' where the model or the rules name that number)."""
    found, alone = job.tokens.limit(checkpoint.max_tokens, tokenizer.model_max_length), checkpoint.alone
    if alone is None or found != alone[0]:
        return found, ""
    return found, f"its {alone[1]} positions beyond {found} tokens depend on the longest text of a batch"


def _kept(job: Job, plan: Plan, kept: Keeping) -> tuple[int, int] | None:
    """(texts whose vectors earlier runs have kept, all texts that will be asked for), None where that is no text or
    the words themselves end the run: the run says so."""
    checkpoint: Any = plan.checkpoint
    if plan.execution is None or checkpoint.to_come or not kept.may_have(checkpoint.files):
        return None
    if plan.execution.key(checkpoint) is None:
        return None
    tokenizer = checkpoint.tokenizer()
    pairs, found, of_a_text = plan.pairs, tokens(job, plan), limit(job, checkpoint, tokenizer)
    try:
        findings = examine(found, *of_a_text)
        pairs = leave_out(pairs, found.texts, findings.excluded(job.tokens), findings.alike(job.tokens))
        if not pairs.pairs:
            return None
        found = tokenise(tokenizer, job.template.write(pairs))
        asked = ways(job.multiverse, job.template, job.method, found, pairs, tokenizer, job.tokens, *of_a_text)
    except PairprobeError:
        return None
    n = job.method.texts_kept(checkpoint, asked.tokens, asked.poolings, plan.execution, kept)
    return (n, len(asked.tokens)) if n else None


def _not_rounded(job: Job) -> str:
    """That execution.weights changes nothing for a method that runs no layer; '' where it is as_stored."""
    if job.execution.weights == "as_stored":
        return ""
    return (
        f"execution.weights={job.execution.weights} rounds linear layers, and method={job.method.name} uses none: its "
        "numbers are those of as_stored"
    )


def workload(job: Job, checkpoint: Any, pairs: PairSet) -> Workload:
    """What the texts of all templates ask of an execution. Raises TokenError for a token that the model's embedding
    table has no row for."""
    rows, depths = checkpoint.weights[checkpoint.embedding_name].shape[0], len(job.method.depths_of(checkpoint))
    return asked_of_the_model(job.multiverse, job.template, job.method, checkpoint.tokenizer(), pairs, rows, depths)


def _estimate(job: Job, checkpoint: Any, pairs: PairSet, timed: bool) -> tuple[Any, Estimate]:
    """The execution that will run the texts of all templates, and what it takes."""
    asked = workload(job, checkpoint, pairs)
    execution = job.execution.settle(checkpoint, asked)
    return execution, execution.estimate(checkpoint, asked, timed)


def _check_primary(job: Job, depths: tuple[int, ...]) -> None:
    primary = job.experiment.primary
    if primary.depth not in depths and not -len(depths) <= primary.depth < 0:
        raise ConfigError(
            f"experiment.primary.depth is {primary.depth}; measured are {', '.join(map(str, depths))}, and negative "
            "ones count from the last."
        )


def _check_similarities(job: Job, texts: Any) -> None:
    """One error for all similarities that these texts do not allow, with the words that leave out these alone."""
    asked = ((s.name, s.refuse(texts)) for s in job.similarities if hasattr(s, "refuse"))
    refusals = {name: error for name, error in asked if error is not None}
    if not refusals:
        return
    problems = dict.fromkeys(problem for error in refusals.values() for problem in error.problems)
    steps = " ".join(dict.fromkeys(error.next_step for error in refusals.values()))
    left = [s.name for s in job.similarities if s.name not in refusals]
    if not left:
        raise StatisticsError(list(problems), f"{steps} Or measure by another similarity: {OTHER}")
    words = f"'similarity=[{','.join(left)}]'"
    if job.experiment.primary.similarity in refusals:
        words += f" experiment.primary.similarity={left[0]}"
    raise StatisticsError(list(problems), f"{steps} Or leave {' and '.join(refusals)} out: {words}")


def sizes(pairs: PairSet) -> str:
    """'10 cognate, 4 control'."""
    return ", ".join(f"{n} {group}" for group, n in pairs.sizes.items())


def gigabytes(n: float) -> str:
    """Bytes for people: '91 MB', '21.3 GB' (decimal units)."""
    return f"{n / 1e3:.0f} kB" if n < 1e6 else megabytes(n)


def stored(checkpoint: Any, execution: Any) -> str:
    """'compressed-tensors int8, a scale per row, inputs as int8 per token': how it is stored, and what enters its
    products in this execution; the latter where weights are quantised."""
    as_stored = getattr(execution, "activations", "as_stored") == "as_stored"
    return ", ".join(part for part in (checkpoint.storage.summary, checkpoint.storage.inputs(as_stored)) if part)


def planned(estimate: Estimate, checkpoint: Any, kept: tuple[int, int] | None = None, execution: Any = None) -> str:
    """One line: how it will be run, and what that takes. kept: how many of how many texts earlier runs have kept."""
    n, texts = kept or (0, 0)
    where = f"{estimate.execution} on {estimate.device}, {estimate.dtype}"
    if n == texts > 0:
        all_of = f"all {texts} texts" if texts > 1 else "the one text"
        return f"{where} · {stored(checkpoint, execution)} · reads nothing: {all_of} kept from an earlier run"
    memory = f"needs about {gigabytes(estimate.host)}"
    if estimate.may:
        memory += f" of {gigabytes(estimate.may)} it may use"
    if estimate.gpu:
        memory += f" and {gigabytes(estimate.gpu)} on {estimate.device}"
    parts = [
        where,
        f"{stored(checkpoint, execution)} · reads {gigabytes(estimate.reads)}",
        memory,
    ]
    if estimate.passes > 1:
        parts.append(
            f"{estimate.passes} passes over the checkpoint, since not all texts' states fit at once "
            f"({gigabytes(estimate.one_pass)} would do it in one)"
        )
    if estimate.seconds is not None:
        parts.append(f"about {duration(estimate.seconds)}")
    some = f"\n{n} of {texts} texts kept from an earlier run: the others alone are run" if n else ""
    return " · ".join(parts) + some


def duration(seconds: float) -> str:
    """'2 s', '45 s', '3 min', '1.5 h': as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
