import pytest
import torch

from clvr_bench import ClvrBenchError, Images, SampleRandom
from clvr_bench.ops.blur import gaussian_blur
from clvr_bench.ops.color import Jitter, color_jitter, grayscale
from clvr_bench.ops.crops import crop_resize, random_boxes
from clvr_bench.ops.distortions import Distortions, check_area, size_setting
from clvr_bench.ops.tones import solarize

PIXELS = torch.randint(0, 256, (24, 3, 30, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RANDOM = SampleRandom.keyed(0, 0, torch.arange(24))
TONES = (0.8, 0.8, 0.8, 0.2)


def distorted(images=None, random=RANDOM, **options):
    settings = {"area": (0.2, 1.0), "jitter": TONES, **options}
    return Distortions(**settings).view(images or Images.whole(PIXELS), 40, random)


def cropped():
    images = Images.whole(PIXELS)
    return crop_resize(images, random_boxes(images.sizes, RANDOM("crop"), (0.2, 1.0)), 40, RANDOM("flip").chance(0.5))


def test_the_order_is_crop_jitter_gray_blur_solarization():
    jitter = Jitter.draw(RANDOM("jitter"), TONES, 0.7)
    view = grayscale(color_jitter(cropped(), jitter), RANDOM("gray").chance(0.3))
    draws = RANDOM("blur")
    view = gaussian_blur(view, draws.uniform(low=0.1, high=2.0), 5, draws.chance(0.6))
    view = solarize(view, 0.5, RANDOM("solarize").chance(0.4))
    assert torch.equal(distorted(jittered=0.7, gray=0.3, blurred=0.6, solarized=0.4), view)


def test_the_color_can_go_before_the_jitter():
    jitter = Jitter.draw(RANDOM("jitter"), TONES, 1.0)
    view = color_jitter(grayscale(cropped(), RANDOM("gray").chance(0.5)), jitter)
    assert torch.equal(distorted(jittered=1.0, gray=0.5, gray_first=True), view)


def test_a_probability_of_zero_leaves_an_operation_out():
    assert torch.equal(distorted(jittered=0.0, gray=0.0), cropped())


def test_a_probability_of_one_changes_every_sample():
    plain = distorted(jittered=0.0, gray=0.0)
    for option in ("jittered", "gray", "solarized"):  # a blur of 0.1 pixels would hardly show
        always = distorted(**{"jittered": 0.0, "gray": 0.0, option: 1.0})
        assert ((always - plain).abs().amax((1, 2, 3)) > 1e-4).all(), option


def test_leaving_one_operation_out_changes_no_draw_of_the_others():
    assert torch.equal(distorted(solarized=0.5), solarize(distorted(), 0.5, RANDOM("solarize").chance(0.5)))


@pytest.mark.parametrize(("image_size", "setting"), [(32, "small"), (64, "small"), (65, "large"), (224, "large")])
def test_auto_is_small_up_to_64_pixels(image_size, setting):
    assert size_setting("auto", image_size) == setting


@pytest.mark.parametrize("setting", ["small", "large"])
def test_a_chosen_setting_stays(setting):
    assert size_setting(setting, 32) == size_setting(setting, 224) == setting


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (float("nan"), 1.0)])
def test_a_bad_area_is_refused_with_the_options_name(area):
    with pytest.raises(ClvrBenchError, match=r"augmentation acme: local must be .* got .* The paper's is \(0.1, 0.2\)"):
        check_area("acme", area, "local", "(0.1, 0.2)")
