"""Composed configuration → validated, plain values → the objects of the rooms.

Every group's `_target_` names a dataclass; its fields and their types are the schema, so a new method or
source needs no edit here. All problems are found before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pairprobe.checkpoints.model import Model
from pairprobe.errors import ConfigError, PairprobeError, nearest, one_of
from pairprobe.methods.pooling import Pooling
from pairprobe.multiverse import Alternatives
from pairprobe.outcomes import SIDES
from pairprobe.tokens import TokenRules


@dataclass(frozen=True)
class Primary:
    """The one outcome that the verdict is about. depth: negative counts from the last. control: null takes
    the first control group of the pair set. side: both | closer | farther: which difference was expected, so that
    the test is two-sided or on that side alone."""

    similarity: str = "cosine"
    depth: int = -1
    control: str | None = None
    side: str = "both"

    def __post_init__(self) -> None:
        one_of("experiment.primary.side", self.side, SIDES)


@dataclass(frozen=True)
class Experiment:
    """What is asked. name: of the preset, null for none."""

    name: str | None = None
    question: str = ""
    primary: Primary = field(default_factory=Primary)


@dataclass(frozen=True)
class Tracking:
    """Where runs are kept. uri: null takes MLFLOW_TRACKING_URI, else mlflow.db beside mlruns/.

    experiment: MLflow's experiment. vectors: whether the vectors themselves are logged.
    """

    uri: str | None = None
    experiment: str = "pairprobe"
    vectors: bool = True

    def __post_init__(self) -> None:
        if not self.experiment.strip():
            raise ConfigError("tracking.experiment is empty; give a name.")


#: Groups whose class is known; the others are found through `_target_`.
FIXED: dict[str, type] = {
    "experiment": Experiment,
    "tokens": TokenRules,
    "multiverse": Alternatives,
    "tracking": Tracking,
    "model": Model,
}
ROOMS = ("method", "pairs", "template", "execution", "statistics")
SIMILARITY = "similarity"
KEYS = (*FIXED, *ROOMS, SIMILARITY)
USUAL_TEMPLATE = "gloss"  # conf/config.yaml's; names of runs tell of others
TEMPLATE = "pairprobe.texts.Template"  # of a multiverse's template that names no other
#: What a setting of a type may be, where its room says no more: the room's own ranges are checked once it is one.
KINDS: dict[Any, str] = {float: "a number", int: "a whole number", bool: "true or false"}
#: Keys that may hold a path; relative ones are made absolute, so that a logged config works from anywhere.
PATHS = (
    ("model", "source"), ("model", "tokenizer"), ("pairs", "path"), ("pairs", "path_b"), ("pairs", "reference"),
    ("pairs", "tokenizer"), ("method", "path"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Job:
    """One run's rooms, built but idle, and the configuration they came from."""

    experiment: Experiment
    model: Model
    method: Any
    pairs: Any
    template: Any
    execution: Any
    similarities: tuple[Any, ...]
    statistics: Any
    tokens: TokenRules
    multiverse: Alternatives
    tracking: Tracking
    config: dict[str, Any]

    @property
    def model_name(self) -> str:
        """The model whose numbers these are: a recorded table names its own."""
        return self.model.name if self.method.uses_model else str(self.method.model)

    @property
    def pairs_name(self) -> str:
        return str(self.pairs.name or Path(str(getattr(self.pairs, "path", "pairs"))).stem)

    @property
    def name(self) -> str:
        """Readable run name, as minilm-layerwise-pie_oc."""
        return f"{self.model_name}-{self.method.name}-{self.pairs_name}"

    @property
    def other_template(self) -> str:
        """The template's name where it is another than the usual one; '' where no words are put into one."""
        used = self.template.name if self.method.uses_model else USUAL_TEMPLATE
        return "" if used == USUAL_TEMPLATE else str(used)

    def settled(self, checkpoint: Any | None) -> Job:
        """The job with its model's place settled, see `Model.settled`: what is recorded."""
        if checkpoint is None:
            return self
        model = self.model.settled(checkpoint)
        places = {key: getattr(model, key) for key in ("hub", "revision", "file", "package", "folder")}
        return dataclasses.replace(
            self, model=model, config={**self.config, "model": {**self.config["model"], **places}}
        )


def build(config: DictConfig | Mapping[str, Any]) -> Job:
    """Validate and build.

    Raises:
        ConfigError: listing every unknown key, wrong type and value that is not allowed.
    """
    plain = {"multiverse": {}, **_plain(config)}  # configurations logged by older versions have none
    problems: list[str] = []
    parts: dict[str, Any] = {}
    resolved: dict[str, Any] = {}
    for key in plain:
        if key not in KEYS:
            problems.append(f"there is no '{key}'.{nearest(str(key), KEYS)} Keys: {', '.join(KEYS)}.")
    for key in KEYS:
        if key not in plain:
            problems.append(f"'{key}' is missing.")
        elif key == SIMILARITY:
            nodes = plain[key] if isinstance(plain[key], dict) else {}
            if not nodes:
                problems.append("no similarity is chosen; for example similarity=[cosine,centred].")
            built = {name: _part(f"{key}.{name}", node, None, problems) for name, node in nodes.items()}
            parts[key] = tuple(part for part, _ in built.values())
            resolved[key] = {name: values for name, (_, values) in built.items()}
        else:
            parts[key], resolved[key] = _part(key, plain[key], FIXED.get(key), problems)
    if not problems:
        try:
            names = [s.name for s in parts[SIMILARITY]]
            for key, name in zip(plain[SIMILARITY], names, strict=True):
                one_of(f"{SIMILARITY}.{key}.name", name, [key])  # two of one name would overwrite each other
            measured = names if parts["method"].uses_model else [parts["method"].similarity]
            _check_measured(parts["experiment"].primary.similarity, measured, parts["method"].uses_model)
            parts["multiverse"], resolved["multiverse"] = _alternatives(parts, problems)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems, "Nothing was started. python run.py --help lists the groups and their choices.")
    return Job(
        experiment=parts["experiment"],
        model=parts["model"],
        method=parts["method"],
        pairs=parts["pairs"],
        template=parts["template"],
        execution=parts["execution"],
        similarities=parts[SIMILARITY],
        statistics=parts["statistics"],
        tokens=parts["tokens"],
        multiverse=parts["multiverse"],
        tracking=parts["tracking"],
        config=resolved,
    )


def _check_measured(primary: str, measured: list[str], chosen: bool) -> None:
    """Raises ConfigError unless the primary similarity is one of those measured. chosen: they are `similarity=[…]`."""
    if chosen and primary not in measured and (conf() / SIMILARITY / f"{primary}.yaml").is_file():
        raise ConfigError(
            f"experiment.primary.similarity is '{primary}', which this run does not measure; allowed: "
            f"{', '.join(measured)}. Add it: 'similarity=[{','.join([*measured, primary])}]'"
        )
    one_of("experiment.primary.similarity", primary, measured)


def check_names(jobs: Iterable[Job]) -> None:
    """Raises ConfigError where jobs of one sweep would record the same weights under several names."""
    names: dict[str, dict[str, None]] = {}
    for job in jobs:
        if job.method.uses_model:
            names.setdefault(job.model.place, {})[job.model.name] = None
    for place, found in names.items():
        if len(found) > 1:
            raise ConfigError(
                f"one model would be recorded under {len(found)} names: {place} holds for {', '.join(found)} alike.",
                "Nothing was started. Folders of yours: -m model=local model.source=/models/a,/models/b   One beside a "
                "named model needs a YAML of its own: README, Your model.",
            )


def pairs_of(config: DictConfig) -> Any:
    """Where the pairs come from, of a configuration whose other parts are not looked at. Raises ConfigError."""
    problems: list[str] = []
    source, _ = _part("pairs", _plain(config).get("pairs"), None, problems)
    if problems:
        raise ConfigError(problems)
    return source


def schema_of(key: str, node: Mapping[str, Any]) -> type:
    """The dataclass that a group's `_target_` names. Raises ConfigError where it names none."""
    target = str(node.get("_target_") or "")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_ is '{target}', which cannot be imported ({error}).") from None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ConfigError(f"{key}._target_ is '{target}'; it must name a dataclass, as package.module.Class.")
    return found


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of a nested configuration, in order."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _part(key: str, node: Any, known: type | None, problems: list[str]) -> tuple[Any, dict[str, Any]]:
    if not isinstance(node, dict):
        problems.append(f"'{key}' is {node!r}; it must be a group of settings, chosen with {key}=NAME.")
        return None, {}
    try:
        cls = known or schema_of(key, node)
    except ConfigError as error:
        problems += error.problems
        return None, {}
    before = len(problems)
    schema = OmegaConf.structured(cls)
    types = typing.get_type_hints(cls)
    fields_of = {f.name: f for f in dataclasses.fields(cls)}
    fields = [*fields_of]
    inner: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        if name not in fields:
            problems.append(
                f"there is no '{key}.{name}'.{nearest(str(name), fields)} Allowed: {', '.join(sorted(fields))}."
            )
        elif dataclasses.is_dataclass(types[name]):
            inner[name], shown[name] = _part(f"{key}.{name}", value, types[name], problems)
        elif value == MISSING:
            shape = "[…]" if typing.get_origin(types[name]) is list else "…"
            problems.append(f"{key}.{name} is not set. Give it: {key}.{name}={shape}")
        else:
            try:
                schema = OmegaConf.merge(schema, {name: value})
            except OmegaConfBaseException as error:
                listed = typing.get_origin(types[name]) is list and not isinstance(value, list | dict)
                if listed:
                    problems.append(f"{key}.{name} is {value!r}: it is a list. Write: '{key}.{name}=[{value}]'")
                    continue
                allowed = fields_of[name].metadata.get("allowed") or _kind(types[name]) or _reason(error)
                problems.append(f"{key}.{name} is {value!r}; allowed: {allowed.rstrip('.')}.")
    if len(problems) == before:
        lists = {n for n in fields if typing.get_origin(types[n]) is list}
        problems += [
            f"{key}.{n} is not set. Give it: {key}.{n}={'[…]' if n in lists else '…'}"
            for n in sorted(OmegaConf.missing_keys(schema))
        ]
    if len(problems) > before:
        return None, {}
    values: dict[str, Any] = dict(OmegaConf.to_container(schema, resolve=True))  # type: ignore[arg-type]
    target = {"_target_": node["_target_"]} if "_target_" in node else {}
    resolved: dict[str, Any] = {**target, **{n: shown.get(n, values[n]) for n in fields}}
    try:
        return cls(**{**{n: values[n] for n in fields}, **inner}), resolved
    except PairprobeError as error:
        problems += error.problems
        return None, {}


def _alternatives(parts: dict[str, Any], problems: list[str]) -> tuple[Alternatives, dict[str, Any]]:
    """The multiverse's templates and poolings as objects of their rooms, and the settings they came from."""
    given: Alternatives = parts["multiverse"]
    if not given.asked:
        return given, dataclasses.asdict(given)
    before = len(problems)
    templates = {}
    for name, node in given.templates.items():
        whole = {"pattern": node} if isinstance(node, str) else node
        if isinstance(whole, dict):
            whole = {"_target_": TEMPLATE, **whole, "name": name}
        templates[name] = _part(f"multiverse.templates.{name}", whole, None, problems)
    poolings = []
    for i, node in enumerate(given.poolings):
        said: list[str] = []
        poolings.append(_part(f"multiverse.poolings[{i}]", node, Pooling, said))
        problems += [text.replace("method.", f"multiverse.poolings[{i}].") for text in said]
    if len(problems) > before:
        return given, {}
    found = Alternatives({name: t for name, (t, _) in templates.items()}, [p for p, _ in poolings])
    problems += found.check()
    if not parts["method"].uses_model:
        problems.append(f"multiverse needs a method that uses a model; method.name is '{parts['method'].name}'.")
    elif len(found.named(parts["template"])) * len(found.pooled(parts["method"])) < 2:
        problems.append(
            "multiverse names no template and no pooling beside the primary ones; add some: multiverse.templates.NAME=…"
        )
    settings = {name: values for name, (_, values) in templates.items()}
    return found, {"templates": settings, "poolings": [values for _, values in poolings]}


def _plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(config, DictConfig):
        try:
            container = OmegaConf.to_container(config, resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(_reason(error)) from None
        assert isinstance(container, dict)
        plain: dict[str, Any] = {str(k): v for k, v in container.items() if k != "hydra"}
    else:
        plain = {str(k): dict(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    for group, key in PATHS:
        node = plain.get(group)
        value = node.get(key) if isinstance(node, dict) else None
        # '' would be the current folder
        file = Path(value).expanduser() if isinstance(value, str) and value not in ("", MISSING) else None
        if file is not None and (file.is_file() or (file.is_dir() and group != "method")):
            node[key] = str(file.absolute())  # type: ignore[index]
    return plain


def _kind(wanted: Any) -> str:
    """What a setting of this type may be, in words; '' for types that settings seldom have."""
    plain = [one for one in typing.get_args(wanted) if one is not type(None)] or [wanted]
    words = KINDS.get(plain[0], "") if len(plain) == 1 else ""
    return f"{words}, or null" if words and type(None) in typing.get_args(wanted) else words


def _reason(error: OmegaConfBaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") + "."


def home() -> Path:
    """Where mlflow.db and mlruns/ lie: $PAIRPROBE_HOME, else the repository's root, else the current folder."""
    if os.environ.get("PAIRPROBE_HOME"):
        return Path(os.environ["PAIRPROBE_HOME"]).expanduser().absolute()
    return repository() or Path.cwd()


def repository() -> Path | None:
    """The checkout this code runs from, or None when it was installed as a wheel."""
    root = Path(__file__).parents[2]
    return root if (root / "run.py").exists() and (root / "conf" / "config.yaml").exists() else None


def conf() -> Path:
    """The folder of the configuration groups: conf/ of the checkout, else the copy inside the wheel."""
    root = repository()
    return root / "conf" if root else Path(__file__).parent / "conf"
