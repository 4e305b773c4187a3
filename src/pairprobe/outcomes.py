"""What group tests find and what may be said of it: frozen records, as in records.py.

An undefined statistic is None, never 0.0 and never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

# ── group tests and verdict ──────────────────────────────────────────────────────────────────────────────

#: The scheme that supposes independent pairs.
PAIRS_RELABELLED = "pairs relabelled"
#: What may be asked in advance: any difference, or cognates closer, or farther.
SIDES = ("both", "closer", "farther")
#: Ends an answer that claims a difference which form (spelling, tokens, length) may make alone (decision 16).
PERHAPS = ", perhaps by form"
#: The same where the template names what words mean, and only cognates share it.
BY_MEANING = ", perhaps by meaning"

#: Independent pairs that each group must be worth for an interval of what compares them (decision 5).
LEAST_WORTH = 4
#: Independent pairs that each group must be worth for any claim, of Δ or of its change (decision 5).
CLAIM_WORTH = 5


def p_text(p: float) -> str:
    """'= 0.409', or '< 0.001': no relabelling test can say 0.000."""
    return f"= {p:.3f}" if p >= 0.0005 else "< 0.001"


def signed(value: float, digits: int = 3) -> str:
    """+0.073 or −0.036, with a real minus sign: for people, not for parsing.

    A value that would read as 0 gets as many digits more as tell its sign: +0.00004, or +4e-07.
    """
    while 0 < abs(value) < 0.5 * 10.0**-digits and digits < 6:
        digits += 1
    text = f"{value:+.{digits}f}" if value == 0 or digits < 6 else f"{value:+.0e}"
    return text.replace("-", "−", 1) if value < 0 or text[0] == "-" else text


@dataclass(frozen=True)
class Interval:
    """Confidence interval; the level stands in the record that holds it."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"[{signed(self.low)}, {signed(self.high)}]"


@dataclass(frozen=True)
class DepthTest:
    """Cognates against one control group at one depth. None marks what is undefined.

    delta = mean_cognate − mean_control, in units of the similarity; g: Hedges' g; t: pooled two-sample t;
    p: two-sided by relabelling (the group test's `scheme`); p_greater, p_less: one-sided, cognates closer or farther;
    p_max_t: two-sided, corrected for the family of all depths and similarities tested together (`GroupTest.family`).
    q: Benjamini and Hochberg's adjusted p over the same family. max_t_band: the Δ between which p_max_t is above alpha.
    auc: chance that a cognate pair is more similar than a control pair. left_out: the smallest and largest Δ once any
    one unit is left out. equivalence_p: of the hypothesis that |Δ| is as large as `GroupTest.sesoi` standard
    deviations (two one-sided tests): small means that there is no such difference.
    """

    depth: int
    mean_cognate: float
    mean_control: float
    sd_cognate: float
    sd_control: float
    delta: float
    delta_ci: Interval | None
    g: float | None
    g_ci: Interval | None
    t: float | None
    p: float | None
    p_greater: float | None
    p_max_t: float | None
    auc: float | None = None
    auc_ci: Interval | None = None
    left_out: Interval | None = None
    equivalence_p: float | None = None
    q: float | None = None
    max_t_band: Interval | None = None
    p_less: float | None = None

    @property
    def cliffs_delta(self) -> float | None:
        """Cliff's δ = 2 AUC − 1."""
        return None if self.auc is None else 2 * self.auc - 1


@dataclass(frozen=True)
class GroupTest:
    """Cognates against one control group over all depths, for one similarity.

    relabellings: how many were compared; exact: all there are (else drawn at random, the observed counted
    in); smallest_p: the smallest two-sided p these group sizes and relabellings can give; power: chance that
    a two-sided t test at `alpha` finds d = `effect`; detectable_d: the |d| it finds with chance `power_wanted`.
    units: how many independent units (words linked by a cognate pair, a concept or a cognate set) the pairs hold;
    clusters: how many groups of pairs share no unit with each other, which is what relabelling moves; crossing: pairs
    whose words belong to two units. scheme: how relabelling was done, in words; '' where links left too few ways.
    why_no_p: why there is no p, as a sentence; '' where there is one. sesoi: the smallest difference of interest, in
    standard deviations, that `equivalence_p` is about. family: how many depths × similarities p_max_t and q allow for.
    resampled: what was drawn with replacement for the interval of Δ: 'pairs', 'clusters' or 'units'; '' where there is
    none. effective_cognate, effective_control: of how many independent pairs each group is worth at least, which is
    what power and detectable_d suppose.
    moved_cognate, moved_control: how many pairs of each group relabelling may move; None where that was not recorded.
    """

    similarity: str
    control: str
    n_cognate: int
    n_control: int
    depths: tuple[DepthTest, ...]
    relabellings: int
    exact: bool
    smallest_p: float
    alpha: float
    confidence: float
    effect: float
    power: float
    power_wanted: float
    detectable_d: float
    units: int = 0
    clusters: int = 0
    crossing: int = 0
    scheme: str = PAIRS_RELABELLED
    why_no_p: str = ""
    sesoi: float = 0.0
    family: int = 1
    resampled: str = ""
    effective_cognate: float | None = None
    effective_control: float | None = None
    moved_cognate: int | None = None
    moved_control: int | None = None

    def at(self, depth: int) -> DepthTest:
        """The test at `depth`; negative depths count from the last, as in Python."""
        if depth < 0:
            return self.depths[depth]
        return next(t for t in self.depths if t.depth == depth)

    @property
    def linked(self) -> bool:
        """Whether pairs share words, concepts or cognate sets with others."""
        return 0 < self.clusters < self.n_cognate + self.n_control

    @property
    def worth(self) -> tuple[float, float]:
        """Of how many independent pairs each group is worth at least."""
        return self.effective_cognate or self.n_cognate, self.effective_control or self.n_control

    @property
    def why_no_interval(self) -> str:
        """Why no depth has an interval of Δ, g or AUC; '' where the groups are large enough for one."""
        n, m = self.worth
        if min(n, m) >= LEAST_WORTH:
            return ""
        sizes = f"{self.n_cognate} cognate against {self.n_control} {self.control} pairs"
        if (n, m) == (self.n_cognate, self.n_control):
            return f"{sizes}; each group needs {LEAST_WORTH}"
        worth = f"worth {n:.2g} against {m:.2g} independent ones"
        return f"links make {sizes} {worth}; each group should be worth {LEAST_WORTH}"

    @property
    def best(self) -> DepthTest | None:
        """The depth with the largest |t|: chosen after looking, so only p_max_t may be read there."""
        defined = [t for t in self.depths if t.t is not None]
        return max(defined, key=lambda t: abs(t.t or 0.0)) if defined else None


@dataclass(frozen=True)
class Verdict:
    """What may be said. answer: 'cannot tell', 'no difference', 'closer', 'farther' or 'undefined'; a difference that
    what was measured beside it may explain ends in PERHAPS: 'closer, perhaps by form', or in BY_MEANING. side: which
    was asked about in advance: both | closer | farther."""

    answer: str
    sentences: tuple[str, ...]
    beware: tuple[str, ...]
    similarity: str
    control: str
    depth: int
    side: str = "both"

    @property
    def claims(self) -> bool:
        """A difference is claimed."""
        return self.answer.startswith(("closer", "farther"))
