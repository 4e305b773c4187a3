"""Layers arrive tensor by tensor: the first may be used while the last are read, and what cannot be read is told."""

from __future__ import annotations

import os
import threading
import time
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
    for layer in Feeder([parts]):
        assert float(layer[0].sum()) == 0.0
        assert not gate.is_set()
        gate.set()
        assert float(layer[1].sum()) == 64.0
        assert float(layer[2].sum()) == 128.0


def test_waiting_within_a_layer_is_counted_as_waiting(parts: list[Stored], gate: threading.Event) -> None:
    read = Feeder([parts])
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
        for layer in Feeder([parts]):
            assert float(layer[1].sum()) == 64.0
            if asked:
                layer[2].sum()

    with pytest.raises(CheckpointError, match="within a tensor its header promises"):
        passed()


def test_a_pass_that_is_given_up_leaves_no_thread(parts: list[Stored], gate: threading.Event) -> None:
    layers = iter(Feeder([parts, parts]))
    next(layers)
    gate.set()
    layers.close()
    assert not any(thread.name == "pairprobe-reader" for thread in threading.enumerate())


def test_one_buffer_serves_every_layer(parts: list[Stored]) -> None:
    sums = [
        [float(layer[i].sum()) for i in range(len(of))]
        for layer, of in zip(Feeder([parts, parts[::-1]], room=768, rolls=False), [parts, parts], strict=True)
    ]
    assert sums == [[0.0, 64.0, 128.0], [128.0, 64.0, 0.0]]


# ── less than two layers in memory ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def layers(tmp_path: Path) -> list[list[Stored]]:
    """Forty layers of the same three tensors, of 64, 640 and 320 bytes; their values count on through all of them."""
    file = tmp_path / "layers.safetensors"
    sizes = {"a": 16, "b": 160, "c": 80}
    values, found, start = {}, [], 0
    for layer in range(40):
        parts = []
        for name, size in sizes.items():
            values[f"{layer:02}.{name}"] = torch.arange(start, start + size, dtype=torch.float32)
            parts.append((size, start))
            start += size
        found.append(parts)
    save_file(values, file)
    begin = file.stat().st_size - 4 * start
    return [[Tensor(file, "F32", (size,), 4 * size, begin + 4 * at) for size, at in parts] for parts in found]


def first(part: Stored, layers: list[list[Stored]]) -> float:
    """The value a tensor begins with."""
    return float((part.start - layers[0][0].start) // 4)  # type: ignore[attr-defined]


LAYER, WEIGHT = 1024, 640


@pytest.mark.parametrize("room", [0, LAYER, LAYER + WEIGHT, LAYER + WEIGHT + 64, None])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1,), ()], ids=str)
def test_tensors_stand_where_they_were_put_until_they_are_let_go(
    layers: list[list[Stored]], room: int | None, order: tuple[int, ...]
) -> None:
    read = Feeder(layers, room=room or LAYER, rolls=room != 0)
    for parts, layer in zip(layers, read, strict=True):
        for place in order:  # whatever order they are used in, and whether they are
            held = layer[place]
            assert torch.equal(held, first(parts[place], layers) + torch.arange(len(held)))
            layer.let_go([place])
    if room != LAYER:  # rolling with less than a layer and its largest tensor may leave too little in one piece
        assert read.beside == 0


@pytest.mark.parametrize("fence", [None, WEIGHT])
def test_two_of_the_largest_tensors_suffice_where_they_are_used_in_order(
    layers: list[list[Stored]], fence: int | None
) -> None:
    read = Feeder(layers, room=2 * WEIGHT, fence=fence)
    for parts, layer in zip(layers, read, strict=True):
        for place, part in enumerate(parts):
            assert torch.equal(layer[place], first(part, layers) + torch.arange(part.nbytes // 4))
            layer.let_go([place])
    assert read.beside == 0


def test_what_is_asked_for_before_others_have_been_used_comes_beside_the_room(layers: list[list[Stored]]) -> None:
    read = Feeder(layers, room=WEIGHT)
    for parts, layer in zip(layers, read, strict=True):
        for place in (2, 1, 0):
            held = layer[place]
            assert torch.equal(held, first(parts[place], layers) + torch.arange(len(held)))
            layer.let_go([place])
    assert read.beside >= len(layers) * 320  # of 1024 bytes, 640 have room
    assert read.read_bytes == len(layers) * LAYER


@pytest.mark.parametrize(
    ("room", "rolls", "due"),
    # alone, one layer waits for its end; with 640 more, the third tensor of the next has no room beside this one's
    [(LAYER, False, 1024), (LAYER + WEIGHT, True, 1024 + 704), (2 * LAYER, True, 2048)],
)
def test_what_is_let_go_makes_room_for_the_next_layer(
    layers: list[list[Stored]], room: int, rolls: bool, due: int
) -> None:
    read = Feeder(layers[:2], room=room, rolls=rolls)
    passed = iter(read)
    layer = next(passed)
    layer.wait(3)
    layer.let_go([0, 1])
    deadline = time.monotonic() + SECONDS
    while read.read_bytes < due and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert read.read_bytes == due
    assert torch.equal(layer[2], first(layers[0][2], layers) + torch.arange(80))  # still there
    passed.close()


def test_with_a_fence_the_next_weight_is_read_while_one_as_large_is_in_use(layers: list[list[Stored]]) -> None:
    of = [[part] for parts in layers for part in parts[1:2]]  # of 640 bytes each
    for room, fence, due in [(2 * WEIGHT, WEIGHT, 2 * WEIGHT), (WEIGHT, None, WEIGHT)]:
        read = Feeder(of, room=room, fence=fence)
        passed = iter(read)
        next(passed).wait(1)
        time.sleep(0.1)
        assert read.read_bytes == due
        passed.close()


def test_a_tensor_that_is_asked_for_after_it_was_let_go_is_read_again(layers: list[list[Stored]]) -> None:
    passed = iter(Feeder(layers, room=LAYER + WEIGHT))
    layer = next(passed)
    layer.wait(3)
    layer.let_go([0, 1])
    time.sleep(0.05)  # others are read into their places
    assert torch.equal(layer[1], first(layers[0][1], layers) + torch.arange(160))
    assert float(next(passed)[0][0]) == first(layers[1][0], layers)
    passed.close()


def test_what_is_read_again_is_read_once_and_stays(layers: list[list[Stored]]) -> None:
    read = Feeder(layers[:2], room=LAYER + WEIGHT)
    passed = iter(read)
    layer = next(passed)
    layer.wait(3)
    layer.let_go([1])
    assert layer[1] is layer[1]
    assert read.again == 640
    layer.let_go([1])  # when the layer ends
    next(passed)
    passed.close()


def test_letting_go_of_a_tensor_that_is_not_there_yet_waits_for_it(parts: list[Stored], gate: threading.Event) -> None:
    passed = iter(Feeder([parts]))
    layer = next(passed)
    threading.Timer(0.1, gate.set).start()
    layer.let_go([0, 1])  # as of a weight one of whose parts nothing asks for
    assert gate.is_set()
    assert float(layer[2].sum()) == 128.0
    passed.close()


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="macOS has no such call")
@pytest.mark.parametrize("ahead", [700, 10**6])
def test_the_kernel_is_told_of_what_comes_before_there_is_room_for_it(
    layers: list[list[Stored]], monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    told: list[int] = []
    read: list[int] = []
    preadv = os.preadv

    def advised(_file: int, start: int, _nbytes: int, advice: int) -> None:
        if advice == os.POSIX_FADV_WILLNEED:
            told.append(start)

    def reading(file: int, buffers: list, start: int) -> int:
        read.append(start)
        assert start in told
        return preadv(file, buffers, start)

    monkeypatch.setattr(feeder, "AHEAD", ahead)
    monkeypatch.setattr(feeder.os, "posix_fadvise", advised)
    monkeypatch.setattr(feeder.os, "preadv", reading)
    order = [part.start for parts in layers for part in parts]  # type: ignore[attr-defined]
    passed = iter(Feeder(layers, room=2 * WEIGHT, fence=WEIGHT))
    next(passed).wait(2)
    time.sleep(0.1)
    if ahead == 700:  # of 64 and 640 bytes; the third's 320 have no room yet
        assert told == order[: len(read) + 1]
    else:
        assert told == order
    passed.close()
