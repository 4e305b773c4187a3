"""What a design of this size can see: power of the t test, and the difference it finds often enough."""

from __future__ import annotations

import math


def power_of_t_test(d: float, n: float, m: float, alpha: float) -> float:
    """Chance that a two-sided two-sample t test at `alpha` finds a standardised difference `d`."""
    from scipy import stats

    df, nc = max(n + m - 2, 1.0), d * math.sqrt(n * m / (n + m))
    critical = stats.t.ppf(1 - alpha / 2, df)
    return float(stats.nct.sf(critical, df, nc) + stats.nct.sf(critical, df, -nc))


def detectable_d(power: float, n: float, m: float, alpha: float) -> float:
    """The standardised difference that such a test finds with chance `power`."""
    from scipy import optimize

    high = 1.0
    while power_of_t_test(high, n, m, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda d: power_of_t_test(d, n, m, alpha) - power, 0.0, high, xtol=1e-8))
