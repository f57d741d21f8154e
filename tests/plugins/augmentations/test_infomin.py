import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images
from clvr_bench.ops.rand_augment import rand_augment
from clvr_plugins.augmentations.infomin import InfoMinAugmentation
from tests.plugins.augmentations.pictures import PIXELS, SIDE, samples, view
from tests.plugins.augmentations.reference import views_by_torchvision

STEPS = {
    "small": [("crop", (0.2, 1.0)), ("jitter", (0.4, 0.4, 0.4, 0.1), 0.8), ("flip", 0.5)],
    "large": [("crop", (0.2, 1.0)), ("jitter", (0.8, 0.8, 0.8, 0.2), 0.8), ("blur", 0.5), ("flip", 0.5)],
}


@pytest.mark.parametrize("settings", STEPS)
def test_a_view_is_the_authors_sequence_of_operations(settings):
    random = samples().scoped("view0")
    distorted = torch.stack(views_by_torchvision(Images.whole(PIXELS), SIDE, random, STEPS[settings]))
    changed = rand_augment(distorted, random, 2)
    gray = random("gray_last").chance(0.2)[:, None, None, None]
    luma = (changed * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    unlike = (view(InfoMinAugmentation, settings=settings) - torch.where(gray, luma, changed)).abs() > 1e-4
    assert unlike.float().mean() < 2e-3  # RandAugment's thresholds and nearest pixels may tip over by rounding


@pytest.mark.parametrize(("image_size", "setting"), [(64, "small"), (65, "large")])
def test_the_setting_follows_the_size(image_size, setting):
    assert InfoMinAugmentation(DataFacts("image", 10, image_size)).setting == setting


def test_without_operations_it_is_simclrs_with_a_larger_crop():
    random = samples().scoped("view0")
    expected = torch.stack(views_by_torchvision(Images.whole(PIXELS), SIDE, random, STEPS["small"]))
    kept = ~random("gray_last").chance(0.2)
    torch.testing.assert_close(view(InfoMinAugmentation, operations=0)[kept], expected[kept], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"area": (0.0, 1.0)}, {"operations": -1}])
def test_bad_options_are_refused(options):
    with pytest.raises(ClvrBenchError, match=rf"augmentation infomin: {next(iter(options))} must"):
        view(InfoMinAugmentation, **options)
