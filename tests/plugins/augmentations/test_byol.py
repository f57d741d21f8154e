import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images, SampleRandom
from clvr_plugins.augmentations.byol import BYOLAugmentation
from tests.plugins.augmentations.reference import views_by_torchvision

PIXELS = torch.randint(0, 256, (24, 3, 50, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(24) + 100
CLOSE = {"rtol": 0, "atol": 1e-5}


def facts(image_size=44):
    return DataFacts(modality="image", train_size=64, image_size=image_size)


def views(samples=slice(None), **options):
    random = SampleRandom.keyed(0, 0, INDEX[samples])
    return torch.stack(BYOLAugmentation(facts(), **options)(Images.whole(PIXELS[samples]), 2, random))


def table_6(view, settings):
    """The paper's operations in the order of appendix B, with the probabilities of table 6."""
    blur, solarize = [(1.0, 0.0), (0.1, 0.2)][view]
    steps = [("crop", (0.08, 1.0)), ("flip", 0.5), ("jitter", (0.4, 0.4, 0.2, 0.1), 0.8), ("gray", 0.2)]
    return [*steps, *([("blur", blur)] if settings == "large" else []), ("solarize", solarize)]


@pytest.mark.parametrize("settings", ["small", "large"])
@pytest.mark.parametrize("view", [0, 1])
def test_each_view_of_the_pair_is_the_papers(view, settings):
    random = SampleRandom.keyed(0, 0, INDEX).scoped(f"view{view}")
    expected = views_by_torchvision(Images.whole(PIXELS), 44, random, table_6(view, settings))
    torch.testing.assert_close(views(settings=settings)[view], torch.stack(expected), **CLOSE)


def test_it_makes_a_fixed_pair():
    assert BYOLAugmentation.arrangement == "pair"
    assert len(views()) == 2


def test_a_sample_has_the_same_views_in_any_batch():
    torch.testing.assert_close(views(slice(5, 9), settings="large"), views(settings="large")[:, 5:9], **CLOSE)


@pytest.mark.parametrize(("image_size", "setting"), [(32, "small"), (64, "small"), (65, "large")])
def test_the_setting_follows_the_size(image_size, setting):
    assert BYOLAugmentation(facts(image_size)).setting == setting


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_a_bad_area_is_refused(area):
    with pytest.raises(ClvrBenchError, match=r"augmentation byol: area must be .* got .* The paper's is \(0\.08, 1"):
        views(area=area)
