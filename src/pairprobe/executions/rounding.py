"""`execution.weights`: a dense checkpoint's linear layers, rounded as a storage format would hold them.

Rounded are the matrices of the layers' linear modules (GPT-2's Conv1D, which is stored [in, out], and experts stored
one by one among them), as the formats' own quantisers choose them. Embeddings, norms, biases, routers and the head stay
as stored. A matrix whose columns do not fill whole groups stays as stored, too, and is named.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pairprobe.errors import ExecutionError
from pairprobe.executions.grids import GRIDS, GROUP, Grid
from pairprobe.executions.products import Parts
from pairprobe.executions.slots import Place
from pairprobe.records import Rounding
from pairprobe.rooms import Checkpointed, Stored, Weight, dtype_name

if TYPE_CHECKING:
    import torch

AS_STORED = "as_stored"
WEIGHTS = (AS_STORED, *GRIDS)
#: Values rounded at a time, and bytes that each of them takes meanwhile: itself, itself before, look-ups.
CHUNK_CPU, CHUNK_GPU, EACH = 2**18, 2**23, 40
#: Matrices that are named of those that stay as stored for the same reason.
NAMED = 3
#: Modules that choose experts: published quantised checkpoints leave them dense.
ROUTERS = ("gate", "router", "shared_expert_gate")


def refuse(checkpoint: Checkpointed, weights: str) -> str | None:
    """Why this checkpoint's weights cannot be rounded at all, or None."""
    if weights == AS_STORED or not checkpoint.quantisation:
        return None
    return (
        f"{checkpoint.name}: execution.weights is '{weights}', but it is stored quantised ({checkpoint.quantisation}) "
        "already. Allowed for it: as_stored. For the others take the same model's dense checkpoint (bf16, fp16, fp32)."
    )


class Rounded:
    """A dense weight whose rows come rounded: a `rooms.Weight`, read as it is stored.

    Its rows are those that a checkpoint written in the format gives, factors of rows included.
    """

    transposed = False
    by_row = False
    dense = False
    ready = False
    activations = None

    def __init__(self, of: Weight, grid: Grid) -> None:
        self.of, self.grid = of, grid
        self.shape, self.parts = of.shape, of.parts
        self.format = f"{of.format} rounded as {grid.described}"
        self.columns, self.step = self.shape[1], grid.step(self.shape[1])
        self.tally: Tally | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the stored parts."""
        return self.of.nbytes

    def at_a_time(self, device: str) -> int:
        """Rows of `columns` inputs to round at a time: whole steps, at least one."""
        step = self.grid.step(self.columns)
        return max(step, (CHUNK_CPU if device == "cpu" else CHUNK_GPU) // max(1, self.columns) // step * step)

    def integers(self, parts: Mapping[str, torch.Tensor], start: int, stop: int) -> None:  # noqa: ARG002
        """None: nothing is stored as integers."""
        return

    def rows(self, parts: Parts, start: int, stop: int, out: torch.Tensor) -> torch.Tensor | None:
        """See `checkpoints.weight.Weight.rows`."""
        import torch

        columns = self.shape[1]
        several = self.at_a_time(out.device.type)
        factors = []
        for a in range(start, stop, several):
            b = min(a + several, stop)
            part = out[a - start : b - start]
            own = part.dtype == torch.float32 and part.is_contiguous()
            work = part if own else torch.empty(b - a, columns, device=out.device)
            self.of.rows(parts, a, b, work)
            factor = self._round(work, a, b)
            if not own:
                part.copy_(work)
            if factor is not None:
                factors.append(factor)
        return torch.cat(factors) if factors else None

    def _round(self, work: torch.Tensor, start: int, stop: int) -> torch.Tensor | None:
        import torch

        before = work.clone() if self.tally is not None and self.tally.wants(self, start) else None
        factor = self.grid.rounds(work, getattr(torch, dtype_name(next(iter(self.parts.values())).dtype)))
        if before is not None and self.tally is not None:
            self.tally.add(self, stop, before, work if factor is None else work * factor[:, None])
        return factor


class RoundedColumns(Rounded):
    """A dense weight stored [in, out], which its layer uses so (GPT-2's Conv1D): its columns are rounded as rows."""

    def __init__(self, of: Weight, grid: Grid) -> None:
        super().__init__(of, grid)
        self.columns = self.shape[0]
        self.step = self.shape[0]  # a column's scale needs all rows

    def rows(self, parts: Parts, start: int, stop: int, out: torch.Tensor) -> None:
        """See `checkpoints.weight.Weight.rows`; all rows at once."""
        import torch

        assert (start, stop) == (0, self.shape[0])
        several = self.at_a_time(out.device.type)
        whole = out if out.dtype == torch.float32 else torch.empty(self.shape, device=out.device)
        self.of.rows(parts, start, stop, whole)
        for a in range(0, self.shape[1], several):
            b = min(a + several, self.shape[1])
            work = whole[:, a:b].t().contiguous()
            factor = self._round(work, a, b)
            out[:, a:b].copy_((work if factor is None else work.mul_(factor[:, None])).t())


class Tally:
    """Squares of rounding errors and of weights, of each matrix once, however often it is rounded."""

    def __init__(self) -> None:
        self._sums: dict[int, list[Any]] = {}
        self._done: dict[int, int] = {}

    def wants(self, weight: Rounded, start: int) -> bool:
        """Whether rows from `start` on have not been counted."""
        return start >= self._done.get(id(weight), 0)

    def add(self, weight: Rounded, stop: int, before: torch.Tensor, after: torch.Tensor) -> None:
        """Count rows up to `stop`: [rows, in] as stored and as rounded, float32. Nothing waits for the device."""
        self._done[id(weight)] = stop
        new = [(after - before).square_().sum(), before.square_().sum()]
        known = self._sums.get(id(weight))
        self._sums[id(weight)] = new if known is None else [k + n for k, n in zip(known, new, strict=True)]

    @property
    def error(self) -> float | None:
        """√(Σ errors² / Σ weights²), None where nothing was counted, or all weights are 0."""
        errors, weights = (sum(float(sums[i]) for sums in self._sums.values()) for i in (0, 1))
        return math.sqrt(errors / weights) if weights > 0 else None


def scratch(layers: Sequence[Sequence[Place]], device: str) -> int:
    """Bytes that rounding takes beside the tile it fills, at most; 0 where nothing is rounded."""
    most = 0
    for weight in (w for layer in layers for p in layer for expert in p.weights for w in expert):
        if isinstance(weight, Rounded):
            chunk = min(weight.at_a_time(device) * weight.columns, math.prod(weight.shape))
            whole = 4 * math.prod(weight.shape) if isinstance(weight, RoundedColumns) else 0
            most = max(most, EACH * chunk + whole)
    return most


def applied(layers: Sequence[Sequence[Place]], weights: str, name: str) -> tuple[list[list[Place]], Rounding | None]:
    """The places with their linear layers' weights wrapped, and what is rounded; both as they were for as_stored.

    Raises:
        ExecutionError: nothing can be rounded in this way, or experts are stored in a way that is not known.
    """
    if weights == AS_STORED:
        return [list(layer) for layer in layers], None
    grid = GRIDS[weights]
    found = _Found(grid)
    after = [[found.place(place, name) for place in layer] for layer in layers]
    if not found.layers:
        why = "; ".join(found.reasons) or "it has none"
        raise ExecutionError(
            f"{name}: none of its linear layers can be rounded as {weights}: {why}. "
            f"Allowed for any width: {', '.join(w for w in WEIGHTS if w == AS_STORED or GRIDS[w].fits(1))}."
        )
    return after, Rounding(
        weights, grid.described, found.layers, found.of, found.values, found.bits / found.values, found.reasons
    )


class _Found:
    """What has been rounded, and what has not."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.layers = self.of = self.values = 0
        self.bits = 0.0
        self._kept: dict[str, list[str]] = {}  # why → names of matrices within their layers

    @property
    def reasons(self) -> tuple[str, ...]:
        found = []
        for why, names in self._kept.items():
            distinct = list(dict.fromkeys(names))
            shown = ", ".join(distinct[:NAMED]) + (", …" if len(distinct) > NAMED else "")
            found.append(f"{len(names)} × {shown} ({why})")
        return tuple(found)

    def place(self, place: Place, name: str) -> Place:
        import torch
        from transformers.pytorch_utils import Conv1D

        shape = place.weights[0][0].shape
        if place.by == "table":
            made = tuple(tuple(self._rounded(w, place.name, Rounded) for w in expert) for expert in place.weights)
            return dataclasses.replace(place, weights=made)
        if "experts" in place.name and len(shape) > 2:
            raise ExecutionError(
                f"{name}: {place.name} holds all experts in one tensor {list(shape)}, which execution.weights does not "
                "round. Allowed for it: as_stored."
            )
        linear, conv = isinstance(place.module, torch.nn.Linear), isinstance(place.module, Conv1D)
        if place.leaf != "weight" or len(shape) != 2 or not (linear or conv):
            return place
        if any(part in ROUTERS for part in place.name.split(".")):
            self._keep(place.name, "they choose experts")
            return place
        made_of = self._rounded(place.weights[0][0], place.name, RoundedColumns if conv else Rounded)
        return dataclasses.replace(place, weights=((made_of,),))

    def _rounded(self, weight: Weight, name: str, kind: type[Rounded]) -> Weight:
        self.of += 1
        rows, columns = weight.shape if kind is Rounded else weight.shape[::-1]
        if not self.grid.fits(columns):
            self._keep(name, f"{columns} columns are no multiple of {GROUP}")
            return weight
        part: Stored = next(iter(weight.parts.values()))
        self.layers += 1
        self.values += rows * columns
        self.bits += self.grid.stored_bits(rows, columns, part.nbytes // max(1, math.prod(part.shape)))
        return kind(weight, self.grid)

    def _keep(self, name: str, why: str) -> None:
        self._kept.setdefault(why, []).append(name.removesuffix(".weight"))
