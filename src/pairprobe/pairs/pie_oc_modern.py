"""Modern words for the published pairs, the control which that experiment proposed: wheel / 轮, cow / 牛, …

English and Mandarin words of the same ten meanings, and the same four exchanged partners. No pair is related: English
and Chinese words of one meaning are translations. So Δ here says how far a model brings translations together. Where it
is as large as for the reconstructions, theirs needs no common ancestor; it says nothing about ancestry itself. As in
pie_oc, every word of the four controls also stands in a cognate pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pairprobe.pairs.table import Table
from pairprobe.records import PairSet

FILE = Path(__file__).with_name("pie_oc_modern.csv")
LABEL = "translation, not ancestry: the group 'cognate' holds English and Mandarin words of one meaning, none related"


@dataclass(frozen=True)
class PieOcModern:
    """The 10 + 4 pairs in modern words; see the module for what they measure."""

    name: str = "pie_oc_modern"
    citation: str = "Modern English and Mandarin words for the 14 pairs of the published 70B-model cognate experiment"

    def read(self) -> PairSet:
        pairs = Table(path=str(FILE), name=self.name, citation=self.citation).read()
        return replace(pairs, about={"measures": LABEL})
