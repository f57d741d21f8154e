"""Sobel's filter: pictures to their vertical and horizontal edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sobel(images: Tensor) -> Tensor:
    """Take the colour out of pictures and filter them for edges.

    Args:
        images: (B, C, H, W) float; the mean over channels is filtered, and zeros lie around the picture.

    Returns:
        (B, 2, H, W): left minus right, and above minus below, each weighted 1, 2, 1 across.
    """
    grey = images.mean(dim=1, keepdim=True)
    across = torch.tensor([1.0, 2.0, 1.0], dtype=grey.dtype, device=grey.device)
    along = torch.tensor([1.0, 0.0, -1.0], dtype=grey.dtype, device=grey.device)
    kernels = torch.stack([torch.outer(across, along), torch.outer(along, across)])[:, None]  # (2, 1, 3, 3)
    return F.conv2d(grey, kernels, padding=1)
