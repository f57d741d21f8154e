import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images, SampleRandom
from clvr_bench.ops.crops import center_view
from clvr_bench.ops.geometry import cutout, shift_reflected
from clvr_bench.ops.rand_augment import rand_augment
from clvr_plugins.augmentations.fixmatch import FixMatchAugmentation

PIXELS = torch.randint(0, 256, (60, 3, 20, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(60) + 100
RANDOM = SampleRandom.keyed(0, 0, INDEX)
FACTS = DataFacts("image", train_size=64, image_size=16)


def views(samples=slice(None), pixels=PIXELS, **options):
    images = Images.whole(pixels[samples])
    return FixMatchAugmentation(FACTS, **options)(images, 2, SampleRandom.keyed(0, 0, INDEX[samples]))


def shifted(random):
    shift = random("shift").integers(5, 2) - 2  # an eighth of 16 pixels, both ways
    return shift_reflected(center_view(Images.whole(PIXELS), 16), shift, random("flip").chance(0.5))


def test_the_first_view_is_flipped_and_shifted_by_up_to_an_eighth():
    assert torch.equal(views()[0], shifted(RANDOM.scoped("weak")))


def test_the_second_view_is_a_weak_one_then_rand_augment_then_a_gray_square_of_half_the_side():
    random = RANDOM.scoped("strong")
    expected = cutout(rand_augment(shifted(random), random, 2), random("cutout").integers(16, 2), 8)
    assert torch.equal(views()[1], expected)


def test_the_pair_is_of_fixed_different_kinds():
    assert FixMatchAugmentation.arrangement == "pair"
    weak, strong = views()
    assert weak.shape == strong.shape == (60, 3, 16, 16)
    assert ((strong == 0.5).all(1).sum((1, 2)) >= 16).all()  # at a corner a quarter of the square is left


def test_views_stay_in_the_unit_interval():
    assert all(0 <= view.min() <= view.max() <= 1 for view in views())


def test_a_sample_has_the_same_views_in_any_batch():
    for part, whole in zip(views(slice(5, 9)), views(), strict=True):
        torch.testing.assert_close(part, whole[5:9], rtol=0, atol=1e-5)


def test_nothing_random_is_left_without_flip_shift_and_operations():
    weak, strong = views(flip=0.0, shift=0.0, operations=0)
    whole = center_view(Images.whole(PIXELS), 16)
    assert torch.equal(weak, whole)
    assert ((strong == whole) | (strong == 0.5)).all()


def test_gray_pictures_and_clips_are_taken():
    assert views(pixels=PIXELS[:, :1])[1].shape == (60, 1, 16, 16)
    clips = PIXELS.view(15, 4, 3, 20, 28)
    made = FixMatchAugmentation(FACTS)(Images.whole(clips), 2, SampleRandom.keyed(0, 0, INDEX[:15]))
    assert [view.shape for view in made] == [(15, 4, 3, 16, 16)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, r"flip must be from 0 to 1, got 1\.5\. The paper's is 0\.5"),
        ({"shift": 0.6}, r"shift must be from 0 to 0\.5, got 0\.6\. The paper's is 0\.125"),
        ({"shift": -0.1}, r"shift must be from 0 to 0\.5, got -0\.1"),
        ({"operations": -1}, r"operations must not be negative, got -1\. The paper's are 2"),
    ],
)
def test_a_bad_option_is_refused(options, message):
    with pytest.raises(ClvrBenchError, match=rf"augmentation fixmatch: {message}"):
        FixMatchAugmentation(FACTS, **options)
