"""One layer's products of a 70B W8A8 checkpoint, activations quantised as stored, against fp32 fake quantisation.

The other side has its weights dequantised in memory beforehand: only rounding its input and multiplying is timed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from bench import large, ways
from bench.case import Answers, Case, Clock, Differs, Fact, Rival, Sample
from bench.full_width import ALL, INT8

TOKENS = 352  # of the gloss texts
WATCHED = 512  # rows of each matrix whose sums are compared one by one
TOLERANCE = 1e-5
TIMES = 2


def _layer() -> Iterator[tuple[Any, Any, Any]]:
    """(input [TOKENS, in], weight, its stored parts) of each matrix of layer 0."""
    import torch
    from safetensors import safe_open

    from pairprobe.checkpoints.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(large.folder(INT8))
    random = torch.Generator().manual_seed(0)
    for name, weight in checkpoint.weights.items():
        if not name.startswith("model.layers.0.") or len(weight.shape) != 2:
            continue
        parts = {}
        for role, part in weight.parts.items():
            with safe_open(part.file, "pt") as file:
                parts[role] = file.get_tensor(f"{name.removesuffix('.weight')}.{role}").clone()
        yield torch.randn(TOKENS, weight.shape[1], generator=random), weight, parts


def ours() -> Sample:
    ways.imports()
    import torch

    from pairprobe.executions.products import Workshop

    workshop = Workshop("cpu", torch.float32, as_stored=True)
    layer = list(_layer())
    with torch.inference_mode():
        workshop.product(*layer[0])
        clock = Clock()
        for _ in range(TIMES):
            with clock("products"):
                out = [workshop.product(x, weight, parts) for x, weight, parts in layer]
        clock.seconds["products"] /= TIMES
        equal = [_as_summed(y, x, weight, parts) for y, (x, weight, parts) in zip(out, layer, strict=True)]
    watched = torch.cat([y[:, :WATCHED].flatten() for y in out])
    return clock.stop(products=watched.numpy(), equal=sum(e for e, _ in equal), sums=sum(n for _, n in equal))  # type: ignore[arg-type]


def _as_summed(y: Any, x: Any, weight: Any, parts: Any) -> tuple[int, int]:
    """(products of the first rows that are, to the bit, the exact integer sum times both scales; all of these).

    The sum is taken in float64, which holds it exactly: at most 28672 · 128 · 128 < 2^53.
    """

    scale = x.abs().amax(-1, keepdim=True) / 127.5  # compressed-tensors' dynamic symmetric scale
    q = (x / scale).clamp(-128, 127).round()
    rows = min(WATCHED, weight.shape[0])
    sums = q.double() @ parts["weight"][:rows].double().t()
    expected = sums.float() * scale * parts["weight_scale"][:rows].float().view(1, -1)
    same = expected == y[:, :rows]
    return int(same.sum()), same.numel()


def theirs() -> Sample:
    ways.imports()
    import torch

    layer = [(x, (parts["weight"].float() * parts["weight_scale"].float()).contiguous()) for x, _, parts in _layer()]

    def rounded(x: Any) -> Any:
        scale = x.abs().amax(-1, keepdim=True) / 127.5
        return (x / scale).clamp(-128, 127).round() * scale

    with torch.inference_mode():
        torch.mm(layer[0][0], layer[0][1].t())
        clock = Clock()
        for _ in range(TIMES):
            with clock("products"):
                out = [torch.mm(rounded(x), w.t()) for x, w in layer]
        clock.seconds["products"] /= TIMES
    return clock.stop(products=torch.cat([y[:, :WATCHED].flatten() for y in out]).numpy())


def agreement(answers: Answers) -> str:
    """Products of both, over the largest of them. Raises Differs."""
    worst = max(float(abs(a["products"] - b["products"]).max() / abs(b["products"]).max()) for a, b in answers)
    if not worst <= TOLERANCE:
        raise Differs(f"products differ by {worst:.1e} of the largest; {TOLERANCE:g} is allowed")
    return f"products: {worst:.1g} of {TOLERANCE:g}"


def facts(ours: Sequence[Sample], theirs: Mapping[str, Sequence[Sample]]) -> list[Fact]:  # noqa: ARG001
    """Integer sums, to the bit; all 80 layers."""
    equal, sums = (int(ours[0].answer[key]) for key in ("equal", "sums"))
    seconds = statistics.median(s.seconds["products"] for s in ours) * ALL
    return [
        Fact("integer sums equal to the exact ones", f"{equal} of {sums}", "", "all", equal == sums),
        Fact(f"{ALL} layers: products", f"{seconds:.0f} s"),
    ]


CASE = Case(
    f"int8 activations by int8 weights (`execution.activations=as_stored`), {TOKENS} tokens, two threads",
    ours,
    {"theirs": Rival("rounded activations by dequantised weights, fp32", theirs, agreement, {"products": 2.5})},
    partial(large.write, INT8),
    memory=False,
    threads=2,
    facts=facts,
)
