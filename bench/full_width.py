"""The first four layers of the 70B checkpoints, full width, as stored: streamed, and by those who load them whole.

What the whole model would take is said beside it: time from what grows with layers and what does not, memory as
planned from the headers of the whole checkpoint.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bench import large, material, ways
from bench.case import PEAK, Case, Fact, Rival, Sample
from bench.llama1b import close, planned
from bench.ways import FORWARD, LOAD_AND_FORWARD

INT8, AWQ = "llama70b-4-int8", "qwen72b-4-awq"
LAYERS, ALL = 4, 80
WHOLE_COMPUTE = 75.0  # seconds, of 80 layers W8A8
WHOLE_MEMORY = 3000.0  # MB over base


def ours(name: str) -> Sample:
    found = ways.streamed(large.folder(name), material.gloss_texts(), dtype="float32")
    found.answer["whole"] = _planned_whole(name)
    return found


def _planned_whole(name: str) -> Any:
    """Bytes of memory planned for all 80 layers, asked for once the clock has stopped."""
    import numpy as np

    from pairprobe.checkpoints.checkpoint import Checkpoint
    from pairprobe.executions.streamed import Streamed
    from pairprobe.rooms import Workload
    from pairprobe.tokens import tokenise

    checkpoint = Checkpoint.open(large.whole(name))
    tokens = tokenise(checkpoint.tokenizer(), material.gloss_texts())
    return np.float64(Streamed(device="cpu", dtype="float32").estimate(checkpoint, Workload.of(tokens)).host)


def whole(name: str) -> Sample:
    """transformers' own way: whichever package it takes for the format."""
    return ways.one_batch(large.folder(name), material.gloss_texts(), dtype="bfloat16")


def dense(name: str) -> Sample:
    return ways.dequantised_whole(large.folder(name), material.gloss_texts(), dtype="bfloat16")


def facts(ours: Sequence[Sample], theirs: Mapping[str, Sequence[Sample]], integers: bool) -> list[Fact]:  # noqa: ARG001
    """How good the plan was, and all 80 layers."""
    once = statistics.median(s.seconds[LOAD_AND_FORWARD] - s.seconds[FORWARD] for s in ours)
    forward = statistics.median(s.seconds[FORWARD] for s in ours)
    compute = statistics.median(s.seconds["compute"] for s in ours) * ALL / LAYERS
    memory = float(ours[0].answer["whole"]) / 1e6
    found = [planned(ours)]
    if integers:
        must = f"≤ {WHOLE_COMPUTE:g} s"
        found.append(Fact(f"{ALL} layers: compute", f"{compute:.0f} s", "", must, compute <= WHOLE_COMPUTE))
    found.append(Fact(f"{ALL} layers: load and forward, files in memory", f"{once + forward * ALL / LAYERS:.0f} s"))
    must = f"≤ {WHOLE_MEMORY / 1000:g} GB"
    found.append(Fact(f"{ALL} layers: memory over base", f"{memory:.0f} MB", "", must, memory <= WHOLE_MEMORY))
    return found


def prepare(name: str) -> None:
    large.write(name)
    large.whole(name)
    if name == AWQ and not CASES["awq"].rivals["gptqmodel"].missing:
        whole(name)  # gptqmodel compiles its kernels the first time, for minutes


MUST = {LOAD_AND_FORWARD: 1, PEAK: 4}
CASES = {
    "int8": Case(
        "Layerwise + Streamed, fp32, W8A8 as stored (compressed-tensors int-quantized), 4 layers of Llama-70B's shape",
        partial(ours, INT8),
        {
            "transformers": Rival(
                "AutoModel + compressed-tensors, bf16, all texts in one padded batch",
                partial(whole, INT8),
                close,
                MUST,
                ("compressed_tensors",),
                14 * 10**9,
            )
        },
        partial(prepare, INT8),
        threads=2,
        timeout=900,
        facts=partial(facts, integers=True),
    ),
    "awq": Case(
        "Layerwise + Streamed, fp32, AWQ as stored, 4 layers of Qwen-72B's shape",
        partial(ours, AWQ),
        {
            "gptqmodel": Rival(
                "AutoModel + gptqmodel, bf16, all texts in one padded batch",
                partial(whole, AWQ),
                close,
                MUST,
                ("gptqmodel",),
                14 * 10**9,
            ),
            "whole": Rival(
                "transformers' model with every weight dequantised by us beforehand, bf16, one padded batch",
                partial(dense, AWQ),
                close,
                MUST,
                room=14 * 10**9,
            ),
        },
        partial(prepare, AWQ),
        threads=2,
        timeout=900,
        facts=partial(facts, integers=False),
    ),
}
