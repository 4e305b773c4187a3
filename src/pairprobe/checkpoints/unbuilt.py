"""Why transformers cannot build a model from its config, or would build one of no use, in words: the key and the value,
and what to do about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pairprobe.checkpoints.headers import as_json
from pairprobe.errors import CheckpointError

CORRECT = "Correct the value in config.json, or get config.json again from where the weights came from."
NEWER = "A newer transformers may know it."
#: Keys of the base of rotary frequencies, in any part of a config.
BASES = (
    "rope_theta", "rotary_emb_base", "rotary_embedding_base", "rope_local_base_freq", "local_rope_theta",
    "global_rope_theta", "swa_rope_theta", "compress_rope_theta",
)  # fmt: skip
#: What scales them, and keys of it that are numbers above 0, or lists of such.
SCALINGS = ("rope_scaling", "rope_parameters")
SCALES = (
    "factor", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor", "attention_factor",
    "original_max_position_embeddings",
)  # fmt: skip
#: Keys of how many modules a model has of a kind, in any part of a config, and up to how many are built without asking.
COUNTS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_encoder_layers",
    "num_decoder_layers", "num_experts", "num_local_experts", "n_routed_experts", "n_shared_experts",
    "moe_num_experts", "num_hidden_groups", "inner_group_num", "num_nextn_predict_layers",
)  # fmt: skip
MANY = 1000
#: Numbers that one buffer may hold which transformers makes in memory: position ids, sinusoids, tables of angles.
BUFFER = 2**28
OWN_CODE = " If it needs its own Python code and you trust that: model.trust_remote_code=true"


def check(config: Mapping[str, Any], text_config: Mapping[str, Any], of: str, file: str = "config.json") -> None:
    """Refuse a type that is none, and rotary frequencies that would make every state NaN, for which weights seem to be
    to blame. text_config: the part that describes the language model. of, file: what errors call the checkpoint and
    where the config lies.

    Raises:
        CheckpointError: with the key, its value and what is allowed.
    """
    step = _step(file)
    kind = config.get("model_type")
    if not (isinstance(kind, str) and kind) and not (kind is None and config.get("auto_map")):
        value = "null or missing" if kind is None else as_json(kind)
        raise CheckpointError(
            f'{of}: model_type of {file} is {value}; allowed: the name of an architecture, as "llama".', step
        )
    for key, value in _values(text_config):
        within, last = key.split(".")[:-1], key.split(".")[-1]
        if not (last in BASES or (last in SCALES and any(part in SCALINGS for part in within))):
            continue
        several = isinstance(value, list)
        for one in value if several else () if value is None else (value,):
            if type(one) not in (int, float) or not 0 < one < math.inf:
                raise CheckpointError(
                    f"{of}: {key} of {file} {'holds' if several else 'is'} {as_json(one)}; allowed: a number above 0.",
                    step,
                )


def counted(config: Mapping[str, Any], stored: int, of: str, file: str = "config.json") -> None:
    """Refuse more layers or experts than there are tensors to fill them: building them takes memory all the same.

    stored: tensors of its files. Up to `MANY` are not looked at, since layers may share weights (ALBERT).

    Raises:
        CheckpointError: with the key, its value and how many tensors there are.
    """
    for key, value in _values(config):
        if key.rpartition(".")[2] in COUNTS and isinstance(value, int | float) and value > max(MANY, stored):
            raise CheckpointError(
                f"{of}: {key} of {file} is {as_json(value)}, but its files hold {stored} tensors, less than one for "
                "each.",
                _step(file),
            )


def _step(file: str) -> str:
    """What to do about a value in this file: nobody corrects one within a GGUF file."""
    return CORRECT if file == "config.json" else "Download this file again."


def bounded(func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuse a tensor that torch is about to make in memory for a model without weights, of more than `BUFFER` numbers.

    Raises:
        ValueError: with its shape.
    """
    import torch

    fills = (torch.arange, torch.ones, torch.zeros, torch.full, torch.eye, torch.linspace, torch.rand)
    if func not in fills or "out" in kwargs:
        return
    made = func(*args, **{**kwargs, "device": "meta"})
    if made.numel() > BUFFER:
        raise ValueError(f"it would hold a buffer of {list(made.shape)} numbers in memory; allowed: {BUFFER} numbers")


def elsewhere(config: Mapping[str, Any], of: str) -> None:
    """Refuse a config that makes transformers read another file in its place, whose values nothing here has seen.

    Raises:
        CheckpointError: `configuration_files` names a file that this release of transformers would take.
    """
    if "configuration_files" not in config:
        return
    from transformers.configuration_utils import CONFIG_NAME, get_configuration_file

    named = config["configuration_files"]
    try:
        chosen = get_configuration_file(named)
    except Exception:  # no list of file names, or of versions: transformers would stop there too
        chosen = ""
    if chosen != CONFIG_NAME:
        taken = f": transformers takes {chosen} in its place" if chosen else ", which is no list of such files"
        raise CheckpointError(
            f"{of}: configuration_files of config.json is {as_json(named)}{taken}; the one file that is read is "
            "config.json.",
            "Put the configuration that is meant into config.json, and remove the key.",
        )


def why(
    error: BaseException, config: Mapping[str, Any], of: str, attention: str | None = None, trusted: bool = False
) -> CheckpointError:
    """Ours for an error that transformers raised while it made a model of `config`. of: what it calls the checkpoint.
    trusted: the checkpoint's own Python code was allowed."""
    reason, step = _why(error, config, attention)
    said = f"model_type '{config.get('model_type')}' of config.json: {reason.removesuffix('.')}."
    return CheckpointError(f"{of}: transformers cannot build {said}", step.removesuffix(OWN_CODE) if trusted else step)


def _why(error: BaseException, config: Mapping[str, Any], attention: str | None) -> tuple[str, str]:
    """(what is wrong, what to do)."""
    said = " ".join(str(error).split())[:400] or type(error).__name__
    if attention == "sdpa" and "scaled_dot_product_attention" in said:
        return said, "This architecture does not know it: execution.attention=eager"
    if "does not recognize this architecture" in said:
        return "this release of transformers does not know the type", NEWER + OWN_CODE
    if config.get("auto_map") or not config.get("model_type"):
        return said, NEWER + OWN_CODE
    if (
        isinstance(error, KeyError) and error.args
    ):  # a word that is in none of its tables: an activation, a kind of RoPE
        found = next((key for key, value in _values(config) if value == error.args[0]), None)
        if found is not None:
            return f"{found} is '{error.args[0]}', which it does not know", f"{CORRECT} {NEWER}"
        return f"it lacks {said}", CORRECT
    if isinstance(error, TypeError) and "pow()" in said:  # by far the likeliest: null, or the list of another kind
        bases = ((key, value) for key, value in _values(config) if key.rpartition(".")[2] in BASES)
        found = next((f"{key} is {as_json(value)}" for key, value in bases if type(value) not in (int, float)), None)
        return (f"{found}; allowed: a number above 0" if found else said), CORRECT
    if isinstance(error, ValueError | TypeError) or "alidation" in type(error).__name__:
        return said, CORRECT
    return said, NEWER + OWN_CODE


def _values(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of the config with the keys that lead to it, 'rope_scaling.rope_type'."""
    for key, value in config.items() if isinstance(config, Mapping) else ():
        where = f"{path}.{key}" if path else str(key)
        yield where, value
        yield from _values(value, where)
