"""Random quarter turns."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import center_view
from clvr_bench.ops.distortions import check_probability
from clvr_bench.ops.geometry import turn_quarters


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register quarter turns."""
    register(
        "rotate",
        Rotate,
        summary="A turn by 90, 180 or 270 degrees.",
        source="Chen et al. 2020, https://arxiv.org/abs/2002.05709, figure 4",
        version=1,
    )


class Rotate(PerView):
    """A turn by 90, 180 or 270 degrees, equally likely.

    Args:
        data: Facts of the data; views have its ``image_size``.
        probability: Of turning a picture; 0.75 makes all four orientations equally likely. The paper leaves it open.

    Raises:
        ClvrBenchError: The probability is out of its range.
    """

    def __init__(self, data: DataFacts, *, probability: float = 0.75) -> None:
        check_probability("rotate", probability, usual="0.75")
        self.size, self.probability = data.image_size, probability

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        draws = random("rotate")
        quarters = (1 + draws.integers(3)) * draws.chance(self.probability)  # (B,), 0 to 3
        return turn_quarters(center_view(images, self.size), quarters)
