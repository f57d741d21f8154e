"""How far two orders of the same methods agree. Knows numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, isnan, nan, sqrt, tanh
from statistics import StatisticsError, correlation

LEAST = 4
"""Pairs below which a rank correlation has no interval."""
NORMAL_95 = 1.959964
"""Half of the width, in standard deviations, of the interval that holds 95% of a normal distribution."""


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho.

    Attributes:
        rho: From -1 (reversed) to 1 (the same order); NaN where one side has no order.
        low: Lower end of the 95% interval; NaN for fewer than four pairs, and where rho is -1 or 1.
        high: Upper end.
        n: Pairs.
    """

    rho: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if isnan(self.rho):
            return f"no rank correlation (n = {self.n})"
        interval = "" if isnan(self.low) else f", 95% interval {self.low:.2f} to {self.high:.2f}"
        return f"Spearman's rho {self.rho:.2f}{interval}, n = {self.n}"


def ranks(values: Sequence[float]) -> list[float]:
    """Rank values, the highest 1; equal ones share the mean of their ranks."""
    return [sum(other > value for other in values) + (values.count(value) + 1) / 2 for value in values]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> RankCorrelation:
    """Compute Spearman's rho of pairs and its 95% interval.

    Args:
        first: n values.
        second: Their n partners.

    Source: The interval is Fisher's z with the variance (1 + rho^2 / 2) / (n - 3) of Bonett and Wright 2000,
        https://doi.org/10.1007/BF02294183.
    """
    n = len(first)
    try:
        rho = correlation(ranks(first), ranks(second))
    except StatisticsError:  # fewer than two, or all alike
        return RankCorrelation(nan, nan, nan, n)
    if n < LEAST or abs(rho) > 1 - 1e-12:  # there z is infinite
        return RankCorrelation(rho, nan, nan, n)
    half = NORMAL_95 * sqrt((1 + rho**2 / 2) / (n - 3))
    return RankCorrelation(rho, tanh(atanh(rho) - half), tanh(atanh(rho) + half), n)
