"""Sinkhorn-Knopp: soft assignments that use every prototype equally."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Solve equation 3 approximately: codes close to the scores, each prototype with an equal share of the samples.

    Works on logarithms, so that no epsilon overflows or empties a row; else as the paper's.

    Args:
        scores: (B, K) float32, similarities of samples and prototypes.
        epsilon: Positive; larger ones make the codes smoother. The paper's is 0.05.
        iterations: How often prototypes, then samples are normalized, at least once. The paper's is 3.

    Returns:
        (B, K): Q* of equation 5, transposed and times B: each row sums to 1, each column to about B / K.

    Source: Caron et al. 2020, https://arxiv.org/abs/2006.09882, section 3.1, equations 3 to 5; Cuturi 2013,
        https://arxiv.org/abs/1306.0895.
    """
    log_codes = scores / epsilon
    for _ in range(iterations):
        log_codes = log_codes - log_codes.logsumexp(dim=0, keepdim=True)  # every prototype: a total of one
        log_codes = log_codes - log_codes.logsumexp(dim=1, keepdim=True)  # every sample: a total of one
    return log_codes.exp()
