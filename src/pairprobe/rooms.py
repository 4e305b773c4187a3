"""What rooms ask of each other: protocols, so that a method knows no execution and an execution no format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pairprobe.records import Estimate, IntArray, Tokens, Usage

if TYPE_CHECKING:
    import torch

#: Called by an execution with (depth, states [batch, tokens, width] on the device, indices of the batch's
#: texts) as soon as a depth is done for a batch; what it does not keep is let go.
Observe = Callable[[int, Any, "npt.NDArray[np.int64]"], None]


#: Bytes that the norms of all tokens' states may take; more are not kept.
TOKEN_NORMS = 2 * 10**9

#: Bytes per second that a disk is taken to read where it cannot be measured, since the files are not on it yet.
SUPPOSED = 1e9

#: Kinds of rotary positions that follow from the longest text of a batch, once that is long.
LENGTHS_MATTER = ("dynamic", "longrope")

#: The 16 values of NF4, as bitsandbytes has them (Dettmers et al. 2023, appendix E).
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

#: safetensors' dtype names → torch's; what torch has no dtype for is read as unsigned bytes.
TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "U32": "uint32", "U16": "uint16", "BOOL": "bool",
}  # fmt: skip


def dtype_name(stored: str) -> str:
    """Name of the torch dtype in which parts of this stored dtype are handed to `Weight.rows`."""
    return TORCH.get(stored, "uint8")


class Stored(Protocol):
    """One tensor as a file holds it. start: its first byte in the file; nbytes: its size there."""

    @property
    def file(self) -> Path: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def start(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


#: The kind of activations where a config's settings are of no method whose statement about inputs is read.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Activations:
    """How the input of a matrix is quantised before the product, where the checkpoint says so.

    kind: int8 | fp8 (e4m3), or int2 … int8 with ' asymmetric'; others are refused when used. scale: token (one for
    each token, from its values) | tensor (one for all, from their values) | static (stored, part `input_scale`).
    group: input columns that share a scale, None for all of them. declared: where the kind is UNKNOWN, what the config
    declares, in words.
    """

    kind: str
    scale: str = "token"
    group: int | None = None
    declared: str = ""


class Weight(Protocol):
    """How one weight of the model is stored, and how rows of it are made dense.

    format: for people. shape: as the model has it, [out, in] for matrices. parts: role → stored tensor, all that
    must be read. step: rows come in multiples of this (a packed word, a block). transposed: its natural tile is
    [in, rows]. by_row: every part's first dimension is `out`, so that single rows can be read. activations: None
    where the input is used as it is. dense: stored in floating point of 16 bits or more. ready: so, and part 'weight'
    is the weight itself, value for value.
    """

    @property
    def format(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def parts(self) -> Mapping[str, Stored]: ...
    @property
    def step(self) -> int: ...
    @property
    def transposed(self) -> bool: ...
    @property
    def by_row(self) -> bool: ...
    @property
    def activations(self) -> Activations | None: ...
    @property
    def dense(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...

    def rows(
        self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor
    ) -> torch.Tensor | None: ...

    def integers(
        self, parts: Mapping[str, torch.Tensor], start: int, stop: int
    ) -> tuple[torch.Tensor, torch.Tensor] | None: ...


@runtime_checkable
class Fused(Protocol):
    """A parameter [experts, rows, in] that is stored expert by expert. of: for each expert, its weights, one below
    the other."""

    @property
    def of(self) -> tuple[tuple[Weight, ...], ...]: ...


class Checkpointed(Protocol):
    """What an execution or a method asks of a checkpoint; `checkpoints.checkpoint.Checkpoint` is one."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Any: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def tensors(self) -> dict[str, Any]: ...
    @property
    def trust_remote_code(self) -> bool: ...
    @property
    def parameters(self) -> int: ...
    @property
    def quantisation(self) -> str | None: ...
    @property
    def quantised(self) -> bool: ...
    @property
    def declared(self) -> dict[str, Any]: ...
    @property
    def unread(self) -> str | None: ...
    @property
    def gguf(self) -> Path | None: ...
    @property
    def layers(self) -> int: ...
    @property
    def embedding_name(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def remote(self) -> bool: ...
    @property
    def to_come(self) -> bool: ...
    @property
    def fetched_bytes(self) -> int: ...
    @property
    def identity(self) -> str: ...
    @property
    def files(self) -> list[list[Any]]: ...
    @property
    def code(self) -> str | None: ...
    @property
    def weights(self) -> Mapping[str, Weight]: ...
    def rows(self, name: str, ids: Any) -> dict[int, npt.NDArray[np.float32]]: ...
    def weight_rows(self, weight: Any, ids: Any) -> dict[int, npt.NDArray[np.float32]]: ...
    def empty_model(self, dtype: str = "float32", attention: str | None = None) -> Any: ...
    def assigned(self, model: Any, within: str = "") -> Mapping[str, Weight | Fused]: ...
    def without_place(self, model: Any, names: Iterable[str]) -> list[str]: ...
    def dense(self, weight: Any) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False)
class Workload:
    """The texts an execution is asked to run, as far as memory, time and the passes over the files depend on them.

    lengths: int [texts], tokens of each text, special ones included. parts: int [texts], as of `Tokens`. poolings:
    vectors that are made of each state. ids: of each text its tokens. leads: of each token a number that is the same
    wherever the same tokens of a text of the same part lead up to it and it is the same token: of a causal model,
    tokens of one number have one state. Both None where they are not known. held: texts whose vectors are held
    meanwhile, these and those of other passes; None: these. depths: at how many depths vectors are held; None: all.
    """

    lengths: IntArray
    parts: IntArray | None = None
    poolings: int = 1
    ids: tuple[IntArray, ...] | None = None
    leads: tuple[IntArray, ...] | None = None
    held: int | None = None
    depths: int | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of(cls, tokens: Tokens, poolings: int = 1, depths: int | None = None) -> Workload:
        """Of these texts."""
        ids = tuple(t.ids for t in tokens.of)
        return cls(tokens.lengths, tokens.parts, poolings, ids, _leads(tokens), depths=depths)

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are, at most."""
        return int(self.lengths.sum()) if self.ids is None else _distinct(self.ids)

    def beginnings(self, rows: IntArray | None = None) -> int:
        """Distinct states of a causal model for these texts, None for all: what begins alike once. At most, where it
        is not known."""
        if rows is None:
            rows = np.arange(len(self))
        return int(self.lengths[rows].sum()) if self.leads is None else _distinct([self.leads[i] for i in rows])

    def select(self, rows: IntArray) -> Workload:
        """These texts alone, in the order of `rows`; the vectors of all are held."""
        parts = None if self.parts is None else self.parts[rows]
        ids, leads = (None if of is None else tuple(of[int(i)] for i in rows) for of in (self.ids, self.leads))
        held = len(self) if self.held is None else self.held
        return Workload(self.lengths[rows], parts, self.poolings, ids, leads, held, self.depths)


def _leads(tokens: Tokens) -> tuple[IntArray, ...]:
    met: dict[tuple[int, int], int] = {}  # (what leads up, token) → number
    found = []
    for row, text in enumerate(tokens.of):
        before, own = -1 if tokens.parts is None else -1 - int(tokens.parts[row]), []
        for token in text.ids:
            before = met.setdefault((before, int(token)), len(met))
            own.append(before)
        found.append(np.array(own, dtype=np.int64))
    return tuple(found)


def _distinct(of: Sequence[IntArray]) -> int:
    return len(np.unique(np.concatenate(of)))


class Keep(Protocol):
    """What an execution tells of finished depths, and where it may go on after an interruption."""

    def resume(self, load: Callable[[Path], Any]) -> int:
        """The depth to go on from, whose kept states `load` has read from a file; every depth up to it is observed.

        0: begin anew. load: raises OSError or ValueError for a file that does not serve, and has then changed nothing
        that is not overwritten by beginning anew."""

    def finished(self, depth: int, save: Callable[[Path], Any] | None) -> None:
        """All texts have been observed at `depth`; `save` writes their states there to a file, None at the last."""


class Execution(Protocol):
    """How a checkpoint is run. settle: the execution that will really run, as `auto` chooses it. timed: estimate the
    seconds too. chunks: indices of the texts of each pass. weights: as_stored, or how a dense checkpoint's linear
    layers are rounded. key: everything of the execution and the checkpoint that could change a state, None where states
    are not kept. asked: of forward, what was planned for these texts; None: one vector of each state."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def weights(self) -> str: ...

    def place(self) -> tuple[str, str]: ...
    def settle(self, checkpoint: Checkpointed, asked: Workload) -> Execution: ...
    def estimate(self, checkpoint: Checkpointed, asked: Workload, timed: bool = False) -> Estimate: ...
    def refuse(self, checkpoint: Checkpointed) -> str | None: ...
    def key(self, checkpoint: Checkpointed) -> dict[str, Any] | None: ...
    def chunks(self, checkpoint: Checkpointed, asked: Workload) -> Iterator[npt.NDArray[np.int64]]: ...
    def forward(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        observe: Observe,
        keep: Keep | None = None,
        asked: Workload | None = None,
    ) -> Usage: ...


class Shelf(Protocol):
    """Vectors of earlier runs that were made in the same way; `kept.Shelf` is one."""

    def find(
        self, texts: Sequence[str], depths: Sequence[int], lengths: Sequence[int] | None = None
    ) -> dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]: ...
    def listed(self, texts: Sequence[str], depths: Sequence[int], lengths: Sequence[int] | None = None) -> set[int]: ...
    def writing(self, texts: Sequence[str], norms: Sequence[tuple[int, int]] = ()) -> Any: ...


class Keeping(Protocol):
    """Where vectors are kept; `kept.Kept` is one."""

    @property
    def hashes(self) -> Path: ...
    def may_have(self, files: Sequence[Sequence[Any]]) -> bool: ...
    def shelf(self, about: Mapping[str, Any]) -> Shelf: ...
