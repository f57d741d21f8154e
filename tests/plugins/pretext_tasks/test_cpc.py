from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, EncoderFacts, Progress, SampleRandom
from clvr_bench.combinations import Planner
from clvr_bench.plugins import Plugins
from clvr_bench.suites import parse_suite
from clvr_plugins.pretext_tasks.cpc import CPC, Cut, RowBlock, info_nce

FACTS = DataFacts("image", train_size=8, image_size=32)


class Pool(nn.Module):
    """An encoder stand-in: a linear map of a patch's pixels, rectified."""

    def __init__(self, feature_dim: int = 6, side: int = 8) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.layer = nn.Linear(3 * side * side, feature_dim)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.layer(images.flatten(1)).relu()


def cpc(feature_dim: int = 6, **options: Any) -> CPC:
    torch.manual_seed(0)
    encoder: Any = Pool(feature_dim)
    return CPC(encoder, FACTS, **{"context_width": 4, **options})


def pictures(count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, index: Tensor | None = None) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, 0, index)
    return Batch([images], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


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


def test_the_loss_of_a_batch_is_the_mean_over_steps_of_equation_4_within_groups() -> None:
    task = cpc(rows=2, skipped_rows=1, group=2, piece=1.0, gray=False)
    images = pictures(3)
    batch = batch_of(images)
    order = batch.random("groups").uniform().argsort().tolist()
    expected = []
    with torch.no_grad():
        z = torch.stack(
            [
                torch.stack(
                    [
                        torch.cat([task.encoder(image[None, :, y : y + 8, x : x + 8]) for x in range(0, 25, 4)])
                        for y in range(0, 25, 4)
                    ]
                )
                for image in images
            ]
        )  # (3, 7, 7, D)
        context = task.context(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for step, predict in ((2, task.predictors[0]), (3, task.predictors[1])):
            losses = []
            for group in (order[:2], order[2:]):
                losses += naive_info_nce(predict(context[group, :-step]), z[group], step)
            expected.append(sum(losses) / len(losses))
        loss = task(batch).loss
    assert loss.item() == pytest.approx(sum(expected) / 2, abs=1e-5)


def test_the_loss_of_a_permuted_batch_is_the_same() -> None:
    task, images, order = cpc(group=2), pictures(5), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(task(batch_of(images[order], order)).loss, task(batch_of(images)).loss)


def test_a_context_sees_its_own_row_and_all_above_in_full_and_none_below() -> None:
    task = cpc(context_width=16)
    z = torch.rand(1, 6, 7, 7, requires_grad=True)
    for row in range(7):
        (gradient,) = torch.autograd.grad(task.context(z)[0, :, row, 3].sum(), z)
        seen = gradient[0].abs().amax(dim=0) > 0
        assert not seen[row + 1 :].any()
        nearest_five = seen[max(0, row - 5) : row + 1]  # five blocks reach five rows up
        assert nearest_five.any(dim=1).all()
        assert seen[row].all()


def test_a_block_adds_to_what_it_gets() -> None:
    block, z = RowBlock(3, 4), torch.rand(2, 3, 7, 7)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    assert torch.equal(block(z), z)


@pytest.mark.parametrize("row", range(5))
def test_no_prediction_depends_on_a_pixel_of_the_patch_that_it_is_to_find(row: int) -> None:
    task = cpc(piece=1.0)
    images = pictures(1).requires_grad_()
    z = task.encoder(task.cut(images).flatten(0, 1)).view(1, 7, 7, -1)
    context = task.context(z.permute(0, 3, 1, 2))
    (gradient,) = torch.autograd.grad(context[:, :, row].sum(), images)
    first_target = 4 * (row + task.steps[0])  # its upper edge, in pixels
    assert gradient[:, :, :first_target].any()
    assert not gradient[:, :, first_target:].any()


def test_without_a_skipped_row_context_and_nearest_patch_share_pixels() -> None:
    assert list(cpc(skipped_rows=0).steps) == [1, 2, 3, 4, 5]
    assert list(cpc().steps) == [2, 3, 4, 5, 6]


def test_every_sample_has_its_own_pieces_with_zeros_around() -> None:
    task = cpc(gray=False)
    images = pictures(2) / 2 + 0.5
    task(batch_of(images))
    corners = batch_of(images).random("pieces").integers(2, 49, 2)
    order = batch_of(images).random("groups").uniform().argsort().tolist()
    seen: Any = task.encoder
    patches = seen.seen[0].view(2, 7, 7, 3, 8, 8)
    assert corners.unique(dim=1).shape[1] > 1
    for place, sample in enumerate(order):
        top, left = corners[sample, 7 * 2 + 5].tolist()
        piece = images[sample, :, 4 * 2 + top :, 4 * 5 + left :][:, :7, :7]
        assert torch.equal(patches[place, 2, 5, :, :7, :7], piece)
    assert not patches[..., 7].any()
    assert not patches[..., 7, :].any()


@pytest.mark.parametrize(("patch", "piece", "pixels"), [(8, 60 / 64, 7), (64, 60 / 64, 60), (8, 1.0, 8), (8, 0.01, 1)])
def test_a_piece_is_a_part_of_its_patch_in_whole_pixels(patch: int, piece: float, pixels: int) -> None:
    encoder: Any = Pool(side=patch)
    task = CPC(encoder, DataFacts("image", train_size=8, image_size=4 * patch), piece=piece)
    assert (task.cut.patch, task.cut.piece) == (patch, pixels)


def test_a_central_piece_stays_where_it_is() -> None:
    images = pictures(1) / 2 + 0.5
    patches = Cut(patch=8, piece=4, gray=False)(images)
    expected = torch.zeros(3, 8, 8)
    expected[:, 2:6, 2:6] = images[0, :, 2:6, 2:6]
    assert torch.equal(patches[0, 0], expected)


def test_the_representation_is_the_mean_over_the_central_pieces() -> None:
    task = cpc(gray=False)
    images = pictures()
    with torch.no_grad():
        features = [task.encoder(patch) for patch in task.cut(images).unbind(dim=1)]
        torch.testing.assert_close(task.representation()(images), torch.stack(features).mean(dim=0))


def test_the_representation_draws_nothing() -> None:
    representation = cpc().representation()
    assert torch.equal(representation(pictures()), representation(pictures()))


@pytest.mark.parametrize("gray", [True, False])
def test_color_is_taken_out_of_what_is_trained_on_and_evaluated(gray: bool) -> None:
    task = cpc(gray=gray, piece=1.0)
    task(batch_of(pictures()))
    task.representation()(pictures())
    encoder: Any = task.encoder
    for patches in encoder.seen:
        assert torch.allclose(patches[:, :1], patches) is gray


def test_it_asks_for_an_encoder_without_batch_norm() -> None:
    assert CPC.encoder_options() == {"norm": "layer"}


@pytest.mark.parametrize(("minimum", "size", "fits"), [(1, 32, True), (8, 32, True), (16, 32, False), (1, 4, False)])
def test_encoders_that_do_not_take_patches_so_small_are_skipped(minimum: int, size: int, fits: bool) -> None:
    encoder = EncoderFacts("vit", 8, 100, minimum, has_feature_maps=True, has_tokens=True)
    reason = CPC.skip_reason(encoder, DataFacts("image", train_size=8, image_size=size))
    assert reason == (None if fits else f"its patches have {size // 4} px, vit takes no less than {max(2, minimum)}")


@pytest.mark.parametrize("options", [{"rows": 0}, {"skipped_rows": -1}, {"rows": 5, "skipped_rows": 2}])
def test_rows_beyond_the_grid_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ClvrBenchError, match=r"cpc_v1: rows and skipped_rows must leave one of 7 rows .* are 5 and 1"):
        cpc(**options)


@pytest.mark.parametrize("options", [{"piece": 0.0}, {"piece": 1.1}, {"group": 0}, {"context_width": 0}])
def test_sizes_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ClvrBenchError, match=r"cpc_v1: piece must be in \(0, 1\], group and context_width positive"):
        cpc(**options)


def test_the_gradient_reaches_every_parameter() -> None:
    task = cpc(context_width=16)
    task(batch_of(pictures())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_logs_are_percentages_of_the_nearest_and_the_farthest_row() -> None:
    task = cpc(rows=2)
    logs = task(batch_of(pictures(16))).logs
    assert set(logs) == {"nearest_top1", "farthest_top1"}
    assert all(0 <= float(value) <= 100 for value in logs.values())


def test_its_default_augmentation_crops_and_flips(plugins: Plugins) -> None:
    content = {
        "name": "test",
        "encoders": ["resnet18_small_w16"],
        "datasets": ["shapes"],
        "budget": {"epochs": 1, "batch_size": 2},
        "pretext_tasks": ["cpc_v1"],
    }
    (combination,) = Planner(parse_suite(content, "test"), plugins.registry).combinations()
    assert [choice.entry.name for choice in combination.augmentation] == ["crop_flip"]
    assert combination.encoder is not None
    assert combination.encoder.options["norm"] == "layer"


def test_the_loss_falls_within_a_few_steps() -> None:
    task = cpc(feature_dim=16, context_width=16)
    columns = pictures(8)[:, :, :1].expand(-1, -1, 32, -1)  # each picture's rows are alike: what is above tells
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = task(batch_of(columns)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(8 * 49), abs=0.5)
    assert losses[-1] < 0.9 * losses[0]


def test_the_preview_is_the_grid_of_patches_that_the_encoder_sees_drawn_apart() -> None:
    task, batch = cpc(piece=0.75), batch_of(pictures(3), torch.tensor([4, 9, 2]))
    (label, shown), *others = task.preview(batch).items()
    task(batch)
    order = batch.random("groups").uniform().argsort()
    patches = task.encoder.seen[0].view(3, 7, 7, 3, 8, 8)[order.argsort()]
    assert (label, others) == ("7 x 7 patches", [])
    assert shown.shape == (3, 3, 62, 62)  # 7 patches of 8 px, 6 gaps of 1 px
    for row in range(7):
        for column in range(7):
            top, left = 9 * row, 9 * column
            assert torch.equal(shown[:, :, top : top + 8, left : left + 8], patches[:, row, column])
    assert (shown[:, :, 8::9] == 1).all()
    assert (shown[:, :, :, 8::9] == 1).all()
