"""The pooled hidden state of every text at every depth, from one pass over the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pairprobe.errors import ConfigError, OutOfMemory
from pairprobe.methods.pooling import Pooling
from pairprobe.records import IntArray, Tokens, Usage, Vectors
from pairprobe.rooms import TOKEN_NORMS, Checkpointed, Execution, Keeping, Shelf, Workload


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
        (found,), usage = self.several(checkpoint, tokens, (self,), execution, progress, kept)
        return found, usage

    def several(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        poolings: Sequence[Pooling],
        execution: Execution,
        progress: Callable[[int, int], None] = lambda done, total: None,
        kept: Keeping | None = None,
    ) -> tuple[tuple[Vectors, ...], Usage]:
        """The vectors of each pooling, in order, from the same pass; each is to the last bit what it is alone.

        A text is run again unless all its vectors, and the norms of its tokens where they are wanted, are kept.
        """
        depths = self.depths_of(checkpoint)
        shares = _shares(tokens, poolings)
        gathered = _Gathered(depths, tokens.lengths, len(poolings), progress)
        about = execution.key(checkpoint) if kept else None
        shelf = _shelf(kept, about)
        keys = _keys(tokens, shares)
        if shelf:
            gathered.take(shelf, keys)
        rest = np.array([i for i in range(len(tokens)) if i not in gathered.rows], dtype=np.int64)
        usages, most, described = [], len(rest), {}
        whole = Workload.of(tokens, len(poolings), len(depths))
        while len(rest):  # asked again after each pass: what fits depends on the memory that is free now
            chunk = next(execution.chunks(checkpoint, whole.select(rest)))[:most]
            rows, before = rest[chunk], gathered.done
            keep = _Keep(gathered, rows, shelf, keys) if shelf else None
            try:
                usages.append(_measure(checkpoint, tokens, rows, shares, execution, gathered, keep))
            except OutOfMemory:
                if len(rows) == 1:
                    raise
                most, gathered.done = len(rows) // 2, before
                if keep:
                    keep.writing.drop()
                described["memory"] = f"there was less than planned: passes of {most} texts or fewer took their place"
                continue
            rest, most = np.delete(rest, chunk), 2 * most  # it may have been for a moment only
        earlier = []
        if gathered.rows:
            were = "was" if len(gathered.rows) == 1 else "were"
            earlier.append(f"{len(gathered.rows)} of {len(tokens)} texts {were} kept from an earlier run")
        if gathered.resumed:
            depth, texts = gathered.resumed
            earlier.append(f"{texts} of {len(tokens)} went on from depth {depth}, where an earlier run was interrupted")
        if earlier:
            described["kept"] = "; ".join(earlier)
        if gathered.norms is None:
            described["token_norms"] = f"not measured: they would take more than {TOKEN_NORMS / 1e9:g} GB"
        usage = _sum(usages) if usages else _nothing_run(about or {})
        norms = gathered.token_norms
        return tuple(
            Vectors(values, depths, usage.dtype, {"pooling": pooling.described, **described}, norms)
            for values, pooling in zip(gathered.values, poolings, strict=True)
        ), usage

    def texts_kept(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        poolings: Sequence[Pooling],
        execution: Execution,
        kept: Keeping,
    ) -> int:
        """How many of these texts need not be run, since an earlier run has kept what is measured of them.

        Nothing that was kept is read: a damaged file is seen only when a run reads it.
        """
        shelf = _shelf(kept, execution.key(checkpoint))
        if shelf is None:
            return 0
        gathered = _Gathered(self.depths_of(checkpoint), tokens.lengths, len(poolings), lambda done, total: None)
        keys = _keys(tokens, _shares(tokens, poolings))
        found = shelf.listed([key for of in keys for key in of], tuple(gathered.place), gathered.wanted)
        return sum(all(k * len(tokens) + row in found for k in range(len(poolings))) for row in range(len(tokens)))


def _shares(tokens: Tokens, poolings: Sequence[Pooling]) -> list[list[npt.NDArray[np.float32]]]:
    """Of each pooling, for each text its tokens' weights."""
    return [[pooling.weights(t) for t in tokens.of] for pooling in poolings]


def _keys(tokens: Tokens, shares: list[list[npt.NDArray[np.float32]]]) -> list[list[str]]:
    return [[text_key(t.ids, w) for t, w in zip(tokens.of, of, strict=True)] for of in shares]


def _shelf(kept: Keeping | None, about: dict[str, Any] | None) -> Shelf | None:
    return kept.shelf({**about, "pooled": "weighted sum in float32"}) if kept and about else None


def _measure(
    checkpoint: Checkpointed,
    tokens: Tokens,
    rows: npt.NDArray[np.int64],
    shares: list[list[npt.NDArray[np.float32]]],
    execution: Execution,
    gathered: _Gathered,
    keep: _Keep | None,
) -> Usage:
    """One pass over the texts `rows`. shares: of each pooling, for each of `tokens` its tokens' weights."""
    import torch

    weights: dict[int, list[torch.Tensor]] = {}  # of each batch by its first text; a few bytes a token, for all depths

    def pool(depth: int, states: Any, batch: npt.NDArray[np.int64]) -> None:
        if depth not in gathered.place:
            return
        states, of = states.float(), rows[batch]
        if int(batch[0]) not in weights:
            padded = [_padded([share[i] for i in of], states.shape[1]) for share in shares]
            weights[int(batch[0])] = [torch.from_numpy(p).to(states.device) for p in padded]
        # [batch, 1, tokens] · [batch, tokens, width], summed in float32; one pooling after another, as if alone. With
        # the states first, as einsum has it, this takes a CPU 20 times as long.
        pooled = [torch.bmm(w[:, None], states)[:, 0].cpu().numpy() for w in weights[int(batch[0])]]
        gathered.put(depth, of, pooled)
        if gathered.norms is not None:
            gathered.put_norms(depth, of, torch.linalg.vector_norm(states, dim=-1).cpu().numpy())

    some = tokens.select(rows)
    asked = Workload.of(some, len(shares), len(gathered.place))
    usage = execution.forward(checkpoint, some, pool, keep, asked)
    if keep:
        keep.writing.finish()
    return usage


def _padded(weights: list[npt.NDArray[np.float32]], longest: int) -> npt.NDArray[np.float32]:
    """float32 [batch, longest]: the weights of several texts, zero at padding."""
    padded = np.zeros((len(weights), longest), dtype=np.float32)
    for row, of in zip(padded, weights, strict=True):
        row[: len(of)] = of
    return padded


def text_key(ids: npt.NDArray[Any], weights: npt.NDArray[np.float32]) -> str:
    """Of one text: its token ids, and the share each token has in the pooled vector."""
    digest = hashlib.sha256(np.ascontiguousarray(ids, dtype="<i8").tobytes())
    digest.update(b"|")
    digest.update(np.ascontiguousarray(weights, dtype="<f4").tobytes())
    return digest.hexdigest()


class _Gathered:
    """Vectors [depths, texts, width] of each pooling, and norms [depths, tokens of all texts], while they come in.

    norms: None where they would take too much. rows: the texts that were kept from an earlier run.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        lengths: IntArray,
        poolings: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self.place = {depth: i for i, depth in enumerate(depths)}
        self.lengths, self.poolings, self.progress = lengths, poolings, progress
        self.starts = np.cumsum(lengths) - lengths  # of each text's norms
        self.values: list[npt.NDArray[np.float32]] = []
        fits = len(depths) * int(lengths.sum()) * 4 <= TOKEN_NORMS
        self.norms = np.empty((len(depths), int(lengths.sum())), dtype=np.float32) if fits else None
        self.rows: set[int] = set()
        self.resumed: tuple[int, int] | None = None  # (depth, texts) at which a pass that was interrupted went on
        self.done = 0

    @property
    def token_norms(self) -> tuple[npt.NDArray[np.float32], ...] | None:
        """Of each text float32 [depths, tokens]."""
        if self.norms is None:
            return None
        return tuple(self.norms[:, i : i + n] for i, n in zip(self.starts, self.lengths, strict=True))

    @property
    def wanted(self) -> list[int] | None:
        """Of each pooling, of each text: how many norms. None where they are not measured."""
        return None if self.norms is None else [int(n) for n in self.lengths] * self.poolings

    def _room(self, width: int) -> list[npt.NDArray[np.float32]]:
        if not self.values:
            shape = len(self.place), len(self.lengths), width
            self.values = [np.empty(shape, dtype=np.float32) for _ in range(self.poolings)]
        return self.values

    def put(self, depth: int, rows: npt.NDArray[np.int64], pooled: list[npt.NDArray[np.float32]]) -> None:
        """The vectors [rows, width] of each pooling at one depth."""
        for values, found in zip(self._room(pooled[0].shape[1]), pooled, strict=True):
            values[self.place[depth], rows] = found
        self._count(len(rows))

    def put_norms(self, depth: int, rows: npt.NDArray[np.int64], padded: npt.NDArray[np.float32]) -> None:
        """The norms [rows, longest] at one depth; padding is left out."""
        assert self.norms is not None
        real = np.arange(padded.shape[1]) < self.lengths[rows][:, None]
        self.norms[self.place[depth], self.tokens_of(rows)] = padded[real]

    def tokens_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the norms of these texts' tokens are, one text after the other."""
        return np.concatenate([np.arange(self.starts[i], self.starts[i] + self.lengths[i]) for i in rows])

    def take(self, shelf: Shelf, keys: list[list[str]]) -> None:
        """The texts all of whose vectors are kept from an earlier run. keys: of each pooling, of each text."""
        found = shelf.find([key for of in keys for key in of], tuple(self.place), self.wanted)
        texts = len(self.lengths)
        for row in range(texts):
            of = [found.get(k * texts + row) for k in range(self.poolings)]
            kept = [one for one in of if one is not None]
            if len(kept) < self.poolings:
                continue
            for values, (vectors, _) in zip(self._room(kept[0][0].shape[1]), kept, strict=True):
                values[:, row] = vectors
            if self.norms is not None:
                self.norms[:, self.starts[row] : self.starts[row] + self.lengths[row]] = kept[0][1]
            self.rows.add(row)
            self._count(len(self.place))

    def _count(self, more: int) -> None:
        self.done += more
        self.progress(self.done, len(self.place) * len(self.lengths))


class _Keep:
    """Keeps what a pass over the texts `rows` finishes, and takes up what an interrupted one left.

    Poolings that weigh a text's tokens alike (it has one) are one vector of it.
    """

    def __init__(self, gathered: _Gathered, rows: npt.NDArray[np.int64], shelf: Shelf, keys: list[list[str]]) -> None:
        self.gathered, self.rows = gathered, rows
        lengths = gathered.lengths[rows]
        stops = np.cumsum(lengths)
        entries: dict[tuple[int, str], int] = {}  # (text, key) → its place in the set
        self.at = [
            np.array([entries.setdefault((i, of[row]), len(entries)) for i, row in enumerate(rows)]) for of in keys
        ]
        self.entries = len(entries)
        slices = [(int(stops[i] - lengths[i]), int(stops[i])) for i, _ in entries]
        self.writing = shelf.writing([key for _, key in entries], slices if gathered.norms is not None else ())

    def resume(self, load: Callable[[Path], Any]) -> int:
        last: tuple[int, Path] | None = self.writing.last_state()
        if last is None:
            return 0
        found = {d: self.writing.kept_depth(d) for d in self.gathered.place if d <= last[0]}
        if any(kept is None for kept in found.values()):  # that run kept other depths
            return 0
        try:
            load(last[1])
        except (OSError, ValueError):  # gone meanwhile
            return 0
        for depth, (vectors, norms) in found.items():
            self.gathered.put(depth, self.rows, [vectors[at] for at in self.at])
            if self.gathered.norms is not None:
                self.gathered.norms[self.gathered.place[depth], self.gathered.tokens_of(self.rows)] = norms
        self.gathered.resumed = last[0], len(self.rows)
        return last[0]

    def finished(self, depth: int, save: Callable[[Path], Any] | None) -> None:
        gathered = self.gathered
        if depth in gathered.place:
            place = gathered.place[depth]
            kept = np.empty((self.entries, gathered.values[0].shape[2]), dtype=np.float32)
            for at, values in zip(self.at, gathered.values, strict=True):
                kept[at] = values[place, self.rows]
            norms = gathered.norms[place, gathered.tokens_of(self.rows)] if gathered.norms is not None else None
            self.writing.depth(depth, kept, norms)
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
