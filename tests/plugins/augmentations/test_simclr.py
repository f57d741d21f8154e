import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from clvr_bench import ClvrBenchError, DataFacts, Images, SampleRandom
from clvr_bench.ops.color import Jitter
from clvr_bench.ops.crops import crop_resize, random_boxes
from clvr_plugins.augmentations.simclr import SimCLRAugmentation

PIXELS = torch.randint(0, 256, (16, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(16) + 100


def facts(image_size=32, channels=3):
    return DataFacts(modality="image", train_size=64, image_size=image_size, channels=channels)


def views(samples=slice(None), count=2, pixels=PIXELS, sizes=None, **options):
    pixels = pixels[samples]
    images = Images.whole(pixels) if sizes is None else Images(pixels, sizes)
    augment = SimCLRAugmentation(facts(channels=pixels.shape[-3]), **options)
    return torch.stack(augment(images, count, SampleRandom.keyed(0, 0, INDEX[samples])))


@pytest.mark.parametrize(("image_size", "setting"), [(32, "small"), (64, "small"), (65, "large"), (224, "large")])
def test_the_setting_follows_the_size(image_size, setting):
    assert SimCLRAugmentation(facts(image_size)).setting == setting


def test_the_setting_can_be_chosen():
    assert SimCLRAugmentation(facts(224), settings="small").setting == "small"
    assert SimCLRAugmentation(facts(32), settings="large").setting == "large"


@pytest.mark.parametrize("settings", ["small", "large"])
def test_a_view_is_the_papers_sequence_of_operations(settings):
    strength = {"small": 0.5, "large": 1.0}[settings]
    random = SampleRandom.keyed(0, 0, INDEX).scoped("view0")
    boxes = random_boxes(Images.whole(PIXELS).sizes, random("crop"))
    cropped = crop_resize(Images.whole(PIXELS), boxes, 32, random("flip").chance(0.5))
    jitter = Jitter.draw(random("jitter"), (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength), 0.8)
    gray, draws = random("gray").chance(0.2), random("blur")
    sigma, blurred = draws.uniform(low=0.1, high=2.0), draws.chance(0.5)
    operations = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    view = views(settings=settings)[0]
    for i, expected in enumerate(cropped):
        values = [*jitter.factors[i].tolist(), jitter.shift[i].item()]
        for slot in jitter.order[i].tolist() if jitter.chosen[i] else ():
            expected = operations[slot](expected, values[slot])
        if gray[i]:
            expected = tv.rgb_to_grayscale(expected, num_output_channels=3)
        if blurred[i] and settings == "large":
            expected = tv.gaussian_blur(expected, 3, float(sigma[i]))
        torch.testing.assert_close(view[i], expected, rtol=0, atol=1e-5)


PINNED = {  # means of two views of six pictures, as they were when the first results were recorded
    "small": [0.63158, 0.62785, 0.56013, 0.5216, 0.55965, 0.50769, 0.49918, 0.50098, 0.5999, 0.54255, 0.49992, 0.51068],
    "large": [
        0.75151,
        0.53771,
        0.61888,
        0.51616,
        0.45679,
        0.51145,
        0.49918,
        0.50098,
        0.58114,
        0.6691,
        0.49986,
        0.53178,
    ],
}


@pytest.mark.parametrize("settings", PINNED)
def test_views_stay_those_of_this_version(settings):
    pixels = (torch.arange(6 * 3 * 40 * 50) * 7919 % 65521 % 256).view(6, 3, 40, 50).to(torch.uint8)
    made = SimCLRAugmentation(facts(), settings=settings)(
        Images.whole(pixels), 2, SampleRandom.keyed(0, 0, torch.arange(6))
    )
    means = torch.stack(made).mean((2, 3, 4)).flatten()
    torch.testing.assert_close(means, torch.tensor(PINNED[settings]), rtol=0, atol=2e-5)


def test_a_sample_has_the_same_views_in_any_batch():
    for settings in ("small", "large"):
        part = views(slice(5, 9), settings=settings)
        torch.testing.assert_close(part, views(settings=settings)[:, 5:9], rtol=0, atol=1e-5)


def test_views_of_one_picture_differ():
    first, second = views()
    assert ((first - second).abs().amax((1, 2, 3)) > 0.01).all()


@pytest.mark.parametrize("settings", ["small", "large"])
def test_views_are_repeated_exactly_and_lie_in_the_unit_interval(settings):
    once = views(settings=settings)
    assert torch.equal(once, views(settings=settings))
    assert once.min() >= 0
    assert once.max() <= 1


def test_padding_never_leaks_into_a_view():
    sizes = torch.tensor([[30, 20]]).expand(16, 2)
    dark, bright = PIXELS.clone(), PIXELS.clone()
    for pixels, value in ((dark, 0), (bright, 255)):
        pixels[..., 30:, :] = value
        pixels[..., 20:] = value
    assert torch.equal(views(pixels=dark, sizes=sizes), views(pixels=bright, sizes=sizes))


def test_gray_pictures_and_clips_are_taken():
    assert views(pixels=PIXELS[:, :1]).shape == (2, 16, 1, 32, 32)
    clips = PIXELS.view(4, 4, 3, 40, 50)
    made = SimCLRAugmentation(facts(), settings="large")(Images.whole(clips), 2, SampleRandom.keyed(0, 0, INDEX[:4]))
    assert made[0].shape == (4, 4, 3, 32, 32)


def test_strength_zero_changes_no_color_but_to_gray():
    whole = PIXELS[..., :40].float().div(255).mean((2, 3))
    view = views(pixels=PIXELS[..., :40], area=(1.0, 1.0), color_strength=0.0, count=1)[0].mean((2, 3))
    colored = (view - view[:, :1]).abs().amax(1) > 1e-4
    assert 8 <= colored.sum() < 16
    torch.testing.assert_close(view[colored], whole[colored], rtol=0, atol=0.01)  # means survive a resize nearly


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_a_bad_area_is_refused(area):
    with pytest.raises(ClvrBenchError, match=r"augmentation simclr: area must be .* got"):
        SimCLRAugmentation(facts(), area=area)


@pytest.mark.parametrize("strength", [-0.1, 2.6, float("nan")])
def test_a_bad_strength_is_refused(strength):
    with pytest.raises(ClvrBenchError, match=rf"augmentation simclr: color_strength must be .* got {strength}"):
        SimCLRAugmentation(facts(), color_strength=strength)
