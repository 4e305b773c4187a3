"""The published way of measuring, as it was run: the whole model through transformers 4.51.3 with its own loaders.

    PYTHONPATH=src .venv-paper/bin/python -W ignore paper/replay.py FOLDER --out replay.csv
    python run.py model=recorded method=recorded method.path=replay.csv method.model=NAME pairs=pie_oc

One text a batch, `output_hidden_states`, the last state (after the final norm) averaged over all tokens, BOS and
template included, raw cosine for each pair. The CSV has the columns that `method=recorded` reads; beside it a JSON
file with the versions and settings, and with --vectors an .npz with each text's vector, to compare state by state.

Needs the paper's environment (paper/constraints.txt) and memory for the whole model: about its size on disk, and
for int8 one dense matrix more at a time. AWQ needs a GPU: without one this transformers asks for Intel's extension.

What to know of compressed-tensors 0.9.0: "per token" activation scales are taken over the batch axis, so with one
text a batch every number x has a scale of its own, |x| / 127.5: q = round(x · 127.5 / |x|), held to −128 … 127, and x
becomes q · |x| / 127.5. W8A8 then comes to the weights alone, positive inputs multiplied by 127/127.5 and negative ones
by 128/127.5 or 127/127.5, as rounding errors fall. --activations weight_only leaves that out.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from pairprobe.errors import PairprobeError
from pairprobe.pairs.pie_oc import PieOc
from pairprobe.pairs.table import Table
from pairprobe.records import PairSet, Texts
from pairprobe.texts import Template

GLOSS = Path(__file__).parents[1] / "conf" / "template" / "gloss.yaml"
TESTED = {"transformers": "4.51.3", "compressed-tensors": "0.9.0", "autoawq": "0.2.9"}


def versions() -> dict[str, str]:
    """What is installed of TESTED, and torch; prints what is not as it was."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"torch": torch.__version__}
    for name, tested in TESTED.items():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
        if found[name] != tested:
            print(f"{name} is {found[name]}; the published run had {tested}.", file=sys.stderr)
    return found


def read(pairs: str, template: Path) -> tuple[PairSet, Texts]:
    """Pairs and their texts. template: a YAML as in conf/template."""
    found = PieOc().read() if pairs == "pie_oc" else Table(pairs).read()
    values = yaml.safe_load(template.read_text(encoding="utf-8"))
    values.pop("_target_", None)
    return found, Template(**values).write(found)


def vectors(folder: Path, texts: list[str], dtype: str, activations: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[texts, width] float32: each text's last state averaged over all its tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    place = {"device_map": "auto"} if torch.cuda.is_available() else {}
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype, local_files_only=True, **place).eval()
    if activations == "weight_only":
        for module in model.modules():
            if getattr(module, "quantization_scheme", None) is not None:
                module.quantization_scheme.input_activations = None
    found = []
    with torch.no_grad():
        for n, text in enumerate(texts):
            started = time.perf_counter()
            tokens = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(model.device)
            last = model(**tokens, output_hidden_states=True).hidden_states[-1]  # [1, tokens, width]
            found.append(last[0].float().mean(0).cpu().numpy())
            print(f"text {n + 1} of {len(texts)}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return np.stack(found)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a checkpoint's folder")
    parser.add_argument("--out", type=Path, required=True, help="the CSV; its settings go beside it as .json")
    parser.add_argument("--name", help="the model's name in the CSV (the folder's)")
    parser.add_argument("--pairs", default="pie_oc", help="pie_oc, or a table as pairs=table reads it")
    parser.add_argument("--template", type=Path, default=GLOSS, help="a YAML as in conf/template (gloss)")
    parser.add_argument("--dtype", default="auto", help="of the computation: auto, float16, bfloat16, float32")
    parser.add_argument("--activations", choices=("as_loaded", "weight_only"), default="as_loaded")
    parser.add_argument("--vectors", type=Path, help="an .npz for the vectors and their texts")
    args = parser.parse_args(words)
    try:
        if not (args.folder / "config.json").exists():
            parser.error(f"{args.folder}: no config.json is there")
        config = json.loads((args.folder / "config.json").read_text(encoding="utf-8"))
        if config.get("quantization_config", {}).get("quant_method") == "awq" and not torch.cuda.is_available():
            parser.error("transformers 4.51.3 runs AWQ on a GPU only, and torch sees none here")
        pairs, texts = read(args.pairs, args.template)
    except PairprobeError as error:
        print(error, file=sys.stderr)
        return 2
    settings = {"folder": str(args.folder), "dtype": args.dtype, "activations": args.activations, "pairs": pairs.name}
    settings |= {"template": texts.template, "pooling": "mean of all tokens", "state": "last", "batch": 1}
    settings["versions"] = versions()
    written = [text.text for text in texts.texts]
    states = vectors(args.folder, written, args.dtype, args.activations)
    if not np.isfinite(states).all():
        print(
            "States are not finite. fp16 overflows on real activations: --dtype bfloat16 or float32.", file=sys.stderr
        )
        return 1
    unit = states.astype(np.float64) / np.linalg.norm(states.astype(np.float64), axis=1, keepdims=True)
    similarities = (unit[texts.a] * unit[texts.b]).sum(1)
    name = args.name or args.folder.resolve().name
    with args.out.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("model", "pair_id", "similarity"))
        table.writerows((name, p.id, repr(float(s))) for p, s in zip(pairs.pairs, similarities, strict=True))
    groups = np.array([pair.group for pair in pairs.pairs])
    settings["mean similarity"] = {g: float(similarities[groups == g].mean()) for g in dict.fromkeys(groups.tolist())}
    args.out.with_suffix(".json").write_text(
        json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if args.vectors:
        np.savez(args.vectors, vectors=states, texts=np.array(written))
    print(json.dumps(settings["mean similarity"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
