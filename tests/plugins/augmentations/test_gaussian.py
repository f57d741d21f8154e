import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from clvr_bench import ClvrBenchError
from clvr_plugins.augmentations.gaussian import GaussianBlur, GaussianNoise
from tests.plugins.augmentations.pictures import COUNT, assert_share_changed, changed, plain, samples, view


def test_noise_has_its_standard_deviation_wherever_it_is_not_clamped():
    made = view(GaussianNoise, std=0.05, probability=1.0)
    inside = (plain() > 0.3) & (plain() < 0.7)
    noise = (made - plain())[inside]
    assert abs(noise.mean().item()) < 1e-3
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert made.min() >= 0
    assert made.max() <= 1


def test_noise_is_drawn_for_every_value_of_every_picture():
    noise = view(GaussianNoise, std=0.01, probability=1.0) - plain()
    flat = noise.flatten(1)
    assert torch.corrcoef(flat[:8]).fill_diagonal_(0).abs().max() < 0.2
    assert torch.corrcoef(noise.transpose(0, 1).flatten(1)).fill_diagonal_(0).abs().max() < 0.02


def test_a_blurred_picture_is_torchvisions():
    draws = samples().scoped("view0")("blur")
    sigma, chosen = draws.uniform(low=0.1, high=2.0), draws.chance(0.5)
    blurred = [tv.gaussian_blur(p, 3, float(s)) if c else p for p, s, c in zip(plain(), sigma, chosen, strict=True)]
    torch.testing.assert_close(view(GaussianBlur), torch.stack(blurred), rtol=0, atol=1e-5)


@pytest.mark.parametrize("augmentation", [GaussianNoise, GaussianBlur])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_probability_is_the_share_of_changed_pictures(augmentation, probability):
    options = {"sigma": (1.0, 2.0)} if augmentation is GaussianBlur else {}
    assert_share_changed(view(augmentation, probability=probability, **options), probability)


def test_a_narrow_blur_changes_nearly_nothing():
    torch.testing.assert_close(view(GaussianBlur, sigma=(0.1, 0.1)), plain(), rtol=0, atol=1e-5)
    assert changed(view(GaussianBlur, sigma=(2.0, 2.0))).sum() > COUNT / 3


@pytest.mark.parametrize("std", [-0.1, 1.5, float("nan")])
def test_a_bad_standard_deviation_is_refused(std):
    with pytest.raises(ClvrBenchError, match=rf"augmentation gaussian_noise: std must be in \[0, 1\], got {std}"):
        view(GaussianNoise, std=std)


@pytest.mark.parametrize("sigma", [(0.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_bad_sigma_is_refused(sigma):
    with pytest.raises(ClvrBenchError, match=r"augmentation gaussian_blur: sigma must be .* got"):
        view(GaussianBlur, sigma=sigma)
