from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from scipy.stats import spearmanr

from clvr_bench.figure2.agreement import rank_correlation, ranks


def test_the_highest_is_first_and_equals_share_the_mean_of_their_ranks() -> None:
    assert ranks([3.0, 9.0, 3.0, 1.0]) == [2.5, 1.0, 2.5, 4.0]


def test_rho_is_scipys_with_ties_too() -> None:
    random = np.random.default_rng(0)
    for n in (4, 9, 14):
        first, second = random.integers(0, 6, n).tolist(), random.normal(size=n).tolist()
        assert rank_correlation(first, second).rho == pytest.approx(spearmanr(first, second).statistic)


def test_the_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    strength = 0.6
    true = 6 / np.pi * np.arcsin(strength / 2)  # Spearman's rho of two normal variables of this correlation
    held = 0
    for _ in range(400):
        pairs = random.multivariate_normal([0, 0], [[1, strength], [strength, 1]], 14)
        found = rank_correlation(pairs[:, 0].tolist(), pairs[:, 1].tolist())
        held += found.low <= true <= found.high
    assert 0.91 < held / 400 < 0.985


def test_the_interval_is_that_of_bonett_and_wright() -> None:
    found = rank_correlation([1, 2, 3, 4, 5, 6, 7], [2, 1, 4, 3, 6, 7, 5])
    z, half = np.arctanh(found.rho), 1.959964 * np.sqrt((1 + found.rho**2 / 2) / 4)
    assert (found.low, found.high) == pytest.approx((np.tanh(z - half), np.tanh(z + half)))
    assert str(found) == f"Spearman's rho {found.rho:.2f}, 95% interval {found.low:.2f} to {found.high:.2f}, n = 7"


def test_the_same_order_and_the_reverse_have_no_interval() -> None:
    for second, rho in (([1, 2, 3, 4, 5], 1.0), ([5, 4, 3, 2, 1], -1.0)):
        found = rank_correlation([1, 2, 3, 4, 5], second)
        assert found.rho == pytest.approx(rho)
        assert isnan(found.low)
        assert str(found) == f"Spearman's rho {rho:.2f}, n = 5"


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0])])
def test_where_there_is_no_order_there_is_no_correlation(first: list[float], second: list[float]) -> None:
    assert str(rank_correlation(first, second)) == f"no rank correlation (n = {len(first)})"


def test_three_pairs_have_no_interval() -> None:
    assert isnan(rank_correlation([1, 2, 3], [1, 3, 2]).low)
