"""method=static, which reads rows of the embedding table, against loading the model for its embedding module.

The other side loads in the stored dtype, which is transformers' default: bf16 is mapped from the file and hardly
copied.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

from bench import material
from bench.case import Case, Clock, Rival, Sample, equal_within
from bench.ways import imports
from pairprobe.rooms import Execution


def ours(folder: Path | None = None) -> Sample:
    imports()
    from pairprobe.checkpoints.checkpoint import Checkpoint
    from pairprobe.executions.resident import Resident
    from pairprobe.methods.static import Static
    from pairprobe.tokens import tokenise

    folder = folder or material.llama()
    texts = material.gloss_texts()
    method = Static(scope="text", special_tokens=True)
    execution = cast(Execution, Resident(device="cpu"))  # not used: a part of every method's call
    clock = Clock()
    with clock("all"):
        checkpoint = Checkpoint.open(folder)
        tokens = tokenise(checkpoint.tokenizer(), texts)
        vectors, _ = method.vectors(checkpoint, tokens, execution)
    return clock.stop(vectors=vectors.values)


def theirs(folder: Path | None = None) -> Sample:
    imports()
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = folder or material.llama()
    texts = material.gloss_texts()
    clock = Clock()
    with clock("all"), torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        table = AutoModel.from_pretrained(folder).get_input_embeddings()
        ids = [torch.tensor(tokenizer(t.text)["input_ids"]) for t in texts.texts]
        vectors = torch.stack([table(i).float().mean(dim=0) for i in ids])[None]
    return clock.stop(vectors=vectors.numpy())


CASE = Case(
    "Static: rows of the table, by index, from the file",
    ours,
    {
        "theirs": Rival(
            "AutoModel in its stored dtype, get_input_embeddings()(ids)", theirs, partial(equal_within, 1e-6)
        )
    },
    material.write_llama,
)
