"""What stands beside a group test, as evidence for or against reading it as ancestry: frozen records.

An undefined number is None, never 0.0 and never NaN. Depths are numbered as in records.Vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pairprobe.outcomes import Interval

# ── is each word closer to its own partner? ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class PartnerDepth:
    """Words of the cognate pairs against all their possible partners, at one depth.

    own, others: mean similarity of a word with its own partner, and with the other words' partners (each word's mean
    counts once, words of both sides); delta their difference. p: two-sided by exchanging partners; p_greater, p_less:
    one-sided, own partners closer or farther; p_max_t: two-sided, corrected for all depths and similarities of the run.
    rank: mean rank of the own partner among `PartnerTest.candidates` (1 is the closest, ties share their mean rank),
    both directions together; mrr: mean reciprocal rank; precision_at_1: share of words whose own partner is the closest
    (of k tied ones it counts 1/k).
    """

    depth: int
    own: float
    others: float
    p: float | None
    p_greater: float | None
    p_max_t: float | None
    rank: float
    mrr: float
    mrr_ci: Interval | None
    precision_at_1: float
    precision_at_1_ci: Interval | None
    p_less: float | None = None

    @property
    def delta(self) -> float:
        return self.own - self.others


@dataclass(frozen=True)
class PartnerTest:
    """Each word against its own and the other words' partners, over all depths, for one similarity.

    words: cognate pairs whose words stand in the matrix; candidates: mean number of partners a word could have, its own
    among them. chance_*: what a partner drawn from these reaches on average. clusters: groups of pairs that share no
    word, concept or cognate set, whose partners are exchanged together. scheme: how partners were exchanged, in words;
    '' where they could not be, and why_no_p says why there is no p.
    """

    similarity: str
    words: int
    clusters: int
    candidates: float
    depths: tuple[PartnerDepth, ...]
    shuffles: int
    exact: bool
    smallest_p: float
    chance_rank: float
    chance_mrr: float
    chance_precision_at_1: float
    scheme: str
    why_no_p: str = ""


# ── what else could make the difference? ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Coefficient:
    """One covariate of an adjusted Δ. estimate: change of similarity for one standard deviation of it (for a yes-or-no
    covariate: from no to yes)."""

    name: str
    estimate: float
    ci: Interval | None
    p: float | None


@dataclass(frozen=True)
class AdjustedDelta:
    """Δ at one depth with what its coefficients name held equal (least squares, cluster-robust errors).

    raw: Δ of the same pairs, unadjusted. adjusted, ci, p: None where they are undefined, and why_not says why.
    dropped: covariate → why it is not in the model. clusters: independent groups of pairs.
    """

    similarity: str
    control: str
    depth: int
    n: int
    clusters: int
    raw: float
    adjusted: float | None
    ci: Interval | None
    p: float | None
    coefficients: tuple[Coefficient, ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)
    why_not: str = ""

    @property
    def turned(self) -> bool:
        """Adjusting turns Δ around: it lies on the other side of 0, and so does its whole interval."""
        other = self.adjusted is not None and self.adjusted * self.raw < 0
        return other and self.ci is not None and 0.0 not in self.ci


@dataclass(frozen=True)
class FormBaseline:
    """How well spelling alone tells cognates from one control group: AUC of 1 − normalised edit distance.

    similarity, depth: the primary ones; model_auc: what they reach on the same pairs; gain_ci: interval of how much
    farther from one half that is than spelling's, on the model's side of one half; None where it is undefined.
    """

    control: str
    auc: float
    auc_ci: Interval | None
    similarity: str
    depth: int
    model_auc: float
    gain_ci: Interval | None

    @property
    def gain(self) -> float:
        """AUC of the model less that of spelling, in the model's direction: negative where spelling tells more."""
        return (self.model_auc - self.auc) * (1 if self.model_auc >= 0.5 else -1)


@dataclass(frozen=True)
class ScoreCheck:
    """Does the similarity follow people's judgement? Spearman's rank correlation with `Pair.score`, at one depth.

    n: pairs with a score; clusters: how many groups of them share no word, concept or cognate set. rho is None where
    the scores or the similarities are all equal; p: two-sided by exchanging scores; why_no_p says why there is none.
    """

    similarity: str
    depth: int
    n: int
    clusters: int
    rho: float | None
    ci: Interval | None
    p: float | None
    why_no_p: str = ""


# ── what the vectors look like ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class DepthGeometry:
    """Of all vectors at one depth.

    random_cosine: mean cosine of two words that are in no pair together; random_cosine_sd: the cosines' standard
    deviation; both None where vectors have no length.
    top3_share: part of that mean cosine which the three largest of the dimensions' contributions make (Timkey & van
    Schijndel 2021), None where the mean is not above 0. norm: median length of the pooled vectors; largest_norm: the
    longest. sinks: texts in which a token that was pooled is flagged as an attention sink; None where norms of tokens
    were not measured.
    """

    depth: int
    random_cosine: float | None
    random_cosine_sd: float | None
    top3_share: float | None
    norm: float
    largest_norm: float
    sinks: int | None


@dataclass(frozen=True)
class Geometry:
    """n: random couples of words that the cosines come from."""

    n: int
    depths: tuple[DepthGeometry, ...]


@dataclass(frozen=True)
class WordTokens:
    """What the model was given for one word, piece by piece.

    pieces: as the tokenizer writes them; shown: as a person reads them, parts of characters as their bytes. unknown,
    byte, shared, sinks: which pieces are unknown, hold part of a character only, are also the other word's, are flagged
    as attention sinks. norms: lengths of their states at the primary depth. norms and sinks are None where no lengths
    were measured.
    """

    word: str
    pieces: tuple[str, ...]
    shown: tuple[str, ...]
    unknown: tuple[bool, ...]
    byte: tuple[bool, ...]
    shared: tuple[bool, ...]
    norms: tuple[float, ...] | None
    sinks: tuple[bool, ...] | None


@dataclass(frozen=True)
class PairTokens:
    """Both words' tokens beside their similarity at the primary depth. shared: distinct pieces that both have."""

    pair_id: str
    group: str
    a: WordTokens
    b: WordTokens
    shared: tuple[str, ...]
    similarity: float

    @property
    def pieces(self) -> int:
        """Of both words together."""
        return len(self.a.pieces) + len(self.b.pieces)


@dataclass(frozen=True)
class FragmentedDelta:
    """Δ among pairs that are broken into about as many pieces. pieces: '2', '3', '4–5', … (of both words together)."""

    pieces: str
    n_cognate: int
    n_control: int
    delta: float | None
    ci: Interval | None


@dataclass(frozen=True)
class TokenXRay:
    """The tokens of every pair beside its similarity at the primary outcome, and Δ by fragmentation.

    level: of the intervals.
    """

    similarity: str
    control: str
    depth: int
    pairs: tuple[PairTokens, ...]
    fragmentation: tuple[FragmentedDelta, ...]
    level: float = 0.95


# ── would another way of measuring have said something else? ─────────────────────────────────────────────


@dataclass(frozen=True)
class Specification:
    """One defensible way of measuring, and what it gave. p_max_t: corrected for all specifications together."""

    template: str
    pooling: str
    similarity: str
    depth: int
    delta: float
    ci: Interval | None
    g: float | None
    p: float | None
    p_max_t: float | None
    primary: bool = False


@dataclass(frozen=True)
class Multiverse:
    """All specifications of one control group, and what relabelling makes of them jointly (Simonsohn et al. 2020).

    median_g: over specifications; p_median: how often relabelled pairs give a median at least as far from 0.
    significant: share with p ≤ alpha and Δ of the median's sign; p_significant: how often relabelled pairs give as many
    in either direction. agree: share whose Δ has the median's sign. undefined: ways that gave no similarity, and why.
    """

    control: str
    specifications: tuple[Specification, ...]
    alpha: float
    median_g: float | None
    p_median: float | None
    significant: float | None
    p_significant: float | None
    agree: float | None
    relabellings: int
    scheme: str
    undefined: tuple[str, ...] = ()


# ── the same pairs, measured in two ways ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class DeltaOfDeltas:
    """ΔΔ: how far Δ changes from a first way of measuring the same pairs to a second.

    estimate: second − first. ci: paired, with linked pairs left out together (statistics.paired); None where it is
    undefined, and why_no_ci says why. clusters: groups of pairs that share no word, concept or cognate set.
    why_no_claim: why no change may be claimed whatever the interval, for the reason that keeps Δ itself from a claim.
    """

    estimate: float
    ci: Interval | None
    first: float
    second: float
    n_cognate: int
    n_control: int
    clusters: int
    confidence: float
    why_no_ci: str = ""
    why_no_claim: str = ""


@dataclass(frozen=True)
class Agreement:
    """How alike one word's vectors of two runs are, at one depth: over all words, the cosine's mean and its least.

    word: whose is the least. None where a vector has no length.
    """

    depth: int
    mean: float | None
    least: float | None
    word: str


@dataclass(frozen=True)
class PrecisionEffect:
    """What one rounding of a model's weights changes, against the same model as stored, for one similarity and one
    control group.

    deltas, corrected, agreement: by depth, as `depths` says. corrected: interval of ΔΔ at a level that allows for all
    roundings compared together (Bonferroni). agreement is empty where the runs have no vectors. changed: depths at
    which p is at most alpha in one of the two runs only, of the depths `tested` that have a p in both.
    """

    weights: str
    similarity: str
    control: str
    depths: tuple[int, ...]
    deltas: tuple[DeltaOfDeltas, ...]
    corrected: tuple[Interval | None, ...]
    agreement: tuple[Agreement, ...]
    changed: tuple[int, ...]
    tested: tuple[int, ...]
    alpha: float
