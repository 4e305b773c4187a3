"""Words to a command, and what calling one leaves behind in the process."""

from __future__ import annotations

import signal

import pytest

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
