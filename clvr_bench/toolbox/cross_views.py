"""A loss between the views of a picture, where some of them give targets that the others predict."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cross_view_entropy(log_p: Tensor, targets: Sequence[Tensor], sources: Sequence[int]) -> Tensor:
    """Compute the cross-entropy of targets with what the views other than their own predict.

    Args:
        log_p: (V, B, K), the log-probabilities that each of at least two views predicts.
        targets: S tensors (B, K), probabilities.
        sources: The view that each target was made of, which does not predict it.

    Returns:
        (), a mean over samples, targets, and the V - 1 views that predict each.

    Source: SwAV (Caron et al. 2020, https://arxiv.org/abs/2006.09882), equation 6; DINO (Caron et al. 2021,
        https://arxiv.org/abs/2104.14294), equation 3.
    """
    total = log_p.sum(dim=0)
    losses = [
        -(target * (total - log_p[view])).sum(dim=1).mean() for view, target in zip(sources, targets, strict=True)
    ]
    return torch.stack(losses).mean() / (len(log_p) - 1)
