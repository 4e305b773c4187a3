"""Ways from a checkpoint and texts to pooled states: pairprobe's rooms, and scripts without pairprobe.

All pool as the original scripts did, over every token of the text, so that one line of theirs is enough.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from bench import material
from bench.case import Clock, Sample
from pairprobe.records import Texts
from pairprobe.rooms import Execution, Workload

LOAD_AND_FORWARD, FORWARD = "load and forward", "forward only"


def imports() -> None:
    """Everything that either side will need: the same for all, and before the clock starts."""
    import safetensors.torch
    import torch
    import transformers
    import transformers.modeling_utils
    import transformers.quantizers.auto
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
    from transformers.models.bert import modeling_bert
    from transformers.models.llama import modeling_llama
    from transformers.models.qwen2 import modeling_qwen2

    import pairprobe.executions.resident
    import pairprobe.executions.streamed
    import pairprobe.methods.layerwise
    import pairprobe.methods.static
    import pairprobe.tokens  # noqa: F401
    from pairprobe.checkpoints.weight import formats

    assert formats(), "each is a module of its own, imported when the first checkpoint is looked at"
    assert safetensors.torch, (modeling_bert, modeling_llama, modeling_qwen2, AutoModel, AutoModelForCausalLM)
    assert AutoTokenizer, transformers.quantizers.auto
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with contextlib.suppress(ImportError):  # transformers asks for it while it loads such a checkpoint
        import compressed_tensors.quantization  # noqa: F401
    square = torch.ones(64, 64)
    square @ square  # starts the threads


def rooms(folder: Path, texts: Texts) -> Sample:
    """method=layerwise, execution=resident, through the rooms that a run walks through. vectors: all depths."""
    return resident(folder, texts, dtype="float32")


def resident(folder: Path, texts: Texts, **settings: Any) -> Sample:
    """The same in another dtype. settings: of Resident."""
    imports()
    from pairprobe.executions.resident import Resident

    return _walked(folder, texts, cast(Execution, Resident(**{"device": "cpu", **settings})))


def streamed(folder: Path, texts: Texts, **settings: Any) -> Sample:
    """method=layerwise, execution=streamed, without keeping vectors; see `rooms`. settings: of Streamed.

    The answer has `estimate` too: bytes of memory that planning foresaw, asked for once the clock has stopped.
    """
    imports()
    from pairprobe.executions.streamed import Streamed

    return _walked(folder, texts, cast(Execution, Streamed(**{"device": "cpu", "resume": False, **settings})))


def _walked(folder: Path, texts: Texts, execution: Execution) -> Sample:
    from pairprobe.checkpoints.checkpoint import Checkpoint
    from pairprobe.methods.layerwise import Layerwise
    from pairprobe.tokens import tokenise

    method = Layerwise(scope="text", special_tokens=True)
    clock = Clock()
    with clock(LOAD_AND_FORWARD):
        checkpoint = Checkpoint.open(folder)
        tokens = tokenise(checkpoint.tokenizer(), texts)
        vectors, usage = method.vectors(checkpoint, tokens, execution)
    clock.seconds[FORWARD] = usage.seconds["forward"]
    clock.seconds |= {k: v for k, v in usage.seconds.items() if k in ("compute", "read", "wait")}
    sample = clock.stop(vectors=vectors.values)
    sample.answer["estimate"] = np.float64(execution.estimate(checkpoint, Workload.of(tokens)).host)
    sample.answer["tokens"] = np.float64(tokens.lengths.sum())
    return sample


def products_alone(folder: Path, texts: Texts, *, shared: bool, share: int = 4) -> tuple[float, int]:
    """(seconds, tokens) of a streamed fp32 run's matrix products and nothing else: a bound for what it can reach.

    Weights are in memory as fp32, numbers are real ones, batches are ours, and so is the library. shared: what begins
    alike is multiplied once, as we do; else every token is. share: one layer of this many is multiplied, its time taken
    so often, since layers are alike.
    """
    imports()
    import torch

    from pairprobe.checkpoints.checkpoint import Checkpoint
    from pairprobe.executions import sharing
    from pairprobe.executions.batches import batches, right_padded
    from pairprobe.executions.products import Workshop
    from pairprobe.executions.streamed import Streamed
    from pairprobe.tokens import tokenise

    checkpoint = Checkpoint.open(folder)
    tokens = tokenise(checkpoint.tokenizer(), texts)
    sizes = []
    for batch in batches(tokens.lengths, Streamed().batch_tokens):
        ids, mask = right_padded(tokens, batch)
        rows = sharing.rows(ids, mask, "cpu")
        sizes.append(len(rows.first) if rows is not None and shared else int(mask.sum()))
    layers = range(0, checkpoint.layers, share)
    matrices = [
        [
            checkpoint.dense(weight).float()
            for name, weight in checkpoint.weights.items()
            if name.startswith(f"model.layers.{layer}.") and len(weight.shape) == 2
        ]
        for layer in layers
    ]
    inputs = {w.shape[1]: torch.randn(max(sizes), w.shape[1]) for w in matrices[0]}
    out = torch.zeros(max(sizes) * max(w.shape[0] for w in matrices[0]))
    workshop = Workshop("cpu", torch.float32, as_stored=False)
    start = time.perf_counter()
    with torch.inference_mode():
        for layer in matrices:
            for size in sizes:
                for weight in layer:
                    rows, columns = weight.shape
                    workshop.multiply(inputs[columns][:size], weight, out[: size * rows].view(size, rows))
    return (time.perf_counter() - start) * checkpoint.layers / len(layers), int(tokens.lengths.sum())


def one_by_one(folder: Path, texts: Texts, *, head: bool, dtype: str = "float32") -> Sample:
    """The original scripts: the whole model, one text per forward pass, all states asked for.

    head: load it as they did, with its language-modelling head.
    """
    imports()
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    clock = Clock()
    with clock(LOAD_AND_FORWARD), torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        kind = AutoModelForCausalLM if head else AutoModel
        model = kind.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        with clock(FORWARD):
            pooled = []
            for text in texts.texts:
                states = model(**tokenizer(text.text, return_tensors="pt"), output_hidden_states=True).hidden_states
                pooled.append(torch.stack([state[0].float().mean(dim=0) for state in states]))  # [depths, width]
            vectors = torch.stack(pooled, dim=1)
    return clock.stop(vectors=vectors.numpy())


def one_batch(folder: Path, texts: Texts, *, dtype: str = "float32", **loading: Any) -> Sample:
    """The base model, all texts in one padded batch, pooled once all states of all layers are there.

    loading: further arguments of from_pretrained.
    """
    imports()
    import torch
    from transformers import AutoModel, AutoTokenizer

    if loading:
        import accelerate  # noqa: F401
    clock = Clock()
    with clock(LOAD_AND_FORWARD), torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), **loading).eval()
        with clock(FORWARD):
            batch = tokenizer([t.text for t in texts.texts], return_tensors="pt", padding=True, padding_side="right")
            vectors = _pooled(model(**batch, output_hidden_states=True).hidden_states, batch["attention_mask"])
    return clock.stop(vectors=vectors.numpy())


def dequantised_whole(folder: Path, texts: Texts, *, dtype: str) -> Sample:
    """transformers' own model of a quantised checkpoint, every weight made dense by us beforehand, one batch."""
    imports()
    import torch

    from pairprobe.checkpoints.checkpoint import Checkpoint

    kind = getattr(torch, dtype)
    clock = Clock()
    with clock(LOAD_AND_FORWARD), torch.no_grad():
        checkpoint = Checkpoint.open(folder)
        tokenizer = checkpoint.tokenizer()
        model = checkpoint.empty_model(dtype).eval()
        for name, weight in checkpoint.assigned(model).items():
            path, _, leaf = name.rpartition(".")
            dense = torch.nn.Parameter(checkpoint.dense(weight).to(kind), requires_grad=False)
            model.get_submodule(path)._parameters[leaf] = dense
        with clock(FORWARD):
            batch = tokenizer([t.text for t in texts.texts], return_tensors="pt", padding=True, padding_side="right")
            vectors = _pooled(model(**batch, output_hidden_states=True).hidden_states, batch["attention_mask"])
    return clock.stop(vectors=vectors.numpy())


def offloaded(folder: Path, texts: Texts) -> Sample:
    """accelerate's disk offload: every module left in the files until its forward pass, one batch, fp32."""
    place = material.own("offload")
    return one_batch(folder, texts, device_map={"": "disk"}, offload_folder=place, offload_state_dict=False)


def airllm(folder: Path, texts: Texts) -> Sample:
    """AirLLM: the checkpoint split into a file a layer beforehand (`split_for_airllm`), then one batch, fp32."""
    imports()
    import torch
    from airllm import AutoModel
    from transformers import AutoTokenizer

    clock = Clock()
    with clock(LOAD_AND_FORWARD), torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = _airllm(AutoModel, folder)
        with clock(FORWARD):
            batch = tokenizer([t.text for t in texts.texts], return_tensors="pt", padding=True, padding_side="right")
            mask = batch["attention_mask"]
            found = model(batch["input_ids"], attention_mask=mask, output_hidden_states=True, use_cache=False)
            vectors = _pooled(found.hidden_states, mask)
    return clock.stop(vectors=vectors.numpy())


def split_for_airllm(folder: Path) -> None:
    """Let AirLLM rewrite the checkpoint, which it does the first time it sees one; unmeasured."""
    from airllm import AutoModel

    _airllm(AutoModel, folder)


def _airllm(of: Any, folder: Path) -> Any:
    import torch

    shards = material.own(f"airllm-{folder.name}")
    return of.from_pretrained(str(folder), device="cpu", dtype=torch.float32, layer_shards_saving_path=str(shards))


def _pooled(states: Any, mask: Any) -> Any:
    """float32 [depths, texts, width]: the mean over each text's real tokens."""
    import torch

    real = mask[..., None].float()
    return torch.stack([(state.float() * real).sum(dim=1) / real.sum(dim=1) for state in states])
