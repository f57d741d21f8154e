"""PluginName: say in one sentence what is changed in a picture."""

from __future__ import annotations

import torch
from torch import Tensor

from clvr_bench import ClvrBenchError, DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import crop_resize, random_boxes


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register plugin_name."""
    register(
        "plugin_name",
        PluginName,
        summary="Random resized crop and flip, with a grey square over a part of it.",
        source="none",  # Edit: authors, year, link
        version=1,  # raise it with every edit that can change a score
    )


class PluginName(PerView):
    """Crops, mirrors half of the pictures, and covers a square of each; every picture has draws of its own.

    Args:
        data: Facts of the data; views have its ``image_size``.
        area: The least and the greatest share of the picture's area that a crop takes, in (0, 1].
        covered: Side of the square, as a share of the view's side, in [0, 1).

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    # Edit: keyword-only, typed arguments are its options: --set plugin_name.covered=0.5
    def __init__(self, data: DataFacts, *, area: tuple[float, float] = (0.2, 1.0), covered: float = 0.25) -> None:
        if not 0 < area[0] <= area[1] <= 1:
            rule = "area must be (low, high) with 0 < low <= high <= 1"
            raise ClvrBenchError(f"augmentation plugin_name: {rule}, got {area}. Typical: (0.2, 1.0).")
        if not 0 <= covered < 1:
            rule = "covered must be in [0, 1)"
            raise ClvrBenchError(f"augmentation plugin_name: {rule}, got {covered}. Typical: 0 to 0.5.")
        self.size, self.area, self.covered = data.image_size, area, covered

    # Edit: random("purpose") is a stream of draws, one row a picture; never draw from torch's own generator
    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        boxes = random_boxes(images.sizes, random("crop"), self.area)  # (B, 4)
        pixels = crop_resize(images, boxes, self.size, random("flip").chance(0.5))  # (B, C, S, S)
        return cover(pixels, random("cover").uniform(2), self.covered)


# Edit: what changes the pixels, for the whole batch at once
def cover(pixels: Tensor, center: Tensor, side: float) -> Tensor:
    """Paint a grey square over each picture, cut off at the edges.

    Args:
        pixels: (B, C, S, S) float32 in [0, 1].
        center: (B, 2) float32, row and column in image sides, in [0, 1].
        side: Of the square, in image sides.

    Returns:
        (B, C, S, S).
    """
    size = pixels.shape[-1]
    place = (torch.arange(size, device=pixels.device) + 0.5) / size  # (S,) middles of the pixels
    rows, columns = (place - center[:, :, None]).abs().lt(side / 2).unbind(1)  # (B, S) each
    return pixels.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.5)
