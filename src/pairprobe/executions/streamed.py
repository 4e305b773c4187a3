"""One layer in memory at a time: read, dequantised as it is multiplied, run on all texts, and let go."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pairprobe.errors import CheckpointError, ExecutionError, OutOfMemory, one_of
from pairprobe.executions import device as devices
from pairprobe.executions.activations import not_computed
from pairprobe.executions.attention import by_length
from pairprobe.executions.feeder import Feeder
from pairprobe.executions.memory import Budget, Short, budget, lacking, limited, megabytes, retained
from pairprobe.executions.pace import computing_seconds, reading_rate, total_seconds
from pairprobe.executions.packed import run
from pairprobe.executions.planning import Needs, Pass, Sizes, needs, passes, sizes
from pairprobe.executions.products import REVISION, Workshop, product_library
from pairprobe.executions.rounding import AS_STORED, WEIGHTS, refuse, scratch
from pairprobe.executions.slots import Slots, stored
from pairprobe.executions.staged import Staged
from pairprobe.executions.states import Phase, finite, first, out_of_memory, unfit
from pairprobe.executions.stream import Batch, Stream, enter, forget, restore, save, taken_apart
from pairprobe.records import Estimate, Tokens, Usage
from pairprobe.rooms import Activations, Checkpointed, Keep, Observe, Workload

if TYPE_CHECKING:
    import torch

ACTIVATIONS = ("as_stored", "weight_only")
LESS = (
    "Give it more (execution.memory), or fewer or shorter texts, or fewer depths (method.depths); "
    "execution.dtype=bfloat16 halves the states."
)


@dataclass(frozen=True)
class Streamed:
    """Run the base model (no head) layer by layer, each read from the checkpoint in the format it is stored in.

    Args:
        device: auto | cpu | cuda | cuda:N | mps. auto takes the first accelerator, else the CPU and says so.
        dtype: of computation: auto | float32 | bfloat16 | float16. auto: float32 for what is stored in it and on most
            CPUs, bfloat16 on GPUs that have it and on CPUs with AMX.
        attention: transformers' attention implementation, sdpa | eager; fixed and logged, since it changes
            the last digits.
        activations: as_stored | weight_only. Whether inputs of products are quantised where the checkpoint says so
            (W8A8, FP8). weight_only computes with unquantised inputs.
        weights: as_stored | int8 | int8_bnb | int4_g128 | int4_sym_g128 | nf4 | fp8 | fp8_block. Round a dense
            checkpoint's linear layers as these formats do (`grids`); inputs of products are not touched by it.
        batch_tokens: padded tokens per forward pass.
        threads: CPU threads; null leaves torch's own choice.
        memory: GB (10⁹ bytes) that a run may use, of the host and of the accelerator each; null: what is free,
            less a reserve. Smaller batches, then several passes over the checkpoint keep within it.
        resume: keep the vectors of finished layers, and take up those of earlier runs that were made the same way.
    """

    name: str = "streamed"
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "sdpa"
    activations: str = "as_stored"
    weights: str = AS_STORED
    batch_tokens: int = 4096
    threads: int | None = None
    memory: float | None = field(default=None, metadata={"allowed": devices.MEMORY_ALLOWED})
    resume: bool = True

    def __post_init__(self) -> None:
        devices.check_settings(self.device, self.dtype, self.attention, self.batch_tokens, self.threads, self.memory)
        one_of("execution.activations", self.activations, ACTIVATIONS)
        one_of("execution.weights", self.weights, WEIGHTS)

    def place(self) -> tuple[str, str]:
        """The device this will compute on, and a remark for the reader. Raises ExecutionError, see `device`."""
        return devices.choose(self.device)

    def settle(self, checkpoint: Checkpointed, asked: Workload) -> Streamed:  # noqa: ARG002
        """Itself; see `auto`."""
        return self

    def refuse(self, checkpoint: Checkpointed) -> str | None:
        """Why this checkpoint cannot be run this way, or None."""
        if checkpoint.config.get("is_encoder_decoder"):
            return f"{checkpoint.name}: an encoder-decoder has no single stack of states; not supported."
        if problem := refuse(checkpoint, self.weights):
            return problem
        if checkpoint.unread:
            return f"{checkpoint.name}: {checkpoint.unread}"
        for kind in self._activations(checkpoint):
            problem = not_computed(kind)
            if problem:
                return f"{checkpoint.name}: {problem}"
        if self.activations == "as_stored":
            for place in (p for layer in self._stream(checkpoint).layers for p in layer if p.by != "linear"):
                if any(w.activations for expert in place.weights for w in expert):
                    return (
                        f"{checkpoint.name}: {place.name} is no plain product, so that quantising its input as stored "
                        "is not possible. execution.activations=weight_only computes with unquantised inputs."
                    )
        if self.weights != AS_STORED:
            self._stream(checkpoint)  # raises where nothing can be rounded
        return None

    def key(self, checkpoint: Checkpointed) -> dict[str, Any] | None:
        """Everything of this execution and the checkpoint that could change a state. None where states are not kept:
        unasked, because they depend on what else is in the batch (dynamic activation scales for a whole tensor), or
        because Python code from another repository has a part in them."""
        code = checkpoint.code
        if not self.resume or code is None or any(a.scale == "tensor" for a in self._activations(checkpoint)):
            return None
        import torch
        import transformers

        device, _ = devices.choose(self.device)
        dtype = devices.dtype_for(self.dtype, device, checkpoint.tensors)
        return {
            "execution": self.name,
            "checkpoint": checkpoint.identity,
            "files": checkpoint.files,
            "config": checkpoint.config,
            "formats": checkpoint.quantisation,
            "activations": self.activations,
            "weights": self.weights,
            "device": device.partition(":")[0],
            "processor": devices.processor(device),
            "code": code,
            "dtype": dtype,
            "attention": self.attention,
            "products": f"{product_library(device, getattr(torch, dtype))}, {REVISION}",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _activations(self, checkpoint: Checkpointed) -> set[Activations]:
        """The ways in which inputs of products will be quantised."""
        if self.activations != "as_stored":
            return set()
        return {w.activations for w in checkpoint.weights.values() if w.activations is not None}

    def chunks(self, checkpoint: Checkpointed, asked: Workload) -> Iterator[npt.NDArray[np.int64]]:
        """Indices of the texts of each pass over the checkpoint, so that their states fit in the budget."""
        device, _ = devices.choose(self.device)
        of = self._sizes(self._stream(checkpoint), asked, device)
        found = passes(of, asked, device, self.batch_tokens, budget(device, self.memory))
        return (one.rows for one in found)

    def estimate(self, checkpoint: Checkpointed, asked: Workload, timed: bool = False) -> Estimate:
        """What a run on these texts would take.

        timed: measure disk and processor, about a second. Beginnings are what a causal model computes; whether it is
        causal is guessed from its modules.
        """
        import torch

        device, _ = devices.choose(self.device)
        dtype = devices.dtype_for(self.dtype, device, checkpoint.tensors)
        stream = self._stream(checkpoint)
        limits = budget(device, self.memory)
        wanted = self._needs(stream, asked, device, limits)
        tensors = [part for layer in stream.layers for part in stored(layer)]
        reads = sum(part.nbytes for part in tensors)
        seconds = None
        if timed:
            with devices.threads(self.threads), torch.inference_mode():
                workshop = Workshop(device, getattr(torch, dtype), self.activations == "as_stored")
                rate = reading_rate(tensors, checkpoint.to_come)
                count = sum(len(of.batches) for of in wanted.passes)
                compute = computing_seconds(stream.layers, sum(of.computed for of in wanted.passes), count, workshop)
            building = 0.0
            if len(wanted.passes) > 1:
                forget()
                start = time.perf_counter()
                self._stream(checkpoint)
                building = time.perf_counter() - start
            seconds = total_seconds(reads, rate, compute, len(wanted.passes), building)
        short = limits.short(wanted.host, wanted.gpu)
        return Estimate(
            self.name, device, dtype, reads * len(wanted.passes), wanted.host, wanted.gpu, seconds, len(wanted.passes),
            problem=lacking(checkpoint.name, short) if short else "", may=limits.host, rounding=stream.rounding,
            one_pass=wanted.one_pass,
        )  # fmt: skip

    def _stream(self, checkpoint: Checkpointed) -> Stream:
        device, _ = devices.choose(self.device)
        dtype = devices.dtype_for(self.dtype, device, checkpoint.tensors)
        return taken_apart(checkpoint, dtype, self.attention, self.weights)

    def _needs(self, stream: Stream, asked: Workload, device: str, limits: Budget) -> Needs:
        return needs(self._sizes(stream, asked, device), asked, device, self.batch_tokens, limits)

    def _sizes(self, stream: Stream, asked: Workload, device: str) -> Sizes:
        import torch

        itemsize = getattr(torch, devices.dtype_for(self.dtype, device, stream.checkpoint.tensors)).itemsize
        config = stream.sequence.stack.config.get_text_config()
        rows = min(asked.vocabulary, config.vocab_size)
        of = sizes(stream.layers, dict(stream.outside), stream.embedding, rows, config.hidden_size, itemsize)
        of = replace(of, rounding=scratch(stream.layers, device.partition(":")[0]))
        return replace(of, packs=stream.packs, once=stream.causal, joins=stream.joins)

    def forward(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        observe: Observe,
        keep: Keep | None = None,
        asked: Workload | None = None,
    ) -> Usage:
        """Run all texts once, calling `observe` for every batch at every depth 0 … L, shallow to deep.

        State d is what layer d receives; state L is what the model returns, after its final norm: Hugging
        Face's `hidden_states`, without keeping them. keep: told of finished depths, and asked where to go on.

        Raises:
            CheckpointError: refused, stored tensors do not fill the model, or it is no sequence of layers.
            OutOfMemory: there is less than these texts need.
            ExecutionError: no such device, or a state that is not finite.
        """
        import torch

        if reason := self.refuse(checkpoint):
            raise CheckpointError(reason)
        device, _ = devices.choose(self.device)
        dtype = devices.dtype_for(self.dtype, device, checkpoint.tensors)
        torch.set_float32_matmul_precision("highest")
        seconds: dict[str, float] = {}
        peaks: dict[str, int] = {}
        limits = budget(device, self.memory)
        stream = self._stream(checkpoint)
        wanted = self._needs(stream, asked or Workload.of(tokens), device, limits)
        short = limits.short(wanted.host, wanted.gpu)
        if short or len(wanted.passes) > 1:  # there was more when these texts were chosen
            raise OutOfMemory(
                lacking(checkpoint.name, short or Short("this machine", wanted.one_pass, limits.host)), LESS
            )
        try:
            with devices.threads(self.threads), torch.inference_mode(), limited(limits.host, device), retained(device):
                kind = getattr(torch, dtype)
                with Phase("load", device, seconds, peaks):
                    stream.settle(device, kind, np.unique(np.concatenate([t.ids for t in tokens.of])))
                tally = stream.counted()
                with Phase("forward", device, seconds, peaks):
                    self._pass(stream, tokens, device, kind, observe, keep, wanted.passes[0], seconds)
        except Exception as error:
            if isinstance(error, RuntimeError) and "meta" in str(error):  # what was not loaded is there
                raise ExecutionError(
                    f"{checkpoint.name}: its model uses a weight in a way streaming does not know ({first(error)}).",
                    "execution=resident runs it whole.",
                ) from error
            if not out_of_memory(error):
                if problem := unfit(error, checkpoint.name, stream.model):
                    raise problem from error
                raise
            raise OutOfMemory(
                f"{checkpoint.name}: {device} is out of memory ({first(error)}), {_planned(wanted, limits)}.", LESS
            ) from None
        finally:
            rounding = stream.rounding
            forget()
            del stream
            if device.startswith("cuda"):  # the next job of a sweep finds the accelerator empty
                gc.collect()
                torch.cuda.empty_cache()
        rounding = rounding and replace(rounding, error=tally.error)
        return Usage(device, dtype, self.attention, seconds, peaks, rounding)

    def _pass(
        self,
        stream: Stream,
        tokens: Tokens,
        device: str,
        dtype: torch.dtype,
        observe: Observe,
        keep: Keep | None,
        wanted: Pass,
        seconds: dict[str, float],
    ) -> None:
        """All layers once, over all texts."""
        name = stream.checkpoint.name
        last = len(stream.layers)
        workshop = Workshop(device, dtype, self.activations == "as_stored")
        slots = Slots(workshop)
        divided = [tuple(wanted.rows[group] for group in groups) for groups in wanted.batches]
        work = [enter(stream.sequence, tokens, groups, device) for groups in divided]

        def seen(depth: int, batch: Batch) -> None:
            batch.states = finite(batch.states, batch.mask, name, tokens, depth, batch.rows)
            for rows, states in batch.groups():
                observe(depth, states, rows)

        begin = keep.resume(lambda file: restore(file, work, tokens)) if keep else 0
        if not begin:
            for batch in work:
                seen(0, batch)
            if keep:
                keep.finished(0, None)
        drop = stream.checkpoint.nbytes > devices.free_memory("cpu") // 4
        left, room = [stored(found) for found in stream.layers[begin:]], wanted.room
        read = (
            Feeder(left, drop=drop, room=room.nbytes, fence=room.fence, rolls=room.rolls)
            if device == "cpu"
            else Staged(left, device, drop=drop, room=room.nbytes)
        )
        with by_length(workshop), closing(iter(read)) as layers:  # its thread and files end, whatever happens
            for depth, tensors in enumerate(layers, begin):
                start, waited = time.perf_counter(), read.seconds["wait"]
                with slots.filled(stream.layers[depth], tensors):
                    for batch in work:
                        workshop.batch(batch.mask, batch.lengths, batch.computed, last=batch is work[-1])
                        call, layer = batch.calls[depth], stream.sequence.layers[depth]
                        found = (
                            run(call, layer, batch.states, workshop, stream.causal)
                            if stream.packs
                            else call(layer, batch.states)
                        )
                        batch.take(found)
                        del found
                        if depth + 1 < last:
                            seen(depth + 1, batch)
                waited = read.seconds["wait"] - waited  # within the layer, for tensors that were still being read
                seconds["compute"] = seconds.get("compute", 0.0) + time.perf_counter() - start - waited
                if keep and depth + 1 < last:
                    keep.finished(depth + 1, partial(save, work, tokens))
        for batch in work:
            batch.states = stream.sequence.leave(batch.ids, batch.mask, batch.states)
            seen(last, batch)
        if keep:
            keep.finished(last, None)
        seconds |= read.seconds


def _planned(wanted: Needs, limits: Budget) -> str:
    """What was foreseen, beside what may be used."""
    return f"where {megabytes(max(wanted.host, wanted.gpu))} were planned of {megabytes(limits.host)} it may use"
