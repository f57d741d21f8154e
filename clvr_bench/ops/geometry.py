"""Batched shifts, turns, affine maps and cut-outs of square or other pictures, with per-sample parameters.

Pictures are (B, ..., C, H, W), uint8 or float32; clips have their frames between B and C, and all frames move alike.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench.ops.pixels import unit_range

GRAY = 0.5  # what lies beyond a picture's edge


def shift_reflected(pixels: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Mirror some samples left to right, then shift each by whole pixels; what enters mirrors what is at the edge.

    Args:
        pixels: (B, ..., C, H, W).
        shift: (B, 2) int64, pixels down and to the right, less than the sides.
        flip: (B,) bool, which samples are mirrored.

    Returns:
        Pictures of the same shape and type, of the same values.
    """
    height, width = pixels.shape[-2:]
    rows = _reflected(height, shift[:, 0])  # (B, H)
    columns = _reflected(width, shift[:, 1])  # (B, W)
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    return _taken_from(pixels, rows[:, :, None] * width + columns[:, None])


def shift_gray(pixels: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Mirror some samples left to right, then shift each by whole pixels; what enters is mid-gray.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        shift: (B, 2) int64, pixels down and to the right.
        flip: (B,) bool, which samples are mirrored.

    Returns:
        float32 pictures of the same shape, in [0, 1].
    """
    rows, columns = (
        torch.arange(side, device=pixels.device) - shift[:, axis, None] for axis, side in enumerate(pixels.shape[-2:])
    )  # (B, H), (B, W): where each pixel comes from
    height, width = pixels.shape[-2:]
    beyond = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None]  # (B, H, W)
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    place = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    moved = _taken_from(unit_range(pixels), place)
    return moved.masked_fill_(beyond.view(len(pixels), *(1,) * (pixels.ndim - 3), height, width), GRAY)


def turn_quarters(pixels: Tensor, quarters: Tensor) -> Tensor:
    """Turn each square counter-clockwise by a whole number of quarter turns; no value changes.

    Args:
        pixels: (B, ..., C, H, H).
        quarters: (B,) int64, 0 to 3.

    Returns:
        Pictures of the same shape and type.
    """
    size = pixels.shape[-1]
    plain = torch.arange(size * size, device=pixels.device).view(size, size)
    turned = torch.stack([plain.rot90(quarter) for quarter in range(4)])  # (4, H, H)
    return _taken_from(pixels, turned[quarters])


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Turn each sample (B, ..., C, H, W) around its centre, counter-clockwise by (B,) degrees."""
    height, width = pixels.shape[-2:]
    cosine, sine = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    x, y = width / 2, height / 2
    return warp(pixels, (cosine, -sine, x - cosine * x + sine * y), (sine, cosine, y - sine * x - cosine * y))


def shear_x(pixels: Tensor, slope: Tensor) -> Tensor:
    """Shift each row of each sample (B, ..., C, H, W) to the left, by (B,) times its distance from the top."""
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return warp(pixels, (one, slope, zero), (zero, one, zero))


def shear_y(pixels: Tensor, slope: Tensor) -> Tensor:
    """Shift each column of each sample (B, ..., C, H, W) up, by (B,) times its distance from the left."""
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return warp(pixels, (one, zero, zero), (slope, one, zero))


def translate_x(pixels: Tensor, part: Tensor) -> Tensor:
    """Shift each sample (B, ..., C, H, W) to the left by a part (B,) of its width."""
    one, zero = torch.ones_like(part), torch.zeros_like(part)
    return warp(pixels, (one, zero, part * pixels.shape[-1]), (zero, one, zero))


def translate_y(pixels: Tensor, part: Tensor) -> Tensor:
    """Shift each sample (B, ..., C, H, W) up by a part (B,) of its height."""
    one, zero = torch.ones_like(part), torch.zeros_like(part)
    return warp(pixels, (one, zero, zero), (zero, one, part * pixels.shape[-2]))


def warp(pixels: Tensor, x: tuple[Tensor, Tensor, Tensor], y: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Map each sample affinely, to the nearest pixel; what lies beyond its edges is mid-gray.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        x: Three of (B,): the pixel at (u, v) of the result is taken from ``x[0] * u + x[1] * v + x[2]``, in pixels from
            the left edge, pixel centres at halves.
        y: Likewise, in pixels from the top edge.

    Returns:
        float32 pictures of the same shape.
    """
    pixels = unit_range(pixels)
    height, width = pixels.shape[-2:]
    u = torch.arange(width, device=pixels.device) + 0.5  # (W,)
    v = (torch.arange(height, device=pixels.device) + 0.5)[:, None]  # (H, 1)
    across, down = (a.view(-1, 1, 1) * u + b.view(-1, 1, 1) * v + c.view(-1, 1, 1) for a, b, c in (x, y))  # (B, H, W)
    grid = torch.stack([across * (2 / width) - 1, down * (2 / height) - 1], dim=-1)  # (B, H, W, 2)
    flat = pixels.reshape(len(pixels), -1, height, width)
    warped = F.grid_sample(flat - GRAY, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return warped.add_(GRAY).view(pixels.shape)


def cutout(pixels: Tensor, center: Tensor, size: int, chosen: Tensor | None = None) -> Tensor:
    """Gray out a square of each sample, as far as it lies within the picture.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        center: (B, 2) int64, the row and the column below and to the right of the square's centre.
        size: Even side of the square in pixels.
        chosen: (B,) bool, which samples are cut; all where None.

    Returns:
        float32 pictures of the same shape, in [0, 1].

    Source:
        DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552, section 3.2.
    """
    rows, columns = (
        (torch.arange(side, device=pixels.device) + 0.5 - center[:, axis, None]).abs() < size / 2
        for axis, side in enumerate(pixels.shape[-2:])
    )  # (B, H), (B, W)
    if chosen is not None:
        rows = rows & chosen[:, None]
    hidden = rows[:, :, None] & columns[:, None]  # (B, H, W)
    return unit_range(pixels).masked_fill(hidden.view(len(pixels), *(1,) * (pixels.ndim - 3), *hidden.shape[1:]), GRAY)


def _taken_from(pixels: Tensor, place: Tensor) -> Tensor:
    """Take each pixel of pictures (B, ..., C, H, W) from where (B, H, W) says, in pixels row by row."""
    flat = pixels.flatten(-2).flatten(1, -2)  # (B, ... * C, H * W)
    return flat.gather(2, place.flatten(1)[:, None].expand_as(flat)).view(pixels.shape)


def _reflected(size: int, shift: Tensor) -> Tensor:
    """Say which pixel of an axis comes to each place (B, size) after a shift (B,); the edge itself is not repeated."""
    source = (torch.arange(size, device=shift.device) - shift[:, None]).abs()
    return torch.minimum(source, 2 * (size - 1) - source)
