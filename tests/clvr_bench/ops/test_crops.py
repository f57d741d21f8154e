import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from clvr_bench import Images, SampleRandom
from clvr_bench.ops import chunks
from clvr_bench.ops import crops as crops_module
from clvr_bench.ops.crops import center_boxes, center_view, crop_resize, random_boxes, separable

CLOSE = {"rtol": 0, "atol": 1e-5}  # float32 sums in another order; 1e-5 is 1/400 of a uint8 step


def picture(samples=1, channels=3, height=37, width=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (samples, channels, height, width), dtype=torch.uint8, generator=generator)


def draws(samples, purpose="crop"):
    return SampleRandom.keyed(0, 0, torch.arange(samples))(purpose)


BOXES = {
    "down": (2, 3, 33, 44),
    "up": (5, 7, 9, 11),
    "down_and_up": (0, 10, 37, 8),
    "whole": (0, 0, 37, 50),
    "one_pixel": (36, 49, 1, 1),
    "same_size": (4, 6, 16, 16),
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_crop_has_torchvisions_pixels(box):
    pixels = picture()
    expected = tv.resized_crop(pixels.float() / 255, *box, size=[16, 16], antialias=True)
    torch.testing.assert_close(crop_resize(Images.whole(pixels), torch.tensor([box]), 16), expected, **CLOSE)


def test_a_large_picture_has_torchvisions_pixels():
    pixels, box = picture(height=700, width=500), (101, 7, 590, 480)
    expected = tv.resized_crop(pixels.float() / 255, *box, size=[96, 96], antialias=True)
    torch.testing.assert_close(crop_resize(Images.whole(pixels), torch.tensor([box]), 96), expected, **CLOSE)


def test_every_sample_has_its_own_box():
    pixels = picture(samples=len(BOXES))
    views = crop_resize(Images.whole(pixels), torch.tensor(list(BOXES.values())), 16)
    singles = [tv.resized_crop(p / 255, *box, size=[16, 16]) for p, box in zip(pixels, BOXES.values(), strict=True)]
    torch.testing.assert_close(views, torch.stack(singles), **CLOSE)


def test_float_pictures_are_taken_as_they_are():
    images, boxes = Images.whole(picture().float() / 255), torch.tensor([BOXES["down"]])
    torch.testing.assert_close(crop_resize(images, boxes, 16), crop_resize(Images.whole(picture()), boxes, 16), **CLOSE)


def test_only_the_samples_to_flip_are_mirrored():
    images, boxes = Images.whole(picture(samples=2)), torch.tensor([BOXES["down"]] * 2)
    plain, flipped = crop_resize(images, boxes, 16), crop_resize(images, boxes, 16, torch.tensor([True, False]))
    torch.testing.assert_close(flipped, torch.stack([plain[0].flip(-1), plain[1]]), **CLOSE)


@pytest.mark.parametrize("stored", [torch.uint8, torch.float32])
def test_large_views_made_singly_are_those_of_the_matrix_products(monkeypatch, stored):
    pixels = picture(samples=len(BOXES)) if stored == torch.uint8 else picture(samples=len(BOXES)) / 255
    boxes, flip = torch.tensor(list(BOXES.values())), torch.arange(len(BOXES)) % 2 == 0
    singly = crop_resize(Images.whole(pixels), boxes, 64, flip)
    monkeypatch.setattr(crops_module, "_LARGE", 65)
    torch.testing.assert_close(singly, crop_resize(Images.whole(pixels), boxes, 64, flip), **CLOSE)


def test_the_frames_of_a_clip_share_a_large_crop():
    frames = picture(samples=6).view(2, 3, 3, 37, 50)
    boxes = torch.tensor([BOXES["down"], BOXES["up"]])
    clips = crop_resize(Images.whole(frames), boxes, 64)
    singles = [crop_resize(Images.whole(frames[:, t]), boxes, 64) for t in range(3)]
    torch.testing.assert_close(clips, torch.stack(singles, 1), **CLOSE)


@pytest.mark.parametrize("box", [(0.5, 3.0, 17.25, 26.0), (-1, 0, 20, 20), (10, 10, 30, 40)])
def test_large_views_of_odd_boxes_are_those_of_the_matrix_products(monkeypatch, box):
    images, boxes = Images(picture(), torch.tensor([[20, 30]])), torch.tensor([box], dtype=torch.float32)
    view = crop_resize(images, boxes, 64)
    monkeypatch.setattr(crops_module, "_LARGE", 65)
    assert torch.equal(view, crop_resize(images, boxes, 64))


def test_all_frames_of_a_clip_share_the_crop():
    frames = picture(samples=6).view(2, 3, 3, 37, 50)
    boxes = torch.tensor([BOXES["down"], BOXES["up"]])
    clips = crop_resize(Images.whole(frames), boxes, 16)
    singles = [crop_resize(Images.whole(frames[:, t]), boxes, 16) for t in range(3)]
    torch.testing.assert_close(clips, torch.stack(singles, 1), **CLOSE)


@pytest.mark.parametrize("box", [(0, 0, 20, 30), (3, 4, 17, 26), (10, 10, 30, 40)], ids=["whole", "edge", "beyond"])
def test_padding_never_leaks_into_a_view(box):
    sizes = torch.tensor([[20, 30]])
    dark, bright = picture(), picture()
    for pixels, value in ((dark, 0), (bright, 255)):
        pixels[..., 20:, :] = value
        pixels[..., 30:] = value
    boxes = torch.tensor([box])
    assert torch.equal(crop_resize(Images(dark, sizes), boxes, 16), crop_resize(Images(bright, sizes), boxes, 16))


def test_a_view_does_not_depend_on_how_the_batch_is_cut(monkeypatch):
    images = Images.whole(picture(samples=9))
    boxes = random_boxes(images.sizes, draws(9))
    whole = crop_resize(images, boxes, 16)
    monkeypatch.setattr(chunks, "_NUMBERS", 1)
    torch.testing.assert_close(crop_resize(images, boxes, 16), whole, **CLOSE)


def test_values_stay_in_the_unit_interval():
    images = Images.whole(torch.full((64, 3, 37, 50), 255, dtype=torch.uint8))
    views = crop_resize(images, random_boxes(images.sizes, draws(64)), 16)
    assert views.max() <= 1
    assert views.min() > 1 - 1e-5


def test_autocast_does_not_lower_the_precision():
    pixels, rows, columns = torch.rand(2, 3, 8, 9), torch.rand(2, 4, 8), torch.rand(2, 5, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = separable(pixels, rows, columns)
    torch.testing.assert_close(result, torch.einsum("bsh,bchw,brw->bcsr", rows, pixels, columns))


def torchvision_boxes(height, width, area, ratio, count):
    torch.manual_seed(0)
    crop, empty = v2.RandomResizedCrop(8, scale=area, ratio=ratio), torch.empty(1, height, width)
    boxes = [crop.make_params([empty]) for _ in range(count)]
    return torch.tensor([[box["top"], box["left"], box["height"], box["width"]] for box in boxes]).float()


@pytest.mark.parametrize("size", [(32, 32), (60, 100)])
def test_boxes_are_distributed_as_torchvisions(size):
    ours = random_boxes(torch.tensor([size]).expand(20_000, 2), draws(20_000))
    theirs = torchvision_boxes(*size, (0.08, 1.0), (3 / 4, 4 / 3), 3000)
    for measure in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3  # seeded on both sides: passes always or never


@pytest.mark.parametrize("size", [(10, 100), (100, 10)])
def test_the_fallback_is_torchvisions_central_box(size):
    box = random_boxes(torch.tensor([size]), draws(1), area=(0.99, 1.0))
    assert torch.equal(box, torchvision_boxes(*size, (0.99, 1.0), (3 / 4, 4 / 3), 1))


@given(st.lists(st.tuples(st.integers(1, 600), st.integers(1, 600)), min_size=1, max_size=20), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_boxes_are_whole_numbers_within_each_picture(sizes, seed):
    sizes = torch.tensor(sizes)
    boxes = random_boxes(sizes, SampleRandom.keyed(seed, 0, torch.arange(len(sizes)))("crop"))
    assert torch.equal(boxes, boxes.round())
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()


def test_boxes_reach_every_position():
    boxes = random_boxes(torch.tensor([[5, 5]]).expand(2000, 2), draws(2000), area=(0.16, 0.16), ratio=(1.0, 1.0))
    assert torch.equal(boxes[:, 0].unique(), torch.arange(4.0))
    assert torch.equal(boxes[:, 1].unique(), torch.arange(4.0))


def test_center_boxes_are_the_largest_central_squares():
    sizes = torch.tensor([[10, 7], [6, 13], [4, 4]])
    assert center_boxes(sizes).tolist() == [[1, 0, 7, 7], [0, 3, 6, 6], [0, 0, 4, 4]]


def test_the_center_view_of_a_picture_of_that_size_is_the_picture():
    pixels = picture(height=32, width=32)
    torch.testing.assert_close(center_view(Images.whole(pixels), 32), pixels / 255, rtol=1e-6, atol=0)


def test_the_center_views_shortcut_equals_the_plain_way():
    images = Images.whole(picture(samples=4, height=32, width=32))
    assert torch.equal(center_view(images, 32), crop_resize(images, center_boxes(images.sizes), 32))


def test_the_center_view_enlarges_a_smaller_picture_in_a_full_frame():
    images = Images(picture(samples=2, height=32, width=32), torch.tensor([[32, 32], [16, 16]]))
    expected = tv.resize(images.pixels[1, :, :16, :16] / 255, [32, 32])
    torch.testing.assert_close(center_view(images, 32)[1], expected, **CLOSE)
