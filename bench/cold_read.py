"""A checkpoint that is not in the page cache: streamed, against reading its layers from the disk and nothing else, and
against the same run with its files in memory, which only computes."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench import large, material, ways
from bench.case import Answers, Case, Clock, Fact, Rival, Sample, equal_within
from bench.full_width import INT8
from bench.ways import LOAD_AND_FORWARD

READ = 32 * 2**20  # bytes at once
LIMIT = 1.25


def evict(folder: Path) -> None:
    """Have the kernel forget the files, once they are on the disk."""
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ours() -> Sample:
    evict(large.folder(INT8))
    return ways.streamed(large.folder(INT8), material.gloss_texts(), dtype="float32")


def reading() -> Sample:
    from pairprobe.checkpoints.headers import read_header

    folder = large.folder(INT8)
    evict(folder)
    buffer = memoryview(bytearray(READ))
    parts = sorted(
        (p for f in folder.glob("*.safetensors") for n, p in read_header(f)[0].items() if ".layers." in n),
        key=lambda part: (part.file, part.start),
    )
    clock = Clock()
    total = 0
    with clock(LOAD_AND_FORWARD):
        for part in parts:
            with part.file.open("rb", buffering=0) as stream:
                for done in range(0, part.nbytes, READ):
                    size = min(READ, part.nbytes - done)
                    total += os.preadv(stream.fileno(), [buffer[:size]], part.start + done)
    return clock.stop(bytes=total)  # type: ignore[arg-type]


def warm() -> Sample:
    material.warm(large.folder(INT8))
    return ways.streamed(large.folder(INT8), material.gloss_texts(), dtype="float32")


def rate(answers: Answers) -> str:
    """There are no numbers to compare."""
    return f"{answers[0][1]['bytes'] / 1e9:.1f} GB"


def facts(ours: Sequence[Sample], theirs: Mapping[str, Sequence[Sample]]) -> list[Fact]:
    """Over the longer of reading and computing, pair by pair."""
    ratios, disk = [], []
    for own, read, computed in zip(ours, theirs["reading"], theirs["warm"], strict=True):
        seconds = read.seconds[LOAD_AND_FORWARD]
        ratios.append(own.seconds[LOAD_AND_FORWARD] / max(seconds, computed.seconds[LOAD_AND_FORWARD]))
        disk.append(float(read.answer["bytes"]) / seconds / 1e6)
    ratio = statistics.median(ratios)
    return [
        Fact("reading: the disk", "", f"{statistics.median(disk):.0f} MB/s"),
        Fact("over the longer of reading and computing", f"{ratio:.2f}", "", f"≤ {LIMIT:g}", ratio <= LIMIT),
    ]


CASE = Case(
    "Layerwise + Streamed, fp32, the W8A8 checkpoint of `full_width.int8`, evicted from the page cache beforehand",
    ours,
    {
        "reading": Rival("its layers' bytes read in order, evicted as well, into one buffer", reading, rate),
        "warm": Rival("ours with its files in memory, which computes alone", warm, partial(equal_within, 1e-5)),
    },
    partial(large.write, INT8),
    memory=False,
    threads=2,
    facts=facts,
)
