"""One layer's worth of memory that every layer takes its turn in: stored tensors in, a layer ready to be run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pairprobe.executions.products import Linear, Matrix, Table, Workshop
from pairprobe.rooms import Fused, Stored, Weight

if TYPE_CHECKING:
    import torch

    from pairprobe.executions.feeder import Arriving


@dataclass(frozen=True)
class Place:
    """Where a weight belongs in a layer. by: linear (product with the stored weight), table (indexed by expert), dense
    (a parameter or buffer made dense before the layer runs)."""

    module: Any
    leaf: str
    name: str  # within the layer
    by: str
    weights: tuple[tuple[Weight, ...], ...]


def places(layer: torch.nn.Module, prefix: str, assigned: Mapping[str, Weight | Fused]) -> list[Place]:
    """Every parameter and stored buffer of `layer`, in the order of its modules, but first what is made dense before
    it runs. prefix: its name in the model."""
    import torch

    found = []
    for path, module in layer.named_modules():
        for leaf in (*module._parameters, *module._buffers):
            name = f"{path}.{leaf}" if path else leaf
            entry = assigned.get(f"{prefix}.{name}")
            if entry is None:  # no parameter, or a buffer that no file stores: it is real already
                continue
            if isinstance(entry, Fused):
                found.append(Place(module, leaf, name, "table", entry.of))
            elif type(module) is torch.nn.Linear and leaf == "weight":
                found.append(Place(module, leaf, name, "linear", ((entry,),)))
            else:
                found.append(Place(module, leaf, name, "dense", ((entry,),)))
    return sorted(found, key=lambda place: place.by != "dense")


class Awaited(Mapping[str, "torch.Tensor"]):
    """Parts of a weight by their roles, each waited for when it is asked for. places: of each role, in the layer.

    kept: names of weights, of which this one's is `name`, that are used again after they were let go of, and are not
    let go of any more; it enters itself.
    """

    def __init__(self, layer: Arriving, places: Mapping[str, int], name: str, kept: set[str]) -> None:
        self._layer, self._places, self._name, self._kept = layer, places, name, kept
        self._gone = False

    def __getitem__(self, role: str) -> torch.Tensor:
        if self._gone:
            self._kept.add(self._name)
        return self._layer[self._places[role]]

    def let_go(self) -> None:
        """It has been used by the last batch."""
        if self._name not in self._kept:
            self._gone = True
            self._layer.let_go(self._places.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def stored(found: Sequence[Place]) -> list[Stored]:
    """The tensors to be read for these places, in a fixed order."""
    return [part for p in found for expert in p.weights for weight in expert for part in weight.parts.values()]


class Slots:
    """Dense parameters of one layer, allocated once and refilled for each."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self._kept: set[str] = set()
        self._dense: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}

    @contextmanager
    def filled(self, found: Sequence[Place], tensors: Arriving) -> Iterator[None]:
        """Within, the layer of these places runs with `tensors` (as `stored` orders them) as its weights."""
        import torch

        places = itertools.count()
        undo: list[tuple[dict[str, Any], str, Any]] = []
        forwards: list[Any] = []
        try:
            for place in found:
                parts = [
                    [Awaited(tensors, dict(zip(w.parts, places, strict=False)), place.name, self._kept) for w in expert]
                    for expert in place.weights
                ]
                if place.by == "linear":
                    product = Linear(place.module, place.weights[0][0], self.workshop)
                    product.parts, product.used = parts[0][0], parts[0][0].let_go
                    place.module.forward = product
                    forwards.append(place.module)
                    self._stand_in(place, Matrix(product), undo)
                    continue
                store = place.module._parameters if place.leaf in place.module._parameters else place.module._buffers
                before = store[place.leaf]
                if place.by == "table":
                    table = Table(place.weights, self.workshop)
                    table.parts = [[*of] for of in parts]
                    self._stand_in(place, table, undo)
                    continue
                value = self._slot(place, before)
                self.workshop.dense(place.weights[0][0], parts[0][0], value)
                parts[0][0].let_go()
                store[place.leaf] = (
                    torch.nn.Parameter(value, requires_grad=False) if isinstance(before, torch.nn.Parameter) else value
                )
                undo.append((store, place.leaf, before))
            yield
        finally:
            for module in forwards:
                del module.forward
            for store, leaf, before in reversed(undo):
                if isinstance(before, tuple):
                    object.__delattr__(before[0], leaf)
                    store[leaf] = before[1]
                else:
                    store[leaf] = before

    def _stand_in(self, place: Place, instead: Any, undo: list[tuple[dict[str, Any], str, Any]]) -> None:
        store = place.module._parameters
        undo.append((store, place.leaf, (place.module, store.pop(place.leaf))))  # nothing but a parameter may be there
        object.__setattr__(place.module, place.leaf, instead)

    def _slot(self, place: Place, like: torch.Tensor) -> torch.Tensor:
        import torch

        key = place.name, tuple(like.shape)
        if key not in self._dense:
            dtype = self.workshop.dtype if like.is_floating_point() else like.dtype
            self._dense[key] = torch.empty(like.shape, dtype=dtype, device=self.workshop.device)
        return self._dense[key]
