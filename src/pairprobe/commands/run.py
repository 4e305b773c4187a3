"""python run.py [-m] [group=choice] [key=value]: one run, or a sweep of them.

Every job of a sweep is composed, validated and checked before the first one starts.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig

from pairprobe.commands import compose
from pairprobe.config import Job, build, check_names, conf, pairs_of
from pairprobe.errors import ConfigError, PairprobeError, PairsError, StoreError, unexpected
from pairprobe.report import Report, for_errors
from pairprobe.stores import without_password

SHOWING = ("help", "hydra_help", "cfg", "info", "shell_completion")
ONE_OF = ("run", "multirun", "cfg", "info", "shell_completion")  # Hydra does one of these
IN_NAME = ("model=", "method=", "pairs=")  # what a run's plain name says already
OURS = {  # Hydra's flags that this program does not follow, and what it has in their place
    "config_name": "The configuration is conf/config.yaml; what you set beside it can be an experiment of yours.",
    "config_path": "Groups of yours are added to conf/ with --config-dir FOLDER.",
    "experimental_rerun": "A recorded run is repeated with python run.py reproduce RUN_ID",
}


@dataclass
class Done:
    """What has become of the jobs. names: plain names of all that could be foreseen; finished: each run and what of
    its settings was swept, as `method=static template=bare`; jobs: each run beside its job; failed: of each job that
    ended in an error the id of its run, None where it had not begun, so that the store has none."""

    overrides: list[str]
    names: list[str] = field(default_factory=list)
    finished: list[tuple[Any, str]] = field(default_factory=list)
    jobs: list[tuple[Job, Any]] = field(default_factory=list)
    failed: list[str | None] = field(default_factory=list)
    sweep_id: str = ""

    def name(self, plain: str, swept: str, other_template: str = "") -> str:
        """A run's name: with what was swept where other runs would be called the same, and with the template's name
        where it is not the usual one and was not swept."""
        alone = self.names.count(plain) == 1 < len(self.names)
        said = [text for text in compose.OVERRIDE.split(swept) if text and not text.startswith(IN_NAME)]
        told = not alone and any(text.startswith("template=") for text in said)
        named = f"{plain}-{other_template}" if other_template and not told else plain
        return named if alone or not said else f"{named} · {' '.join(said)}"


def main(words: list[str]) -> int:
    """Exit code: 0 all done, 1 a run failed after it began, 2 nothing was started."""
    args = _parsed(words)
    showing = any(getattr(args, name) for name in SHOWING)
    done = Done(args.overrides)
    if not (showing and not args.cfg):
        configs = compose.jobs(args.overrides, args.multirun)
        if not showing:
            _read_pairs(configs)
        jobs = _build_all(configs)
        done.names += [job.name for job in jobs]
        if not showing:
            _preflight_all(jobs)
    _hand_to_hydra(_for_hydra(args), done)
    if len(done.finished) + len(done.failed) > 1:
        uri = next((job.tracking.uri for job, _ in done.jobs if job.tracking.uri), None)
        Report().sweep(done.finished, done.failed, done.sweep_id, uri)
        _compare_precisions(done.jobs)
        if len(done.finished) > 1:
            job, run = done.jobs[0]
            _page_of_sweep(run.run_id, job.tracking.uri)
    return 1 if done.failed else 0


def _compare_precisions(finished: list[tuple[Job, Any]]) -> None:
    """What rounded weights changed, where this sweep varied them."""
    import tempfile

    from pairprobe.commands import precision

    with tempfile.TemporaryDirectory() as folder:
        precision.after(finished, Report(), Path(folder))


def _parsed(words: list[str]) -> Any:
    """Hydra's own arguments; flags and overrides in any order. --config-dir becomes an override.

    Raises:
        ConfigError: a flag that is unknown, that does not go with another, or that this program does not follow.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = _refuse
    args = parser.parse_intermixed_args(words)
    for name, instead in OURS.items():
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is not followed here.", instead)
    given = [f"--{name.replace('_', '-')}" for name in ONE_OF if getattr(args, name)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} do not go together.", "Give one of them.")
    for name in ("resolve", "package"):
        if getattr(args, name) and not args.cfg and not (name == "resolve" and args.help):
            raise ConfigError(
                f"--{name} says how a configuration is shown, and none is.",
                f"Show it: python run.py --cfg job --{name}{' GROUP' * (name == 'package')}",
            )
    if args.config_dir is not None:
        args.overrides.append(_searched(Path(args.config_dir).expanduser().absolute(), args.overrides))
    return args


def _searched(folder: Path, overrides: list[str]) -> str:
    """The override that adds a folder of configuration groups."""
    if not folder.is_dir():
        raise ConfigError(
            f"--config-dir is {folder}, which is no folder.", "Give a folder that holds groups as conf/ does."
        )
    if any(o.lstrip("+").startswith("hydra.searchpath=") for o in overrides):
        raise ConfigError("--config-dir and hydra.searchpath both add folders.", "Name all in hydra.searchpath=[…].")
    quoted = str(folder).replace("'", "\\'")
    return f"hydra.searchpath=['file://{quoted}']"


def _for_hydra(args: Any) -> list[str]:
    """The same as words, flags first, as Hydra wants them."""
    words: list[str] = []
    for name in ("help", "hydra_help", "run", "multirun", "resolve", "shell_completion", "cfg", "package", "info"):
        value = getattr(args, name)
        if value:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
    return [*words, *args.overrides]


def _build_all(configs: list[DictConfig]) -> list[Job]:
    jobs: list[Job] = []
    problems: dict[str, None] = {}
    step = ""
    for config in configs:
        try:
            jobs.append(build(config))
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
            step = error.next_step
    if problems:
        raise ConfigError(list(problems), step)
    check_names(jobs)
    return jobs


def _read_pairs(configs: list[DictConfig]) -> None:
    """Refuse faulty pairs at once: `build` imports torch and transformers, which takes seconds, and needs no pairs."""
    found: dict[tuple[str, ...], PairprobeError] = {}
    for source in {repr(config.get("pairs")): config for config in configs}.values():
        try:
            pairs_of(source).read()
        except PairsError as error:
            found.setdefault(error.problems, error)
        except ConfigError:  # of the settings: told with all others
            continue
    if found:
        _nothing_started(found.values())


def _preflight_all(jobs: list[Job]) -> None:
    """Check every job; raise one error that lists each distinct problem once."""
    from pairprobe import disk, preflight, tracking
    from pairprobe.config import home

    found: dict[tuple[str, ...], PairprobeError] = {}
    for job in jobs:
        _, problems = preflight.check(job)
        for problem in problems:
            found.setdefault(problem.error.problems, problem.error)
    for uri in dict.fromkeys(tracking.uri_of(j.tracking.uri, home()) for j in jobs):
        for store_error in tracking.Store(uri, home()).problems():
            found.setdefault(store_error.problems, store_error)
    folder = home() / "mlruns"  # Hydra's job folders lie there, whatever the store
    reason = disk.unwritable(folder)
    if reason and not any(str(folder) in p for problems in found for p in problems):
        unwritable = StoreError(
            f"{folder} cannot be written ({reason}).", "Keep job folders elsewhere: PAIRPROBE_HOME=/path"
        )
        found[unwritable.problems] = unwritable
    if found:
        _nothing_started(found.values())


def _nothing_started(errors: Iterable[PairprobeError]) -> NoReturn:
    show = for_errors()
    for i, error in enumerate(errors):
        show.error(error, "preflight" if i == 0 else "")
    show.line("", "(nothing was started)", always=True)
    raise SystemExit(2)


def _hand_to_hydra(words: list[str], done: Done) -> None:
    """Let Hydra run the task: job folders, sweepers and launchers are its own."""
    import hydra

    compose.register()

    def task(config: DictConfig) -> str | None:
        return _task(config, done)

    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, who say them in our way
    sys.argv = [sys.argv[0], *words]
    try:
        hydra.main(version_base="1.3", config_path=str(conf()), config_name=compose.CONFIG_NAME)(task)()
    finally:
        sys.argv = before[0]
        if before[1] is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def _task(config: DictConfig, done: Done) -> str | None:
    """One job. A failure is told and counted, so that the other jobs of a sweep still run."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from pairprobe import runner

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    found = [o for o in hydra_config.overrides.hydra if o.startswith("hydra.searchpath=")]
    overrides = [*found, *hydra_config.overrides.task]
    tags: dict[str, Any] = {"overrides": without_password(shlex.join(overrides))}
    swept = ""
    if hydra_config.mode == RunMode.MULTIRUN:
        swept = compose.swept(done.overrides, hydra_config)
        done.sweep_id = Path(hydra_config.sweep.dir).name
        tags |= {"sweep_id": done.sweep_id, **({"swept": swept} if swept else {})}
        if hydra_config.job.num:
            Report().plain("")
    show = Report()
    try:
        job = build(config)
        run = runner.run(job, show, folder, tags, name=done.name(job.name, swept, job.other_template))
        done.finished.append((run, swept))
        done.jobs.append((job, run))
        return run.run_id
    except PairprobeError as error:
        for_errors().error(error)
    except Exception as error:
        report = folder / "traceback.txt"
        report.write_text(traceback.format_exc(), encoding="utf-8")
        for_errors().error(unexpected(error, report))
    done.failed.append(show.run_id)
    return None


def _page_of_sweep(run_id: str, uri: str | None) -> None:
    """report.html of the sweep that this run is of, beside its job folders, where its runs are in one store.

    uri: tracking.uri of that run.
    """
    from pairprobe.commands import report
    from pairprobe.report import shortened

    try:
        file = report.of_sweep(run_id, uri)
    except PairprobeError as error:  # the runs themselves are recorded
        for_errors().error(error, "report")
        return
    Report().line("report", shortened(file), always=True)


def _refuse(message: str) -> None:
    raise ConfigError(message[0].upper() + message[1:] + ".", "python run.py --help shows what is understood.")
