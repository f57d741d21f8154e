"""Patches of pictures: grids of them that may overlap, pieces of each, grids drawn apart, a transformer's pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def patch_grid(images: Tensor, size: int, grid: int) -> Tensor:
    """Cut square patches on a grid that reaches from edge to edge; they overlap where they have to.

    Row i starts at pixel ``floor(i (H - size) / (grid - 1))``, and columns alike. So where two patches are at least
    ``H / (grid - 1)`` rows apart on an even grid, they are so on an uneven one, too.

    Args:
        images: (B, C, H, W).
        size: P, a patch's height and width in pixels, at most H and W.
        grid: G, patches along a side, at least 2.

    Returns:
        (B, G * G, C, P, P), row by row.

    Raises:
        ValueError: A patch is larger than the pictures, or the grid has fewer than two patches a side.
    """
    batch, channels, height, width = images.shape
    if not 1 <= size <= min(height, width) or grid < 2:
        raise ValueError(f"patch_grid: {height} x {width} pixels have no {grid} x {grid} grid of {size} px patches")
    rows, columns = (_covered(side, size, grid, images.device) for side in (height, width))
    pixels = images.index_select(2, rows).index_select(3, columns)  # (B, C, G * P, G * P)
    pixels = pixels.view(batch, channels, grid, size, grid, size).permute(0, 2, 4, 1, 3, 5)  # (B, G, G, C, P, P)
    return pixels.reshape(batch, grid * grid, channels, size, size)


def tiled(patches: Tensor, gap: int = 0, fill: float = 1.0) -> Tensor:
    """Lay the patches of a square grid out as a picture again, drawn apart, for people to look at.

    Args:
        patches: (B, G * G, C, P, P), row by row, as ``patch_grid`` cuts them.
        gap: Pixels between neighbours.
        fill: Their value, in [0, 1].

    Returns:
        (B, C, S, S) with S = G * P + (G - 1) * gap. Without a gap this undoes a cut without overlap.

    Raises:
        ValueError: The patches make no square grid.
    """
    batch, count, channels, size = patches.shape[:4]
    grid = math.isqrt(count)
    if grid**2 != count:
        raise ValueError(f"tiled: {count} patches make no square grid")
    apart = F.pad(patches, (0, gap, 0, gap), value=fill).view(batch, grid, grid, channels, size + gap, size + gap)
    side = grid * (size + gap)
    return apart.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, side, side)[:, :, : side - gap, : side - gap]


def _covered(side: int, size: int, grid: int, device: torch.device) -> Tensor:
    """Return the pixels (G * P,) of one axis that G patches of P pixels cover, patch by patch."""
    starts = torch.arange(grid, device=device) * (side - size) // (grid - 1)
    return (starts[:, None] + torch.arange(size, device=device)).flatten()


def cut_pieces(patches: Tensor, size: int, corners: Tensor) -> Tensor:
    """Cut one square piece out of every patch.

    Args:
        patches: (B, N, C, P, P).
        size: S, a piece's height and width in pixels, at most P.
        corners: (B, N, 2) int64, each piece's top and left within its patch, from 0 to P - S.

    Returns:
        (B, N, C, S, S).
    """
    channels, side = patches.shape[2], patches.shape[-1]
    rows, columns = (corners[..., axis, None] + torch.arange(size, device=corners.device) for axis in (0, 1))
    pieces = patches.gather(3, rows[:, :, None, :, None].expand(-1, -1, channels, -1, side))  # (B, N, C, S, P)
    return pieces.gather(4, columns[:, :, None, None, :].expand(-1, -1, channels, size, -1))


def enlarged_side(side: int, times: float, multiple: int) -> int:
    """Return a side enlarged, in whole pixels, rounded up to a multiple, such as the least that an encoder takes.

    Args:
        side: In pixels.
        times: By what; 1 leaves it.
        multiple: Of what the result is one.
    """
    return multiple * math.ceil(round(times * side) / multiple)


def resized(patches: Tensor, side: int) -> Tensor:
    """Resize patches (B, N, C, P, P) to (B, N, C, S, S), S = side, bilinearly; of that size they stay as they are."""
    if patches.shape[-1] == side:
        return patches
    enlarged = F.interpolate(patches.flatten(0, 1), size=(side, side), mode="bilinear")
    return enlarged.view(*patches.shape[:3], side, side)


def patchify(images: Tensor, size: int) -> Tensor:
    """Cut pictures into the patches that a vision transformer embeds, without overlap, each as one vector.

    Args:
        images: (B, C, H, W); H and W are multiples of ``size``.
        size: P, a patch's height and width in pixels.

    Returns:
        (B, H/P * W/P, P * P * C), in raster order; within a patch row by row, the channels of a pixel together.

    Raises:
        ValueError: A side is not a multiple of ``size``.
    """
    batch, channels, height, width = images.shape
    if height % size or width % size:
        raise ValueError(f"patchify: {height} x {width} pixels cannot be cut into patches of {size} px")
    pixels = images.reshape(batch, channels, height // size, size, width // size, size)
    return pixels.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, size * size * channels)
