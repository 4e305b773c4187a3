"""Which device computes, and what is said when the one that was meant is not there.

No machine of a test has all these faults, so torch's own answers and the places that show a driver are replaced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from pairprobe.errors import ConfigError, ExecutionError
from pairprobe.executions import device as devices
from pairprobe.executions.auto import Auto
from pairprobe.executions.memory import budget
from pairprobe.executions.resident import Resident
from pairprobe.executions.streamed import Streamed

DRIVER = "/proc/driver/nvidia/version"  # there while NVIDIA's kernel module is loaded
CGROUP_V2 = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")
CGROUP_V1 = (
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes",
)


@dataclass
class Machine:
    """What torch and the system are to say."""

    patch: pytest.MonkeyPatch

    def set(self, gpus: int = 0, mps: bool = False, cuda_build: str | None = None, driver: bool = False) -> None:
        self.patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        self.patch.setattr(torch.cuda, "device_count", lambda: gpus)
        self.patch.setattr(torch.backends.mps, "is_available", lambda: mps)
        self.patch.setattr(torch.version, "cuda", cuda_build)
        real = Path.exists
        self.patch.setattr(
            Path, "exists", lambda path, **kwargs: driver if str(path) == DRIVER else real(path, **kwargs)
        )

    def files(self, contents: dict[str, str]) -> None:
        """Everything under /sys/fs/cgroup and /proc/self/cgroup is `contents`, and nothing else is there."""
        real = Path.read_text

        def read_text(path: Path, *args: object, **kwargs: object) -> str:
            if not str(path).startswith(("/sys/fs/cgroup", "/proc/self/cgroup")):
                return real(path, *args, **kwargs)
            if str(path) not in contents:
                raise FileNotFoundError(str(path))
            return contents[str(path)]

        self.patch.setattr(Path, "read_text", read_text)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine without accelerator, driver or variables, until a test says otherwise."""
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    there = Machine(monkeypatch)
    there.set()
    return there


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"])
def test_every_documented_name_is_accepted(name):
    assert Resident(device=name).device == name


@pytest.mark.parametrize(
    "name", ["", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:0,1", "cpu:0", "cpu\n", "xcpu"]
)
def test_a_bad_name_is_refused_with_the_names_that_are_allowed(name):
    with pytest.raises(ConfigError) as caught:
        Resident(device=name)
    assert f"'{name}'" in str(caught.value)
    assert "auto, cpu, cuda, cuda:N, mps" in str(caught.value)


@pytest.mark.parametrize("way", [Resident, Streamed, Auto])
@pytest.mark.parametrize("memory", [math.inf, -math.inf, math.nan, 0.0, -1.0, 0.009, 1e7, 1e301])
def test_a_budget_that_is_none_is_refused_with_what_is_allowed(way, memory):
    with pytest.raises(ConfigError) as caught:
        way(memory=memory)
    (problem,) = caught.value.problems
    assert problem == (
        f"execution.memory is {memory:g}; allowed: 0.01 … 1,000,000 GB (10⁹ bytes), as execution.memory=24, or null "
        "for what is free, less a reserve."
    )


@pytest.mark.parametrize(("memory", "host"), [(None, 9 * 10**9), (0.01, 10**7), (1_000_000, 9 * 10**9)])
def test_the_smallest_and_the_largest_budget_are_allowed(monkeypatch, memory, host):
    monkeypatch.setattr(devices, "free_memory", lambda _: 9 * 10**9 + 2**30)  # less its reserve of 1 GiB
    assert budget("cpu", Resident(device="cpu", memory=memory).memory).host == host


# ── what is there is taken ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("machine")
def test_auto_without_accelerator_is_the_cpu_and_says_so():
    device, remark = devices.choose("auto")
    assert device == "cpu"
    assert "no accelerator" in remark


@pytest.mark.parametrize(
    ("asked", "there", "taken"),
    [
        ("auto", {"gpus": 2, "cuda_build": "13.0"}, "cuda:0"),
        ("auto", {"mps": True}, "mps"),
        ("auto", {"gpus": 1, "mps": True, "cuda_build": "13.0"}, "cuda:0"),
        ("cuda", {"gpus": 1, "cuda_build": "13.0"}, "cuda:0"),
        ("cuda:1", {"gpus": 2, "cuda_build": "13.0"}, "cuda:1"),
        ("mps", {"mps": True}, "mps"),
        ("cpu", {}, "cpu"),
        ("cpu", {"gpus": 8, "mps": True, "cuda_build": "13.0", "driver": True}, "cpu"),
        # CUDA build and driver, but the CPU was asked for: that is an answer, not an accident
        ("cpu", {"cuda_build": "13.0", "driver": True}, "cpu"),
    ],
)
def test_what_was_asked_and_is_there_is_taken_without_a_remark(machine, asked, there, taken):
    machine.set(**there)
    assert devices.choose(asked) == (taken, "")


def test_resident_places_itself_by_its_own_device(machine):
    machine.set(gpus=4, cuda_build="13.0")
    assert Resident(device="cuda:3").place() == ("cuda:3", "")


# ── what was meant and is not there ──────────────────────────────────────────────────────────────────────


def test_cuda_on_a_cpu_build_names_the_build(machine):
    machine.set(cuda_build=None, driver=True)  # the driver is fine: the wheel is not
    with pytest.raises(ExecutionError, match="built without CUDA") as caught:
        devices.choose("cuda")
    assert torch.__version__ in str(caught.value)
    assert "execution.device=cpu" in caught.value.next_step


@pytest.mark.parametrize("value", ["", "-1"])
def test_cuda_hidden_by_the_environment_names_the_variable(machine, monkeypatch, value):
    machine.set(cuda_build="13.0", driver=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(ExecutionError, match=f"CUDA_VISIBLE_DEVICES is '{value}', which hides"):
        devices.choose("cuda")


def test_cuda_with_a_driver_but_no_device_names_the_container(machine):
    machine.set(cuda_build="13.0", driver=True)
    with pytest.raises(ExecutionError, match=r"restarted without its devices.*--gpus all"):
        devices.choose("cuda:0")


def test_cuda_in_a_container_made_for_gpus_names_the_container(machine, monkeypatch):
    machine.set(cuda_build="13.0")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")  # NVIDIA's images set it
    with pytest.raises(ExecutionError, match="restarted without its devices"):
        devices.choose("cuda")


def test_cuda_without_any_driver_says_that_none_is_loaded(machine):
    machine.set(cuda_build="13.0")
    with pytest.raises(ExecutionError, match="No NVIDIA driver is loaded"):
        devices.choose("cuda")


def test_a_gpu_number_beyond_the_last_names_those_there_are(machine):
    machine.set(gpus=2, cuda_build="13.0")
    with pytest.raises(ExecutionError, match=r"cuda:5.* 2 GPUs: cuda:0 … cuda:1"):
        devices.choose("cuda:5")


@pytest.mark.usefixtures("machine")
def test_mps_that_is_not_there_is_an_error():
    with pytest.raises(ExecutionError, match="no Metal device") as caught:
        devices.choose("mps")
    assert "execution.device=cpu" in caught.value.next_step


# ── auto never computes on the CPU where a GPU was clearly meant ─────────────────────────────────────────


def test_auto_with_a_loaded_driver_that_torch_cannot_use_is_an_error(machine):
    machine.set(cuda_build="13.0", driver=True)
    with pytest.raises(ExecutionError, match="NVIDIA GPU that torch cannot see") as caught:
        devices.choose("auto")
    assert "execution.device=cpu" in caught.value.next_step


@pytest.mark.parametrize("value", ["all", "0", "GPU-8f1c"])
def test_auto_in_a_container_that_lost_its_gpu_is_an_error(machine, monkeypatch, value):
    machine.set(cuda_build="13.0")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", value)
    with pytest.raises(ExecutionError, match="--gpus all"):
        devices.choose("auto")


@pytest.mark.parametrize("value", ["", "void", "none"])  # how NVIDIA's runtime is told to give no GPU
def test_auto_in_a_container_meant_without_gpus_is_the_cpu(machine, monkeypatch, value):
    machine.set(cuda_build="13.0")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", value)
    assert devices.choose("auto")[0] == "cpu"


def test_auto_on_a_cpu_build_is_the_cpu_even_beside_a_driver(machine):
    machine.set(cuda_build=None, driver=True)
    device, remark = devices.choose("auto")
    assert device == "cpu"
    assert remark


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that the whole host has free."""
    free = 1_000_000
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": free})())
    return free


def test_without_a_control_group_free_memory_is_the_hosts(machine, host):
    machine.files({})
    assert devices.free_memory("cpu") == host


@pytest.mark.parametrize("names", [CGROUP_V2, CGROUP_V1], ids=["v2", "v1"])
def test_a_control_groups_limit_is_respected(machine, host, names):
    limit, used = names
    machine.files({limit: "500000\n", used: "120000\n"})
    assert devices.free_memory("cpu") == 500_000 - 120_000 < host


def test_a_control_group_larger_than_the_host_promises_nothing_more(machine, host):
    machine.files({CGROUP_V2[0]: "9000000\n", CGROUP_V2[1]: "0\n"})
    assert devices.free_memory("cpu") == host


def test_a_control_group_without_a_limit_leaves_the_hosts_memory(machine, host):
    machine.files({CGROUP_V2[0]: "max\n", CGROUP_V2[1]: "120000\n"})  # "max" is how v2 says: no limit
    assert devices.free_memory("cpu") == host


def test_a_control_group_over_its_limit_leaves_nothing_rather_than_less(machine, host):
    machine.files({CGROUP_V2[0]: "500000\n", CGROUP_V2[1]: "500001\n"})
    assert devices.free_memory("cpu") == 0 < host


def test_the_limit_of_a_batch_job_is_respected(machine, host):
    # Outside a container, as under SLURM or systemd-run, the process's own group lies below the root.
    machine.files(
        {
            "/proc/self/cgroup": "0::/slurm/job_7\n",
            "/sys/fs/cgroup/slurm/job_7/memory.max": "500000\n",
            "/sys/fs/cgroup/slurm/job_7/memory.current": "120000\n",
        }
    )
    assert devices.free_memory("cpu") == 500_000 - 120_000 < host


def test_unified_memory_of_a_mac_is_the_hosts(machine, host):
    machine.files({})
    assert devices.free_memory("mps") == host
    assert devices.unified("mps")


def test_a_gpus_free_memory_is_asked_of_that_gpu(monkeypatch):
    free = {"cuda:0": 10, "cuda:1": 20}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 100))
    assert devices.free_memory("cuda:1") == 20


@pytest.mark.parametrize(
    ("stored", "amx", "expected"),
    [
        ({"F32": 900, "I64": 8}, True, "float32"),  # nothing else holds what is stored
        ({"F32": 400, "BF16": 500}, True, "bfloat16"),
        ({"I8": 900, "F32": 100}, True, "bfloat16"),  # scales are a small part
        ({"BF16": 900}, False, "float32"),
        ({"F32": 900}, False, "float32"),
    ],
)
def test_auto_computes_in_no_less_than_what_is_stored(monkeypatch, stored, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    tensors = {name: SimpleNamespace(dtype=name, nbytes=nbytes) for name, nbytes in stored.items()}
    assert devices.dtype_for("auto", "cpu", tensors) == expected
    assert devices.dtype_for("float16", "cpu", tensors) == "float16"  # what is asked for is what is done
