"""Ways from a checkpoint and texts to pooled states: pairprobe's rooms, and scripts without pairprobe.

All pool as the original scripts did, over every token of the text, so that one line of theirs is enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from bench.case import Clock, Sample
from pairprobe.records import Texts
from pairprobe.rooms import Execution

LOAD_AND_FORWARD, FORWARD = "load and forward", "forward only"


def imports() -> None:
    """Everything that either side will need: the same for all, and before the clock starts."""
    import safetensors.torch
    import torch
    import transformers
    from transformers.models.bert import modeling_bert
    from transformers.models.llama import modeling_llama

    import pairprobe.executions.resident
    import pairprobe.methods.layerwise
    import pairprobe.methods.static
    import pairprobe.tokens  # noqa: F401

    assert safetensors.torch, (modeling_bert, modeling_llama)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    square = torch.ones(64, 64)
    square @ square  # starts the threads


def rooms(folder: Path, texts: Texts) -> Sample:
    """method=layerwise, execution=resident, through the rooms that a run walks through. vectors: all depths."""
    imports()
    from pairprobe.checkpoints.checkpoint import Checkpoint
    from pairprobe.executions.resident import Resident
    from pairprobe.methods.layerwise import Layerwise
    from pairprobe.tokens import tokenise

    method = Layerwise(scope="text", special_tokens=True)
    execution = cast(Execution, Resident(device="cpu", dtype="float32"))
    clock = Clock()
    with clock(LOAD_AND_FORWARD):
        checkpoint = Checkpoint.open(folder)
        tokens = tokenise(checkpoint.tokenizer(), texts)
        vectors, usage = method.vectors(checkpoint, tokens, execution)
    clock.seconds[FORWARD] = usage.seconds["forward"]
    return clock.stop(vectors=vectors.values)


def one_by_one(folder: Path, texts: Texts, *, head: bool) -> Sample:
    """The original scripts: the whole model in fp32, one text per forward pass, all states asked for.

    head: load it as they did, with its language-modelling head.
    """
    imports()
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    clock = Clock()
    with clock(LOAD_AND_FORWARD), torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = (AutoModelForCausalLM if head else AutoModel).from_pretrained(folder, dtype=torch.float32).eval()
        with clock(FORWARD):
            pooled = []
            for text in texts.texts:
                states = model(**tokenizer(text.text, return_tensors="pt"), output_hidden_states=True).hidden_states
                pooled.append(torch.stack([state[0].mean(dim=0) for state in states]))  # [depths, width]
            vectors = torch.stack(pooled, dim=1)
    return clock.stop(vectors=vectors.numpy())


def one_batch(folder: Path, texts: Texts) -> Sample:
    """The base model in fp32, all texts in one padded batch, pooled once all states of all layers are there."""
    imports()
    import torch
    from transformers import AutoModel, AutoTokenizer

    clock = Clock()
    with clock(LOAD_AND_FORWARD), torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        with clock(FORWARD):
            batch = tokenizer([t.text for t in texts.texts], return_tensors="pt", padding=True, padding_side="right")
            states = model(**batch, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"][..., None].float()
            vectors = torch.stack([(state * mask).sum(dim=1) / mask.sum(dim=1) for state in states])
    return clock.stop(vectors=vectors.numpy())
