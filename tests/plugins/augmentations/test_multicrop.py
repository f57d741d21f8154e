import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images, Role, SampleRandom
from clvr_plugins.augmentations.multicrop import MultiCrop
from tests.plugins.augmentations.reference import views_by_torchvision

PIXELS = torch.randint(0, 256, (16, 3, 90, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(16) + 100
CLOSE = {"rtol": 0, "atol": 1e-5}


def facts(image_size=84):
    return DataFacts(modality="image", train_size=64, image_size=image_size)


def views(samples=slice(None), image_size=84, **options):
    augment = MultiCrop(facts(image_size), **options)
    count = sum(role.views for role in augment.roles)
    return augment(Images.whole(PIXELS[samples]), count, SampleRandom.keyed(0, 0, INDEX[samples]))


def simclrs(area, settings):
    strength = {"large": 1.0, "small": 0.5}[settings]
    jitter = ("jitter", (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength), 0.8)
    return [("crop", area), ("flip", 0.5), jitter, ("gray", 0.2), *([("blur", 0.5)] if settings == "large" else [])]


@pytest.mark.parametrize("settings", ["small", "large"])
@pytest.mark.parametrize(
    ("place", "scope", "size", "area"), [(1, "global1", 84, (0.14, 1)), (2, "local0", 36, (0.05, 0.14))]
)
def test_global_and_local_views_are_the_papers(place, scope, size, area, settings):
    random = SampleRandom.keyed(0, 0, INDEX).scoped(scope)
    expected = views_by_torchvision(Images.whole(PIXELS), size, random, simclrs(area, settings))
    torch.testing.assert_close(views(settings=settings)[place], torch.stack(expected), **CLOSE)


def test_two_global_views_come_before_the_local_ones():
    augment = MultiCrop(facts(32), local_views=3)
    assert augment.arrangement == "roles"
    assert augment.roles == (Role("global", 2, 32), Role("local", 3, 12))
    assert [view.shape[-2:] for view in views(image_size=32, local_views=3)] == [(32, 32)] * 2 + [(12, 12)] * 3


@pytest.mark.parametrize(("image_size", "local_size"), [(8, 4), (32, 12), (64, 28), (96, 40), (224, 96)])
def test_local_views_have_96_of_224_of_the_side_in_steps_of_4(image_size, local_size):
    assert MultiCrop(facts(image_size)).roles[1].size == local_size


def test_the_local_size_can_be_chosen():
    assert MultiCrop(facts(32), local_size=18).roles[1].size == 18


def test_local_views_can_be_left_out():
    assert len(views(local_views=0)) == 2


def test_all_views_of_a_picture_differ():
    globals_, locals_ = (torch.stack(part) for part in (views()[:2], views()[2:]))
    for kind in (globals_, locals_):
        for first in range(len(kind)):
            for second in range(first):
                assert ((kind[first] - kind[second]).abs().amax((1, 2, 3)) > 0.01).all()


def test_a_sample_has_the_same_views_in_any_batch():
    for part, whole in zip(views(slice(5, 9)), views(), strict=True):
        torch.testing.assert_close(part, whole[5:9], **CLOSE)


@pytest.mark.parametrize("option", ["global_area", "local_area"])
@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_a_bad_area_is_refused(option, area):
    with pytest.raises(ClvrBenchError, match=rf"augmentation multicrop: {option} must be .* got"):
        MultiCrop(facts(), **{option: area})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local_views": -1}, r"local_views must not be negative, got -1\. Typical: 6"),
        ({"local_size": 0}, r"local_size must be positive, got 0\. Typical: 36"),
    ],
)
def test_impossible_local_views_are_refused(options, message):
    with pytest.raises(ClvrBenchError, match=message):
        MultiCrop(facts(), **options)
