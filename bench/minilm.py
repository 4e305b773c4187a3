"""method=layerwise against one text per forward pass, on 26 texts and the embedded default model.

MiniLM has no language-modelling head: the script's AutoModelForCausalLM would invent a random one, so the other
side is spared it.
"""

from __future__ import annotations

from functools import partial

from bench import material, ways
from bench.case import Case, Rival, Sample, equal_within


def prepare() -> None:
    material.warm(material.minilm())


def ours() -> Sample:
    return ways.rooms(material.minilm(), material.gloss_texts())


def theirs() -> Sample:
    return ways.one_by_one(material.minilm(), material.gloss_texts(), head=False)


CASE = Case(
    "Layerwise + Resident, fp32: texts in batches, states pooled as they come",
    ours,
    {
        "theirs": Rival(
            "AutoModel, fp32: one text per forward pass, output_hidden_states=True", theirs, partial(equal_within, 1e-5)
        )
    },
    prepare,
)
