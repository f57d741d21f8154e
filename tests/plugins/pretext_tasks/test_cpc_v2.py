from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_plugins.pretext_tasks.cpc_v2 import SIDES, CPCv2, Distort, keep_channel

FACTS = DataFacts("image", train_size=8, image_size=32)
PLAIN: dict[str, Any] = {"primitives": 0, "color_change": 0.0, "gray": 0.0, "color_drop": 0.0}
UPWARDS = {"above": (-1, 0), "right": (0, 1), "below": (1, 0), "left": (0, -1)}
"""From a patch, the rows and columns to the neighbour on each side."""


class Pool(nn.Module):
    """An encoder stand-in: a linear map of a patch's pixels, rectified."""

    def __init__(self, feature_dim: int, side: int, minimum_size: int) -> None:
        super().__init__()
        self.feature_dim, self.minimum_size = feature_dim, minimum_size
        self.layer = nn.Linear(3 * side * side, feature_dim)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.layer(images.flatten(1)).relu()


def cpc(feature_dim: int = 6, side: int = 10, minimum_size: int = 1, **options: Any) -> CPCv2:
    torch.manual_seed(0)
    encoder: Any = Pool(feature_dim, side, minimum_size)
    return CPCv2(encoder, FACTS, **{"context_width": 4, "target_dim": 5, **options})


def pictures(count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, index: Tensor | None = None) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, 0, index)
    return Batch([images], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def naive_info_nce(predictions: Tensor, targets: Tensor, side: str, step: int, group: list[int]) -> list[float]:
    """InfoNCE, as the paper prints it, for the patches of a group that have a context so many steps to that side."""
    down, right = UPWARDS[side]
    losses = []
    for picture, row, column in itertools.product(group, range(6), range(6)):
        from_row, from_column = row + step * down, column + step * right
        if 0 <= from_row < 6 and 0 <= from_column < 6:
            prediction = 0.1 * predictions[picture, from_row, from_column].double()
            scores = torch.exp(targets[group].double() @ prediction)  # (G, 6, 6)
            own = torch.exp(targets[picture, row, column].double() @ prediction)
            losses.append(-math.log(own / scores.sum()))
    return losses


def test_the_loss_is_the_mean_over_sides_and_steps_of_info_nce_within_groups() -> None:
    task = cpc(rows=2, skipped_rows=1, group=2, patch=0.25, side=8, **PLAIN)
    images, starts = pictures(), [0, 4, 9, 14, 19, 24]  # floor(24 / 5 * i)
    batch = batch_of(images)
    order = batch.random("groups").uniform().argsort().tolist()
    means = []
    with torch.no_grad():
        patches = torch.stack([images[:, :, y : y + 8, x : x + 8] for y in starts for x in starts], dim=1)
        z = task.encoder(patches.flatten(0, 1)).view(3, 6, 6, 6)
        for quarter, (side, predict) in enumerate(zip(SIDES, task.predictors, strict=True)):
            # the context network looks up, so what is to be seen is turned up, and what comes of it back
            predictions = [grid.rot90(-quarter, (1, 2)) for grid in predict(z.rot90(quarter, (1, 2)))]
            for step, predicted in zip((2, 3), predictions, strict=True):
                parts = [naive_info_nce(predicted, task.target(z), side, step, g) for g in (order[:2], order[2:])]
                means.append(sum(map(sum, parts)) / sum(map(len, parts)))
        loss = task(batch).loss
    assert len(means) == 8
    assert loss.item() == pytest.approx(sum(means) / 8, abs=1e-5)


def test_the_loss_of_a_permuted_batch_is_the_same() -> None:
    task, images, order = cpc(group=2), pictures(5), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(task(batch_of(images[order], order)).loss, task(batch_of(images)).loss)


@pytest.mark.parametrize("quarter", range(4))
def test_no_prediction_depends_on_a_pixel_of_the_patch_that_it_is_to_find(quarter: int) -> None:
    task = cpc()
    images = pictures(1).requires_grad_()
    z = task.encoder(task.cut(images).flatten(0, 1)).view(1, 6, 6, -1).rot90(quarter, (1, 2))
    (predictions,) = task.predictors[quarter](z)
    starts = [0, 4, 8, 13, 17, 22]
    for row in range(3):
        (gradient,) = torch.autograd.grad(predictions[:, row].sum(), images, retain_graph=True)
        rows = gradient.rot90(quarter, (2, 3)).abs().amax(dim=(0, 1, 3)) > 0
        edge = starts[row + 3] if quarter in (0, 3) else 32 - (starts[5 - row - 3] + 10)  # of the patch, in pixels
        assert rows[0]
        assert not rows[edge:].any()


def test_by_default_one_row_is_predicted_the_third() -> None:
    assert cpc().steps == range(3, 4)
    assert [len(predictor.maps) for predictor in cpc().predictors] == [1] * 4


def test_each_side_has_a_network_of_its_own() -> None:
    parameters = [p for predictor in cpc().predictors for p in predictor.parameters()]
    assert len(parameters) == len({p.data_ptr() for p in parameters})
    assert len(cpc().predictors) == len(SIDES) == 4


def test_plain_patches_reach_the_encoder_as_they_are() -> None:
    task, images = cpc(**PLAIN), pictures()
    batch = batch_of(images)
    task(batch)
    order = batch.random("groups").uniform().argsort()
    encoder: Any = task.encoder
    patches = encoder.seen[0].view(3, 6, 6, 3, 10, 10)
    assert torch.equal(patches[:, 1, 4], images[order, :, 4:14, 17:27])


@pytest.mark.parametrize("changed", PLAIN)
def test_every_distortion_changes_patches_and_each_in_its_own_way(changed: str) -> None:
    patches = pictures(1).expand(2, -1, -1, -1)[:, None, :, :10, :10].expand(-1, 36, -1, -1, -1)  # all alike
    distorted = Distort(**{**PLAIN, changed: 2 if changed == "primitives" else 1.0})(
        patches, batch_of(pictures(2)).random
    )
    assert distorted.shape == patches.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    kinds = len(distorted.flatten(0, 1).flatten(1).unique(dim=0))
    assert kinds == {"gray": 1, "color_drop": 3}.get(changed, kinds)
    assert kinds > 20 or changed in ("gray", "color_drop")
    assert not torch.equal(distorted[0, 0], patches[0, 0])


def test_a_samples_patches_are_distorted_alike_in_any_batch() -> None:
    task, images, order = cpc(), pictures(4), torch.tensor([2, 0])
    whole = task.patches(batch_of(images))
    assert torch.equal(task.patches(batch_of(images[order], order)), whole[order])


def test_the_shares_are_of_patches() -> None:
    patches = torch.rand(50, 36, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    random = SampleRandom.keyed(0, 0, torch.arange(50))
    dropped = Distort(**{**PLAIN, "color_drop": 0.5})(patches, random) != patches
    assert dropped.any(dim=-1).any(dim=-1).any(dim=-1).float().mean().item() == pytest.approx(0.5, abs=0.05)
    gray = Distort(**{**PLAIN, "gray": 0.25})(patches, random)
    assert (gray[:, :, 0] == gray[:, :, 1]).all(dim=(2, 3)).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_of_a_dropped_picture_one_channel_stays_and_the_others_are_mid_gray() -> None:
    pixels = pictures(3)
    kept = keep_channel(pixels, torch.tensor([2, 0, 1]), torch.tensor([True, True, False]))
    assert torch.equal(kept[0, 2], pixels[0, 2])
    assert torch.equal(kept[1, 0], pixels[1, 0])
    assert (kept[0, :2] == 0.5).all()
    assert (kept[1, 1:] == 0.5).all()
    assert torch.equal(kept[2], pixels[2])


def test_patches_become_a_multiple_of_the_smallest_picture_of_the_encoder() -> None:
    task = cpc(side=12, minimum_size=4)
    assert task.cut(pictures()).shape == task.patches(batch_of(pictures())).shape == (3, 36, 3, 12, 12)


def test_the_representation_is_the_mean_over_undistorted_patches_and_draws_nothing() -> None:
    task, images = cpc(), pictures()
    with torch.no_grad():
        features = [task.encoder(patch) for patch in task.cut(images).unbind(dim=1)]
        torch.testing.assert_close(task.representation()(images), torch.stack(features).mean(dim=0))


def test_it_asks_for_an_encoder_without_batch_norm() -> None:
    assert CPCv2.encoder_options() == {"norm": "layer"}


def test_the_gradient_reaches_every_parameter() -> None:
    task = cpc(context_width=16)
    task(batch_of(pictures())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_logs_are_percentages_of_the_four_sides() -> None:
    logs = cpc(rows=2)(batch_of(pictures(16))).logs
    assert list(logs) == [f"from_{side}_top1" for side in SIDES]
    assert all(0 <= float(value) <= 100 for value in logs.values())


def test_the_preview_is_the_patches_and_what_the_encoder_sees_of_them_drawn_apart() -> None:
    task, batch = cpc(), batch_of(pictures(3), torch.tensor([4, 9, 2]))
    shown = task.preview(batch)
    task(batch)
    order = batch.random("groups").uniform().argsort()
    encoder: Any = task.encoder
    seen = encoder.seen[0].view(3, 6, 6, 3, 10, 10)[order.argsort()]
    assert {name: tuple(drawn.shape) for name, drawn in shown.items()} == dict.fromkeys(
        ("patches", "seen"), (3, 3, 65, 65)
    )  # 6 patches of 10 px, 5 gaps of 1 px
    for row, column in ((0, 0), (2, 5), (5, 1)):
        place = (..., slice(11 * row, 11 * row + 10), slice(11 * column, 11 * column + 10))
        assert torch.equal(shown["seen"][place], seen[:, row, column])
        assert torch.equal(shown["patches"][place], task.cut(batch.views[0])[:, 6 * row + column])


@pytest.mark.parametrize("options", [{"rows": 0}, {"skipped_rows": -1}, {"rows": 4, "skipped_rows": 2}])
def test_rows_beyond_the_grid_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ClvrBenchError, match=r"cpc_v2: rows and skipped_rows must leave one of 6 rows .*: 1 and 2"):
        cpc(**options)


@pytest.mark.parametrize(
    "options", [{"patch": 0.0}, {"patch": 1.1}, {"group": 0}, {"context_width": 0}, {"target_dim": 0}]
)
def test_sizes_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ClvrBenchError, match=r"cpc_v2: patch must be in \(0, 1\], group, context_width and target_dim"):
        cpc(**options)


@pytest.mark.parametrize("options", [{"primitives": -1}, {"color_change": 1.1}, {"gray": -0.1}, {"color_drop": 2.0}])
def test_distortions_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ClvrBenchError, match=r"cpc_v2: primitives must not be negative, color_change, gray and color_"):
        cpc(**options)


def test_the_loss_falls_within_a_few_steps() -> None:
    task = cpc(feature_dim=16, context_width=16, target_dim=16, **PLAIN)
    plain = pictures(8)[:, :, :1, :1].expand(-1, -1, 32, 32)  # each picture of one color: what is beside tells
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = task(batch_of(plain)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(8 * 36), abs=0.5)
    assert losses[-1] < 0.9 * losses[0]
