"""A small dense checkpoint → the same in a quantised format, and a dense twin that holds exactly its values.

    quantise_folder(dense, tmp / "awq", "awq", group=16)
    dequantised_twin(dense, tmp / "twin", "awq", group=16)

A model run from the first must give what transformers gives for the second.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.encode import Encoded, encode
from bench.layouts import quantisation
from pairprobe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

#: Parts of a module's path that stay dense in most published checkpoints: tables, head, routers, vision towers.
SKIP = ("lm_head", "embed_tokens", "wte", "wpe", "embeddings", "mlp.gate", "block_sparse_moe.gate", "router", "vision")


def quantise_folder(
    dense: Path,
    folder: Path,
    format: str,
    *,
    skip: tuple[str, ...] = SKIP,
    group: int | None = None,
    activations: bool = True,
    **options: Any,
) -> Path:
    """Write the checkpoint `dense` into `folder` with every matrix of a linear module in `format`.

    Args:
        dense: a folder of safetensors files in floating point; modules named [out, in] (not GPT-2's Conv1D).
        skip: a module whose path ends in one of these, or has it as a part before a dot, stays as it is.
        activations: False: the config does not ask for quantised activations (int8, fp8).
        options: of `encode.quantise`.

    Raises:
        CheckpointError: no matrix is left to quantise. ConfigError: one does not fit the format.
    """
    stored, done = {}, 0
    for name, tensor in _tensors(dense).items():
        made = _encoded(name, tensor, format, skip, group, options)
        if made is None:
            stored[name] = tensor
            continue
        module = name.removesuffix(".weight")
        stored |= {f"{module}.{part}": value.contiguous() for part, value in made.parts.items()}
        done += 1
    if not done:
        raise CheckpointError(f"{dense.name}: no matrix is left to be quantised, with skip={skip}.")
    config = quantisation(format, group)
    found = config.get("quantization_config", {})
    if found.get("quant_method") == "compressed-tensors":
        modules = {name.removesuffix(".weight") for name in stored if name.endswith(".weight")}
        found["ignore"] = sorted({m for m in modules if any(_has(m, part) for part in skip)} | {"lm_head"})
        if not activations:
            for of in found["config_groups"].values():
                of["input_activations"] = None
    if found.get("quant_method") == "gptq":
        found |= {"desc_act": bool(options.get("act_order")), "sym": bool(options.get("symmetric", True))}
        if options.get("v2"):
            found["checkpoint_format"] = "gptq_v2"
    _write(dense, folder, stored, config)
    return folder


def dequantised_twin(
    dense: Path,
    folder: Path,
    format: str,
    *,
    skip: tuple[str, ...] = SKIP,
    group: int | None = None,
    **options: Any,
) -> Path:
    """Write the dense float32 checkpoint whose matrices are worth exactly what `quantise_folder`'s are.

    Arguments and errors are those of `quantise_folder`.
    """
    values = {}
    for name, tensor in _tensors(dense).items():
        made = _encoded(name, tensor, format, skip, group, options)
        values[name] = tensor.float() if made is None else made.values.contiguous()
    _write(dense, folder, values, {"torch_dtype": "float32", "dtype": "float32"})
    return folder


def _encoded(
    name: str, tensor: torch.Tensor, format: str, skip: tuple[str, ...], group: int | None, options: dict[str, Any]
) -> Encoded | None:
    module = name.removesuffix(".weight")
    if tensor.ndim != 2 or not name.endswith(".weight") or any(_has(module, part) for part in skip):
        return None
    return encode(tensor.float(), format, group=group, **options)


def _has(module: str, skip: str) -> bool:
    return f".{module}".endswith(f".{skip}") or f".{skip}." in f".{module}."


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    if not found:
        raise CheckpointError(f"{folder}: no safetensors file is in it.")
    return found


def _write(dense: Path, folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for file in dense.iterdir():
        if file.is_file() and ".safetensors" not in file.name:
            shutil.copy(file, folder / file.name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    before = json.loads((dense / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(before | config, indent=2) + "\n", encoding="utf-8")
