"""method=layerwise against the original scripts, on 26 texts and a Llama of 121 M parameters."""

from __future__ import annotations

from functools import partial

from bench import material, ways
from bench.case import Case, Rival, Sample, equal_within


def ours() -> Sample:
    return ways.rooms(material.llama(), material.gloss_texts())


def theirs() -> Sample:
    return ways.one_by_one(material.llama(), material.gloss_texts(), head=True)


CASE = Case(
    "Layerwise + Resident, fp32: base model, texts in batches, states pooled as they come",
    ours,
    {
        "theirs": Rival(
            "AutoModelForCausalLM, fp32: one text per forward pass, output_hidden_states=True",
            theirs,
            partial(equal_within, 1e-5),
        )
    },
    material.write_llama,
)
