"""Which device computes, and what to say when the one that was meant is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pairprobe.errors import ConfigError, ExecutionError, at_least, one_of

if TYPE_CHECKING:
    from pairprobe.rooms import Stored

DEVICES = "auto, cpu, cuda, cuda:N, mps"
LEAST_MEMORY, MOST_MEMORY = 0.01, 1_000_000  # GB
MEMORY_ALLOWED = (
    f"{LEAST_MEMORY:g} … {MOST_MEMORY:,} GB (10⁹ bytes), as execution.memory=24, or null for what is free, less a "
    "reserve"
)
DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_name(device: str) -> None:
    """Raise ConfigError unless `device` is one of auto, cpu, cuda, cuda:N, mps."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise ConfigError(f"execution.device is '{device}'; allowed: {DEVICES}.")


def check_settings(
    device: str, dtype: str, attention: str, batch_tokens: int, threads: int | None, memory: float | None
) -> None:
    """Raise ConfigError for a setting, of those that every execution has, that is not allowed."""
    check_name(device)
    one_of("execution.dtype", dtype, DTYPES)
    one_of("execution.attention", attention, ("sdpa", "eager"))
    at_least("execution.batch_tokens", batch_tokens, 1)
    if threads is not None:
        at_least("execution.threads", threads, 1)
    if memory is not None and not LEAST_MEMORY <= memory <= MOST_MEMORY:
        raise ConfigError(f"execution.memory is {memory:g}; allowed: {MEMORY_ALLOWED}.")


def choose(device: str) -> tuple[str, str]:
    """The device to compute on, and a remark for the reader ('' where there is nothing to say).

    Raises:
        ExecutionError: a GPU was asked for, or clearly belongs to this machine, and torch sees none.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        if gpus == 0:
            raise ExecutionError(
                f"execution.device={device}, but torch {torch.__version__} sees no GPU. {_why_no_gpu()}",
                "Mend that, or choose execution.device=cpu.",
            )
        if index >= gpus:
            raise ExecutionError(f"execution.device={device}, but there are {gpus} GPUs: cuda:0 … cuda:{gpus - 1}.")
        return f"cuda:{index}", ""
    if device == "mps":
        if not mps:
            raise ExecutionError(
                "execution.device=mps, but torch offers no Metal device here.", "Choose execution.device=cpu."
            )
        return "mps", ""
    if device == "cpu":
        return "cpu", ""
    if gpus:
        return "cuda:0", ""
    if mps:
        return "mps", ""
    if torch.version.cuda and nvidia_expected():
        raise ExecutionError(
            f"execution.device=auto: this machine has an NVIDIA GPU that torch cannot see. {_why_no_gpu()}",
            "Mend that, or say that the CPU is meant: execution.device=cpu.",
        )
    return "cpu", "no accelerator found; computing on the CPU"


def dtype_for(dtype: str, device: str, tensors: Mapping[str, Stored]) -> str:
    """The dtype to compute in. auto: float32 where most of the checkpoint's bytes are stored in it, whose digits
    anything else would lose; else bfloat16 on GPUs that have it and on CPUs with AMX; else float32.

    Never float16 by itself: real activations overflow it.
    """
    import torch

    if dtype != "auto":
        return dtype
    if 2 * sum(t.nbytes for t in tensors.values() if t.dtype == "F32") > sum(t.nbytes for t in tensors.values()):
        return "float32"
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float32"
    if device == "cpu" and torch.cpu._is_amx_tile_supported():
        return "bfloat16"
    return "float32"


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Within, torch computes with this many CPU threads; None leaves its choice. Afterwards as before."""
    import torch

    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number:
            torch.set_num_threads(before)


def nvidia_expected() -> bool:
    """A driver is loaded on this host, or the container was made for GPUs."""
    visible = os.environ.get("NVIDIA_VISIBLE_DEVICES", "")
    return Path("/proc/driver/nvidia/version").exists() or visible not in ("", "void", "none")


def _why_no_gpu() -> str:
    import torch

    if not torch.version.cuda:
        return "This torch is built without CUDA."
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES is '{os.environ['CUDA_VISIBLE_DEVICES']}', which hides them all."
    if nvidia_expected():
        return (
            "NVIDIA drivers are on this host: the container was probably restarted without its devices. "
            "Start it again with --gpus all."
        )
    return "No NVIDIA driver is loaded on this host."


def free_memory(device: str) -> int:
    """Bytes free on `device`; on the host, no more than the control group of this process still allows."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return min([int(psutil.virtual_memory().available), *_cgroup_rest()])


def processor(device: str) -> str:
    """What computes: the GPU's name, or the instruction set that torch uses of this CPU."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return str(torch.backends.cpu.get_cpu_capability())


def unified(device: str) -> bool:
    """Whether `device` shares the host's memory: Metal, and NVIDIA's integrated GPUs (GB10, Jetson)."""
    if device == "mps":
        return True
    if not device.startswith("cuda"):
        return False
    import torch

    return bool(getattr(torch.cuda.get_device_properties(device), "is_integrated", False))


def _cgroup_rest() -> list[int]:
    """Bytes left under the limits of this process's control group and of those above it (v2 and v1)."""
    root = Path("/sys/fs/cgroup")
    pairs = []
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    for line in groups:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers not in ("", "memory"):
            continue
        own = root / "memory" if controllers else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        # in a container the group's own path may not be visible: its root then is that group
        places = [own, *(own.joinpath(*Path(path).parts[1:depth]) for depth in range(2, len(Path(path).parts) + 1))]
        pairs += [(place / names[0], place / names[1]) for place in places]
    pairs += [
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ]
    rest = []
    for limit, used in dict.fromkeys(pairs):
        try:
            reclaimable = _inactive_files(limit.with_name("memory.stat"))
            rest.append(max(0, int(limit.read_text()) - int(used.read_text()) + reclaimable))
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return rest


def _inactive_files(stat: Path) -> int:
    """Bytes of file pages that the kernel drops as soon as memory is wanted; they count as used, but are not."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "total_inactive_file "))), 0
    )
