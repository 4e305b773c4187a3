"""python -m bench.gpu.h200: 70B-sized checkpoints on one CUDA GPU, streamed by us and whole by transformers.

    python -m bench.gpu.h200                          # AWQ 72B in whole, then INT8 70B, as much as the disk takes
    python -m bench.gpu.h200 --format awq --folder /scratch/b --keep
    python -m bench.gpu.h200 --dry-run                # tiny checkpoints, any machine, no GPU needed

For each: the checkpoint is written (random weights, published layout), streamed three times, loaded and run whole by
transformers where that works, then deleted. Printed: seconds, the GPU's peak, the share of the host-to-device copy
bandwidth (pinned memory) that streaming reached, and how closely both agree. Every side is a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.large import cosine_error, written
from bench.layouts import parts
from bench.material import gloss_texts, warm
from bench.shapes import SHAPES, Shape

#: format → (shape, its tiny stand-in)
WHAT = {"awq": ("qwen72b", "tiny_qwen"), "int8": ("llama70b", "tiny")}
LEFT = 4 * 10**9  # bytes of the disk that stay free
STREAMED = 3  # times
TIMEOUT = 1800  # seconds a side may take
GPU_MUST = 6.0  # GB at the peak
COPY = 2**30  # bytes of a copy that measures the bandwidth
TINY_VOCAB = 1024


def fitting(shape: Shape, format: str, room: int) -> Shape:
    """`shape` with as many layers as `room` bytes of disk take; at least one."""
    one, two = (sum(p.nbytes for p in parts(shape.reduced(layers=n), format)) for n in (1, 2))
    layers = 1 + max(0, room - one) // (two - one)
    return shape.reduced(layers=min(shape.layers, layers))


# ── one side, in a process of its own ────────────────────────────────────────────────────────────────────


def streamed(folder: Path, device: str) -> dict[str, Any]:
    from bench import ways

    ways.imports()
    from pairprobe.checkpoints.checkpoint import Checkpoint
    from pairprobe.executions.streamed import Streamed
    from pairprobe.methods.layerwise import Layerwise
    from pairprobe.provenance import peak_memory
    from pairprobe.rooms import Workload
    from pairprobe.tokens import tokenise

    _started(device)
    before, start = peak_memory(), time.perf_counter()
    checkpoint = Checkpoint.open(folder)
    tokens = tokenise(checkpoint.tokenizer(), gloss_texts())
    execution = Streamed(device=device, resume=False)
    vectors, usage = Layerwise(scope="text", special_tokens=True).vectors(checkpoint, tokens, execution)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "forward": usage.seconds["forward"],
        "gpu": max([0, *(v for k, v in usage.peaks.items() if k.startswith("gpu_peak_reserved"))]),
        "host": peak_memory() - before,
        "moved": execution.estimate(checkpoint, Workload.of(tokens)).reads,  # type: ignore[arg-type]
        "vectors": vectors.values,
    }


def whole(folder: Path, device: str) -> dict[str, Any]:
    from bench import ways

    ways.imports()
    import torch
    from transformers import AutoModel, AutoTokenizer

    from pairprobe.provenance import peak_memory

    _started(device)
    before, start = peak_memory(), time.perf_counter()
    with torch.inference_mode():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        straight = {"device_map": device} if importlib.util.find_spec("accelerate") else {}
        model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16, **straight).eval().to(device)
        batch = tokenizer([t.text for t in gloss_texts().texts], return_tensors="pt", padding=True).to(device)
        forward = time.perf_counter()
        states = model(**batch, output_hidden_states=True, use_cache=False).hidden_states
        mask = batch["attention_mask"][..., None].float()
        vectors = torch.stack([(s.float() * mask).sum(1) / mask.sum(1) for s in states]).cpu().numpy()
    end = time.perf_counter()
    gpu = torch.cuda.max_memory_reserved(device) if device.startswith("cuda") else 0
    return {
        "seconds": end - start,
        "forward": end - forward,
        "gpu": gpu,
        "host": peak_memory() - before,
        "vectors": vectors,
    }


def bandwidth(device: str) -> float:
    """Bytes per second from pinned host memory to the device; from one place of memory to another without a GPU."""
    import torch

    cuda = device.startswith("cuda")
    size = COPY if cuda else COPY // 16
    here = torch.ones(size, dtype=torch.uint8, pin_memory=cuda)
    there = torch.empty(size, dtype=torch.uint8, device=device)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        there.copy_(here, non_blocking=True)
        if cuda:
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return size / statistics.median(times)


def _started(device: str) -> None:
    """The GPU's own start is no part of any time."""
    import torch

    from pairprobe.provenance import reset_peak_memory

    torch.ones(8, device=device).sum().item()
    reset_peak_memory()


def child(side: str, folder: Path, device: str, file: Path) -> int:
    import numpy as np

    if side == "bandwidth":
        print(json.dumps({"rate": bandwidth(device)}))
        return 0
    said = {"streamed": streamed, "whole": whole}[side](folder, device)
    np.save(file, said.pop("vectors"))
    print(json.dumps(said))
    return 0


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────


def ask(side: str, folder: Path, device: str) -> dict[str, Any]:
    """What a child says; {'said': why} where it failed."""
    import numpy as np

    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "vectors.npy"
        command = [sys.executable, "-m", "bench.gpu.h200", "--child", side, str(folder), device, str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return {"said": f"took more than {TIMEOUT} s"}
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return {"said": (lines[-1] if lines else f"ended with {done.returncode}")[:200]}
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if file.exists():
            found["vectors"] = np.load(file)
        return found


def measure(format: str, folder: Path, device: str, dry: bool, keep: bool, layers: int | None) -> list[str]:
    """The rows of one format."""
    shape = SHAPES[WHAT[format][dry]]
    if dry:
        shape = replace(shape, vocab=TINY_VOCAB)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / format
    shape = shape.reduced(layers=layers)
    if not place.exists():
        shape = fitting(shape, format, shutil.disk_usage(folder).free - LEFT)
        _say(f"writing {shape.layers} layers of {WHAT[format][dry]} as {format} to {place}")
        written(place, shape, format)
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    nbytes = sum(f.stat().st_size for f in place.glob("*.safetensors"))
    name = f"{format}, {config['num_hidden_layers']} layers, {nbytes / 1e9:.1f} GB"
    _say(f"{name}: reading it once, so that it lies in memory as far as that goes")
    warm(place)
    rate = ask("bandwidth", place, device)["rate"]
    rows, runs = [], []
    for n in range(STREAMED):
        _say(f"{name}: streamed {n + 1}/{STREAMED}")
        found = ask("streamed", place, device)
        if "said" in found:
            return [f"| {name} | streamed | failed: {found['said']} | | | | |"]
        runs.append(found)
    best = sorted(runs, key=lambda r: r["seconds"])[len(runs) // 2]
    share = best["moved"] / best["forward"] / rate
    gpu = max(r["gpu"] for r in runs) / 1e9
    peak = f"{gpu:.2f} GB (≤ {GPU_MUST:g}: {'met' if gpu <= GPU_MUST else '**not met**'})"
    rows.append(
        f"| {name} | streamed | {best['seconds']:.2f} s ({best['forward']:.2f} forward) | {peak} | "
        f"{best['host'] / 1e9:.2f} GB | {share:.0%} of {rate / 1e9:.1f} GB/s | |"
    )
    _say(f"{name}: transformers, whole")
    other = ask("whole", place, device)
    if "said" in other:
        rows.append(f"| {name} | transformers, whole | failed: {other['said']} | | | | |")
    else:
        off = cosine_error(best["vectors"].astype("f8"), other["vectors"].astype("f8"))
        rows.append(
            f"| {name} | transformers, whole | {other['seconds']:.2f} s ({other['forward']:.2f} forward) | "
            f"{other['gpu'] / 1e9:.2f} GB | {other['host'] / 1e9:.2f} GB | | cosines differ by {off:.1e} |"
        )
    if not keep:
        shutil.rmtree(place)
    return rows


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """Exit code: 0 measured, 1 without a GPU, or streaming failed."""
    if words[:1] == ["--child"]:
        side, folder, device, file = words[1:]
        return child(side, Path(folder), device, Path(file))
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.h200", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="tiny checkpoints, on the CPU where there is no GPU")
    parser.add_argument("--format", choices=WHAT, action="append", help="one of them only; may be repeated")
    parser.add_argument("--layers", type=int, help="no more than these")
    parser.add_argument("--folder", type=Path, help="for the checkpoints; a temporary one else")
    parser.add_argument("--keep", action="store_true", help="leave them there, and take up those that are")
    args = parser.parse_args(words)
    import torch

    cuda = torch.cuda.is_available()
    if not cuda and not args.dry_run:
        print("No GPU that torch can see. --dry-run tries everything on tiny checkpoints.", file=sys.stderr)
        return 1
    device = "cuda:0" if cuda else "cpu"
    print(f"{torch.cuda.get_device_name(0) if cuda else 'CPU'}, torch {torch.__version__}\n")
    print("| checkpoint | way | load and forward | GPU peak | host over base | copying | agreement |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="pairprobe-gpu-") as temporary:
        for format in args.format or WHAT:
            folder = args.folder or Path(temporary)
            rows = measure(format, folder, device, args.dry_run, args.keep and bool(args.folder), args.layers)
            print("\n".join(rows), flush=True)
            failed |= "streamed | failed" in rows[0]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
