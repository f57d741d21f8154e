"""MoCo's augmentations, of the first paper and of the second."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.distortions import Distortions, check_area, size_setting


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register both of MoCo's augmentations."""
    register(
        "moco_v1",
        MoCoV1Augmentation,
        summary="Random resized crop, grayscale, color jitter, flip.",
        source="He et al. 2020, https://arxiv.org/abs/1911.05722, section 3.3",
        version=1,
    )
    register(
        "moco_v2",
        MoCoV2Augmentation,
        summary="Random resized crop, color jitter, grayscale, flip; blur for large pictures.",
        source="Chen et al. 2020, https://arxiv.org/abs/2003.04297, section 3",
        version=1,
    )


class MoCoV1Augmentation(PerView):
    """Crop, take the color out (probability 0.2), jitter it (always), flip (He et al. 2020, section 3.3).

    The paper names the operations; their order, strengths and the crop's area are those of the authors' code. There is
    no blur, so one setting serves pictures of any size; InstDisc, where it comes from, has it for CIFAR-10 too.

    Args:
        data: Facts of the data; views have its ``image_size``.
        area: The least and the greatest share of the picture's area that a crop takes, in (0, 1].

    Raises:
        ClvrBenchError: The area is out of its range.
    """

    def __init__(self, data: DataFacts, *, area: tuple[float, float] = (0.2, 1.0)) -> None:
        check_area("moco_v1", area, usual="(0.2, 1.0)")
        self.size, self.setting = data.image_size, "any size"
        self.distortions = Distortions(area=area, jitter=(0.4, 0.4, 0.4, 0.4), jittered=1.0, gray_first=True)

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        return self.distortions.view(images, self.size, random)


class MoCoV2Augmentation(PerView):
    """Crop, jitter the color (probability 0.8), take it out (0.2), blur (0.5), flip (Chen et al. 2020, section 3).

    The paper adds SimCLR's blur and a stronger jitter than MoCo's; numbers that it leaves open are those of the
    authors' code.
    Differs from the paper: small pictures are not blurred, as in appendix B.9 of SimCLR (arXiv 2002.05709), and the
    blur is cut off at a tenth of the picture's side, as SimCLR's.

    Args:
        data: Facts of the data; views have its ``image_size``.
        settings: ``"large"`` or ``"small"`` (no blur); auto: small up to 64 px.
        area: The least and the greatest share of the picture's area that a crop takes, in (0, 1].

    Raises:
        ClvrBenchError: The area is out of its range.
    """

    def __init__(
        self,
        data: DataFacts,
        *,
        settings: Literal["auto", "large", "small"] = "auto",
        area: tuple[float, float] = (0.2, 1.0),
    ) -> None:
        check_area("moco_v2", area, usual="(0.2, 1.0)")
        self.size, self.setting = data.image_size, size_setting(settings, data.image_size)
        blurred = {"large": 0.5, "small": 0.0}[self.setting]
        self.distortions = Distortions(area=area, jitter=(0.4, 0.4, 0.4, 0.1), blurred=blurred)

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        return self.distortions.view(images, self.size, random)
