"""GGUF files: llama.cpp's container of metadata, a table of tensors, and their bytes.

opened = open_file(Path("/models/x-Q4_K_M.gguf"))
opened.config, opened.tensors["model.layers.0.self_attn.q_proj.weight"]
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pairprobe.checkpoints import gguf_config, reading
from pairprobe.checkpoints.formats.gguf_blocks import DEQUANTISERS, READ, GgufTensor
from pairprobe.checkpoints.gguf_config import Architecture
from pairprobe.checkpoints.gguf_container import AGAIN, Container, read_container, read_remote
from pairprobe.checkpoints.headers import FLOATS, Tensor
from pairprobe.checkpoints.remote import Remote
from pairprobe.checkpoints.url import keep
from pairprobe.errors import CheckpointError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
#: Names for the way Llama 3's tokenizer splits text (tokenizer.ggml.pre).
LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class Opened:
    """A model from one GGUF file or its parts. config and the names of `tensors`: Hugging Face's. header: all bytes
    that are neither weights nor padding, for an identity. tokenizer: a folder whose tokenizer is this model's, None
    where `tokenizer` finds it by the first file."""

    files: tuple[Path, ...]
    architecture: str
    config: dict[str, Any]
    tensors: dict[str, GgufTensor]
    header: bytes
    tokenizer: Path | None = None


def find(folder: Path, files: Sequence[Path | Remote] | None = None) -> Opened | None:
    """The GGUF model that is this file, lies in this folder or is made of `files` on a server; None where none is.

    files: with names from `folder` on, which holds a tokenizer beside them where their server does.
    """
    if files is None:
        return open_file(folder) if _is_gguf(folder) else None
    remotes = [file for file in files if isinstance(file, Remote) and file.name.endswith(".gguf")]
    if not remotes:
        return None
    beside = (folder / remotes[0].name).parent
    there = any((beside / name).exists() for name in TOKENIZER_FILES)
    return replace(open_remotes(remotes), tokenizer=beside if there else None)


def _is_gguf(path: Path) -> bool:
    if path.is_dir():
        return not any(path.glob("*.safetensors")) and any(path.glob("*.gguf"))
    return path.suffix == ".gguf"


def files_of(path: Path) -> tuple[Path, ...]:
    """The file itself, all parts of a split one, or those of the one model a folder holds; in order.

    Raises:
        CheckpointError: no .gguf file, several models, or a part is missing.
    """
    if path.is_dir():
        found = sorted(f for f in path.glob("*.gguf") if not f.name.lower().startswith("mmproj"))  # a vision tower
        models = sorted({_PART.sub(r"\1-00001-of-\3.gguf", f.name) for f in found})
        if len(models) != 1:
            what = f"{len(models)} models ({', '.join(models[:4])})" if models else "no .gguf file"
            raise CheckpointError(f"{path}: {what}.", f"Name the file itself: model.source={path}/….gguf")
        path = path / models[0]
    parts = [path.with_name(part) for part in parts_of(path.name)]
    missing = [p.name for p in parts if not p.is_file()]
    if (missing and len(parts) > 1) or not parts:
        shown = ", ".join(missing[:4])
        raise CheckpointError(f"{path.name}: {len(missing)} of {len(parts)} parts are missing: {shown}.", AGAIN)
    return tuple(parts)


def parts_of(name: str) -> tuple[str, ...]:
    """Names of all parts of the split file that `name` is one of; of any other file, `name` alone."""
    split = _PART.fullmatch(name)
    if not split:
        return (name,)
    stem, _, count = split.groups()
    return tuple(f"{stem}-{n:05d}-of-{count}.gguf" for n in range(1, int(count) + 1))


def open_file(path: Path) -> Opened:
    """Metadata and tensor table of a model in GGUF; of the weights only rotary factors are read (some hundred bytes).

    A config.json beside the file tells more than its metadata do, and is believed where the two agree on the model.

    Raises:
        CheckpointError: damaged, incomplete, or an architecture or a type that is not read.
    """
    files = files_of(path)
    return _opened(files, [read_container(file) for file in files], _beside(files[0]))


def open_remotes(files: Sequence[Remote]) -> Opened:
    """`open_file` of a model's files on a server, in order; their headers alone are fetched.

    The one file of what comes back lies in the user's cache. It holds the metadata, for `tokenizer`, and no tensors;
    these are to be read where they are.
    """
    found = [read_remote(file) for file in files]
    opened = _opened(tuple(Path(file.name) for file in files), found, None)
    name = _PART.sub(r"\1.gguf", opened.files[0].name)
    return replace(opened, files=(keep(files[0].url, {name: found[0].without_tensors}) / name,))


def _opened(files: Sequence[Path], containers: Sequence[Container], beside: dict[str, Any] | None) -> Opened:
    """What the headers of all files say together. beside: the config.json that lies beside the first."""
    first = files[0]
    metadata: dict[str, Any] = {}
    stored: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    raw = []
    for file, one in zip(files, containers, strict=True):
        twice = sorted(stored.keys() & one.tensors.keys())
        if twice:
            raise CheckpointError(f"{file.name}: {twice[0]} is stored in another part already.", AGAIN)
        metadata = one.metadata | metadata  # the first part's win
        stored |= one.tensors
        shapes |= one.shapes
        raw.append(one.raw)
    due = metadata.get("split.tensors.count", len(stored))
    if due != len(stored) or metadata.get("split.count", len(files)) not in (0, len(files)):
        raise CheckpointError(f"{first.name}: {len(files)} files with {len(stored)} tensors; {due} were due.", AGAIN)
    arch = gguf_config.architecture(metadata, first.name)
    kind = gguf_config.kind_of(metadata, arch, first.name)
    _check_types(first, stored)
    if beside is None:
        config = gguf_config.config(metadata, shapes, lambda name: _values(stored[name]), first.name)
    else:
        config = _agreed(beside, metadata, arch, kind, first) | {"vocab_size": _vocabulary(shapes, first)}
    return Opened(tuple(files), arch, config, _renamed(stored, metadata, kind, config, first), b"".join(raw))


def _check_types(file: Path, tensors: Mapping[str, Tensor]) -> None:
    refused: dict[str, str] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS and tensor.dtype not in DEQUANTISERS:
            refused.setdefault(tensor.dtype, name)
    if refused:
        raise CheckpointError(
            [f"{file.name}: {name} is stored as {dtype}, which is not read." for dtype, name in refused.items()],
            f"Take another quantisation, such as Q4_K_M or Q8_0. Types that are read: {', '.join(READ)}.",
        )


def _values(tensor: Tensor) -> list[float]:
    if tensor.dtype != "F32" or tensor.nbytes > 65536:
        raise CheckpointError(f"{tensor.file.name}: rotary factors are {tensor.dtype} {list(tensor.shape)}.", AGAIN)
    return [float(str(v)) for v in np.frombuffer(reading.read(tensor, [(0, tensor.nbytes)])[0], "<f4")]


def _vocabulary(shapes: Mapping[str, tuple[int, ...]], file: Path) -> int:
    if "token_embd.weight" not in shapes:
        raise CheckpointError(f"{file.name}: no token_embd.weight: it holds no language model.")
    return shapes["token_embd.weight"][0]


def _beside(file: Path) -> dict[str, Any] | None:
    path = file.with_name("config.json")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: JSON, but no object.")
    nested = found.get("text_config")
    # GGUF holds the language model alone; how the config's own weights were quantised is not how these are
    return {k: v for k, v in (nested if isinstance(nested, dict) else found).items() if k != "quantization_config"}


def _agreed(
    config: dict[str, Any], metadata: Mapping[str, Any], arch: str, kind: Architecture, file: Path
) -> dict[str, Any]:
    """`config`, if it is of the model in the file: of its kind and size."""
    facts: dict[str, tuple[Any, ...]] = {"model_type": kind.model_types}
    for key, ours in (
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("attention.head_count", "num_attention_heads"),
    ):
        facts[ours] = (metadata.get(f"{arch}.{key}"),)
    if kind.experts:
        number = next((key for key in ("num_experts", "num_local_experts") if key in config), kind.number)
        facts[number] = (metadata[f"{arch}.expert_count"],)
        facts["num_experts_per_tok"] = (metadata[f"{arch}.expert_used_count"],)
    for key, allowed in facts.items():
        if config.get(key) not in allowed:
            raise CheckpointError(
                f"{file.name}: config.json beside it says {key} {config.get(key)}; the file, {allowed[0]}.",
                "Put the GGUF file into a folder of its own, or take the config.json of its model.",
            )
    return config


def _renamed(
    stored: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    kind: Architecture,
    config: Mapping[str, Any],
    file: Path,
) -> dict[str, GgufTensor]:
    """Tensors by Hugging Face's names. One that holds all experts becomes as many, each a run of its bytes."""
    arch = metadata["general.architecture"]
    experts = metadata.get(f"{arch}.expert_count", 0)
    found: dict[str, GgufTensor] = {}
    source: dict[str, str] = {}
    unknown = []
    for name, t in stored.items():
        if name in gguf_config.FACTORS:
            continue
        ours = gguf_config.hugging_face_name(name, kind)
        if ours is None:
            unknown.append(name)
            continue
        heads, added = 0, 0.0
        if kind.interleaved and name.endswith("attn_q.weight"):
            heads = int(config["num_attention_heads"])
        elif kind.interleaved and name.endswith("attn_k.weight"):
            heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
        elif name.endswith("norm.weight"):
            added = kind.added
        tensor = GgufTensor(**{f.name: getattr(t, f.name) for f in fields(t)}, heads=heads, added=added)
        if "{}" in ours:
            some = {ours.format(i): one for i, one in enumerate(_apart(name, tensor, experts, file))}
        elif kind.shared and ours.endswith("shared_expert_gate.weight") and len(tensor.shape) == 1:
            some = {ours: replace(tensor, shape=(1, *tensor.shape))}  # a matrix of one row, written as a vector
        else:
            some = {ours: tensor}
        for one in some:
            if one in found:
                raise CheckpointError(f"{file.name}: {one} is stored twice, as {source[one]} and as {name}.", AGAIN)
            source[one] = name
        found |= some
    if unknown:
        shown = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        what = f"{arch}{' with experts' if kind.experts and arch in gguf_config.ARCHITECTURES else ''}"
        raise CheckpointError(
            f"{file.name}: tensors that are not known in the architecture {what}: {shown}.",
            "Take this model as safetensors.",
        )
    return found


def _apart(name: str, tensor: GgufTensor, experts: int, file: Path) -> list[GgufTensor]:
    """The matrices [out, in] of a tensor [experts, out, in], whose bytes follow each other."""
    if len(tensor.shape) != 3 or tensor.shape[0] != experts:
        raise CheckpointError(
            f"{file.name}: {name} is {tensor.dtype} {list(tensor.shape)}; a matrix for each of {experts} experts was "
            "due.",
            AGAIN,
        )
    size = tensor.nbytes // experts
    return [replace(tensor, shape=tensor.shape[1:], nbytes=size, start=tensor.start + i * size) for i in range(experts)]


def tokenizer(path: Path, base: Path | None = None, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer: of `base` (a folder), else of the folder the file is in, else made from the file's vocabulary.

    Raises:
        CheckpointError: it cannot be read, or transformers cannot make one of this vocabulary.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = files_of(path)[0]
    folder = base or file.parent
    kept = base is not None or any((folder / name).exists() for name in TOKENIZER_FILES)
    metadata = {} if kept else read_container(file).metadata
    try:
        if kept:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        made = PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=file.name, local_files_only=True)
        if metadata.get("tokenizer.ggml.model") == "gpt2" and metadata.get("tokenizer.ggml.pre") in LLAMA3:
            # as llama.cpp does (llama-vocab.cpp), and Llama 3's own tokenizer.json; transformers does not
            made.backend_tokenizer.model.ignore_merges = True
            if "tokenizer.ggml.add_bos_token" not in metadata:
                made.add_bos_token = True
        return made
    except ImportError as error:
        raise CheckpointError(
            f"{file.name}: transformers needs the package gguf to make a tokenizer of it.",
            "pip install 'pairprobe[gguf]'",
        ) from error
    except Exception as error:
        first = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{file.name}: no tokenizer could be made of {folder if base else 'it'} ({first}).",
            "Put the model's own tokenizer.json beside the file.",
        ) from error
