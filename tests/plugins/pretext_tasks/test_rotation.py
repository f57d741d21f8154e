from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, DataFacts, Progress, SampleRandom
from clvr_bench.combinations import Planner
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.suites import parse_suite
from clvr_plugins.pretext_tasks.rotation import Rotation, turns

FACTS = DataFacts("image", train_size=8, image_size=6)
TOP_LEFT, BOTTOM_LEFT, BOTTOM_RIGHT, TOP_RIGHT = (0, 0), (-1, 0), (-1, -1), (0, -1)


class Corners(nn.Module):
    """An encoder stand-in: how bright the corners are, in the order in which a counter-clockwise turn visits them."""

    feature_dim = 4

    def forward(self, images: Tensor) -> Tensor:
        corners = (TOP_LEFT, BOTTOM_LEFT, BOTTOM_RIGHT, TOP_RIGHT)
        return torch.stack([images[:, 0, row, column] for row, column in corners], dim=1)


def batch_of(images: Tensor) -> Batch:
    index = torch.arange(len(images))
    random = SampleRandom.keyed(0, 0, index)
    return Batch([images], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def knowing_task(order: list[int]) -> Rotation:
    """A task whose classifier reads a turn off the corner that is lit: corner i votes for turn ``order[i]``."""
    encoder: Any = Corners()
    task = Rotation(encoder, FACTS)
    with torch.no_grad():
        task.classifier.weight.zero_()
        task.classifier.bias.zero_()
        for corner, turn in enumerate(order):
            task.classifier.weight[turn, corner] = 20.0
    return task


@pytest.fixture
def task(plugins: Plugins) -> Rotation:
    torch.manual_seed(0)
    encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
    encoder.feature_dim = 8
    return Rotation(encoder, FACTS)


@pytest.mark.parametrize("quarter", range(4))
def test_each_turn_is_numpys(quarter: int) -> None:
    images = pictures(2)
    turned = turns(images).view(4, 2, 3, 6, 6)
    for sample in range(2):
        for channel in range(3):
            expected = np.rot90(images[sample, channel].numpy(), quarter)
            assert np.array_equal(turned[quarter, sample, channel].numpy(), expected)


def test_turns_go_counter_clockwise() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0] = 1
    lit = [picture[0].nonzero().tolist() for picture in turns(image)]
    assert lit == [[[0, 0]], [[3, 0]], [[3, 3]], [[0, 3]]]


def test_targets_are_the_numbers_of_the_turns() -> None:
    images = torch.zeros(3, 3, 6, 6)
    images[:, :, 0, 0] = 1  # turned by a quarter, the lit corner is the next of the encoder's
    output = knowing_task([0, 1, 2, 3])(batch_of(images))
    assert float(output.logs["rotation_top1"]) == 100
    assert output.loss.item() == pytest.approx(0, abs=1e-6)


def test_top1_is_in_percent_of_all_turned_copies() -> None:
    images = torch.zeros(3, 3, 6, 6)
    images[:, :, 0, 0] = 1
    output = knowing_task([0, 2, 1, 3])(batch_of(images))
    assert float(output.logs["rotation_top1"]) == 50


def test_an_undecided_classifier_has_the_loss_of_chance(task: Rotation) -> None:
    nn.init.zeros_(task.classifier.weight)
    nn.init.zeros_(task.classifier.bias)
    assert task(batch_of(pictures(4))).loss.item() == pytest.approx(math.log(4), abs=1e-6)


def test_the_gradient_reaches_encoder_and_classifier(task: Rotation) -> None:
    task(batch_of(pictures(4))).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_every_picture_is_encoded_in_all_four_turns(task: Rotation) -> None:
    task(batch_of(pictures(5)))
    assert task.encoder.passes == 20


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(task: Rotation) -> None:
    task.eval()  # batch statistics are the one thing that parts do not share
    images = pictures(6)
    parts = [task(batch_of(part)).loss for part in images.chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images)).loss)


def test_its_default_augmentation_crops_and_flips(plugins: Plugins) -> None:
    content = {
        "name": "test",
        "encoders": ["tiny"],
        "datasets": ["shapes"],
        "budget": {"epochs": 1, "batch_size": 2},
        "pretext_tasks": ["rotation"],
    }
    (combination,) = Planner(parse_suite(content, "test"), plugins.registry).combinations()
    assert [choice.entry.name for choice in combination.augmentation] == ["crop_flip"]


def test_the_loss_falls_within_a_few_steps(task: Rotation) -> None:
    images = torch.zeros(8, 3, 6, 6)
    images[:, :, :3] = 1 - 0.2 * pictures(8)[:, :, :3]  # bright above, dark below: a convolution sees which way is up
    images[:, 0, :, 3:] = 0
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = task(batch_of(images)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_preview_is_what_the_encoder_sees_by_degrees(task: Rotation) -> None:
    seen: list[Tensor] = []
    task.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    batch = batch_of(pictures(2))
    shown = task.preview(batch)
    assert not seen
    task(batch)
    assert list(shown) == ["0°", "90°", "180°", "270°"]
    assert torch.equal(torch.cat(list(shown.values())), seen[0])
