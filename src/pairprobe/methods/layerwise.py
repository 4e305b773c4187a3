"""The pooled hidden state of every text at every depth, from one pass over the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pairprobe.errors import ConfigError
from pairprobe.methods.pooling import Pooling
from pairprobe.records import Tokens, Usage, Vectors
from pairprobe.rooms import Checkpointed, Execution, Keeping, Shelf


@dataclass(frozen=True)
class Layerwise(Pooling):
    """Hidden states, pooled on the device as each layer finishes; no states of whole texts are kept.

    depths: which to keep, 0 … L, negative ones counted from the last; null keeps all.
    """

    name: str = "layerwise"
    depths: list[int] | None = None

    computes: ClassVar[bool] = True
    uses_model: ClassVar[bool] = True

    def refuse(self, checkpoint: Checkpointed, execution: Execution) -> str | None:
        """Why this method cannot measure this checkpoint this way, or None."""
        if checkpoint.remote and not checkpoint.to_come:
            return (
                f"{checkpoint.name}: its weights are not on this machine, and every layer would be fetched. "
                "Download it first: model.fetch=all (hub), or model.source=/models/…"
            )
        return execution.refuse(checkpoint)

    def depths_of(self, checkpoint: Checkpointed) -> tuple[int, ...]:
        """The depths that will be kept, ascending. Raises ConfigError for one the model does not have."""
        last = checkpoint.layers
        if self.depths is None:
            return tuple(range(last + 1))
        wrong = [d for d in self.depths if not -last - 1 <= d <= last]
        if wrong or not self.depths:
            raise ConfigError(f"method.depths is {list(self.depths)}; {checkpoint.name} has depths 0 … {last}.")
        return tuple(sorted({d % (last + 1) for d in self.depths}))

    def vectors(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        execution: Execution,
        progress: Callable[[int, int], None] = lambda done, total: None,
        kept: Keeping | None = None,
    ) -> tuple[Vectors, Usage]:
        """Measure. progress: called with (texts × depths done, texts × depths in all).

        kept: where vectors of earlier runs are; texts found there are not run again.
        """
        depths = self.depths_of(checkpoint)
        gathered = _Gathered(depths, len(tokens), progress)
        about = execution.key(checkpoint) if kept else None
        shelf: Shelf | None = kept.shelf({**about, "pooled": "weighted sum in float32"}) if kept and about else None
        keys = [text_key(t.ids, self.weights(t)) for t in tokens.of]
        if shelf:
            for row, found in shelf.find(keys, depths).items():
                gathered.take(row, found)
        rest = np.array([i for i in range(len(tokens)) if i not in gathered.rows], dtype=np.int64)
        usages = []
        while len(rest):  # asked again after each pass: what fits depends on the memory that is free now
            chunk = execution.chunks(checkpoint, tokens.lengths[rest])[0]
            rows, rest = rest[chunk], np.delete(rest, chunk)
            writing = shelf.writing([keys[i] for i in rows]) if shelf else None
            usages.append(self._measure(checkpoint, tokens, rows, execution, gathered, writing))
        described = {"pooling": self.described}
        if gathered.rows:
            described["kept"] = f"{len(gathered.rows)} of {len(tokens)} texts were kept from an earlier run"
        assert gathered.values is not None
        usage = _sum(usages) if usages else _nothing_run(about or {})
        return Vectors(gathered.values, depths, usage.dtype, described), usage

    def _measure(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        rows: npt.NDArray[np.int64],
        execution: Execution,
        gathered: _Gathered,
        writing: Any,
    ) -> Usage:
        """One pass over the texts `rows`."""
        import torch

        some = tokens.select(rows)
        weights: dict[int, torch.Tensor] = {}  # of the batch at work, by its first text

        def pool(depth: int, states: Any, batch: npt.NDArray[np.int64]) -> None:
            if depth not in gathered.place:
                return
            if int(batch[0]) not in weights:
                weights.clear()
                padded = self.padded_weights(some, batch, states.shape[1])
                weights[int(batch[0])] = torch.from_numpy(padded).to(states.device)
            # [batch, tokens, width] · [batch, tokens] → [batch, width], summed in float32
            pooled = torch.einsum("btd,bt->bd", states.float(), weights[int(batch[0])])
            gathered.put(depth, rows[batch], pooled.cpu().numpy())

        keep = _Keep(gathered, rows, writing) if writing else None
        usage = execution.forward(checkpoint, some, pool, keep)
        if writing:
            writing.finish()
        return usage


def text_key(ids: npt.NDArray[Any], weights: npt.NDArray[np.float32]) -> str:
    """Of one text: its token ids, and the share each token has in the pooled vector."""
    digest = hashlib.sha256(np.ascontiguousarray(ids, dtype="<i8").tobytes())
    digest.update(b"|")
    digest.update(np.ascontiguousarray(weights, dtype="<f4").tobytes())
    return digest.hexdigest()


class _Gathered:
    """The vectors [depths, texts, width] while they come in. rows: the texts that were kept from an earlier run."""

    def __init__(self, depths: tuple[int, ...], texts: int, progress: Callable[[int, int], None]) -> None:
        self.place = {depth: i for i, depth in enumerate(depths)}
        self.texts, self.progress = texts, progress
        self.values: npt.NDArray[np.float32] | None = None
        self.rows: set[int] = set()
        self.done = 0

    def _room(self, width: int) -> npt.NDArray[np.float32]:
        if self.values is None:
            self.values = np.empty((len(self.place), self.texts, width), dtype=np.float32)
        return self.values

    def put(self, depth: int, rows: npt.NDArray[np.int64], pooled: npt.NDArray[np.float32]) -> None:
        self._room(pooled.shape[1])[self.place[depth], rows] = pooled
        self._count(len(rows))

    def take(self, row: int, found: npt.NDArray[np.float32]) -> None:
        """A text at all depths, from an earlier run."""
        self._room(found.shape[1])[:, row] = found
        self.rows.add(row)
        self._count(len(self.place))

    def _count(self, more: int) -> None:
        self.done += more
        self.progress(self.done, len(self.place) * self.texts)


class _Keep:
    """Keeps what a pass finishes, and takes up what an interrupted one left."""

    def __init__(self, gathered: _Gathered, rows: npt.NDArray[np.int64], writing: Any) -> None:
        self.gathered, self.rows, self.writing = gathered, rows, writing

    def resume(self, load: Callable[[Path], Any]) -> int:
        last: tuple[int, Path] | None = self.writing.last_state()
        if last is None:
            return 0
        found = {d: self.writing.kept_depth(d) for d in self.gathered.place if d <= last[0]}
        if any(vectors is None for vectors in found.values()):  # that run kept other depths
            return 0
        try:
            load(last[1])
        except (OSError, ValueError):  # gone meanwhile
            return 0
        for depth, vectors in found.items():
            self.gathered.put(depth, self.rows, vectors)
        return last[0]

    def finished(self, depth: int, save: Callable[[Path], Any] | None) -> None:
        if depth in self.gathered.place:
            assert self.gathered.values is not None
            self.writing.depth(depth, self.gathered.values[self.gathered.place[depth], self.rows])
        if save is not None:
            self.writing.state(depth, save)


def _nothing_run(about: dict[str, Any]) -> Usage:
    """All vectors were kept: they were made on this device, in this dtype."""
    return Usage(str(about["device"]), str(about["dtype"]), str(about["attention"]), {}, {})


def _sum(usages: list[Usage]) -> Usage:
    """Several passes as one: seconds add up, peaks are the largest."""
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {}
    for usage in usages:
        for phase, value in usage.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
        for phase, peak in usage.peaks.items():
            peaks[phase] = max(peaks.get(phase, 0), peak)
    return replace(usages[0], seconds=seconds, peaks=peaks)
