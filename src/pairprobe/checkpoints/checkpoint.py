"""A checkpoint on disk: its config, its tokenizer, its tensors by name, and its identity."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pairprobe.checkpoints import declared, gguf, identity, positions, reading, unbuilt
from pairprobe.checkpoints import files as weight_files
from pairprobe.checkpoints.files import TOKENIZER_FILES
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.names import Experts, assign, no_table, without_place
from pairprobe.checkpoints.remote import Remote
from pairprobe.checkpoints.storage import Storage, storage
from pairprobe.checkpoints.weight import Weight, Weights
from pairprobe.errors import CheckpointError, Misdeclared

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Config, tokenizer and weights in one folder. tensors: what the headers say, by stored name. to_come: the weights
    are on a server now and will be downloaded before they are used. hashes: a folder where those of files are noted, so
    that each is hashed once; None: they are not.

    Opening one reads config.json and the safetensors headers and nothing else.
    """

    name: str
    folder: Path
    where: str
    revision: str | None
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    headers: bytes
    trust_remote_code: bool = False
    tokenizer_from: Path | None = None
    gguf: Path | None = None
    to_come: bool = False
    hashes: Path | None = None

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        name: str | None = None,
        where: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        files: Sequence[Path | Remote] | None = None,
        tokenizer: Path | None = None,
    ) -> Checkpoint:
        """Open a folder or a .gguf file, or raise one CheckpointError that lists everything it lacks.

        files: the weights, where they are not in the folder; None: as the folder's own index has it.
        tokenizer: a folder whose tokenizer is used; None: the checkpoint's own.
        """
        folder = Path(folder)
        name = name or folder.name
        opened = gguf.find(folder, files)
        if opened:
            unbuilt.counted(opened.config, len(opened.tensors), name, opened.files[0].name)
            return cls(
                name, folder if files else opened.files[0].parent, where or f"file {opened.files[0]}", revision,
                opened.config, dict(opened.tensors), opened.header, trust_remote_code, tokenizer or opened.tokenizer,
                opened.files[0],
            )  # fmt: skip
        if (folder / weight_files.ADAPTER).exists():
            raise weight_files.adapted(name, str(folder))
        problems = []
        config: Any = {}
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            problems.append(f"{name}: no config.json in {folder}.")
        except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or not JSON
            problems.append(f"{name}: config.json cannot be read ({error}).")
        if not isinstance(config, dict):
            problems.append(f"{name}: config.json is JSON, but no object.")
            config = {}
        if not any(((tokenizer or folder) / file).exists() for file in TOKENIZER_FILES):
            problems.append(f"{name}: no tokenizer ({TOKENIZER_FILES[0]}) in {tokenizer or folder}.")
        problems += weight_files.pointers(folder, name)
        placed = None
        if files is None:
            files, placed, missing = weight_files.weight_files(folder, name)
            problems += missing
        elif [f.name for f in files] != [weight_files.SINGLE]:
            placed = weight_files.weight_map(folder, name)
        if config.get("auto_map") and not trust_remote_code and not config.get("model_type"):
            problems.append(f"{name}: the checkpoint needs Python code of its own, which is not run.")
        if problems:
            raise CheckpointError(problems, "Get the whole repository again, or choose another model.source.")
        unbuilt.elsewhere(config, name)
        tensors, headers = weight_files.read_headers(files, placed, name)
        unbuilt.counted(config, len(tensors), name)
        where = where or f"folder {folder}"
        return cls(name, folder, where, revision, config, tensors, headers, trust_remote_code, tokenizer)

    # ── what it is ───────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def text_config(self) -> dict[str, Any]:
        """The part of the config that describes the language model (multimodal configs nest it)."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, dict) else self.config

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(t.nbytes for t in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Number of weights, as the model has them."""
        return self.storage.values

    @cached_property
    def weights(self) -> Weights:
        """Every stored weight by the name its dense form would have, in the format its tensors are in.

        One is recognised when it is asked for, all where all are looked at; tensors that no known format stores raise
        CheckpointError then.
        """
        return Weights(self.tensors, self.declared, self.name)

    @cached_property
    def storage(self) -> Storage:
        """Formats, bits per weight, and what is left unquantised."""
        return storage(self.weights)

    @property
    def declared(self) -> dict[str, Any]:
        """What the config says of quantisation, {} where nothing: a help in reading tensors, never believed alone.

        Raises Misdeclared where it is no object.
        """
        try:
            return dict(declared.of(self.config, self.text_config))
        except Misdeclared as error:
            raise Misdeclared(f"{self.name}: {error.problems[0]}", error.next_step) from None

    @property
    def unread(self) -> str | None:
        """Why layers cannot be computed from its stored tensors alone, or None, see `declared.unread`."""
        return declared.unread(self.declared, self.quantised)

    @property
    def quantised(self) -> bool:
        """Some weights are stored quantised. Looks no further than the first of them."""
        return self.weights.quantised

    @property
    def quantisation(self) -> str | None:
        """The quantised formats among the weights, joined by ', '; None for a dense checkpoint."""
        found = dict.fromkeys(w.format for w in self.weights.values() if not w.dense)
        return ", ".join(found) or None

    @property
    def max_tokens(self) -> int | None:
        """Tokens a text may have, from the config's position table and rotary positions; None where it names none."""
        known = (positions.table(self.text_config), self.alone and self.alone[0])
        return min((n for n in known if n), default=None)

    @cached_property
    def alone(self) -> tuple[int, str] | None:
        """Up to how many tokens a text's rotary positions are its own, and their kind, see `positions.alone`."""
        try:
            return positions.alone(self.configuration())
        except Exception:  # no model can be built of it either, which then says why
            return None

    @cached_property
    def layers(self) -> int:
        """Number of layers L; states are numbered 0 … L. Raises CheckpointError where the config names none."""
        for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
            value = self.text_config.get(key)
            if type(value) is int and value > 0:
                return value
            if value is not None:
                raise CheckpointError(
                    f"{self.name}: {key} of config.json is {value!r}; allowed: a number above 0.", unbuilt.CORRECT
                )
        raise CheckpointError(
            f"{self.name}: config.json does not say how many layers there are.",
            "method=static needs no layers.",
        )

    @cached_property
    def identity(self) -> str:
        """What these weights are: `commit:` of the hub, or a content hash; see `identity.of`."""
        return f"commit:{self.revision}" if self.revision else identity.of(self)

    @property
    def remote(self) -> bool:
        """The weights are not on this machine: rows can be read, layers would be gigabytes each time."""
        return bool(self.remotes)

    @property
    def fetched_bytes(self) -> int:
        """Bytes of weights, headers and what else came by our own requests so far; 0 for local files."""
        return sum(web.fetched for web in {id(r.web): r.web for r in self.remotes}.values())

    @property
    def to_download(self) -> int:
        """Bytes of the weight files that are on a server only."""
        return sum(r.size for r in self.remotes if not (self.folder / r.name).exists())

    @cached_property
    def remotes(self) -> list[Remote]:
        """The files on a server, each once; [] where the weights are on this machine."""
        found = {t.remote.url: t.remote for t in self.tensors.values() if t.remote}
        return [found[url] for url in sorted(found)]

    @property
    def files(self) -> list[list[Any]]:
        """[name, bytes, time of the last change in ns] of every weight file, by name; and its ctime, which no program
        sets back, where the identity does not cover every byte."""
        stats = {t.file.name: t.file.stat() for t in self.tensors.values()}
        found = [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in sorted(stats.items())]
        return [of[:3] for of in found] if identity.hashed_whole(self) else found

    @property
    def code(self) -> str | None:
        """Hash of the checkpoint's own Python, where it may run; '' where it may not; None: some lies elsewhere."""
        return identity.code(self.folder, self.config) if self.trust_remote_code and not self.gguf else ""

    def check_sha256(self, expected: str) -> None:
        """Raise CheckpointError unless the checkpoint's one weight file hashes to `expected`."""
        identity.check(self, expected)

    # ── its parts ────────────────────────────────────────────────────────────────────────────────────────

    def tokenizer(self) -> Any:
        """The checkpoint's own tokenizer, through transformers."""
        from transformers import AutoTokenizer

        if self.gguf:
            return gguf.tokenizer(self.gguf, self.tokenizer_from, trust_remote_code=self.trust_remote_code)
        try:
            return AutoTokenizer.from_pretrained(
                self.tokenizer_from or self.folder, local_files_only=True, trust_remote_code=self.trust_remote_code
            )
        except Exception as error:
            if self.tokenizer_from is None:
                self.configuration()  # which AutoTokenizer reads, too
            raise CheckpointError(
                f"{self.name}: its tokenizer cannot be read from {self.tokenizer_from or self.folder} "
                f"({_first_line(error)}).",
                "Download tokenizer.json and its neighbours again, or name another folder: model.tokenizer=/models/…",
            ) from error

    def empty_model(self, dtype: str = "float32", attention: str | None = None, short: bool = False) -> Any:
        """The base model without its weights: large parameters on the meta device, buffers real and on the CPU.

        Buffers that no file stores (rotary frequencies, position ids, embedding scales) are thus what transformers
        itself computes, on a real device and in its own precision. dtype: of the parameters. short: one layer only.
        """
        import torch
        from torch.overrides import TorchFunctionMode
        from transformers import AutoModel
        from transformers.utils import logging

        class EmptyOnMeta(TorchFunctionMode):
            """torch.empty, which parameters are made with, gives no memory; all other tensors are real."""

            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                filled = (kwargs or {}).get("tensor")  # so torch's initialisations name it
                if filled is not None and filled.is_meta and func.__name__.endswith("_"):  # slow, and for nothing
                    return filled
                more = {"device": "meta"} if func is torch.empty else {}
                unbuilt.bounded(func, args, kwargs or {})
                return func(*args, **{**(kwargs or {}), **more})

        logging.set_verbosity_error()
        config = self.configuration()
        try:
            config.quantization_config = None  # the formats are ours to read
            for part in (config, config.get_text_config()):
                if short:
                    part.num_hidden_layers = 1
                    if getattr(part, "layer_types", None):
                        part.layer_types = part.layer_types[:1]
                part._experts_implementation = "eager"  # one expert after the other: each is read when it is needed
            with EmptyOnMeta():
                return AutoModel.from_config(
                    config,
                    dtype=getattr(torch, dtype),
                    attn_implementation=attention,
                    trust_remote_code=self.trust_remote_code,
                ).eval()
        except Exception as error:
            raise unbuilt.why(error, self.config, self.name, attention, self.trust_remote_code) from error

    def configuration(self) -> Any:
        """transformers' own config of it, made anew, with its defaults. Raises CheckpointError for a value of which it
        makes no model."""
        from transformers import AutoConfig

        unbuilt.check(self.config, self.text_config, self.name, self.gguf.name if self.gguf else "config.json")
        trusted = self.trust_remote_code
        try:
            if self.gguf:
                return AutoConfig.for_model(**copy.deepcopy(self.config))
            return AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=trusted)
        except Exception as error:
            raise unbuilt.why(error, self.config, self.name, trusted=trusted) from error

    def assigned(self, model: Any, within: str = "") -> dict[str, Weight | Experts]:
        """Parameter of `model` → the stored weight that fills it. Raises as `names.assign`."""
        all_of_them = dict(self.weights)  # whose errors name this checkpoint already
        try:
            return assign(model, all_of_them, within)
        except CheckpointError as error:
            raise type(error)([f"{self.name}: {line}" for line in error.problems], error.next_step) from None

    def without_place(self, model: Any, names: Iterable[str]) -> list[str]:
        """What is wrong with stored tensors that `model` did not take, see `names.without_place`."""
        return without_place(model, names)

    @cached_property
    def embedding_name(self) -> str:
        """Stored name of the input embedding table, found through the model's own modules."""
        try:
            model = self.empty_model(short=True)  # eighty layers take most of a second
        except CheckpointError:
            model = self.empty_model()
        table = model.get_input_embeddings()
        if table is None:
            raise CheckpointError(f"{self.name}: the model names no input embedding.")
        name = next(f"{n}.weight" for n, module in model.named_modules() if module is table)
        shape = tuple(table.weight.shape)
        # Stored names may carry a head's or a task's prefix, before or within (Gemma 3 nests model. in
        # language_model.): the module and its parameter's name decide, and the shape.
        ending = ".".join(name.split(".")[-2:])
        stored = [s for s, w in self.weights.named(ending).items() if w.shape == shape]
        stored = [s for s in stored if s == name or s.endswith(f".{name}")] or stored
        if not stored:
            raise no_table(self.name, name, shape, self.weights.named(ending))
        return min(stored, key=len)

    def rows(self, name: str, ids: Iterable[int]) -> dict[int, npt.NDArray[np.float32]]:
        """Rows of a weight, dequantised where it is quantised, as float32 [width], by index; no other row is read.

        Raises:
            CheckpointError: its format does not store rows apart, or an index is outside the matrix.
        """
        return self.weight_rows(self.weights[name], ids, name)

    def weight_rows(
        self, weight: Weight, ids: Iterable[int], name: str = "a table"
    ) -> dict[int, npt.NDArray[np.float32]]:
        """`rows` of a weight that is at hand."""
        import torch

        wanted = sorted(set(ids))
        if not weight.by_row:
            raise CheckpointError(f"{self.name}: {name} is stored as {weight.format}, whose rows cannot be read alone.")
        outside = [i for i in wanted if not 0 <= i < weight.shape[0]]
        if outside:
            raise CheckpointError(
                f"{self.name}: token id {outside[0]} is outside {name} with its {weight.shape[0]} rows.",
                "The tokenizer and the weights do not belong together.",
            )
        parts = {role: reading.rows(part, wanted) for role, part in weight.parts.items()}
        out = torch.empty(len(wanted), *weight.shape[1:])
        factor = weight.rows(parts, 0, len(wanted), out)
        values = (out if factor is None else out * factor[:, None]).numpy()
        return {i: values[n] for n, i in enumerate(wanted)}

    def dense(self, weight: Weight) -> torch.Tensor:
        """The whole of a small weight, read and dequantised: float32, on the CPU."""
        import torch

        out = torch.empty(weight.shape)
        factor = weight.rows({role: reading.whole(p) for role, p in weight.parts.items()}, 0, weight.shape[0], out)
        return out if factor is None else out.mul_(factor.view(-1, *[1] * (out.ndim - 1)))


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
