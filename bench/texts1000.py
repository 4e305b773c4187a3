"""1014 texts through a checkpoint of Qwen2.5-0.5B's shape, against its matrix products and nothing else.

See `ways.products_alone`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from bench import large, material, ways
from bench.case import Answers, Case, Clock, Fact, Rival, Sample
from bench.llama1b import planned
from bench.ways import FORWARD, LOAD_AND_FORWARD

NAME = "qwen05b"
COPIES = 39  # of 26 distinct texts


def ours() -> Sample:
    return ways.streamed(large.folder(NAME), material.gloss_texts(COPIES), dtype="float32")


def products(shared: bool) -> Sample:
    ways.imports()
    clock = Clock()
    seconds, tokens = ways.products_alone(large.folder(NAME), material.gloss_texts(COPIES), shared=shared)
    clock.seconds = {LOAD_AND_FORWARD: seconds, FORWARD: seconds}
    return clock.stop(tokens=tokens)  # type: ignore[arg-type]


def same_tokens(answers: Answers) -> str:
    """Both sides count the same tokens."""
    from bench.case import Differs

    for a, b in answers:
        if a["tokens"] != b["tokens"]:
            raise Differs(f"{a['tokens']} and {b['tokens']} tokens")
    return f"{answers[0][0]['tokens']:.0f} tokens each"


def facts(ours: Sequence[Sample], theirs: Mapping[str, Sequence[Sample]]) -> list[Fact]:  # noqa: ARG001
    """How good the plan was, of several batches."""
    return [planned(ours)]


CASE = Case(
    "Layerwise + Streamed, fp32, bf16 checkpoint of Qwen2.5-0.5B's shape, 1014 texts, two threads",
    ours,
    {
        "products": Rival(
            "the matrix products of every token alone, fp32, by the same library",
            partial(products, shared=False),
            same_tokens,
            {LOAD_AND_FORWARD: 0.8},
        ),
        "shared": Rival(
            "these products, of what begins alike once, as ours does",
            partial(products, shared=True),
            same_tokens,
            {LOAD_AND_FORWARD: 0.8},
        ),
    },
    partial(large.write, NAME),
    memory=False,
    facts=facts,
    threads=2,
    timeout=900,
)
