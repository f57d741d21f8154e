"""Batched crops: each sample's own box, resized with antialiasing and flipped.

Two small matrix products a sample do it; for large views on a CPU, torch's own resizing of one picture after another.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench.contracts.values import Images
from clvr_bench.draws import Draws
from clvr_bench.ops.chunks import cache_sized
from clvr_bench.ops.compiling import compilable
from clvr_bench.ops.pixels import unit

_TRIES = 10  # as torchvision's RandomResizedCrop, which took the number from Inception's input pipeline
_LARGE = 64  # pixels a side: from here on, a CPU resizes one picture after another faster than all by matrix products


def crop_resize(images: Images, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut one box out of each picture and resize it to a square, as if cropped first and then resized.

    The filter is bilinear and antialiased: a triangle as wide as the reduction, plain bilinear where a box is enlarged.
    Only pixels of the box within the picture's own size count. All frames of a clip share the box.

    Args:
        images: B pictures or clips, uint8 or float in [0, 1].
        boxes: (B, 4) float, ``top, left, height, width`` in pixels of the picture itself; sides of at least 1.
        size: S, height and width of the result in pixels.
        flip: (B,) bool, which samples are mirrored left to right; none where None.

    Returns:
        (B, C, S, S), or (B, T, C, S, S) for video; float32 in [0, 1].
    """
    pixels = images.pixels
    if pixels.device.type == "cpu" and size >= _LARGE and _whole_within(boxes, images.sizes):
        return _crop_resize_singly(pixels, boxes, size, flip)
    views = torch.empty(*pixels.shape[:-2], size, size, device=pixels.device)
    for part in cache_sized(pixels):
        mirrored = None if flip is None else flip[part]
        views[part] = _crop_resize(pixels[part], images.sizes[part], boxes[part].float(), size, mirrored)
    return views


def random_boxes(
    sizes: Tensor, draws: Draws, area: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Tensor:
    """Draw one Inception-style box a picture, distributed as those of torchvision's ``RandomResizedCrop``.

    Ten tries each draw a share of the area and an aspect ratio; the first whose rounded sides fit is placed uniformly.
    Where none fits, the box is the largest central one whose aspect ratio is allowed.

    Args:
        sizes: (B, 2) heights and widths in pixels.
        draws: The stream of the B samples.
        area: The least and the greatest share of the picture's area, in (0, 1].
        ratio: The least and the greatest width over height, drawn uniformly in its logarithm.

    Returns:
        (B, 4) float32 whole numbers, ``top, left, height, width`` in pixels.

    Source:
        Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 6.
    """
    sizes = sizes.float()
    height, width = sizes[:, :1], sizes[:, 1:]  # (B, 1)
    wanted = draws.uniform(_TRIES, low=area[0], high=area[1]) * (height * width)  # (B, 10)
    aspect = draws.uniform(_TRIES, low=math.log(ratio[0]), high=math.log(ratio[1])).exp()
    tall, wide = (wanted / aspect).sqrt().round(), (wanted * aspect).sqrt().round()
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)  # (B, 1)
    drawn = torch.cat([tall.gather(1, first), wide.gather(1, first)], 1)  # (B, 2)
    fallback = torch.cat([(width / ratio[0]).round(), (height * ratio[1]).round()], 1).minimum(sizes)
    found = fits.any(1, keepdim=True)
    sides = torch.where(found, drawn, fallback)
    spare = sizes - sides
    # minimum: a draw just below 1 times a whole number can round up to it in float32
    placed = (draws.uniform(2) * (spare + 1)).floor().minimum(spare)
    return torch.cat([torch.where(found, placed, (spare / 2).floor()), sides], 1)


def center_boxes(sizes: Tensor) -> Tensor:
    """Return the largest central square of each picture.

    Args:
        sizes: (B, 2) heights and widths in pixels.

    Returns:
        (B, 4) float32 whole numbers, ``top, left, height, width`` in pixels.
    """
    sides = sizes.amin(1, keepdim=True).expand(-1, 2)
    return torch.cat([(sizes - sides) // 2, sides], 1).float()


def center_view(images: Images, size: int) -> Tensor:
    """Return the fixed view that features are taken from: the largest central square, resized.

    Args:
        images: B pictures or clips, uint8 or float in [0, 1].
        size: S, height and width of the result in pixels.

    Returns:
        (B, C, S, S), or (B, T, C, S, S) for video; float32 in [0, 1]. Pictures of that size stay as they are.
    """
    if _all_have(images, size):
        return images.pixels.float() * unit(images.pixels)
    return crop_resize(images, center_boxes(images.sizes), size)


def separable(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply each sample's own linear map along the height and another along the width.

    Runs in float32 also under autocast. Where TF32 products are switched on, values are off by up to 1e-3.

    Args:
        pixels: (B, ..., H, W) float32.
        rows: (B, S, H) float32.
        columns: (B, R, W) float32.

    Returns:
        (B, ..., S, R) float32, ``rows @ pixels @ columns.T``.
    """
    lead, (height, width) = pixels.shape[:-2], pixels.shape[-2:]
    with torch.autocast(pixels.device.type, enabled=False):
        across = torch.bmm(pixels.reshape(lead[0], -1, width), columns.mT)  # (B, C * H, R)
        across = across.view(lead[0], -1, height, columns.shape[1])  # (B, C, H, R)
        return torch.matmul(rows[:, None], across).view(*lead, rows.shape[1], columns.shape[1])


@compilable
def _crop_resize(pixels: Tensor, sizes: Tensor, boxes: Tensor, size: int, flip: Tensor | None) -> Tensor:
    height, width = pixels.shape[-2:]
    top, left, tall, wide = boxes.unbind(1)
    rows = _axis_weights(size, height, top, tall, sizes[:, 0])  # (B, S, H)
    columns = _axis_weights(size, width, left, wide, sizes[:, 1], flip)  # (B, S, W)
    return separable(pixels.float(), rows * unit(pixels), columns).clamp_(0, 1)


def _whole_within(boxes: Tensor, sizes: Tensor) -> bool:
    """Whether all boxes are whole pixels of the pictures themselves, as drawn ones are."""
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return bool((start >= 0).all() and (end <= sizes).all() and (boxes == boxes.round()).all())


def _crop_resize_singly(pixels: Tensor, boxes: Tensor, size: int, flip: Tensor | None) -> Tensor:
    views = torch.empty(*pixels.shape[:-2], size, size)
    mirrored = [False] * len(boxes) if flip is None else flip.tolist()
    for picture, box, mirror, view in zip(pixels, boxes.int().tolist(), mirrored, views, strict=True):
        top, left, height, width = box
        cut = picture[..., top : top + height, left : left + width].reshape(1, -1, height, width).float()
        resized = F.interpolate(cut, size=(size, size), mode="bilinear", antialias=True).view(view.shape)
        torch.mul(resized.flip(-1) if mirror else resized, unit(pixels), out=view)
    return views.clamp_(0, 1)


def _axis_weights(
    size: int, count: int, start: Tensor, length: Tensor, limit: Tensor, flip: Tensor | None = None
) -> Tensor:
    """Weigh the pixels of one axis for each pixel of the result.

    Args:
        size: S, pixels of the result.
        count: H, stored pixels.
        start: (B,) where the box begins, in pixels.
        length: (B,) how long it is.
        limit: (B,) how many stored pixels are the picture's own.
        flip: (B,) bool, which samples are mirrored.

    Returns:
        (B, S, H) float32, each row summing to 1.
    """
    target = torch.arange(size, device=start.device).expand(len(start), size)
    if flip is not None:
        target = torch.where(flip[:, None], size - 1 - target, target)
    scale = (length / size)[:, None, None]
    center = (target[..., None] + 0.5) * scale  # (B, S, 1), counted from the box's start: exact for large pictures too
    pixel = torch.arange(count, device=start.device)
    source = (pixel - start[:, None] + 0.5)[:, None]  # (B, 1, H)
    inside = (source >= 0) & (source < length[:, None, None]) & (pixel < limit[:, None, None])
    weights = (source - center).abs_().div_(scale.clamp(min=1)).neg_().add_(1).clamp_(min=0)
    weights *= inside.float()
    return weights.div_(weights.sum(-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny))


def _all_have(images: Images, size: int) -> bool:
    """Whether all pictures are known to be squares of this size.

    An accelerator is not asked: the answer would wait for all its queued work, and two products cost less.
    """
    filled = images.pixels.shape[-2:] == (size, size) and images.sizes.device.type == "cpu"
    return filled and bool((images.sizes == size).all())
