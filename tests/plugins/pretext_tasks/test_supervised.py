from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.supervised import Supervised, WeaklySupervised

FACTS = DataFacts("image", train_size=8, image_size=6, num_classes=5)


class Flat(nn.Module):
    """An encoder stand-in: a picture's pixels are its feature."""

    feature_dim = 5

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def batch_of(images: Tensor, labels: list[int]) -> Batch:
    index = torch.arange(len(images))
    return Batch([images], index, torch.tensor(labels), SampleRandom.keyed(0, 0, index), Progress(0, 1, 0, 1))


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def task(plugins: Plugins) -> Supervised:
    torch.manual_seed(0)
    encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
    encoder.feature_dim = 8
    return Supervised(encoder, FACTS)


@pytest.fixture
def reader() -> Supervised:
    """A task that takes the pixels of a picture (B, 5, 1, 1) for its logits."""
    encoder: Any = Flat()
    task = Supervised(encoder, FACTS)
    task.classifier = nn.Identity()  # type: ignore[assignment]  # the features are the logits
    return task


def test_the_loss_is_the_cross_entropy_of_the_labels(reader: Supervised) -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    labels = [0, 4, 2, 2]
    rows = logits.double().numpy()
    expected = np.mean([math.log(np.exp(row).sum()) - row[label] for row, label in zip(rows, labels, strict=True)])
    output = reader(batch_of(logits.view(4, 5, 1, 1), labels))
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)


def test_top1_is_the_percentage_of_right_classes(reader: Supervised) -> None:
    images = torch.eye(5)[[0, 1, 2, 3]].view(4, 5, 1, 1)
    assert float(reader(batch_of(images, [0, 1, 2, 4])).logs["train_top1"]) == 75


def test_the_classifier_has_an_output_for_every_class(task: Supervised) -> None:
    assert (task.classifier.in_features, task.classifier.out_features) == (8, 5)


def test_the_classifier_is_no_part_of_what_is_evaluated(task: Supervised) -> None:
    assert task.representation() is task.encoder


def test_the_gradient_reaches_encoder_and_classifier(task: Supervised) -> None:
    task(batch_of(pictures(4), [0, 1, 2, 3])).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_sees_every_label_and_is_not_ranked() -> None:
    assert (Supervised.labels, Supervised.ranked) == ("fine", False)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(task: Supervised) -> None:
    task.eval()  # batch statistics are the one thing that parts do not share
    images, labels = pictures(6), [0, 1, 2, 3, 4, 0]
    parts = [task(batch_of(images[at : at + 2], labels[at : at + 2])).loss for at in (0, 2, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images, labels)).loss)


def test_the_loss_falls_within_a_few_steps(task: Supervised) -> None:
    images, labels = pictures(8), [0, 1, 2, 3, 4, 0, 1, 2]
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = task(batch_of(images, labels)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_run_on_coarse_labels_is_marked_and_not_ranked(tiny_run: Callable[..., Any], tmp_path: Path) -> None:
    assert issubclass(WeaklySupervised, Supervised)  # so that all of the above holds for it
    assert tiny_run("--pretext-task", "weakly_supervised", "--epochs", 1, "--results", tmp_path / "results").code == 0
    (path,) = tmp_path.glob("results/*/runs/*/pretraining.json")
    facts = json.loads(path.read_text())["facts"]
    assert (facts["labels"], facts["ranked"]) == ("coarse", False)
    assert facts["data"]["num_classes"] == 3  # the coarse classes of the shapes, of which there are ten
