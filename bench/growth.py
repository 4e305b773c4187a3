"""python -m bench.growth [--times N]: how time grows with texts, layers and checkpoint size → docs/img/growth.png.

Streamed, fp32, against AutoModel with everything in one batch where that is wise. Each point is a fresh process, the
least of three (or N), files in the page cache; on a machine that is busy the least is nearest the truth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.large import written
from bench.material import FOLDER, gloss_texts, warm
from bench.shapes import SHAPES, Shape
from pairprobe.commands.main import ENVIRONMENT
from pairprobe.config import repository

FIGURE = "docs/img/growth.png"
SMALL = SHAPES["qwen05b"].reduced(layers=4, width=448, vocab=2048)
TEXTS = (28, 100, 300, 1000, 3000, 10_000)
LAYERS = (1, 2, 4, 8, 16, 32)
WIDTHS = (512, 1024, 2048, 4096)  # of 4 layers of Llama's proportions: 0.03 to 1.8 GB
OURS, THEIRS = "pairprobe, streamed", "AutoModel, one batch"
WHOLE_TEXTS = 1000  # more states than that at once are not asked of the other side
TIMES = 3
THREADS = 1  # these layers are small: with more, threads would mostly wait for each other


def points() -> list[tuple[str, float, Shape, int]]:
    """(panel, abscissa, shape, texts) of everything measured."""
    found: list[tuple[str, float, Shape, int]] = [("texts", n, SMALL, n) for n in TEXTS]
    found += [("layers", n, replace(SMALL, layers=n).reduced(), 28) for n in LAYERS]
    llama = SHAPES["llama8b"].reduced(layers=4, vocab=2048)
    found += [("size", width, llama.reduced(width=width), 28) for width in WIDTHS]
    return found


def measure(shape: Shape, texts: int, side: str, times: int) -> tuple[float, float]:
    """(seconds of load and forward, MiB over base), the least of `times` processes."""
    name = f"growth-{shape.family}-{shape.hidden}-{shape.layers}"
    place = Path(os.environ[FOLDER]) / name
    written(place, shape, "bf16")
    warm(place)
    seconds, memory = [], []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-m", "bench.growth", "--once", side, str(place), str(texts)],
            check=True, capture_output=True, text=True, cwd=repository(),
            env={**ENVIRONMENT, **os.environ, "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        said = json.loads(done.stdout.splitlines()[-1])
        seconds.append(said["seconds"])
        memory.append(said["memory"])
    return min(seconds), min(memory)


def once(side: str, place: Path, texts: int) -> None:
    """One point in this process; one JSON line."""
    from bench import ways

    copies = -(-texts // 26)
    some = gloss_texts(copies)
    some = replace(some, texts=some.texts[:texts]) if len(some.texts) > texts else some
    if side == "ours":
        sample = ways.streamed(place, some, dtype="float32", threads=THREADS)
    else:
        sample = ways.one_batch(place, some)
    seconds = sample.seconds[ways.LOAD_AND_FORWARD]
    print(json.dumps({"seconds": seconds, "memory": (sample.peak - sample.peak_before) / 2**20}))


def draw(found: list[dict[str, Any]], file: Path) -> None:
    """Three panels of time over one of memory each; log axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="whitegrid", context="paper")
    panels = {"texts": "texts", "layers": "layers", "size": "checkpoint, MB"}
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.4), sharey="row", sharex="col")
    colours = dict(zip((OURS, THEIRS), sns.color_palette("colorblind", 2), strict=True))
    for column, (panel, label) in enumerate(panels.items()):
        for row, key in enumerate(("seconds", "memory")):
            axis = axes[row][column]
            for side, colour in colours.items():
                line = sorted((p["x"], p[key]) for p in found if p["panel"] == panel and p["side"] == side)
                marker, style = ("o", "-") if side == OURS else ("s", "--")
                axis.plot(*zip(*line, strict=True), style, marker=marker, color=colour, label=side, markersize=4)
            axis.set_xscale("log")
            axis.set_yscale("log")
            if row:
                axis.set_xlabel(label)
    axes[0][0].set_ylabel("load and forward, s")
    axes[1][0].set_ylabel("peak over base, MiB")
    axes[0][0].legend(frameon=False)
    for axis in axes[1]:
        axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=160)


def main(words: list[str]) -> None:
    if words[:1] == ["--once"]:
        side, place, texts = words[1:]
        once(side, Path(place), int(texts))
        return
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--times", type=int, default=TIMES, help=f"processes for each point ({TIMES})")
    args = parser.parse_args(words)
    found = []
    with tempfile.TemporaryDirectory(prefix="pairprobe-growth-") as temporary:
        os.environ.setdefault(FOLDER, temporary)
        for panel, x, shape, texts in points():
            for side, name in (("ours", OURS), ("theirs", THEIRS)):
                if side == "theirs" and texts > WHOLE_TEXTS:
                    continue
                seconds, memory = measure(shape, texts, side, args.times)
                at = x
                if panel == "size":
                    place = Path(os.environ[FOLDER]) / f"growth-{shape.family}-{shape.hidden}-{shape.layers}"
                    at = sum(f.stat().st_size for f in place.glob("*.safetensors")) / 1e6
                found.append({"panel": panel, "x": at, "side": name, "seconds": seconds, "memory": memory})
                print(f"{panel} {at:g}, {name}: {seconds:.2f} s, {memory:.0f} MiB", file=sys.stderr, flush=True)
    draw(found, (repository() or Path.cwd()) / FIGURE)


if __name__ == "__main__":
    main(sys.argv[1:])
