"""All that one run found, room by room: what is shown, drawn and recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pairprobe.evidence import (
    AdjustedDelta,
    FormBaseline,
    Geometry,
    Multiverse,
    PartnerTest,
    ScoreCheck,
    TokenXRay,
)
from pairprobe.outcomes import GroupTest, Verdict
from pairprobe.records import PairSet, PartnerMatrix, Similarities, Texts, Tokens, Usage, Vectors


@dataclass(frozen=True)
class Evidence:
    """What stands beside the group tests. partners: by similarity. What a run could not measure is empty or None."""

    partners: dict[str, PartnerTest] = field(default_factory=dict)
    adjusted: tuple[AdjustedDelta, ...] = ()
    form: tuple[FormBaseline, ...] = ()
    scores: tuple[ScoreCheck, ...] = ()
    geometry: Geometry | None = None
    xray: TokenXRay | None = None
    multiverse: Multiverse | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """All that one run found. The first five are None where no model was used.

    tests: by (similarity, control group). matrix: of the partner question, where it is small.
    """

    texts: Texts | None
    tokens: Tokens | None
    findings: Any | None
    vectors: Vectors | None
    usage: Usage | None
    pairs: PairSet
    similarities: dict[str, Similarities]
    tests: dict[tuple[str, str], GroupTest]
    verdict: Verdict
    evidence: Evidence = field(default_factory=Evidence)
    matrix: PartnerMatrix | None = None

    @property
    def primary(self) -> GroupTest:
        return self.tests[self.verdict.similarity, self.verdict.control]
