"""The published experiment's own pairs: Proto-Indo-European against Old Chinese, 10 cognates and 4 controls.

All eight words of the four controls also occur in the cognate pairs, so the similarities are not independent;
every run on this set says so. The forms are kept in the NFC of their source.

pie_oc_reference.csv: 74 further words of either language, 40 and 34, in no pair and of none of the pairs' meanings, for
similarities that need a vocabulary. The Old Chinese forms stand so in the data of Sagart et al. (2019), which follows
Baxter & Sagart (2014, Old Chinese: A New Reconstruction), and are glossed by the character, as the pairs are. The
Proto-Indo-European ones are as handbooks spell such words, but were not checked one by one against a source: good
enough to say what vectors of such spellings are like, and no authority on any form. The pairs' own Old Chinese is of
another school (vowel length, no uvulars).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pairprobe.pairs.reference import read_reference
from pairprobe.pairs.table import Table
from pairprobe.records import PairSet

FILE = Path(__file__).with_name("pie_oc.csv")
REFERENCE = Path(__file__).with_name("pie_oc_reference.csv")


@dataclass(frozen=True)
class PieOc:
    """The 10 + 4 pairs as published; see the module for what is wrong with them. reference: whether the 74 further
    words are read too."""

    name: str = "pie_oc"
    citation: str = "The 14 Proto-Indo-European / Old Chinese pairs of the published 70B-model cognate experiment"
    reference: bool = True

    def read(self) -> PairSet:
        pairs = Table(path=str(FILE), name=self.name, citation=self.citation).read().pairs
        words = read_reference(str(REFERENCE), pairs) if self.reference else ()
        about = {"reference": f"{len(words)} words of pie_oc_reference.csv, in no pair"} if words else {}
        return PairSet(self.name, pairs, str(FILE), self.citation, about, reference=words)
