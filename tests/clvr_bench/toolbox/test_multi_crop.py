from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, Progress, SampleRandom
from clvr_bench.toolbox import encode_by_size, global_views


class Shapes(nn.Module):
    """An encoder stand-in that remembers the shapes it was given; a feature is the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return images.mean(dim=(2, 3))


def views_of(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(6, 3, size, size, generator=generator) for size in sizes]


def batch_of(views: Sequence[Tensor], roles: tuple[str, ...] = ()) -> Batch:
    index = torch.arange(len(views[0]))
    return Batch(views, index, index, SampleRandom.keyed(0, 0, index), Progress(0, 1, 0, 1), roles=roles)


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [((8, 8, 4, 4, 4), [(12, 8), (18, 4)]), ((8, 4, 8), [(6, 8), (6, 4), (6, 8)]), ((5,), [(6, 5)])],
)
def test_neighbours_of_one_size_pass_the_encoder_in_one_batch_and_stay_in_order(
    sizes: tuple[int, ...], batches: list[tuple[int, int]]
) -> None:
    encoder, views = Shapes(), views_of(*sizes)
    features = encode_by_size(encoder, views)
    assert encoder.seen == [(count, 3, size, size) for count, size in batches]
    torch.testing.assert_close(features, torch.cat([view.mean(dim=(2, 3)) for view in views]))


@pytest.mark.parametrize(
    ("roles", "expected"),
    [((), [0, 1, 2]), (("global", "local", "global"), [0, 2]), (("far", "near", "near"), [])],
)
def test_global_views_are_those_of_the_role_or_all_that_are_alike(roles: tuple[str, ...], expected: list[int]) -> None:
    assert global_views(batch_of(views_of(4, 4, 4), roles)) == expected
