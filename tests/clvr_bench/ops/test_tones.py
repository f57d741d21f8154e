import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from clvr_bench.ops.tones import add_noise, adjust_sharpness, posterize, solarize

CLOSE = {"rtol": 0, "atol": 1e-6}


def pictures(channels=3):
    """Quantized as stored ones are, so that values equal thresholds."""
    return torch.randint(0, 9, (24, channels, 12, 11), generator=torch.Generator().manual_seed(0)) / 8


@pytest.mark.parametrize("channels", [1, 3])
def test_a_solarized_sample_has_torchvisions_pixels_for_its_threshold(channels):
    pixels, thresholds = pictures(channels), torch.linspace(0, 1, 24)
    thresholds[:9] = torch.arange(9) / 8  # values of the pictures themselves, which count as bright
    expected = torch.stack([tv.solarize(p, float(t)) for p, t in zip(pixels, thresholds, strict=True)])
    assert torch.equal(solarize(pixels, thresholds), expected)


def test_one_threshold_serves_all():
    assert torch.equal(solarize(pictures(), 0.5), tv.solarize(pictures(), 0.5))


def test_only_chosen_samples_are_solarized():
    pixels, chosen = pictures(), torch.arange(24) % 2 == 0
    solarized = solarize(pixels, 0.5, chosen)
    assert torch.equal(solarized[chosen], tv.solarize(pixels[chosen], 0.5))
    assert torch.equal(solarized[~chosen], pixels[~chosen])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_posterized_sample_has_torchvisions_pixels_for_its_bits(channels):
    pixels, bits = pictures(channels), torch.arange(24) % 8 + 1
    expected = torch.stack([tv.posterize(p, int(b)) for p, b in zip(pixels, bits, strict=True)])
    torch.testing.assert_close(posterize(pixels, bits), expected, **CLOSE)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sharpened_sample_has_torchvisions_pixels_for_its_factor(channels):
    pixels, factors = pictures(channels), torch.linspace(0, 2.5, 24)
    expected = torch.stack([tv.adjust_sharpness(p, float(f)) for p, f in zip(pixels, factors, strict=True)])
    torch.testing.assert_close(adjust_sharpness(pixels, factors), expected, **CLOSE)


def test_pictures_without_an_inside_are_not_sharpened():
    pixels = torch.rand(2, 3, 2, 9)
    assert adjust_sharpness(pixels, torch.zeros(2)) is pixels


@pytest.mark.parametrize(
    ("operation", "values"),
    [(solarize, [0.2, 0.5, 0.8]), (posterize, [2, 3, 4]), (adjust_sharpness, [0.1, 0.5, 1.5])],
)
def test_the_frames_of_a_clip_are_changed_alike(operation, values):
    clips, values = torch.rand(3, 4, 3, 8, 9), torch.tensor(values)
    singles = [operation(clips[:, t], values) for t in range(4)]
    torch.testing.assert_close(operation(clips, values), torch.stack(singles, 1), **CLOSE)


@given(st.lists(st.floats(0, 1, width=32), min_size=16, max_size=16), st.floats(0, 1), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_values_stay_in_the_unit_interval(values, amount, bits):
    pixels = torch.tensor(values).view(1, 1, 4, 4)
    changed = (
        solarize(pixels, torch.tensor([amount])),
        posterize(pixels, torch.tensor([bits])),
        adjust_sharpness(pixels, torch.tensor([3 * amount])),
    )
    for picture in changed:
        assert 0 <= picture.min() <= picture.max() <= 1


def test_the_input_is_left_alone():
    pixels = pictures()
    for operation, value in ((solarize, 0.5), (posterize, 4.0), (adjust_sharpness, 0.5)):
        operation(pixels, torch.full((24,), value))
    assert torch.equal(pixels, pictures())


def test_noise_gives_torchvisions_pixels():
    pixels, strengths = pictures(), torch.linspace(0, 0.5, 24)
    torch.manual_seed(0)
    expected = torch.stack([tv.gaussian_noise(p, 0.0, float(s)) for p, s in zip(pixels, strengths, strict=True)])
    torch.manual_seed(0)
    noise = torch.stack([torch.randn_like(p) for p in pixels])
    torch.testing.assert_close(add_noise(pixels, noise, strengths), expected, **CLOSE)


@pytest.mark.parametrize(
    "operation",
    [
        lambda pixels: solarize(pixels, 0.5),
        lambda pixels: posterize(pixels, torch.full((24,), 3)),
        lambda pixels: adjust_sharpness(pixels, torch.linspace(0, 2, 24)),
        lambda pixels: add_noise(pixels, torch.ones(24, 3, 12, 11), torch.linspace(0, 0.5, 24)),
    ],
)
def test_bytes_are_taken_as_pictures_in_the_unit_interval(operation):
    stored = (255 * pictures()).byte()
    torch.testing.assert_close(operation(stored), operation(stored / 255), **CLOSE)
