"""What streaming a checkpoint would take of memory, from headers and shapes alone, and the passes that follow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pairprobe.executions.attention import COPIED_CPU, COPIED_GPU, PLACES
from pairprobe.executions.batches import batches, joined
from pairprobe.executions.feeder import layer_bytes
from pairprobe.executions.memory import Budget
from pairprobe.executions.products import TILE_CPU, TILE_GPU
from pairprobe.executions.slots import Place, stored
from pairprobe.rooms import TOKEN_NORMS, Workload

#: Values of a batch that a layer holds at its widest, in multiples of its widest product and of its width: gate, its
#: activation and up (a product of gathered rows beside the scattered one); residual, normed, and what norms compute
#: in float32. Measured on Llama- and Qwen-shaped layers, quantised and not.
WIDE, NARROW = 5.0, 6.0
#: The same of what attention copies for the texts it computes at once: queries, keys, values, cut and filled up.
ATTENDED = 8
#: Of what codes of a few bits are on their way to the tile, `packing.CHUNK` of them at once.
UNPACKING = 12 * 2**20
#: Of states, where there are several batches: what these, each of another size, leave unused in the heap.
HOLES = 1 / 3
#: Python objects, small tensors, the allocator's rounding.
SLACK = 24 * 2**20


@dataclass(frozen=True)
class Room:
    """For stored tensors, see `Feeder`."""

    nbytes: int
    fence: int | None = None
    rolls: bool = True


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass over the checkpoint. rows: texts of it. batches: each of one or more groups, as indices into `rows`.
    computed: rows of all batches that go through a product. host, gpu: bytes, those of all passes' vectors included.
    room: of stored tensors that are in memory at once."""

    rows: npt.NDArray[np.int64]
    batches: tuple[tuple[npt.NDArray[np.int64], ...], ...]
    computed: int
    room: Room
    host: int
    gpu: int


@dataclass(frozen=True, eq=False)
class Needs:
    """What a run takes, in one pass or several. one_pass: bytes of the host, or of an accelerator, that one would."""

    passes: tuple[Pass, ...]
    one_pass: int

    @property
    def host(self) -> int:
        return max(p.host for p in self.passes)

    @property
    def gpu(self) -> int:
        return max(p.gpu for p in self.passes)


@dataclass(frozen=True)
class Sizes:
    """Of one model, in bytes or values. layer, weight: the largest as stored. outside: dense, beside the layers.
    slots: dense parameters of a layer. width, widest: of a state, and of the widest product. expert: the largest
    expert, dense. depths: of each text's vectors, where all are wanted. rounding, unpacking: beside the tile,
    where weights are rounded, and of codes that share scales within a row. packs: padding does not pass through its
    layers, nor, where it looks back only (once), what begins alike. joins: groups of texts may be one batch."""

    layer: int
    weight: int
    outside: int
    slots: int
    width: int
    widest: int
    expert: int
    itemsize: int
    depths: int = 0
    rounding: int = 0
    unpacking: int = 0
    packs: bool = False
    once: bool = False
    joins: bool = False


def sizes(
    layers: Sequence[Sequence[Place]], outside: dict[str, Any], embedding: str, rows: int, width: int, itemsize: int
) -> Sizes:
    """Read off the headers. rows: of the embedding table that are needed."""
    beside = 0
    for name, weight in outside.items():
        count = rows * weight.shape[1] if name == f"{embedding}.weight" else math.prod(weight.shape)
        beside += count * itemsize
    linear = [p.weights[0][0].shape[0] for layer in layers for p in layer if p.by == "linear"]
    dense = [[p.weights[0][0].shape for p in layer if p.by == "dense"] for layer in layers]
    conv = [shape[-1] for shapes in dense for shape in shapes if len(shape) == 2]
    weights = [w for layer in layers for p in layer for expert in p.weights for w in expert]
    experts = [
        sum(math.prod(w.shape) for w in e) for layer in layers for p in layer if p.by == "table" for e in p.weights
    ]
    return Sizes(
        layer=max((layer_bytes(stored(layer)) for layer in layers), default=0),
        weight=max((layer_bytes([*w.parts.values()]) for w in weights), default=0),
        outside=beside,
        slots=max((sum(math.prod(s) for s in shapes) for shapes in dense), default=0) * itemsize,
        width=width,
        widest=max([*linear, *conv, width]),
        expert=max(experts, default=0) * itemsize,
        itemsize=itemsize,
        depths=len(layers) + 1,
        unpacking=UNPACKING if any(not w.dense and not w.by_row for w in weights) else 0,
    )


def needs(of: Sizes, asked: Workload, device: str, batch_tokens: int, budget: Budget) -> Needs:
    """The memory of a run, made to fit: with less reading ahead, then in smaller batches, then in several passes.

    Where nothing fits, the smallest possible run is returned; `budget.short` tells what it lacks.
    """
    found = tuple(passes(of, asked, device, batch_tokens, budget))
    one = found[0] if len(found) == 1 else _one_pass(of, asked, np.arange(len(asked)), device, batch_tokens, budget)
    return Needs(found, max(one.host, one.gpu))


def passes(of: Sizes, asked: Workload, device: str, batch_tokens: int, budget: Budget) -> Iterator[Pass]:
    """The passes one after the other, each of as many texts as fit; of one text where even that does not.

    Texts of a part are together, long ones first. Where parts cannot be one batch, no pass has texts of two, unless one
    pass does for all.
    """

    def planned(rows: npt.NDArray[np.int64]) -> tuple[Pass, bool]:
        one = _one_pass(of, asked, rows, device, batch_tokens, budget)
        return one, budget.short(one.host, one.gpu) is None

    parts = np.zeros(len(asked), dtype=np.int64) if asked.parts is None else asked.parts
    order = np.lexsort((-asked.lengths, parts))
    whole, fits = planned(order)
    if fits:
        yield whole
        return
    for left in [order] if of.joins else [order[parts[order] == part] for part in np.unique(parts)]:
        count = 2
        while len(left):
            found, few, many = planned(left[:1])[0], 1, len(left) + 1  # so few texts fit, so many do not
            while many - few > 1:
                count = min(max(count, few + 1), many - 1)
                one, fits = planned(left[:count])
                if fits:
                    found, few = one, count
                else:
                    many = count
                count = 2 * few if many > len(left) else (few + many) // 2
            yield found
            left, count = left[few:], few


def _one_pass(
    of: Sizes, asked: Workload, rows: npt.NDArray[np.int64], device: str, batch_tokens: int, budget: Budget
) -> Pass:
    """One pass over these texts in the largest batches, and with the most reading ahead, that fit; where none do, what
    takes least."""
    some = asked.select(rows)
    longest = int(some.lengths.max())
    sizes_of = [max(longest, min(batch_tokens, longest * len(some)))]
    while sizes_of[-1] > longest:
        sizes_of.append(max(longest, sizes_of[-1] // 4))
    held = _held(of, some)
    tried = []
    for size in sizes_of:
        groups = batches(some.lengths, size, some.parts)
        divided = tuple(joined(groups, some.lengths, size) if of.joins else ((group,) for group in groups))
        computing, computed = _computing(of, some, divided, device)
        for room in _rooms(of, device, single=len(divided) == 1):
            host, gpu = held + room.nbytes + computing, 0
            if device != "cpu":
                host, gpu = held + room.nbytes + of.outside, room.nbytes + computing
            tried.append(Pass(rows, divided, computed, room, host, gpu))
            if budget.short(host, gpu) is None:
                return tried[-1]
    return min(tried, key=lambda one: max(one.host, one.gpu))


def _rooms(of: Sizes, device: str, *, single: bool) -> list[Room]:
    """For the stored tensors, what is best first. single: the pass has one batch.

    One batch is done with a weight when it has used it once, so that the next may be read into its place: two of the
    largest suffice where it is known that weights are used in the order they are read in, a layer and one otherwise.
    With several ones all stay until the last batch, and only a second layer's worth of memory is read into meanwhile;
    experts, used or not, stay until their layer ends.
    """
    two, one = Room(2 * of.layer), Room(of.layer, rolls=False)
    if device != "cpu":
        return [two, one]
    rolling = Room(of.layer + of.weight)
    if single and not of.expert:
        # architectures known well enough to be packed are those whose order is known: tests/test_packed.py
        return [Room(2 * of.weight, of.weight)] if of.packs else [rolling, one]
    return [two, rolling, one]


def _computing(
    of: Sizes, some: Workload, divided: Sequence[Sequence[npt.NDArray[np.int64]]], device: str
) -> tuple[int, int]:
    """(bytes of states and of what is computed of them, where it is most; rows computed of all batches)."""
    unit, cuda = of.width * of.itemsize, device.startswith("cuda")
    states = most = total = 0
    for groups in divided:
        rows = np.concatenate(groups)
        longest = int(some.lengths[rows].max())
        padded = len(rows) * longest
        products = sum(some.beginnings(g) if of.once else int(some.lengths[g].sum()) for g in groups)
        computed = products if of.packs else padded
        total += products
        states += padded * (unit + 4 * longest + 64)
        places = -(-longest // PLACES) * PLACES
        copied = COPIED_GPU if cuda else COPIED_CPU
        attention = ATTENDED * min(len(rows) * places * unit, max(copied, places * unit))
        product = int(computed * of.itemsize * WIDE * of.widest)
        # what a layer makes of its states, beside them
        most = max(most, padded * unit + int(NARROW * computed * unit) + max(product, attention))
    tile = TILE_GPU if cuda else TILE_CPU
    if len(divided) > 1:
        states += int(HOLES * states)
    return states + most + of.outside + of.slots + of.expert + tile + of.rounding + of.unpacking, total


def _held(of: Sizes, some: Workload) -> int:
    """Bytes on the host of what is measured of all passes' texts (float32), and of all else that is small."""
    texts = len(some) if some.held is None else some.held
    depths = some.depths or of.depths
    norms = depths * int(some.lengths.sum()) * texts // max(1, len(some)) * 4
    return some.poolings * depths * texts * of.width * 4 + min(norms, TOKEN_NORMS) + SLACK
