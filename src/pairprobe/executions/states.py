"""What both executions do with states: none that is not finite passes; and what a phase cost."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pairprobe.errors import CheckpointError, ExecutionError, PairprobeError
from pairprobe.records import Tokens

if TYPE_CHECKING:
    import torch

#: Words of errors that a device or its library raised, whatever code was asking.
DEVICES = ("CUDA", "cuBLAS", "CUBLAS", "cuDNN", "MPS")


def finite(
    states: torch.Tensor,
    mask: torch.Tensor,
    name: str,
    tokens: Tokens,
    depth: int,
    rows: npt.NDArray[np.int64],
) -> torch.Tensor:
    """`states` [batch, tokens, width]; zeros at padding that is not finite. mask: bool [batch, tokens], real tokens.

    Raises:
        CheckpointError: the model's states are not one vector for each token.
        ExecutionError: a real token's state is NaN or infinite. It names the depth and the texts.
    """
    import torch

    if states.ndim != 3 or states.shape[:2] != mask.shape:
        raise CheckpointError(
            f"{name}: state {depth} of {list(mask.shape)} [texts, tokens] is {list(states.shape)}; one vector for each "
            "token is needed.",
            "method=static needs no layers.",
        )

    if torch.isfinite(states.sum()) or torch.isfinite(states).all():  # the sum of finite numbers may overflow
        return states
    bad = (~torch.isfinite(states).all(-1) & mask).any(-1).cpu().numpy()
    if not bad.any():
        return states.masked_fill(~mask[..., None], 0.0)
    which = rows[bad]
    named = "; ".join(tokens.texts.texts[r].text[:60] for r in which[:3]) + (" …" if len(which) > 3 else "")
    raise ExecutionError(
        f"{name}: state {depth} is not finite (NaN or infinite) in {len(which)} of {len(rows)} texts that were run "
        f"together: {named}",
        "float16 overflows on some models: choose execution.dtype=float32 or bfloat16."
        if states.dtype == torch.float16
        else "The weights are probably damaged: compare their hash with the publisher's.",
    )


def first(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def out_of_memory(error: BaseException) -> bool:
    """CUDA raises its own kind; the CPU's and Metal's allocators raise RuntimeErrors with these words; oneDNN, whose
    products need some of their own, says no more than that it could not."""
    words = ("can't allocate memory", "out of memory", "can't start new thread", "could not create a primitive")
    return isinstance(error, MemoryError) or any(w in str(error) for w in words)


def unfit(error: Exception, name: str, model: torch.nn.Module | None) -> CheckpointError | None:
    """What to say of an error that the model's own code raised on states as its config has them; None where the error
    comes from anywhere else: our code that it calls back, a device, memory.

    The innermost frame tells, torch's own left out: it is one of transformers, or of a checkpoint's own Python.
    """
    import transformers

    if model is None or isinstance(error, PairprobeError) or any(w in str(error) for w in DEVICES):
        return None
    frames = (str(frame.f_globals.get("__name__")).split(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__))
    inner = [package for package in frames if package != "torch"]
    if not inner or inner[-1] not in ("transformers", "transformers_modules"):
        return None
    return CheckpointError(
        f"{name}: its model, {type(model).__name__}, fails on the texts ({type(error).__name__}: {first(error)}): "
        f"config.json and the weights, or transformers {transformers.__version__}, do not belong together.",
        "Get config.json again from where the weights came from; if it is right, another release of transformers may "
        "run it: its transformers_version names one.",
    )


class Phase:
    """Time and GPU peaks of one phase, written into the two dicts."""

    def __init__(self, name: str, device: str, seconds: dict[str, float], peaks: dict[str, int]) -> None:
        self.name, self.device, self.seconds, self.peaks = name, device, seconds, peaks

    def __enter__(self) -> None:
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.init()  # type: ignore[no-untyped-call]  # there is no peak to reset before
            torch.cuda.reset_peak_memory_stats(self.device)
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
            self.peaks[f"gpu_peak_allocated/{self.name}"] = torch.cuda.max_memory_allocated(self.device)
            self.peaks[f"gpu_peak_reserved/{self.name}"] = torch.cuda.max_memory_reserved(self.device)
        self.seconds[self.name] = time.perf_counter() - self.start
