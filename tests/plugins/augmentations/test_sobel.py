import pytest
import torch

from clvr_bench.ops.sobel import edge_strength
from clvr_plugins.augmentations.sobel import Sobel
from tests.plugins.augmentations.pictures import assert_share_changed, changed, plain, view


def test_chosen_pictures_are_their_edges_and_the_others_stay():
    made = view(Sobel)
    chosen = changed(made)
    assert torch.equal(made[chosen], edge_strength(plain())[chosen])
    assert torch.equal(made[~chosen], plain()[~chosen])


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_probability_is_the_share_of_filtered_pictures(probability):
    assert_share_changed(view(Sobel, probability=probability), probability)
