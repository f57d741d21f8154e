import torch

from clvr_bench import DataFacts, Images, SampleRandom
from clvr_bench.ops.crops import center_view
from clvr_plugins.augmentations.none import Unchanged

IMAGES = Images.whole(torch.randint(0, 256, (4, 3, 20, 30), dtype=torch.uint8))
AUGMENT = Unchanged(DataFacts(modality="image", train_size=4, image_size=16))


def views(count):
    return AUGMENT(IMAGES, count, SampleRandom.keyed(0, 0, torch.arange(4)))


def test_every_view_is_the_fixed_one():
    assert all(torch.equal(view, center_view(IMAGES, 16)) for view in views(3))
    assert len(views(3)) == 3


def test_views_share_no_memory():
    first, second = views(2)
    first.zero_()
    assert second.any()
