"""What most augmentations do to a picture, with its draws: crop, flip, jitter, grayscale, blur, solarization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from clvr_bench.contracts.values import Images
from clvr_bench.draws import SampleRandom
from clvr_bench.errors import ClvrBenchError
from clvr_bench.ops.blur import gaussian_blur, tenth_of
from clvr_bench.ops.color import Jitter, color_jitter, grayscale
from clvr_bench.ops.crops import crop_resize, random_boxes
from clvr_bench.ops.tones import solarize

_SMALL_UP_TO = 64  # pixels a side; SimCLR, which has settings for both, has 32 (small) and 224 (large)
_MAX_STRENGTH = 2.5  # of SimCLR's jitter: hue shifts are 0.2 times the strength, and half a turn is the most there is
_SIGMA = (0.1, 2.0)  # pixels; the range of SimCLR, which MoCo v2, BYOL and SwAV took over


@dataclass(frozen=True, kw_only=True)
class Distortions:
    """One distribution of views, as probabilities and ranges; each sample has its own draws.

    Flipping commutes with all that follows it, so it is done with the crop wherever a paper has it.

    Attributes:
        area: The least and the greatest share of the picture's area that a crop takes, in (0, 1].
        jitter: Strengths of brightness, contrast, saturation and hue, as ``Jitter.draw`` takes them.
        jittered: Probability of the jitter.
        gray: Probability of losing the color.
        gray_first: Whether the color goes before the jitter instead of after it.
        blurred: Probability of a blur, whose sigma is uniform in [0.1, 2.0] pixels, cut to a tenth of the side.
        solarized: Probability of a solarization, at the threshold 0.5.
    """

    area: tuple[float, float]
    jitter: tuple[float, float, float, float]
    jittered: float = 0.8
    gray: float = 0.2
    gray_first: bool = False
    blurred: float = 0.0
    solarized: float = 0.0

    def view(self, images: Images, size: int, random: SampleRandom) -> Tensor:
        """Make one view of each picture.

        Args:
            images: B stored pictures or clips.
            size: S, height and width of the view in pixels.
            random: Draws of the B samples, for this view alone.

        Returns:
            (B, C, S, S), or (B, T, C, S, S) for video; float32 in [0, 1].
        """
        boxes = random_boxes(images.sizes, random("crop"), self.area)
        pixels = self._color(crop_resize(images, boxes, size, random("flip").chance(0.5)), random)
        pixels = self._blur(pixels, random) if self.blurred else pixels
        return solarize(pixels, 0.5, random("solarize").chance(self.solarized)) if self.solarized else pixels

    def _color(self, pixels: Tensor, random: SampleRandom) -> Tensor:
        jitter = Jitter.draw(random("jitter"), self.jitter, self.jittered)
        if not self.gray:
            return color_jitter(pixels, jitter)
        gray = random("gray").chance(self.gray)
        if self.gray_first:
            return color_jitter(grayscale(pixels, gray), jitter)
        return grayscale(color_jitter(pixels, jitter), gray)

    def _blur(self, pixels: Tensor, random: SampleRandom) -> Tensor:
        draws = random("blur")
        sigma = draws.uniform(low=_SIGMA[0], high=_SIGMA[1])
        return gaussian_blur(pixels, sigma, tenth_of(pixels.shape[-1]), draws.chance(self.blurred))


def size_setting(settings: Literal["auto", "large", "small"], image_size: int) -> Literal["large", "small"]:
    """Choose between an augmentation's settings for large and for small pictures.

    Args:
        settings: What a suite asks for; auto is small up to 64 px, large above.
        image_size: Height and width of the views in pixels.
    """
    if settings != "auto":
        return settings
    return "small" if image_size <= _SMALL_UP_TO else "large"


def simclr_jitter(strength: float) -> tuple[float, float, float, float]:
    """Return SimCLR's strengths of brightness, contrast, saturation and hue.

    Args:
        strength: s, in [0, 2.5]; the paper's is 1.0 for ImageNet, 0.5 for CIFAR-10.

    Source:
        Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A.
    """
    return 0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength


def check_strength(augmentation: str, strength: float, option: str) -> None:
    """Check the strength of SimCLR's jitter.

    Args:
        augmentation: The registered name, for the message.
        strength: s.
        option: The option that it was given as.

    Raises:
        ClvrBenchError: It is not in [0, 2.5].
    """
    if not 0 <= strength <= _MAX_STRENGTH:
        rule = f"{option} must be in [0, {_MAX_STRENGTH}]"
        raise ClvrBenchError(f"augmentation {augmentation}: {rule}, got {strength}. The paper's are 0.5 and 1.0.")


def check_operations(augmentation: str, operations: int) -> None:
    """Check how many operations of RandAugment a picture gets.

    Args:
        augmentation: The registered name, for the message.
        operations: Their number.

    Raises:
        ClvrBenchError: It is negative.
    """
    if operations < 0:
        raise ClvrBenchError(
            f"augmentation {augmentation}: operations must not be negative, got {operations}. The paper's are 2."
        )


def check_area(augmentation: str, area: tuple[float, float], option: str = "area", usual: str = "(0.08, 1.0)") -> None:
    """Check a range of shares of a picture's area.

    Args:
        augmentation: The registered name, for the message.
        area: The least and the greatest share.
        option: The option that it was given as.
        usual: The paper's value.

    Raises:
        ClvrBenchError: The shares are not in (0, 1], or in the wrong order.
    """
    if not 0 < area[0] <= area[1] <= 1:
        raise ClvrBenchError(
            f"augmentation {augmentation}: {option} must be (low, high) with 0 < low <= high <= 1, got {tuple(area)}. "
            f"The paper's is {usual}."
        )


def check_probability(augmentation: str, probability: float, option: str = "probability", usual: str = "0.5") -> None:
    """Check the share of the pictures that something is done to.

    Args:
        augmentation: The registered name, for the message.
        probability: The share.
        option: The option that it was given as.
        usual: A usual value, or what to use when.

    Raises:
        ClvrBenchError: It is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ClvrBenchError(
            f"augmentation {augmentation}: {option} must be a probability in [0, 1], got {probability}. Usual: {usual}."
        )
