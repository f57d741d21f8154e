from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import ClvrBenchError, SampleRandom
from clvr_bench.toolbox import JigsawBranch, TileCut, shuffled

SIZE = 32


class Flat(nn.Module):
    """An encoder stand-in: a tile's pixels are its feature. It remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images.flatten(1)


def pictures(count: int = 4, seed: int = 0, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def draws(count: int, epoch: int = 0) -> SampleRandom:
    return SampleRandom.keyed(0, epoch, torch.arange(count))


def test_shuffling_puts_the_tile_that_the_order_names_at_each_place() -> None:
    tiles = torch.arange(18.0).view(2, 9, 1, 1, 1)
    orders = torch.tensor([[8, 7, 6, 5, 4, 3, 2, 1, 0], [1, 2, 3, 4, 5, 6, 7, 8, 0]])
    made = shuffled(tiles, orders).flatten(1)
    assert made.tolist() == [[8, 7, 6, 5, 4, 3, 2, 1, 0], [10, 11, 12, 13, 14, 15, 16, 17, 9]]


def place_in(cell: Tensor, tile: Tensor) -> tuple[int, int]:
    """Find a tile (C, T, T) in its cell (C, P, P)."""
    side, spare = tile.shape[-1], cell.shape[-1] - tile.shape[-1] + 1
    places = itertools.product(range(spare), repeat=2)
    (found,) = [(y, x) for y, x in places if torch.equal(cell[:, y : y + side, x : x + side], tile)]
    return found


def test_each_tile_is_cut_at_a_place_of_its_own_within_its_cell() -> None:
    cut, images = TileCut(cell=10, tile=7, side=7, gray=0.0, shift=0), pictures(12)
    tiles = cut(images, draws(len(images)))
    assert tiles.shape == (12, 9, 3, 7, 7)
    starts = (0, 11, 22)  # 32 pixels, three cells of 10
    places = [
        place_in(images[sample, :, starts[number // 3] :, starts[number % 3] :][:, :10, :10], tiles[sample, number])
        for sample in range(12)
        for number in range(9)
    ]
    assert {y for y, _ in places} == {x for _, x in places} == {0, 1, 2, 3}
    assert len(set(places)) == 16


def test_neighbouring_tiles_are_apart_by_a_random_gap() -> None:
    columns = torch.arange(float(SIZE)).expand(32, 3, SIZE, SIZE) / SIZE
    tiles = TileCut(10, 8, 8, 0.0, 0)(columns, draws(len(columns))) * SIZE
    gaps = (tiles[:, 1, 0, 0, 0] - tiles[:, 0, 0, 0, -1] - 1).round().int()
    assert set(gaps.tolist()) == {1, 2, 3, 4, 5}  # 1 px between cells, up to 2 px in each of them


def test_channels_are_shifted_by_at_most_so_many_pixels_and_stay_in_their_cell() -> None:
    ramp = torch.arange(30.0).expand(40, 3, 30, 30) / 30
    tiles = TileCut(10, 6, 6, 0.0, 2)(ramp, draws(len(ramp))) * 30
    left = tiles[..., 0, 0].round()  # (40, 9, 3), the column where each channel begins
    apart = left.amax(dim=2) - left.amin(dim=2)
    assert set(apart.unique().tolist()) == {0, 1, 2, 3, 4}
    within = left - torch.tensor([0.0, 10.0, 20.0]).repeat(3)[:, None]
    assert within.min() == 0
    assert within.max() == 4


def test_gray_pictures_have_one_color_even_where_channels_of_others_are_shifted() -> None:
    images = pictures(200, size=30)
    tiles = TileCut(10, 6, 6, 0.3, 2)(images, draws(len(images)))
    gray = (tiles == tiles[:, :, :1]).flatten(1).all(dim=1)
    assert 0.2 < gray.float().mean() < 0.4


def test_an_enlarged_tile_shows_the_same() -> None:
    ramp = torch.linspace(0, 1, 30).expand(2, 3, 30, 30)
    random = draws(len(ramp))
    small, large = TileCut(10, 6, 6, 0.0, 0)(ramp, random), TileCut(10, 6, 12, 0.0, 0)(ramp, random)
    torch.testing.assert_close(large.unflatten(-1, (6, 2)).mean(-1)[..., ::2, 1:-1], small[..., 1:-1])


@pytest.mark.parametrize(
    ("size", "minimum", "options", "cut"),
    [
        (32, 1, {}, TileCut(10, 8, 8)),
        (255, 1, {}, TileCut(85, 64, 64)),
        (255, 1, {"gray": 0.3, "color_shift": 2 / 255}, TileCut(85, 64, 64, 0.3, 2)),
        (32, 1, {"enlarged": 2.0}, TileCut(10, 8, 16)),
        (32, 4, {"tile": 0.7}, TileCut(10, 7, 8)),
        (3, 1, {"tile": 0.1}, TileCut(1, 1, 1)),
    ],
)
def test_sizes_stated_as_parts_are_fitted_to_pictures(
    size: int, minimum: int, options: dict[str, Any], cut: TileCut
) -> None:
    assert TileCut.fitted(size, minimum, **options) == cut


def test_tiles_are_not_made_smaller() -> None:
    with pytest.raises(ClvrBenchError, match=r"tiles: enlarged must be at least 1, got 0\.5\. Typical: 1 to 2"):
        TileCut.fitted(32, 1, enlarged=0.5)


def test_tiles_are_drawn_apart_by_an_eighth_of_their_side() -> None:
    tiles = torch.zeros(2, 9, 3, 16, 16)
    drawn = TileCut(10, 8, 16).drawn(tiles)
    assert drawn.shape == (2, 3, 3 * 16 + 2 * 2, 3 * 16 + 2 * 2)
    assert (drawn == 1).sum() == drawn.numel() - tiles.numel()  # white gaps


def branch(side: int = 8, dim: int = 5) -> JigsawBranch:
    torch.manual_seed(0)
    return JigsawBranch(TileCut(10, side, side), nn.Linear(3 * side * side, dim), dim)


def orders_of(random: SampleRandom) -> Tensor:
    return random("permutation").permutation(9)


def test_an_embedding_is_linear_in_the_tiles_embeddings_in_the_drawn_order() -> None:
    task, random = branch(), draws(4)
    embeddings = task(Flat(), pictures(), random).detach().double()
    tiles = task.cut(pictures(), random).flatten(2).double()
    each, together = ([p.detach().double() for p in layer.parameters()] for layer in (task.each, task.together))
    for sample, order in enumerate(orders_of(random).tolist()):
        parts = [each[0] @ tiles[sample, tile] + each[1] for tile in order]
        torch.testing.assert_close(embeddings[sample], together[0] @ torch.cat(parts) + together[1], atol=1e-5, rtol=0)


def test_the_encoder_sees_every_tile_on_its_own_picture_by_picture() -> None:
    task, random, encoder = branch(), draws(4), Flat()
    task(encoder, pictures(), random)
    (seen,) = encoder.seen
    assert seen.shape == (36, 3, 8, 8)
    tiles = task.cut(pictures(), random)
    assert torch.equal(seen.view(4, 9, 3, 8, 8), shuffled(tiles, orders_of(random)))
    assert torch.equal(seen.view(4, 9, 3, 8, 8), task.puzzles(pictures(), random))


def test_orders_are_permutations_of_nine_that_differ_between_pictures_and_epochs() -> None:
    numbers = torch.arange(9.0).view(3, 3).repeat_interleave(10, 0).repeat_interleave(10, 1).expand(40, 3, 30, 30)
    first, later = (branch().puzzles(numbers, draws(40, epoch))[:, :, 0, 0, 0] for epoch in range(2))
    assert (first.sort(dim=1).values == torch.arange(9)).all()
    assert len(first.unique(dim=0)) == 40
    assert not torch.equal(first, later)
    counts = torch.stack([(first == tile).sum(dim=0) for tile in range(9)])
    assert counts.max() < 20  # no tile prefers a place: 40 / 9 are expected, with a deviation of 2


def test_puzzles_do_not_depend_on_the_batch_that_they_come_in() -> None:
    images, task = pictures(6), branch()
    part = SampleRandom.keyed(0, 0, torch.tensor([4, 1]))
    assert torch.equal(task.puzzles(images[[4, 1]], part), task.puzzles(images, draws(6))[[4, 1]])


def test_the_preview_of_a_branch_has_the_tiles_in_place_and_what_the_encoder_sees() -> None:
    task, random = branch(), draws(4)
    shown = task.preview(pictures(), random)
    assert list(shown) == ["tiles", "puzzle"]
    assert torch.equal(shown["tiles"], task.cut.drawn(task.cut(pictures(), random)))
    assert torch.equal(shown["puzzle"], task.cut.drawn(task.puzzles(pictures(), random)))


def test_the_gradient_reaches_encoder_and_both_layers() -> None:
    task, encoder = branch(), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten())
    task(encoder, pictures(), draws(4)).sum().backward()
    parameters = [*encoder.parameters(), *task.parameters()]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in parameters)
