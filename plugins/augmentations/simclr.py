"""SimCLR's augmentation, in its settings for large pictures (ImageNet) and for small ones (CIFAR-10)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.distortions import Distortions, check_area, check_strength, simclr_jitter, size_setting


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register SimCLR's augmentation."""
    register(
        "simclr",
        SimCLRAugmentation,
        summary="Random resized crop, flip, color jitter, grayscale; blur for large pictures.",
        source="Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendices A and B.9",
        version=1,
    )


class SimCLRAugmentation(PerView):
    """Crop and flip, jitter the color (probability 0.8), take it out (0.2) and, of large pictures, blur half.

    Args:
        data: Facts of the data; views have its ``image_size``.
        settings: ``"large"`` (appendix A) or ``"small"`` (B.9: no blur, half the color); auto: small up to 64 px.
        area: The least and the greatest share of the picture's area that a crop takes, in (0, 1].
        color_strength: s, in [0, 2.5]; None is 1.0 for large and 0.5 for small.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(
        self,
        data: DataFacts,
        *,
        settings: Literal["auto", "large", "small"] = "auto",
        area: tuple[float, float] = (0.08, 1.0),
        color_strength: float | None = None,
    ) -> None:
        check_area("simclr", area)
        self.size, self.setting = data.image_size, size_setting(settings, data.image_size)
        strength = {"large": 1.0, "small": 0.5}[self.setting] if color_strength is None else color_strength
        check_strength("simclr", strength, "color_strength")
        blurred = {"large": 0.5, "small": 0.0}[self.setting]
        self.distortions = Distortions(area=area, jitter=simclr_jitter(strength), blurred=blurred)

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        return self.distortions.view(images, self.size, random)
