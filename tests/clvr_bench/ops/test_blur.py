import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from clvr_bench import ClvrBenchError
from clvr_bench.ops.blur import gaussian_blur, tenth_of

CLOSE = {"rtol": 0, "atol": 1e-5}  # float32 sums in another order


def pictures(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kernel_size", [1, 3, 9, 39], ids=lambda k: f"{k}_taps")
def test_each_sample_has_torchvisions_pixels_for_its_sigma(kernel_size):
    pixels, sigma = pictures(6, 3, 20, 31), torch.linspace(0.1, 4.0, 6)
    expected = [tv.gaussian_blur(p, kernel_size, float(s)) for p, s in zip(pixels, sigma, strict=True)]
    torch.testing.assert_close(gaussian_blur(pixels, sigma, kernel_size), torch.stack(expected), **CLOSE)


@pytest.mark.parametrize("size", [(31, 33), (32, 64), (97, 20)])
def test_pictures_of_any_size_are_cut_into_whole_stretches(size):
    pixels = pictures(2, 3, *size)
    expected = torch.stack([tv.gaussian_blur(p, 11, 1.7) for p in pixels])
    torch.testing.assert_close(gaussian_blur(pixels, torch.full((2,), 1.7), 11), expected, **CLOSE)


def test_bytes_are_blurred_as_pictures_in_the_unit_interval():
    stored, sigma = (255 * pictures(2, 3, 16, 16)).byte(), torch.tensor([0.5, 1.5])
    torch.testing.assert_close(gaussian_blur(stored, sigma, 5), gaussian_blur(stored / 255, sigma, 5), **CLOSE)


@pytest.mark.parametrize(("side", "taps"), [(19, 1), (32, 3), (96, 9), (224, 23)])
def test_a_tenth_of_the_side_is_made_odd(side, taps):
    assert tenth_of(side) == taps


def test_samples_that_are_not_chosen_stay_bit_identical():
    pixels, sigma, chosen = pictures(4, 3, 16, 16), torch.full((4,), 1.5), torch.tensor([True, False, False, True])
    blurred = gaussian_blur(pixels, sigma, 5, chosen)
    assert torch.equal(blurred[~chosen], pixels[~chosen])
    torch.testing.assert_close(blurred[chosen], gaussian_blur(pixels, sigma, 5)[chosen], **CLOSE)


def test_no_sample_need_be_chosen():
    pixels = pictures(2, 3, 16, 16)
    assert torch.equal(gaussian_blur(pixels, torch.ones(2), 5, torch.zeros(2, dtype=torch.bool)), pixels)


def test_the_frames_of_a_clip_are_blurred_alike():
    clips, sigma = pictures(2, 4, 3, 16, 16), torch.tensor([0.5, 1.5])
    singles = [gaussian_blur(clips[:, t], sigma, 5) for t in range(4)]
    torch.testing.assert_close(gaussian_blur(clips, sigma, 5), torch.stack(singles, 1), **CLOSE)


@given(st.floats(0.1, 5.0), st.floats(0, 1, width=32), st.sampled_from([1, 3, 5, 13]))
@settings(max_examples=50, deadline=None)
def test_an_even_picture_stays_even_and_in_the_unit_interval(sigma, value, kernel_size):
    pixels = torch.full((1, 1, 7, 9), value)
    blurred = gaussian_blur(pixels, torch.tensor([sigma]), kernel_size)
    torch.testing.assert_close(blurred, pixels, **CLOSE)
    assert 0 <= blurred.min() <= blurred.max() <= 1


@pytest.mark.parametrize("kernel_size", [0, 4, -3, 33])
def test_an_impossible_kernel_is_refused(kernel_size):
    with pytest.raises(ClvrBenchError, match=rf"kernel_size must be odd .* got {kernel_size} for pictures of 16 x 20"):
        gaussian_blur(torch.rand(1, 3, 16, 20), torch.ones(1), kernel_size)
