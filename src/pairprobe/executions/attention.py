"""Attention whose last bits do not depend on what else is in the batch.

How long a batch is padded changes the order in which attention adds up, and with it the last bit of a state. Where
inputs of products are then rounded to eight bits, that bit can move a state by a whole step, and so on through all
layers. So each text attends over a number of places that follows from its own length alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from pairprobe.executions.products import Workshop

#: Texts attend over the next multiple of so many places: short ones, which begin alike, over as many.
PLACES = 32
#: Bytes of queries that are computed at once.
COPIED_CPU, COPIED_GPU = 2 * 2**20, 64 * 2**20


@contextmanager
def by_length(workshop: Workshop) -> Iterator[None]:
    """Within, torch's scaled_dot_product_attention of the workshop's batch is computed in this way.

    transformers looks it up in its module for each call, in every architecture; other shapes than the batch's, as of
    crossed or cached attention, are left alone. Attention that is written out (eager) knows nothing of it.
    """
    from torch.nn import functional

    own = functional.scaled_dot_product_attention

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> torch.Tensor:
        pack = workshop.pack
        shape = workshop.shape if pack is None else (1, len(pack.taken.places))
        known = query.ndim == 4 and all((len(x), x.shape[2]) == shape for x in (query, key, value))
        if not known or dropout_p or (attn_mask is not None and attn_mask.ndim != 4):
            return own(query, key, value, attn_mask, dropout_p, is_causal, **more)

        def part(x: torch.Tensor, rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            return x.index_select(0, rows).index_select(2, at) if pack is None else pack.heads(x, rows, at)

        found = _attend(own, workshop, part, (query, key, value), attn_mask, is_causal, more)
        return found if pack is None else pack.results(found)

    functional.scaled_dot_product_attention = attend  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own


def _attend(
    own: Any,
    workshop: Workshop,
    part: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    of: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    mask: torch.Tensor | None,
    causal: bool,
    more: dict[str, Any],
) -> torch.Tensor:
    """[texts, heads, tokens, width], as `own` would give. of: query, key, value. part: of one of these, [texts, heads,
    places, width], of some texts these places. Texts of as many places are computed together, but not more than keeps
    what is copied small: it stays in the processor's caches, and takes little memory."""
    import torch

    lengths, (texts, tokens), like = workshop.lengths, workshop.shape, of[0]
    out = like.new_zeros(texts, tokens, like.shape[1], of[2].shape[3])
    places = [-(-n // PLACES) * PLACES for n in lengths]
    most = COPIED_CPU if like.device.type == "cpu" else COPIED_GPU
    for size in sorted(set(places)):
        alike = [i for i, n in enumerate(places) if n == size]
        held = min(size, tokens)
        at = torch.arange(size, device=like.device).clamp_(max=tokens - 1)  # the last one again: nothing looks there
        several = max(1, most // (like.shape[1] * size * like.shape[3] * like.itemsize))
        for start in range(0, len(alike), several):
            some = alike[start : start + several]
            rows = torch.tensor(some, device=like.device)
            q, k, v = (part(x, rows, at) for x in of)
            seen = _mask(mask, rows, held, size, [lengths[i] for i in some], causal, q)
            out[rows, :held] = own(q, k, v, attn_mask=seen, **more)[:, :, :held].transpose(1, 2)
    return out.transpose(1, 2)


def _mask(
    mask: torch.Tensor | None,
    rows: torch.Tensor,
    held: int,
    size: int,
    lengths: list[int],
    causal: bool,
    like: torch.Tensor,
) -> torch.Tensor:
    """What each place of these texts may look at, [texts, 1 or heads, size, size]: always a mask, and of one kind.

    As the model's says, or its absence; never places without a token. Places without a token look at the first.
    """
    import torch

    at = torch.arange(size, device=like.device)
    real = at < torch.tensor(lengths, device=like.device)[:, None]  # [texts, size]
    allowed = real[:, None, None, :] & torch.ones(size, 1, dtype=torch.bool, device=like.device)
    if mask is None and causal:
        allowed = allowed & (at[None, :] <= at[:, None])
    found = like.new_zeros(allowed.shape)
    if mask is not None:
        given = mask.index_select(0, rows) if len(mask) > 1 else mask
        given = given[..., :held].expand(len(rows), -1, held if given.shape[2] == 1 else -1, held)[:, :, :held]
        if given.dtype == torch.bool:
            given = like.new_zeros(given.shape).masked_fill_(~given, -torch.inf)
        found = like.new_zeros(len(rows), given.shape[1], size, size)
        found[:, :, :held, :held] = given
    found = found.masked_fill(~allowed, -torch.inf)
    found[:, :, :, 0] = torch.where(real[:, None, :], found[:, :, :, 0], 0.0)
    return found
