"""What can be read from features without labels: rank, spread, alignment and uniformity."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clvr_bench.errors import ClvrBenchError

_RANKME_EPSILON = 1e-7  # the paper's, for float32


def rankme(features: Tensor) -> Tensor:
    """Return the effective rank ``exp(-sum_i p_i log p_i)``, ``p_i = s_i / sum_j s_j + 1e-7`` for singular values s.

    Args:
        features: (N, D) float, as they are: neither centred nor normalized.

    Returns:
        () float64, without unit, from 1 (collapsed to a line) to min(N, D) (all directions alike).

    Source: RankMe, Garrido et al. 2023, https://arxiv.org/abs/2210.02885, equation 1.
    """
    tall = features.double() if len(features) >= features.shape[1] else features.double().T
    # Eigenvalues of the small Gram matrix cost far less than singular values; float64 makes up for the squaring.
    singular = torch.linalg.eigvalsh(tall.T @ tall).clamp(min=0.0).sqrt()  # (min(N, D),)
    shares = singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny) + _RANKME_EPSILON
    return torch.exp(-torch.sum(shares * shares.log()))


def spread(features: Tensor) -> Tensor:
    """Return ``sqrt(D) * mean_d std_n(f_nd / ||f_n||)``: how far normalized features are from one single point.

    Args:
        features: (N, D) float.

    Returns:
        () without unit, from 0 (collapsed) to 1 (isotropic).

    Source: SimSiam, Chen and He 2021, https://arxiv.org/abs/2011.10566, figure 2, there without the factor sqrt(D).
    """
    deviation = normalize(features, dim=1).std(dim=0, correction=0)  # (D,)
    return deviation.mean() * math.sqrt(features.shape[1])


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Return ``mean_n ||f_n / ||f_n|| - g_n / ||g_n|| ||^2`` over positive pairs (f_n, g_n).

    Args:
        first: (N, D) float, features of one view of each sample.
        second: (N, D) float, features of another.

    Returns:
        () squared distance on the unit sphere, from 0 (views agree) to 4 (opposite).

    Source: Wang and Isola 2020, https://arxiv.org/abs/2005.10242, section 4.1, with alpha = 2.
    """
    difference = normalize(first, dim=1) - normalize(second, dim=1)
    return difference.square().sum(dim=1).mean()


def uniformity(features: Tensor) -> Tensor:
    """Return ``log mean exp(-2 ||f_n / ||f_n|| - f_m / ||f_m|| ||^2)`` over all pairs n != m.

    Args:
        features: (N, D) float, at least two; N x N distances are held at once.

    Returns:
        () without unit, from -8 (two opposite points; about -4 for many points all over the sphere) to 0 (collapsed).

    Raises:
        ClvrBenchError: There are fewer than two features.

    Source: Wang and Isola 2020, https://arxiv.org/abs/2005.10242, section 4.1, with t = 2.
    """
    count = len(features)
    if count < 2:
        raise ClvrBenchError(f"uniformity: expected at least 2 features, got {count}. Use a split with more samples.")
    points = normalize(features, dim=1)
    squares = points.square().sum(dim=1)  # 1, or 0 for a feature of zero length
    distances = (squares[:, None] + squares - 2 * points @ points.T).clamp(min=0.0)  # (N, N)
    exponents = (-2 * distances).fill_diagonal_(-torch.inf)  # no point is a pair with itself
    return exponents.flatten().logsumexp(dim=0) - math.log(count * (count - 1))
