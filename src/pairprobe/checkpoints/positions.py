"""How many tokens a text may have: the places of a model's position table, and of rotary positions that follow from
the longest text of a batch, as many as follow from nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pairprobe.rooms import LENGTHS_MATTER

#: Kinds of model that number positions from pad_token_id + 1, so that the table's first rows serve no text.
SHIFTED = ("roberta", "camembert", "mpnet", "longformer", "data2vec-text", "esm")


def table(text_config: Mapping[str, Any]) -> int | None:
    """Tokens a text may have by the length of the position table; None where the config names none."""
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = text_config.get(key)
        if isinstance(value, int) and value > 0:
            if not any(kind in str(text_config.get("model_type")) for kind in SHIFTED):
                return value
            pad = text_config.get("pad_token_id")
            return value - (1 if pad is None else int(pad)) - 1
    return None


def alone(config: Any) -> tuple[int, str] | None:
    """(tokens up to which a text's rotary positions are its own, kind of these positions), None where all are.

    Up to `original_max_position_embeddings`, longrope turns by its short factors, beyond it by the long ones, all texts
    of a batch alike; dynamic recomputes its base beyond `max_position_embeddings`, and keeps it for later batches.

    Args:
        config: transformers' own, with its defaults and what it makes of older keys; it is changed.
    """
    text = config.get_text_config()
    found = []
    if not getattr(text, "rope_parameters", None):
        return None
    text.standardize_rope_params()  # as its model will, which alone heeds an outer original_max_position_embeddings
    for rope in _kinds(text.rope_parameters):
        kind = next((k for k in LENGTHS_MATTER if k in str(rope.get("rope_type"))), None)
        if kind is not None:
            own = rope.get("original_max_position_embeddings") if kind == "longrope" else None
            found.append((own or text.max_position_embeddings, kind))
    return min(found, default=None)


def _kinds(rope: Any) -> Iterator[Mapping[str, Any]]:
    """The rotary settings of all layers, or of each kind of layer."""
    if isinstance(rope, Mapping):
        yield rope
        for of in rope.values():
            yield from _kinds(of)
