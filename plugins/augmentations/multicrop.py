"""Multi-crop: two global views and several small local ones, which show parts of a picture at little cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor

from clvr_bench import Augmentation, ClvrBenchError, DataFacts, Images, Register, Role, SampleRandom, hookimpl
from clvr_bench.ops.distortions import Distortions, check_area, simclr_jitter, size_setting

_LOCAL_SIDE = 96 / 224  # of a global view's: the paper's sizes
_GRID = 4  # local sides are rounded to a multiple of this, so that strides and patches divide them


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register multi-crop."""
    register(
        "multicrop",
        MultiCrop,
        summary="Two global views and six small local ones, distorted as SimCLR's.",
        source="Caron et al. 2020, https://arxiv.org/abs/2006.09882, section 3.2 and appendix",
        version=1,
    )


class MultiCrop(Augmentation):
    """SwAV's multi-crop (Caron et al. 2020, section 3.2), roles ``"global"`` (2 views) and ``"local"``.

    Every view is cropped, flipped, and distorted in color and sharpness as in SimCLR (appendix).
    Differs from the paper: small pictures are not blurred and have half the color strength, as in appendix B.9 of
    SimCLR (arXiv 2002.05709).

    Args:
        data: Facts of the data; global views have its ``image_size``.
        settings: ``"large"`` or ``"small"`` (no blur, half the color); auto: small up to 64 px.
        local_views: How many local views, 0 or more; the paper's is 6.
        local_size: Their height and width in pixels; None is 96/224 of the image size, to the nearest multiple of 4.
        global_area: The least and the greatest share of the picture's area in a global view, in (0, 1].
        local_area: Likewise in a local view.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    arrangement = "roles"

    def __init__(
        self,
        data: DataFacts,
        *,
        settings: Literal["auto", "large", "small"] = "auto",
        local_views: int = 6,
        local_size: int | None = None,
        global_area: tuple[float, float] = (0.14, 1.0),
        local_area: tuple[float, float] = (0.05, 0.14),
    ) -> None:
        check_area("multicrop", global_area, "global_area", "(0.14, 1.0)")
        check_area("multicrop", local_area, "local_area", "(0.05, 0.14)")
        default = max(_GRID, _GRID * round(_LOCAL_SIDE * data.image_size / _GRID))
        size = default if local_size is None else local_size
        _check_local(local_views, size, default)
        self.roles = (Role("global", 2, data.image_size), Role("local", local_views, size))
        self.setting = size_setting(settings, data.image_size)
        strength, blurred = {"large": (1.0, 0.5), "small": (0.5, 0.0)}[self.setting]
        wide = Distortions(area=global_area, jitter=simclr_jitter(strength), blurred=blurred)
        self.distortions = {"global": wide, "local": replace(wide, area=local_area)}

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        """Return the global views (B, C, image_size, image_size), then the local ones, smaller."""
        return [
            self.distortions[role.name].view(images, role.size, random.scoped(f"{role.name}{view}"))
            for role in self.roles
            for view in range(role.views)
        ]


def _check_local(views: int, size: int, default: int) -> None:
    if views < 0:
        raise ClvrBenchError(f"augmentation multicrop: local_views must not be negative, got {views}. Typical: 6.")
    if size < 1:
        raise ClvrBenchError(f"augmentation multicrop: local_size must be positive, got {size}. Typical: {default}.")
