"""What supervised training has used since ResNets: crops and flips, in settings for large and for small pictures."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import center_view, crop_resize, random_boxes
from clvr_bench.ops.distortions import check_area, size_setting
from clvr_bench.ops.geometry import shift_gray


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register supervised training's augmentation."""
    register(
        "supervised",
        SupervisedAugmentation,
        summary="Crop and flip: Inception's crop for large pictures, a shift by some pixels for small ones.",
        source="Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 6; "
        "He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2",
        version=1,
    )


class SupervisedAugmentation(PerView):
    """Large: a random resized crop (Szegedy et al. 2015). Small: a shift by at most an eighth (He et al. 2016).

    An eighth is the paper's padding, 4 pixels of 32. Both mirror half of the pictures.
    Differs from the paper: what enters a small picture is mid-gray, not the training set's mean picture.

    Args:
        data: Facts of the data; views have its ``image_size``.
        settings: ``"large"`` or ``"small"``; auto: small up to 64 px.
        area: For the large setting: the least and the greatest share of the picture's area in a crop, in (0, 1].

    Raises:
        ClvrBenchError: The area is out of its range.
    """

    def __init__(
        self,
        data: DataFacts,
        *,
        settings: Literal["auto", "large", "small"] = "auto",
        area: tuple[float, float] = (0.08, 1.0),
    ) -> None:
        check_area("supervised", area)
        self.size, self.area, self.setting = data.image_size, area, size_setting(settings, data.image_size)

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        flip = random("flip").chance(0.5)
        if self.setting == "large":
            return crop_resize(images, random_boxes(images.sizes, random("crop"), self.area), self.size, flip)
        furthest = self.size // 8
        shift = random("shift").integers(2 * furthest + 1, 2) - furthest
        return shift_gray(center_view(images, self.size), shift, flip)
