"""method=layerwise against one padded batch of 260 texts that keeps the states of every layer."""

from __future__ import annotations

from functools import partial

from bench import material, ways
from bench.case import Case, Rival, Sample, equal_within

COPIES = 10


def ours() -> Sample:
    return ways.rooms(material.llama(), material.gloss_texts(COPIES))


def theirs() -> Sample:
    return ways.one_batch(material.llama(), material.gloss_texts(COPIES))


CASE = Case(
    "Layerwise + Resident, fp32: batches of 4096 tokens, states pooled as they come",
    ours,
    {
        "theirs": Rival(
            "AutoModel, fp32: all texts in one padded batch, output_hidden_states=True, pooled afterwards",
            theirs,
            partial(equal_within, 1e-5),
        )
    },
    material.write_llama,
)
