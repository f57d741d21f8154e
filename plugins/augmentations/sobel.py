"""Sobel filtering: only edges remain."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import center_view
from clvr_bench.ops.distortions import check_probability
from clvr_bench.ops.pixels import change_chosen
from clvr_bench.ops.sobel import edge_strength


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register Sobel filtering."""
    register(
        "sobel",
        Sobel,
        summary="The strength of each channel's edges, by chance.",
        source="Chen et al. 2020, https://arxiv.org/abs/2002.05709, figure 4",
        version=1,
    )


class Sobel(PerView):
    """Each channel's gradient in place of the channel, in half of the pictures; the paper leaves the chance open.

    Args:
        data: Facts of the data; views have its ``image_size``.
        probability: Of filtering a picture; 1 leaves nothing random.

    Raises:
        ClvrBenchError: The probability is out of its range.
    """

    def __init__(self, data: DataFacts, *, probability: float = 0.5) -> None:
        check_probability("sobel", probability)
        self.size, self.probability = data.image_size, probability

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        pixels, chosen = center_view(images, self.size), random("sobel").chance(self.probability)
        return change_chosen(edge_strength, chosen, pixels)
