"""How alike two sets of vectors see the same words, whatever their widths: debiased CKA, RSA, and rank correlation.

Both compare words with words within each run, so that no axis of one model has to mean anything in the other.
References: Song, Smola, Gretton, Borgwardt & Bedo (2007) for the unbiased HSIC; Kornblith, Norouzi, Lee & Hinton
(2019) for CKA; Nguyen, Raghu & Kornblith (2021) for its debiased form; Székely & Rizzo (2014) for U-centring, of which
the unbiased HSIC is the inner product; Kriegeskorte, Mur & Bandettini (2008) for RSA; Mantel (1967) for exchanging
words; Phipson & Smyth (2010) for counting the observed; Quenouille (1956) and Tukey (1958) for the jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pairprobe.outcomes import Interval
from pairprobe.records import IntArray

Array = npt.NDArray[np.float64]
#: Vectors of the same words at each depth, [words, width]; read one at a time, so they may lie in a file.
Depths = Sequence[npt.NDArray[Any]]
LEAST = 4  # words: the unbiased HSIC divides by n − 3
LEAST_RANKED = 5  # values: two orders of four are the same, or each other's reverse, one time in twelve
LEAST_INTERVAL = 10  # words: fewer leave a jackknife nothing to go by
BLOCK = 40_000_000  # float64 values of pairs of words that are held at once beside the one computed: 320 MB
ROWS = 4_000_000  # float64 values of a block of rows of a Gram matrix: 32 MB
EXACT = 1e-12  # what is left of a spread, relative to squared lengths, once it is only float32's rounding
SAME = 1e-7  # cosines that differ by less are equal up to float32's rounding
FAR = 1.0  # of Fisher's z: 1 − value is then 7 times as large or small without one word or group
MANY = 200  # words; more are left out in GROUPS groups, and exchanged less often
GROUPS = 20
PERMUTATIONS, PERMUTATIONS_OF_MANY = 9_999, 999


@dataclass(frozen=True)
class Agreement:
    """Two runs' vectors of the same words, each at one depth. None marks what is undefined.

    cka: debiased linear CKA, −1 to 1, near 0 for unrelated vectors of any width. rsa: Spearman's rank correlation of
    all cosine distances between words. cka_ci, rsa_ci: intervals over words (jackknife of Fisher's z). rsa_p: how often
    words exchanged within their language give an RSA at least as large, one-sided; `exchanges` were compared.
    """

    words: int
    cka: float | None
    cka_ci: Interval | None
    rsa: float | None
    rsa_ci: Interval | None
    rsa_p: float | None
    exchanges: int


def debiased_cka(x: Depths, y: Depths) -> Array:
    """float64 [depths of x, depths of y]: debiased linear CKA, NaN where it is undefined.

    CKA = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with Song et al.'s unbiased HSIC of K = x xᵀ and L = y yᵀ. Its terms
    are those of an inner product of U-centred matrices, so that |CKA| ≤ 1. Undefined: fewer than four words, or
    vectors that do not differ. Memory: some vectors of n (n − 1) / 2 numbers, whatever the widths and depths.
    """
    return _products(x, y, _u_centred)


def rsa(x: Depths, y: Depths) -> Array:
    """float64 [depths of x, depths of y]: Spearman's correlation of the cosine distances of all pairs of words.

    NaN where it is undefined: fewer than four words, a vector of length 0, or distances that are all the same.
    """
    return _products(x, y, _ranked)


def agreement(
    x: npt.NDArray[Any], y: npt.NDArray[Any], languages: Sequence[str], confidence: float, seed: int
) -> Agreement:
    """CKA and RSA of two runs at one depth each, with intervals and a test over words.

    Args:
        x, y: [words, width] of the same words in the same order.
        languages: of each word; words are exchanged within a language only, since two runs that tell languages apart
            would otherwise agree by that alone.
    """
    n = len(x)
    ways: tuple[Callable[[npt.NDArray[Any]], Array | None], ...] = (_u_centred, _ranked)
    values = [_defined(_product(way(x), way(y))) for way in ways]
    intervals = _jackknife(x, y, ways, values, confidence, seed)
    p, exchanges = _exchanged(_ranked(x), _ranked(y), languages, seed)
    return Agreement(n, values[0], intervals[0], values[1], intervals[1], p, exchanges)


def spearman(a: Sequence[float] | Array, b: Sequence[float] | Array) -> float | None:
    """Spearman's rank correlation; None for fewer than five values, or where one side is constant."""
    first, second = (np.asarray(v, dtype=np.float64) for v in (a, b))
    if len(first) < LEAST_RANKED:
        return None
    return _defined(_product(_unit(_ranks(first)), _unit(_ranks(second))))


# ── a run's vectors as one unit vector over pairs of words ───────────────────────────────────────────────


def _u_centred(values: npt.NDArray[Any]) -> Array | None:
    """float64 [n (n − 1) / 2] of length 1: upper triangle of the U-centred Gram matrix; None where it is undefined.

    Subtracting the mean vector first changes nothing but rounding: U-centring removes it anyway.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < LEAST or not np.isfinite(x).all():
        return None
    longest = np.einsum("ij,ij->i", x, x).max()
    x = x - x.mean(axis=0)
    squares = np.einsum("ij,ij->i", x, x)  # the Gram matrix's diagonal, which is left out
    if squares.max() <= EXACT * longest:
        return None
    sums = x @ x.sum(axis=0) - squares  # of each row without its diagonal
    whole = sums.sum() / ((n - 1) * (n - 2))
    found = np.empty(n * (n - 1) // 2)
    for place, rows, gram in _triangle(x):
        i, j = rows, np.arange(rows[0] + 1, n)
        centred = gram - (sums[i, None] + sums[None, j]) / (n - 2) + whole
        _fill(found, place, centred)
    # off-diagonal products that are all the same hold nothing: vectors equally far from each other
    return _unit(found) if np.abs(found).max() > SAME * squares.max() else None


def _ranked(values: npt.NDArray[Any]) -> Array | None:
    """float64 [n (n − 1) / 2] of length 1: centred ranks of the cosines of all pairs; None where it is undefined.

    Ranks of cosines are those of cosine distances backwards, on both sides of a correlation.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    lengths = np.linalg.norm(x, axis=1)
    if n < LEAST or not np.isfinite(x).all() or not lengths.all():
        return None
    x = x / lengths[:, None]
    found = np.empty(n * (n - 1) // 2)
    for place, _, gram in _triangle(x):
        _fill(found, place, gram)
    if np.ptp(found) <= SAME:
        return None
    found = _ranks(found)
    return _unit(found)


def _triangle(x: Array) -> Iterator[tuple[int, IntArray, Array]]:
    """Blocks of the Gram matrix above its diagonal: (place of the first in the flat triangle, rows, products of the
    rows with every word from the second of the block on)."""
    n = len(x)
    size = max(1, ROWS // n)
    place = 0
    for start in range(0, n - 1, size):
        rows = np.arange(start, min(start + size, n - 1))
        yield place, rows, x[rows] @ x[start + 1 :].T
        place += int((n - 1 - rows).sum())


def _fill(flat: Array, place: int, block: Array) -> None:
    """Write what lies above the diagonal of a block of rows; row k begins k columns in."""
    for k, row in enumerate(block):
        flat[place : place + len(row) - k] = row[k:]
        place += len(row) - k


def _ranks(values: Array) -> Array:
    """Ranks from 1, ties sharing their mean rank. SciPy's own takes twice the memory."""
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of each run of equal values
    del ordered
    ends = np.append(starts[1:], len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + 1 + ends) / 2, ends - starts)
    return ranks


def _unit(values: Array) -> Array | None:
    """Centred, and of length 1; None where all are the same."""
    centred = values - values.mean()
    length = float(np.linalg.norm(centred))
    scale = float(np.abs(values).max(initial=0.0))
    return centred / length if length > 1e-12 * scale * math.sqrt(len(values)) else None


def _product(a: Array | None, b: Array | None) -> float:
    """Cosine of two unit vectors; NaN where one is undefined."""
    return math.nan if a is None or b is None else min(1.0, max(-1.0, float(a @ b)))


def _products(x: Depths, y: Depths, way: Callable[[npt.NDArray[Any]], Array | None]) -> Array:
    """float64 [depths of x, depths of y]: as many of x's unit vectors as fit are held while y's go by."""
    n = len(x[0])
    if any(len(side) != n for side in (*x, *y)):
        raise ValueError("both sides need the same words at every depth")
    held = max(1, BLOCK // max(1, n * (n - 1) // 2))
    found = np.full((len(x), len(y)), math.nan)
    for start in range(0, len(x), held):
        mine = [way(x[i]) for i in range(start, min(start + held, len(x)))]
        for j in range(len(y)):
            other = way(y[j])
            found[start : start + len(mine), j] = [_product(a, other) for a in mine]
    return found


# ── how sure ─────────────────────────────────────────────────────────────────────────────────────────────


def _jackknife(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    ways: Sequence[Callable[[npt.NDArray[Any]], Array | None]],
    values: Sequence[float | None],
    confidence: float,
    seed: int,
) -> list[Interval | None]:
    """For each way an interval of Fisher's z over words, left out one by one, or in random groups where many.

    A bootstrap would draw words twice, whose distance from themselves is 0 in both runs and looks like agreement.
    Where few words hold nearly all of the disagreement, z without them is far off, infinite where nothing else
    differs: its error is then that of the value itself, times the slope of z there, 1 / (1 − value²).
    """
    from scipy import stats

    n = len(x)
    if n < LEAST_INTERVAL:
        return [None for _ in ways]
    order = np.random.default_rng([seed, 5]).permutation(n)
    groups = np.array_split(order, n if n <= MANY else GROUPS)
    kept = [np.sort(np.setdiff1d(order, group)) for group in groups]
    t = float(stats.t.ppf((1 + confidence) / 2, len(groups) - 1))
    found: list[Interval | None] = []
    for way, value in zip(ways, values, strict=True):
        if value is None or abs(value) > 1 - 1e-12:  # the same vectors, turned or scaled: nothing varies
            found.append(None)
            continue
        left = np.array([_product(way(x[rows]), way(y[rows])) for rows in kept])
        centre = math.atanh(value)
        with np.errstate(divide="ignore"):
            z = np.arctanh(left)
        if (np.abs(z - centre) > FAR).any():
            z = left / (1 - value**2)
        error = math.sqrt((len(z) - 1) / len(z) * float(((z - z.mean()) ** 2).sum()))
        ends = math.tanh(centre - t * error), math.tanh(centre + t * error)
        found.append(Interval(*ends) if all(math.isfinite(e) for e in ends) else None)
    return found


def _exchanged(
    mine: Array | None, theirs: Array | None, languages: Sequence[str], seed: int
) -> tuple[float | None, int]:
    """(one-sided p of RSA, exchanges compared); None where words cannot be exchanged within languages."""
    n = len(languages)
    if mine is None or theirs is None:
        return None, 0
    of = np.unique(np.asarray(languages, dtype=str), return_inverse=True)[1]
    strata = [np.flatnonzero(of == k) for k in range(of.max() + 1)]
    if math.prod(math.factorial(min(len(s), 20)) for s in strata) < 20:  # no p below 0.05 could come out
        return None, 0
    upper = np.triu_indices(n, 1)
    square = np.zeros((n, n))
    square[upper] = mine
    other = np.zeros((n, n))
    other[upper] = theirs
    other += other.T
    observed = float(mine @ theirs)
    rng = np.random.default_rng([seed, 6])
    count = PERMUTATIONS if n <= MANY else PERMUTATIONS_OF_MANY
    hits = 0
    order = np.arange(n)
    for _ in range(count):
        for s in strata:
            order[s] = s[rng.permutation(len(s))]
        hits += float(np.vdot(square, other[np.ix_(order, order)])) >= observed - 1e-9
    return (1 + hits) / (1 + count), count


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
