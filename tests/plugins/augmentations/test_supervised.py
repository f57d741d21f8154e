import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images
from clvr_plugins.augmentations.supervised import SupervisedAugmentation
from tests.plugins.augmentations.pictures import COUNT, PIXELS, SIDE, plain, samples, view
from tests.plugins.augmentations.reference import views_by_torchvision


def test_a_large_view_is_a_crop_and_a_flip():
    steps = [("crop", (0.08, 1.0)), ("flip", 0.5)]
    expected = views_by_torchvision(Images.whole(PIXELS), SIDE, samples().scoped("view0"), steps)
    torch.testing.assert_close(view(SupervisedAugmentation, settings="large"), torch.stack(expected), rtol=0, atol=1e-5)


def test_a_small_view_is_a_crop_of_the_padded_picture_or_of_its_mirror_image():
    padded = torch.nn.functional.pad(plain(), (2, 2, 2, 2), value=0.5)  # an eighth of 20 pixels
    crops = [
        p[..., top : top + SIDE, left : left + SIDE] for p in _both(padded) for top in range(5) for left in range(5)
    ]
    which = torch.stack([(view(SupervisedAugmentation) == crop).flatten(1).all(1) for crop in crops])  # (50, COUNT)
    assert which.any(0).all()
    assert abs(which[:25].any(0).float().mean().item() - 0.5) < 5 * (0.25 / COUNT) ** 0.5
    assert which.sum(1).gt(0).sum() >= 48  # with 400 pictures, each place is missed with a chance of 3 in 10,000


def _both(pixels):
    return pixels, pixels.flip(-1)


@pytest.mark.parametrize(("image_size", "setting"), [(32, "small"), (64, "small"), (65, "large"), (224, "large")])
def test_the_setting_follows_the_size(image_size, setting):
    assert SupervisedAugmentation(DataFacts("image", 10, image_size)).setting == setting


def test_a_bad_area_is_refused():
    with pytest.raises(ClvrBenchError, match=r"augmentation supervised: area must be .* got \(0.5, 0.4\)"):
        view(SupervisedAugmentation, area=(0.5, 0.4))
