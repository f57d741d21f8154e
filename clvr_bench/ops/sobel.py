"""Sobel's filter: pictures to their vertical and horizontal edges, or to how strong these are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench.ops.pixels import unit_range

_FULL_EDGE = 4.0  # the response to a step from black to white along a row or a column


def sobel(images: Tensor) -> Tensor:
    """Take the colour out of pictures and filter them for edges.

    Args:
        images: (B, C, H, W) float; the mean over channels is filtered, and zeros lie around the picture.

    Returns:
        (B, 2, H, W): left minus right, and above minus below, each weighted 1, 2, 1 across.
    """
    return F.conv2d(images.mean(dim=1, keepdim=True), _kernels(images), padding=1)


def edge_strength(pixels: Tensor) -> Tensor:
    """Filter each channel for edges and take their length, whatever their direction; the border is repeated outwards.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].

    Returns:
        float32 pictures of the same shape, in [0, 1]: 0 where all is even, 1 at a step from black to white. Steps that
        are oblique may be stronger and are clamped.
    """
    planes = unit_range(pixels).reshape(-1, 1, *pixels.shape[-2:])
    edges = F.conv2d(F.pad(planes, (1, 1, 1, 1), mode="replicate"), _kernels(planes))  # (N, 2, H, W)
    strength: Tensor = torch.linalg.vector_norm(edges, dim=1)
    return strength.div_(_FULL_EDGE).clamp_(max=1).view(pixels.shape)


def _kernels(images: Tensor) -> Tensor:
    """Return both directions' weights (2, 1, 3, 3)."""
    along = torch.arange(1, -2, -1, dtype=images.dtype, device=images.device)  # 1, 0, -1
    across = 2 - along.abs()  # 1, 2, 1
    return torch.stack([torch.outer(across, along), torch.outer(along, across)])[:, None]
