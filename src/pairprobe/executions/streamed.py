"""One layer in memory at a time: read, dequantised as it is multiplied, run on all texts, and let go."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pairprobe.errors import CheckpointError, ExecutionError, at_least, one_of
from pairprobe.executions import device as devices
from pairprobe.executions.batches import batches, right_padded
from pairprobe.executions.feeder import Feeder
from pairprobe.executions.products import Workshop
from pairprobe.executions.sequence import Call, Sequence
from pairprobe.executions.slots import Place, Slots, places, stored
from pairprobe.executions.states import Phase, finite, out_of_memory
from pairprobe.records import Tokens, Usage
from pairprobe.rooms import Checkpointed, Fused, Observe, Weight

if TYPE_CHECKING:
    import torch

ACTIVATIONS = ("as_stored", "weight_only")
#: Share of a batch that is padding above which real tokens are gathered before each product.
WORTH_GATHERING = 0.03
#: Layers' parameters that are tables looked up by token id, of which only the needed rows are kept.
ROWS_ONLY = 2**20  # bytes; a smaller table is kept whole


@dataclass
class Batch:
    """Some texts on their way through the layers. states: [batch, tokens, width]."""

    rows: npt.NDArray[np.int64]
    ids: torch.Tensor
    mask: torch.Tensor
    real: torch.Tensor | None
    states: torch.Tensor
    calls: list[Call]


class Stream:
    """A model taken apart for streaming: what stays in memory, and the places of each layer's weights."""

    def __init__(self, checkpoint: Checkpointed, dtype: str, attention: str) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.empty_model(dtype, attention)
        self.sequence = Sequence(self.model, checkpoint.name)
        names = {id(module): name for name, module in self.model.named_modules()}
        within = names[id(self.sequence.stack)]
        self.within = f"{within}." if within else ""
        self.prefix = names[id(self.sequence.layers)]
        self.assigned: Mapping[str, Weight | Fused] = checkpoint.assigned(self.model, self.within)
        self.layers: list[list[Place]] = [
            places(layer, f"{self.prefix}.{i}", self.assigned) for i, layer in enumerate(self.sequence.layers)
        ]
        self.outside = {n: w for n, w in self.assigned.items() if not n.startswith(f"{self.prefix}.")}
        self.embedding = next(n for n, m in self.model.named_modules() if m is self.model.get_input_embeddings())

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


@dataclass(frozen=True)
class Streamed:
    """Run the base model (no head) layer by layer, each read from the checkpoint in the format it is stored in.

    Args:
        device: auto | cpu | cuda | cuda:N | mps. auto takes the first accelerator, else the CPU and says so.
        dtype: of computation: auto | float32 | bfloat16 | float16. auto: bfloat16 on GPUs that have it and on CPUs
            with AMX, else float32.
        attention: transformers' attention implementation, sdpa | eager; fixed and logged, since it changes
            the last digits.
        activations: as_stored | weight_only. Whether inputs of products are quantised where the checkpoint says so
            (W8A8, FP8). weight_only computes with unquantised inputs.
        batch_tokens: padded tokens per forward pass.
        threads: CPU threads; null leaves torch's own choice.
    """

    name: str = "streamed"
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "sdpa"
    activations: str = "as_stored"
    batch_tokens: int = 4096
    threads: int | None = None

    def __post_init__(self) -> None:
        devices.check_name(self.device)
        one_of("execution.dtype", self.dtype, devices.DTYPES)
        one_of("execution.attention", self.attention, ("sdpa", "eager"))
        one_of("execution.activations", self.activations, ACTIVATIONS)
        at_least("execution.batch_tokens", self.batch_tokens, 1)
        if self.threads is not None:
            at_least("execution.threads", self.threads, 1)

    def place(self) -> tuple[str, str]:
        """The device this will compute on, and a remark for the reader. Raises ExecutionError, see `device`."""
        return devices.choose(self.device)

    def forward(self, checkpoint: Checkpointed, tokens: Tokens, observe: Observe) -> Usage:
        """Run all texts once, calling `observe` for every batch at every depth 0 … L, shallow to deep.

        State d is what layer d receives; state L is what the model returns, after its final norm: Hugging
        Face's `hidden_states`, without keeping them.

        Raises:
            CheckpointError: stored tensors do not fill the model, or it is no sequence of layers.
            ExecutionError: no such device, out of memory, or a state that is not finite.
        """
        import torch

        device, _ = devices.choose(self.device)
        dtype = devices.dtype_for(self.dtype, device)
        torch.set_float32_matmul_precision("highest")
        seconds: dict[str, float] = {}
        peaks: dict[str, int] = {}
        try:
            with devices.threads(self.threads), torch.inference_mode():
                with Phase("load", device, seconds, peaks):
                    stream = Stream(checkpoint, dtype, self.attention)
                    kind = getattr(torch, dtype)
                    stream.settle(device, kind, np.unique(np.concatenate([t.ids for t in tokens.of])))
                with Phase("forward", device, seconds, peaks):
                    self._pass(stream, tokens, device, kind, observe, seconds)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            first = (str(error).splitlines() or [""])[0]
            raise ExecutionError(
                f"{checkpoint.name}: {device} is out of memory ({first})",
                "Choose a smaller execution.batch_tokens, or another device.",
            ) from None
        finally:
            stream = None  # type: ignore[assignment]
            if device.startswith("cuda"):  # the next job of a sweep finds the accelerator empty
                gc.collect()
                torch.cuda.empty_cache()
        return Usage(device, dtype, self.attention, seconds, peaks)

    def _pass(
        self,
        stream: Stream,
        tokens: Tokens,
        device: str,
        dtype: torch.dtype,
        observe: Observe,
        seconds: dict[str, float],
    ) -> None:
        """All layers once, over all texts."""
        import torch

        name = stream.checkpoint.name
        workshop = Workshop(device, dtype, self.activations == "as_stored")
        slots = Slots(workshop)
        work = [self._batch(stream.sequence, tokens, rows, device) for rows in batches(tokens.lengths, self.batch_tokens)]
        for batch in work:
            observe(0, finite(batch.states, batch.mask, name, tokens, 0, batch.rows), batch.rows)
        feeder = Feeder([stored(found) for found in stream.layers], device)
        last = len(stream.layers) - 1
        for depth, (layer, found, tensors) in enumerate(zip(stream.sequence.layers, stream.layers, feeder, strict=True)):
            start = time.perf_counter()
            with slots.filled(found, tensors):
                for batch in work:
                    workshop.batch(batch.mask, batch.real)
                    batch.states = batch.calls[depth](layer, batch.states)
                    if depth < last:
                        batch.states = finite(batch.states, batch.mask, name, tokens, depth + 1, batch.rows)
                        observe(depth + 1, batch.states, batch.rows)
            seconds["compute"] = seconds.get("compute", 0.0) + time.perf_counter() - start
        for batch in work:
            states = stream.sequence.leave(batch.ids, batch.mask, batch.states)
            observe(last + 1, finite(states, batch.mask, name, tokens, last + 1, batch.rows), batch.rows)
        for key, value in feeder.seconds.items():
            seconds[key] = seconds.get(key, 0.0) + value

    def _batch(self, sequence: Sequence, tokens: Tokens, rows: npt.NDArray[np.int64], device: str) -> Batch:
        import torch

        ids, mask = (torch.from_numpy(a).to(device) for a in right_padded(tokens, rows))
        real = mask.flatten().nonzero()[:, 0] if (~mask).float().mean() > WORTH_GATHERING else None
        states, calls = sequence.enter(ids, mask)
        return Batch(rows, ids, mask, real, states, calls)
