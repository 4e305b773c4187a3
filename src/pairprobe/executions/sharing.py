"""Texts that begin alike: what a product gives for equal rows is computed once.

Texts made from a template share their beginnings, and in a causal model a token's state follows from what is before
it. Whether a model is causal is not asked: a row is shared only where it equals, bit for bit, the row it would be
shared with, so that no state can change by it in any architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

#: Share of a batch's places that must be spared for gathering to be worth it.
WORTH = 0.03
#: Products of a pass most of whose rows turn out to differ, until no more are looked at.
PATIENCE = 4
#: Bytes of rows that are compared at once.
COMPARED_CPU, COMPARED_GPU = 2**20, 256 * 2**20


@dataclass(frozen=True, eq=False)
class Taken:
    """Rows of a flattened batch [batch × tokens] as they go through a product.

    places: int [n], where each is. back: int [batch × tokens], for each place the row that stands for it. sizes: rows
    of each group, one group after another; n in all.
    """

    places: torch.Tensor
    back: torch.Tensor
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """Which rows of a flattened batch [batch × tokens] are computed.

    real: int [n], places of real tokens. apart: int [batch × tokens], for each place its index among `real`. first:
    int [k], the place where each distinct beginning is met first. back: int [batch × tokens], for each place the
    index into `first` of its beginning. again: int [n − k], places of the other real tokens, and alike: int [n − k],
    the place that each would be computed at. Padding's indices are 0: nothing looks at what stands there.
    """

    real: torch.Tensor
    apart: torch.Tensor
    first: torch.Tensor
    back: torch.Tensor
    again: torch.Tensor
    alike: torch.Tensor

    @property
    def each(self) -> Taken:
        """Every real token by itself."""
        return Taken(self.real, self.apart, (len(self.real),))

    def shared(self, flat: torch.Tensor, apart: frozenset[int] = frozenset()) -> Taken | None:
        """What serves for all of these inputs [batch × tokens, in].

        A row is shared only where it equals its beginning's first row bit for bit: threads may round single rows in
        another way, and those are computed by themselves. None where most differ: then nothing is to be gained; and
        where `apart` says that nothing is to be shared, see `Groups`.
        """
        import torch

        if apart:
            return None
        own = self.again[unlike(flat, self.again, self.alike)]
        if not len(own):
            return Taken(self.first, self.back, (len(self.first),))
        if 2 * len(own) > len(self.again):
            return None
        back = self.back.clone()
        back[own] = len(self.first) + torch.arange(len(own), device=own.device)
        return Taken(torch.cat([self.first, own]), back, (len(self.first) + len(own),))

    def apart_in(self, flat: torch.Tensor, back: torch.Tensor) -> frozenset[int]:
        """{0} where rows of `flat` that share one by `back` differ by a bit, else {}; see `Groups.apart_in`."""
        shared = back.index_select(0, self.again) == back.index_select(0, self.alike)
        return frozenset([0] if bool((unlike(flat, self.again, self.alike) & shared).any()) else [])


@dataclass(frozen=True, eq=False)
class Groups:
    """The rows of several groups of texts in one batch, each chosen as if its group were alone.

    of: each group's, as places of the whole batch; back and apart for the places of its own texts.
    """

    of: tuple[Rows, ...]

    @property
    def again(self) -> torch.Tensor:
        """Of all groups, see `Rows`."""
        import torch

        return torch.cat([rows.again for rows in self.of])

    @property
    def each(self) -> Taken:
        """Every real token by itself."""
        return _one_after_another([rows.each for rows in self.of])

    def apart_in(self, flat: torch.Tensor, back: torch.Tensor) -> frozenset[int]:
        """Numbers of the groups in which rows of `flat` [batch × tokens, …] that share one by `back`, int [batch ×
        tokens], differ by a bit."""
        return frozenset(n for n, rows in enumerate(self.of) if rows.apart_in(flat, back))

    def shared(self, flat: torch.Tensor, apart: frozenset[int] = frozenset()) -> Taken | None:
        """What serves for all, where it does in one group at least; see `Rows.shared`. apart: groups that share
        nothing."""
        found = [None if n in apart else rows.shared(flat) for n, rows in enumerate(self.of)]
        if all(taken is None for taken in found):
            return None
        return _one_after_another([taken or rows.each for taken, rows in zip(found, self.of, strict=True)])


def _one_after_another(of: Sequence[Taken]) -> Taken:
    import torch

    sizes = [len(taken.places) for taken in of]
    starts = np.cumsum(sizes) - sizes
    back = [taken.back + int(start) for taken, start in zip(of, starts, strict=True)]
    return Taken(torch.cat([taken.places for taken in of]), torch.cat(back), tuple(sizes))


def unlike(flat: torch.Tensor, some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """bool [n]: which of the rows `some` of `flat` differ from the rows `others`, by a bit at least. A part of them at
    once: what is gathered takes little memory, and stays in the processor's caches."""
    import torch

    several = max(1, (COMPARED_CPU if flat.device.type == "cpu" else COMPARED_GPU) // max(1, flat[:1].nbytes))
    found = torch.zeros(len(some), dtype=torch.bool, device=flat.device)
    for start in range(0, len(some), several):
        part = slice(start, start + several)
        a, b = flat.index_select(0, some[part]), flat.index_select(0, others[part])
        if not torch.equal(a, b):  # a tenth of the time of the next line, and the rule
            found[part] = (a != b).flatten(1).any(dim=1)
    return found


def rows(
    ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_], device: str, sizes: Sequence[int] = ()
) -> Rows | Groups | None:
    """Of a right-padded batch, ids and mask [batch, tokens]; None where computing all places costs hardly more.

    sizes: texts of each group, one group after another; none: all are one.
    """
    import torch

    def there(of: Sequence[npt.NDArray[np.int64]]) -> Rows:
        return Rows(*(torch.from_numpy(a).to(device) for a in of))

    if len(sizes) < 2:
        found = _rows(ids, mask)
        return None if found is None else there(found)
    tokens, groups = ids.shape[1], []
    for start, stop in pairwise(np.cumsum([0, *sizes]).tolist()):
        longest = int(mask[start:stop].sum(axis=1).max())
        own = ids[start:stop, :longest]
        found = _rows(own, mask[start:stop, :longest]) or _all_of(own)
        wide = np.arange((stop - start) * tokens).reshape(-1, tokens)[:, :longest].flatten()  # own place → the batch's
        real, apart, first, back, again, alike = found
        places = [wide[at] + start * tokens for at in (real, first, again, alike)]
        stands = np.zeros((2, (stop - start) * tokens), dtype=np.int64)
        stands[0, wide], stands[1, wide] = apart, back
        groups.append(there((places[0], stands[0], places[1], stands[1], places[2], places[3])))
    return Groups(tuple(groups))


def _all_of(ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
    """Every place by itself, in the order of `Rows`."""
    every, none = np.arange(ids.size), np.empty(0, dtype=np.int64)
    return every, every, every, every, none, none


def _rows(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], ...] | None:
    """In the order of `Rows`; None where nothing is worth being spared."""
    met: dict[tuple[int, int], int] = {}  # (place before, token) → place where this beginning is met first
    real: list[int] = []
    leads: list[int] = []  # of each real token
    tokens = ids.shape[1]
    for text in range(len(ids)):
        before = -1
        for place in range(text * tokens, text * tokens + int(mask[text].sum())):
            before = met.setdefault((before, int(ids[text, place - text * tokens])), place)
            real.append(place)
            leads.append(before)
    if len(met) > (1 - WORTH) * ids.size:
        return None
    first = np.array(sorted(met.values()), dtype=np.int64)
    places, lead = np.array(real, dtype=np.int64), np.array(leads, dtype=np.int64)
    apart, back = np.zeros((2, ids.size), dtype=np.int64)
    apart[places], back[places] = np.arange(len(places)), np.searchsorted(first, lead)
    more = places != lead
    return places, apart, first, back, places[more], lead[more]
