"""Words → command. The first word names one, otherwise the words are a run's overrides."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType

from pairprobe import __version__
from pairprobe.errors import ConfigError, PairprobeError, nearest, unexpected

COMMANDS = ("plan", "reproduce", "compare", "report", "ui", "doctor")
#: Of commands that import for seconds before their first line: what is said at once.
WAITING = {
    "plan": "composing the configuration, reading the model's headers and timing this machine …",
    "compare": "reading the runs and comparing them …",
    "doctor": "looking at packages, configuration, model, device and store …",
}
#: What is set before torch and others are imported, unless it is set already. Threads that wait spinning take the
#: processor from the one that reads the next layer, and make a busy machine five times slower.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
}
INTERRUPTED = 130
COULD_NOT = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM: the run ends KILLED, as with Ctrl-C, instead of staying RUNNING for ever."""


def main(words: list[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    sys.exit(run(sys.argv[1:] if words is None else words))


def run(words: list[str]) -> int:
    """The exit code: 0 done, 1 done with failures or differences, 2 could not be done, 130 interrupted."""
    from pairprobe.report import QUIET, for_errors

    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks ʷ shows ?, and nothing is lost
            stream.reconfigure(errors="replace")
    before = os.environ.get(QUIET)
    if "--quiet" in words:
        words = [w for w in words if w != "--quiet"]
        os.environ[QUIET] = "1"
    handlers = {}
    with contextlib.suppress(ValueError):  # not the main thread: whoever owns that handles signals
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # SIGHUP: the connection was lost
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # under nohup it stays ignored
                handlers[number] = signal.signal(number, _terminate)
    try:
        return _dispatch(words)
    except PairprobeError as error:
        for_errors().error(error)
        return COULD_NOT
    except KeyboardInterrupt as error:
        for_errors().line("stopped", _stopped(error, words), always=True)
        return INTERRUPTED
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 0
    except Exception as error:
        with tempfile.NamedTemporaryFile(
            "w", prefix="pairprobe-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            traceback.print_exc(file=file)
        for_errors().error(unexpected(error, Path(file.name)))
        return COULD_NOT
    finally:
        for number, handler in handlers.items():
            # None: it was not set from Python, and Python cannot set it again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if before is None:
            os.environ.pop(QUIET, None)


def _dispatch(words: list[str]) -> int:
    first = words[0] if words else ""
    if "--version" in words and (first.startswith("-") or "=" in first):  # Hydra's own would name Hydra alone
        print(f"pairprobe {__version__} (Hydra {importlib.metadata.version('hydra-core')})")
        return 0
    if first in COMMANDS:
        _say_at_once(first, words[1:])
        module = importlib.import_module(f"pairprobe.commands.{first}")
        return int(module.main(words[1:]))
    if first and not first.startswith("-") and "=" not in first and not first.startswith(("+", "~")):
        raise ConfigError(
            f"There is no command '{first}'.{nearest(first, COMMANDS)}",
            f"Commands: {', '.join(COMMANDS)}. Without one, words are group=choice and key=value.",
        )
    from pairprobe.commands import run as run_command

    return run_command.main(words)


def _say_at_once(command: str, words: list[str]) -> None:
    """What a person at a terminal waits for; nothing where output is kept in a file, help is asked for, or --quiet."""
    from pairprobe.report import QUIET, for_errors

    if command in WAITING and sys.stderr.isatty() and not os.environ.get(QUIET) and not {"-h", "--help"} & {*words}:
        for_errors().line("wait", WAITING[command])


def _stopped(error: KeyboardInterrupt, words: list[str]) -> str:
    """What was stopped: the notes of an interrupt say which run it ended, and what is kept of it."""
    what = "terminated" if isinstance(error, Terminated) else "interrupted"
    *inner, run = getattr(error, "__notes__", []) or ["no run was being recorded"]
    if words[:1] and words[0] in COMMANDS and words[0] != "reproduce":  # it records none
        return what
    return "\n".join([f"{what}; {run}", *inner])


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated
