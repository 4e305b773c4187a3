"""Memory and the machine's file cache: within the budget whatever the size, and no page left behind."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import tokens_of, write

from bench.twins import quantise_folder
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.errors import ExecutionError
from pairprobe.executions import pace, planning, streamed
from pairprobe.executions.cache import resident
from pairprobe.executions.feeder import Feeder
from pairprobe.executions.memory import Budget
from pairprobe.executions.planning import Needs, Room, Sizes, needs
from pairprobe.executions.products import Workshop
from pairprobe.executions.stream import taken_apart
from pairprobe.executions.streamed import Streamed
from pairprobe.rooms import Workload

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and mincore are Linux's")
CPU = Streamed(device="cpu", dtype="float32", threads=1)
WIDE = {"hidden_size": 256, "intermediate_size": 2048, "num_hidden_layers": 12}

CHILD = """
    import json, re, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import numpy as np, torch
    torch.set_num_threads(1)
    from small_models import tokens_of
    from pairprobe.checkpoints.checkpoint import Checkpoint
    from pairprobe.executions.streamed import Streamed
    from pairprobe.methods.layerwise import Layerwise
    from pairprobe.errors import PairprobeError
    from pairprobe.rooms import Workload

    def status(name):
        return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

    checkpoint = Checkpoint.open(Path({folder!r}))
    tokens = tokens_of(checkpoint).select([i % 8 for i in range({texts})])
    execution = Streamed(device="cpu", dtype="float32", threads=1, memory={memory!r})
    estimate = execution.estimate(checkpoint, Workload.of(tokens, depths=1))
    passes = []
    whole = Streamed.forward
    Streamed.forward = lambda self, *args: (passes.append(1), whole(self, *args))[1]
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    said = {{}}
    try:
        vectors, _ = Layerwise(depths=[-1]).vectors(checkpoint, tokens, execution)
        np.save({out!r}, vectors.values)
        said |= {{"less": text for key, text in vectors.about.items() if key == "memory"}}
    except PairprobeError as error:
        said["error"] = f"{{type(error).__name__}}: {{error.problems[0]}}"
    said |= dict(estimate=estimate.host, passes=len(passes), peak=status("VmHWM") - before, planned=estimate.passes)
    print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """96 MB in 12 layers."""
    return write("llama", tmp_path_factory.mktemp("large") / "llama", **WIDE)


def child(folder: Path, memory: float | None, texts: int, out: Path) -> dict:
    code = textwrap.dedent(CHILD).format(
        tests=str(Path(__file__).parent), folder=str(folder), memory=memory, texts=texts, out=str(out)
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=200)
    return json.loads(done.stdout.splitlines()[-1])


@linux
def test_a_checkpoint_larger_than_its_budget_runs_within_it_in_several_passes_with_the_same_numbers(large, tmp_path):
    free = child(large, None, 600, tmp_path / "free.npy")
    tight = child(large, 0.05, 600, tmp_path / "tight.npy")
    assert free["passes"] == 1
    assert tight["passes"] > 1
    assert tight["peak"] <= 0.05e9 < free["peak"]
    assert Checkpoint.open(large).nbytes > 1.3 * 0.05e9
    a, b = np.load(tmp_path / "free.npy"), np.load(tmp_path / "tight.npy")
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


@linux
def test_what_does_not_fit_at_all_is_said_before_anything_is_read(large, tmp_path):
    said = child(large, 0.02, 8, tmp_path / "none.npy")
    assert re.match(r"OutOfMemory: llama: needs about \d\d MB of the host, of which it may use 20 MB", said["error"])
    assert said["peak"] < 0.02e9


def test_memory_that_vanishes_during_the_run_is_an_error_of_ours(large, monkeypatch):
    checkpoint = Checkpoint.open(large)

    def vanished(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(streamed, "finite", vanished)
    with pytest.raises(ExecutionError, match="cpu is out of memory"):
        CPU.forward(checkpoint, tokens_of(checkpoint), lambda *_: None)


# ── planning ─────────────────────────────────────────────────────────────────────────────────────────────

SIZES = Sizes(layer=100, weight=40, outside=0, slots=0, width=1, widest=1, expert=0, itemsize=4)


def chosen(found: Needs) -> tuple[Room, list[int], int]:
    """Room for weights and texts of each batch of the first pass, and the number of passes."""
    first = found.passes[0]
    return first.room, [sum(map(len, groups)) for groups in first.batches], len(found.passes)


def test_first_less_reading_ahead_then_smaller_batches_then_several_passes():
    asked = Workload(np.full(128, 16))
    layer, weight = 50 * 2**20, 10 * 2**20
    of = replace(SIZES, layer=layer, weight=weight, widest=2**14, width=2**10)
    most = needs(of, asked, "cpu", 1024, Budget(2**60))
    assert chosen(most) == (Room(2 * layer), [64, 64], 1)
    less = needs(of, asked, "cpu", 1024, Budget(most.host - 1))
    assert chosen(less) == (Room(layer + weight), [64, 64], 1)
    assert most.host - less.host == layer - weight
    one = needs(of, asked, "cpu", 1024, Budget(less.host - 1))
    assert chosen(one) == (Room(layer, rolls=False), [64, 64], 1)
    small = needs(of, asked, "cpu", 1024, Budget(one.host - 1))
    assert chosen(small) == (Room(2 * layer), [16] * 8, 1)  # which spare more than a layer
    least = needs(of, asked, "cpu", 1024, Budget(0))
    assert chosen(least) == (Room(layer, rolls=False), [1], 128)
    several = needs(of, asked, "cpu", 1024, Budget(least.host + 1))
    assert several.host <= least.host + 1
    assert sorted(int(i) for one in several.passes for i in one.rows) == list(range(128))


def test_too_little_for_a_layer_is_enough_for_passes_of_one_batch():
    asked = Workload(np.full(128, 16))
    of = replace(SIZES, layer=500 * 2**20, weight=10 * 2**20, packs=True)
    found = needs(of, asked, "cpu", 1024, Budget(100 * 2**20))
    assert chosen(found) == (Room(2 * of.weight, of.weight), [64], 2)


SEVENTY_B = Sizes(  # Llama-3.3-70B's INT8: its layer, its largest weight, a state of 8192 values and a gate of 28672
    layer=856 * 10**6, weight=235 * 10**6, outside=10**7, slots=70_000, width=8192, widest=28672, expert=0, itemsize=4,
    depths=81, packs=True, once=True, joins=True,
)  # fmt: skip


@pytest.mark.parametrize("joins", [True, False])
def test_the_less_memory_there_is_the_more_passes_a_few_at_a_time(joins):
    parts, lengths = np.repeat([0, 1], [26, 74]), np.repeat([18, 4], [26, 74])
    ids = tuple(np.arange(n) + 100 * i for i, n in enumerate(lengths))
    asked = Workload(lengths, parts, ids=ids, leads=ids)
    of = replace(SEVENTY_B, joins=joins)
    whole = needs(of, asked, "cpu", 4096, Budget(2**60))
    (one,) = whole.passes
    assert whole.one_pass == whole.host == one.host
    assert len(one.batches) == (1 if joins else 2)
    assert (one.room.nbytes < of.layer) == joins
    once = needs(of, asked, "cpu", 4096, Budget(0)).one_pass
    assert once < whole.one_pass  # with smaller batches, and less reading ahead
    counts = []
    for budget in range(once, 10**9, -(10**7)):
        found = needs(of, asked, "cpu", 4096, Budget(budget))
        assert found.host <= budget
        assert counts or found.host == once
        assert found.one_pass == once
        assert sorted(int(i) for one in found.passes for i in one.rows) == list(range(100))
        counts.append(len(found.passes))
    assert counts[0] == 1 < counts[-1]
    assert all(0 <= b - a <= 2 for a, b in pairwise(counts))
    assert counts[-1] <= 6  # 0.6 GB of states and vectors too many for 0.4 GB beside the weights


def test_passes_are_of_one_part_each_where_parts_cannot_be_one_batch():
    parts, lengths = np.array([0, 1, 0, 1, 1, 1, 1]), np.array([5, 3, 9, 1, 1, 8, 1])
    of = replace(SIZES, layer=500 * 2**20, weight=10 * 2**20, packs=True)
    for joins, budget, expected in [
        (True, 2**30, [[2, 0, 5, 1, 3, 4, 6]]),
        (True, 10**8, [[2, 0, 5, 1, 3, 4, 6]]),
        (False, 2**31, [[2, 0, 5, 1, 3, 4, 6]]),
        (False, 10**8, [[2, 0], [5, 1, 3, 4, 6]]),  # two batches would need a whole layer
    ]:
        found = planning.passes(replace(of, joins=joins), Workload(lengths, parts), "cpu", 1024, Budget(budget))
        assert [one.rows.tolist() for one in found] == expected


def test_what_is_left_is_divided_as_the_whole_was():
    generator = np.random.default_rng(0)
    asked, of = Workload(generator.integers(4, 60, 3000)), replace(SIZES, width=2**12, widest=2**14, packs=True)
    least, once = (needs(of, asked, "cpu", 4096, Budget(n)) for n in (0, 2**60))
    budget = Budget(least.host + (once.host - least.host) // 20)
    whole = needs(of, asked, "cpu", 4096, budget)
    assert 10 < len(whole.passes) < 100
    assert all(budget.short(one.host, one.gpu) is None for one in whole.passes)
    rest = np.delete(np.arange(3000), whole.passes[0].rows)
    (first, *_) = planning.passes(of, asked.select(rest), "cpu", 4096, budget)
    assert rest[first.rows].tolist() == whole.passes[1].rows.tolist()
    more = np.append(whole.passes[0].rows, whole.passes[1].rows[:1])  # a pass takes as many as fit
    one = planning._one_pass(of, asked, more, "cpu", 4096, budget)
    assert budget.short(one.host, one.gpu) is not None


def test_the_vectors_of_all_passes_count_in_each():
    asked = Workload(np.full(1000, 4))
    of = replace(SIZES, depths=30, width=1000)
    least = needs(of, asked, "cpu", 4096, Budget(0))
    assert len(least.passes) == 1000
    assert least.host > 30 * 1000 * 1000 * 4


@pytest.mark.parametrize(
    ("device", "texts", "expert", "packs", "room"),
    [
        ("cpu", 64, 0, True, Room(80, 40)),
        ("cpu", 64, 0, False, Room(140)),  # in what order weights are used is not known
        ("cpu", 65, 0, True, Room(200)),
        ("cpu", 64, 8, True, Room(200)),
        ("cuda", 64, 0, True, Room(200)),
        ("mps", 64, 0, True, Room(200)),
    ],
)
def test_weights_take_each_others_places_where_one_batch_uses_each_of_them_once(device, texts, expert, packs, room):
    asked = Workload(np.full(texts, 16))
    assert (
        needs(replace(SIZES, expert=expert, packs=packs), asked, device, 1024, Budget(2**60, 2**60)).passes[0].room
        == room
    )


def test_packed_layers_take_memory_for_what_is_computed():
    ids = tuple(np.arange(n) for n in [10, *[4] * 9])  # 46 tokens, 100 padded, of 10 distinct beginnings
    asked = Workload(np.array([10, *[4] * 9]), ids=ids, leads=ids)
    of = replace(SIZES, widest=2**18, width=2**10)
    made = [
        needs(replace(of, packs=packs, once=once), asked, "cpu", 1024, Budget(2**60))
        for packs, once in [(False, False), (True, False), (True, True)]
    ]
    found = [n.host - n.passes[0].room.nbytes for n in made]
    each = 4 * (planning.WIDE * of.widest + planning.NARROW * of.width)
    assert found[0] - found[1] == (100 - 46) * each
    assert found[1] - found[2] == (46 - 10) * each


# ── the machine's file cache ─────────────────────────────────────────────────────────────────────────────


def evict(file: Path) -> bool:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        pages = resident(stream.fileno())
    return pages is not None and not pages.any()


def in_cache(file: Path) -> np.ndarray:
    with file.open("rb") as stream:
        pages = resident(stream.fileno())
    assert pages is not None
    return pages


@linux
@pytest.mark.parametrize("drop", [True, False])
def test_pages_that_were_not_in_the_cache_leave_it_again(large, drop):
    checkpoint = Checkpoint.open(large)
    (file,) = {t.file for t in checkpoint.tensors.values()}
    if not evict(file):
        pytest.skip("this file system keeps its pages")
    parts = [[t] for t in checkpoint.tensors.values()]
    feeder = Feeder(parts, drop=drop)
    total = sum(int(tensors[0].view(torch.uint8).sum(dtype=torch.int64)) for tensors in feeder)
    assert feeder.read_bytes == checkpoint.nbytes
    assert total
    assert in_cache(file).mean() < 0.01 if drop else in_cache(file).mean() > 0.9


@linux
def test_pages_that_were_in_the_cache_stay(large):
    checkpoint = Checkpoint.open(large)
    (file,) = {t.file for t in checkpoint.tensors.values()}
    for _ in range(3):  # a kernel that is short of memory may take some of them by itself
        if not evict(file):
            pytest.skip("this file system keeps its pages")
        start, size = 20 * 2**20, 8 * 2**20
        with file.open("rb", buffering=0) as stream:
            os.preadv(stream.fileno(), [bytearray(size)], start)
        before = in_cache(file)
        assert before[start // 4096 : (start + size) // 4096].all()
        for _ in Feeder([[t] for t in checkpoint.tensors.values()], drop=True):
            pass
        after = in_cache(file)
        if after[before].all():
            break
    assert after[before].all()
    assert after[~before].mean() < 0.01


# ── far larger than the budget, and the kernel's own word ────────────────────────────────────────────────


@linux
def test_a_checkpoint_four_times_its_budget_runs_within_it(tmp_path):
    folder = write("llama", tmp_path / "deep", **{**WIDE, "num_hidden_layers": 40})
    assert Checkpoint.open(folder).nbytes > 4 * 0.06e9
    said = child(folder, 0.06, 8, tmp_path / "deep.npy")
    assert "error" not in said
    assert said["peak"] <= 0.06e9


@linux
@pytest.mark.parametrize("how", ["bfloat16", "int8", "nf4"])
def test_what_a_plan_accepts_runs_from_the_least_budget_on(tmp_path, how):
    dense = write("llama", tmp_path / "dense", dtype="bfloat16", **{**WIDE, "num_hidden_layers": 3})
    folder = dense if how == "bfloat16" else quantise_folder(dense, tmp_path / how, how)
    checkpoint = Checkpoint.open(folder)
    asked = Workload.of(tokens_of(checkpoint).select([i % 8 for i in range(16)]), depths=1)
    stream = taken_apart(checkpoint, "float32", "sdpa")
    least = CPU._needs(stream, asked, "cpu", Budget(0))
    for nbytes in (least.host, least.one_pass):
        gigabytes = math.ceil(nbytes / 1e5) / 1e4
        said = child(folder, gigabytes, 16, tmp_path / "out.npy")
        assert "error" not in said
        assert said["passes"] == said["planned"] or "less" in said  # else it had less than was planned
        assert said["peak"] <= 1.15e9 * gigabytes


KERNEL = """
import torch
from pairprobe.executions.memory import limited

before = torch.zeros(1000)
try:
    with limited(50_000_000, "cpu"):
        held = torch.ones(10_000_000)  # 40 MB fit
        more = torch.ones(100_000_000)  # 400 MB do not
    print("not held")
except RuntimeError as error:
    print("held", "can't allocate memory" in str(error))
after = torch.ones(100_000_000)  # as free as before
print("free")
"""


@linux
def test_the_kernel_holds_a_run_to_its_limit_and_lets_go_of_it_afterwards():
    done = subprocess.run([sys.executable, "-c", KERNEL], check=True, capture_output=True, text=True, timeout=100)
    assert done.stdout.split("\n")[:2] == ["held True", "free"]


def test_a_processor_is_measured_by_a_slice_of_each_weight(tmp_path, monkeypatch):
    wide = {"hidden_size": 1024, "intermediate_size": 1024, "num_hidden_layers": 1}
    checkpoint, shapes = Checkpoint.open(write("llama", tmp_path / "llama", **wide)), []
    multiply = Workshop.multiply

    def watched(self: Workshop, x: torch.Tensor, tile: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        shapes.append((tile.shape[0], out.shape[1]))
        return multiply(self, x, tile, out)

    monkeypatch.setattr(Workshop, "multiply", watched)
    assert CPU.estimate(checkpoint, Workload.of(tokens_of(checkpoint)), timed=True).seconds
    assert {*shapes} == {(2 * pace.MEASURED,) * 2}  # of 1024 rows, stored as they are computed with
