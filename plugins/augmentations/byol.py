"""BYOL's augmentation: a pair of views from two different distributions."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor

from clvr_bench import Augmentation, DataFacts, Images, Register, SampleRandom, hookimpl
from clvr_bench.ops.distortions import Distortions, check_area, size_setting


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register BYOL's augmentation."""
    register(
        "byol",
        BYOLAugmentation,
        summary="A fixed pair: one view blurred (large pictures), the other solarized by chance.",
        source="Grill et al. 2020, https://arxiv.org/abs/2006.07733, appendix B",
        version=1,
    )


class BYOLAugmentation(Augmentation):
    """View 0 from tau, view 1 from tau' of table 6 (Grill et al. 2020, appendix B).

    Both crop, flip, jitter the color (probability 0.8) and take it out (0.2). tau always blurs and never solarizes;
    tau' blurs with probability 0.1 and solarizes with 0.2.
    Differs from the paper: small pictures are not blurred, as in appendix B.9 of SimCLR (arXiv 2002.05709).

    Args:
        data: Facts of the data; views have its ``image_size``.
        settings: ``"large"`` or ``"small"`` (no blur); auto: small up to 64 px.
        area: The least and the greatest share of the picture's area that a crop takes, in (0, 1].

    Raises:
        ClvrBenchError: The area is out of its range.
    """

    arrangement = "pair"

    def __init__(
        self,
        data: DataFacts,
        *,
        settings: Literal["auto", "large", "small"] = "auto",
        area: tuple[float, float] = (0.08, 1.0),
    ) -> None:
        check_area("byol", area)
        self.size, self.setting = data.image_size, size_setting(settings, data.image_size)
        first, second = {"large": (1.0, 0.1), "small": (0.0, 0.0)}[self.setting]
        tau = Distortions(area=area, jitter=(0.4, 0.4, 0.2, 0.1), blurred=first)
        self.pair = (tau, replace(tau, blurred=second, solarized=0.2))

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        """Return two views (B, C, size, size), the first from tau, the second from tau'."""
        return [one.view(images, self.size, random.scoped(f"view{view}")) for view, one in enumerate(self.pair)]
