import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images, SampleRandom
from clvr_plugins.augmentations.moco import MoCoV1Augmentation, MoCoV2Augmentation
from tests.plugins.augmentations.reference import views_by_torchvision

PIXELS = torch.randint(0, 256, (24, 3, 50, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(24) + 100
CLOSE = {"rtol": 0, "atol": 1e-5}
JITTER_V2 = ("jitter", (0.4, 0.4, 0.4, 0.1), 0.8)
PAPERS = {
    "v1": (
        MoCoV1Augmentation,
        {},
        [("crop", (0.2, 1.0)), ("gray", 0.2), ("jitter", (0.4, 0.4, 0.4, 0.4), 1.0), ("flip", 0.5)],
    ),
    "v2_large": (
        MoCoV2Augmentation,
        {"settings": "large"},
        [("crop", (0.2, 1.0)), JITTER_V2, ("gray", 0.2), ("blur", 0.5), ("flip", 0.5)],
    ),
    "v2_small": (
        MoCoV2Augmentation,
        {"settings": "small"},
        [("crop", (0.2, 1.0)), JITTER_V2, ("gray", 0.2), ("flip", 0.5)],
    ),
}


def facts(image_size=44):
    return DataFacts(modality="image", train_size=64, image_size=image_size)


def views(kind, samples=slice(None), count=2, **options):
    augmentation, given, _ = PAPERS[kind]
    augment = augmentation(facts(), **{**given, **options})
    return torch.stack(augment(Images.whole(PIXELS[samples]), count, SampleRandom.keyed(0, 0, INDEX[samples])))


@pytest.mark.parametrize("kind", PAPERS)
def test_a_view_is_the_authors_sequence_of_operations(kind):
    random = SampleRandom.keyed(0, 0, INDEX).scoped("view0")
    expected = views_by_torchvision(Images.whole(PIXELS), 44, random, PAPERS[kind][2])
    torch.testing.assert_close(views(kind)[0], torch.stack(expected), **CLOSE)


@pytest.mark.parametrize("kind", PAPERS)
def test_a_sample_has_the_same_views_in_any_batch(kind):
    torch.testing.assert_close(views(kind, slice(5, 9)), views(kind)[:, 5:9], **CLOSE)


@pytest.mark.parametrize("kind", PAPERS)
def test_views_differ_and_are_repeated_exactly(kind):
    first, second = views(kind)
    assert ((first - second).abs().amax((1, 2, 3)) > 0.01).all()
    assert torch.equal(views(kind), torch.stack([first, second]))


@pytest.mark.parametrize(("image_size", "setting"), [(32, "small"), (64, "small"), (65, "large"), (224, "large")])
def test_the_second_papers_setting_follows_the_size(image_size, setting):
    assert MoCoV2Augmentation(facts(image_size)).setting == setting


@pytest.mark.parametrize("kind", ["v1", "v2_large"])
def test_area_is_the_least_and_the_greatest_share_of_a_crop(kind):
    narrow = views(kind, area=(0.1, 0.2))
    assert not torch.equal(narrow, views(kind))


@pytest.mark.parametrize(("kind", "name"), [("v1", "moco_v1"), ("v2_large", "moco_v2")])
@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_a_bad_area_is_refused(kind, name, area):
    with pytest.raises(ClvrBenchError, match=rf"augmentation {name}: area must be .* got .* The paper's is \(0\.2, 1"):
        views(kind, area=area)
