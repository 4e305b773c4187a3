"""What can go wrong, as a tree. Every error says what was found, what was allowed, and what to do next.

PairprobeError
├── ConfigError        a value of the configuration
├── PairsError         a table of pairs
├── TextError          a template or a text
├── TokenError         a word that becomes no usable token
├── CheckpointError    weights, tokenizer or config of a model
│   ├── OutOfReach     … on a server that does not answer
│   ├── Unfilled       … weights that do not fill the model of their config
│   └── Misdeclared    … a config that says of its weights what cannot be read
├── ExecutionError     device, memory, states that are not finite
│   └── OutOfMemory    … where less at once may do
├── StatisticsError    numbers from which nothing can be computed
└── StoreError         MLflow's store
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class PairprobeError(Exception):
    """An error a person can act on.

    Args:
        problems: one line, or several when all problems of one input are told at once.
        next_step: what to do now; printed last.
    """

    def __init__(self, problems: str | Sequence[str], next_step: str = "") -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        self.next_step = next_step
        super().__init__("\n".join((*self.problems, *([next_step] if next_step else []))))


class ConfigError(PairprobeError):
    """A value of the configuration is not allowed."""


class PairsError(PairprobeError):
    """A table of pairs cannot be used."""


class TextError(PairprobeError):
    """A template cannot be filled, or a text cannot be used."""


class TokenError(PairprobeError):
    """A word or a text does not become usable tokens."""


class CheckpointError(PairprobeError):
    """Weights, tokenizer or config of a model are missing, damaged or refused."""


class OutOfReach(CheckpointError):
    """The server that has them does not answer, or may not be asked."""


class Unfilled(CheckpointError):
    """Stored weights and the model of config.json do not belong together."""


class Misdeclared(CheckpointError):
    """config.json says of quantisation what cannot be read, whatever the weights are."""


class ExecutionError(PairprobeError):
    """The model cannot be run here, or its states are not finite."""


class OutOfMemory(ExecutionError):
    """There is less memory than this needs; fewer texts at once may do."""


class StatisticsError(PairprobeError):
    """The numbers do not allow what was asked of them."""


class StoreError(PairprobeError):
    """MLflow's store cannot be reached, read or written."""


def unexpected(error: BaseException, report: Path) -> PairprobeError:
    """What to say of an error that pairprobe did not foresee; `report` holds its traceback."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return PairprobeError(
        f"{type(error).__name__}: {first}",
        f"This one pairprobe did not foresee. Its traceback, for a bug report: {report}",
    )


def nearest(value: str, choices: Iterable[str]) -> str:
    """' Did you mean …?' with the most similar choice, or '' where none is similar."""
    known = {choice.casefold(): choice for choice in reversed([*choices])}
    close = difflib.get_close_matches(value.casefold(), [*known], n=1, cutoff=0.6)
    return f" Did you mean '{known[close[0]]}'?" if close else ""


def one_of(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{key} is '{value}'; allowed: {', '.join(choices)}.{nearest(str(value), choices)}")


def at_least(key: str, value: float, low: float) -> None:
    """Raise ConfigError unless `value` ≥ `low`."""
    if not value >= low:
        raise ConfigError(f"{key} is {value}; allowed: {low} or more.")


def between(key: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless `low` < `value` < `high`."""
    if not low < value < high:
        raise ConfigError(f"{key} is {value}; allowed: more than {low} and less than {high}.")
