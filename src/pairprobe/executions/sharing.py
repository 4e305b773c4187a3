"""Texts that begin alike: what a product gives for equal rows is computed once.

Texts made from a template share their beginnings, and in a causal model a token's state follows from what is before
it. Whether a model is causal is not asked: a row is shared only where it equals, bit for bit, the row it would be
shared with, so that no state can change by it in any architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
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

    def shared(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(places to compute, for each place the index of its row among them), for inputs [batch × tokens, in].

        A row is shared only where it equals its beginning's first row bit for bit: threads may round single rows in
        another way, and those are computed by themselves. None where most differ: then nothing is to be gained.
        """
        import torch

        own = self.again[unlike(flat, self.again, self.alike)]
        if not len(own):
            return self.first, self.back
        if 2 * len(own) > len(self.again):
            return None
        back = self.back.clone()
        back[own] = len(self.first) + torch.arange(len(own), device=own.device)
        return torch.cat([self.first, own]), back


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


def rows(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_], device: str) -> Rows | None:
    """Of a right-padded batch, ids and mask [batch, tokens]; None where computing all places costs hardly more."""
    import torch

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
    arrays = (places, apart, first, back, places[more], lead[more])
    return Rows(*(torch.from_numpy(a).to(device) for a in arrays))
