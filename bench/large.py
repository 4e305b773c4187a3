"""Checkpoints of published shapes with random weights, made once a run and shared by the cases; and the truth of one.

Their tokenizer is the one of `material`, which makes 11 to 18 tokens of a gloss text, as published ones do:
`make_checkpoint`'s own knows single bytes, hardly more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.make_checkpoint import make
from bench.material import FOLDER, gloss_texts, tokenizer, warm
from bench.shapes import SHAPES, Shape

#: name → (shape, format). Full width; table and head are small where nothing of them is measured.
LARGE: dict[str, tuple[Shape, str]] = {
    "llama1b": (SHAPES["llama1b"], "bf16"),
    "qwen05b": (SHAPES["qwen05b"], "bf16"),
    "llama70b-4-int8": (SHAPES["llama70b"].reduced(layers=4, vocab=8192), "int8"),
    "qwen72b-4-awq": (SHAPES["qwen72b"].reduced(layers=4, vocab=8192), "awq"),
    "llama70b-table": (SHAPES["llama70b"], "int8"),
}
EVERYTHING = ("",)
#: name → tensors that are left as holes. Of the whole model, 72 GB, only the table is written: nobody reads the rest.
HOLES = {"llama70b-table": (".layers.", "lm_head")}
#: The whole models, of which only headers are written: enough to plan a run.
WHOLE = {"llama70b-4-int8": ("llama70b", "int8"), "qwen72b-4-awq": ("qwen72b", "awq")}


def folder(name: str) -> Path:
    """Where the checkpoint of this name in LARGE is; see `write`."""
    return Path(os.environ[FOLDER]) / name


def write(name: str) -> None:
    """Write the checkpoint unless it is there, and read it once."""
    written(folder(name), *LARGE[name], HOLES.get(name, ()))
    if name not in HOLES:  # reading a hole fills memory with zeros
        warm(folder(name))


def whole(name: str) -> Path:
    """The whole model of which `name` holds the first layers, as headers over files with holes."""
    shape, format = WHOLE[name]
    place = folder(f"{name}-whole")
    written(place, SHAPES[shape], format, holes=EVERYTHING)
    return place


def written(place: Path, shape: Shape, format: str, holes: Sequence[str] = ()) -> None:
    """Write this checkpoint into `place`, unless it is there, with the tokenizer of `material`; holes: as `make`'s."""
    if place.exists():
        return
    unfinished = place.with_name(f"{place.name}.{os.getpid()}")
    make(unfinished, shape, format, holes=holes)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (unfinished / file).unlink()
    tokenizer().save_pretrained(unfinished)
    try:
        unfinished.rename(place)
    except OSError:  # another run was faster
        shutil.rmtree(unfinished)


# ── the truth ────────────────────────────────────────────────────────────────────────────────────────────


def truth(name: str, copies: int = 1) -> npt.NDArray[np.float64]:
    """Pooled states [depths, texts, width] of a Llama or Qwen2, all arithmetic in float64; computed once, then kept.

    Pooled over all tokens of the text. transformers' model, its norms and rotary tables rewritten, since they compute
    in float32 whatever the model's dtype; one layer at a time in float64, which a bf16 weight becomes without loss.
    """
    file = truth_file(name, copies)
    if not file.exists():
        np.save(file, _truth(folder(name), copies))
    found: npt.NDArray[np.float64] = np.load(file)
    return found


def truth_file(name: str, copies: int = 1) -> Path:
    """Where `truth` keeps it."""
    return folder(name).with_name(f"truth-{name}-{copies}.npy")


def _truth(place: Path, copies: int) -> npt.NDArray[np.float64]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    def norm(module: Any, x: Any) -> Any:
        x = x.double()
        scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
        return module.weight.double() * scaled

    def rotary(module: Any, x: Any, position_ids: Any) -> Any:  # noqa: ARG001
        angles = position_ids[..., None].double() * module.inv_freq.double()
        both = torch.cat([angles, angles], dim=-1)
        return both.cos() * module.attention_scaling, both.sin() * module.attention_scaling

    pieces = AutoTokenizer.from_pretrained(place)
    model = AutoModel.from_pretrained(place, dtype=torch.bfloat16, attn_implementation="eager").eval()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm.__get__(module)
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = rotary.__get__(module)
    batch = pieces([t.text for t in gloss_texts(copies).texts], return_tensors="pt", padding=True)
    mask = batch["attention_mask"].double()
    kept: list[Any] = []

    def before(layer: Any, args: Any) -> Any:
        layer.double()
        kept.append((args[0].double() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return (args[0].double(), *args[1:])

    for layer in model.layers:
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(lambda layer, _args, _out: layer.bfloat16() and None)
    with torch.no_grad(), _softmax_in_float64():
        last = model(**batch, use_cache=False).last_hidden_state
    kept.append((last.double() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    return torch.stack(kept).numpy()  # type: ignore[no-any-return]


class _softmax_in_float64:
    """Within, torch.nn.functional.softmax ignores the float32 that eager attention asks for."""

    def __enter__(self) -> None:
        import torch

        self.before = torch.nn.functional.softmax
        torch.nn.functional.softmax = lambda x, dim=None, dtype=None: self.before(x.double(), dim=dim)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.nn.functional.softmax = self.before


def cosine_error(vectors: npt.NDArray[np.float64], exact: npt.NDArray[np.float64]) -> float:
    """The largest error of the cosine of any two texts at any depth; both are [depths, texts, width]."""

    def cosines(of: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        unit = of / np.linalg.norm(of, axis=-1, keepdims=True)
        return unit @ unit.swapaxes(-1, -2)

    return float(np.abs(cosines(vectors) - cosines(exact)).max())
