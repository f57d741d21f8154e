"""What all operations on pictures share: stored values to [0, 1], one parameter a sample."""

from __future__ import annotations

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
