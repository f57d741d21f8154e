"""Batched Gaussian blur: each sample's own width, by two small matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from clvr_bench.errors import ClvrBenchError
from clvr_bench.ops.chunks import cache_sized
from clvr_bench.ops.crops import separable


def gaussian_blur(pixels: Tensor, sigma: Tensor, kernel_size: int, chosen: Tensor | None = None) -> Tensor:
    """Blur each sample with its own Gaussian, mirroring the picture at its edges (the edge itself not repeated).

    Args:
        pixels: (B, ..., C, H, W) float32 in [0, 1].
        sigma: (B,) positive standard deviations in pixels.
        kernel_size: Taps of the cut-off Gaussian, odd and less than twice the shorter side.
        chosen: (B,) bool, which samples are blurred; all where None. The others are bit-identical.

    Returns:
        Pictures of the same shape, in [0, 1].

    Raises:
        ClvrBenchError: The kernel has an even number of taps, or is too long for the pictures.
    """
    height, width = pixels.shape[-2:]
    if kernel_size % 2 == 0 or not 0 < kernel_size < 2 * min(height, width):
        raise ClvrBenchError(
            f"gaussian_blur: kernel_size must be odd and less than twice the shorter side, got {kernel_size} "
            f"for pictures of {height} x {width} pixels."
        )
    taps = _taps(sigma, kernel_size // 2)  # (B, r + 2)
    if chosen is not None and pixels.device.type == "cpu":
        return _blur_subset(pixels, taps, chosen.nonzero()[:, 0])
    blurred = _blur(pixels, taps)
    return blurred if chosen is None else torch.where(chosen.view(-1, *(1,) * (pixels.ndim - 1)), blurred, pixels)


def _blur(pixels: Tensor, taps: Tensor) -> Tensor:
    height, width = pixels.shape[-2:]
    blurred = torch.empty_like(pixels)
    for part in cache_sized(pixels):
        rows, columns = _band(taps[part], height), _band(taps[part], width)
        blurred[part] = separable(pixels[part], rows, columns).clamp_(0, 1)
    return blurred


def _blur_subset(pixels: Tensor, taps: Tensor, index: Tensor) -> Tensor:
    """Blur the samples at (M,) positions only; for the CPU, where finding them makes nobody wait."""
    return pixels.index_copy(0, index, _blur(pixels[index], taps[index]))


def _taps(sigma: Tensor, radius: int) -> Tensor:
    """Return the kernel's weights at distances 0 to r and, last, a zero for all beyond: (B, r + 2)."""
    distance = torch.arange(radius + 1, device=sigma.device) / sigma[:, None]
    half = distance.square_().mul_(-0.5).exp_()
    half /= 2 * half.sum(1, keepdim=True) - half[:, :1]
    return functional.pad(half, (0, 1))


def _band(taps: Tensor, size: int) -> Tensor:
    """Write the blur of an axis as a matrix (B, size, size): each pixel counts itself and its two mirror images."""
    beyond = taps.shape[1] - 1
    pixel = torch.arange(size, device=taps.device)
    to, source = pixel[:, None], pixel[None]
    before = torch.where(source > 0, to + source, beyond)  # the mirror image of pixel j lies at -j
    after = torch.where(source < size - 1, 2 * (size - 1) - source - to, beyond)  # and at 2 (size - 1) - j
    own, left, right = (taps[:, d.clamp(max=beyond)] for d in ((to - source).abs(), before, after))
    return own + left + right
