"""Gaussian noise and Gaussian blur, each alone."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import ClvrBenchError, DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.blur import gaussian_blur, tenth_of
from clvr_bench.ops.crops import center_view
from clvr_bench.ops.distortions import check_probability
from clvr_bench.ops.tones import add_noise


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register noise and blur."""
    paper = "Chen et al. 2020, https://arxiv.org/abs/2002.05709"
    register(
        "gaussian_noise",
        GaussianNoise,
        summary="Noise on every value of a picture, by chance.",
        source=f"{paper}, figure 4",
        version=1,
    )
    register(
        "gaussian_blur",
        GaussianBlur,
        summary="A blur of random width, by chance.",
        source=f"{paper}, figure 4 and appendix A",
        version=1,
    )


class GaussianNoise(PerView):
    """Independent Gaussian noise on every value of half of the pictures. The paper leaves strength and chance open.

    Args:
        data: Facts of the data; views have its ``image_size``.
        std: Standard deviation, as a share of the range from black to white, in [0, 1].
        probability: Of any noise.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(self, data: DataFacts, *, std: float = 0.1, probability: float = 0.5) -> None:
        if not 0 <= std <= 1:
            raise ClvrBenchError(f"augmentation gaussian_noise: std must be in [0, 1], got {std}. Usual: 0.05 to 0.2.")
        check_probability("gaussian_noise", probability)
        self.size, self.std, self.probability = data.image_size, std, probability

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        pixels, draws = center_view(images, self.size), random("noise")
        strength = self.std * draws.chance(self.probability)  # (B,)
        return add_noise(pixels, draws.normal(*pixels.shape[1:]), strength)


class GaussianBlur(PerView):
    """SimCLR's blur (appendix A): of half of the pictures, cut off at a tenth of the picture's side.

    Args:
        data: Facts of the data; views have its ``image_size``.
        sigma: The least and the greatest standard deviation in pixels, positive.
        probability: Of blurring.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(self, data: DataFacts, *, sigma: tuple[float, float] = (0.1, 2.0), probability: float = 0.5) -> None:
        if not 0 < sigma[0] <= sigma[1]:
            raise ClvrBenchError(
                f"augmentation gaussian_blur: sigma must be (low, high) with 0 < low <= high, got {tuple(sigma)}. "
                "The paper's is (0.1, 2.0)."
            )
        check_probability("gaussian_blur", probability)
        self.size, self.sigma, self.probability = data.image_size, sigma, probability

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        draws = random("blur")
        sigma = draws.uniform(low=self.sigma[0], high=self.sigma[1])
        pixels = center_view(images, self.size)
        return gaussian_blur(pixels, sigma, tenth_of(self.size), draws.chance(self.probability))
