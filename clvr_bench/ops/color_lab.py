"""Between sRGB and CIE Lab under the D65 white point, batched; Lab scaled for networks. Other color is in ``color``."""

from __future__ import annotations

import torch
from torch import Tensor

from clvr_bench.errors import ClvrBenchError

# Linear red, green and blue to X, Y, Z; IEC 61966-2-1:1999 prints four digits. The rows' sums are its D65 white.
_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
_FROM_XYZ = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))
_DELTA = 6 / 29  # of Lab's f, which is linear below its cube

LAB_RANGES = ((0.0, 100.0), (-86.2, 98.3), (-107.9, 94.5))
"""Lowest and highest L, a and b of sRGB colors, rounded outwards: green to magenta, blue to yellow."""


def rgb_to_lab(pixels: Tensor) -> Tensor:
    """Convert colors to CIE 1976 L*a*b*.

    Args:
        pixels: (B, ..., 3, H, W) float32 sRGB in [0, 1], gamma-encoded as pictures are stored.

    Returns:
        (B, ..., 3, H, W) float32: L in [0, 100], a and b in ``LAB_RANGES``, 0 for grays.

    Raises:
        ClvrBenchError: The pictures have not three channels.

    Source:
        IEC 61966-2-1:1999 (sRGB); ISO/CIE 11664-4:2019 (Lab).
    """
    if pixels.shape[-3] != 3:
        raise ClvrBenchError(
            f"Lab: pictures must have 3 channels (red, green, blue), got {pixels.shape[-3]}. Use color pictures."
        )
    red, green, blue = _linear(pixels).unbind(-3)
    x, y, z = (_f((r * red + g * green + b * blue) / (r + g + b)) for r, g, b in _TO_XYZ)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def unit_lab(lab: Tensor) -> Tensor:
    """Scale L, a and b linearly from ``LAB_RANGES`` to [-1, 1].

    Args:
        lab: (B, ..., 3, H, W) float32, as ``rgb_to_lab`` gives it.

    Returns:
        (B, ..., 3, H, W) float32 in [-1, 1].
    """
    parts = zip(lab.unbind(-3), LAB_RANGES, strict=True)
    return torch.stack([(2 * part - low - high) / (high - low) for part, (low, high) in parts], dim=-3)


def from_unit_lab(lab: Tensor) -> Tensor:
    """Undo ``unit_lab``: (B, ..., 3, H, W) in [-1, 1] to L, a and b in ``LAB_RANGES``."""
    parts = zip(lab.unbind(-3), LAB_RANGES, strict=True)
    return torch.stack([(part * (high - low) + low + high) / 2 for part, (low, high) in parts], dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert Lab back to sRGB, for people to look at; what lies outside of sRGB is clipped.

    Args:
        lab: (B, ..., 3, H, W) float32, as ``rgb_to_lab`` gives it.

    Returns:
        (B, ..., 3, H, W) float32 in [0, 1].

    Source:
        IEC 61966-2-1:1999 (sRGB) for the matrix and the gamma; ISO/CIE 11664-4:2019 (Lab) for the rest.
    """
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    x, y, z = (sum(row) * _cubed(f) for f, row in zip((y + a / 500, y, y - b / 200), _TO_XYZ, strict=True))
    linear = torch.stack([r * x + g * y + b * z for r, g, b in _FROM_XYZ], dim=-3).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).clamp(0, 1)


def _linear(pixels: Tensor) -> Tensor:
    """Undo sRGB's gamma."""
    return torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)


def _f(share: Tensor) -> Tensor:
    """Apply Lab's cube root to X, Y or Z as a share of white's, with its linear part near black."""
    return torch.where(share > _DELTA**3, share ** (1 / 3), share / (3 * _DELTA**2) + 4 / 29)


def _cubed(f: Tensor) -> Tensor:
    """Undo Lab's cube root, with its linear part near black."""
    return torch.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
