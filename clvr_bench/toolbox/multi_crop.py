"""Batches whose views have several sizes: which of them are global, and how they pass an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from clvr_bench.contracts.values import Batch


def global_views(batch: Batch) -> list[int]:
    """Return the numbers of a batch's views of the role ``"global"``; of all views where they are alike.

    Args:
        batch: As ``forward`` gets it, of a task that takes ``"multi"`` views.
    """
    if not batch.roles:
        return list(range(len(batch.views)))
    return [number for number, role in enumerate(batch.roles) if role == "global"]


def encode_by_size(encoder: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Encode V views (B, C, size, size), neighbours of one size in one batch: features (VB, D), view by view."""
    groups = groupby(views, key=lambda view: view.shape[-2:])
    return torch.cat([encoder(torch.cat(tuple(group))) for _, group in groups])
