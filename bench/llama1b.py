"""method=layerwise, streamed, on a checkpoint of Llama-3.2-1B's shape in bf16 and the gloss texts, beside six others.

Errors are of cosines between any two texts at any depth, against the same weights computed in float64 (`large.truth`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from bench import large, material, ways
from bench.case import PEAK, Answers, Case, Differs, Fact, Rival, Sample, equal_within
from bench.ways import LOAD_AND_FORWARD

NAME = "llama1b"
#: What a bf16 rival's cosines may be off by before it counts as another model.
BF16 = 0.05
ERROR = 1e-6
ESTIMATE = 0.15  # planning may be off by


def prepare() -> None:
    large.write(NAME)
    large.truth(NAME)


def prepare_all() -> None:
    prepare()
    if not CASES["one_thread"].rivals["AirLLM"].missing:
        ways.split_for_airllm(large.folder(NAME))
        material.warm(material.own(f"airllm-{NAME}") / "splitted_model")


def ours(dtype: str = "float32") -> Sample:
    found = ways.streamed(large.folder(NAME), material.gloss_texts(), dtype=dtype)
    if dtype == "float32":  # once the clock has stopped
        alone, _ = ways.products_alone(large.folder(NAME), material.gloss_texts(), shared=True)
        found.answer["products"] = np.float64(alone)
    return found


def script(dtype: str) -> Sample:
    return ways.one_by_one(large.folder(NAME), material.gloss_texts(), head=True, dtype=dtype)


def batched(dtype: str) -> Sample:
    return ways.one_batch(large.folder(NAME), material.gloss_texts(), dtype=dtype)


def close(answers: Answers) -> str:
    """Cosines of a bf16 rival: near ours. Raises Differs."""
    worst = max(large.cosine_error(b["vectors"], a["vectors"]) for a, b in answers)
    if not worst <= BF16:
        raise Differs(f"cosines differ by {worst:.1e}; {BF16:g} is allowed")
    return f"cosines: {worst:.1g} of {BF16:g}"


def facts(ours: Sequence[Sample], theirs: Mapping[str, Sequence[Sample]]) -> list[Fact]:
    """How exact each way is, and how good the plan was."""
    exact = large.truth(NAME)
    own = max(large.cosine_error(s.answer["vectors"], exact) for s in ours)
    found = [Fact("error of cosines", f"{own:.1e}", "", f"≤ {ERROR:g}", own <= ERROR)]
    for rival, samples in theirs.items():
        off = max(large.cosine_error(s.answer["vectors"], exact) for s in samples)
        found.append(Fact(f"{rival}: error of cosines", f"{own:.1e}", f"{off:.1e}"))
    alone = float(np.median([s.answer["products"] for s in ours]))
    return [*found, planned(ours), Fact("its fp32 products alone", f"{alone:.3g} s")]


def planned(ours: Sequence[Sample]) -> Fact:
    """The memory that planning foresaw over that which was taken."""
    ratios = [float(s.answer["estimate"]) / (s.peak - s.peak_before) for s in ours]
    ratio = float(np.median(ratios))
    mib = float(ours[0].answer["estimate"]) / 2**20
    return Fact(
        "planned memory ÷ taken", f"{ratio:.2f} ({mib:.0f} MiB planned)", "", "0.85–1.15", abs(ratio - 1) <= ESTIMATE
    )


OURS = "Layerwise + Streamed, fp32, bf16 checkpoint of Llama-3.2-1B's shape, {threads}"
EXACT = partial(equal_within, 1e-5)
OURS_BF16 = "Layerwise + Streamed, bf16 (execution.dtype=bfloat16), the same checkpoint, {threads}"
BATCHED_BF16 = Rival(
    "AutoModel, bf16, all texts in one padded batch",
    partial(batched, "bfloat16"),
    close,
    {LOAD_AND_FORWARD: 1.3, PEAK: 2},
)
BATCHED = {
    "batched fp32": Rival(
        "AutoModel, fp32, all texts in one padded batch",
        partial(batched, "float32"),
        EXACT,
        {LOAD_AND_FORWARD: 2, PEAK: 5},
    ),
    "batched bf16": BATCHED_BF16,
}
CASES = {
    "one_thread": Case(
        OURS.format(threads="one thread"),
        ours,
        {
            "script fp32": Rival(
                "AutoModelForCausalLM, fp32, one text per forward pass, output_hidden_states=True",
                partial(script, "float32"),
                EXACT,
                {LOAD_AND_FORWARD: 6},
            ),
            "script bf16": Rival("the same in bf16", partial(script, "bfloat16"), close, {LOAD_AND_FORWARD: 3}),
            **BATCHED,
            "accelerate": Rival(
                "AutoModel, fp32, device_map={'': 'disk'}, all texts in one padded batch",
                lambda: ways.offloaded(large.folder(NAME), material.gloss_texts()),
                EXACT,
                {LOAD_AND_FORWARD: 2.4},
                ("accelerate",),
            ),
            "AirLLM": Rival(
                "airllm.AutoModel, fp32, all texts in one padded batch, the checkpoint split beforehand",
                lambda: ways.airllm(large.folder(NAME), material.gloss_texts()),
                EXACT,
                {LOAD_AND_FORWARD: 3.3},
                ("airllm",),
            ),
        },
        prepare_all,
        threads=1,
        facts=facts,
    ),
    "two_threads": Case(OURS.format(threads="two threads"), ours, BATCHED, prepare, threads=2, facts=facts),
    # like for like: where a processor multiplies bf16 faster than fp32, both sides may
    "bf16_one_thread": Case(
        OURS_BF16.format(threads="one thread"),
        partial(ours, "bfloat16"),
        {
            "script bf16": Rival(
                "AutoModelForCausalLM, bf16, one text per forward pass, output_hidden_states=True",
                partial(script, "bfloat16"),
                close,
                {LOAD_AND_FORWARD: 3},
            ),
            "batched bf16": BATCHED_BF16,
        },
        prepare,
        threads=1,
    ),
    "bf16_two_threads": Case(
        OURS_BF16.format(threads="two threads"),
        partial(ours, "bfloat16"),
        {"batched bf16": BATCHED_BF16},
        prepare,
        threads=2,
    ),
}
