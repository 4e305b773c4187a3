"""What a config declares of quantisation, and of it what tensors do not show and changes what the model computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pairprobe.checkpoints.headers import as_json
from pairprobe.errors import Misdeclared

#: quant_method of configs whose tensors tell all: over tensors that are stored dense these say nothing.
BY_TENSORS = (
    "compressed-tensors", "awq", "gptq", "auto-round", "bitsandbytes", "fp8", "fbgemm_fp8", "modelopt", "mlx",
)  # fmt: skip
AS_DENSE = (
    "If the weights are to be taken as they are stored, take quantization_config out of a copy of config.json; "
    "method=static needs no layers."
)


def unread(declared: Mapping[str, Any], quantised: bool) -> str | None:
    """Why layers cannot be computed from the stored tensors alone, or None. quantised: whether some tensors are."""
    transforms = declared.get("transform_config")
    groups = transforms.get("config_groups", transforms) if isinstance(transforms, Mapping) else transforms
    if groups:
        named = ", ".join(groups) if isinstance(groups, Mapping) else str(groups)[:60]
        return (
            f"config.json declares transforms of activations (transform_config: {named}), as SpinQuant and QuIP do, "
            "which are not computed; without them its weights are another model's. Take a checkpoint of this model "
            "without transforms; method=static needs no layers."
        )
    method = declared.get("quant_method")
    if method is not None and method not in BY_TENSORS and not quantised:
        return (
            f"config.json declares quant_method '{method}', but its weights are stored dense: what its loader makes of "
            f"them is not known here. Known: {', '.join(BY_TENSORS)}. {AS_DENSE}"
        )
    return None


#: Keys of a config under which quantisation is declared: the second is MLX's, the last compressed-tensors' of 2024.
KEYS = ("quantization_config", "quantization", "compression_config")


def of(config: Mapping[str, Any], text_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config says of quantisation, {} where nothing. Raises Misdeclared where that is no object."""
    for part in (config, text_config):
        for key in KEYS:
            if (found := nested(part.get(key), key, "")) is not None:
                return found
    return {}


#: Where settings of single modules stand, by name or pattern: GPTQModel's, and AutoRound's.
BY_MODULE = ("dynamic", "extra_config")


def unlike(quantisation: Mapping[str, Any], key: str, stored: int, width: int | None = None) -> tuple[str, ...]:
    """What to say of a declared value that the tensors do not bear out: 'bits 8 (stored: 4)'; () where they do, or
    nothing is declared. Values declared for single modules count as declared for this one. width: inputs of the weight,
    where the value is how many of them share a scale (-1: all)."""
    settings = [quantisation]
    for place in BY_MODULE:
        of = quantisation.get(place)
        settings += [own for own in of.values() if isinstance(own, Mapping)] if isinstance(of, Mapping) else []
    said = [value for own in settings if (value := own.get(key)) is not None]

    def same(value: Any) -> bool:
        if width is None or type(value) is not int or value == 0:
            return str(value) == str(stored)
        return math.ceil(width / (width if value == -1 else value)) == math.ceil(width / stored)

    if not said or any(map(same, said)):
        return ()
    return (f"{key} {as_json(said[0])} (stored: {stored})",)


def misdeclared(key: str, value: Any, allowed: str, within: str = KEYS[0]) -> Misdeclared:
    """The error for a value of a config's quantisation settings. within: the key they stand under, '' for none."""
    shown_value = as_json(value) if value is not None else "null or missing"
    where = f"{within}: " if within else ""
    return Misdeclared(
        f"config.json, {where}{key} is {shown_value}; allowed: {allowed}.",
        "Get config.json again from where the weights came from, or correct the value.",
    )


def nested(value: Any, where: str, within: str = KEYS[0]) -> Mapping[str, Any] | None:
    """A value that must be an object, None where it is null or missing. Raises Misdeclared on anything else."""
    if value is None or isinstance(value, Mapping):
        return value
    raise misdeclared(where, value, "an object, or null", within)


def boolean(said: Mapping[str, Any], key: str, where: str, *, default: bool) -> bool:
    """The truth value under a key; `default` where it is null or missing. Raises Misdeclared on anything else."""
    value = said.get(key)
    if value is not None and not isinstance(value, bool):
        raise misdeclared(where, value, "true, false")
    return default if value is None else value
