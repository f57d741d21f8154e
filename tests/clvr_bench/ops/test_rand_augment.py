import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from clvr_bench import SampleRandom
from clvr_bench.ops import pixels as pixels_module
from clvr_bench.ops.rand_augment import OPERATIONS, rand_augment

NEAREST = InterpolationMode.NEAREST
SIDE = 20


def pictures(samples, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (samples, channels, SIDE, SIDE), generator=generator) / 255


def random(samples, seed=0):
    return SampleRandom.keyed(seed, 0, torch.arange(samples))


def affine(picture, shear=(0, 0), translate=(0, 0)):
    degrees = [math.degrees(math.atan(slope)) for slope in shear]
    return tv.affine(picture, 0.0, list(translate), 1.0, degrees, NEAREST, fill=0.5, center=[0, 0])


# operation: range in table 12 of FixMatch, and torchvision's function of the same strength
TABLE_12 = {
    "autocontrast": (0, 0, lambda p, _: tv.autocontrast(p)),
    "brightness": (0.05, 0.95, tv.adjust_brightness),
    "color": (0.05, 0.95, tv.adjust_saturation),
    "contrast": (0.05, 0.95, tv.adjust_contrast),
    "equalize": (0, 0, lambda p, _: tv.equalize(p)),
    "identity": (0, 0, lambda p, _: p),
    "posterize": (4, 9, lambda p, v: tv.posterize(p, int(v))),
    "rotate": (-30, 30, lambda p, v: tv.rotate(p, v, NEAREST, fill=0.5)),
    "sharpness": (0.05, 0.95, tv.adjust_sharpness),
    "shear_x": (-0.3, 0.3, lambda p, v: affine(p, shear=(v, 0))),
    "shear_y": (-0.3, 0.3, lambda p, v: affine(p, shear=(0, v))),
    "solarize": (0, 1, tv.solarize),
    "translate_x": (-0.3, 0.3, lambda p, v: affine(p, translate=(-round(v * SIDE), 0))),
    "translate_y": (-0.3, 0.3, lambda p, v: affine(p, translate=(0, -round(v * SIDE)))),
}


def test_the_operations_are_those_of_table_12():
    assert {name: (o.low, o.high) for name, o in OPERATIONS.items()} == {n: t[:2] for n, t in TABLE_12.items()}


def test_each_sample_has_torchvisions_pixels_for_its_operations_and_strengths():
    pixels = pictures(120)
    changed = rand_augment(pixels, random(120))
    draws = [random(120)(f"operation{place}") for place in range(2)]
    plans = [(d.integers(14).tolist(), d.uniform().tolist()) for d in draws]
    unlike, seen = 0, set()
    for i, expected in enumerate(pixels):
        for operations, levels in plans:
            name = list(TABLE_12)[operations[i]]
            low, high, theirs = TABLE_12[name]
            expected = theirs(expected, low + (high - low) * levels[i])
            seen.add(name)
        unlike += ((changed[i] - expected).abs() > 1e-5).float().mean().item()
    assert seen == set(TABLE_12)
    # float32 may tip a pixel that lies on a threshold, or right between two others, to the other side
    assert unlike / 120 < 0.002


def test_picking_samples_out_gives_the_same_as_changing_all(monkeypatch):
    pixels = pictures(60)
    picked = rand_augment(pixels, random(60))
    monkeypatch.setattr(pixels_module, "_may_pick", lambda pixels: False)
    torch.testing.assert_close(picked, rand_augment(pixels, random(60)), rtol=0, atol=1e-5)


def test_a_sample_is_changed_alike_in_any_batch():
    part = rand_augment(pictures(60)[20:25], SampleRandom.keyed(0, 0, torch.arange(20, 25)))
    torch.testing.assert_close(part, rand_augment(pictures(60), random(60))[20:25], rtol=0, atol=1e-5)


def test_no_operation_changes_nothing():
    assert torch.equal(rand_augment(pictures(8), random(8), count=0), pictures(8))


def test_the_input_is_left_alone():
    pixels = pictures(60)
    rand_augment(pixels, random(60))
    assert torch.equal(pixels, pictures(60))


@pytest.mark.parametrize("shape", [(60, 1, 16, 16), (60, 4, 3, 16, 16)], ids=["gray", "clips"])
def test_gray_pictures_and_clips_stay_in_the_unit_interval(shape):
    changed = rand_augment(torch.rand(shape), random(60))
    assert changed.shape == shape
    assert 0 <= changed.min() <= changed.max() <= 1


def test_four_to_eight_bits_are_equally_likely():
    operation = OPERATIONS["posterize"]
    bits = (operation.low + (operation.high - operation.low) * random(10_000)("level").uniform()).floor()
    counts = bits.unique(return_counts=True)
    assert counts[0].tolist() == [4, 5, 6, 7, 8]
    assert (counts[1] - 2000).abs().max() < 200  # five standard deviations of a count, sqrt(1600)
