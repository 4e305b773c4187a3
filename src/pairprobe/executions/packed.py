"""A layer run on the rows that are computed, without padding and with shared beginnings once, instead of on a batch.

Everything in a transformer's layer but attention treats each row by itself, so that a batch [texts, tokens] may pass
through it as one text of all rows. Only attention needs to know which text a row belongs to: it is given the batch, as
it would have been, and its result is packed again (`attention`). Which architectures do nothing else with neighbouring
tokens is known of those listed here, whose states are compared with transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from pairprobe.executions.products import Workshop
    from pairprobe.executions.sequence import Call
    from pairprobe.executions.sharing import Groups, Rows, Taken

#: Packages of transformers.models whose layers mix tokens in scaled_dot_product_attention and nowhere else.
KNOWN = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma3", "phi3", "gpt2", "gpt_neox",
    "olmo2", "stablelm", "bert", "roberta", "xlm_roberta",
)  # fmt: skip


def known(layers: Iterable[torch.nn.Module], config: Any) -> bool:
    """Whether these layers may be run on packed rows: by their classes, since a checkpoint's own code may say it is of
    any type, and by what the config of transformers' own may change in them."""
    if config._attn_implementation != "sdpa" or getattr(config, "chunk_size_feed_forward", 0) > 1:
        return False
    allowed = {f"transformers.models.{name}.modeling_{name}" for name in KNOWN}
    return all(type(layer).__module__ in allowed for layer in layers) and all(
        type(module).__module__.partition(".")[0] in ("torch", "transformers")
        for layer in layers
        for module in layer.modules()
    )


class Unlike(Exception):
    """Attention gave rows that were to be one another's another result. groups: numbers of those it happened in."""

    def __init__(self, groups: frozenset[int]) -> None:
        super().__init__(groups)
        self.groups = groups


@dataclass(eq=False)
class Pack:
    """Rows of a batch one after another. taken: which. checked: whose places are shared, None where none are. shape:
    (texts, tokens). attended: how often attention has been computed on them."""

    taken: Taken
    shape: tuple[int, ...]
    checked: Rows | Groups | None = None
    attended: int = 0

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """[1 or texts, tokens, …] → [1, n, …]"""
        whole = x.expand(self.shape[0], *x.shape[1:]).flatten(0, 1)
        return whole.index_select(0, self.taken.places)[None]

    def batch(self, x: torch.Tensor) -> torch.Tensor:
        """[1, n, …] → [texts, tokens, …]; places without a token hold some row."""
        return x[0].index_select(0, self.taken.back).view(*self.shape, *x.shape[2:])

    def heads(self, x: torch.Tensor, texts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """[1, heads, n, width] → [texts, heads, places, width], what is at these places of these texts."""
        rows = self.taken.back.view(self.shape).index_select(0, texts).index_select(1, places)
        found = x[0].transpose(0, 1).index_select(0, rows.flatten())
        return found.view(*rows.shape, *found.shape[1:]).transpose(1, 2)

    def results(self, x: torch.Tensor) -> torch.Tensor:
        """[texts, heads, tokens, width] → [1, heads, n, width]. Raises Unlike."""
        self.attended += 1
        flat = x.transpose(1, 2).flatten(0, 1)  # [texts × tokens, heads, width]
        if self.checked is not None:
            apart = self.checked.apart_in(flat, self.taken.back)
            if apart:
                raise Unlike(apart)
        return flat.index_select(0, self.taken.places).transpose(0, 1)[None]


def run(call: Call, layer: torch.nn.Module, states: torch.Tensor, workshop: Workshop, causal: bool) -> torch.Tensor:
    """What `layer` makes of the workshop's batch, [texts, tokens, width] → the same shape.

    Rows are shared where they are equal, bit for bit, before the layer and after attention; in a group where they are
    not each token has its own. causal: what the model says of itself.
    """
    rows = workshop.rows
    if rows is None:
        return call(layer, states)
    flat, shape = states.flatten(0, 1), workshop.shape
    apart: frozenset[int] = frozenset()
    several = len(rows.again) > 0 and looks_back(call, shape[1], causal)
    while True:
        shared = rows.shared(flat, apart) if several else None
        pack = Pack(rows.each, shape) if shared is None else Pack(shared, shape, checked=rows)
        try:
            with workshop.packing(pack), group_by_group(layer, pack.taken.sizes):
                found = packed(call, pack)(layer, pack.rows(states))
        except Unlike as unlike:
            apart |= unlike.groups  # which will not be among them again
            continue
        # without: its attention is computed in some other way
        return pack.batch(found) if pack.attended else call(layer, states)


def packed(call: Call, pack: Pack) -> Call:
    """With what the layer is called for these rows: whatever is there for each token is packed as they are."""

    def of(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(of(v) for v in value)
        there = getattr(value, "ndim", 0) in (2, 3) and value.shape[1] == pack.shape[1]
        return pack.rows(value) if there and value.shape[0] in (1, pack.shape[0]) else value

    return replace(call, args=tuple(of(v) for v in call.args), kwargs={k: of(v) for k, v in call.kwargs.items()})


@contextmanager
def group_by_group(layer: torch.nn.Module, sizes: tuple[int, ...]) -> Iterator[None]:
    """Within, activations in `layer` are computed for each group's rows by themselves. Threads divide elementwise work
    at places that follow from how much there is, and there an exponential may come out in another last bit. sizes: rows
    of each group."""
    import torch

    alone = [] if len(sizes) < 2 else [m for m in layer.modules() if _computes_alone(m)]

    def divided(whole: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 3 or x.shape[:2] != (1, sum(sizes)):
            return whole(x)
        out = torch.empty_like(x)
        for into, of in zip(torch.split(out, list(sizes), 1), torch.split(x, list(sizes), 1), strict=True):
            into.copy_(whole(of))
        return out

    try:
        for module in alone:
            module.forward = partial(divided, module.forward)
        yield
    finally:
        for module in alone:
            del module.forward


def _computes_alone(module: torch.nn.Module) -> bool:
    """Whether it is made of no other modules and of no weights, as activations are; nothing stands in for it yet."""
    of_others = any(True for _ in (*module.children(), *module.parameters(), *module.buffers()))
    return not of_others and "forward" not in vars(module)


def looks_back(call: Call, tokens: int, default: bool) -> bool:
    """Whether the layer's mask lets no token look ahead; without a mask, what the model says of itself."""
    import torch

    for value in (*call.args, *call.kwargs.values()):
        if isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[3] == tokens:
            if value.shape[2] != tokens:
                return False
            ahead = torch.ones(tokens, tokens, dtype=torch.bool, device=value.device).triu(1)
            seen = value if value.dtype == torch.bool else value > torch.finfo(value.dtype).min / 2
            return not bool((seen & ahead).any())
    return default
