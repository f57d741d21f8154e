"""Changes of color alone: SimCLR's jitter, and its loss of all color."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.color import Jitter, color_jitter, grayscale
from clvr_bench.ops.crops import center_view
from clvr_bench.ops.distortions import check_probability, check_strength, simclr_jitter


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register both changes of color."""
    source = "Chen et al. 2020, https://arxiv.org/abs/2002.05709, figure 4 and appendix A"
    register(
        "color_jitter",
        ColorJitter,
        summary="Brightness, contrast, saturation and hue, in random order.",
        source=source,
        version=1,
    )
    register("color_drop", ColorDrop, summary="Grayscale by chance.", source=source, version=1)


class ColorJitter(PerView):
    """SimCLR's color jitter: brightness, contrast and saturation by factors of 1 +- 0.8 s, hue by +- 0.2 s turns.

    Args:
        data: Facts of the data; views have its ``image_size``.
        strength: s, in [0, 2.5]; the paper's is 1.0 for ImageNet, 0.5 for CIFAR-10.
        probability: Of changing a picture at all.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(self, data: DataFacts, *, strength: float = 1.0, probability: float = 0.8) -> None:
        check_strength("color_jitter", strength, "strength")
        check_probability("color_jitter", probability, usual="0.8")
        self.size, self.strengths, self.probability = data.image_size, simclr_jitter(strength), probability

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        jitter = Jitter.draw(random("jitter"), self.strengths, self.probability)
        return color_jitter(center_view(images, self.size), jitter)


class ColorDrop(PerView):
    """Grayscale by chance; pictures keep their three channels.

    Args:
        data: Facts of the data; views have its ``image_size``.
        probability: Of losing the color.

    Raises:
        ClvrBenchError: The probability is out of its range.
    """

    def __init__(self, data: DataFacts, *, probability: float = 0.2) -> None:
        check_probability("color_drop", probability, usual="0.2")
        self.size, self.probability = data.image_size, probability

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        return grayscale(center_view(images, self.size), random("gray").chance(self.probability))
