"""InfoMin's augmentation: SimCLR's and RandAugment, for views that share less."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.color import grayscale
from clvr_bench.ops.distortions import Distortions, check_area, check_operations, simclr_jitter, size_setting
from clvr_bench.ops.rand_augment import rand_augment


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register InfoMin's augmentation."""
    register(
        "infomin",
        InfoMinAugmentation,
        summary="Random resized crop, flip, color jitter, RandAugment, grayscale; blur for large pictures.",
        source="Tian et al. 2020, https://arxiv.org/abs/2005.10243, section 5",
        version=1,
    )


class InfoMinAugmentation(PerView):
    """Crop and flip, jitter (probability 0.8), blur (0.5), RandAugment, take the color out (0.2).

    The paper names the operations; their order and strengths are those of the authors' code.
    Differs from the paper: RandAugment is FixMatch's (arXiv 2001.07685, section 2.3, table 12), with random strengths,
    since those that the authors took over were searched for with labels; so its operations are always applied, not half
    of the time, are not all the same, and leave mid-gray where a picture ends. Small pictures are not blurred and have
    half the color strength, as in appendix B.9 of SimCLR (arXiv 2002.05709).

    Args:
        data: Facts of the data; views have its ``image_size``.
        settings: ``"large"`` or ``"small"`` (no blur, half the color); auto: small up to 64 px.
        area: The least and the greatest share of the picture's area that a crop takes, in (0, 1].
        operations: RandAugment's operations a picture, 0 or more.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(
        self,
        data: DataFacts,
        *,
        settings: Literal["auto", "large", "small"] = "auto",
        area: tuple[float, float] = (0.2, 1.0),
        operations: int = 2,
    ) -> None:
        check_area("infomin", area, usual="(0.2, 1.0)")
        check_operations("infomin", operations)
        self.size, self.setting = data.image_size, size_setting(settings, data.image_size)
        strength, blurred = {"large": (1.0, 0.5), "small": (0.5, 0.0)}[self.setting]
        self.distortions = Distortions(area=area, jitter=simclr_jitter(strength), gray=0.0, blurred=blurred)
        self.operations = operations

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        distorted = self.distortions.view(images, self.size, random)
        changed = rand_augment(distorted, random, self.operations)
        return grayscale(changed, random("gray_last").chance(0.2))
