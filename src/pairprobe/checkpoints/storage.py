"""What a checkpoint's weights are stored as, counted: formats, bits per weight, and what is left unquantised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pairprobe.checkpoints.weight import DENSE, Weight
from pairprobe.rooms import UNKNOWN, Activations


@dataclass(frozen=True)
class Storage:
    """formats: format → (weights, values, bytes), most bytes first. unquantised: kinds of weights that are dense in a
    checkpoint that has quantised ones. activations: how inputs are quantised, in words → weights that ask for it.
    weight_only: quantised weights, the embeddings' aside, that ask for nothing of their inputs. unlike: what the config
    declares that tensors do not bear out → weights of which it is so."""

    formats: dict[str, tuple[int, int, int]]
    unquantised: tuple[str, ...]
    values: int
    nbytes: int
    activations: dict[str, int]
    weight_only: int
    unlike: dict[str, int]

    @property
    def bits(self) -> float:
        """Stored bits per value over the whole checkpoint, scales and zero points included."""
        return 8 * self.nbytes / max(1, self.values)

    @property
    def summary(self) -> str:
        """The quantised formats, that of most bytes first, as 'AWQ 4 bit'; in a dense checkpoint the dtype of most
        bytes."""
        quantised = [name for name in self.formats if name not in DENSE.values()]
        return " and ".join(quantised) or next(iter(self.formats), "nothing")

    @property
    def caution(self) -> str:
        """What a reader must know of how it is stored; '' where there is nothing."""
        if not self.unlike:
            return ""
        each = ", ".join(f"{what} of {count} weight{'s' * (count > 1)}" for what, count in self.unlike.items())
        return f"config.json declares {each}: the tensors say otherwise, and are believed"

    def inputs(self, as_stored: bool = True) -> str:
        """What enters the products of quantised weights, in words; '' where none is quantised. as_stored: inputs are
        quantised where the checkpoint says so, see `execution.activations`."""
        asked = "; ".join(self.activations)
        if not asked:
            return "inputs unquantised (weight only)" if self.weight_only else ""
        if not as_stored:
            return f"inputs unquantised (execution.activations=weight_only; by the checkpoint {asked})"
        if len(self.activations) == 1 and not self.weight_only:
            return f"inputs as {asked}"
        each = "; ".join(f"{kind} ({count} weights)" for kind, count in self.activations.items())
        return f"inputs as {each}" + (f"; unquantised ({self.weight_only} weights)" if self.weight_only else "")

    @property
    def described(self) -> dict[str, str]:
        """Plain texts, by what they say."""
        each = [
            f"{name}: {count} weights, {8 * size / max(1, values):.2f} bits each"
            for name, (count, values, size) in self.formats.items()
        ]
        said = {
            "stored_as": self.summary,
            "formats": "; ".join(each),
            "bits_per_weight": f"{self.bits:.2f}",
            "activations": "; ".join(f"{kind}: {count} weights" for kind, count in self.activations.items())
            or "as they are",
            "unquantised": ", ".join(self.unquantised) or "everything",
        }
        return said | ({"caution": self.caution} if self.unlike else {})


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
    weight_only = 0
    unlike: dict[str, int] = {}
    for name, weight in weights.items():
        if weight.activations is not None:
            kind = _in_words(weight.activations)
            inputs[kind] = inputs.get(kind, 0) + 1
        elif not weight.dense and _kind(name, weight) != "embeddings":  # whose rows are looked up
            weight_only += 1
        for what in weight.unlike:
            unlike[what] = unlike.get(what, 0) + 1
    return Storage(ordered, tuple(dense), total[0], total[1], inputs, weight_only, unlike)


def _in_words(activations: Activations) -> str:
    """'int8 per token', 'fp8 per token and 128 columns', 'fp8 by a stored scale', "unknown (quant_method 'quark')"."""
    if activations.kind == UNKNOWN:
        return f"{UNKNOWN} ({activations.declared})"
    if activations.scale == "static":
        return f"{activations.kind} by a stored scale"
    per = f"{activations.kind} per {activations.scale}"
    return per if activations.group is None else f"{per} and {activations.group} columns"


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
