"""Pictures for the tests of augmentations, and the views that one makes of them."""

import torch

from clvr_bench import DataFacts, Images, SampleRandom
from clvr_bench.ops.crops import center_view

SIDE = 20  # pixels, of the views
COUNT = 400
PIXELS = torch.randint(0, 256, (COUNT, 3, 24, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def samples():
    """Return the draws of all pictures."""
    return SampleRandom.keyed(0, 0, torch.arange(COUNT))


def plain():
    """Return the views (COUNT, 3, SIDE, SIDE) that nothing was done to."""
    return center_view(Images.whole(PIXELS), SIDE)


def view(augmentation, **options):
    """Return one view (COUNT, 3, SIDE, SIDE) of all pictures."""
    facts = DataFacts(modality="image", train_size=COUNT, image_size=SIDE)
    return augmentation(facts, **options)(Images.whole(PIXELS), 1, samples())[0]


def changed(made):
    """Return which pictures were changed at all, (COUNT,) bool."""
    return ((made - plain()).abs() > 1e-6).flatten(1).any(1)


def assert_share_changed(made, probability):
    """Assert that a share of the pictures was changed; five standard deviations of a share of 400 are allowed."""
    allowed = 5 * (probability * (1 - probability) / COUNT) ** 0.5
    assert abs(changed(made).float().mean().item() - probability) <= allowed
