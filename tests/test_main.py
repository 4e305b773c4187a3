"""Words to a command, and what calling one leaves behind in the process."""

from __future__ import annotations

import importlib
import io
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from pairprobe import __version__
from pairprobe.commands import run as run_command
from pairprobe.commands.main import run

SIGNALS = [number for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)) if number is not None]


@pytest.fixture(params=SIGNALS, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest):
    before = signal.getsignal(request.param)
    yield request.param
    signal.signal(request.param, before)


@pytest.mark.parametrize("mine", [lambda number, frame: None, signal.SIG_DFL, signal.SIG_IGN])
def test_the_handlers_of_whoever_calls_are_put_back(number: signal.Signals, mine) -> None:
    signal.signal(number, mine)
    assert run(["compare", "one"]) == 2
    assert signal.getsignal(number) == mine


def during(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> object:
    """The handler while a command runs."""
    seen: list[object] = []
    monkeypatch.setattr("pairprobe.commands.main._dispatch", lambda words: seen.append(signal.getsignal(number)) or 0)
    assert run([]) == 0
    return seen[0]


def test_a_signal_ends_a_command_in_order(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    assert callable(during(monkeypatch, number))


def test_what_nohup_ignores_stays_ignored(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    assert during(monkeypatch, number) == signal.SIG_IGN


# ── flags ────────────────────────────────────────────────────────────────────────────────────────────────


def to_hydra(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What Hydra is given; nothing is run."""
    given: list[list[str]] = []
    monkeypatch.setattr(run_command, "_hand_to_hydra", lambda words, *_: given.append(words))
    monkeypatch.setattr(run_command, "_preflight_all", lambda jobs: None)
    assert run(list(words)) == 0
    return given[0]


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "method=static,layerwise", "template=bare"),
        ("method=static,layerwise", "template=bare", "-m"),
        ("method=static,layerwise", "--multirun", "template=bare"),
    ],
)
def test_flags_and_words_come_in_any_order(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert to_hydra(monkeypatch, *words) == ["--multirun", "method=static,layerwise", "template=bare"]


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("template=bare", "--cfg", "job", "--resolve"), ["--resolve", "--cfg", "job", "template=bare"]),
        (("template=bare", "-p", "model", "-c", "all"), ["--cfg", "all", "--package", "model", "template=bare"]),
        (("template=bare", "--info"), ["--info", "all", "template=bare"]),
        (("-h",), ["--help"]),
    ],
)
def test_flags_keep_their_values(words: tuple[str, ...], given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert to_hydra(monkeypatch, *words) == given


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resolve"], "--resolve says how a configuration is shown, and none is. Show it: python run.py --cfg job"),
        (["--package", "model"], "--package says how a configuration is shown, and none is."),
        (["--config-name", "mine"], "--config-name is not followed here."),
        (["--config-path", "mine"], "--config-path is not followed here. Groups of yours are added"),
        (["--experimental-rerun", "x"], "--experimental-rerun is not followed here. A recorded run is repeated"),
        (["-m", "--cfg", "job"], "--multirun and --cfg do not go together."),
        (["--config-dir", "nowhere"], "nowhere, which is no folder."),
        (["--config-dir", ".", "hydra.searchpath=[]"], "--config-dir and hydra.searchpath both add folders."),
        (["tokens.max_length=interval(3,5)"], "'tokens.max_length=interval(3,5)' names several values"),
        (["template=glob(*)"], "'template=glob(*)' names several values"),
        (["-m", "tokens.max_length=interval(3,5)"], "is an interval, of which Hydra's basic sweeper cannot choose"),
        (["--verbose"], "Unrecognized arguments: --verbose."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_that_cannot_be_followed_is_refused_in_words(
    words: list[str], said: str, capfd: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert run(words) == 2
    out = " ".join(capfd.readouterr().err.split())
    assert said in out
    assert "did not foresee" not in out
    assert list(home.iterdir()) == []


@pytest.fixture(params=["groups", "with space", "it's, [mine]"])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a template of its own."""
    folder = tmp_path / request.param
    (folder / "template").mkdir(parents=True)
    (folder / "template" / "mine.yaml").write_text(
        "_target_: pairprobe.texts.Template\nname: mine\npattern: say {word}\n", encoding="utf-8"
    )
    return folder


def test_a_folder_of_groups_is_added_to_those_there(groups: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["template=mine", "--config-dir", str(groups), "--cfg", "job"]) == 0
    assert "pattern: say {word}" in capfd.readouterr().out


def test_choices_of_an_added_folder_are_known(groups: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--config-dir", str(groups), "template=mein", "modle=minilm"]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "there is no such template. Did you mean 'mine'? Choices: bare, gloss, mine, pattern." in said
    assert run(["--config-dir", str(groups), "template=mine", "modle=minilm"]) == 2
    assert "no such template" not in capfd.readouterr().err


# ── what is said before anything else ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [["--version"], ["method=static", "--version"]])
def test_the_version_is_this_programs_with_hydras_beside_it(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 0
    assert capfd.readouterr().out == f"pairprobe {__version__} (Hydra {version('hydra-core')})\n"


@pytest.mark.parametrize("command", ["plan", "compare", "doctor"])
@pytest.mark.parametrize(
    ("words", "terminal", "told"),
    [([], True, True), ([], False, False), (["--quiet"], True, False), (["-h"], True, False)],
)
def test_a_person_at_a_terminal_is_told_at_once_what_takes_seconds(
    command: str, words: list[str], terminal: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    said.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", said)
    before: list[str] = []
    fake = SimpleNamespace(main=lambda _words: before.append(said.getvalue()) or 0)
    monkeypatch.setattr(importlib, "import_module", lambda _name: fake)
    assert run([command, *words]) == 0
    assert [bool(text) for text in before] == [told]
    assert all("wait" in text and "…" in text for text in before if told)
