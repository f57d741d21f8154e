"""What holds for every augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from clvr_bench.contracts.augmentation import Augmentation
from clvr_bench.contracts.values import DataFacts, Images
from clvr_bench.draws import SampleRandom
from clvr_bench.testing.checks import NotApplicable, require, rule
from clvr_bench.testing.stage import some_views
from clvr_bench.testing.subject import Subject

COUNT, FRAME, SIDE = 6, 40, 32  # pictures, the side of their frame and that of the views, in pixels
ROUNDING = 1 / 255  # on average: at a threshold, as in solarizing, rounding may turn single pixels over


class AugmentationTrial:
    """An augmentation and a few pictures for it.

    Args:
        subject: The registered augmentation.
    """

    def __init__(self, subject: Subject) -> None:
        self._choice = subject.choice()

    def build(self) -> Augmentation:
        """Build it for views of 32 px."""
        facts = DataFacts("image", train_size=100, image_size=SIDE)
        augmentation: Augmentation = self._choice.entry.factory(facts, **self._choice.options)
        return augmentation

    @property
    def count(self) -> int:
        """How many views to ask for."""
        augmentation = self.build()
        return sum(role.views for role in augmentation.roles) if augmentation.arrangement == "roles" else 2

    def views(self, images: Images, samples: Tensor | None = None, seed: int = 0) -> list[Tensor]:
        """Make views of pictures whose draws are keyed by sample numbers."""
        numbers = torch.arange(len(images)) if samples is None else samples
        return self.build()(images, self.count, SampleRandom.keyed(seed, 0, numbers))


def some_pictures(count: int = COUNT) -> Images:
    """Draw pictures (count, 3, 40, 40) uint8."""
    return Images.whole((255 * some_views(count, FRAME)).to(torch.uint8))


@rule(
    "views are float32 in [0, 1], of the size and number asked for",
    "Return V tensors (B, C, data.image_size, data.image_size), or as the roles say; clamp colors to [0, 1].",
)
def views_have_shape_and_range(trial: AugmentationTrial) -> None:
    """Look at the views of noise."""
    augmentation, views = trial.build(), trial.views(some_pictures())
    sizes = [role.size for role in augmentation.roles for _ in range(role.views)] or [SIDE] * trial.count
    shapes = [tuple(view.shape) for view in views]
    require(shapes == [(COUNT, 3, size, size) for size in sizes], f"Shapes: {shapes}.")
    require(all(view.dtype == torch.float32 for view in views), f"Types: {[view.dtype for view in views]}.")
    low, high = min(view.min().item() for view in views), max(view.max().item() for view in views)
    require(low >= 0 and high <= 1, f"Values from {low:.4f} to {high:.4f}.")


@rule("draws do not depend on the batch they come in", "Draw every parameter from random(purpose), one row a sample.")
def draws_belong_to_samples(trial: AugmentationTrial) -> None:
    """Make the views of some pictures again without the others, in another order."""
    images, chosen = some_pictures(), torch.tensor([4, 1])
    all_views = trial.views(images)
    alone = trial.views(Images(images.pixels[chosen], images.sizes[chosen]), chosen)
    for whole, part in zip(all_views, alone, strict=True):
        error = (whole[chosen] - part).abs().max().item()
        require(error < 1e-5, f"Alone, a view differs by up to {error:.4f}.")


@rule("it draws from its own streams", "Never call torch.rand and the like: draw from random(purpose).")
def draws_from_its_own_streams(trial: AugmentationTrial) -> None:
    """Watch torch's own generator, and make the same views twice."""
    before = torch.get_rng_state()
    first, second = trial.views(some_pictures()), trial.views(some_pictures())
    require(torch.equal(before, torch.get_rng_state()), "It drew from torch's own generator.")
    require(all(torch.equal(*pair) for pair in zip(first, second, strict=True)), "Twice the same draws, other views.")


@rule(
    "views are drawn each for itself",
    'Give every view a scope of its own: random.scoped(f"view{number}").',
)
def views_are_drawn_apart(trial: AugmentationTrial) -> None:
    """Compare the views of a picture."""
    images = some_pictures()
    if trial.build().arrangement != "alike":
        raise NotApplicable("Its views are not drawn alike.")
    first, second = trial.views(images)
    if torch.equal(first, trial.views(images, seed=1)[0]):
        raise NotApplicable("Nothing in it is random.")
    require(not torch.equal(first, second), "Two views are the same.")


@rule(
    "what lies outside a picture is never seen", "Use images.sizes: smaller pictures are padded at the right and below."
)
def padding_is_never_seen(trial: AugmentationTrial) -> None:
    """Fill the padding of smaller pictures with black and with white."""
    sizes = torch.tensor([[FRAME, 24], [24, FRAME], [30, 36]])
    views = []
    for filling in (0, 255):
        pixels = some_pictures(len(sizes)).pixels.clone()
        for picture, (height, width) in zip(pixels, sizes.tolist(), strict=True):
            picture[:, height:], picture[:, :, width:] = filling, filling
        views.append(trial.views(Images(pixels, sizes)))
    require(all(torch.equal(*pair) for pair in zip(*views, strict=True)), "The padding shows in the views.")


@rule("it takes pictures in uint8 and in float", "Divide by 255 only what is uint8; a chain hands float on.")
def takes_uint8_and_float(trial: AugmentationTrial) -> None:
    """Compare views of the same pictures in both types."""
    images = some_pictures()
    as_float = Images(images.pixels.float() / 255, images.sizes)
    error = max((a - b).abs().mean().item() for a, b in zip(trial.views(images), trial.views(as_float), strict=True))
    require(error <= ROUNDING, f"They differ by {error:.4f} on average.")


@rule("it leaves the stored pictures as they are", "Do not work in place on images.pixels.")
def leaves_pictures_alone(trial: AugmentationTrial) -> None:
    """Compare the pictures before and after, in both types."""
    stored = some_pictures()
    for images in (stored, Images(some_views(COUNT, SIDE), stored.sizes.clamp(max=SIDE))):
        before = images.pixels.clone()
        for view in trial.views(images):
            view.add_(1)
        require(torch.equal(before, images.pixels), "The pictures changed.")


RULES = (
    views_have_shape_and_range,
    draws_belong_to_samples,
    draws_from_its_own_streams,
    views_are_drawn_apart,
    padding_is_never_seen,
    takes_uint8_and_float,
    leaves_pictures_alone,
)
