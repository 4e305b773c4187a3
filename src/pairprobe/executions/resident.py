"""The whole model in memory, its states observed layer by layer and let go."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pairprobe.errors import CheckpointError, ExecutionError, Unfilled, one_of
from pairprobe.executions import device as devices
from pairprobe.executions.batches import batches, right_padded, text_stack
from pairprobe.executions.memory import budget, lacking, limited
from pairprobe.executions.pace import whole_seconds
from pairprobe.executions.planning import NARROW, WIDE
from pairprobe.executions.rounding import AS_STORED, WEIGHTS, Rounded, refuse
from pairprobe.executions.slots import Place
from pairprobe.executions.states import Phase, finite, out_of_memory, unfit
from pairprobe.executions.stream import Stream, taken_apart
from pairprobe.records import Estimate, Rounding, Tokens, Usage
from pairprobe.rooms import Checkpointed, Keep, Observe, Workload

if TYPE_CHECKING:
    import torch

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
#: Weights whose absence changes no hidden state: the pooler sits on top of the last one.
HARMLESS_IF_MISSING = ("pooler.",)


@dataclass(frozen=True)
class Resident:
    """Run the whole base model (no head) on one device.

    Args:
        device: auto | cpu | cuda | cuda:N | mps. auto takes the first accelerator, else the CPU and says so.
        dtype: of weights and computation: auto | float32 | bfloat16 | float16. float32 holds every stored value of
            a bf16 or fp16 checkpoint exactly. auto: float32 for what is stored in it and on most CPUs, bfloat16 on
            GPUs that have it and on CPUs with AMX.
        attention: transformers' attention implementation, sdpa | eager; fixed and logged, since it changes
            the last digits.
        weights: as_stored | int8 | int8_bnb | int4_g128 | int4_sym_g128 | nf4 | fp8 | fp8_block. Round the linear
            layers as these formats do (`grids`), once, after loading.
        batch_tokens: padded tokens per forward pass. Texts are sorted by length first, so padding is small;
            it changes no result beyond rounding.
        threads: CPU threads; null leaves torch's own choice.
        memory: GB (10⁹ bytes) that a run may use; null: what is free, less a reserve.
    """

    name: str = "resident"
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "sdpa"
    weights: str = AS_STORED
    batch_tokens: int = 4096
    threads: int | None = None
    memory: float | None = field(default=None, metadata={"allowed": devices.MEMORY_ALLOWED})

    def __post_init__(self) -> None:
        devices.check_settings(self.device, self.dtype, self.attention, self.batch_tokens, self.threads, self.memory)
        one_of("execution.weights", self.weights, WEIGHTS)

    def place(self) -> tuple[str, str]:
        """The device this will compute on, and a remark for the reader. Raises ExecutionError, see `device`."""
        return devices.choose(self.device)

    def settle(self, checkpoint: Checkpointed, asked: Workload) -> Resident:  # noqa: ARG002
        """Itself; see `auto`."""
        return self

    def memory_needed(self, checkpoint: Checkpointed, asked: Workload | None = None) -> int:
        """Bytes the weights take, as computed with, plus the file's pages while they are converted; and, of the texts
        asked for, what a layer holds of their largest batch."""
        itemsize = BYTES[devices.dtype_for(self.dtype, devices.choose(self.device)[0], checkpoint.tensors)]
        largest = max((t.nbytes for t in checkpoint.tensors.values()), default=0)
        if self.weights != AS_STORED and not self.refuse(checkpoint):  # one matrix as stored, and in float32
            matrices = (w for p in self._rounded(checkpoint) for expert in p.weights for w in expert)
            largest = max(largest, *(w.nbytes + 4 * math.prod(w.shape) for w in matrices))
        weights = checkpoint.parameters * itemsize + largest
        if asked is None:
            return weights
        divided = batches(asked.lengths, self.batch_tokens, asked.parts)
        padded = max(int(asked.lengths[rows].max()) * len(rows) for rows in divided)
        # the weights' own shapes: quantised ones are stored in others, flattened or in words
        inside = [w.shape for name, w in checkpoint.weights.items() if _of_a_layer(name) and len(w.shape) == 2]
        inner = max((max(shape) for shape in inside), default=0)
        width = max((min(shape) for shape in inside), default=0)
        return weights + int(padded * itemsize * (WIDE * inner + NARROW * width))

    def estimate(self, checkpoint: Checkpointed, asked: Workload, timed: bool = False) -> Estimate:
        """What a run on these texts would take. timed: measure disk and processor. Raises Unfilled, see `errors`."""
        device, _ = devices.choose(self.device)
        dtype = devices.dtype_for(self.dtype, device, checkpoint.tensors)
        weights = self.memory_needed(checkpoint, asked)
        limits = budget(device, self.memory)
        host, gpu = (weights, 0) if device == "cpu" else (weights, weights)
        if devices.unified(device):
            host = 0
        problem = self.refuse(checkpoint) or ""
        if not problem:
            self._check(checkpoint, dtype)
        short = limits.short(host, gpu)
        if short and not problem:
            problem = lacking(checkpoint.name, short)
        seconds = None
        if timed and not problem:
            with devices.threads(self.threads):
                seconds = whole_seconds(checkpoint, int(asked.lengths.sum()), device, dtype)
        reads, rounding = checkpoint.nbytes, None
        if self.weights != AS_STORED and not self.refuse(checkpoint):
            reads += sum(w.nbytes for p in self._rounded(checkpoint) for expert in p.weights for w in expert)
            rounding = self._stream(checkpoint).rounding
        return Estimate(
            self.name, device, dtype, reads, host, gpu, seconds, 1, problem, may=limits.host, rounding=rounding
        )

    def _check(self, checkpoint: Checkpointed, dtype: str) -> None:
        """Tell before anything is loaded where the stored tensors do not fill the model. Raises Unfilled."""
        try:
            checkpoint.assigned(checkpoint.empty_model(dtype, self.attention))
        except Unfilled:
            raise
        except CheckpointError:  # its parts are joined in a way that is not read here; transformers itself may know it
            return

    def _stream(self, checkpoint: Checkpointed) -> Stream:
        """Its layers' places, on no memory."""
        dtype = devices.dtype_for(self.dtype, devices.choose(self.device)[0], checkpoint.tensors)
        return taken_apart(checkpoint, dtype, self.attention, self.weights)

    def _rounded(self, checkpoint: Checkpointed) -> list[Place]:
        """The places whose weights are rounded."""
        every = (p for layer in self._stream(checkpoint).layers for p in layer)
        return [p for p in every if any(isinstance(w, Rounded) for expert in p.weights for w in expert)]

    def key(self, checkpoint: Checkpointed) -> None:  # noqa: ARG002
        """Nothing is kept: small models are run again as fast as their vectors are found."""
        return

    def chunks(self, checkpoint: Checkpointed, asked: Workload) -> Iterator[npt.NDArray[np.int64]]:  # noqa: ARG002
        """One pass."""
        return iter([np.arange(len(asked))])

    def refuse(self, checkpoint: Checkpointed) -> str | None:
        """Why this checkpoint cannot be run this way, or None."""
        if problem := refuse(checkpoint, self.weights):
            return problem
        if checkpoint.quantisation or checkpoint.declared:  # transformers acts on what the config declares
            stored = checkpoint.quantisation or f"so config.json says: {checkpoint.declared.get('quant_method')}"
            return (
                f"{checkpoint.name}: stored quantised ({stored}); execution=resident runs dense "
                "checkpoints (fp32, fp16, bf16) only. execution=streamed reads every format."
            )
        if checkpoint.gguf:  # its weights are dense, but transformers would look for others in its folder
            return f"{checkpoint.name}: a GGUF file; execution=resident runs safetensors. execution=streamed reads it."
        if checkpoint.config.get("is_encoder_decoder"):
            return f"{checkpoint.name}: an encoder-decoder has no single stack of states; not supported."
        return None

    def forward(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        observe: Observe,
        keep: Keep | None = None,  # noqa: ARG002
        asked: Workload | None = None,  # noqa: ARG002
    ) -> Usage:
        """Run all texts once, calling `observe` for every batch at every depth 0 … L, shallow to deep.

        State d is what layer d receives; state L is what the model returns, after its final norm: Hugging
        Face's `hidden_states`, without keeping them.

        Raises:
            CheckpointError: stored tensors do not fill the model.
            ExecutionError: no such device, out of memory, or a state that is not finite.
        """
        import torch

        reason = self.refuse(checkpoint)
        if reason:
            raise CheckpointError(reason)
        device, _ = devices.choose(self.device)
        torch.set_float32_matmul_precision("highest")
        seconds: dict[str, float] = {}
        peaks: dict[str, int] = {}
        model = None
        dtype = devices.dtype_for(self.dtype, device, checkpoint.tensors)
        try:
            with devices.threads(self.threads), limited(budget(device, self.memory).host, device):
                with Phase("load", device, seconds, peaks):
                    model = self._load(checkpoint, device, dtype)
                    rounding = self._round(checkpoint, model)
                with Phase("forward", device, seconds, peaks), torch.inference_mode():
                    for rows in batches(tokens.lengths, self.batch_tokens, tokens.parts):
                        self._batch(checkpoint, model, tokens, rows, device, observe)
        except Exception as error:
            if not out_of_memory(error):
                if problem := unfit(error, checkpoint.name, model):
                    raise problem from error
                raise
            first = (str(error).splitlines() or [""])[0]
            raise ExecutionError(
                f"{checkpoint.name}: {device} is out of memory ({first})",
                "Choose a smaller execution.batch_tokens, execution.dtype=bfloat16, or another device.",
            ) from None
        finally:
            del model
            if device.startswith("cuda"):  # the next job of a sweep finds the accelerator empty
                gc.collect()
                torch.cuda.empty_cache()
        return Usage(device, dtype, self.attention, seconds, peaks, rounding)

    def _round(self, checkpoint: Checkpointed, model: torch.nn.Module) -> Rounding | None:
        """Put rounded weights in place of the model's own: rounded from what is stored, whatever is computed in."""
        import torch

        if self.weights == AS_STORED:
            return None
        stream = self._stream(checkpoint)
        tally = stream.counted()
        with torch.no_grad():
            for i, layer in enumerate(stream.layers):
                for place in layer:
                    parameter = model.get_parameter(f"{stream.prefix}.{i}.{place.name}")
                    for index, expert in enumerate(place.weights):
                        if not any(isinstance(w, Rounded) for w in expert):
                            continue
                        into = parameter[index] if place.by == "table" else parameter
                        start = 0
                        for weight in expert:
                            into[start : start + weight.shape[0]].copy_(checkpoint.dense(weight))
                            start += weight.shape[0]
        return stream.rounding and replace(stream.rounding, error=tally.error)

    def _load(self, checkpoint: Checkpointed, device: str, dtype: str) -> torch.nn.Module:
        import torch
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # what matters of loading is checked below
        try:
            model, info = AutoModel.from_pretrained(
                checkpoint.folder,
                dtype=getattr(torch, dtype),
                attn_implementation=self.attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=checkpoint.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # listed below, with our own words
            )
        except Exception as error:
            if out_of_memory(error):
                raise
            first = str(error).strip().split("\n")[0][:300] or type(error).__name__
            step = "If it needs its own Python code and you trust that: model.trust_remote_code=true"
            if self.attention == "sdpa" and "scaled_dot_product_attention" in str(error):
                step = "This architecture does not know it: execution.attention=eager"
            raise CheckpointError(f"{checkpoint.name}: transformers cannot load it ({first}).", step) from error
        # A tensor that is not in the files would be random numbers: never measure those.
        absent = sorted(k for k in info["missing_keys"] if not k.startswith(HARMLESS_IF_MISSING))
        wrong = sorted(str(k[0] if isinstance(k, tuple) else k) for k in info["mismatched_keys"])
        for what, names in (("not in its files", absent), ("stored in another shape", wrong)):
            if names:
                shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
                raise CheckpointError(
                    f"{checkpoint.name}: {len(names)} tensors of the model are {what}: {shown}.",
                    "Get the checkpoint again; its weights and its config.json do not belong together.",
                )
        problems = checkpoint.without_place(model, info["unexpected_keys"])
        if problems:
            raise CheckpointError(
                [f"{checkpoint.name}: {line}" for line in problems],
                "Get the checkpoint again; its weights and its config.json do not belong together.",
            )
        return model.to(device).eval()  # type: ignore[no-any-return]

    def _batch(
        self,
        checkpoint: Checkpointed,
        model: torch.nn.Module,
        tokens: Tokens,
        rows: npt.NDArray[np.int64],
        device: str,
        observe: Observe,
    ) -> None:
        import torch

        ids, mask = right_padded(tokens, rows)
        on_device = torch.from_numpy(mask).to(device)
        stack, hidden = text_stack(model)

        def see(depth: int, states: torch.Tensor) -> None:
            observe(depth, finite(states, on_device, checkpoint.name, tokens, depth, rows), rows)

        def hook(depth: int) -> Any:
            def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                see(depth, args[0] if args else kwargs["hidden_states"])

            return before

        handles = [layer.register_forward_pre_hook(hook(depth), with_kwargs=True) for depth, layer in enumerate(hidden)]
        try:
            out = stack(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=on_device.long(),
                **({"use_cache": False} if getattr(stack.config, "use_cache", None) is not None else {}),
            )
            see(len(hidden), out.last_hidden_state)
        finally:
            for handle in handles:
                handle.remove()


def _of_a_layer(name: str) -> bool:
    """Whether a stored tensor's name has a number in it, as those of layers do."""
    return any(part.isdigit() for part in name.split("."))
