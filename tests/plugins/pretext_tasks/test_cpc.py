from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, EncoderFacts, Progress, SampleRandom
from clvr_bench.combinations import Planner
from clvr_bench.plugins import Plugins
from clvr_bench.suites import parse_suite
from clvr_plugins.pretext_tasks.cpc import CPC, Cut

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
