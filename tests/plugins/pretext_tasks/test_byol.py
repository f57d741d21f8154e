from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.byol import BYOL, prediction_error, spread

FACTS = DataFacts("image", train_size=64, image_size=8)


def naive_error(prediction: Tensor, target: Tensor) -> float:
    """Equation 2 as it is printed: the squared distance of two vectors, each divided by its length."""
    q, z = prediction.double().numpy(), target.double().numpy()
    return float(np.linalg.norm(q / np.linalg.norm(q) - z / np.linalg.norm(z)) ** 2)


def vectors(seed: int, count: int = 5) -> Tensor:
    return torch.randn(count, 7, generator=torch.Generator().manual_seed(seed))


def two_views(pictures: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor], step: int = 0) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(step, 10, 0, 1))


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., BYOL]:
    def task(**options: Any) -> BYOL:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return BYOL(encoder, FACTS, **{"projection_dim": 6, "hidden_dim": 16, **options})

    return task


def take_step(task: BYOL, batch: Batch, rate: float = 0.1) -> float:
    """One optimizer step as the harness takes it: the loss before it."""
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=rate, momentum=0.9)
    output = task(batch)
    output.loss.backward()
    optimizer.step()
    task.zero_grad()
    with torch.no_grad():
        task.after_step(output.kept, batch.progress)
    return output.loss.item()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_the_error_is_equation_2(seed: int) -> None:
    predictions, targets = vectors(seed), vectors(seed + 1)
    expected = [naive_error(*pair) for pair in zip(predictions, targets, strict=True)]
    assert prediction_error(predictions, targets).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_error_is_two_and_twice_lightlys() -> None:
    predictions, targets = vectors(1), vectors(2)
    theirs = 2 + 2 * NegativeCosineSimilarity()(predictions, targets)  # theirs is -cos
    torch.testing.assert_close(prediction_error(predictions, targets).mean(), theirs)


@pytest.mark.parametrize(("degrees", "error"), [(0, 0.0), (60, 1.0), (90, 2.0), (180, 4.0)])
def test_the_error_depends_on_the_angle_alone(degrees: int, error: float) -> None:
    angle = math.radians(degrees)
    prediction, target = torch.tensor([[3.0, 0.0]]), 0.2 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert prediction_error(prediction, target).item() == pytest.approx(error, abs=1e-6)


def test_targets_take_no_gradient() -> None:
    predictions, targets = vectors(1).requires_grad_(), vectors(2).requires_grad_()
    prediction_error(predictions, targets).sum().backward()
    assert predictions.grad is not None
    assert targets.grad is None


def test_the_loss_of_a_batch_is_both_directions_of_equation_2(build: Callable[..., BYOL]) -> None:
    task = build().eval()
    views = two_views()
    with torch.no_grad():
        predictions = [task.predictor(task.projector(task.encoder(view))) for view in views]
        targets = [task.target(view) for view in views]
        loss = task(batch_of(views)).loss
    both = zip(predictions, reversed(targets), strict=True)
    errors = [naive_error(*pair) for one_way in both for pair in zip(*one_way, strict=True)]
    assert loss.item() == pytest.approx(sum(errors) / 8, abs=1e-5)


def test_the_views_are_interchangeable(build: Callable[..., BYOL]) -> None:
    views = two_views()
    torch.testing.assert_close(build()(batch_of(views)).loss, build()(batch_of(views[::-1])).loss)


def test_each_view_passes_both_networks_on_its_own(build: Callable[..., BYOL]) -> None:
    task, views = build(), two_views()
    seen: list[Tensor] = []
    for network in (task.encoder, task.target):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task(batch_of(views))
    assert len(seen) == 4
    assert all(torch.equal(*pair) for pair in zip(seen, views * 2, strict=True))


def test_heads_have_one_normalized_hidden_layer_and_a_bare_output(build: Callable[..., BYOL]) -> None:
    task = build()
    for head, inputs in ((task.projector, 8), (task.predictor, 6)):
        assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert [(layer.in_features, layer.out_features) for layer in head if isinstance(layer, nn.Linear)] == [
            (inputs, 16),
            (16, 6),
        ]


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.9), (5, 0.95), (9, 1 - 0.1 * (math.cos(0.9 * math.pi) + 1) / 2)])
def test_the_target_moves_by_equation_1_ever_slower(build: Callable[..., BYOL], step: int, momentum: float) -> None:
    task = build(target_momentum=0.9)
    old = [parameter.clone() for parameter in task.target.parameters()]
    take_step(task, batch_of(two_views(), step))
    trained = [*task.encoder.parameters(), *task.projector.parameters()]
    for before, after, source in zip(old, task.target.parameters(), trained, strict=True):
        torch.testing.assert_close(after, momentum * before + (1 - momentum) * source)


def test_forward_moves_nothing_but_batch_norm(build: Callable[..., BYOL]) -> None:
    task = build()
    before = copy.deepcopy(task.state_dict())
    task(batch_of(two_views()))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}


def test_the_gradient_reaches_encoder_and_heads_and_nothing_of_the_target(build: Callable[..., BYOL]) -> None:
    task = build()
    task(batch_of(two_views())).loss.backward()
    reached = {
        name for name, parameter in task.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == {name for name, _ in task.named_parameters() if not name.startswith("target")}
    assert reached == {name for name, parameter in task.named_parameters() if parameter.requires_grad}


def test_the_spread_tells_a_collapse_from_directions_to_all_sides() -> None:
    assert spread(torch.ones(6, 4)).item() == pytest.approx(0, abs=1e-3)
    assert spread(torch.cat([torch.eye(4), -torch.eye(4)])).item() == pytest.approx(1)


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_a_momentum_that_is_none_is_refused(build: Callable[..., BYOL], momentum: float) -> None:
    with pytest.raises(ClvrBenchError, match=rf"byol: target_momentum must be in \[0, 1\], got {momentum}\. Typical"):
        build(target_momentum=momentum)


def test_the_loss_falls_within_a_few_steps(build: Callable[..., BYOL]) -> None:
    task = build(target_momentum=0.9)
    views = two_views(pictures=16)
    losses = [take_step(task, batch_of(views, min(step, 9)), rate=0.1) for step in range(20)]
    assert losses[-1] < 0.5 * losses[0]
