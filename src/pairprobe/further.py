"""The further questions of a run, asked once Δ is tested.

Partners, confounds, spelling alone, people's scores; what the space of vectors is like, and what the model was given
for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pairprobe import covariates, matrices
from pairprobe.geometry import flagged, geometry
from pairprobe.outcomes import GroupTest, Verdict
from pairprobe.records import PairSet, PartnerMatrix, Similarities, Texts, Tokens, Vectors
from pairprobe.result import Evidence
from pairprobe.statistics.confounds import adjusted, form_baselines
from pairprobe.statistics.scores import score_checks
from pairprobe.xray import xray


def questions(
    statistics: Any,
    method: Any,
    kinds: Sequence[Any],
    pairs: PairSet,
    texts: Texts | None,
    tokens: Tokens | None,
    vectors: Vectors | None,
    similarities: Sequence[Similarities],
    said: Verdict,
) -> tuple[Evidence, PartnerMatrix | None]:
    """Evidence beside the group tests, and the matrix of partners where it is small.

    kinds: the similarities that can be asked for any two texts; similarities: what they gave for the pairs. said: names
    the primary outcome.
    """
    partners, matrix = matrices.partners(statistics, kinds, vectors, texts, pairs)
    differ = covariates.of_pairs(pairs, tokens)
    first = next(s for s in similarities if s.name == said.similarity)
    evidence = Evidence(
        partners=partners,
        adjusted=adjusted(statistics, similarities, pairs, differ, said.depth),
        form=form_baselines(statistics, first, pairs, differ, said.depth),
        scores=score_checks(statistics, similarities, pairs),
    )
    if vectors is None or texts is None or tokens is None:
        return evidence, matrix

    def compare(one: Similarities, some: PairSet) -> dict[str, GroupTest]:
        return {control: test for (_, control), test in statistics.tests([one], some).items()}

    flags, pooled = flagged(vectors), [method.weights(t) > 0 for t in tokens.of]
    return replace(
        evidence,
        geometry=geometry(vectors, texts, statistics.seed, pooled, flags),
        xray=xray(tokens, vectors, pairs, first, said.control, said.depth, compare, flags),
    ), matrix
