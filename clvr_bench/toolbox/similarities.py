"""How alike the views of a batch are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def view_similarities(embeddings: Tensor, temperature: float) -> Tensor:
    """Compute the cosine similarities of all views with one another over a temperature, in float32.

    They are the exponents of SimCLR's equation 1 (Chen et al. 2020, https://arxiv.org/abs/2002.05709), where a view is
    never compared with itself.

    Args:
        embeddings: (2B, P), of any length.
        temperature: tau, positive.

    Returns:
        (2B, 2B), minus infinity on the diagonal.
    """
    with torch.autocast(embeddings.device.type, enabled=False):  # bfloat16 would round what the temperature magnifies
        normalized = F.normalize(embeddings.float(), dim=1)
        return (normalized @ normalized.T / temperature).fill_diagonal_(float("-inf"))
