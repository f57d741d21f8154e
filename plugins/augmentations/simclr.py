"""SimCLR's augmentation, in its settings for large pictures (ImageNet) and for small ones (CIFAR-10)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from clvr_bench import Augmentation, ClvrBenchError, DataFacts, Images, Register, SampleRandom, hookimpl
from clvr_bench.ops.blur import gaussian_blur
from clvr_bench.ops.color import Jitter, color_jitter, grayscale
from clvr_bench.ops.crops import crop_resize, random_boxes

_SMALL_UP_TO = 64  # pixels a side; the paper has 32 (small) and 224 (large), and nothing between
_MAX_STRENGTH = 2.5  # hue shifts are 0.2 times the strength, and half a turn is the most there is


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


class SimCLRAugmentation(Augmentation):
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
        _check(area, color_strength)
        self.size, self.area = data.image_size, area
        self.setting = ("small" if self.size <= _SMALL_UP_TO else "large") if settings == "auto" else settings
        self.strength = {"large": 1.0, "small": 0.5}[self.setting] if color_strength is None else color_strength

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        """Return V views (B, C, size, size), drawn alike."""
        return [self._view(images, random.scoped(f"view{view}")) for view in range(views)]

    def _view(self, images: Images, random: SampleRandom) -> Tensor:
        boxes = random_boxes(images.sizes, random("crop"), self.area)
        pixels = crop_resize(images, boxes, self.size, random("flip").chance(0.5))
        tone, hue = 0.8 * self.strength, 0.2 * self.strength
        jitter = Jitter.draw(random("jitter"), (tone, tone, tone, hue), probability=0.8)
        pixels = grayscale(color_jitter(pixels, jitter), random("gray").chance(0.2))
        if self.setting == "small":
            return pixels
        draws = random("blur")
        kernel_size = 2 * (self.size // 20) + 1  # a tenth of the side, made odd: 23 taps at 224 px
        return gaussian_blur(pixels, draws.uniform(low=0.1, high=2.0), kernel_size, draws.chance(0.5))


def _check(area: tuple[float, float], color_strength: float | None) -> None:
    if not 0 < area[0] <= area[1] <= 1:
        rule = "area must be (low, high) with 0 < low <= high <= 1"
        raise ClvrBenchError(f"augmentation simclr: {rule}, got {tuple(area)}. The paper's is (0.08, 1.0).")
    if color_strength is not None and not 0 <= color_strength <= _MAX_STRENGTH:
        rule = f"color_strength must be in [0, {_MAX_STRENGTH}]"
        raise ClvrBenchError(f"augmentation simclr: {rule}, got {color_strength}. The paper's are 0.5 and 1.0.")
