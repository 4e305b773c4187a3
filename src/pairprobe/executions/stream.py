"""A model taken apart for streaming: what stays in memory, and the places of each layer's weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pairprobe.errors import CheckpointError
from pairprobe.executions.batches import right_padded
from pairprobe.executions.packed import known
from pairprobe.executions.rounding import AS_STORED, Rounded, Tally, applied
from pairprobe.executions.sequence import Call, Sequence
from pairprobe.executions.sharing import Groups, Rows
from pairprobe.executions.sharing import rows as computed
from pairprobe.executions.slots import Place, places
from pairprobe.records import Tokens
from pairprobe.rooms import LENGTHS_MATTER, Checkpointed, Fused, Weight

if TYPE_CHECKING:
    import torch


@dataclass
class Batch:
    """Some texts on their way through the layers. states: [batch, tokens, width]. computed: which rows are. lengths: of
    the texts, on the host: asking a device for them in every layer would wait for it. sizes: texts of each group, one
    group after another; each group's numbers are to the last bit what they are alone."""

    rows: npt.NDArray[np.int64]
    sizes: tuple[int, ...]
    lengths: list[int]
    ids: torch.Tensor
    mask: torch.Tensor
    computed: Rows | Groups | None
    states: torch.Tensor
    calls: list[Call]

    def take(self, states: torch.Tensor) -> None:
        """Its next states, where the last ones are: memory that outlives a layer stays where it is, so that what
        layers need meanwhile leaves no holes between."""
        if states.shape == self.states.shape and states.dtype == self.states.dtype:
            self.states.copy_(states)
        else:
            self.states = states

    def groups(self) -> Iterator[tuple[npt.NDArray[np.int64], torch.Tensor]]:
        """Of each group its texts, and their states, padded as they would be alone."""
        for start, stop in pairwise(np.cumsum([0, *self.sizes]).tolist()):
            yield self.rows[start:stop], self.states[start:stop, : max(self.lengths[start:stop])]


class Stream:
    """A model taken apart for streaming: what stays in memory, and the places of each layer's weights."""

    def __init__(self, checkpoint: Checkpointed, dtype: str, attention: str, weights: str = AS_STORED) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.empty_model(dtype, attention)
        self.sequence = Sequence(self.model, checkpoint.name)
        names = {id(module): name for name, module in self.model.named_modules()}
        within = names[id(self.sequence.stack)]
        self.within = f"{within}." if within else ""
        self.prefix = names[id(self.sequence.layers)]
        self.assigned: Mapping[str, Weight | Fused] = checkpoint.assigned(self.model, self.within)
        self.layers: list[list[Place]]
        self.layers, self.rounding = applied(
            [places(layer, f"{self.prefix}.{i}", self.assigned) for i, layer in enumerate(self.sequence.layers)],
            weights,
            checkpoint.name,
        )
        self.outside = {n: w for n, w in self.assigned.items() if not n.startswith(f"{self.prefix}.")}
        self.embedding = next(n for n, m in self.model.named_modules() if m is self.model.get_input_embeddings())

    def counted(self) -> Tally:
        """Counts rounding errors from now on."""
        tally = Tally()
        for weight in (w for layer in self.layers for p in layer for expert in p.weights for w in expert):
            if isinstance(weight, Rounded):
                weight.tally = tally
        return tally

    @cached_property
    def causal(self) -> bool:
        """Whether its attention says that it looks back only, and its config does not say otherwise."""
        config = self.sequence.stack.config.get_text_config()
        if getattr(config, "is_causal", True) is False or getattr(config, "use_bidirectional_attention", None):
            return False
        return any(getattr(module, "is_causal", False) for module in self.model.modules())

    @cached_property
    def packs(self) -> bool:
        """Whether its layers may be run on packed rows, see `packed`."""
        return known(self.sequence.layers, self.sequence.stack.config.get_text_config())

    @cached_property
    def joins(self) -> bool:
        """Whether several groups of texts may be one batch, each group's numbers what they are alone: all that could
        tell one group from several are products, which are computed group by group, attention, which is text by text,
        and positions, which some models count otherwise where any text is long."""
        one_by_one = all(
            p.by == "linear" or (p.by == "dense" and len(p.weights[0][0].shape) < 2) for of in self.layers for p in of
        )
        rope = getattr(self.sequence.stack.config.get_text_config(), "rope_parameters", None)
        kinds = re.findall(r"'rope_type': '(\w+)'", str(rope))  # of all layers, or of each kind of them
        return self.packs and one_by_one and not {*kinds} & {*LENGTHS_MATTER}

    def settle(self, device: str, dtype: torch.dtype, ids: npt.NDArray[np.int64]) -> None:
        """Fill what lies outside the layers; of the embedding table, the rows of `ids` (ascending) alone."""
        import torch

        for name, weight in self.outside.items():
            path, _, leaf = name.rpartition(".")
            module = self.model.get_submodule(path)
            if isinstance(weight, Fused):
                raise CheckpointError(f"{self.checkpoint.name}: {name} holds experts outside the layers.")
            if path == self.embedding and leaf == "weight":
                rows = self.checkpoint.weight_rows(weight, (int(i) for i in ids))
                value = torch.from_numpy(np.stack([rows[int(i)] for i in ids]))
                known = torch.from_numpy(ids).to(device)
                module.padding_idx = None  # a row number of the whole table
                module.register_forward_pre_hook(lambda _m, args, known=known: (torch.searchsorted(known, args[0]),))
            else:
                value = self.checkpoint.dense(weight)
            if leaf in module._parameters:
                module._parameters[leaf] = torch.nn.Parameter(value.to(device, dtype), requires_grad=False)
            else:
                module._buffers[leaf] = value.to(device, module._buffers[leaf].dtype)
        for module in self.sequence.stack.modules():
            for leaf, buffer in module._buffers.items():
                if buffer is not None and buffer.device.type != "meta":
                    module._buffers[leaf] = buffer.to(device)  # never to another dtype


_last: tuple[Any, Stream] | None = None


def taken_apart(checkpoint: Checkpointed, dtype: str, attention: str, weights: str = AS_STORED) -> Stream:
    """The checkpoint's model taken apart; the last one is remembered, since planning and running want the same."""
    global _last
    wanted = (id(checkpoint), dtype, attention, weights)
    if _last is None or _last[0] != wanted or _last[1].checkpoint is not checkpoint:
        _last = wanted, Stream(checkpoint, dtype, attention, weights)
    return _last[1]


def forget() -> None:
    """What was remembered has been filled with weights: build it anew next time."""
    global _last
    _last = None


def enter(sequence: Sequence, tokens: Tokens, groups: tuple[npt.NDArray[np.int64], ...], device: str) -> Batch:
    """These groups of texts as a batch, at state 0."""
    import torch

    rows, sizes = np.concatenate(groups), tuple(len(group) for group in groups)
    padded = right_padded(tokens, rows)
    ids, mask = (torch.from_numpy(a).to(device) for a in padded)
    states, calls = sequence.enter(ids, mask)
    which = computed(*padded, device, sizes)
    states = states.clone()  # written over by each layer, while a call may hold what came in
    return Batch(rows, sizes, padded[1].sum(axis=1).tolist(), ids, mask, which, states, calls)


def save(work: list[Batch], tokens: Tokens, file: Path) -> None:
    """Write the states of all real tokens, text after text, as they lie in memory."""
    import torch

    places = {int(row): (batch, i) for batch in work for i, row in enumerate(batch.rows)}
    with file.open("wb") as stream:
        for row in range(len(tokens)):
            batch, i = places[row]
            states = batch.states[i, : len(tokens.of[row])].contiguous().cpu()
            stream.write(memoryview(states.view(torch.uint8).numpy()))  # type: ignore[arg-type]


def restore(file: Path, work: list[Batch], tokens: Tokens) -> None:
    """Put the states that `save` wrote back into the batches. Padding gets zeros: nothing looks at it.

    Raises:
        OSError: the file cannot be read. ValueError: it has another size.
    """
    import torch

    like = work[0].states
    size = like.shape[-1] * like.itemsize
    if file.stat().st_size < size * int(tokens.lengths.sum()):
        raise ValueError(f"{file.name} is too small")
    ends = np.cumsum(tokens.lengths)
    found = []
    with file.open("rb") as stream:
        for batch in work:
            states = torch.zeros_like(batch.states)
            for i, row in enumerate(batch.rows):
                n = len(tokens.of[row])
                stream.seek(int(ends[row] - n) * size)
                flat = torch.frombuffer(bytearray(stream.read(n * size)), dtype=like.dtype)
                states[i, :n] = flat.view(n, -1).to(like.device)
            found.append(states)
    for batch, states in zip(work, found, strict=True):  # all or none: half of them would be no depth's states
        batch.states = states
