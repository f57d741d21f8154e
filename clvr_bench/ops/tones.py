"""Batched changes of tone and sharpness, and noise; for the same parameters, a sample has torchvision's pixels.

Pictures are (B, ..., C, H, W), uint8 or float32 in [0, 1]; clips have their frames between B and C.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench.ops.pixels import per_sample, unit_range


def solarize(pixels: Tensor, threshold: float | Tensor, chosen: Tensor | None = None) -> Tensor:
    """Invert the values from a threshold on; darker ones stay.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        threshold: In [0, 1], one for all or (B,); values that equal it are inverted.
        chosen: (B,) bool, which samples are solarized; all where None. The others are bit-identical.

    Returns:
        float32 pictures of the same shape, in [0, 1].
    """
    pixels = unit_range(pixels)
    inverted = pixels >= (per_sample(threshold, pixels) if isinstance(threshold, Tensor) else threshold)
    if chosen is not None:
        inverted &= per_sample(chosen, pixels)
    return torch.where(inverted, 1 - pixels, pixels)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Round values down to a few evenly spaced ones.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        bits: (B,) whole numbers, 1 or more: there are ``2 ** bits`` values, from 0 to just below 1.

    Returns:
        float32 pictures of the same shape, in [0, 1].
    """
    pixels = unit_range(pixels)
    levels = per_sample(torch.exp2(bits.float()), pixels)
    return (pixels * levels).floor_().minimum(levels - 1).div_(levels)


def adjust_sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move each picture from a smoothed one (0), or away from it (above 1); 1 changes nothing. Edge pixels stay.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1]; pictures of less than 3 pixels a side stay as they are.
        factor: (B,) non-negative.

    Returns:
        float32 pictures of the same shape, clamped to [0, 1].
    """
    pixels = unit_range(pixels)
    height, width = pixels.shape[-2:]
    if min(height, width) < 3:
        return pixels
    inner = pixels[..., 1:-1, 1:-1]
    squares = F.avg_pool2d(pixels.reshape(len(pixels), -1, height, width), 3, stride=1).view(inner.shape)
    smoothed = pixels.clone()
    smoothed[..., 1:-1, 1:-1] = (9 * squares + 4 * inner) / 13  # the middle of 3 x 3 pixels counts five times
    return torch.lerp(smoothed, pixels, per_sample(factor, pixels)).clamp_(0, 1)


def add_noise(pixels: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
    """Add noise to each sample.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        noise: What to add at strength 1, of the same shape.
        strength: (B,); 0 changes nothing.

    Returns:
        float32 pictures of the same shape, clamped to [0, 1].
    """
    return torch.addcmul(unit_range(pixels), noise, per_sample(strength, pixels)).clamp_(0, 1)
