from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.jigsaw import Jigsaw, distant_permutations, standardized

SIZE = 32
FACTS = DataFacts("image", train_size=8, image_size=SIZE)
SMALL = {"permutations": 6, "tile_dim": 5, "hidden_dim": 7}


class Flat(nn.Module):
    """An encoder stand-in: a linear map of the pixels. It remembers what it was given."""

    def __init__(self, side: int, feature_dim: int = 6, minimum_size: int = 1) -> None:
        super().__init__()
        self.feature_dim, self.minimum_size = feature_dim, minimum_size
        self.layer = nn.Linear(3 * side * side, feature_dim)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, normalize: bool = True) -> Tensor:
        assert not normalize  # the tiles are
        self.seen.append(images)
        return self.layer(images.flatten(1))


def jigsaw(side: int = 8, *, facts: DataFacts = FACTS, minimum_size: int = 1, **options: Any) -> Jigsaw:
    torch.manual_seed(0)
    encoder: Any = Flat(side, minimum_size=minimum_size)
    return Jigsaw(encoder, facts, **{**SMALL, **options})


def pictures(count: int = 4, seed: int = 0, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, index: Tensor | None = None, epoch: int = 0) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, epoch, index)
    return Batch([images], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def naive_permutations(count: int, length: int) -> list[tuple[int, ...]]:
    """Algorithm 1 with its matrix of distances made anew each time."""
    left = list(itertools.permutations(range(length)))
    chosen = [left.pop(0)]
    while len(chosen) < count:
        distances = np.array([[sum(a != b for a, b in zip(p, q, strict=True)) for q in left] for p in chosen])
        chosen.append(left.pop(int(distances.sum(axis=0).argmax())))
    return chosen


def hamming(orders: Tensor) -> Tensor:
    pairs = (orders[:, None] != orders[None]).sum(dim=2)
    return pairs[tuple(torch.triu_indices(len(orders), len(orders), 1))]


@pytest.mark.parametrize(("count", "length"), [(1, 3), (6, 3), (10, 4), (24, 4), (30, 5)])
def test_the_permutations_are_those_of_algorithm_1(count: int, length: int) -> None:
    assert distant_permutations(count, length).tolist() == [list(p) for p in naive_permutations(count, length)]


def test_the_permutations_of_nine_tiles_are_distinct_and_as_far_apart_as_the_papers() -> None:
    orders = distant_permutations(100, 9)
    assert orders[0].tolist() == list(range(9))
    assert (orders.sort(dim=1).values == torch.arange(9)).all()
    assert (hamming(orders[:9]) == 9).all()  # a Latin square: no tile is ever twice in a place
    distances = hamming(orders)
    assert distances.min() >= 2  # permutations that differ at all do so in two places
    assert distances.float().mean().item() == pytest.approx(8.08, abs=0.01)  # the paper's 100 have this mean


def naive_loss(task: Jigsaw, tiles: Tensor, number: Tensor) -> float:
    """The cross-entropy of the chosen permutation, tile by tile and puzzle by puzzle."""
    encoder: Any = task.encoder
    weight, bias = (p.detach().double().numpy() for p in encoder.layer.parameters())
    shared: Any = task.tile_head[0]
    tile_weight, tile_bias = (p.detach().double().numpy() for p in shared.parameters())
    hidden_weight, hidden_bias, out_weight, out_bias = (p.detach().double().numpy() for p in task.solver.parameters())
    losses = []
    for puzzle, wanted in zip(tiles.double().numpy(), number.tolist(), strict=True):
        codes = [np.maximum(tile_weight @ (weight @ tile.ravel() + bias) + tile_bias, 0) for tile in puzzle]
        hidden = np.maximum(hidden_weight @ np.concatenate(codes) + hidden_bias, 0)
        likelihoods = np.exp(out_weight @ hidden + out_bias)
        losses.append(-math.log(likelihoods[wanted] / likelihoods.sum()))
    return sum(losses) / len(losses)


def test_the_loss_is_the_cross_entropy_of_the_permutation_given_all_tiles_in_its_order() -> None:
    task, batch = jigsaw(), batch_of(pictures())
    in_place = task.cut(batch.views[0], batch.random).double().numpy()
    number = batch.random("permutation").integers(6)
    puzzles = np.empty_like(in_place)
    for sample in range(4):
        for place, original in enumerate(task.orders[number[sample]].tolist()):
            for channel in range(3):
                pixels = in_place[sample, original, channel]
                puzzles[sample, place, channel] = (pixels - pixels.mean()) / pixels.std()
    expected = naive_loss(task, torch.from_numpy(puzzles), number)
    assert task(batch).loss.item() == pytest.approx(expected, abs=1e-5)


def test_an_undecided_head_has_the_loss_of_chance() -> None:
    task = jigsaw(permutations=50)
    last: Any = task.solver[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    assert task(batch_of(pictures())).loss.item() == pytest.approx(math.log(50), abs=1e-6)


def test_top1_is_the_percentage_of_puzzles_whose_permutation_is_found() -> None:
    task, batch = jigsaw(), batch_of(pictures(24))
    last: Any = task.solver[-1]
    nn.init.zeros_(last.weight)
    last.bias.data = 40 * torch.eye(6)[2]
    output = task(batch)
    number = batch.random("permutation").integers(6)
    assert 0 < (number == 2).sum() < 24
    assert float(output.logs["puzzle_top1"]) == pytest.approx(100 * (number == 2).float().mean().item())


def test_each_channel_of_each_tile_has_mean_0_and_deviation_1() -> None:
    tiles = standardized(pictures(2, size=9).unflatten(0, (1, 2)) * torch.tensor([0.2, 0.9])[:, None, None, None])
    torch.testing.assert_close(tiles.mean(dim=(-2, -1)), torch.zeros(1, 2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(tiles.std(dim=(-2, -1), correction=0), torch.ones(1, 2, 3), atol=1e-5, rtol=0)


def test_a_tile_of_one_color_becomes_zeros() -> None:
    assert not standardized(torch.full((1, 9, 3, 8, 8), 0.25)).any()


@settings(deadline=None, max_examples=20)
@given(low=st.floats(0, 0.4), scale=st.floats(0.2, 0.6), seed=st.integers(0, 100))
def test_brightness_and_contrast_of_a_tile_do_not_matter(low: float, scale: float, seed: int) -> None:
    tile = pictures(1, seed, size=8)
    torch.testing.assert_close(standardized(low + scale * tile), standardized(tile), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("size", "cell", "tile", "shift"),
    [(32, 10, 8, 0), (96, 32, 24, 1), (224, 74, 56, 2), (255, 85, 64, 2), (28, 9, 7, 0)],
)
def test_sizes_follow_from_the_pictures(size: int, cell: int, tile: int, shift: int) -> None:
    cut = jigsaw(facts=DataFacts("image", train_size=8, image_size=size)).cut
    assert (cut.cell, cut.tile, cut.side, cut.shift) == (cell, tile, tile, shift)


@pytest.mark.parametrize(("enlarged", "minimum", "side"), [(1.0, 1, 8), (2.0, 1, 16), (1.0, 16, 16), (2.5, 8, 24)])
def test_tiles_are_enlarged_to_multiples_of_what_the_encoder_takes(enlarged: float, minimum: int, side: int) -> None:
    task = jigsaw(side, enlarged=enlarged, minimum_size=minimum)
    task(batch_of(pictures()))
    encoder: Any = task.encoder
    assert encoder.seen[0].shape == (36, 3, side, side)


def test_puzzles_differ_between_samples_and_epochs_but_not_with_their_batch() -> None:
    task, images = jigsaw(permutations=100), pictures(16)
    first, number = task.puzzles(batch_of(images))
    _, later = task.puzzles(batch_of(images, epoch=1))
    order = torch.arange(16).flip(0)[:5]
    part, _ = task.puzzles(batch_of(images[order], order))
    assert len(number.unique()) > 8
    assert not torch.equal(number, later)
    assert torch.equal(part, first[order])


def test_the_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    task, images = jigsaw(), pictures(6)
    parts = [task(batch_of(images[part], part)).loss for part in torch.arange(6).chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images)).loss)


def test_no_draw_comes_from_torchs_generator() -> None:
    task, batch = jigsaw(), batch_of(pictures())
    before = torch.get_rng_state()
    task(batch)
    assert torch.equal(before, torch.get_rng_state())


def test_the_gradient_reaches_every_parameter() -> None:
    task = jigsaw()
    task(batch_of(pictures(16))).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_set_is_no_part_of_what_is_saved_or_trained() -> None:
    task = jigsaw()
    assert "orders" in dict(task.named_buffers())
    assert "orders" not in task.state_dict()
    assert task.moves == ()


@pytest.mark.parametrize("normalized", [True, False])
def test_the_head_is_normalized_where_asked_for(normalized: bool) -> None:
    layers = [type(layer) for layer in jigsaw(batch_norm=normalized).solver]
    assert (nn.BatchNorm1d in layers) is normalized


@pytest.mark.parametrize("permutations", [1, 362881])
def test_sets_that_cannot_be_are_refused(permutations: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"jigsaw: permutations must be from 2 to 362880, got {permutations}\."):
        jigsaw(permutations=permutations)


@pytest.mark.parametrize(
    "options", [{"tile": 0.0}, {"tile": 1.1}, {"gray": -0.1}, {"color_shift": 1}, {"enlarged": 0.5}]
)
def test_sizes_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ClvrBenchError, match=r"jigsaw: tile must be in \(0, 1\], .* The paper's are 64/85"):
        jigsaw(**options)


def test_its_default_augmentation_crops_and_does_not_mirror(plugins: Plugins) -> None:
    entry = plugins.registry.get(Kind.AUGMENTATION, Jigsaw.default_augmentation)
    assert entry.name == "crop"


def test_the_loss_falls_within_a_few_steps() -> None:
    task = jigsaw(permutations=4, tile_dim=16, hidden_dim=32)
    images = pictures(1).expand(16, -1, -1, -1)  # one picture in all four permutations
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = task(batch_of(images)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(4), abs=0.4)
    assert losses[-1] < 0.3 * losses[0]


def test_the_preview_is_what_the_encoder_sees_with_the_tiles_in_place_beside_it() -> None:
    task, batch = jigsaw(gray=0.0), batch_of(pictures(3))
    encoder: Any = task.encoder
    shown = task.preview(batch)
    assert not encoder.seen
    task(batch)
    assert list(shown) == ["tiles", "puzzle"]
    seen = (encoder.seen[0].view(3, 9, 3, 8, 8) / 6 + 0.5).clamp(0, 1)
    number = batch.random("permutation").integers(6)
    for place in range(9):
        top, left = 9 * (place // 3), 9 * (place % 3)  # tiles of 8 px, gaps of 1 px
        assert torch.equal(shown["puzzle"][:, :, top : top + 8, left : left + 8], seen[:, place])
    original = int(task.orders[number[0], 5])
    top, left = 9 * (original // 3), 9 * (original % 3)
    tile = standardized(shown["tiles"][0, :, top : top + 8, left : left + 8])
    torch.testing.assert_close((tile / 6 + 0.5).clamp(0, 1), shown["puzzle"][0, :, 9:17, 18:26])
