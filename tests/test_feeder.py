"""Layers arrive tensor by tensor: the first may be used while the last are read, and what cannot be read is told."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pairprobe.checkpoints.headers import Tensor
from pairprobe.errors import CheckpointError
from pairprobe.executions import feeder
from pairprobe.executions.feeder import Feeder
from pairprobe.rooms import Stored

SECONDS = 20  # a thread that waits for longer is stuck


@pytest.fixture
def parts(tmp_path: Path) -> list[Stored]:
    """Three tensors of 64 float32 values each: 0, 1, 2."""
    file = tmp_path / "layer.safetensors"
    save_file({name: torch.full((8, 8), float(i)) for i, name in enumerate("abc")}, file)
    begin = file.stat().st_size - 3 * 256
    return [Tensor(file, "F32", (8, 8), 256, begin + 256 * i) for i in range(3)]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, parts: list[Stored]) -> threading.Event:
    """Until it is set, the second tensor cannot be read."""
    opened = threading.Event()
    read = os.preadv

    def slow(file: int, buffers: list, start: int) -> int:
        if start == parts[1].start:
            assert opened.wait(SECONDS)
        return read(file, buffers, start)

    monkeypatch.setattr(feeder.os, "preadv", slow)
    return opened


def test_the_first_tensor_is_there_before_the_second_is_read(parts: list[Stored], gate: threading.Event) -> None:
    for layer in Feeder([parts], "cpu"):
        assert float(layer[0].sum()) == 0.0
        assert not gate.is_set()
        gate.set()
        assert float(layer[1].sum()) == 64.0
        assert float(layer[2].sum()) == 128.0


def test_waiting_within_a_layer_is_counted_as_waiting(parts: list[Stored], gate: threading.Event) -> None:
    read = Feeder([parts], "cpu")
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    for layer in read:
        layer.wait(3)
    assert 0.1 < read.seconds["wait"] < SECONDS


@pytest.mark.parametrize("asked", [True, False])
def test_a_tensor_that_cannot_be_read_ends_the_pass_even_where_nobody_asks_for_it(
    parts: list[Stored], asked: bool
) -> None:
    parts[0].file.write_bytes(parts[0].file.read_bytes()[:-100])  # since its header was read

    def passed() -> None:
        for layer in Feeder([parts], "cpu"):
            assert float(layer[1].sum()) == 64.0
            if asked:
                layer[2].sum()

    with pytest.raises(CheckpointError, match="within a tensor its header promises"):
        passed()


def test_a_pass_that_is_given_up_leaves_no_thread(parts: list[Stored], gate: threading.Event) -> None:
    layers = iter(Feeder([parts, parts], "cpu"))
    next(layers)
    gate.set()
    layers.close()
    assert not any(thread.name == "pairprobe-reader" for thread in threading.enumerate())


def test_one_buffer_serves_every_layer(parts: list[Stored]) -> None:
    sums = [
        [float(layer[i].sum()) for i in range(len(of))]
        for layer, of in zip(Feeder([parts, parts[::-1]], "cpu", ahead=False), [parts, parts], strict=True)
    ]
    assert sums == [[0.0, 64.0, 128.0], [128.0, 64.0, 0.0]]
