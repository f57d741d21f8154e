from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_plugins.pretext_tasks.exemplar import NO_CLASS, Exemplar, exemplar_visits, surrogate_classes

FACTS = DataFacts("image", train_size=10, image_size=8)


class Flat(nn.Module):
    """An encoder stand-in: a linear map of the pixels."""

    feature_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


def exemplar(seed: int = 0, **options: Any) -> Exemplar:
    torch.manual_seed(seed)
    return Exemplar(Flat(), FACTS, **{"classes": 4, **options})


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def batch_of(index: Tensor, seed: int = 0) -> Batch:
    random = SampleRandom.keyed(0, 0, index)
    return Batch([pictures(10, seed)[index]], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def exemplars_of(task: Exemplar) -> Tensor:
    return (task.class_of != NO_CLASS).nonzero()[:, 0]


def naive_loss(logits: Tensor, classes: Tensor) -> float:
    """The paper's multinomial loss, -<e_i, log f>, over the number of samples."""
    total = 0.0
    for row, number in zip(logits.double().numpy(), classes.tolist(), strict=True):
        target = np.eye(len(row))[number]
        total -= float(target @ np.log(np.exp(row) / np.exp(row).sum()))
    return total / len(logits)


@pytest.mark.parametrize("classes", [2, 7, 10])
def test_exemplars_are_numbered_in_order_and_the_others_are_no_class(classes: int) -> None:
    class_of = surrogate_classes(5, 10, classes)
    assert class_of.shape == (10,)
    assert class_of[class_of != NO_CLASS].tolist() == list(range(classes))
    assert (class_of == NO_CLASS).sum() == 10 - classes


def test_exemplars_depend_on_the_key_and_any_picture_may_be_one() -> None:
    drawn = torch.stack([surrogate_classes(key, 10, 4) != NO_CLASS for key in range(200)])
    assert torch.equal(drawn[3], surrogate_classes(3, 10, 4) != NO_CLASS)
    assert (drawn.float().mean(dim=0) - 0.4).abs().max() < 5 * (0.4 * 0.6 / 200) ** 0.5
    assert (exemplar(seed=0).class_of != exemplar(seed=1).class_of).any()


@pytest.mark.parametrize("classes", [2, 3, 7, 10])
def test_an_epoch_visits_exemplars_alone_and_equally_often(classes: int) -> None:
    class_of = surrogate_classes(5, 10, classes)
    counts = torch.bincount(exemplar_visits(class_of, 5, epoch=0), minlength=10)
    assert counts.sum() == 10
    assert not counts[class_of == NO_CLASS].any()
    shown = counts[class_of != NO_CLASS]
    assert shown.max() - shown.min() <= 1


def test_each_epoch_has_its_own_order_and_its_own_pictures_that_come_once_more() -> None:
    class_of = surrogate_classes(5, 10, 7)
    epochs = [exemplar_visits(class_of, 5, epoch) for epoch in range(40)]
    assert torch.equal(epochs[1], exemplar_visits(class_of, 5, epoch=1))
    assert not torch.equal(epochs[0], epochs[1])
    twice = sum((torch.bincount(visits, minlength=10) == 2).int() for visits in epochs)
    assert (twice > 0).sum() == 7
    assert not torch.equal(epochs[0], epochs[0].sort().values)


def test_before_each_epoch_the_visits_are_set_and_nothing_moves() -> None:
    task, seen = exemplar(), []
    before = copy.deepcopy(task.state_dict())
    for number in range(2):
        task.before_epoch(SimpleNamespace(progress=Progress(0, 4, number, 2), visit=seen.append))
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert task.moves == ()
    assert set(seen[0].tolist()) == set(seen[1].tolist()) == set(exemplars_of(task).tolist())
    assert not torch.equal(seen[0], seen[1])


def test_the_loss_is_the_papers() -> None:
    task = exemplar().eval()
    index = exemplars_of(task)[[0, 2, 3, 2, 1]]
    batch = batch_of(index)
    with torch.no_grad():
        logits = task.classifier(task.encoder(batch.views[0]))
    assert logits.shape == (5, 4)
    expected = naive_loss(logits, torch.tensor([0, 2, 3, 2, 1]))
    assert task(batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_equal_logits_give_the_loss_of_chance() -> None:
    task = exemplar()
    nn.init.zeros_(task.classifier.weight)
    nn.init.zeros_(task.classifier.bias)
    assert task(batch_of(exemplars_of(task))).loss.item() == pytest.approx(math.log(4))


def test_pictures_that_are_no_exemplars_add_nothing() -> None:
    task = exemplar().eval()
    some = exemplars_of(task)[:3]
    others = (task.class_of == NO_CLASS).nonzero()[:3, 0]
    alone, together = (task(batch_of(index)).loss for index in (some, torch.cat([some, others])))
    torch.testing.assert_close(together, alone / 2)
    assert task(batch_of(others)).loss == 0


def test_the_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    task = exemplar().eval()
    index = exemplars_of(task)[[0, 1, 3, 2]]
    parts = torch.stack([task(batch_of(part)).loss for part in index.split(2)])
    torch.testing.assert_close(parts.mean(), task(batch_of(index)).loss)


def test_exemplar_top1_is_the_percentage_of_pictures_that_are_recognized() -> None:
    task = exemplar()
    task.encoder.forward = lambda images: torch.eye(6)[[0, 1, 2, 2]].requires_grad_()
    task.classifier = nn.Linear(6, 4, bias=False)
    nn.init.eye_(task.classifier.weight)
    assert float(task(batch_of(exemplars_of(task))).logs["exemplar_top1"]) == 75


@pytest.mark.parametrize("batch_norm", [False, True])
def test_features_are_normalized_over_the_batch_where_asked_for(batch_norm: bool) -> None:
    layers = exemplar(batch_norm=batch_norm).classifier.modules()
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in layers) is batch_norm


def test_the_gradient_reaches_every_parameter() -> None:
    task = exemplar()
    task(batch_of(exemplars_of(task))).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_loss_is_in_float32_under_autocast() -> None:
    task = exemplar()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert task(batch_of(exemplars_of(task))).loss.dtype is torch.float32


@pytest.mark.parametrize("classes", [1, 11])
def test_more_classes_than_pictures_and_fewer_than_two_are_refused(classes: int) -> None:
    message = rf"exemplar: classes must be from 2 to the 10 training pictures, got {classes}\. Set classes = 5, say"
    with pytest.raises(ClvrBenchError, match=message):
        exemplar(classes=classes)


def test_the_loss_falls_within_a_few_steps() -> None:
    task = exemplar()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.3, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = task(batch_of(exemplars_of(task))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(4), abs=0.4)
    assert losses[-1] < 0.3 * losses[0]
