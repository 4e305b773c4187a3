"""python -m bench.child CASE prepare|ours|RIVAL [FILE]: one side in this process; one JSON line, answer to FILE."""

from __future__ import annotations

import json
import sys
from typing import Any, cast

import numpy as np

from bench.case import find


def main(words: list[str]) -> None:
    name, side, *file = words
    case = find(name)
    if case.threads:
        import torch

        torch.set_num_threads(case.threads)
    if side == "prepare":
        case.prepare()
        return
    sample = case.side() if side == "ours" else case.rivals[side].side()
    np.savez(file[0], **cast(dict[str, Any], sample.answer))
    print(json.dumps({"seconds": sample.seconds, "peak_before": sample.peak_before, "peak": sample.peak}))


if __name__ == "__main__":
    main(sys.argv[1:])
