import math

import pytest
import torch

from clvr_bench import ClvrBenchError
from clvr_bench.ops.health import alignment, rankme, spread, uniformity


def test_rankme_of_rank_one_features_is_one() -> None:
    features = torch.randn(50, 1) * torch.randn(1, 8)
    assert rankme(features).item() == pytest.approx(1.0, abs=1e-3)


def test_rankme_of_orthonormal_features_is_their_number() -> None:
    basis = torch.linalg.qr(torch.randn(40, 6))[0]
    assert rankme(basis).item() == pytest.approx(6.0, abs=1e-3)
    assert rankme(basis.T).item() == pytest.approx(6.0, abs=1e-3)


def test_rankme_is_the_entropy_of_the_singular_values() -> None:
    features = torch.randn(30, 5) * torch.tensor([1.0, 2.0, 5.0, 0.1, 0.01])
    values = torch.linalg.svdvals(features.double())
    shares = [value.item() / values.sum().item() + 1e-7 for value in values]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert rankme(features).item() == pytest.approx(expected, rel=1e-6)


def test_rankme_does_not_depend_on_the_scale() -> None:
    features = torch.randn(30, 5)
    assert rankme(features * 1e4).item() == pytest.approx(rankme(features).item(), rel=1e-6)


def test_rankme_of_zeros_is_finite() -> None:
    assert rankme(torch.zeros(10, 4)).item() == pytest.approx(1.0, abs=1e-4)


def test_spread_of_collapsed_features_is_zero() -> None:
    features = torch.rand(30, 1).add(0.1) * torch.tensor([[1.0, -2.0, 3.0]])  # one direction, many lengths
    assert spread(features).item() == pytest.approx(0.0, abs=1e-6)


def test_spread_of_isotropic_features_is_one() -> None:
    features = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0))
    assert spread(features).item() == pytest.approx(1.0, abs=0.01)


def test_spread_of_plus_and_minus_basis_vectors_has_its_closed_form() -> None:
    """Each of D coordinates is +1 once, -1 once and else 0 in 2 D points: its deviation is sqrt(2 / 2 D)."""
    features = torch.cat([torch.eye(9), -torch.eye(9)])
    assert spread(features).item() == pytest.approx(1.0, abs=1e-6)


def test_alignment_of_identical_pairs_is_zero_whatever_their_length() -> None:
    features = torch.randn(20, 6)
    assert alignment(features, 3 * features).item() == pytest.approx(0.0, abs=1e-6)


def test_alignment_is_four_for_opposite_and_two_for_orthogonal_pairs() -> None:
    first = torch.tensor([[1.0, 0.0]])
    assert alignment(first, -5 * first).item() == pytest.approx(4.0)
    assert alignment(first, torch.tensor([[0.0, 2.0]])).item() == pytest.approx(2.0)


def test_uniformity_of_collapsed_features_is_zero() -> None:
    assert uniformity(torch.ones(10, 4)).item() == pytest.approx(0.0, abs=1e-5)


def test_uniformity_of_orthonormal_features_is_minus_four() -> None:
    assert uniformity(7 * torch.eye(6)).item() == pytest.approx(-4.0, abs=1e-5)


def test_uniformity_averages_over_distinct_pairs_only() -> None:
    points = torch.nn.functional.normalize(torch.randn(7, 3), dim=1)
    terms = [math.exp(-2 * (points[i] - points[j]).square().sum().item()) for i in range(7) for j in range(i)]
    assert uniformity(points).item() == pytest.approx(math.log(sum(terms) / len(terms)), abs=1e-4)


def test_uniformity_of_a_single_feature_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match="at least 2 features, got 1"):
        uniformity(torch.ones(1, 4))
