"""How long streaming a checkpoint would take: a short measurement of this disk and this processor."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pairprobe.executions.cache import cached, forget
from pairprobe.executions.products import Workshop
from pairprobe.executions.slots import Place
from pairprobe.rooms import SUPPOSED, Checkpointed, Stored, Weight, dtype_name

PROBE = 16 * 2**20  # bytes read to measure a disk
MEASURED = 256  # tokens and rows of the product that measures a processor


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


def total_seconds(read_bytes: int, rate: Rates, compute: float, passes: int, building: float) -> float:
    """Reading and computing overlap; the longer of the two counts, and `building` the model, which each pass does anew
    and the first one with all that it imports."""
    return max(read_bytes * passes / rate.read, compute) + 1.0 + building * (passes - 1)


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
