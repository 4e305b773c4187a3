"""GGUF files: llama.cpp's container of metadata, a table of tensors, and their bytes.

    opened = open_file(Path("/models/x-Q4_K_M.gguf"))
    opened.config, opened.tensors["model.layers.0.self_attn.q_proj.weight"]

Format: 'GGUF', version, counts; key–value pairs; name, dimensions, type and offset of each tensor; from the next
multiple of general.alignment on, the data. Little-endian. Source: ggml, docs/gguf.md.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pairprobe.checkpoints import gguf_config, reading
from pairprobe.checkpoints.formats.gguf_blocks import DEQUANTISERS, READ, TYPES, GgufTensor
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.weight import FLOATS
from pairprobe.errors import CheckpointError

AGAIN = "Download this file again."
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
#: Number of a metadata value's kind → struct's letter. 8 is a string, 9 an array.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
#: Names for the way Llama 3's tokenizer splits text (tokenizer.ggml.pre).
LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class Container:
    """What one file says of itself. tensors: by GGUF's names, block types with the shape [out, bytes of a row].
    shapes: as the model has them. raw: all bytes before the data."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    raw: bytes


@dataclass(frozen=True)
class Opened:
    """A model from one GGUF file or its parts. config and the names of `tensors`: Hugging Face's. header: all bytes
    that are neither weights nor padding, for an identity."""

    files: tuple[Path, ...]
    architecture: str
    config: dict[str, Any]
    tensors: dict[str, GgufTensor]
    header: bytes


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
    split = _PART.fullmatch(path.name)
    if not split:
        return (path,)
    stem, _, count = split.groups()
    parts = [path.with_name(f"{stem}-{n:05d}-of-{count}.gguf") for n in range(1, int(count) + 1)]
    missing = [p.name for p in parts if not p.is_file()]
    if missing or not parts:
        shown = ", ".join(missing[:4])
        raise CheckpointError(f"{path.name}: {len(missing)} of {len(parts)} parts are missing: {shown}.", AGAIN)
    return tuple(parts)


def open_file(path: Path) -> Opened:
    """Metadata and tensor table of a model in GGUF; of the weights only rotary factors are read (some hundred bytes).

    A config.json beside the file tells more than its metadata do, and is believed where the two agree on the model.

    Raises:
        CheckpointError: damaged, incomplete, or an architecture or a type that is not read.
    """
    files = files_of(path)
    first = files[0]
    metadata: dict[str, Any] = {}
    stored: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    raw = []
    for file in files:
        one = read_container(file)
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
    _check_types(first, stored)
    beside = _beside(first)
    if beside is None:
        config = gguf_config.config(metadata, shapes, lambda name: _values(stored[name]), first.name)
    else:
        config = _agreed(beside, metadata, arch, first) | {"vocab_size": _vocabulary(shapes, first)}
    return Opened(files, arch, config, _renamed(stored, arch, config, first), b"".join(raw))


def read_container(file: Path) -> Container:
    """Metadata and tensor table of one file. Raises CheckpointError where it is damaged."""
    try:
        size = file.stat().st_size
        if size < 24:
            raise CheckpointError(f"{file.name}: not a whole GGUF file ({size} bytes).", AGAIN)
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(file, data).container()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from None


class _Reader:
    """Walks through a file's header."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self.file, self.data, self.at = file, data, 0
        self.where = "its header"

    def container(self) -> Container:
        try:
            return self._container()
        except struct.error:
            raise CheckpointError(f"{self.file.name}: cut off in {self.where}.", AGAIN) from None
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.file.name}: {self.where} is not readable.", AGAIN) from None

    def _container(self) -> Container:
        magic, version, tensors, pairs = self.numbers("4sIQQ")
        if magic != b"GGUF":
            raise CheckpointError(f"{self.file.name}: not a GGUF file (it begins with {magic!r}).", AGAIN)
        if version not in (2, 3):
            raise CheckpointError(
                f"{self.file.name}: GGUF version {version}; little-endian files of versions 2 and 3 are read.",
                "Convert the model again with a current llama.cpp.",
            )
        metadata = {}
        for _ in range(pairs):
            self.where = "its metadata"
            key = self.text()
            self.where = f"the value of {key}"
            metadata[key] = self.value(self.numbers("I")[0])
        entries = []
        for _ in range(tensors):
            self.where = "its table of tensors"
            name = self.text()
            self.where = f"the table's entry for {name}"
            (rank,) = self.numbers("I")
            if not 1 <= rank <= 4:
                raise CheckpointError(f"{self.file.name}: {name} has {rank} dimensions; 1 to 4 are allowed.", AGAIN)
            shape = tuple(reversed(self.numbers(f"{rank}Q")))  # GGUF names the fastest first
            entries.append((name, shape, *self.numbers("IQ")))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise CheckpointError(f"{self.file.name}: general.alignment is {alignment!r}.", AGAIN)
        start = -(-self.at // alignment) * alignment
        found: dict[str, Tensor] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape, kind, offset in entries:
            if name in found:
                raise CheckpointError(f"{self.file.name}: {name} is in its table twice.", AGAIN)
            found[name] = self.tensor(name, shape, kind, start + offset)
            shapes[name] = shape
        self.check_places(found)
        return Container(metadata, found, shapes, self.data[: self.at])

    def tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> Tensor:
        if kind not in TYPES:
            raise CheckpointError(
                f"{self.file.name}: {name} has the GGML type {kind}, which is not known.",
                f"Types that are read: {', '.join(READ)}.",
            )
        dtype, weights, nbytes = TYPES[kind]
        if shape[-1] % weights:
            raise CheckpointError(
                f"{self.file.name}: {name} is {dtype} {list(shape)}; its rows are no multiple of {weights}.", AGAIN
            )
        size = math.prod(shape) // weights * nbytes
        if start + size > len(self.data):
            raise CheckpointError(
                f"{self.file.name}: cut off. {name} ends at byte {start + size}, the file at {len(self.data)}.", AGAIN
            )
        if weights > 1:
            shape = (*shape[:-1], shape[-1] // weights * nbytes)
        return Tensor(self.file, dtype, shape, size, start)

    def check_places(self, tensors: Mapping[str, Tensor]) -> None:
        end, before = 0, ""
        for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
            if tensor.start < end:
                raise CheckpointError(f"{self.file.name}: {name} and {before} share bytes.", AGAIN)
            end, before = tensor.start + tensor.nbytes, name

    def numbers(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def text(self, errors: str = "strict") -> str:
        (length,) = self.numbers("Q")
        if length > len(self.data) - self.at:
            raise struct.error
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", errors)

    def value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            (found,) = self.numbers(_NUMBERS[kind])
            # the shortest decimal that is this float32: 1e-05, not 9.999999747378752e-06
            return float(str(np.float32(found))) if kind == 6 else found
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise CheckpointError(f"{self.file.name}: {self.where} is of kind {kind}, which is not known.", AGAIN)
        element, count = self.numbers("IQ")
        if element == _STRING:
            if count > (len(self.data) - self.at) // 8:
                raise struct.error
            return [self.text("replace") for _ in range(count)]  # pieces of a vocabulary may be parts of letters
        if element not in _NUMBERS:
            raise CheckpointError(f"{self.file.name}: {self.where} is an array of kind {element}.", AGAIN)
        if count > len(self.data) - self.at:
            raise struct.error
        return list(self.numbers(f"{count}{_NUMBERS[element]}"))


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


def _agreed(config: dict[str, Any], metadata: Mapping[str, Any], arch: str, file: Path) -> dict[str, Any]:
    """`config`, if it is of the model in the file: of its kind and size."""
    facts: dict[str, tuple[Any, ...]] = {"model_type": gguf_config.ARCHITECTURES[arch].model_types}
    for key, ours in (
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("attention.head_count", "num_attention_heads"),
    ):
        facts[ours] = (metadata.get(f"{arch}.{key}"),)
    for key, allowed in facts.items():
        if config.get(key) not in allowed:
            raise CheckpointError(
                f"{file.name}: config.json beside it says {key} {config.get(key)}; the file, {allowed[0]}.",
                "Put the GGUF file into a folder of its own, or take the config.json of its model.",
            )
    return config


def _renamed(stored: Mapping[str, Tensor], arch: str, config: Mapping[str, Any], file: Path) -> dict[str, GgufTensor]:
    kind = gguf_config.ARCHITECTURES[arch]
    found: dict[str, GgufTensor] = {}
    unknown = []
    for name, t in stored.items():
        if name in gguf_config.FACTORS:
            continue
        ours = gguf_config.hugging_face_name(name, arch)
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
        found[ours] = GgufTensor(**{f.name: getattr(t, f.name) for f in fields(t)}, heads=heads, added=added)
    if unknown:
        shown = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        raise CheckpointError(
            f"{file.name}: tensors that are not known in the architecture {arch}: {shown}.",
            "Take this model as safetensors.",
        )
    return found


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
