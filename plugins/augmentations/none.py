"""No augmentation: every view is the fixed one that features are taken from."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import center_view


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register the unchanged view."""
    register(
        "none", Unchanged, summary="The largest central square, resized; nothing random.", source="none", version=1
    )


class Unchanged(PerView):
    """The view that encoders are evaluated on.

    Args:
        data: Facts of the data; views have its ``image_size``.
    """

    def __init__(self, data: DataFacts) -> None:
        self.size = data.image_size

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        return center_view(images, self.size)
