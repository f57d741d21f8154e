import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clvr_bench import ClvrBenchError
from clvr_bench.ops.color_lab import LAB_RANGES, from_unit_lab, lab_to_rgb, rgb_to_lab, unit_lab

PUBLISHED = {  # as commonly tabulated for sRGB under D65 and the 2 degree observer
    (1, 1, 1): (100.0, 0.0, 0.0),
    (1, 0, 0): (53.24, 80.09, 67.20),
    (0, 1, 0): (87.73, -86.18, 83.18),
    (0, 0, 1): (32.30, 79.19, -107.86),
    (1, 1, 0): (97.14, -21.55, 94.48),
    (0, 1, 1): (91.11, -48.09, -14.13),
    (1, 0, 1): (60.32, 98.23, -60.82),
    (0, 0, 0): (0.0, 0.0, 0.0),
}


def naive_lab(red, green, blue):
    """A pixel's Lab in float64, step by step as the two standards print it."""

    def linear(value):
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    r, g, b = linear(red), linear(green), linear(blue)
    x = 0.4124 * r + 0.3576 * g + 0.1805 * b
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = 0.0193 * r + 0.1192 * g + 0.9505 * b

    def f(share):
        return share ** (1 / 3) if share > (24 / 116) ** 3 else (841 / 108) * share + 16 / 116

    fx, fy, fz = f(x / 0.9505), f(y / 1.0), f(z / 1.0890)
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def pixel(*rgb):
    return torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)


def cube(steps):
    """All colors of a grid: (1, 3, 1, steps ** 3)."""
    values = torch.linspace(0, 1, steps)
    return torch.cartesian_prod(values, values, values).T.reshape(1, 3, 1, -1)


@pytest.mark.parametrize(("rgb", "lab"), PUBLISHED.items())
def test_corner_colors_are_the_published_ones(rgb, lab):
    expected = torch.tensor(lab)  # others use a matrix of six digits or a white of five: 0.05 apart at most
    torch.testing.assert_close(rgb_to_lab(pixel(*rgb)).flatten(), expected, rtol=0, atol=0.05)


def test_colors_are_those_of_the_standards_formulas():
    colors = cube(12)
    expected = torch.tensor([naive_lab(*color) for color in colors[0, :, 0].T.double().tolist()]).T
    torch.testing.assert_close(rgb_to_lab(colors)[0, :, 0], expected.float(), rtol=0, atol=2e-4)  # float32 rounding


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.floats(0, 1, width=32)] * 3))
def test_any_color_is_that_of_the_standards_formulas(rgb):
    expected = torch.tensor(naive_lab(*rgb))
    torch.testing.assert_close(rgb_to_lab(pixel(*rgb)).flatten(), expected.float(), rtol=0, atol=2e-4)


def test_grays_have_no_color_and_their_lightness_grows():
    grays = torch.linspace(0, 1, 256).expand(1, 3, 1, 256)
    lightness, a, b = rgb_to_lab(grays).unbind(1)
    assert a.abs().max() < 2e-4
    assert b.abs().max() < 2e-4
    assert (lightness.diff() > 0).all()


def test_the_ranges_are_those_of_all_colors_and_tight():
    lab = rgb_to_lab(cube(33))[0, :, 0]
    for values, (low, high) in zip(lab, LAB_RANGES, strict=True):
        assert low - 1e-4 <= values.min() <= low + 0.1
        assert high - 0.1 <= values.max() <= high + 1e-4


def test_unit_lab_takes_the_ranges_to_minus_one_and_one():
    corners = torch.tensor(list(itertools.product(*LAB_RANGES))).T.reshape(1, 3, 2, 4)
    expected = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3))).T.reshape(1, 3, 2, 4)
    torch.testing.assert_close(unit_lab(corners), expected, rtol=0, atol=1e-6)
    middle = torch.tensor([(low + high) / 2 for low, high in LAB_RANGES]).view(1, 3, 1, 1)
    torch.testing.assert_close(unit_lab(middle), torch.zeros(1, 3, 1, 1), rtol=0, atol=1e-6)


def test_pictures_and_clips_are_converted_pixel_by_pixel():
    clips = torch.rand(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    converted = rgb_to_lab(clips)
    assert converted.shape == clips.shape
    assert converted.dtype is torch.float32
    torch.testing.assert_close(converted[1, 2], rgb_to_lab(clips[1, 2]), rtol=0, atol=2e-4)
    torch.testing.assert_close(unit_lab(converted)[1, 2], unit_lab(converted[1, 2]))
    color = clips[0, 1, :, 3, 4].double().tolist()
    assert converted[0, 1, :, 3, 4].tolist() == pytest.approx(naive_lab(*color), abs=2e-4)


def test_autocast_changes_nothing():
    pixels = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rgb_to_lab(pixels), rgb_to_lab(pixels.clone()))
        under_autocast = unit_lab(rgb_to_lab(pixels))
    assert torch.equal(under_autocast, unit_lab(rgb_to_lab(pixels)))


def test_both_branches_of_the_curves_meet():
    for share in (0.04045, math.nextafter(0.04045, 1)):
        lower, upper = (naive_lab(share * scale, share * scale, share * scale)[0] for scale in (0.9999, 1.0001))
        inside = rgb_to_lab(torch.full((1, 3, 1, 1), share)).flatten()[0]
        assert lower < inside < upper


def test_pictures_without_three_channels_are_refused():
    with pytest.raises(ClvrBenchError, match=r"Lab: pictures must have 3 channels \(red, green, blue\), got 1\. Use"):
        rgb_to_lab(torch.rand(2, 1, 4, 4))


def test_lab_is_undone_for_all_colors_that_have_one():
    random = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.cat([random, torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), random / 100])
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(images)), images, rtol=0, atol=1e-3)
    lab = rgb_to_lab(images)
    torch.testing.assert_close(from_unit_lab(unit_lab(lab)), lab, rtol=0, atol=1e-4)


def test_colors_outside_of_srgb_are_clipped():
    lab = torch.tensor([[95.0, 90.0, 90.0], [5.0, -80.0, 90.0], [50.0, 0.0, -107.0]])[:, :, None, None]
    shown = lab_to_rgb(lab)
    assert shown.isfinite().all()
    assert shown.min() >= 0
    assert shown.max() <= 1
