from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from torch import Tensor

from clvr_bench.ops.sinkhorn import sinkhorn


def cosines(samples: int, prototypes: int, seed: int) -> Tensor:
    return torch.rand(samples, prototypes, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def naive_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    """Equation 5 as it is printed: Diag(u) exp(C^T Z / epsilon) Diag(v), the two marginals of equation 4 by turns."""
    samples, prototypes = scores.shape
    kernel = [[math.exp(scores[b, k].item() / epsilon) for b in range(samples)] for k in range(prototypes)]
    u, v = [1.0] * prototypes, [1.0] * samples
    for _ in range(iterations):
        u = [1 / prototypes / sum(kernel[k][b] * v[b] for b in range(samples)) for k in range(prototypes)]
        v = [1 / samples / sum(u[k] * kernel[k][b] for k in range(prototypes)) for b in range(samples)]
    return [[samples * u[k] * kernel[k][b] * v[b] for k in range(prototypes)] for b in range(samples)]


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize(("samples", "prototypes"), [(1, 3), (8, 5), (5, 11)])
def test_codes_are_equation_5(samples: int, prototypes: int, iterations: int) -> None:
    scores = cosines(samples, prototypes, seed=samples)
    expected = torch.tensor(naive_sinkhorn(scores, 0.05, iterations))
    torch.testing.assert_close(sinkhorn(scores, 0.05, iterations), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("epsilon", [0.03, 0.05, 0.5])
def test_codes_are_lightlys(epsilon: float) -> None:
    scores = cosines(20, 12, seed=1)
    torch.testing.assert_close(
        sinkhorn(scores, epsilon), lightly_sinkhorn(scores, epsilon=epsilon), atol=1e-5, rtol=1e-4
    )


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 20), prototypes=st.integers(1, 20), epsilon=st.floats(0.01, 5), seed=st.integers(0, 1000))
def test_the_code_of_a_sample_is_a_distribution(samples: int, prototypes: int, epsilon: float, seed: int) -> None:
    codes = sinkhorn(cosines(samples, prototypes, seed), epsilon)
    assert (codes >= 0).all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(samples), atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_the_order_of_samples_and_prototypes_does_not_matter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = cosines(9, 6, seed)
    rows, columns = torch.randperm(9, generator=generator), torch.randperm(6, generator=generator)
    permuted = sinkhorn(scores[rows][:, columns])
    torch.testing.assert_close(permuted, sinkhorn(scores)[rows][:, columns], atol=1e-5, rtol=1e-4)


def test_in_the_limit_every_prototype_has_an_equal_share_of_the_samples() -> None:
    codes = sinkhorn(cosines(30, 6, seed=2), epsilon=0.5, iterations=200)
    torch.testing.assert_close(codes.sum(dim=0), torch.full((6,), 30 / 6), atol=1e-4, rtol=0)


def test_a_favoured_prototype_is_shared_out() -> None:
    scores = cosines(40, 4, seed=3) * 0.1
    scores[:, 0] += 1  # the nearest one of all samples
    assert scores.softmax(dim=1).argmax(dim=1).unique().tolist() == [0]
    assert sinkhorn(scores).sum(dim=0)[0] == pytest.approx(10, abs=1)


def test_a_large_epsilon_makes_codes_uniform() -> None:
    torch.testing.assert_close(sinkhorn(cosines(7, 5, seed=4), epsilon=1e4), torch.full((7, 5), 0.2), atol=1e-4, rtol=0)


def test_a_small_epsilon_makes_codes_hard_where_exponentials_would_overflow() -> None:
    scores = torch.eye(5)[[3, 0, 4, 1, 2]]
    torch.testing.assert_close(sinkhorn(scores, epsilon=1e-3), scores)
    assert lightly_sinkhorn(scores, epsilon=1e-3).isnan().any()  # the one difference


def test_codes_have_no_gradient() -> None:
    assert not sinkhorn(cosines(4, 3, seed=5).requires_grad_()).requires_grad
