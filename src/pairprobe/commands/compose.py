"""Overrides → composed configurations, one for each job of a sweep; and what is wrong with an override.

The only file that knows how Hydra composes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pairprobe.config import KEYS, conf, home
from pairprobe.errors import ConfigError, nearest
from pairprobe.report import program

CONFIG_NAME = "config"
#: Between the overrides that `swept` gives; their values may hold spaces.
OVERRIDE = re.compile(r" (?=[\w.@/]+=)")
LONGEST = 40  # of a swept value, in names and tags


def register() -> None:
    """Make ${pairprobe_home:} known, where job folders lie, and ${pairprobe_program:}, how this was called."""
    OmegaConf.register_new_resolver("pairprobe_program", program, replace=True)
    OmegaConf.register_new_resolver("pairprobe_home", lambda: str(home()), replace=True)


@contextmanager
def composer() -> Iterator[Any]:
    """Yields compose(overrides, return_hydra_config=False) on conf/."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf()), version_base="1.3"):

        def of(overrides: list[str], return_hydra_config: bool = False) -> DictConfig:
            composed: DictConfig = compose(CONFIG_NAME, overrides, return_hydra_config)
            return composed

        yield of


def jobs(overrides: list[str], multirun: bool) -> list[DictConfig]:
    """The configuration of every job these words ask for.

    Raises:
        ConfigError: an override that cannot be read, or that names what is not there.
    """
    from hydra.errors import HydraException

    with composer() as compose:
        try:
            single, axes, rest = _split(overrides)
            full = compose([*single, *(axis[0] for axis in axes)], return_hydra_config=True)
            if multirun or str(full.hydra.mode).endswith("MULTIRUN"):
                given = {o.split("=", 1)[0].lstrip("+~") for o in overrides}
                params = full.hydra.sweeper.get("params") or {}
                extra, more, others = _split([f"{k}={v}" for k, v in params.items() if k not in given])
                single, axes, rest = [*single, *extra], [*axes, *more], [*rest, *others]
                intervals = [text for text in rest if "interval(" in text]
                if intervals and str(full.hydra.sweeper._target_).endswith("BasicSweeper"):
                    raise ConfigError(
                        f"'{intervals[0]}' is an interval, of which Hydra's basic sweeper cannot choose values.",
                        "Name them: KEY=3,5,8 or KEY=range(3,9)",
                    )
            elif axes or rest:
                raise ConfigError(
                    f"'{_as_given(overrides, axes[0]) if axes else rest[0]}' names several values, which is a sweep.",
                    "Say so with -m: python run.py -m …",
                )
            return [compose([*single, *choice]) for choice in itertools.product(*axes)]
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # Hydra's own checks raise all three
            raise ConfigError(*_explain(compose, overrides, error)) from error


def _split(overrides: list[str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Plain overrides; for each swept one its alternatives as plain overrides; and those that only a sweeper can
    expand: globs and intervals, each of whose jobs is checked when it starts."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    single: list[str] = []
    axes: list[list[str]] = []
    rest: list[str] = []
    for text, parsed in zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True):
        if not parsed.is_sweep_override():
            single.append(text)
        elif parsed.is_discrete_sweep() and not _is_glob(parsed):
            key = parsed.get_key_element()
            axes.append([f"{key}={value}" for value in parsed.sweep_string_iterator()])
        else:
            rest.append(text)
    return single, axes, rest


def swept(overrides: list[str], hydra_config: Any) -> str:
    """What a job of a sweep has that others have not, as `method=static template=bare`: of its overrides those that
    were given several values, on the command line or by the sweeper's own params."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = hydra_config.sweeper.get("params") or {}
    given = [*overrides, *(f"{k}={v}" for k, v in params.items())]
    keys = {o.get_key_element() for o in OverridesParser.create().parse_overrides(given) if o.is_sweep_override()}
    return " ".join(_brief(text) for text in hydra_config.overrides.task if text.split("=", 1)[0] in keys)


def _brief(text: str) -> str:
    """An override without +, its value's end where it is long, as of a path."""
    key, _, value = text.lstrip("+").partition("=")
    return f"{key}={value if len(value) <= LONGEST else '…' + value[1 - LONGEST :]}"


def _is_glob(parsed: Any) -> bool:
    from hydra.core.override_parser.types import Glob

    return isinstance(parsed.value(), Glob)


def _as_given(overrides: list[str], axis: list[str]) -> str:
    key = axis[0].split("=", 1)[0]
    return next((o for o in overrides if o.split("=", 1)[0] == key), key)


def groups(*added: Path) -> dict[str, list[str]]:
    """Choices by group, as conf/ and the folders added to it have them."""
    folders = [f for top in (conf(), *added) if top.is_dir() for f in sorted(top.iterdir()) if f.is_dir()]
    return {
        name: sorted({file.stem for f in folders if f.name == name for file in f.glob("*.yaml")})
        for name in dict.fromkeys(f.name for f in folders)
        if name != "hydra"
    }


def _added(parsed: Any) -> list[Path]:
    """The folders that an override of hydra.searchpath adds."""
    value = parsed.value() if parsed.key_or_group == "hydra.searchpath" else []
    texts = [str(v.text if hasattr(v, "text") else v) for v in (value if isinstance(value, list) else [])]
    return [Path(t.removeprefix("file://")) for t in texts if t.startswith("file://")]


def _explain(compose: Any, overrides: list[str], error: Exception) -> tuple[list[str], str]:
    """Every override that names what is not there, with the nearest that is; else Hydra's own words."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    problems: list[str] = []
    good: list[str] = []
    left: list[str] = []
    readable: list[tuple[str, Any]] = []
    for text in overrides:
        try:
            parsed = OverridesParser.create().parse_override(text)
        except HydraException as unreadable:
            key, _, value = text.partition("=")
            hint = f" Quote it twice: '{key}=\"{value}\"'" if set("{,:()[] ") & set(value) and '"' not in value else ""
            problems.append(f"'{text}' cannot be read: {str(unreadable).splitlines()[0]}.{hint}")
            continue
        readable.append((text, parsed))
    known = groups(*(folder for _, parsed in readable for folder in _added(parsed)))
    for text, parsed in readable:
        key = parsed.key_or_group
        if key.startswith("hydra"):
            good.append(text)
        elif key in known and not parsed.is_delete():
            if parsed.value() is None and key != "experiment":
                problems.append(f"{text}: a {key} is needed. Choices: {', '.join(known[key])}.")
            chosen = _choices_of(parsed)
            wrong = [c for c in chosen if c not in known[key]]
            problems += [
                f"{key}={choice}: there is no such {key}.{nearest(choice, known[key])} "
                f"Choices: {', '.join(known[key])}."
                for choice in wrong
            ]
            if not wrong and not parsed.is_sweep_override():
                good.append(text)
        elif key.split(".")[0].split("@")[0] not in KEYS:
            problems.append(f"There is no '{key}'.{nearest(key, KEYS)} Groups and keys: {', '.join(KEYS)}.")
        else:
            left.append(key)
    if left:
        try:
            base = compose(good)
        except (HydraException, OmegaConfBaseException):
            base = None
        problems += [p for key in left if (p := _unknown_key(base, key, known))]
    if not problems:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        problems = [str(cause).strip().splitlines()[0]]
    return problems, "Nothing was started. python run.py --help lists the groups and their choices."


def _choices_of(parsed: Any) -> list[str]:
    if parsed.is_sweep_override():
        return (
            [] if _is_glob(parsed) else [str(v) for v in parsed.sweep_string_iterator() if not str(v).startswith("[")]
        )
    value = parsed.value()
    chosen = value if isinstance(value, list) else [value]
    return [str(c) for c in chosen if c is not None]


def _unknown_key(base: DictConfig | None, key: str, known: dict[str, list[str]]) -> str | None:
    if base is None:
        return None
    node: Any = base
    path = key.split(".")
    for i, part in enumerate(path):
        if not isinstance(node, DictConfig) or part not in list(node.keys()):
            here = ".".join(path[:i])
            choices = [str(k) for k in node if k != "_target_"] if isinstance(node, DictConfig) else []
            group = path[0]
            having = [c for c in known.get(group, []) if _yaml_has(group, c, part)] if i == 1 else []
            hint = f" {group}={' or '.join(having)} has it." if having else nearest(part, choices)
            return f"there is no '{key}'.{hint} {here} has: {', '.join(choices) or 'no keys'}."
        node = node._get_node(part) if OmegaConf.is_missing(node, part) else node[part]
    return None


def _yaml_has(group: str, choice: str, key: str) -> bool:
    lines = Path(conf() / group / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()
    return any(line.startswith(f"{key}:") for line in lines)
