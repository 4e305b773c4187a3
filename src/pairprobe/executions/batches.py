"""Texts → padded batches of token ids, and the model's own view of what runs text and what its layers are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pairprobe.errors import CheckpointError
from pairprobe.records import IntArray, Tokens

if TYPE_CHECKING:
    import torch


def text_stack(model: torch.nn.Module) -> tuple[Any, torch.nn.ModuleList]:
    """The module that runs text, and its list of layers.

    Raises:
        CheckpointError: the model is not embeddings → one list of layers → norm.
    """
    import torch

    stack: Any = getattr(model, "language_model", model)
    count = stack.config.get_text_config().num_hidden_layers
    lists = [m for m in stack.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if not lists:
        raise CheckpointError(
            f"{type(model).__name__}: no list of {count} layers found in it; its states cannot be observed."
        )
    return stack, lists[0]


def batches(
    lengths: npt.NDArray[Any], batch_tokens: int, parts: IntArray | None = None
) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of texts, longest first, so that each batch padded to its longest stays within `batch_tokens`.

    Longest first: memory that does not suffice shows at once. A text longer than the limit runs alone. parts: texts
    of different ones never meet in a batch, whose shape moves the last digits; each is divided as if it were alone.
    """
    longest_first = np.argsort(-lengths, kind="stable")
    for part in [None] if parts is None else np.unique(parts):
        order = longest_first if parts is None else longest_first[parts[longest_first] == part]
        start = 0
        while start < len(order):
            size = max(1, batch_tokens // int(lengths[order[start]]))
            yield order[start : start + size]
            start += size


def joined(
    groups: Iterable[npt.NDArray[np.int64]], lengths: npt.NDArray[Any], batch_tokens: int
) -> Iterator[tuple[npt.NDArray[np.int64], ...]]:
    """Batches of as many groups of texts as fit into one, padded to the longest of all, in their order."""
    held: list[npt.NDArray[np.int64]] = []
    texts = longest = 0
    for group in groups:
        texts, longest = texts + len(group), max(longest, int(lengths[group].max()))
        if held and texts * longest > batch_tokens:
            yield tuple(held)
            held, texts, longest = [], len(group), int(lengths[group].max())
        held.append(group)
    if held:
        yield tuple(held)


def right_padded(tokens: Tokens, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """ids int64 [batch, longest] and mask bool of the same shape, True at real tokens.

    Padding repeats the text's first token: its row of the embedding is needed anyway, while a pad token's may
    never have been trained, and what is masked is still multiplied by zero, which NaN survives.
    """
    longest = max(len(tokens.of[r]) for r in rows)
    ids = np.empty((len(rows), longest), dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        n = len(tokens.of[row])
        ids[i] = tokens.of[row].ids[0]
        ids[i, :n] = tokens.of[row].ids
        mask[i, :n] = True
    return ids, mask
