"""The corridor: pairs → texts → tokens → vectors → similarities → group tests → record → figures.

Only this file knows the order of the rooms.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pairprobe import archive, beside, covariates, plans, preflight, provenance
from pairprobe.against import against
from pairprobe.config import Job, home, repository
from pairprobe.errors import PairprobeError, StatisticsError, StoreError
from pairprobe.further import questions
from pairprobe.kept import Kept, going_on
from pairprobe.multiverse import ways
from pairprobe.pairs.table import sizes_problems
from pairprobe.preflight import Plan
from pairprobe.report import Report
from pairprobe.result import Result
from pairprobe.tokens import examine, leave_out, tokenise
from pairprobe.tracking import Store, uri_of
from pairprobe.verdict import verdict


@dataclass(frozen=True)
class Finished:
    """A recorded run."""

    run_id: str
    experiment_id: str
    name: str
    result: Result


def run(
    job: Job, show: Report, folder: Path, tags: dict[str, Any] | None = None, anew: bool = False, name: str = ""
) -> Finished:
    """Check, measure, record. Files are made in `folder` first, so that a failing store loses nothing.

    anew: compute everything, even what earlier runs have kept. name: of the run, else the job's own.

    Raises:
        PairprobeError: any of its kinds; once MLflow has the run, it is marked FAILED, or KILLED by an interrupt.
    """
    began = time.perf_counter()
    provenance.reset_peak_memory()
    kept = None if anew else Kept(home() / "mlruns" / "kept")
    plan, problems = preflight.check(job, timed=True, kept=kept)
    if plan is None:
        raise PairprobeError([line for p in problems for line in p.error.problems], problems[0].error.next_step)
    if plan.checkpoint is not None and plan.checkpoint.to_come:
        show.line("download", f"{job.model.on_hub}, {preflight.gigabytes(plan.checkpoint.to_download)}")
        plan = replace(plan, checkpoint=job.model.download())
    if plan.checkpoint is not None and job.model.sha256:
        plan.checkpoint.check_sha256(job.model.sha256)
    show.plan(job, plan)
    job = job.settled(plan.checkpoint)
    store = Store(uri_of(job.tracking.uri, home()), home())
    code = provenance.git(repository())
    params = archive.params(job)
    tags = {**archive.tags(job, plan, code), **(tags or {})}
    earlier = plans.earlier(store, params, tags)
    for text in earlier.said:
        show.line("earlier", text, style="bold yellow")
    with store.start(job.tracking.experiment, name or job.name, params, {**tags, **earlier.tags}) as record:
        show.run_id = record.run_id
        files = folder / "artifacts"
        archive.write_config(files, job, code)
        record.upload(files)
        with going_on(kept):
            result = earlier.beside(measure(job, plan, show, kept))
        peak = provenance.peak_memory()  # before figures and the store add theirs
        seconds = {**(result.usage.seconds if result.usage else {}), "total": time.perf_counter() - began}
        archive.write_result(files, result, vectors=job.tracking.vectors)
        try:
            record.log(archive.metrics(result, seconds, peak), tags=archive.verdict_tags(result))
            logged = store.find(record.run_id)
            archive.write_page(files, logged, store.original(logged))
            record.upload(files)
        except StoreError as e:
            raise StoreError([*e.problems, f"Nothing is lost: the results are in {files}"], e.next_step) from e
    shutil.rmtree(files, ignore_errors=True)
    show.result(result)
    show.recorded(record, store, store.artifacts_of(logged), job.tracking.uri)
    return Finished(record.run_id, record.experiment_id, record.name, result)


def measure(job: Job, plan: Plan, show: Report, kept: Kept | None = None) -> Result:
    """The rooms in order; nothing is written but vectors to `kept`."""
    pairs = plan.pairs
    texts = tokens = findings = left = vectors = usage = None
    if job.method.uses_model:
        checkpoint: Any = plan.checkpoint
        tokenizer = checkpoint.tokenizer()
        limit = preflight.limit(job, checkpoint, tokenizer)
        texts = job.template.write(pairs)
        tokens = tokenise(tokenizer, texts)
        findings = left = examine(tokens, *limit)  # of all pairs, and of those that are left
        excluded, alike = findings.excluded(job.tokens), findings.alike(job.tokens)
        if excluded or alike:
            pairs = leave_out(pairs, texts, excluded, alike)
            if lacking := sizes_problems(pairs):
                gone = len(plan.pairs.pairs) - len(pairs.pairs)
                raise StatisticsError([f"after leaving out {gone} pairs:", *lacking])
            texts = job.template.write(pairs)
            tokens = tokenise(tokenizer, texts)
            left = examine(tokens, *limit)
        show.tokens(plan.pairs, pairs, tokens, findings, job.tokens)
        several = ways(job.multiverse, job.template, job.method, tokens, pairs, tokenizer, job.tokens, *limit)
        if job.multiverse.asked:
            show.line("multiverse", several.told(pairs))
        with show.progress(job.method.name) as progress:
            found, usage = job.method.several(
                checkpoint, several.tokens, several.poolings, plan.execution, progress, kept
            )
        vectors = several.vectors(found)
        if plan.estimate is not None and usage.rounding is None:  # all vectors were kept: what was rounded is known
            usage = replace(usage, rounding=plan.estimate.rounding)
        similarities = [s.measure(vectors, texts) for s in job.similarities]
    else:
        similarities = [job.method.similarities(pairs)]

    pairs = replace(pairs, balance=covariates.balance(pairs, tokens))
    tests = job.statistics.tests(similarities, pairs)
    primary = job.experiment.primary
    control = primary.control or pairs.controls[0]
    chosen = tests[primary.similarity, control]
    said = verdict(chosen, pairs, primary.depth, primary.side)
    asked = job.statistics, job.method, job.similarities
    evidence, matrix = questions(*asked, pairs, texts, tokens, vectors, similarities, said)
    if job.multiverse.asked:
        judged = several.judge(found, job.similarities, job.statistics, control, primary)
        evidence = replace(evidence, multiverse=judged)
    first = against(evidence, tests, said, chosen.alpha)  # what may overturn the verdict
    meant = job.template.beware(pairs, control) if texts is not None else ()
    said = beside.settled(said, evidence, chosen.at(said.depth), meant)
    last = beside.of_the_design(pairs, similarities) + (left.beware if left else ())
    return Result(
        texts, tokens, findings, vectors, usage, pairs,
        similarities={s.name: s for s in similarities}, tests=tests,
        verdict=replace(said, beware=first + said.beware + last),
        evidence=evidence,
        matrix=matrix,
    )  # fmt: skip
