from __future__ import annotations

import torch

from clvr_bench.toolbox import Standardizer, strongest_best


def test_standardized_features_have_mean_0_and_deviation_1() -> None:
    features = torch.randn(500, 3) * torch.tensor([1e-3, 1.0, 1e3]) + 5
    standard = Standardizer.of(features)(features)
    torch.testing.assert_close(standard.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_variation_within_rounding_counts_as_constant() -> None:
    features = torch.ones(100, 1)
    features[::2] += torch.finfo(torch.float32).eps
    assert Standardizer.of(features)(features).abs().max() == 0


def test_of_equal_accuracies_the_strongest_penalty_wins() -> None:
    assert strongest_best([50.0, 60.0, 60.0, 40.0]) == 2
