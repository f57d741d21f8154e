import colorsys
import math

import numpy as np
import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images
from clvr_plugins.augmentations.exemplar import (
    COMPONENTS,
    ExemplarAugmentation,
    change_saturation_and_value,
    factors,
    moved,
    stretch_components,
)
from tests.plugins.augmentations.pictures import COUNT, PIXELS, plain, samples, view

ONE, NONE = torch.ones(COUNT), torch.zeros(COUNT)
CLOSE = {"rtol": 0, "atol": 1e-5}  # float32 rounding; 1e-5 is 1/400 of a uint8 step


def naive_moved(picture, shift, scale, degrees):
    """Each pixel by itself, in float64: where it comes from, and the four pixels around that place; one channel."""
    size = picture.shape[-1]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    made = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            x = (column + 0.5) / size - 0.5 - shift[0]
            y = (row + 0.5) / size - 0.5 - shift[1]
            across = ((cosine * x - sine * y) / scale + 0.5) * size - 0.5  # in pixels, their centers whole numbers
            down = ((sine * x + cosine * y) / scale + 0.5) * size - 0.5
            for top in (math.floor(down), math.floor(down) + 1):
                for left in (math.floor(across), math.floor(across) + 1):
                    weight = (1 - abs(down - top)) * (1 - abs(across - left))
                    made[row, column] += weight * picture[mirrored(top, size), mirrored(left, size)]
    return made


def mirrored(place, size):
    place %= 2 * size
    return min(place, 2 * size - 1 - place)


@pytest.mark.parametrize(
    ("shift", "scale", "degrees"), [((0.2, -0.1), 1.0, 0.0), ((0.0, 0.0), 1.4, 0.0), ((-0.13, 0.2), 0.7, 17.0)]
)
def test_pictures_are_scaled_and_turned_about_their_middle_then_shifted(shift, scale, degrees):
    pictures = plain()[:2]
    made = moved(pictures, *(torch.tensor([value] * 2) for value in (shift, scale, degrees)))
    expected = [[naive_moved(channel.double().numpy(), shift, scale, degrees) for channel in p] for p in pictures]
    np.testing.assert_allclose(made, np.array(expected), atol=1e-4)


def test_turns_are_counter_clockwise():
    made = moved(plain(), torch.zeros(COUNT, 2), ONE, 90 * ONE)
    torch.testing.assert_close(made, plain().rot90(1, (-2, -1)), rtol=0, atol=1e-4)


def test_a_shift_of_a_pixel_goes_right_and_down():
    made = moved(plain(), torch.tensor([[0.05, 0.1]]).expand(COUNT, 2), ONE, NONE)  # 1 and 2 of 20 pixels
    torch.testing.assert_close(made[..., 2:, 1:], plain()[..., :-2, :-1], rtol=0, atol=1e-4)


def test_a_scale_above_one_enlarges():
    disk = torch.zeros(1, 1, 20, 20)
    disk[..., 8:12, 8:12] = 1
    made = moved(disk, torch.zeros(1, 2), torch.tensor([2.0]), torch.zeros(1))
    assert made.sum().item() == pytest.approx(64, rel=0.05)


def test_components_are_orthonormal_and_stretched_each_by_its_factor():
    basis = torch.tensor(COMPONENTS, dtype=torch.float64)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3, dtype=torch.float64))
    pixels = 0.5 + (plain() - 0.5) * 0.2  # so that nothing is clamped
    scales = torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(1)) * 1.5 + 0.5
    made = stretch_components(pixels, scales)
    before, after = (torch.einsum("kc,bchw->bkhw", basis, p.double() - 0.5) for p in (pixels, made))
    torch.testing.assert_close(after, before * scales.double()[:, :, None, None], **CLOSE)


def test_a_channel_alone_is_stretched_by_the_first_factor():
    gray = plain()[:, :1]
    scales = torch.tensor([[0.5, 9.0, 9.0]]).expand(COUNT, 3)
    torch.testing.assert_close(stretch_components(gray, scales), 0.5 + 0.5 * (gray - 0.5), **CLOSE)


@pytest.mark.parametrize(("power", "factor", "added"), [(2.0, 0.8, 0.1), (0.25, 1.4, -0.1), (1.0, 1.0, 0.0)])
def test_saturation_and_value_change_as_in_hsv_and_the_hue_stays(power, factor, added):
    colors = plain()[0].flatten(1).T[:60]  # (60, 3)
    made = change_saturation_and_value(
        colors.view(60, 3, 1, 1), *(torch.full((60,), value) for value in (power, factor, added))
    )
    for color, found in zip(colors.tolist(), made.view(60, 3).tolist(), strict=True):
        hue, *rest = colorsys.rgb_to_hsv(*color)
        saturation, value = (min(1.0, max(0.0, part**power * factor + added)) for part in rest)
        assert found == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, value), abs=1e-5)


def test_grays_stay_gray():
    gray = plain()[:, :1].expand(-1, 3, -1, -1)
    made = change_saturation_and_value(gray, 0.5 * ONE, ONE, 0.1 * ONE)
    torch.testing.assert_close(made, (gray**0.5 + 0.1).clamp(max=1), **CLOSE)
    assert change_saturation_and_value(torch.zeros(1, 3, 2, 2), *torch.tensor([[2.0], [1.4], [-0.1]])).max() == 0


def test_factors_are_uniform_in_their_logarithm():
    drawn = factors(samples()("x"), (0.25, 4.0), 3)
    assert drawn.shape == (COUNT, 3)
    assert drawn.min() >= 0.25
    assert drawn.max() <= 4
    assert (drawn < 1).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert (drawn < 0.5).float().mean().item() == pytest.approx(0.25, abs=0.08)


def test_without_contrast_and_power_only_value_saturation_and_hue_are_a_little_different():
    made = view(ExemplarAugmentation, shift=0.0, scale=(1.0, 1.0), degrees=0.0, contrast=(1, 1), power=(1, 1))
    value, before = made.amax(dim=1), plain().amax(dim=1)
    assert (value <= 1.4 * before + 0.1 + 1e-4).all()
    assert (value >= 0.7 * before - 0.1 - 1e-4).all()
    slopes = (value.flatten(1).std(dim=1) / before.flatten(1).std(dim=1)).sort().values
    assert 0.69 < slopes[5] < 0.8


@pytest.mark.parametrize("channels", [1, 3])
def test_views_of_any_number_of_channels_and_frames(channels):
    pixels = PIXELS[:6, :channels]
    facts = DataFacts(modality="image", train_size=6, image_size=20, channels=channels)
    (made,) = ExemplarAugmentation(facts)(Images.whole(pixels), 1, samples()[:6])
    assert made.shape == (6, channels, 20, 20)
    clips = pixels[:, None].expand(-1, 2, -1, -1, -1)
    (frames,) = ExemplarAugmentation(facts)(Images(clips, Images.whole(pixels).sizes), 1, samples()[:6])
    torch.testing.assert_close(frames, made[:, None].expand(-1, 2, -1, -1, -1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("shift", -0.1, r"shift must be in \[0, 1\) and degrees in \[0, 180\], got -0\.1 and 20"),
        ("degrees", 181.0, r"shift must be .* got 0\.2 and 181\.0\. The paper's are 0\.2 and 20"),
        ("scale", (0.0, 1.0), r"scale must be \(low, high\) with 0 < low <= high, got \(0\.0, 1\.0\)"),
        ("contrast", (2.0, 0.5), r"contrast must be .* got \(2\.0, 0\.5\)"),
        ("power", (-1.0, 4.0), r"power must be .* got \(-1\.0, 4\.0\)"),
    ],
)
def test_options_out_of_range_are_refused(option, value, message):
    with pytest.raises(ClvrBenchError, match=f"augmentation exemplar: {message}"):
        view(ExemplarAugmentation, **{option: value})
