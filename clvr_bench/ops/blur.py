"""Batched Gaussian blur: each sample's own width, by small matrix products over stretches of rows and columns."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench.errors import ClvrBenchError
from clvr_bench.ops.chunks import cache_sized
from clvr_bench.ops.pixels import change_chosen, unit_range

_STRETCH = 32  # pixels of the result that one product makes; longer ones multiply more zeros, shorter ones overlap more


def tenth_of(side: int) -> int:
    """Return the taps of a blur that is cut off at a tenth of a picture's side, made odd: 23 at 224 px.

    Args:
        side: Height and width of the pictures in pixels.
    """
    return 2 * (side // 20) + 1


def gaussian_blur(pixels: Tensor, sigma: Tensor, kernel_size: int, chosen: Tensor | None = None) -> Tensor:
    """Blur each sample with its own Gaussian, mirroring the picture at its edges (the edge itself not repeated).

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        sigma: (B,) positive standard deviations in pixels.
        kernel_size: Taps of the cut-off Gaussian, odd and less than twice the shorter side.
        chosen: (B,) bool, which samples are blurred; all where None. The others are bit-identical.

    Returns:
        float32 pictures of the same shape, in [0, 1].

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
    return change_chosen(_blur, chosen, unit_range(pixels), taps)


def _blur(pixels: Tensor, taps: Tensor) -> Tensor:
    blurred = torch.empty_like(pixels)
    for part in cache_sized(pixels):
        band, planes = _band(taps[part]), pixels[part].flatten(1, -3)  # (B, P, H, W)
        with torch.autocast(pixels.device.type, enabled=False):
            done = _along_columns(_along_rows(planes, band), band)
        blurred[part] = done.view(pixels[part].shape).clamp(0, 1)
    return blurred


def _along_rows(planes: Tensor, band: Tensor) -> Tensor:
    """Blur the rows of planes (B, P, H, W), a stretch at a time, by (B, stretch + 2r, stretch)."""
    reach, stretch = band.shape[1:]
    radius, width = (reach - stretch) // 2, planes.shape[3]
    mirrored = F.pad(planes, (radius, radius, 0, 0), mode="reflect")
    windows = F.pad(mirrored, (0, -width % stretch)).unfold(3, reach, stretch)  # (B, P, H, n, stretch + 2r)
    made = torch.bmm(windows.reshape(len(planes), -1, reach), band)  # (B, P * H * n, stretch)
    return made.view(*planes.shape[:3], -1)[..., :width]


def _along_columns(planes: Tensor, band: Tensor) -> Tensor:
    """Blur the columns of planes (B, P, H, W) likewise."""
    reach, stretch = band.shape[1:]
    radius, height = (reach - stretch) // 2, planes.shape[2]
    mirrored = F.pad(planes, (0, 0, radius, radius), mode="reflect")
    windows = F.pad(mirrored, (0, 0, 0, -height % stretch)).unfold(2, reach, stretch)  # (B, P, n, W, stretch + 2r)
    made = torch.matmul(band.mT[:, None, None], windows.mT)  # (B, P, n, stretch, W)
    return made.flatten(2, 3)[:, :, :height]


def _taps(sigma: Tensor, radius: int) -> Tensor:
    """Return the kernel's weights at distances 0 to r and, last, a zero for all beyond: (B, r + 2)."""
    distance = torch.arange(radius + 1, device=sigma.device) / sigma[:, None]
    half = distance.square_().mul_(-0.5).exp_()
    half /= 2 * half.sum(1, keepdim=True) - half[:, :1]
    return F.pad(half, (0, 1))


def _band(taps: Tensor) -> Tensor:
    """Write the blur of a stretch as a matrix (B, stretch + 2r, stretch), from the weights (B, r + 2)."""
    radius = taps.shape[1] - 2
    place = torch.arange(_STRETCH + 2 * radius, device=taps.device)
    distance = (place[:, None] - radius - place[:_STRETCH]).abs()
    return taps[:, distance.clamp(max=radius + 1)]
