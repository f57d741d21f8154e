"""PCA whitening: the leading principal components of features, each with unit variance."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_VARIANCE = 1e-6  # of the largest; float32 features hold no more, and whitening would blow up what is noise
_CHUNK = 1 << 16  # samples in float64 at once


@torch.no_grad()
def pca_whiten(features: Tensor, dimensions: int) -> Tensor:
    """Project features on their principal components and scale each to unit variance.

    Args:
        features: (N, D) float32.
        dimensions: How many components are kept, at most; D or more keep all.

    Returns:
        (N, min(dimensions, D)) float32, the component of the greatest variance first; components without variance
        are zero.
    """
    centred = features - features.mean(dim=0)
    covariance = _second_moment(centred) / len(features)
    variances, axes = torch.linalg.eigh(covariance)  # in ascending order
    variances, axes = variances.flip(0)[:dimensions], axes.flip(1)[:, :dimensions]
    scale = torch.where(variances > _LEAST_VARIANCE * variances[0], variances.clamp(min=0).rsqrt(), 0.0)
    white: Tensor = centred @ (axes * scale).to(centred.dtype)
    return white


def _second_moment(features: Tensor) -> Tensor:
    """Return the sum (D, D) float64 of all f f^T of features (N, D)."""
    total = features.new_zeros(features.shape[1], features.shape[1], dtype=torch.float64)
    for part in features.split(_CHUNK):
        total += part.double().T @ part.double()
    return total
