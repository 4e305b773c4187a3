"""What a config declares of quantisation that tensors do not show, and that changes what the model computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
