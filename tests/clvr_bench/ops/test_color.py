import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from clvr_bench import ClvrBenchError, SampleRandom
from clvr_bench.ops import chunks
from clvr_bench.ops.color import (
    Jitter,
    _jitter_masked,
    _jitter_singly,
    _jitter_sorted,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_jitter,
    grayscale,
)

CLOSE = {"rtol": 0, "atol": 1e-5}  # float32 rounding of HSV's divisions; 1/400 of a uint8 step
OPERATIONS = {
    "brightness": (adjust_brightness, tv.adjust_brightness),
    "contrast": (adjust_contrast, tv.adjust_contrast),
    "saturation": (adjust_saturation, tv.adjust_saturation),
    "hue": (adjust_hue, tv.adjust_hue),
}


def pictures(samples=24, channels=3):
    """Quantized as stored ones are, so that equal channels, grays, black and white occur."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 9, (samples, channels, 12, 11), generator=generator) / 8
    pixels[0], pixels[1] = 0, 1
    pixels[2] = pixels[2, :1]
    return pixels


def parameters(name, samples=24):
    return torch.linspace(-0.5, 0.5, samples) if name == "hue" else torch.linspace(0, 2.5, samples)


def jitter(samples, strengths=(0.8, 0.8, 0.8, 0.2), probability=1.0, seed=0):
    return Jitter.draw(SampleRandom.keyed(seed, 0, torch.arange(samples))("jitter"), strengths, probability)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_torchvisions_pixels(name, channels):
    ours, theirs = OPERATIONS[name]
    pixels, values = pictures(channels=channels), parameters(name)
    expected = torch.stack([theirs(p, float(v)) for p, v in zip(pixels, values, strict=True)])
    torch.testing.assert_close(ours(pixels, values), expected, **CLOSE)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_frames_of_a_clip_are_changed_alike_and_each_for_itself(name):
    ours, _ = OPERATIONS[name]
    frames, values = pictures().view(8, 3, 3, 12, 11), parameters(name, 8)
    singles = [ours(frames[:, t], values) for t in range(3)]
    torch.testing.assert_close(ours(frames, values), torch.stack(singles, 1), **CLOSE)


@given(st.lists(st.floats(0, 1, width=32), min_size=12, max_size=12), st.floats(0, 3), st.floats(-0.5, 0.5))
@settings(max_examples=50, deadline=None)
def test_operations_stay_in_the_unit_interval(values, factor, shift):
    pixels = torch.tensor(values).view(1, 3, 2, 2)
    for name, (ours, _) in OPERATIONS.items():
        changed = ours(pixels, torch.tensor([shift if name == "hue" else factor]))
        assert changed.min() >= 0
        assert changed.max() <= 1


@given(st.lists(st.floats(0, 1, width=32), min_size=12, max_size=12))
@settings(max_examples=50, deadline=None)
def test_identity_parameters_change_nothing(values):
    pixels = torch.tensor(values).view(1, 3, 2, 2)
    for name, (ours, _) in OPERATIONS.items():
        identity = torch.tensor([0.0 if name == "hue" else 1.0])
        torch.testing.assert_close(ours(pixels, identity), pixels, **CLOSE)


def test_opposite_hue_shifts_of_half_a_turn_agree():
    pixels, half = pictures(), torch.full((24,), 0.5)
    torch.testing.assert_close(adjust_hue(pixels, half), adjust_hue(pixels, -half), **CLOSE)


def test_only_chosen_samples_turn_gray():
    pixels, chosen = pictures(), torch.arange(24) % 2 == 0
    gray = grayscale(pixels, chosen)
    torch.testing.assert_close(gray[chosen], tv.rgb_to_grayscale(pixels[chosen], num_output_channels=3), **CLOSE)
    assert torch.equal(gray[~chosen], pixels[~chosen])


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ClvrBenchError, match="must have 1 or 3 channels, got 4"):
        grayscale(torch.rand(2, 4, 8, 8), torch.ones(2, dtype=torch.bool))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_jitter_in_every_order_has_torchvisions_pixels(channels):
    orders = torch.tensor(list(itertools.permutations(range(4))))
    drawn, pixels = jitter(24), pictures(channels=channels)
    changed = color_jitter(pixels, Jitter(drawn.factors, drawn.shift, orders, drawn.chosen))
    theirs = [operation for _, operation in OPERATIONS.values()]
    for sample, order in enumerate(orders.tolist()):
        values = [*drawn.factors[sample].tolist(), drawn.shift[sample].item()]
        expected = pixels[sample]
        for operation in order:
            expected = theirs[operation](expected, values[operation])
        torch.testing.assert_close(changed[sample], expected, **CLOSE)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_ways_to_jitter_agree_with_the_plain_one(channels):
    orders = torch.tensor(list(itertools.permutations(range(4))))
    drawn, pixels = jitter(24, probability=0.5), pictures(channels=channels)
    parameters = drawn.factors, drawn.shift, orders
    plain = _jitter_singly(pixels, *parameters)
    torch.testing.assert_close(_jitter_sorted(pixels, *parameters), plain, **CLOSE)
    expected = torch.where(drawn.chosen[:, None, None, None], plain, pixels)
    torch.testing.assert_close(_jitter_masked(drawn.chosen, pixels, *parameters), expected, **CLOSE)


def test_large_pictures_are_jittered_as_small_ones():
    large, drawn = torch.rand(6, 3, 128, 129, generator=torch.Generator().manual_seed(0)), jitter(6, probability=0.5)
    jittered = color_jitter(large, drawn)
    expected = _jitter_sorted(large, drawn.factors, drawn.shift, drawn.order)
    torch.testing.assert_close(jittered[drawn.chosen], expected[drawn.chosen], **CLOSE)
    assert torch.equal(jittered[~drawn.chosen], large[~drawn.chosen])


@pytest.mark.parametrize("name", [*OPERATIONS, "gray", "jitter"])
def test_bytes_are_taken_as_pictures_in_the_unit_interval(name):
    stored = torch.randint(0, 256, (6, 3, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    change = {
        **{name: ours for name, (ours, _) in OPERATIONS.items()},
        "gray": lambda pixels, _: grayscale(pixels, torch.arange(6) % 2 == 0),
        "jitter": lambda pixels, _: color_jitter(pixels, jitter(6)),
    }[name]
    values = parameters(name, 6)
    torch.testing.assert_close(change(stored, values), change(stored / 255, values), **CLOSE)


def test_samples_that_are_not_chosen_stay_bit_identical():
    pixels, drawn = pictures(), jitter(24, probability=0.5)
    same = (color_jitter(pixels, drawn) == pixels).flatten(1).all(1)
    assert same[~drawn.chosen].all()
    assert not same[drawn.chosen][3:].any()


def test_the_jitter_leaves_its_input_alone():
    pixels = pictures()
    color_jitter(pixels, jitter(24))
    assert torch.equal(pixels, pictures())


def test_the_jitter_does_not_depend_on_how_the_batch_is_cut(monkeypatch):
    pixels, drawn = pictures(), jitter(24)
    whole = color_jitter(pixels, drawn)
    monkeypatch.setattr(chunks, "_NUMBERS", 5 * pixels[0].numel())
    torch.testing.assert_close(color_jitter(pixels, drawn), whole, **CLOSE)


def test_factors_are_uniform_in_torchvisions_ranges():
    drawn = jitter(20_000, (0.4, 1.2, 0.8, 0.2))
    for values, low, high in (
        (drawn.factors[:, 0], 0.6, 1.4),
        (drawn.factors[:, 1], 0.0, 2.2),
        (drawn.factors[:, 2], 0.2, 1.8),
        (drawn.shift, -0.2, 0.2),
    ):
        assert values.min() >= low
        assert values.max() <= high
        quantiles = torch.quantile((values - low) / (high - low), torch.linspace(0.1, 0.9, 9))
        # the standard error of a quantile of 20,000 uniform draws is at most 0.0035
        torch.testing.assert_close(quantiles, torch.linspace(0.1, 0.9, 9), rtol=0, atol=0.015)


def test_all_orders_are_equally_likely():
    counts = torch.unique(jitter(24_000).order, dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert (counts - 1000).abs().max() < 150  # nearly five standard deviations of a count, sqrt(1000)


def test_the_share_of_changed_samples_is_the_probability():
    assert jitter(10_000, probability=0.8).chosen.float().mean().item() == pytest.approx(0.8, abs=0.02)
