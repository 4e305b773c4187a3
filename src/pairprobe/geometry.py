"""What the space of a model's vectors is like, whatever the groups.

How near words lie that are in no pair together, how few dimensions make that, and which tokens are attention sinks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pairprobe.evidence import DepthGeometry, Geometry
from pairprobe.norms import blocks, finite_lengths
from pairprobe.records import BoolArray, FloatArray, IntArray, Texts, Vectors

COUPLES = 2000  # drawn at random: the mean cosine is then known to a fortieth of its standard deviation
LISTED = 200_000  # possible couples; so many are listed and drawn from, more are drawn directly
TOP = 3  # dimensions whose share is told
NOTHING = 1e-12  # cosines this near 0 are rounding
SINK = 10.0  # times the usual length; see `sinks`


def geometry(
    vectors: Vectors,
    texts: Texts,
    seed: int,
    pooled: Sequence[BoolArray] | None = None,
    flags: Sequence[BoolArray] | None = None,
) -> Geometry | None:
    """Cosines of random couples, the dimensions behind them, and lengths, at every depth.

    A couple is a word that stands first in some pair and one that stands second in some pair, so that couples cross
    languages as pairs do; the two are in no pair together. The couples are the same at all depths.

    Args:
        vectors, texts: as the method and the template gave them.
        seed: of the couples drawn, where there are more than 2000.
        pooled: for each text bool [tokens], which of its tokens went into its vector.
        flags: for each text bool [depths, tokens], as `flagged` gives them.

    Returns:
        None where every word is in a pair with every other.

    Raises:
        StatisticsError: a vector is not finite. It names word and depth.
    """
    x, y = couples(texts, seed)
    if not len(x):
        return None
    paired = np.union1d(texts.a, texts.b)
    found = []
    for row, (values, depth) in enumerate(zip(vectors.values, vectors.depths, strict=True)):
        lengths = _lengths(values, texts, paired, depth)
        by_dimension = np.zeros(values.shape[1])  # sums over couples of u_d v_d, u and v of length 1
        cosines = np.full(len(x), np.nan)
        directed = np.flatnonzero((lengths[x] > 0) & (lengths[y] > 0))
        for part in blocks(directed, values.shape[1]):
            u, v = (values[side[part]].astype(np.float64) / lengths[side[part], None] for side in (x, y))
            products = u * v
            by_dimension += products.sum(axis=0)
            cosines[part] = products.sum(axis=1)
        cosines = cosines[directed]
        mean = float(cosines.mean()) if len(cosines) else None
        top = float(np.sort(by_dimension)[-TOP:].sum())
        sinking = None
        if flags is not None and pooled is not None:
            sinking = sum(bool(flags[i][row][pooled[i]].any()) for i in paired)
        found.append(
            DepthGeometry(
                depth=depth,
                random_cosine=mean,
                random_cosine_sd=float(cosines.std(ddof=1)) if len(cosines) > 1 else None,
                top3_share=top / (mean * len(cosines)) if mean is not None and mean > NOTHING else None,
                norm=float(np.median(lengths[paired])),
                largest_norm=float(lengths[paired].max()),
                sinks=sinking,
            )
        )
    return Geometry(len(x), tuple(found))


def couples(texts: Texts, seed: int) -> tuple[IntArray, IntArray]:
    """int [couples] twice: distinct couples of a first and a second word that are in no pair together."""
    a, b = np.unique(texts.a), np.unique(texts.b)
    n = len(texts)
    taken = np.unique(np.concatenate([texts.a * n + texts.b, texts.b * n + texts.a]))
    rng = np.random.default_rng([seed, 5])
    total = len(a) * len(b)
    listed = total <= LISTED
    # Where there are so many, few of those drawn are pairs, twins or repetitions: twice as many are enough.
    chosen = np.arange(total) if listed else rng.integers(0, total, 2 * COUPLES)
    x, y = a[chosen // len(b)], b[chosen % len(b)]
    free = (x != y) & ~np.isin(x * n + y, taken)
    x, y = x[free], y[free]
    _, first = np.unique(np.minimum(x, y) * n + np.maximum(x, y), return_index=True)  # (u, v) and (v, u) are one couple
    if len(first) > COUPLES:
        first = rng.choice(first, COUPLES, replace=False)
    first = np.sort(first)
    return x[first], y[first]


def sinks(norms: FloatArray) -> BoolArray:
    """bool [tokens]: which of the tokens' states, all of one depth, are those of attention sinks.

    Flagged is a state at least 10 times as long as the lower quartile of all tokens' at that depth. Sun, Chen, Kolter &
    Liu (2024) call an activation massive that is over 100 and about 1000 times the median activation of its state. One
    such among d dimensions makes a state 1000 / (1.48 √d) times as long as a usual one: 7 times at d = 8192, 10 at
    4096, 34 at 384. Hence the 10. The lower quartile, not the median, is what is usual, since of short texts half of
    the tokens may be first ones, which is where sinks are; it fails where three quarters of all tokens are sinks.
    """
    if not len(norms):
        return np.zeros(0, dtype=bool)
    usual = np.quantile(norms, 0.25)
    return np.asarray((norms >= SINK * usual) & (usual > 0))


def flagged(vectors: Vectors) -> tuple[BoolArray, ...] | None:
    """For each text bool [depths, tokens]: its attention sinks. None where lengths of tokens were not measured."""
    if vectors.token_norms is None:
        return None
    ends = np.cumsum([norms.shape[1] for norms in vectors.token_norms])
    together = np.concatenate(vectors.token_norms, axis=1).astype(np.float64)  # [depths, tokens of all texts]
    found = np.stack([sinks(at_depth) for at_depth in together])
    return tuple(np.split(found, ends[:-1], axis=1))


def sentence(geometry: Geometry, depth: int, width: int) -> str:
    """For people: how near words lie that are in no pair, and what makes it."""
    at = next(d for d in geometry.depths if d.depth == depth)
    if at.random_cosine is None:
        return f"random pairs have no cosine at depth {depth}: their vectors have length zero"
    spread = f" (sd {at.random_cosine_sd:.2f})" if at.random_cosine_sd is not None else ""
    said = f"random pairs have cosine {at.random_cosine:.2f}{spread} at depth {depth}".replace("-", "−")
    if at.top3_share is not None:
        share = f"{100 * at.top3_share:.0f} %" if at.top3_share < 1 else "all"
        said += f", {share} of it from {TOP} of {width} dimensions"
    if at.sinks:
        said += f" · in {at.sinks} text{'' if at.sinks == 1 else 's'} a pooled token is an attention sink"
    return said


def _lengths(values: npt.NDArray[np.float32], texts: Texts, which: IntArray, depth: int) -> npt.NDArray[np.float64]:
    """float64 [texts], NaN for those not asked for."""
    found = np.full(len(texts), np.nan)
    for part in blocks(which, values.shape[1]):
        found[part] = finite_lengths(values[part].astype(np.float64), texts, part, depth)
    return found
