"""method=static on Llama-70B's embedding table (128256 × 8192, bf16, 2.1 GB), against loading the model for it.

The model has but one layer and no head here: the other sides are spared the rest of its 70 GB.
"""

from __future__ import annotations

from functools import partial

from bench import large, static_rows
from bench.case import Case, Clock, Rival, Sample, equal_within
from bench.ways import imports

NAME = "llama70b-table"


def safetensors_whole() -> Sample:
    imports()
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from bench import material

    folder = large.folder(NAME)
    texts = material.gloss_texts()
    clock = Clock()
    with clock("all"), torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tensors = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(file)
        table = tensors["model.embed_tokens.weight"]
        ids = [torch.tensor(tokenizer(t.text)["input_ids"]) for t in texts.texts]
        vectors = torch.stack([table[i].float().mean(dim=0) for i in ids])[None]
    return clock.stop(vectors=vectors.numpy())


CASE = Case(
    "Static: rows of the table, by index, from the file",
    lambda: static_rows.ours(large.folder(NAME)),
    {
        "transformers": Rival(
            "AutoModel in its stored dtype, get_input_embeddings()(ids)",
            lambda: static_rows.theirs(large.folder(NAME)),
            partial(equal_within, 1e-6),
            {"all": 100},
            ("compressed_tensors",),
        ),
        "safetensors": Rival("load_file of every file, table[ids]", safetensors_whole, partial(equal_within, 1e-6)),
    },
    partial(large.write, NAME),
    over=30,
)
