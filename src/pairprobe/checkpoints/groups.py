"""The groups of a compressed-tensors config: which say how a module's weights, and the inputs of its products, are
quantised. Whatever is there and cannot be read is an error: passed over, it would be another model without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pairprobe.checkpoints.declared import boolean, misdeclared, nested
from pairprobe.checkpoints.headers import Tensor, shown
from pairprobe.errors import CheckpointError
from pairprobe.rooms import UNKNOWN, Activations

#: How closely a target of the config means a module: compressed-tensors' order, with an ending and Linear put in.
NAME, PATTERN, ENDING, LINEAR, CLASS, NOT_MEANT = range(6)
GROUPS = "config_groups"
#: quant_method of configs that say in groups how everything is quantised.
IN_GROUPS = ("compressed-tensors",)
#: Where configs name the method; the second is ModelOpt's.
METHODS = ("quant_method", "quant_algo")
TYPES = ("int", "float")
#: How scales of inputs can be spread that are found while the model runs.
DYNAMIC = ("token", "tensor", "group")


#: How compressed-tensors spreads the scales of weights.
SPREADS = ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head")


@dataclass(frozen=True)
class Scheme:
    """What one of the config's groups says. None: not said."""

    bits: int | None = None
    group: int | None = None
    block: tuple[int, int] | None = None
    strategy: str | None = None
    asymmetric: bool = False
    activations: Activations | None = None
    rank: int = NOT_MEANT


def schemes(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any], kind: str) -> list[Scheme]:
    """The config's groups for weights of this kind ('int' or 'float'), likeliest first. Where it has no groups, one
    that says of inputs what the method does, or that they are UNKNOWN: never that they stay as they are.

    Raises:
        Misdeclared: a group that cannot be read.
    """
    groups = nested(quantisation.get(GROUPS), GROUPS)
    if groups:
        found = sorted(_of_kind(module, groups, kind), key=lambda scheme: scheme.rank)
        others = _of_kind(module, groups, "int" if kind == "float" else "float")
        if found and (found[0].rank < NOT_MEANT or all(scheme.rank == NOT_MEANT for scheme in others)):
            return found
        said = f"none of its {GROUPS} ({', '.join(groups)}) is of weights of type '{kind}'"
        raise _another_type(module, kind, f"{said} and targets it" if found else said)
    if quantisation.get("quant_method") in IN_GROUPS:
        raise misdeclared(GROUPS, quantisation.get(GROUPS), "the groups that say how weights and inputs are stored")
    # Not compressed-tensors' config, but stored alike (ModelOpt's FP8, FBGEMM's, AutoFP8's)
    method, algorithm = quantisation.get("quant_method"), quantisation.get("quant_algo")
    if kind == "int" and "fp8" in str(algorithm or method).lower():
        raise _another_type(module, kind, f"it says {algorithm or method}")
    if method == "fbgemm_fp8":
        return [Scheme(activations=Activations("fp8 bounded"))]
    if method == "fp8" and "activation_scheme" in quantisation:
        return [Scheme(activations=_autofp8(quantisation["activation_scheme"]))]
    # ModelOpt's FP8, the first releases of which declare it in a file of its own, stores the scales of inputs
    static = kind == "float" and "input_scale" in tensors
    if static and method in (None, "fp8", "modelopt") and algorithm in (None, "FP8"):
        return [Scheme(activations=Activations("fp8", "static"))]
    return [Scheme(activations=Activations(UNKNOWN, declared=_methods(quantisation)))]


def _methods(quantisation: Mapping[str, Any]) -> str:
    """What a config calls its method: "quant_method 'modelopt', quant_algo 'FP8'"."""
    said = [f"{key} '{shown(str(quantisation[key]))}'" for key in METHODS if quantisation.get(key) is not None]
    return ", ".join(said) or ("no quant_method" if quantisation else "no quantisation")


def _another_type(module: str, kind: str, said: str) -> CheckpointError:
    stored = "FP8" if kind == "float" else "integers"
    return CheckpointError(
        f"{module}: its weight is stored as {stored}, but by config.json, {said}.",
        "One of the two is of another checkpoint, or damaged: get the repository again.",
    )


def _of_kind(module: str, groups: Mapping[str, Any], kind: str) -> list[Scheme]:
    found = []
    for name in groups:
        where = f"{GROUPS}.{name}"
        group = nested(groups[name], where) or {}
        weights = nested(group.get("weights"), f"{where}.weights")
        if weights is None or _type(weights, f"{where}.weights") != kind:
            continue
        found.append(
            Scheme(
                bits=_bits(weights, f"{where}.weights"),
                group=_group(weights, f"{where}.weights"),
                block=_block(weights, f"{where}.weights.block_structure"),
                strategy=_spread(weights, f"{where}.weights"),
                asymmetric=not boolean(weights, "symmetric", f"{where}.weights.symmetric", default=True),
                activations=_of_group(group, where),
                rank=min((_rank(module, target) for target in _targets(group, where)), default=NOT_MEANT),
            )
        )
    return found


def _type(said: Mapping[str, Any], where: str) -> str:
    value = said.get("type", "int")
    if not isinstance(value, str) or value.lower() not in TYPES:
        raise misdeclared(f"{where}.type", value, " or ".join(TYPES))
    return value.lower()


def _bits(said: Mapping[str, Any], where: str, default: Any = None) -> int:
    value = said.get("num_bits", default)
    if type(value) is not int or not 1 <= value <= 8:
        raise misdeclared(f"{where}.num_bits", value, "1 … 8")
    return value


def _group(said: Mapping[str, Any], where: str) -> int | None:
    """Columns that share a scale; −1 is compressed-tensors' word for all of them."""
    value = said.get("group_size")
    if value is not None and (type(value) is not int or value == 0 or value < -1):
        raise misdeclared(f"{where}.group_size", value, "a number above 0, -1, null")
    return None if value == -1 else value


def _spread(said: Mapping[str, Any], where: str) -> str | None:
    value = said.get("strategy")
    if value is not None and value not in SPREADS:
        raise misdeclared(f"{where}.strategy", value, f"{', '.join(SPREADS)}, null")
    return value


def _block(said: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    value = said.get("block_structure")
    if value is None:
        return None
    # older versions wrote '128x128'
    sides = [int(n) if n.isdecimal() else n for n in value.split("x")] if isinstance(value, str) else value
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(n) is int and n > 0 for n in sides):
        raise misdeclared(where, value, "two numbers above 0, as [128, 128], or null")
    return sides[0], sides[1]


def _targets(group: Mapping[str, Any], where: str) -> Sequence[str]:
    targets = group.get("targets")
    if targets is None:
        return ()
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise misdeclared(f"{where}.targets", targets, 'a list of names, as ["Linear"]')
    return targets


def _rank(module: str, target: str) -> int:
    """How closely a target of the config means this module."""
    if not target.startswith("re:"):
        if target == module:
            return NAME
        if f".{module}".endswith(f".{target}"):
            return ENDING
        # Classes: nearly every quantised weight is a Linear's; what enters an Embedding is never quantised.
        return LINEAR if target == "Linear" else NOT_MEANT if "." in target else CLASS
    try:
        pattern = re.compile(target.removeprefix("re:"))
    except re.error as error:
        raise misdeclared("a target", target, f"a pattern after 're:' ({error})") from None
    if pattern.match(module):
        return PATTERN
    # Patterns are written for the model's names; stored ones may carry a prefix more.
    dots = [m.end() for m in re.finditer(r"\.", module)]
    return ENDING if any(pattern.match(module[dot:]) for dot in dots) else NOT_MEANT


def _of_group(group: Mapping[str, Any], where: str) -> Activations | None:
    """What a group says of activations; that results are quantised, too, is a kind that no execution computes."""
    results = activations(group.get("output_activations"), f"{where}.output_activations")
    inputs = activations(group.get("input_activations"), f"{where}.input_activations")
    return Activations(f"{results.kind} of results") if results else inputs


def activations(value: Any, where: str) -> Activations | None:
    """What a group says under 'input_activations'. Kinds: int8, fp8, other widths likewise; 'int8 asymmetric' …"""
    said = nested(value, where)
    if said is None:
        return None
    kind = f"{'fp' if _type(said, where) == 'float' else 'int'}{_bits(said, where, default=8)}"
    if not boolean(said, "symmetric", f"{where}.symmetric", default=True):
        kind += " asymmetric"
    if not boolean(said, "dynamic", f"{where}.dynamic", default=False):
        return Activations(kind, "static")
    size = _group(said, where)
    strategy = said.get("strategy")
    if strategy is None:  # the library's own choice
        strategy = "tensor" if size is None else "group"
    if strategy not in DYNAMIC:
        raise misdeclared(f"{where}.strategy", strategy, ", ".join(DYNAMIC))
    if (strategy == "group") is not (size is not None):
        raise misdeclared(
            f"{where}.group_size", said.get("group_size"), "a number above 0 where strategy is group, else null"
        )
    return Activations(kind, "tensor" if strategy == "tensor" else "token", size)


def _autofp8(scheme: Any) -> Activations:
    """AutoFP8 found one scale for the whole of an input while it ran ('dynamic'), or stored it ('static')."""
    if scheme not in ("dynamic", "static"):
        raise misdeclared("activation_scheme", scheme, "dynamic, static")
    return Activations("fp8", "tensor" if scheme == "dynamic" else "static")
