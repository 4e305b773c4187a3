"""Which stored weights fill which parameters of transformers' model: its own renamings, and experts it fuses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pairprobe.checkpoints.weight import Weight
from pairprobe.errors import CheckpointError, Unfilled

if TYPE_CHECKING:
    import torch

#: Parameters whose absence changes no hidden state: the pooler sits on top of the last one.
HARMLESS = ("pooler.",)
#: Buffers that older checkpoints store inside layers and transformers computes: rotary frequencies, causal masks.
COMPUTED = re.compile(r"(rotary_emb\.\w+|\.masked_bias|\.attn\.bias|\.attention\.bias|position_ids|rel_pos_mask)$")
#: Scales for a quantised cache of keys and values, under all their names: nothing is cached here.
CACHE = re.compile(r"(\.[qkv]_(scale|zero_point)|\.[kv]_proj\.output_(scale|zero_point))$")
LAYER = re.compile(r"^(?P<stack>(?:.*?\.)?)(?P<number>\d+)\.")


@dataclass(frozen=True)
class Experts:
    """A parameter [experts, rows, in] that checkpoints store expert by expert. of: for each expert, its weights, one
    below the other."""

    of: tuple[tuple[Weight, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.of), sum(w.shape[0] for w in self.of[0]), *self.of[0][0].shape[1:])

    @property
    def weights(self) -> tuple[Weight, ...]:
        return tuple(w for expert in self.of for w in expert)


def assign(model: torch.nn.Module, weights: Mapping[str, Weight], within: str = "") -> dict[str, Weight | Experts]:
    """Parameter (and persistent buffer) of `model` → the stored weight that fills it.

    within: the part of the model that must be filled, as 'language_model.'; what lies outside it is left out.

    Raises:
        Unfilled: a parameter is not stored, is stored twice or in another shape, or a layer's tensor has no place.
        CheckpointError: one is joined in a way not known here.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    rename = _renamer(model, wanted)
    found: dict[str, Weight | Experts] = {}
    joined: dict[str, dict[str, list[tuple[str, Weight]]]] = {}
    operations: dict[str, list[str]] = {}
    source: dict[str, str] = {}
    problems: list[str] = []
    unknown: list[str] = []
    unasked: list[str] = []
    for name, weight in weights.items():
        target, converter = rename(name)
        if not target.startswith(within):
            continue
        if target not in wanted:
            unasked.append(target)
            continue
        if converter is None:
            if target in source:
                where = _some(sorted({*files_of(found[target]), *files_of(weight)}))
                problems.append(f"{target} is stored twice: as {source[target]} and as {name} ({where}).")
            found[target], source[target] = weight, name
        else:
            pattern, patterns, steps = converter
            # in the converter's order, which is the parameter's: gate before up, however the header has them
            joined.setdefault(target, {p: [] for p in patterns})[pattern].append((name, weight))
            operations[target] = steps
    for target, by_pattern in joined.items():
        steps = operations[target]
        if steps not in (["MergeModulelist 0"], ["MergeModulelist 0", "Concatenate 1"]):
            unknown.append(f"{target}: its parts are joined by {', '.join(steps)}, which is not read here.")
            continue
        columns = [[w for _, w in sorted(column, key=lambda c: _natural(c[0]))] for column in by_pattern.values()]
        if len({len(c) for c in columns}) != 1 or not columns[0]:
            problems.append(f"{target}: its experts are not all stored ({[len(c) for c in columns]}).")
            continue
        if target in source:
            parts = [(name, weight) for column in by_pattern.values() for name, weight in column]
            where = _some(sorted({*files_of(found[target]), *(f for _, weight in parts for f in files_of(weight))}))
            names = _some([name for name, _ in parts])
            problems.append(f"{target} is stored twice: as {source[target]} and expert by expert ({names}; {where}).")
        found[target] = Experts(tuple(zip(*columns, strict=True)))
    needed = {n for n in wanted if n.startswith(within) and not n.startswith(HARMLESS)}
    absent = sorted(needed - found.keys() - operations.keys())
    wrong = sorted(n for n, w in found.items() if tuple(w.shape) != wanted[n])
    problems += without_place(model, unasked)
    if absent:
        files = sorted({part.file.name for weight in weights.values() for part in weight.parts.values()})
        problems.append(f"{len(absent)} tensors of the model are not in its files: {_some(absent)} ({_some(files)}).")
    if wrong:
        shapes = [
            f"{n} {list(found[n].shape)} in {_some(files_of(found[n]))}, where the config wants {list(wanted[n])}"
            for n in wrong
        ]
        problems.append(f"{len(wrong)} tensors of the model are stored in another shape: {_some(shapes)}.")
    if problems or unknown:
        raise (Unfilled if problems else CheckpointError)(
            problems + unknown, "Get the checkpoint again; its weights and its config.json do not belong together."
        )
    return found


def files_of(weight: Weight | Experts) -> list[str]:
    """Names of the files that hold it."""
    every = weight.weights if isinstance(weight, Experts) else (weight,)
    return sorted({part.file.name for one in every for part in one.parts.values()})


def no_table(of: str, name: str, shape: tuple[int, ...], named: Mapping[str, Weight]) -> CheckpointError:
    """That checkpoint `of` stores no embedding table `name` of this shape; named: the weights that are called so."""
    if not named:
        problem = f"{of}: no stored tensor is the embedding table {name}."
        return CheckpointError(problem, "Get the repository again: its weights are not all there.")
    other = min(named, key=len)
    return CheckpointError(
        f"{of}: the embedding table {other} is {list(named[other].shape)} (in {_some(files_of(named[other]))}), where "
        f"the config wants {list(shape)}.",
        "Its weights and its config.json (vocab_size, hidden_size) do not belong together: get the repository again.",
    )


def without_place(model: torch.nn.Module, names: Iterable[str]) -> list[str]:
    """What is wrong with stored tensors of layers that `model` has no parameter for; [] where nothing is.

    Left out without a word, they would make another model of it: a shallower one, or one without its biases. Heads,
    and what transformers itself is told to ignore, are not looked at. names: as the model would call them, or as a
    model with a head would.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    stacks: dict[str, set[int]] = {}
    for name in model.state_dict():
        if found := LAYER.match(name):
            stacks.setdefault(found["stack"], set()).add(int(found["number"]))
    inside, beyond = [], set()
    for name in names:
        found = LAYER.match(name.removeprefix(prefix))
        if not found or found["stack"] not in stacks or COMPUTED.search(name) or CACHE.search(name):
            continue
        if any(re.search(pattern, name) for pattern in ignored):
            continue
        if int(found["number"]) in stacks[found["stack"]]:
            inside.append(name)
        else:
            beyond.add(int(found["number"]))
    problems = []
    if inside:
        problems.append(f"{len(inside)} stored tensors have no place in the model of its config: {_some(inside)}.")
    if beyond:
        layers = max(len(numbers) for numbers in stacks.values())
        problems.append(
            f"the config asks for {layers} layers, and the files hold {len(beyond)} more, which would not be run "
            "(to look at some depths only: method.depths=[…])."
        )
    return problems


def _renamer(model: torch.nn.Module, wanted: Mapping[str, Any]) -> Any:
    """name → (parameter, None), or (parameter, (pattern, all patterns, operations)) where several are joined."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    conversions = get_model_conversion_mapping(model) or []
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    renamings = [c for c in conversions if not isinstance(c, WeightConverter)]
    prefix = str(getattr(model, "base_model_prefix", ""))

    def rename(name: str) -> tuple[str, tuple[str, list[str], list[str]] | None]:
        target, pattern = rename_source_key(name, renamings, converters, prefix, wanted)
        if pattern is None:
            return target, None
        used = next(c for c in converters if pattern in c.source_patterns)
        steps = [f"{type(step).__name__} {getattr(step, 'dim', '')}".strip() for step in used.operations]
        return target, (pattern, list(used.source_patterns), steps)

    return rename


def _natural(name: str) -> list[Any]:
    """Sorts 'experts.10' after 'experts.9'."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
