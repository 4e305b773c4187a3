"""Where a number comes from: code, versions, hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pairprobe import __version__

#: Every package that can change a number, and those that keep the record.
PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "compressed-tensors", "numpy", "scipy", "scikit-learn",
    "pandas", "huggingface-hub", "hydra-core", "omegaconf", "mlflow",
)  # fmt: skip
LARGEST_DIFF = 2_000_000  # characters
CODE = (".py", ".yaml", ".yml")  # what can change a run


@dataclass(frozen=True)
class Git:
    """commit: hexadecimal, '' outside a repository. diff: against it, files of code that are not in git named at its
    head. dirty: whether there is any; other files that are not in git, tables of pairs among them, change no code."""

    commit: str = ""
    dirty: bool = False
    diff: str = ""


def git(folder: Path | None) -> Git:
    """The state of the repository at `folder`; an empty one where there is none."""
    if folder is None:
        return Git()

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), "-c", "core.quotepath=off", *words],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=20,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return Git()
    status = (ask("status", "--porcelain", "--untracked-files=all") or "").splitlines()
    changed = [line for line in status if not line.startswith("??")]
    new = [line[3:] for line in status if line.startswith("??") and line[3:].strip('"').endswith(CODE)]
    diff = ask("diff", "HEAD") or ""
    if len(diff) > LARGEST_DIFF:
        diff = diff[:LARGEST_DIFF] + f"\n# … cut off at {LARGEST_DIFF} of {len(diff)} characters\n"
    head = "".join(f"# not in git: {name}\n" for name in new)
    return Git(commit.strip(), bool(changed or new), head + diff)


def versions(with_torch: bool = False) -> dict[str, str]:
    """Version by package; 'not installed' where it is missing. CUDA and driver are 'none' without them."""
    found = {"python": platform.python_version(), "pairprobe": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    cuda = None
    if with_torch:  # only where the run needs it: importing it takes seconds
        import torch

        cuda = torch.version.cuda
        found["torch"] = str(torch.__version__)
    found["cuda"] = cuda or "none"
    found["driver"] = _driver()
    return found


def hardware(with_torch: bool = False) -> dict[str, str]:
    """cpu, cores, memory, gpu: plain text for tags."""
    import psutil

    gpus = "none"
    if with_torch:
        import torch

        if torch.cuda.is_available():
            gpus = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        elif torch.backends.mps.is_available():
            gpus = "Apple Metal"
    return {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "gpu": gpus,
    }


def hostname() -> str:
    return socket.gethostname()


def freeze() -> str:
    """Installed packages as `name==version` lines, sorted; what pip freeze says of releases."""
    lines = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "\n".join(sorted(lines, key=str.lower)) + "\n"


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return "none"
    return next((word for word in text.split() if word[:1].isdigit() and "." in word), "unknown")


def _cpu() -> str:
    """The processor's name; on Arm, whose kernel gives none, lscpu's, else its numbers: 'aarch64, 0x41 part 0xd4f'."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if said.get("model name"):
        return said["model name"]
    if "CPU part" in said:
        return _lscpu() or f"{platform.machine()}, {said.get('CPU implementer', '?')} part {said['CPU part']}"
    return platform.processor() or platform.machine() or "unknown"


def _lscpu() -> str:
    """The kinds of cores as lscpu names them, which knows Arm's numbers; '' where it does not."""
    try:
        done = subprocess.run(
            ["lscpu"], capture_output=True, text=True, timeout=10, env={**os.environ, "LC_ALL": "C"}, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    names = [value.strip() for key, _, value in (line.partition(":") for line in done.stdout.splitlines())
             if key.strip() == "Model name"]  # fmt: skip
    return " + ".join(dict.fromkeys(n for n in names if n not in ("", "-")))


def peak_memory() -> int:
    """Largest resident memory of this process, bytes, since it began or since `reset_peak_memory`."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Begin a new peak where the kernel allows it (Linux): several jobs of a sweep share one process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
