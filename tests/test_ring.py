"""The memory that stored tensors pass through: regions never overlap, and nobody waits for ever."""

from __future__ import annotations

import random
import threading

import pytest

from pairprobe.executions.ring import Region, Ring

SECONDS = 20


def region(ring: Ring, nbytes: int) -> Region:
    """One that there must be room for."""
    found = ring.take(nbytes)
    assert found is not None
    return found


def test_regions_follow_one_another_and_begin_anew_at_the_end() -> None:
    ring = Ring(10)
    a, b = region(ring, 4), region(ring, 4)
    assert (a, b) == (Region(0, 4), Region(4, 8))
    ring.give_back(a)
    assert ring.take(3) == Region(0, 3)  # 2 bytes at the end are too few


def test_what_is_given_back_out_of_turn_is_free_once_its_turn_has_come() -> None:
    ring = Ring(8)
    a, b = region(ring, 4), region(ring, 4)
    ring.give_back(b)
    found: list[Region | None] = []
    thread = threading.Thread(target=lambda: found.append(ring.take(4)))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    ring.give_back(a)
    thread.join(SECONDS)
    assert found == [Region(0, 4)]


def test_a_full_ring_is_not_taken_for_an_empty_one() -> None:
    ring = Ring(8)
    first, _ = region(ring, 4), region(ring, 4)
    ring.give_back(first)
    assert ring.take(4) == Region(0, 4)  # its end is where the oldest begins
    ring.close()
    assert ring.take(1) is None


@pytest.mark.parametrize(("fence", "nbytes"), [(None, 9), (4, 5)])
def test_more_than_the_ring_has_in_one_piece_is_refused_at_once(fence: int | None, nbytes: int) -> None:
    with pytest.raises(ValueError, match=f"{nbytes} bytes in one piece of a ring that has {nbytes - 1}"):
        Ring(8, fence).take(nbytes)


def test_no_region_crosses_the_fence() -> None:
    ring = Ring(8, fence=4)
    a, b = region(ring, 3), region(ring, 3)
    assert (a, b) == (Region(0, 3), Region(4, 7))
    ring.give_back(a)
    assert ring.take(4) == Region(0, 4)


def test_who_wants_more_than_there_is_room_for_is_told_so() -> None:
    ring = Ring(8)
    ring.want(2)
    assert ring.take(8, 0) == Region(0, 8)
    assert ring.take(1, 1) is None
    found: list[Region | None] = []
    thread = threading.Thread(target=lambda: found.append(ring.take(1, 2)))  # nobody wants the third yet
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    ring.want(3)
    thread.join(SECONDS)
    assert found == [None]


@pytest.mark.parametrize("waits", ["take", "emptied"])
def test_closing_lets_go_whoever_waits(waits: str) -> None:
    ring = Ring(8)
    ring.take(8)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(ring.take(1) if waits == "take" else ring.emptied()))
    thread.start()
    ring.close()
    thread.join(SECONDS)
    assert found in ([None], [False])


def test_nothing_takes_up_nothing() -> None:
    ring = Ring(8)
    taken = [ring.take(n) for n in (0, 8, 0)]
    for region in taken:
        assert region is not None
        ring.give_back(region)
    assert ring.take(8) == Region(0, 8)


@pytest.mark.parametrize("seed", range(20))
def test_layers_pass_through_a_ring_of_one_layer_and_its_largest_tensor(seed: int) -> None:
    # whatever order a layer's tensors are given back in, even all of them only at its end
    chance = random.Random(seed)
    layers = [[chance.randrange(40) for _ in range(chance.randrange(1, 9))] for _ in range(60)]
    size = max(sum(layer) for layer in layers) + max(max(layer) for layer in layers)
    ring = Ring(size)
    taken: list[list[Region]] = [[] for _ in layers]
    there = threading.Condition()

    def reader() -> None:
        for layer, regions in zip(layers, taken, strict=True):
            for nbytes in layer:
                region = ring.take(nbytes)
                assert region is not None
                with there:
                    live = [r for of in taken for r in of if not r.free and r.end > r.start]
                    assert all(r.end <= region.start or region.end <= r.start for r in live)
                    assert 0 <= region.start <= region.end <= size
                    regions.append(region)
                    there.notify()

    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    for layer, regions in zip(layers, taken, strict=True):
        with there:
            assert there.wait_for(lambda: len(regions) == len(layer), SECONDS)  # noqa: B023
        for region in chance.sample(regions, len(regions)):
            with there:
                ring.give_back(region)
    thread.join(SECONDS)
    assert not thread.is_alive()
