"""Cutout: a square of the picture is hidden."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import ClvrBenchError, DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import center_view
from clvr_bench.ops.distortions import check_probability
from clvr_bench.ops.geometry import cutout


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register cutout."""
    register(
        "cutout",
        Cutout,
        summary="A gray square hides a part of the picture.",
        source="DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552, section 3.2",
        version=1,
    )


class Cutout(PerView):
    """A mid-gray square around a random pixel, as far as it lies within the picture (DeVries and Taylor 2017).

    Differs from the paper: only half of the pictures are cut, so that an encoder also sees whole ones, as it does where
    features are taken; and what is hidden is mid-gray, not the mean of the training set.

    Args:
        data: Facts of the data; views have its ``image_size``.
        side: Of the square, as a share of the view's, in (0, 1]; the paper's is 0.5 for CIFAR-10, 0.25 for CIFAR-100.
        probability: Of hiding anything.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(self, data: DataFacts, *, side: float = 0.5, probability: float = 0.5) -> None:
        if not 0 < side <= 1:
            raise ClvrBenchError(f"augmentation cutout: side must be in (0, 1], got {side}. Usual: 0.25 to 0.5.")
        check_probability("cutout", probability)
        self.size, self.probability = data.image_size, probability
        self.square = max(2, 2 * round(side * self.size / 2))  # pixels, even

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        draws = random("cutout")
        center, chosen = draws.integers(self.size, 2), draws.chance(self.probability)
        return cutout(center_view(images, self.size), center, self.square, chosen)
