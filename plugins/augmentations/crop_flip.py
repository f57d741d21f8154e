"""Random crop and flip, nothing else: the geometric half of most augmentations."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import Augmentation, ClvrBenchError, DataFacts, Images, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import crop_resize, random_boxes


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register the crop with a flip."""
    register(
        "crop_flip",
        CropFlip,
        summary="Random resized crop and horizontal flip.",
        source="Szegedy et al. 2015, https://arxiv.org/abs/1409.4842",
        version=1,
    )


class CropFlip(Augmentation):
    """An Inception-style random crop, resized, then mirrored by chance.

    Args:
        data: Facts of the data; views have its ``image_size``.
        area: The least and the greatest share of the picture's area, in (0, 1].
        flip: Probability of a horizontal flip.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(self, data: DataFacts, *, area: tuple[float, float] = (0.08, 1.0), flip: float = 0.5) -> None:
        if not 0 < area[0] <= area[1] <= 1:
            raise ClvrBenchError(
                f"augmentation crop_flip: area must be (low, high) with 0 < low <= high <= 1, got {tuple(area)}. "
                "The usual value is (0.08, 1.0)."
            )
        if not 0 <= flip <= 1:
            raise ClvrBenchError(
                f"augmentation crop_flip: flip must be a probability in [0, 1], got {flip}. Use 0 for digits or text."
            )
        self.size, self.area, self.flip = data.image_size, area, flip

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        """Return V views (B, C, size, size), drawn alike."""
        return [self._view(images, random.scoped(f"view{view}")) for view in range(views)]

    def _view(self, images: Images, random: SampleRandom) -> Tensor:
        boxes = random_boxes(images.sizes, random("crop"), self.area)
        return crop_resize(images, boxes, self.size, random("flip").chance(self.flip))
