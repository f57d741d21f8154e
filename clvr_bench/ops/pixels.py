"""What all operations on pictures share: stored values to [0, 1], a parameter a sample, changing some samples alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def unit_range(pixels: Tensor) -> Tensor:
    """Return pictures in [0, 1].

    Args:
        pixels: uint8, or float in [0, 1], of any shape.

    Returns:
        float32, of the same shape; float pictures themselves.
    """
    return pixels if pixels.is_floating_point() else pixels.float().mul_(unit(pixels))


def unit(pixels: Tensor) -> float:
    """Return what a stored value is multiplied by to lie in [0, 1]."""
    return 1.0 if pixels.is_floating_point() else 1 / 255


def per_sample(values: Tensor, pixels: Tensor) -> Tensor:
    """Shape (B,) values so that they broadcast over each sample's pixels (B, ..., C, H, W)."""
    return values.view(-1, *(1,) * (pixels.ndim - 1))


def change_chosen(change: Callable[..., Tensor], chosen: Tensor | None, pixels: Tensor, *parameters: Tensor) -> Tensor:
    """Change some samples and leave the others bit-identical.

    On an accelerator all are changed and most may be thrown away, for finding out which were chosen would make it wait.

    Args:
        change: Maps pictures and their parameters to pictures of the same shape and type.
        chosen: (B,) bool; None means all.
        pixels: (B, ..., C, H, W).
        *parameters: (B, ...) each.

    Returns:
        Pictures of the same shape, in memory of their own unless ``change`` returns what it is given.
    """
    if chosen is None:
        return change(pixels, *parameters)
    if not _may_pick(pixels):
        return torch.where(per_sample(chosen, pixels), change(pixels, *parameters), pixels)
    index = chosen.nonzero()[:, 0]
    if not len(index):
        return pixels.clone()
    return pixels.index_copy(0, index, change(pixels[index], *(values[index] for values in parameters)))


def _may_pick(pixels: Tensor) -> bool:
    return pixels.device.type == "cpu"
