"""1014 texts through a checkpoint of Qwen2.5-0.5B's shape, against its matrix products and nothing else.

The bound multiplies real numbers of the same shapes, batch by batch as we do, in fp32, weights already in memory as
fp32: a quarter of the layers, its time taken four times, since layers are alike.
"""

from __future__ import annotations

import time
from functools import partial

from bench import large, material, ways
from bench.case import Answers, Case, Clock, Rival, Sample
from bench.ways import FORWARD, LOAD_AND_FORWARD

NAME = "qwen05b"
COPIES = 39  # of 26 distinct texts
SHARE = 4  # one layer of this many is multiplied


def ours() -> Sample:
    return ways.streamed(large.folder(NAME), material.gloss_texts(COPIES), dtype="float32")


def products() -> Sample:
    ways.imports()
    import torch

    from pairprobe.checkpoints.checkpoint import Checkpoint
    from pairprobe.executions.batches import batches
    from pairprobe.executions.streamed import Streamed
    from pairprobe.tokens import tokenise

    checkpoint = Checkpoint.open(large.folder(NAME))
    lengths = tokenise(checkpoint.tokenizer(), material.gloss_texts(COPIES)).lengths
    sizes = [int(lengths[rows].sum()) for rows in batches(lengths, Streamed().batch_tokens)]
    layers = range(0, checkpoint.layers, SHARE)
    matrices = [
        [
            checkpoint.dense(weight).float()
            for name, weight in checkpoint.weights.items()
            if name.startswith(f"model.layers.{layer}.") and len(weight.shape) == 2
        ]
        for layer in layers
    ]
    most, widest = max(sizes), max(w.shape[0] for layer in matrices for w in layer)
    inputs = {w.shape[1]: torch.randn(most, w.shape[1]) for w in matrices[0]}
    out = torch.zeros(most * widest)
    clock = Clock()
    start = time.perf_counter()
    for layer in matrices:
        for size in sizes:
            for weight in layer:
                rows, columns = weight.shape
                torch.mm(inputs[columns][:size], weight.t(), out=out[: size * rows].view(size, rows))
    seconds = (time.perf_counter() - start) * SHARE
    clock.seconds = {LOAD_AND_FORWARD: seconds, FORWARD: seconds}
    return clock.stop(tokens=sum(sizes))  # type: ignore[arg-type]


def same_tokens(answers: Answers) -> str:
    """Both sides count the same tokens."""
    from bench.case import Differs

    for a, b in answers:
        if a["tokens"] != b["tokens"]:
            raise Differs(f"{a['tokens']} and {b['tokens']} tokens")
    return f"{answers[0][0]['tokens']:.0f} tokens each"


CASE = Case(
    "Layerwise + Streamed, fp32, bf16 checkpoint of Qwen2.5-0.5B's shape, 1014 texts, two threads",
    ours,
    {"products": Rival("torch.mm of the same shapes alone, fp32", products, same_tokens, {LOAD_AND_FORWARD: 0.8})},
    partial(large.write, NAME),
    memory=False,
    threads=2,
    most=3,
    timeout=900,
)
