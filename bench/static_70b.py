"""method=static on Llama-70B's embedding table (128256 × 8192, bf16, 2.1 GB), against loading the model for it.

All 80 layers of the checkpoint are there, 72 GB as files go, but they are holes: nothing of them is read from a disk.
The other sides may not take more than LIMIT bytes of memory for what they copy of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

from bench import large, static_rows
from bench.case import Case, Clock, Rival, Sample, equal_within
from bench.ways import imports
from pairprobe.checkpoints.headers import read_header

NAME = "llama70b-table"
LIMIT = 9 * 10**9
READ = 2**24  # bytes at once


def warmed() -> Path:
    """The folder, once its table lies in memory: the other sides push it out."""
    folder = large.folder(NAME)
    for file in folder.glob("*.safetensors"):
        for name, part in read_header(file)[0].items():
            if "embed_tokens" in name:
                with file.open("rb") as stream:
                    stream.seek(part.start)
                    for done in range(0, part.nbytes, READ):
                        stream.read(min(READ, part.nbytes - done))
    return folder


def limited() -> None:
    """From now on this process ends, rather than the machine, once it has taken more of its own than LIMIT."""

    def watch() -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            taken = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)
            if taken * 1024 > LIMIT:
                print(f"more than {LIMIT / 1e9:.0f} GB of memory", file=sys.stderr, flush=True)
                os._exit(1)
            time.sleep(0.05)

    if Path("/proc/self/status").exists():
        threading.Thread(target=watch, daemon=True).start()


def model() -> Sample:
    imports()
    limited()
    return static_rows.theirs(warmed())


def safetensors_whole() -> Sample:
    imports()
    limited()
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from bench import material

    folder = warmed()
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
    lambda: static_rows.ours(warmed()),
    {
        "transformers": Rival(
            "AutoModel + compressed-tensors in its stored dtype, get_input_embeddings()(ids)",
            model,
            partial(equal_within, 1e-6),
            {"all": 100},
            ("compressed_tensors",),
        ),
        "safetensors": Rival("load_file of every file, table[ids]", safetensors_whole, partial(equal_within, 1e-6)),
    },
    partial(large.write, NAME),
    over=30,
)
