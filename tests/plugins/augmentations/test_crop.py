import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images, SampleRandom
from clvr_bench.ops.crops import center_view
from clvr_plugins.augmentations.crop import Crop, CropFlip

FACTS = DataFacts(modality="image", train_size=64, image_size=16)
PIXELS = torch.randint(0, 256, (12, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(12) + 100


def views(samples=slice(None), count=2, epoch=0, **options):
    random = SampleRandom.keyed(0, epoch, INDEX[samples])
    return torch.stack(CropFlip(FACTS, **options)(Images.whole(PIXELS[samples]), count, random))


def test_views_are_floats_of_the_data_sets_size():
    assert views(count=3).shape == (3, 12, 3, 16, 16)
    assert views().dtype == torch.float32


def test_a_sample_has_the_same_views_in_any_batch():
    torch.testing.assert_close(views(slice(5, 8)), views()[:, 5:8], rtol=0, atol=1e-6)


def test_views_of_one_picture_differ_and_so_do_epochs():
    first, second = views()
    other = views(epoch=1)[0]
    assert ((first - second).abs().amax((1, 2, 3)) > 0.01).all()
    assert ((first - other).abs().amax((1, 2, 3)) > 0.01).all()


def test_views_are_repeated_exactly():
    assert torch.equal(views(), views())


def test_more_views_leave_the_first_ones_alone():
    assert torch.equal(views(count=4)[:2], views(count=2))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_is_the_probability_of_mirroring(flip):
    random = SampleRandom.keyed(0, 0, torch.arange(12))
    squares = Images.whole(PIXELS[..., :20])
    view = CropFlip(FACTS, area=(1.0, 1.0), flip=flip)(squares, 1, random)[0]
    whole = center_view(squares, 16)
    expected = whole.flip(-1) if flip else whole
    # of area 1 only the whole square fits, unless rounding lets a box lose a row or a column
    assert ((view - expected).abs().amax((1, 2, 3)) < 1e-5).all()


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (float("nan"), 1.0)])
def test_a_bad_area_is_refused(area):
    with pytest.raises(ClvrBenchError, match=r"augmentation crop_flip: area must be .* got"):
        CropFlip(FACTS, area=area)


@pytest.mark.parametrize("flip", [-0.1, 1.5])
def test_a_bad_probability_is_refused(flip):
    with pytest.raises(ClvrBenchError, match=rf"augmentation crop_flip: flip must be .* got {flip}"):
        CropFlip(FACTS, flip=flip)


def test_a_crop_alone_is_that_of_crop_and_flip_unmirrored():
    random = SampleRandom.keyed(0, 0, INDEX)
    crop = Crop(FACTS, area=(0.3, 0.9))(Images.whole(PIXELS), 2, random)
    assert torch.equal(torch.stack(crop), views(area=(0.3, 0.9), flip=0.0))


def test_a_crop_of_a_bad_area_is_refused():
    with pytest.raises(ClvrBenchError, match=r"augmentation crop: area must be .* got"):
        Crop(FACTS, area=(0.5, 0.4))
