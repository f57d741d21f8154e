import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from clvr_bench.ops.geometry import (
    GRAY,
    cutout,
    rotate,
    shear_x,
    shear_y,
    shift_gray,
    shift_reflected,
    translate_x,
    translate_y,
    turn_quarters,
    warp,
)

HEIGHT, WIDTH = 33, 48
VALUES = torch.linspace(-0.3, 0.3, 9)[[0, 1, 2, 3, 5, 6, 7, 8]] + 0.00123  # few points fall between two pixels


def pictures(samples=8):
    return torch.rand(samples, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def affine(picture, shear=(0, 0), translate=(0, 0)):
    """Torchvision's map as its RandAugment calls it: PIL's, about the top left corner."""
    degrees = [math.degrees(math.atan(slope)) for slope in shear]
    mode = InterpolationMode.NEAREST
    return tv.affine(picture, 0.0, list(translate), 1.0, degrees, mode, fill=0.5, center=[0, 0])


TORCHVISIONS = {
    rotate: lambda p, v: tv.rotate(p, 100 * v, InterpolationMode.NEAREST, fill=0.5),
    shear_x: lambda p, v: affine(p, shear=(v, 0)),
    shear_y: lambda p, v: affine(p, shear=(0, v)),
    translate_x: lambda p, v: affine(p, translate=(-round(v * WIDTH), 0)),
    translate_y: lambda p, v: affine(p, translate=(0, -round(v * HEIGHT))),
}


@pytest.mark.parametrize("operation", TORCHVISIONS, ids=lambda operation: operation.__name__)
def test_each_sample_has_torchvisions_pixels_for_its_parameter(operation):
    theirs, scale = TORCHVISIONS[operation], 100 if operation is rotate else 1  # up to 30 degrees
    expected = torch.stack([theirs(p, float(v)) for p, v in zip(pictures(), VALUES, strict=True)])
    unlike = (operation(pictures(), scale * VALUES) - expected).abs() > 1e-6
    assert unlike.float().mean() < 1e-3  # float32 may tip a point right between two pixels to either


@pytest.mark.parametrize("operation", TORCHVISIONS, ids=lambda operation: operation.__name__)
def test_zero_moves_nothing(operation):
    torch.testing.assert_close(operation(pictures(), torch.zeros(8)), pictures(), rtol=0, atol=1e-6)


def test_a_quarter_turn_is_torchs():
    square = pictures()[..., :HEIGHT]
    turned = rotate(square, torch.full((8,), 90.0))
    torch.testing.assert_close(turned, square.rot90(1, (-2, -1)), rtol=0, atol=1e-6)


def test_a_sample_that_leaves_its_frame_is_gray():
    assert torch.equal(translate_x(pictures(), torch.ones(8)), torch.full((8, 3, HEIGHT, WIDTH), 0.5))


def test_a_map_takes_each_pixel_from_where_it_says():
    zero, one = torch.zeros(1), torch.ones(1)
    picture = torch.arange(12.0).view(1, 1, 3, 4) / 12
    twice = warp(picture, (2 * one, zero, 0.3 * one), (zero, one, one))  # every other column, from one row below
    expected = torch.full((3, 4), 0.5)
    expected[:2, :2] = picture[0, 0, 1:, 1::2]
    torch.testing.assert_close(twice[0, 0], expected, rtol=0, atol=1e-6)


def test_all_frames_of_a_clip_move_alike():
    clips, shift = torch.rand(2, 4, 3, 16, 16), torch.tensor([[1, -2], [3, 0]])
    flip, center = torch.tensor([True, False]), torch.tensor([[3, 4], [9, 0]])
    for operation in (
        lambda pixels: rotate(pixels, torch.tensor([10.0, -20.0])),
        lambda pixels: shift_reflected(pixels, shift, flip),
        lambda pixels: shift_gray(pixels, shift, flip),
        lambda pixels: turn_quarters(pixels, torch.tensor([1, 2])),
        lambda pixels: cutout(pixels, center, 6),
    ):
        singles = [operation(clips[:, t]) for t in range(4)]
        assert torch.equal(operation(clips), torch.stack(singles, 1))


@given(st.integers(-5, 5), st.integers(-6, 6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_shift_is_a_crop_of_the_picture_with_reflected_edges(down, right, flip):
    picture = torch.arange(42.0).view(1, 1, 6, 7)
    mirrored = picture.flip(-1) if flip else picture
    padded = torch.nn.functional.pad(mirrored, (6, 6, 5, 5), mode="reflect")
    shifted = shift_reflected(picture, torch.tensor([[down, right]]), torch.tensor([flip]))
    assert torch.equal(shifted, padded[..., 5 - down : 11 - down, 6 - right : 13 - right])


def test_each_sample_has_its_own_shift():
    pixels, shift = pictures(3), torch.tensor([[0, 0], [4, -1], [-2, 7]])
    flip = torch.tensor([False, True, False])
    singles = [shift_reflected(pixels[i, None], shift[i, None], flip[i, None]) for i in range(3)]
    assert torch.equal(shift_reflected(pixels, shift, flip), torch.cat(singles))
    assert torch.equal(singles[0][0], pixels[0])


@given(st.integers(0, 8), st.integers(0, 9), st.sampled_from([0, 2, 4, 16]))
@settings(max_examples=40, deadline=None)
def test_a_square_is_cut_out_as_far_as_it_lies_within_the_picture(row, column, size):
    picture = torch.rand(1, 2, 9, 10)
    expected = picture.clone()
    half = size // 2
    expected[..., max(0, row - half) : row + half, max(0, column - half) : column + half] = 0.5
    assert torch.equal(cutout(picture, torch.tensor([[row, column]]), size), expected)


def test_only_chosen_samples_are_cut():
    chosen = torch.arange(8) % 2 == 0
    cut = cutout(pictures(), torch.full((8, 2), 9), 4, chosen)
    assert torch.equal(cut[~chosen], pictures()[~chosen])
    assert (cut[chosen][..., 7:11, 7:11] == GRAY).all()


@pytest.mark.parametrize("stored", [torch.uint8, torch.float32])
def test_each_square_has_its_own_quarter_turns(stored):
    squares = (255 * torch.rand(8, 3, 9, 9)).to(stored)
    turned = turn_quarters(squares, torch.arange(8) % 4)
    assert torch.equal(turned, torch.stack([p.rot90(i % 4, (-2, -1)) for i, p in enumerate(squares)]))


@given(st.integers(-8, 8), st.integers(-9, 9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_gray_shift_is_a_crop_of_the_padded_picture(down, right, flip):
    picture = torch.rand(1, 2, 6, 7)
    mirrored = picture.flip(-1) if flip else picture
    padded = torch.nn.functional.pad(mirrored, (9, 9, 8, 8), value=GRAY)
    shifted = shift_gray(picture, torch.tensor([[down, right]]), torch.tensor([flip]))
    assert torch.equal(shifted, padded[..., 8 - down : 14 - down, 9 - right : 16 - right])


def test_bytes_are_shifted_and_cut_as_pictures_in_the_unit_interval():
    stored = (255 * pictures(2)).byte()
    for operation in (
        lambda pixels: shift_gray(pixels, torch.tensor([[1, 2], [0, -3]]), torch.tensor([True, False])),
        lambda pixels: cutout(pixels, torch.tensor([[3, 4], [9, 0]]), 6),
        lambda pixels: rotate(pixels, torch.tensor([10.0, -20.0])),
    ):
        torch.testing.assert_close(operation(stored), operation(stored / 255), rtol=0, atol=1e-6)
