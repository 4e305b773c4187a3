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

    own, others: mean similarity of a word with its own partner, and with the other words' partners; delta their
    difference. p: two-sided by exchanging partners; p_greater: one-sided, own partners closer; p_max_t: two-sided,
    corrected for all depths and similarities of the run. rank: mean rank of the own partner among `PartnerTest.
    candidates` (1 is the closest, ties share their mean rank), both directions together; mrr: mean reciprocal rank;
    precision_at_1: share of words whose own partner is the closest (of k tied ones it counts 1/k).
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

    @property
    def delta(self) -> float:
        return self.own - self.others


@dataclass(frozen=True)
class PartnerTest:
    """Each word against its own and the other words' partners, over all depths, for one similarity.

    words: cognate pairs whose words stand in the matrix, each word once; candidates: mean number of partners a word
    could have. chance_*: what exchanged partners reach on average. scheme: how partners were exchanged, in words; ''
    where they could not be, and why_no_p says why.
    """

    similarity: str
    words: int
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
    """Δ at one depth with spelling, tokens and length held equal (least squares, cluster-robust errors).

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


@dataclass(frozen=True)
class FormBaseline:
    """How well spelling alone tells cognates from one control group: AUC of 1 − normalised edit distance."""

    control: str
    auc: float
    auc_ci: Interval | None


@dataclass(frozen=True)
class ScoreCheck:
    """Does the similarity follow people's judgement? Spearman's rank correlation with `Pair.score`, at one depth."""

    similarity: str
    depth: int
    n: int
    rho: float | None
    ci: Interval | None
    p: float | None


# ── what the vectors look like ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class DepthGeometry:
    """Of all vectors at one depth.

    random_cosine: mean cosine of two words that are in no pair together; random_cosine_sd: its standard deviation.
    top3_share: part of that mean cosine which the three largest of the dimensions' contributions make (Timkey & van
    Schijndel 2021), None where the mean is not above 0. norm: median length of the pooled vectors; largest_norm: the
    longest. sinks: texts in which a token that was pooled is flagged as an attention sink; None where norms of tokens
    were not measured.
    """

    depth: int
    random_cosine: float
    random_cosine_sd: float
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
    """What the model was given for one word. norms: of its tokens' states at the primary depth, None where they were
    not measured; sinks: which of them are flagged as attention sinks; byte: pieces that are single bytes."""

    word: str
    pieces: tuple[str, ...]
    unknown: int
    byte: int
    norms: tuple[float, ...] | None
    sinks: tuple[bool, ...]


@dataclass(frozen=True)
class PairTokens:
    """Both words' tokens beside their similarity at the primary depth. shared: pieces that both have."""

    pair_id: str
    group: str
    a: WordTokens
    b: WordTokens
    shared: tuple[str, ...]
    similarity: float


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
    """The tokens of every pair beside its similarity at the primary outcome, and Δ by fragmentation."""

    similarity: str
    control: str
    depth: int
    pairs: tuple[PairTokens, ...]
    fragmentation: tuple[FragmentedDelta, ...]


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
    in either direction. agree: share whose Δ has the median's sign.
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


# ── the same pairs, measured in two ways ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class DeltaOfDeltas:
    """ΔΔ: how far Δ changes from a first way of measuring the same pairs to a second.

    estimate: second − first. ci: paired, with linked pairs left out together (statistics.paired); None where it is
    undefined, and why_no_ci says why. clusters: groups of pairs that share no word, concept or cognate set.
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
