"""Signs of health of a representation that need no labels: rank, spread, alignment and uniformity."""

from __future__ import annotations

import torch
from torch import Tensor

from clvr_bench import Evaluation, Frozen, Images, Register, SampleRandom, Scores, hookimpl
from clvr_bench.ops.crops import crop_resize, random_boxes
from clvr_bench.ops.health import alignment, rankme, spread, uniformity

# The protocol is frozen: none of these is an option, and a change of any is a new version.
SAMPLES = 5_000  # rank, spread and uniformity use this many test samples at most
PAIRS = 2_000  # alignment uses this many of the same samples at most
CROP_AREA = (0.3, 1.0)  # the least and the greatest share of a picture that a positive view shows
KEY = 20_225_210  # any constant, so that every method of every seed is judged on the same samples and views
BATCH = 250  # pictures encoded at once


@hookimpl
def register_evaluations(register: Register) -> None:
    """Register the signs of health."""
    register(
        "health",
        Health,
        summary="RankMe, spread, alignment and uniformity of the test features, without labels.",
        source="Garrido et al. 2023, https://arxiv.org/abs/2210.02885; Chen and He 2021, "
        "https://arxiv.org/abs/2011.10566; Wang and Isola 2020, https://arxiv.org/abs/2005.10242",
        version=1,
    )


class Health(Evaluation):
    """Measures test features without labels.

    Metrics, none of them in percent: ``rankme`` (effective rank, 1 to D), ``spread`` (0 collapsed, 1 isotropic),
    ``uniformity`` (0 collapsed, about -4 all over the sphere) and ``alignment`` (squared distance of two views of a
    picture, 0 to 4; 0 also when collapsed). ``clvr_bench.ops.health`` has the formulas.
    """

    def __call__(self, frozen: Frozen) -> Scores:
        """Measure."""
        features = frozen.features("test")
        order = fixed_order(len(features))
        chosen = features[order[:SAMPLES].to(features.device)]
        pairs = [
            [frozen.encode(view.to(features.device)) for view in positive_views(frozen, index)]
            for index in torch.split(order[:PAIRS], BATCH)
        ]
        first, second = (torch.cat(views) for views in zip(*pairs, strict=True))
        metrics = {
            "rankme": rankme(chosen),
            "spread": spread(chosen),
            "alignment": alignment(first, second),
            "uniformity": uniformity(chosen),
        }
        return Scores(
            {name: value.item() for name, value in metrics.items()},
            details={"samples": len(chosen), "pairs": len(first), "crop_area": list(CROP_AREA)},
        )


def fixed_order(count: int) -> Tensor:
    """Return the numbers (N,) of all samples in one fixed random order, for splits may be sorted by class."""
    return SampleRandom.keyed(KEY, 0, torch.arange(count))("order").uniform(1)[:, 0].argsort(stable=True)


def positive_views(frozen: Frozen, index: Tensor) -> list[Tensor]:
    """Return two views (B, C, S, S) of the test pictures at (B,) positions; they depend on the positions alone."""
    images = frozen.split("test").images(index)
    random = SampleRandom.keyed(KEY, 0, index.to(images.pixels.device))
    return [random_view(images, frozen.image_size, random.scoped(view)) for view in ("first", "second")]


def random_view(images: Images, size: int, random: SampleRandom) -> Tensor:
    """Return a random crop of each picture, mirrored half of the time: (B, C, S, S) float32 in [0, 1]."""
    boxes = random_boxes(images.sizes, random("crop"), area=CROP_AREA)
    return crop_resize(images, boxes, size, flip=random("flip").chance(0.5))
