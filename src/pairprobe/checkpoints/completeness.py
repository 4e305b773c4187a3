"""Whether a module's tensors are the whole of one weight, and of no second: what is stored twice, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pairprobe.checkpoints.headers import FLOATS, Tensor
from pairprobe.errors import CheckpointError

if TYPE_CHECKING:
    from pairprobe.checkpoints.weight import Weight

#: What a quantised weight is made of: its format, the config's quant_method for it, the dtypes of the first part, and
#: all parts that are always there.
MADE_OF: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ("AWQ or GPTQ", ("awq", "gptq", "auto-round"), ("I32",), ("qweight", "qzeros", "scales")),
    ("compressed-tensors, packed", ("compressed-tensors",), ("I32",), ("weight_packed", "weight_scale")),
    (
        "compressed-tensors",
        ("compressed-tensors", "modelopt", "fbgemm_fp8"),
        ("I8", "F8_E4M3"),
        ("weight", "weight_scale"),
    ),
    ("FP8 in blocks", ("fp8",), ("F8_E4M3",), ("weight", "weight_scale_inv")),
    ("bitsandbytes", ("bitsandbytes",), ("I8",), ("weight", "SCB")),
    ("bitsandbytes", ("bitsandbytes",), ("U8",), ("weight", "weight.absmax", "weight.quant_map")),
    ("MLX", (), ("U32",), ("weight", "scales", "biases")),
)
#: Scales of formats whose part `weight` holds integers or FP8; beside a dense weight they have no meaning known here.
SCALES_OF = (("weight_scale",), ("scales", "biases"))
TWICE = (
    "Two versions of the model have been mixed: get the repository again, or take out of its files the tensors that "
    "are not meant."
)
AGAIN = "Get the repository again; if it stays so, its publisher has left the tensor out."


def stored_once(module: str, own: Mapping[str, Tensor], claimed: Weight) -> None:
    """Raise CheckpointError where a `weight` lies beside the tensors that a format makes the module's weight from."""
    weight, parts = own.get("weight"), claimed.parts.values()
    if weight is None or any(part is weight for part in parts):
        return
    names = {id(tensor): name for name, tensor in own.items()}
    others = {names[id(part)]: part for part in parts}
    raise CheckpointError(
        f"{module}: its weight is stored twice: as {_with_files({'weight': weight})}, and as {claimed.format}, "
        f"{_with_files(others)}. Nothing says which is meant.",
        TWICE,
    )


def without_scales(module: str, own: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where a weight that is stored dense lies beside a quantised one's scales."""
    weight = own.get("weight")
    scales = next((names for names in SCALES_OF if own.keys() >= {*names}), ())
    if weight is None or weight.dtype not in FLOATS or len(weight.shape) < 2 or not scales:
        return
    raise CheckpointError(
        f"{module}: {_with_files({'weight': weight})} is stored dense, beside the scales of a quantised one, "
        f"{_with_files({name: own[name] for name in scales})}. Nothing says whether they are to be applied.",
        TWICE,
    )


def with_all_parts(module: str, own: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> None:
    """Raise CheckpointError where tensors that no format takes are some of a format's parts, and others are missing."""
    method = quantisation.get("quant_method")
    fitting = []
    for name, methods, dtypes, parts in MADE_OF:
        there = [part for part in parts if part in own and (part != parts[0] or own[part].dtype in dtypes)]
        missing = [part for part in parts if part not in own]
        known = len(there) + len(missing) == len(parts) and ("weight" in parts or "weight" not in own)
        telling = [part for part in there if part != "weight"]  # names that this format's parts alone have
        meant = telling or method is None or method in methods
        if known and meant and missing and (parts[0] in there or missing == [parts[0]]):
            fitting.append((len(telling), method in methods, name, there, missing))
    if not fitting:
        return
    best = max(fit[:2] for fit in fitting)
    likely = [fit for fit in fitting if fit[:2] == best]
    there = likely[0][3]
    what = " or ".join(
        f"{' and '.join(f'{module}.{part}' for part in missing)} ({name})" for _, _, name, _, missing in likely
    )
    verb = "are" if len(likely) == 1 and len(likely[0][4]) > 1 else "is"
    raise CheckpointError(
        f"{what} {verb} missing, without which {_with_files({n: own[n] for n in there})} cannot be read.",
        AGAIN,
    )


def _with_files(tensors: Mapping[str, Tensor]) -> str:
    """'qweight and scales (in a.safetensors), qzeros (in b.safetensors)'; a lone tensor with dtype and shape."""
    if len(tensors) == 1:
        ((name, tensor),) = tensors.items()
        return f"{name} {tensor.dtype} {list(tensor.shape)} (in {tensor.file.name})"
    by_file: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        by_file.setdefault(tensor.file.name, []).append(name)
    return ", ".join(f"{' and '.join(names)} (in {file})" for file, names in by_file.items())
