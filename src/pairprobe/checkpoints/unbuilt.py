"""Why transformers cannot build a model from its config, in words: the key and the value, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CORRECT = "Correct the value in config.json, or get config.json again from where the weights came from."
NEWER = "A newer transformers may know it."
OWN_CODE = " If it needs its own Python code and you trust that: model.trust_remote_code=true"


def why(error: BaseException, config: Mapping[str, Any], attention: str | None) -> tuple[str, str]:
    """(what is wrong, what to do) for an error that transformers raised while it made a model of `config`."""
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
    if isinstance(error, ValueError | TypeError) or "alidation" in type(error).__name__:
        return said, CORRECT
    return said, NEWER + OWN_CODE


def _values(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of the config with the keys that lead to it, 'rope_scaling.rope_type'."""
    for key, value in config.items() if isinstance(config, Mapping) else ():
        where = f"{path}.{key}" if path else str(key)
        yield where, value
        yield from _values(value, where)
