"""What else could make the difference: Δ with covariates held equal, and what spelling alone can tell.

References: MacKinnon, Nielsen & Webb (2023) for the cluster-robust error by leaving out one cluster at a time (CV3) and
t with clusters less one; DeLong et al. (1988) for the variance of AUCs, Obuchowski (1997) for it in clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pairprobe.evidence import AdjustedDelta, Coefficient, FormBaseline
from pairprobe.outcomes import LEAST_WORTH, Interval
from pairprobe.records import COGNATE, BoolArray, Covariate, IntArray, PairSet, Similarities
from pairprobe.statistics.group_tests import Statistics
from pairprobe.statistics.units import clusters

Array = npt.NDArray[np.float64]
FEW_CLUSTERS = 20  # below, nobody vouches for a cluster-robust error (Cameron & Miller 2015; decision 16)
FEW_OF_GROUP = 5  # clusters that hold pairs of one group; below, its share of the error is not known
PAIRS_PER_TERM = 2  # Austin & Steyerberg (2015): fewer, and least squares adjusts for noise
CHEAP = 2_000_000  # pairs × depths up to which Δ is adjusted at every depth
COLLINEAR = 1e-8  # share of a covariate's spread that the terms before it leave


# ── Δ, adjusted ──────────────────────────────────────────────────────────────────────────────────────────


def adjusted(
    statistics: Statistics,
    similarities: Sequence[Similarities],
    pairs: PairSet,
    covariates: Sequence[Covariate],
    primary: int,
) -> tuple[AdjustedDelta, ...]:
    """Δ with covariates held equal, for every similarity and control: at all depths where that is cheap, else at the
    primary one alone (negative: from the last).

    Least squares of similarity on group and covariates, all in one; Δ is the coefficient of the group. Continuous
    covariates are standardised over the pairs compared, so that their coefficients are per standard deviation.
    """
    found = []
    for control in pairs.controls:
        chosen = pairs.members(COGNATE) | pairs.members(control)
        some = [pair for pair, is_in in zip(pairs.pairs, chosen, strict=True) if is_in]
        model = _Model(pairs.members(COGNATE)[chosen], clusters(some), [_of(c, chosen) for c in covariates])
        for s in similarities:
            at_all = s.values.shape[0] * len(some) <= CHEAP
            depths = range(len(s.depths)) if at_all else [primary if primary < 0 else s.depths.index(primary)]
            for k in depths:
                found.append(model.fit(s.name, control, s.depths[k], s.values[k, chosen], statistics.confidence))
    return tuple(found)


def _of(covariate: Covariate, chosen: BoolArray) -> Covariate:
    return Covariate(covariate.name, covariate.values[chosen], covariate.binary, covariate.missing)


class _Model:
    """The design of one control group's comparison, which serves all similarities and depths."""

    def __init__(self, cognate: BoolArray, cluster: IntArray, covariates: Sequence[Covariate]) -> None:
        self.cognate, self.cluster = cognate, cluster
        self.terms: list[Array] = [np.ones(len(cognate)), cognate.astype(np.float64)]
        self.names: list[str] = []
        self.dropped: dict[str, str] = {}
        for c in covariates:
            why = c.missing or self._why_not(c)
            if why:
                self.dropped[c.name] = why
            else:
                self.names.append(c.name)
                self.terms.append(c.values if c.binary else (c.values - c.values.mean()) / c.values.std())
        self.design: Array = np.stack(self.terms, axis=1)  # [pairs, terms]
        self.clusters = len(np.unique(cluster))
        self.no_estimate, self.no_error = self._limits()
        self.without: Array | None = None  # [clusters, terms, terms]: inverse of the squares without each cluster

    def _why_not(self, covariate: Covariate) -> str:
        """Why a covariate adds nothing to the terms so far, '' where it does."""
        spread = covariate.values - covariate.values.mean()
        total = float(spread @ spread)
        if total <= 1e-20 * max(1.0, float(covariate.values @ covariate.values)):
            return "the same in all pairs"
        left = []
        for terms in (self.terms[:2], self.terms):
            at = np.stack(terms, axis=1)
            rest = spread - at @ np.linalg.lstsq(at, spread, rcond=None)[0]
            left.append(float(rest @ rest))
        if left[0] <= COLLINEAR * total:
            return "tells cognates from controls without fail, so that nothing can hold it equal"
        if left[1] <= COLLINEAR * total:
            return f"follows from the group and {', '.join(self.names)}"
        return ""

    def _limits(self) -> tuple[str, str]:
        n, terms = self.design.shape
        if n < PAIRS_PER_TERM * terms:
            return f"{n} pairs are too few for {terms} terms: at least {PAIRS_PER_TERM * terms} are needed.", ""
        of_group = {
            name: len(np.unique(self.cluster[members]))
            for name, members in (("cognates", self.cognate), ("controls", ~self.cognate))
        }
        if self.clusters < FEW_CLUSTERS:
            formed = f"{self.clusters} cluster{'s' * (self.clusters != 1)}"
            return "", f"the {n} pairs form {formed}; fewer than {FEW_CLUSTERS} give no safe error."
        few = min(of_group, key=lambda name: of_group[name])
        if of_group[few] < FEW_OF_GROUP:
            return "", (
                f"the {few} lie in {of_group[few]} cluster{'s' * (of_group[few] != 1)}; of fewer than "
                f"{FEW_OF_GROUP} their spread is not known."
            )
        return "", ""

    def fit(self, similarity: str, control: str, depth: int, values: Array, confidence: float) -> AdjustedDelta:
        raw = float(values[self.cognate].mean() - values[~self.cognate].mean())

        found = AdjustedDelta(
            similarity, control, depth, len(values), self.clusters, raw, None, None, None, dropped=self.dropped
        )
        if self.no_estimate:
            return replace(found, why_not=self.no_estimate)
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return replace(found, why_not=f"all {similarity} similarities are equal.")
        from scipy import stats
        from statsmodels.regression.linear_model import OLS

        plain = OLS(values, self.design).fit()
        estimates = np.asarray(plain.params, dtype=np.float64)
        why = self.no_error
        if np.sqrt(plain.ssr) <= 1e-10 * np.sqrt(np.sum((values - values.mean()) ** 2)):
            why = "the covariates leave nothing unexplained."
        if why:
            terms = tuple(Coefficient(n, float(e), None, None) for n, e in zip(self.names, estimates[2:], strict=True))
            return replace(found, adjusted=float(estimates[1]), coefficients=terms, why_not=why)
        errors = self._errors(values, estimates)
        reach = _t(confidence, self.clusters - 1) * errors
        ends = [Interval(float(e - r), float(e + r)) for e, r in zip(estimates, reach, strict=True)]
        p = 2 * stats.t.sf(np.abs(estimates / errors), self.clusters - 1)
        terms = tuple(
            Coefficient(name, float(estimates[i]), ends[i], float(p[i])) for i, name in enumerate(self.names, start=2)
        )
        return replace(found, adjusted=float(estimates[1]), ci=ends[1], p=float(p[1]), coefficients=terms)

    def _errors(self, values: Array, estimates: Array) -> Array:
        """float64 [terms]: standard errors by leaving out each cluster in turn, without fitting anew (CV3)."""
        _, place = np.unique(self.cluster, return_inverse=True)
        g, k = self.clusters, self.design.shape[1]
        if self.without is None:
            squares = np.zeros((g, k, k))
            np.add.at(squares, place, self.design[:, :, None] * self.design[:, None, :])
            # a pseudo-inverse, since a cluster may be all there is of a yes-or-no covariate
            self.without = np.linalg.pinv(squares.sum(axis=0) - squares, hermitian=True)
        products = np.stack([np.bincount(place, column * values, g) for column in self.design.T], axis=1)
        left = np.einsum("gij,gj->gi", self.without, products.sum(axis=0) - products)
        return np.asarray(np.sqrt((g - 1) / g * ((left - estimates) ** 2).sum(axis=0)))


# ── spelling alone ───────────────────────────────────────────────────────────────────────────────────────


def form_baselines(
    statistics: Statistics, similarity: Similarities, pairs: PairSet, covariates: Sequence[Covariate], primary: int
) -> tuple[FormBaseline, ...]:
    """AUC of spelling alone beside that of the primary similarity at the primary depth, on the same pairs, by control.

    Spelling is 1 less the covariate 'edit distance'.
    """
    spelling = 1 - next(c.values for c in covariates if c.name == "edit distance")
    depth = primary if primary < 0 else similarity.depths.index(primary)
    found = []
    for control in pairs.controls:
        cognate, other = pairs.members(COGNATE), pairs.members(control)
        chosen = cognate | other
        some = [pair for pair, is_in in zip(pairs.pairs, chosen, strict=True) if is_in]
        both = np.stack([spelling[chosen], similarity.values[depth, chosen]])
        auc, covariance, g = clustered_auc(both, cognate[chosen], clusters(some))
        if min(cognate.sum(), other.sum()) < LEAST_WORTH:  # as of every interval
            covariance = None
        side = 1.0 if auc[1] >= 0.5 else -1.0
        gain = side * (auc[1] - auc[0])
        error = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) if covariance is not None else 0.0
        gain_ci = None
        if error > 1e-15:
            reach = _t(statistics.confidence, g - 1) * np.sqrt(error)
            gain_ci = _interval(gain - reach, gain + reach)
        form_ci = _logit_interval(auc[0], covariance[0, 0], g - 1, statistics) if covariance is not None else None
        found.append(
            FormBaseline(
                control, float(auc[0]), form_ci, similarity.name, similarity.depths[depth], float(auc[1]), gain_ci
            )
        )
    return tuple(found)


def clustered_auc(scores: Array, positive: BoolArray, cluster: IntArray) -> tuple[Array, Array | None, int]:
    """AUC of each score, their covariance, and the smaller group's number of clusters.

    Placements (DeLong et al. 1988) are summed within clusters (Obuchowski 1997); a cluster may hold both groups. With a
    pair to each cluster it is DeLong's covariance. None where a group lies in one cluster.

    Args:
        scores: float64 [scores, pairs], larger for positives. positive: bool [pairs]. cluster: int [pairs].
    """
    from scipy.stats import rankdata

    n, m = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores, axis=1)
    within_x, within_y = rankdata(scores[:, positive], axis=1), rankdata(scores[:, ~positive], axis=1)
    x = (ranks[:, positive] - within_x) / m  # share of controls below each cognate, ties by half
    y = 1 - (ranks[:, ~positive] - within_y) / n  # share of cognates above each control
    auc = x.mean(axis=1)
    _, place = np.unique(cluster, return_inverse=True)
    g = int(place.max()) + 1
    in_x, in_y = place[positive], place[~positive]
    i10, i01 = len(np.unique(in_x)), len(np.unique(in_y))
    if min(i10, i01) < 2:
        return auc, None, min(i10, i01)
    dx = np.stack([np.bincount(in_x, row - a, g) for row, a in zip(x, auc, strict=True)])  # [scores, clusters]
    dy = np.stack([np.bincount(in_y, row - a, g) for row, a in zip(y, auc, strict=True)])
    s10 = i10 / (i10 - 1) / n * dx @ dx.T
    s01 = i01 / (i01 - 1) / m * dy @ dy.T
    s11 = g / (g - 1) * dx @ dy.T
    return auc, s10 / n + s01 / m + (s11 + s11.T) / (n * m), min(i10, i01)


def _logit_interval(auc: float, variance: float, df: int, statistics: Statistics) -> Interval | None:
    """On the scale of log odds, which keeps within 0 and 1; undefined at the ends and without spread."""
    if not 0 < auc < 1 or variance <= 1e-15:
        return None
    middle = np.log(auc / (1 - auc))
    reach = _t(statistics.confidence, df) * np.sqrt(variance) / (auc * (1 - auc))
    return _interval(1 / (1 + np.exp(-(middle - reach))), 1 / (1 + np.exp(-(middle + reach))))


def _t(confidence: float, df: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + confidence) / 2, max(1, df)))


def _interval(low: float, high: float) -> Interval:
    return Interval(float(low), float(high))
