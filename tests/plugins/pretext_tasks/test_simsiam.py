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
from clvr_plugins.pretext_tasks.simsiam import SimSiam, negative_cosine

FACTS = DataFacts("image", train_size=64, image_size=8)


def naive_distance(prediction: Tensor, target: Tensor) -> float:
    """Equation 1 as it is printed, of one pair of vectors."""
    p, z = prediction.double().numpy(), target.double().numpy()
    return float(-(p / np.linalg.norm(p)) @ (z / np.linalg.norm(z)))


def vectors(seed: int, count: int = 5) -> Tensor:
    return torch.randn(count, 7, generator=torch.Generator().manual_seed(seed))


def two_views(pictures: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor]) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(0, 10, 0, 1))


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., SimSiam]:
    def task(**options: Any) -> SimSiam:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return SimSiam(encoder, FACTS, **{"projection_dim": 12, "hidden_dim": 16, "bottleneck_dim": 6, **options})

    return task


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_the_distance_is_equation_1(seed: int) -> None:
    predictions, targets = vectors(seed), vectors(seed + 1)
    expected = [naive_distance(*pair) for pair in zip(predictions, targets, strict=True)]
    assert negative_cosine(predictions, targets).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_distance_is_lightlys() -> None:
    predictions, targets = vectors(1), vectors(2)
    torch.testing.assert_close(
        negative_cosine(predictions, targets).mean(), NegativeCosineSimilarity()(predictions, targets)
    )


@pytest.mark.parametrize(("degrees", "distance"), [(0, -1.0), (60, -0.5), (90, 0.0), (180, 1.0)])
def test_the_distance_depends_on_the_angle_alone(degrees: int, distance: float) -> None:
    angle = math.radians(degrees)
    prediction, target = torch.tensor([[3.0, 0.0]]), 0.2 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert negative_cosine(prediction, target).item() == pytest.approx(distance, abs=1e-6)


def test_targets_take_no_gradient() -> None:
    predictions, targets = vectors(1).requires_grad_(), vectors(2).requires_grad_()
    negative_cosine(predictions, targets).sum().backward()
    assert predictions.grad is not None
    assert targets.grad is None


def test_bfloat16_is_not_rounded_further() -> None:
    predictions, targets = vectors(1).bfloat16(), vectors(2).bfloat16()
    expected = negative_cosine(predictions.float(), targets.float())
    torch.testing.assert_close(negative_cosine(predictions, targets), expected, rtol=0, atol=0)


def test_the_loss_of_a_batch_is_equation_4(build: Callable[..., SimSiam]) -> None:
    task = build().eval()
    views = two_views()
    with torch.no_grad():
        embeddings = [task.projector(task.encoder(view)) for view in views]
        predictions = [task.predictor(embedding) for embedding in embeddings]
        loss = task(batch_of(views)).loss
    both = zip(predictions, reversed(embeddings), strict=True)
    distances = [naive_distance(*pair) for one_way in both for pair in zip(*one_way, strict=True)]
    assert loss.item() == pytest.approx(sum(distances) / 16, abs=1e-6)


def test_the_gradient_is_that_of_algorithm_1_with_constant_targets(build: Callable[..., SimSiam]) -> None:
    """Targets that were computed beforehand, so that nothing can flow through them, give the same gradient."""
    task = build()
    views = two_views()
    with torch.no_grad():
        targets = [task.projector(task.encoder(view)) for view in views]
    cosines = [
        nn.functional.cosine_similarity(task.predictor(task.projector(task.encoder(view))), target).mean()
        for view, target in zip(views, reversed(targets), strict=True)
    ]
    parameters = list(task.parameters())
    expected = torch.autograd.grad(-sum(cosines) / 2, parameters)
    for found, wanted in zip(torch.autograd.grad(task(batch_of(views)).loss, parameters), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_views_are_interchangeable(build: Callable[..., SimSiam]) -> None:
    views = two_views()
    torch.testing.assert_close(build()(batch_of(views)).loss, build()(batch_of(views[::-1])).loss)


def test_each_view_passes_the_network_on_its_own(build: Callable[..., SimSiam]) -> None:
    task, views = build(), two_views()
    seen: list[Tensor] = []
    task.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task(batch_of(views))
    assert len(seen) == 2
    assert all(torch.equal(*pair) for pair in zip(seen, views, strict=True))


def layers_of(head: nn.Module) -> list[tuple[str, int, int, bool] | str]:
    return [
        ("linear", layer.in_features, layer.out_features, layer.bias is not None)
        if isinstance(layer, nn.Linear)
        else type(layer).__name__
        for layer in head.children()
    ]


def test_the_projector_has_three_layers_each_normalized(build: Callable[..., SimSiam]) -> None:
    task = build()
    hidden = ["BatchNorm1d", "ReLU"]
    first, second, third = ("linear", 8, 16, False), ("linear", 16, 16, False), ("linear", 16, 12, False)
    assert layers_of(task.projector) == [first, *hidden, second, *hidden, third, "BatchNorm1d"]
    assert not list(task.projector[-1].parameters())


def test_the_predictor_is_a_bottleneck_with_a_bare_output(build: Callable[..., SimSiam]) -> None:
    assert layers_of(build().predictor) == [("linear", 12, 6, False), "BatchNorm1d", "ReLU", ("linear", 6, 12, True)]


def test_forward_moves_nothing_but_batch_norm(build: Callable[..., SimSiam]) -> None:
    task = build()
    before = copy.deepcopy(task.state_dict())
    task(batch_of(two_views()))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}
    assert task.moves == ()


def test_the_gradient_reaches_encoder_and_heads(build: Callable[..., SimSiam]) -> None:
    task = build()
    task(batch_of(two_views())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_spread_tells_a_collapse(build: Callable[..., SimSiam]) -> None:
    task = build()
    assert float(task(batch_of(two_views())).logs["spread"]) == pytest.approx(1, abs=0.3)
    task.projector[-1] = nn.Sequential()  # what normalizes the embeddings
    with torch.no_grad():
        task.projector[-2].weight.fill_(1)  # all embeddings have one direction
    assert float(task(batch_of(two_views())).logs["spread"]) < 1e-3


@pytest.mark.parametrize("option", ["projection_dim", "hidden_dim", "bottleneck_dim"])
def test_a_width_of_nothing_is_refused(build: Callable[..., SimSiam], option: str) -> None:
    with pytest.raises(
        ClvrBenchError, match=r"simsiam: projection_dim, .* must be at least 1, got .*0.*\. Typical: 2048"
    ):
        build(**{option: 0})


def test_the_loss_falls_within_a_few_steps(build: Callable[..., SimSiam]) -> None:
    task = build()
    views = two_views(pictures=16)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = task(batch_of(views)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0]) < 0.3  # predictions know nothing yet
    assert losses[-1] < losses[0] - 0.4
