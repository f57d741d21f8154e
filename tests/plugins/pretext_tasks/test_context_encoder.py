from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, EncoderFacts, Phase, Progress, SampleRandom
from clvr_bench.contracts.recipe import Recipe
from clvr_bench.optimization import build_optimizer
from clvr_plugins.pretext_tasks.context_encoder import (
    BLOCKS,
    ChannelwiseLinear,
    ContextEncoder,
    Decoder,
    adversary_loss,
    pixel_weights,
    reconstruction_loss,
    squares,
)

FACTS = DataFacts("image", train_size=8, image_size=32)
PHASES = ("discriminator", "train")


class Maps(nn.Module):
    """An encoder stand-in: one convolution that leaves an eighth of the height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 8, stride=8)
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))
        self.passes = 0
        self.seen: list[Tensor] = []

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        self.passes += len(images)
        self.seen.append(images)
        return [images, self.layer(images).relu()]


def build(**options: Any) -> ContextEncoder:
    torch.manual_seed(0)
    encoder: Any = Maps()
    return ContextEncoder(encoder, FACTS, **{"width": 4, **options})


def pictures(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, phase: str = "train", index: Tensor | None = None) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, 0, index)
    return Batch([images], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1), phase)


def paint(task: ContextEncoder, batch: Batch) -> Tensor:
    seen = task.masked(batch.views[0], task.hidden(batch))
    return task.decoder(task.encoder.feature_maps(seen)[-1])


def reached(task: ContextEncoder) -> set[str]:
    """The parts of the task with a gradient."""
    return {name.split(".")[0] for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_center_is_hidden_but_for_the_rim_of_what_is_painted() -> None:
    task, batch = build(), batch_of(pictures(2))
    hidden = task.hidden(batch)
    assert hidden.shape == (2, 1, 32, 32)
    assert hidden.sum().item() == 2 * 14**2  # half of 32 px, less 1 px (4 of 128) on each side
    assert hidden[:, :, 9:23, 9:23].all()
    assert paint(task, batch).shape == (2, 3, 16, 16)
    weights = pixel_weights(hidden, task.overlap, 10.0)
    expected = torch.zeros(32, 32)
    expected[8:24, 8:24] = 10
    expected[9:23, 9:23] = 1
    assert torch.equal(weights[0, 0], expected)
    assert torch.equal(weights[task.painted][0, 0], expected[8:24, 8:24])


def test_blocks_hide_a_quarter_at_most_and_every_picture_has_its_own() -> None:
    task, batch = build(region="blocks"), batch_of(pictures(50))
    hidden = task.hidden(batch)
    share = hidden.float().mean(dim=(1, 2, 3))
    assert share.max() <= 0.25
    assert share.min() >= 1 / 16
    assert share.unique().numel() > 10
    assert paint(task, batch).shape == (50, 3, 32, 32)
    again = task.hidden(batch_of(pictures(2), index=torch.tensor([7, 3])))
    assert torch.equal(again, hidden[[7, 3]])


def test_blocks_may_lie_anywhere() -> None:
    batch = batch_of(torch.zeros(1, 1, 1, 1).expand(4000, 3, 32, 32))
    assert build(region="blocks").hidden(batch).any(dim=0).all()


def test_squares_are_marked_where_their_corners_say() -> None:
    marked = squares(torch.tensor([[[0, 1], [2, 2]], [[1, 0], [1, 0]]]), side=2, size=4)[:, 0].int().tolist()
    assert marked == [
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]],
        [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
    ]


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_the_rim_are_the_seen_pixels_near_a_hidden_one(overlap: int) -> None:
    hidden = torch.rand(3, 1, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.1
    weights = pixel_weights(hidden, overlap, 3.0)
    for picture, row, column in itertools.product(range(3), range(7), range(7)):
        window = hidden[
            picture, 0, max(0, row - overlap) : row + overlap + 1, max(0, column - overlap) : column + overlap + 1
        ]
        expected = 1.0 if hidden[picture, 0, row, column] else 3.0 * bool(window.any())
        assert weights[picture, 0, row, column].item() == expected


def test_the_reconstruction_loss_is_the_weighted_squared_error_over_what_counts() -> None:
    painted, true = pictures(3, seed=1)[..., :5, :5], pictures(3, seed=2)[..., :5, :5]
    weights = torch.randint(0, 3, (3, 1, 5, 5), generator=torch.Generator().manual_seed(0)).float()
    expected = []
    for x, y, w in zip(*(t.double().numpy() for t in (painted, true, weights)), strict=True):
        error = w * ((2 * x - 1) - (2 * y - 1)) ** 2
        expected.append(error.sum() / np.broadcast_to(w > 0, error.shape).sum())
    assert reconstruction_loss(painted, true, weights).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_black_for_white_costs_four_and_the_truth_nothing() -> None:
    white, black, weights = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4)
    assert reconstruction_loss(black, white, weights).item() == 4
    assert reconstruction_loss(white, white, weights).item() == 0
    assert reconstruction_loss(black, white, 10 * weights).item() == 40


def test_the_adversarys_loss_is_equation_2_with_its_sign_turned() -> None:
    true, painted = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [-3.0]])

    def d(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    expected = -(math.log(d(2)) + math.log(d(-1))) / 2 - (math.log(1 - d(0.5)) + math.log(1 - d(-3))) / 2
    assert adversary_loss(true, painted).item() == pytest.approx(expected, rel=1e-6)
    assert adversary_loss(torch.zeros(3, 1), torch.zeros(3, 1)).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("region", ["center", "blocks"])
def test_the_joint_loss_is_equation_3(region: Any) -> None:
    task, batch = build(region=region, adversarial=0.25, overlap_weight=7.0).eval(), batch_of(pictures())
    with torch.no_grad():
        painted = paint(task, batch)
        weights = pixel_weights(task.hidden(batch), 1, 7.0)[task.painted]
        error = reconstruction_loss(painted, batch.views[0][task.painted], weights)
        fooling = -torch.sigmoid(task.discriminator(painted).double()).log().mean()
        output = task(batch)
    assert output.loss.item() == pytest.approx(0.75 * error.item() + 0.25 * fooling.item(), rel=1e-5)
    assert output.logs["error"] == error
    assert float(output.logs["fooling"]) == pytest.approx(fooling.item(), rel=1e-5)


def test_the_discriminator_sees_true_and_painted_centers() -> None:
    task, batch = build().eval(), batch_of(pictures(), "discriminator")
    with torch.no_grad():
        true, painted = task.discriminator(batch.views[0][..., 8:24, 8:24]), task.discriminator(paint(task, batch))
        assert task(batch).loss.item() == pytest.approx(adversary_loss(true, painted).item(), rel=1e-5)


@pytest.mark.parametrize("region", ["center", "blocks"])
def test_the_encoder_sees_the_mean_color_where_pixels_are_hidden_and_the_picture_elsewhere(region: Any) -> None:
    task, batch = build(region=region), batch_of(pictures())
    task(batch)
    encoder: Any = task.encoder
    hidden = task.hidden(batch).expand(-1, 3, -1, -1)
    assert torch.equal(encoder.seen[-1][~hidden], batch.views[0][~hidden])
    assert torch.equal(encoder.seen[-1][hidden], encoder.mean.expand_as(batch.views[0])[hidden])
    assert torch.equal(task.preview(batch)["masked"], encoder.seen[-1])


def test_what_is_hidden_tells_nothing_of_itself() -> None:
    task, images = build(region="blocks").eval(), pictures()
    hidden = task.hidden(batch_of(images))
    changed = torch.where(hidden, 1 - images, images)
    torch.testing.assert_close(paint(task, batch_of(changed)), paint(task, batch_of(images)), rtol=0, atol=0)


def test_a_channelwise_layer_connects_all_places_of_a_channel_and_no_two_channels() -> None:
    torch.manual_seed(0)
    layer, maps = ChannelwiseLinear(3, 4), torch.rand(2, 3, 4, 4, requires_grad=True)
    assert sum(p.numel() for p in layer.parameters()) == 3 * 4**4  # m n^4 (section 3.1)
    for channel, row, column in itertools.product(range(3), (0, 3), (1, 2)):
        (gradient,) = torch.autograd.grad(layer(maps)[1, channel, row, column], maps)
        reached_channels = gradient[1].abs().amin(dim=(1, 2)) > 0
        assert reached_channels.tolist() == [other == channel for other in range(3)]
        assert not gradient[0].any()


def test_a_channelwise_layer_keeps_each_channels_weights_to_itself() -> None:
    layer, maps = ChannelwiseLinear(2, 2), torch.arange(8.0).view(1, 2, 2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.eye(4), torch.eye(4).flip(1)]))
    assert layer(maps).flatten().tolist() == [0, 1, 2, 3, 7, 6, 5, 4]


@pytest.mark.parametrize(("size", "side"), [(4, 16), (1, 16), (7, 112), (5, 16), (4, 4), (6, 4)])
def test_the_decoder_reaches_any_side(size: int, side: int) -> None:
    painted = Decoder(2, size, channels=3, side=side, width=1)(torch.rand(2, 2, size, size))
    assert painted.shape == (2, 3, side, side)
    assert 0 <= painted.min() <= painted.max() <= 1


def test_without_an_adversary_there_is_one_phase_and_no_discriminator() -> None:
    task = build(adversarial=0.0)
    assert task.phases == (Phase("train"),)
    assert reached(task) == set()
    output = task(batch_of(pictures()))
    output.loss.backward()
    assert output.logs == {}
    assert reached(task) == {"encoder", "decoder"}
    assert {name.split(".")[0] for name, _ in task.named_parameters()} == {"encoder", "decoder"}
    assert build().phases == (Phase("discriminator"), Phase("train"))


def test_each_phase_has_a_gradient_for_all_of_its_own_parts_and_no_others() -> None:
    task = build()
    for phase, parts in (("discriminator", {"discriminator"}), ("train", {"encoder", "decoder"})):
        task.zero_grad()
        task(batch_of(pictures(), phase)).loss.backward()
        assert reached(task) == parts
        without = {name.split(".")[0] for name, p in task.named_parameters() if p.grad is None}
        assert without == {"encoder", "decoder", "discriminator"} - parts


def test_every_parameter_has_an_optimizer_in_one_phase_and_the_discriminator_a_tenth_of_the_rate() -> None:
    task = build()
    optimized = [p for phase in PHASES for group in task.parameter_groups(phase) for p in group["params"]]
    assert len(optimized) == len(set(optimized))
    assert set(optimized) == set(task.parameters())
    recipe = Recipe(optimizer="adam", learning_rate=0.01, scaling="none", warmup=0.0, schedule="constant")
    scales = {
        phase: {
            group.get("lr_scale", 1.0)
            for group in build_optimizer(task.parameter_groups(phase), recipe, 4).param_groups
        }
        for phase in PHASES
    }
    assert scales == {"discriminator": {0.1}, "train": {1.0}}


@pytest.mark.parametrize("phase", PHASES)
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(phase: str) -> None:
    task, images, index = build(region="blocks").eval(), pictures(6), torch.arange(6)
    parts = [task(batch_of(images[part], phase, part)).loss for part in index.chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images, phase)).loss)


def test_to_look_at_the_encoders_maps_counts_nothing_and_leaves_it_in_training() -> None:
    task = build()
    assert task.encoder.passes == 0
    assert task.encoder.training
    assert task.representation() is task.encoder


@pytest.mark.parametrize(("maps", "tokens", "fits"), [(True, False, True), (False, False, False), (True, True, False)])
def test_encoders_without_maps_of_a_convolution_are_skipped(maps: bool, tokens: bool, fits: bool) -> None:
    facts = EncoderFacts("vit", 8, 100, 1, has_feature_maps=maps, has_tokens=tokens)
    reason = None if fits else "it decodes the maps of a convolutional network, vit has none"
    assert ContextEncoder.skip_reason(facts, FACTS) == reason


@pytest.mark.parametrize("overlap", [-0.1, 0.25])
def test_a_rim_that_leaves_nothing_hidden_is_refused(overlap: float) -> None:
    with pytest.raises(
        ClvrBenchError, match=r"^context_encoder: overlap must not be negative and leave a part of 32 px"
    ):
        build(overlap=overlap)


@pytest.mark.parametrize(
    "options",
    [{"overlap_weight": -1.0}, {"adversarial": 1.0}, {"adversarial": -0.1}, {"discriminator_rate": 0.0}, {"width": 0}],
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ClvrBenchError, match=r"^context_encoder: overlap_weight must not be negative, adversarial in"):
        build(**options)


def test_there_are_as_many_blocks_as_cover_a_quarter() -> None:
    assert BLOCKS * (32 // 4) ** 2 == 32**2 / 4


@pytest.mark.parametrize("phase", PHASES)
def test_the_loss_of_a_phase_falls_within_a_few_steps(phase: str) -> None:
    task = build()
    optimizer = torch.optim.Adam([p for group in task.parameter_groups(phase) for p in group["params"]], lr=0.01)
    batch = batch_of(pictures(8)[:, :, :1, :1].expand(-1, -1, 32, 32), phase)  # each of one color
    losses = []
    for _ in range(15):
        task.zero_grad()
        loss = task(batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
