"""Weighted k-nearest-neighbour classification by cosine similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

_CHUNK_ENTRIES = 1 << 25  # similarities held at once: 128 MiB in float32


def weighted_knn(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, num_classes: int, k: int, temperature: float = 0.07
) -> Tensor:
    """Let the k nearest samples of a bank vote, each with weight ``exp(cosine / temperature)``.

    Args:
        bank: (N, D) float, of any length; only directions count.
        bank_labels: (N,) int64 in [0, K).
        queries: (M, D) float.
        num_classes: K.
        k: Neighbours that vote, at most N.
        temperature: Positive; smaller ones favour the nearest.

    Returns:
        (M, K): each class's share of the votes, in [0, 1], with sum 1 over the classes.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4, here divided by the sum of all votes, which
        leaves the order of the classes alone and cannot overflow.
    """
    bank = normalize(bank, dim=1)
    rows = max(1, _CHUNK_ENTRIES // max(len(bank), k * num_classes))
    chunks = [_vote(bank, bank_labels, chunk, num_classes, k, temperature) for chunk in torch.split(queries, rows)]
    return torch.cat(chunks)


def _vote(bank: Tensor, bank_labels: Tensor, queries: Tensor, num_classes: int, k: int, temperature: float) -> Tensor:
    """Score one chunk (m, D) against a normalized bank."""
    similarity, nearest = (normalize(queries, dim=1) @ bank.T).topk(k, dim=1)  # (m, k)
    weights = (similarity / temperature).softmax(dim=1)
    # A product with one-hot labels: unlike scatter_add, it sums in one fixed order on an accelerator as well.
    votes = one_hot(bank_labels[nearest], num_classes).to(weights.dtype)  # (m, k, K)
    return (weights[:, None] @ votes).squeeze(1)  # (m, K)
