"""Similarities and groups → Δ with its uncertainty and tests.

Arrays in, records out: nothing here knows of models, configuration or storage. What is computed stands in effects.py,
power.py, resampling.py, relabelling.py and family.py, each with its references; how pairs are linked in units.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pairprobe.errors import StatisticsError, at_least, between
from pairprobe.evidence import Multiverse, Specification
from pairprobe.outcomes import DepthTest, GroupTest, Interval
from pairprobe.records import COGNATE, PairSet, Similarities
from pairprobe.statistics import effects, family, power
from pairprobe.statistics.relabelling import Draws, Relabelled, band, draws, p_values
from pairprobe.statistics.resampling import Resampled, resampled
from pairprobe.statistics.sample import Array, Sample
from pairprobe.statistics.schemes import Scheme
from pairprobe.statistics.units import Links


@dataclass(frozen=True)
class Statistics:
    """How groups are compared.

    Args:
        seed: of every random number drawn here.
        resamples: bootstrap resamples for the interval of Δ.
        permutations: relabellings drawn where there are more than `exact_below`; fewer are all compared.
        exact_below: up to how many relabellings the test is exact.
        confidence: level of all intervals. alpha: level of tests, for the verdict and for power.
        effect: the standardised difference whose power is reported. power: the power wanted for detectable_d.
        sesoi: the smallest difference of interest, in standard deviations: what 'no difference' rules out.
    """

    seed: int = 0
    resamples: int = 10_000
    permutations: int = 10_000
    exact_below: int = 50_000
    confidence: float = 0.95
    alpha: float = 0.05
    effect: float = 0.8
    power: float = 0.8
    sesoi: float = 0.5

    def __post_init__(self) -> None:
        at_least("statistics.seed", self.seed, 0)
        at_least("statistics.resamples", self.resamples, 100)
        at_least("statistics.permutations", self.permutations, 100)
        at_least("statistics.exact_below", self.exact_below, 1)
        for key in ("confidence", "alpha", "power"):
            between(f"statistics.{key}", getattr(self, key), 0.0, 1.0)
        if not self.alpha < self.power:
            between("statistics.power", self.power, self.alpha, 1.0)
        for key in ("effect", "sesoi"):
            between(f"statistics.{key}", getattr(self, key), 0.0, 10.0)

    def tests(self, similarities: Sequence[Similarities], pairs: PairSet) -> dict[tuple[str, str], GroupTest]:
        """Cognates against every control group, by (similarity, control group).

        All similarities and depths of one control group are one family: relabelled together, for p_max_t and q.

        Raises:
            StatisticsError: a similarity is not finite, or a group has fewer than two pairs.
        """
        found = {}
        for control in pairs.controls:
            compared = self._compare(similarities, pairs, control)
            start = 0
            for one in similarities:
                rows = range(start, start := start + len(one.depths))
                found[one.name, control] = self._group_test(one, control, compared, rows)
        return found

    def multiverse(
        self,
        specs: Sequence[tuple[str, str, Similarities]],
        pairs: PairSet,
        control: str,
        primary: tuple[str, str, str, int] | None = None,
    ) -> Multiverse:
        """Every depth of every (template, pooling, similarities), relabelled together.

        primary: template, pooling, similarity's name and depth (negative ones count from the last) of the outcome that
        was fixed in advance.

        Raises:
            StatisticsError: a similarity is not finite, or a group has fewer than two pairs.
        """
        found = self._compare([s for _, _, s in specs], pairs, control)
        curve = family.specification_curve(found.sample, found.draws, self.alpha)
        members = [(t, pooling, s, depth) for t, pooling, s in specs for depth in s.depths]
        delta = found.sample.moments.delta
        return Multiverse(
            control=control,
            specifications=tuple(
                Specification(
                    template, pooling, s.name, depth, float(delta[i]), found.delta_ci(i), found.g(i),
                    _defined(found.p.two_sided[i]), _defined(found.p.max_t[i]),
                    primary=primary is not None and primary[:3] == (template, pooling, s.name)
                    and depth == (primary[3] if primary[3] >= 0 else s.depths[primary[3]]),
                )
                for i, (template, pooling, s, depth) in enumerate(members)
            ),
            alpha=self.alpha,
            median_g=curve.median_g,
            p_median=curve.p_median,
            significant=curve.significant,
            p_significant=curve.p_significant,
            agree=curve.agree,
            relabellings=found.draws.count,
            scheme=found.scheme.words if found.draws.smallest <= self.alpha else "",
        )  # fmt: skip

    def _compare(self, similarities: Sequence[Similarities], pairs: PairSet, control: str) -> Compared:
        """All depths of all similarities against one control group, as one family."""
        for one in similarities:
            _finite(one, pairs)
        return self.of_sample(_sample(similarities, pairs, control))

    def of_sample(self, sample: Sample) -> Compared:
        """The same of similarities that lie in blocks or on disk, and of links that are known otherwise."""
        scheme = Scheme.of(sample)
        drawn = draws(sample, scheme, self.permutations, self.exact_below, self.seed)
        p = p_values(drawn)
        if drawn.smallest > self.alpha:  # nor is a one-sided p given, which could be half as large
            nothing = np.full(sample.members, np.nan)
            p = replace(p, two_sided=nothing, greater=nothing, less=nothing, max_t=nothing)
        interval = resampled(sample, self.confidence, self.resamples, self.seed)
        return Compared(sample, scheme, drawn, p, interval, self.confidence, self.alpha, self.sesoi)

    def _group_test(self, one: Similarities, control: str, found: Compared, rows: range) -> GroupTest:
        sample, drawn = found.sample, found.draws
        depths = tuple(found.depth_test(i, depth) for i, depth in zip(rows, one.depths, strict=True))
        possible = drawn.smallest <= self.alpha
        independent = sample.links.independent
        n_eff, m_eff = sample.worth
        return GroupTest(
            similarity=one.name,
            control=control,
            n_cognate=sample.n,
            n_control=sample.m,
            depths=depths,
            relabellings=drawn.count,
            exact=drawn.exact,
            smallest_p=drawn.smallest,
            alpha=self.alpha,
            confidence=self.confidence,
            effect=self.effect,
            power=power.power_of_t_test(self.effect, n_eff, m_eff, self.alpha),
            power_wanted=self.power,
            detectable_d=power.detectable_d(self.power, n_eff, m_eff, self.alpha),
            units=sample.links.units,
            clusters=sample.links.clusters,
            crossing=sample.links.crossing,
            scheme=found.scheme.words if possible or independent else "",
            why_no_p="" if possible else found.why_no_p(),
            sesoi=self.sesoi,
            family=sample.members,
            resampled=found.interval.words,
            effective_cognate=n_eff,
            effective_control=m_eff,
            moved_cognate=int(sample.cognate[found.scheme.moved].sum()),
            moved_control=int((~sample.cognate)[found.scheme.moved].sum()),
        )


@dataclass(frozen=True, eq=False)
class Compared:
    """One family against one control group: arrays float64 [members]."""

    sample: Sample
    scheme: Scheme
    draws: Draws
    p: Relabelled
    interval: Resampled
    confidence: float
    alpha: float
    sesoi: float

    def depth_test(self, i: int, depth: int) -> DepthTest:
        """Of the family's member i, which is that depth."""
        moments, n, m = self.sample.moments, self.sample.n, self.sample.m
        error, (least, most) = float(self.error[i]), self.left_out
        chance, chance_ci = effects.auc(self.sample, i, self.confidence)
        scale = effects.hedges_correction(n + m - 2) * error / float(moments.sd[i])
        return DepthTest(
            depth=depth,
            mean_cognate=float(moments.cognates[i]),
            mean_control=float(moments.controls[i]),
            sd_cognate=math.sqrt(moments.cognate_squares[i] / (n - 1)),
            sd_control=math.sqrt(moments.control_squares[i] / (m - 1)),
            delta=float(moments.delta[i]),
            delta_ci=self.delta_ci(i),
            g=self.g(i),
            g_ci=effects.noncentral_interval(float(moments.delta[i]) / error, self.df[i], scale, self.confidence),
            t=_defined(moments.t[i]),
            p=_defined(self.p.two_sided[i]),
            p_greater=_defined(self.p.greater[i]),
            p_less=_defined(self.p.less[i]),
            p_max_t=_defined(self.p.max_t[i]),
            auc=chance,
            auc_ci=chance_ci,
            left_out=_interval(least[i], most[i]),
            equivalence_p=_defined(self.equivalence[i]),
            q=_defined(self.q[i]),
            max_t_band=_interval(self.band[0][i], self.band[1][i]) if math.isfinite(self.p.max_t[i]) else None,
        )

    @cached_property
    def q(self) -> Array:
        return family.benjamini_hochberg(self.p.two_sided)

    @cached_property
    def band(self) -> tuple[Array, Array]:
        return band(self.draws, self.alpha)

    @cached_property
    def left_out(self) -> tuple[Array, Array]:
        return effects.left_out(self.sample)

    @cached_property
    def error(self) -> Array:
        """Standard error of Δ, the interval's: of independent pairs Welch's, else that of what was resampled."""
        return np.where(self.interval.sd > 0, self.interval.sd, np.nan)

    @property
    def df(self) -> Array:
        return self.interval.df

    def delta_ci(self, i: int) -> Interval | None:
        defined = math.isfinite(self.sample.moments.t[i])
        return _interval(self.interval.low[i], self.interval.high[i]) if defined else None

    def g(self, i: int) -> float | None:
        n, m = self.sample.n, self.sample.m
        return _defined(effects.hedges_correction(n + m - 2) * self.sample.moments.t[i] * math.sqrt(1 / n + 1 / m))

    @cached_property
    def equivalence(self) -> Array:
        return effects.equivalence(self.sample.moments.delta, self.error, self.df, self.sesoi * self.sample.moments.sd)

    def why_no_p(self) -> str:
        """For people, where no relabelling can give a p up to alpha."""
        links, total = self.sample.links, self.sample.n + self.sample.m
        if links.independent:
            least = f"can give none under {self.draws.smallest:.2g}"
            if not self.draws.exact:
                return f"{self.draws.count} random relabellings {least}. Raise statistics.permutations."
            return f"{self.sample.n} against {self.sample.m} pairs have {self.draws.count} relabellings, which {least}."
        linked = f"shared words, concepts or cognate sets link the {total} pairs into {links.clusters} "
        linked += "cluster" if links.clusters == 1 else "clusters"
        count = self.scheme.count
        if count == 1:
            return f"{linked}, and no relabelling leaves the links as they are."
        return f"{linked}; {count} relabellings leave the links as they are, too few for a p-value to mean anything."


def _finite(one: Similarities, pairs: PairSet) -> None:
    step = 20_000  # pairs at once, so that memory does not grow with them
    for start in range(0, one.values.shape[1], step):
        part = one.values[:, start : start + step]
        if not np.isfinite(part).all():
            row, column = np.argwhere(~np.isfinite(part))[0]
            raise StatisticsError(
                f"{one.name} of pair {pairs.pairs[start + column].id} at depth {one.depths[row]} "
                f"is {part[row, column]}; nothing can be computed from it."
            )


def _sample(similarities: Sequence[Similarities], pairs: PairSet, control: str) -> Sample:
    cognate = pairs.members(COGNATE)
    columns = np.flatnonzero(cognate | pairs.members(control))
    n, m = int(cognate.sum()), len(columns) - int(cognate.sum())
    if n < 2 or m < 2:
        raise StatisticsError(
            f"{n} cognate and {m} {control} pairs: each group needs at least two.", "Add pairs to the table."
        )
    links = Links.of([pairs.pairs[i] for i in columns])
    return Sample(tuple(s.values for s in similarities), columns, cognate[columns], links)


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _interval(low: float, high: float) -> Interval | None:
    return Interval(float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None
