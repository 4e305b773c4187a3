"""What streaming a checkpoint would take: memory from headers and shapes alone, time from a short measurement."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pairprobe.executions.attention import COPIED_CPU, COPIED_GPU, PLACES
from pairprobe.executions.batches import batches
from pairprobe.executions.cache import cached, forget
from pairprobe.executions.feeder import layer_bytes
from pairprobe.executions.memory import Budget
from pairprobe.executions.products import TILE_CPU, TILE_GPU, Workshop
from pairprobe.executions.slots import Place, stored
from pairprobe.rooms import SUPPOSED, TOKEN_NORMS, Checkpointed, Stored, Weight, Workload, dtype_name

if TYPE_CHECKING:
    pass

#: Values of a batch that a layer holds at its widest, in multiples of its widest product and of its width: gate, its
#: activation and up (a product of gathered rows beside the scattered one); residual, normed, and what norms compute
#: in float32. Measured on Llama- and Qwen-shaped layers, quantised and not.
WIDE, NARROW = 5.0, 6.0
#: The same of what attention copies for the texts it computes at once: queries, keys, values, cut and filled up.
ATTENDED = 8
#: Python objects, small tensors, the allocator's rounding.
SLACK = 24 * 2**20
PROBE = 16 * 2**20  # bytes read to measure a disk
MEASURED = 256  # tokens and rows of the product that measures a processor


@dataclass(frozen=True)
class Room:
    """For stored tensors, see `Feeder`."""

    nbytes: int
    fence: int | None = None
    rolls: bool = True


@dataclass(frozen=True)
class Needs:
    """Bytes, and the choices they follow from. room: of stored tensors that are in memory at once. batch_tokens: padded
    tokens of a forward pass. chunks: texts of each pass over the checkpoint."""

    host: int
    gpu: int
    room: Room
    batch_tokens: int
    chunks: tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True)
class Sizes:
    """Of one model, in bytes or values. layer, weight: the largest as stored. outside: dense, beside the layers.
    slots: dense parameters of a layer. width, widest: of a state, and of the widest product. expert: the largest
    expert, dense. depths: of each text's vectors, all of which may be wanted. rounding: beside the tile, where weights
    are rounded. packs: padding does not pass through its layers, nor, where it looks back only (once), what begins
    alike."""

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
    packs: bool = False
    once: bool = False


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
    )


def needs(of: Sizes, asked: Workload, device: str, batch_tokens: int, budget: Budget) -> Needs:
    """The memory of a run, made to fit: with less reading ahead, then in smaller batches, then in several passes.

    Where nothing fits, the smallest possible run is returned; `budget.short` tells what it lacks.
    """
    longest = int(asked.lengths.max())
    sizes_of = [batch_tokens]
    while sizes_of[-1] > longest:
        sizes_of.append(max(longest, sizes_of[-1] // 4))
    # several passes cost more than small batches, these more than not reading ahead
    chunk = len(asked)
    while True:
        chunks = tuple(np.array_split(np.arange(len(asked)), -(-len(asked) // chunk)))
        passes = [asked.select(some) for some in chunks]
        for size in sizes_of:
            divided = [[*batches(some.lengths, size, some.parts)] for some in passes]
            computing = _computing(of, passes, divided, device)
            for room in _rooms(of, device, single=all(len(some) == 1 for some in divided)):
                found = _needs(of, asked, device, computing, room, size, chunks)
                if budget.short(found.host, found.gpu) is None:
                    return found
        if chunk == 1:
            return found
        chunk = -(-chunk // 2)


def _rooms(of: Sizes, device: str, *, single: bool) -> list[Room]:
    """For the stored tensors, what is best first. single: no pass has more than one batch.

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
    of: Sizes, passes: Sequence[Workload], divided: Sequence[Sequence[npt.NDArray[np.int64]]], device: str
) -> int:
    """Bytes of states and of what is computed of them, where it is most. divided: the batches of each pass."""
    most = 0
    for some, found in zip(passes, divided, strict=True):
        padded = [len(rows) * int(some.lengths[rows].max()) for rows in found]
        computed = padded
        if of.packs:
            computed = [int(some.lengths[rows].sum()) for rows in found]
            if of.once and len(found) == 1 and some.beginnings:
                computed = [min(computed[0], some.beginnings)]
        longest = int(some.lengths.max())
        # twice: what a layer makes of them, and the holes its predecessors leave in the heap
        states = sum(padded) * (2 * of.width * of.itemsize + 4 * longest + 64)
        unit = of.width * of.itemsize
        places = -(-longest // PLACES) * PLACES
        copied = COPIED_GPU if device.startswith("cuda") else COPIED_CPU
        attention = ATTENDED * min(max(len(rows) for rows in found) * places * unit, max(copied, places * unit))
        product = int(max(computed) * of.itemsize * WIDE * of.widest)
        most = max(most, states + int(NARROW * max(computed) * unit) + max(product, attention))
    tile = TILE_GPU if device.startswith("cuda") else TILE_CPU
    return most + of.outside + of.slots + of.expert + tile + of.rounding


def _needs(
    of: Sizes,
    asked: Workload,
    device: str,
    computing: int,
    room: Room,
    batch_tokens: int,
    chunks: tuple[npt.NDArray[np.int64], ...],
) -> Needs:
    results = asked.poolings * of.depths * len(asked) * of.width * 4  # float32, on the host, of all passes
    results += min(of.depths * int(asked.lengths.sum()) * 4, TOKEN_NORMS)
    if device == "cpu":
        return Needs(room.nbytes + computing + results + SLACK, 0, room, batch_tokens, chunks)
    host = room.nbytes + of.outside + results + SLACK
    return Needs(host, room.nbytes + computing, room, batch_tokens, chunks)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rates:
    """Bytes per second from these files as they lie now; whether they came from the machine's memory."""

    read: float
    warm: bool


def reading_rate(parts: Sequence[Stored], to_come: bool = False) -> Rates:
    """Read a few MB from three places of a checkpoint's files. What was not in the machine's cache leaves it again.

    to_come: the files are not on this machine yet: the disk is taken to read `SUPPOSED` bytes per second.
    """
    if to_come:
        return Rates(SUPPOSED, False)
    large = sorted(parts, key=lambda p: -p.nbytes)[: max(1, len(parts) // 4)]
    chosen = [large[i * (len(large) - 1) // 2] for i in range(3)] if large else []
    nbytes, seconds, warm = 0, 1e-9, 0
    buffer = bytearray(PROBE // 3)
    for part in chosen:
        size = min(len(buffer), part.nbytes)
        start = part.start + (part.nbytes - size) // 2
        with part.file.open("rb", buffering=0) as stream:
            there = cached(stream.fileno(), start, size)
            began = time.perf_counter()
            nbytes += os.preadv(stream.fileno(), [memoryview(buffer)[:size]], start)
            seconds += time.perf_counter() - began
            warm += there
            if not there:
                forget(stream.fileno(), start, size)
    return Rates(nbytes / seconds if nbytes else SUPPOSED, warm == len(chosen))


def computing_seconds(layers: Sequence[Sequence[Place]], tokens: int, batch_count: int, workshop: Workshop) -> float:
    """For all layers over `tokens` real tokens, from one product of a slice of each kind of weight, as it is stored."""
    import torch

    known: dict[Any, tuple[float, float]] = {}
    total = 0.0
    for layer in layers:
        for place in layer:
            for weight in (w for expert in place.weights for w in expert):
                if len(weight.shape) != 2:
                    continue
                key = weight.format, weight.shape[1], place.by
                if key not in known:
                    known[key] = _measured(weight, workshop)
                each, fixed = known[key]
                values = math.prod(weight.shape)
                share = 1.0 if place.by != "table" else min(1.0, 4 / len(place.weights) + 0.1)
                total += values * (each * tokens * share + fixed * batch_count)
    if workshop.device.startswith("cuda"):
        torch.cuda.synchronize(workshop.device)
    return total * 1.1  # attention, norms and activations


def _measured(weight: Weight, workshop: Workshop) -> tuple[float, float]:
    """(seconds of a product for each weight and token, seconds of dequantising for each weight)."""
    import torch

    rows = min(weight.shape[0], max(2 * MEASURED, weight.step) // weight.step * weight.step)
    parts = {}
    for role, part in weight.parts.items():
        # of the right dtype and shape; what it holds does not change how long it takes
        shape = (rows, *part.shape[1:]) if weight.by_row else part.shape
        parts[role] = torch.zeros(shape, dtype=getattr(torch, dtype_name(part.dtype)), device=workshop.device)
    part = _Slice(weight, rows)
    times = []
    for n in (1, MEASURED):
        x = torch.zeros(n, weight.shape[1], dtype=workshop.dtype, device=workshop.device)
        best = math.inf
        for _ in range(5):
            start = time.perf_counter()
            workshop.product(x, part, parts)
            if workshop.device.startswith("cuda"):
                torch.cuda.synchronize(workshop.device)
            best = min(best, time.perf_counter() - start)
        times.append(best)
    values = rows * weight.shape[1]
    each = max(0.0, times[1] - times[0]) / (MEASURED - 1) / values
    return each, max(0.0, times[0] / values - each)


class _Slice:
    """The first rows of a weight, as a weight."""

    def __init__(self, weight: Weight, rows: int) -> None:
        self._weight = weight
        self.shape = (rows, *weight.shape[1:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._weight, name)


def total_seconds(read_bytes: int, rate: Rates, compute: float, passes: int) -> float:
    """Reading and computing overlap; the longer of the two counts, and building the model."""
    return max(read_bytes * passes / rate.read, compute) + 1.0


def whole_seconds(checkpoint: Checkpointed, tokens: int, device: str, dtype: str) -> float:
    """Of loading a dense checkpoint whole and running it: reading, the first use of new memory, and the products."""
    import torch

    rate = reading_rate([t for t in checkpoint.tensors.values() if t.nbytes], checkpoint.to_come)
    kind = getattr(torch, dtype)
    start = time.perf_counter()
    torch.empty(PROBE, dtype=torch.uint8).fill_(1)
    filling = (time.perf_counter() - start) / PROBE
    x = torch.zeros(MEASURED, 1024, dtype=kind, device=device)
    y = torch.zeros(1024, 1024, dtype=kind, device=device)
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        torch.mm(x, y)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    each = best / (MEASURED * 1024 * 1024)
    table = math.prod(checkpoint.weights[checkpoint.embedding_name].shape)
    heads = 2 * table if any("lm_head" in n for n in checkpoint.tensors) else table
    loading = checkpoint.nbytes / rate.read + checkpoint.parameters * kind.itemsize * filling
    return float(loading) + max(0, checkpoint.parameters - heads) * tokens * each * 1.1 + 1.0
