"""What a checkpoint's weights are stored as, counted: formats, bits per weight, and what is left unquantised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pairprobe.checkpoints.weight import DENSE, Weight


@dataclass(frozen=True)
class Storage:
    """formats: format → (weights, values, bytes), most bytes first. unquantised: kinds of weights that are dense in a
    checkpoint that has quantised ones. activations: kind and scale of quantised inputs → weights that ask for them."""

    formats: dict[str, tuple[int, int, int]]
    unquantised: tuple[str, ...]
    values: int
    nbytes: int
    activations: dict[str, int]

    @property
    def bits(self) -> float:
        """Stored bits per value over the whole checkpoint, scales and zero points included."""
        return 8 * self.nbytes / max(1, self.values)

    @property
    def summary(self) -> str:
        """The quantised format most bytes are in, as 'AWQ 4 bit'; in a dense checkpoint the dtype of most bytes."""
        quantised = [name for name in self.formats if name not in DENSE.values()]
        return next(iter([*quantised, *self.formats]), "nothing")

    @property
    def described(self) -> dict[str, str]:
        """Plain texts, by what they say."""
        each = [
            f"{name}: {count} weights, {8 * size / max(1, values):.2f} bits each"
            for name, (count, values, size) in self.formats.items()
        ]
        return {
            "stored_as": self.summary,
            "formats": "; ".join(each),
            "bits_per_weight": f"{self.bits:.2f}",
            "activations": "; ".join(f"{kind}: {count} weights" for kind, count in self.activations.items())
            or "as they are",
            "unquantised": ", ".join(self.unquantised) or "everything",
        }


def storage(weights: Mapping[str, Weight]) -> Storage:
    """Count."""
    formats: dict[str, tuple[int, int, int]] = {}
    for weight in weights.values():
        count, values, size = formats.get(weight.format, (0, 0, 0))
        formats[weight.format] = count + 1, values + math.prod(weight.shape), size + weight.nbytes
    ordered = dict(sorted(formats.items(), key=lambda f: -f[1][2]))
    quantised = any(not w.dense for w in weights.values())
    dense = dict.fromkeys(_kind(name, w) for name, w in weights.items() if w.dense) if quantised else {}
    total = [sum(entry[i] for entry in formats.values()) for i in (1, 2)]
    inputs: dict[str, int] = {}
    for weight in weights.values():
        if weight.activations is not None:
            kind = f"{weight.activations.kind} by {weight.activations.scale}"
            inputs[kind] = inputs.get(kind, 0) + 1
    return Storage(ordered, tuple(dense), total[0], total[1], inputs)


def _kind(name: str, weight: Weight) -> str:
    """embeddings, head, norms, biases, or the module's own name."""
    module, _, leaf = name.rpartition(".")
    last = module.rpartition(".")[2]
    if "embed" in name or last in ("wte", "wpe"):
        return "embeddings"
    if last in ("lm_head", "output", "embed_out"):
        return "head"
    if leaf == "bias" and len(weight.shape) == 1:
        return "biases"
    return "norms" if len(weight.shape) == 1 else last
