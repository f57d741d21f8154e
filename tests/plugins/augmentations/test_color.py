import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from clvr_bench import ClvrBenchError, Images
from clvr_plugins.augmentations.color import ColorDrop, ColorJitter
from tests.plugins.augmentations.pictures import SIDE, assert_share_changed, plain, samples, view
from tests.plugins.augmentations.reference import views_by_torchvision

CLOSE = {"rtol": 0, "atol": 1e-5}  # float32 rounding; 1e-5 is 1/400 of a uint8 step


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_jitter_is_simclrs(strength):
    strengths = tuple(strength * base for base in (0.8, 0.8, 0.8, 0.2))
    random = samples().scoped("view0")
    expected = views_by_torchvision(Images.whole(plain()), SIDE, random, [("jitter", strengths, 0.8)])
    torch.testing.assert_close(view(ColorJitter, strength=strength), torch.stack(expected), **CLOSE)


@pytest.mark.parametrize("augmentation", [ColorJitter, ColorDrop])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_probability_is_the_share_of_changed_pictures(augmentation, probability):
    assert_share_changed(view(augmentation, probability=probability), probability)


def test_dropped_color_is_torchvisions_gray():
    gray = tv.rgb_to_grayscale(plain(), num_output_channels=3)
    torch.testing.assert_close(view(ColorDrop, probability=1.0), gray, **CLOSE)


def test_strength_zero_changes_nothing():
    torch.testing.assert_close(view(ColorJitter, strength=0.0), plain(), **CLOSE)


@pytest.mark.parametrize("strength", [-0.1, 2.6, float("nan")])
def test_a_bad_strength_is_refused(strength):
    with pytest.raises(ClvrBenchError, match=rf"augmentation color_jitter: strength must be .* got {strength}"):
        view(ColorJitter, strength=strength)
