import pytest
import torch

from clvr_bench import ClvrBenchError
from clvr_plugins.augmentations.cutout import Cutout
from tests.plugins.augmentations.pictures import COUNT, SIDE, assert_share_changed, changed, plain, view


@pytest.mark.parametrize(("side", "square"), [(0.5, 10), (0.25, 4), (0.01, 2), (1.0, 20)])
def test_a_gray_square_of_that_size_or_cut_off_hides_the_rest_stays(side, square):
    made = view(Cutout, side=side, probability=1.0)
    hidden = (made == 0.5).all(1)  # (B, H, W); no value of a stored picture is exactly half
    assert torch.equal(made.masked_select(~hidden[:, None]), plain().masked_select(~hidden[:, None]))
    heights, widths = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), heights * widths)
    assert heights.max() == widths.max() == square
    assert heights.min() >= square // 2


def test_every_pixel_may_be_the_squares_middle():
    hidden = (view(Cutout, side=0.1, probability=1.0) == 0.5).all(1)
    corners = hidden[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners[:, 0].any()  # the square lies above and to the left of its middle, so the last corner is rarer
    assert hidden.any(0).float().mean() > 0.9


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_the_probability_is_the_share_of_cut_pictures(probability):
    assert_share_changed(view(Cutout, probability=probability), probability)


def test_pictures_have_squares_of_their_own():
    made = view(Cutout)
    places = (made[changed(made)] == 0.5).all(1).flatten(1).unique(dim=0)
    assert len(places) > COUNT / 8
    assert made.shape[-1] == SIDE


@pytest.mark.parametrize("side", [0.0, 1.1, float("nan")])
def test_a_bad_side_is_refused(side):
    with pytest.raises(ClvrBenchError, match=rf"augmentation cutout: side must be in \(0, 1\], got {side}"):
        view(Cutout, side=side)
