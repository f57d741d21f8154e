from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench.toolbox.predictive_coding import (
    PatchMean,
    RowBlock,
    encode_grid,
    grouped_info_nce,
    info_nce,
    row_context,
)


class Mean(nn.Module):
    """An encoder stand-in: the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def random_grids(pictures: int, grid: int, dimensions: int, step: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(pictures, grid, grid, dimensions, generator=generator)
    return torch.randn(pictures, grid - step, grid, dimensions, generator=generator), z


def naive_info_nce(predicted: Tensor, z: Tensor, step: int) -> list[float]:
    """Equation 4, with equation 3's f_k, for every context in turn."""
    pictures, rows, columns, _ = predicted.shape
    every_patch = [patch for picture in z.double() for row in picture for patch in row]
    losses = []
    for picture in range(pictures):
        for row in range(rows):
            for column in range(columns):
                prediction = predicted[picture, row, column].double()
                positive = math.exp(float(z[picture, row + step, column].double() @ prediction))
                everything = sum(math.exp(float(patch @ prediction)) for patch in every_patch)
                losses.append(-math.log(positive / everything))
    return losses


@pytest.mark.parametrize(("pictures", "grid", "step"), [(1, 2, 1), (2, 3, 1), (3, 4, 2), (2, 4, 3)])
def test_the_loss_is_equation_4(pictures: int, grid: int, step: int) -> None:
    predicted, z = random_grids(pictures, grid, 3, step)
    losses, _ = info_nce(predicted, z, step)
    assert losses.shape == (pictures, grid - step, grid)
    assert losses.flatten().tolist() == pytest.approx(naive_info_nce(predicted, z, step), abs=1e-5)


def test_patches_that_are_alike_leave_the_positive_to_chance() -> None:
    losses, _ = info_nce(torch.ones(2, 5, 7, 4), torch.ones(2, 7, 7, 4), 2)
    torch.testing.assert_close(losses, torch.full((2, 5, 7), math.log(2 * 49)))


def test_a_prediction_that_is_far_closest_to_its_patch_costs_nothing() -> None:
    z = 10 * torch.eye(18).view(2, 3, 3, 18)
    losses, hits = info_nce(z[:, 1:], z, 1)
    torch.testing.assert_close(losses, torch.zeros(2, 2, 3))
    assert hits.all()


def test_a_hit_is_a_prediction_closest_to_the_patch_of_its_column_so_many_rows_below() -> None:
    z = torch.eye(9).view(1, 3, 3, 9)
    predicted = z[:, 1:].clone()
    predicted[0, 0, 0] = z[0, 1, 1]  # the next column
    predicted[0, 1, 2] = z[0, 1, 2]  # a row too high
    _, hits = info_nce(predicted, z, 1)
    assert hits.tolist() == [[[False, True, True], [True, True, False]]]


@settings(deadline=None, max_examples=30)
@given(pictures=st.integers(1, 4), step=st.integers(1, 3), seed=st.integers(0, 1000))
def test_the_order_of_the_pictures_does_not_matter(pictures: int, step: int, seed: int) -> None:
    predicted, z = random_grids(pictures, 4, 5, step, seed)
    order = torch.randperm(pictures, generator=torch.Generator().manual_seed(seed))
    losses, _ = info_nce(predicted, z, step)
    permuted, _ = info_nce(predicted[order], z[order], step)
    torch.testing.assert_close(permuted, losses[order], rtol=1e-4, atol=1e-5)


def test_features_of_half_precision_are_compared_in_float32() -> None:
    predicted, z = (part.bfloat16() for part in random_grids(2, 4, 8, 1))
    losses, _ = info_nce(predicted, z, 1)
    assert torch.equal(losses, info_nce(predicted.float(), z.float(), 1)[0])


def test_logits_keep_their_precision_under_autocast() -> None:
    predicted, z = random_grids(2, 4, 8, 1)
    expected, _ = info_nce(10 * predicted, z, 1)
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = info_nce(10 * predicted, z, 1)
    assert torch.equal(losses, expected)


@pytest.mark.parametrize("group", [1, 2, 3, 5])
def test_within_groups_every_prediction_meets_the_patches_of_its_group_alone(group: int) -> None:
    predicted, z = random_grids(3, 4, 5, 1)
    losses, hits = grouped_info_nce(predicted, z, 1, group)
    for start in range(0, 3, group):
        part = slice(start, start + group)
        expected_losses, expected_hits = info_nce(predicted[part], z[part], 1)
        assert torch.equal(losses[part], expected_losses)
        assert torch.equal(hits[part], expected_hits)


def test_a_context_sees_five_rows_up_and_none_down() -> None:
    torch.manual_seed(0)
    context, z = row_context(6, 16), torch.rand(1, 6, 8, 8, requires_grad=True)
    for row in range(8):
        (gradient,) = torch.autograd.grad(context(z)[0, :, row, 3].sum(), z)
        rows = gradient[0].abs().amax(dim=(0, 2)) > 0
        assert rows.tolist() == [row - 5 <= other <= row for other in range(8)]


def test_a_block_adds_to_what_it_gets() -> None:
    block, z = RowBlock(3, 4), torch.rand(2, 3, 7, 7)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    assert torch.equal(block(z), z)


def test_patches_are_encoded_one_by_one_in_their_places() -> None:
    patches = torch.rand(2, 9, 3, 4, 4)
    z = encode_grid(Mean(), patches)
    assert z.shape == (2, 3, 3, 3)
    torch.testing.assert_close(z[1, 2, 0], patches[1, 6].mean(dim=(1, 2)))


def test_the_representation_is_the_mean_over_the_grid() -> None:
    images = torch.rand(2, 3, 4, 4)
    halves = PatchMean(Mean(), lambda pictures: pictures.unflatten(3, (2, 2)).movedim(3, 1).repeat(1, 2, 1, 1, 1))
    torch.testing.assert_close(halves(images), images.mean(dim=(2, 3)))
