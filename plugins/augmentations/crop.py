"""Random crops, with and without a flip: the geometric half of most augmentations."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import crop_resize, random_boxes
from clvr_bench.ops.distortions import check_area, check_probability


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register the crop, alone and with a flip."""
    source = "Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 6"
    register("crop", Crop, summary="Random resized crop.", source=source, version=1)
    register("crop_flip", CropFlip, summary="Random resized crop and horizontal flip.", source=source, version=1)


class Crop(PerView):
    """An Inception-style random crop, resized.

    Args:
        data: Facts of the data; views have its ``image_size``.
        area: The least and the greatest share of the picture's area, in (0, 1].

    Raises:
        ClvrBenchError: The area is out of its range.
    """

    def __init__(self, data: DataFacts, *, area: tuple[float, float] = (0.08, 1.0)) -> None:
        check_area("crop", area)
        self.size, self.area = data.image_size, area

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        return crop_resize(images, random_boxes(images.sizes, random("crop"), self.area), self.size)


class CropFlip(PerView):
    """An Inception-style random crop, resized, then mirrored by chance.

    Args:
        data: Facts of the data; views have its ``image_size``.
        area: The least and the greatest share of the picture's area, in (0, 1].
        flip: Probability of a horizontal flip.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(self, data: DataFacts, *, area: tuple[float, float] = (0.08, 1.0), flip: float = 0.5) -> None:
        check_area("crop_flip", area)
        check_probability("crop_flip", flip, "flip", "0.5, and 0 for digits or text")
        self.size, self.area, self.flip = data.image_size, area, flip

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        boxes = random_boxes(images.sizes, random("crop"), self.area)
        return crop_resize(images, boxes, self.size, random("flip").chance(self.flip))
