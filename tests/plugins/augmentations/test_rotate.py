import torch

from clvr_plugins.augmentations.rotate import Rotate
from tests.plugins.augmentations.pictures import COUNT, plain, view


def turns(made):
    """Say by how many quarter turns each picture was turned, (COUNT,); -1 where by none."""
    is_turned = torch.stack([(made == plain().rot90(quarter, (-2, -1))).flatten(1).all(1) for quarter in range(4)])
    return torch.where(is_turned.any(0), is_turned.int().argmax(0), -1)


def test_all_four_orientations_are_equally_likely():
    counts = torch.bincount(turns(view(Rotate)), minlength=4)
    assert counts.sum() == COUNT
    assert (counts - COUNT / 4).abs().max() <= 5 * (COUNT * 3 / 16) ** 0.5  # five standard deviations of a count


def test_certain_turns_are_never_by_nothing():
    assert set(turns(view(Rotate, probability=1.0)).tolist()) == {1, 2, 3}


def test_no_picture_is_turned_at_probability_zero():
    assert torch.equal(view(Rotate, probability=0.0), plain())
