"""python run.py doctor [overrides]: every problem of this environment and configuration that can be seen at once, and
what could not be looked at because of them.

Nothing is loaded, nothing is written, and nothing is ever silently replaced by something else.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from pairprobe import disk, preflight
from pairprobe.commands import compose
from pairprobe.config import Job, build, home
from pairprobe.errors import ConfigError, PairprobeError
from pairprobe.preflight import gigabytes
from pairprobe.report import Report
from pairprobe.stores import without_password
from pairprobe.tokens import counted
from pairprobe.tracking import Store, uri_of

GOOD, BAD, UNSEEN = "✓", "✗", "–"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. problem: whether it keeps a run from working; unseen: whether it was not looked at."""

    topic: str
    text: str
    problem: bool = False
    unseen: bool = False


@dataclass(frozen=True)
class BadCombination:
    """Versions known to misbehave together. when: specifiers by package, all of which must hold."""

    when: dict[str, str]
    why: str


#: What cost somebody a day. A row is added when a version is seen to misbehave, with what was seen.
KNOWN_BAD = (
    BadCombination(
        {"transformers": ">=4.57,<5", "compressed-tensors": ">=0.13"},
        "decompress INT8 models in memory at the first forward pass (3–4 × the checkpoint). pairprobe's own reader is "
        "not affected; running such a checkpoint whole through transformers is.",
    ),
    BadCombination(
        {"transformers": ">=5,<6", "compressed-tensors": ">=0.13"},
        "decompress INT8 models in memory at the first forward pass (2.2 × the checkpoint was measured). pairprobe's "
        "own reader is not affected; running such a checkpoint whole through transformers is.",
    ),
    BadCombination(
        {"transformers": ">=4.52", "autoawq": ">=0"},
        "do not import together: autoawq is unmaintained and needs transformers 4.51.3. pip uninstall autoawq; "
        "pairprobe does not use it.",
    ),
    BadCombination({"mlflow": "==3.18.0"}, "lacks parts of its own. pip install 'mlflow!=3.18.0'"),
    BadCombination(
        {"hydra-core": "<1.4", "omegaconf": ">=2.4.0.dev0"},
        "is refused by hydra-core 1.3. pip install 'omegaconf<2.4'",
    ),
)


def main(words: list[str]) -> int:
    """Exit code: 0 all well, 1 problems were found, 2 the configuration itself cannot be read."""
    if any(w in ("-h", "--help") for w in words):
        print("python run.py doctor [group=choice] [key=value]   lists every problem at once; loads nothing")
        return 0
    flags = [w for w in words if w.startswith("-")]
    if flags:
        raise ConfigError(f"doctor does not know {', '.join(flags)}.", "It takes a run's words: group=choice key=value")
    job, findings = None, []
    try:
        job = build(compose.jobs(words, multirun=False)[0])
    except PairprobeError as error:
        findings += [Finding("config", line, problem=True) for line in error.problems]
    findings += [f for check in CHECKS for f in check(job)]
    show = Report(quiet=False)
    for finding in findings:
        mark, style = (BAD, "bold red") if finding.problem else (GOOD, "bold green")
        if finding.unseen:
            mark, style = UNSEEN, "bold yellow"
        show.line(f"{mark} {finding.topic}", finding.text, style=style)
    count = sum(f.problem for f in findings)
    show.line("", "no problems" if count == 0 else f"{count} problem{'s' * (count > 1)}")
    return 1 if count else 0


def _python(_job: Job | None) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", version)


def _requirements(_job: Job | None) -> Iterator[Finding]:
    """Does what is installed satisfy the package's own bounds?"""
    good = []
    for line in importlib.metadata.requires("pairprobe") or []:
        wish = Requirement(line)
        if wish.marker is not None and not wish.marker.evaluate({"extra": ""}):
            continue
        found = _installed(wish.name)
        if found is None:
            yield Finding("packages", f"{wish.name} is not installed. pip install '{wish}'", problem=True)
        elif not wish.specifier.contains(found, prereleases=True):
            yield Finding(
                "packages",
                f"{wish.name} {found} is outside {wish.specifier}. pip install '{wish}'",
                problem=True,
            )
        else:
            good.append(wish.name)
    names = ("torch", "transformers", "mlflow")
    yield Finding(
        "packages",
        f"{len(good)} within bounds: " + ", ".join(f"{n} {_installed(n)}" for n in names if n in good) + ", …",
    )


def known_bad(job: Job | None, installed: Callable[[str], str | None]) -> Iterator[Finding]:
    """Combinations of versions that are known to misbehave.

    Those that only bite quantised checkpoints are problems when the configured checkpoint is one.
    """
    for bad in KNOWN_BAD:
        found = {name: installed(name) for name in bad.when}
        if any(v is None or not _matches(v, bad.when[name]) for name, v in found.items()):
            continue
        names = " with ".join(f"{name} {version}" for name, version in found.items())
        only_quantised = "compressed-tensors" in bad.when
        bites = not only_quantised or (job is not None and _quantised(job))
        yield Finding("versions", f"{names}: {bad.why}", problem=bites)


def _versions(job: Job | None) -> Iterator[Finding]:
    found = list(known_bad(job, _installed))
    yield from found
    if not found:
        yield Finding("versions", "no combination that is known to misbehave here")


def _quantised(job: Job) -> bool:
    """Whether the configured checkpoint is stored in integers; by its hub name where it is not on this machine."""
    try:
        return job.model.locate().quantisation == "compressed-tensors"
    except PairprobeError:
        name = (job.model.hub or job.model.name).lower()
        return any(mark in name for mark in ("int8", "w8a8", "w4a16", "quantized"))


def _run(job: Job | None) -> Iterator[Finding]:
    """The same checks a run makes before it starts."""
    if job is None:
        yield _unseen(["pairs", "template", "model", "device", "memory"], [])
        return
    plan, problems = preflight.check(job)
    for problem in problems:
        step = f" {problem.error.next_step}" if problem.error.next_step else ""
        yield Finding(problem.topic, "\n".join(problem.error.problems) + step, problem=True)
    if plan is None:
        yield from _hidden(job, {problem.topic for problem in problems})
        return
    yield Finding("pairs", f"{plan.pairs.name}: {preflight.sizes(plan.pairs)}")
    if plan.checkpoint is not None:
        about = plan.checkpoint.storage
        yield Finding(
            "model",
            f"{job.model.name}: {plan.checkpoint.where} · {gigabytes(plan.checkpoint.nbytes)} as {about.summary}"
            + (f" · {about.caution}" if about.caution else ""),
        )
    if job.method.computes:
        assert plan.estimate is not None
        yield Finding("device", plan.estimate.device + (f" · {plan.remark}" if plan.remark else ""))
        gpu = f" and {gigabytes(plan.estimate.gpu)} on {plan.estimate.device}" if plan.estimate.gpu else ""
        yield Finding("memory", f"{plan.estimate.execution}: needs about {gigabytes(plan.estimate.host)}{gpu}")


def _hidden(job: Job, wrong: set[str]) -> Iterator[Finding]:
    """What `preflight.check` does not come to where something is wrong with these topics."""
    model = ["template", "model"] if job.method.uses_model else []
    looked_at = ["pairs", *model, *(["device"] if job.method.computes else [])]
    unseen = ["template"] if model and "pairs" in wrong else []
    if job.method.computes and "memory" not in wrong:
        unseen.append("memory")
    if unseen:
        yield _unseen(unseen, [topic for topic in looked_at if topic not in wrong and topic not in unseen])


def _unseen(topics: list[str], well: list[str]) -> Finding:
    so_far = f" Nothing is wrong so far with: {', '.join(well)}." if well else ""
    return Finding("not seen", f"{', '.join(topics)}, because of what is wrong above.{so_far}", unseen=True)


def _store(job: Job | None) -> Iterator[Finding]:
    import shutil

    store = Store(uri_of(job.tracking.uri if job else None, home()), home())
    problems = store.problems()
    for error in problems:
        yield Finding("store", " ".join([*error.problems, error.next_step]).strip(), problem=True)
    if problems:
        return
    if store.database is None:
        yield Finding("store", f"{without_password(store.uri)} answers")
        return
    if not store.database.exists():
        yield Finding("store", f"{without_password(store.uri)} will be made by the first run")
    else:
        try:
            yield Finding("store", f"{without_password(store.uri)} writable, {counted(store.count_runs(), 'run')}")
        except PairprobeError as error:
            yield Finding("store", " ".join([*error.problems, error.next_step]).strip(), problem=True)
    yield Finding("disk", f"{gigabytes(shutil.disk_usage(disk.existing(store.artifacts)).free)} free")


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _matches(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


CHECKS: tuple[Callable[[Job | None], Iterator[Finding]], ...] = (
    _python,
    _requirements,
    _versions,
    _run,
    _store,
)
