from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import BarlowTwinsLoss
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, Recipe, SampleRandom
from clvr_bench.optimization import build_optimizer, build_schedule
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.barlow_twins import BarlowTwins, cross_correlation, invariance, redundancy

FACTS = DataFacts("image", train_size=64, image_size=8)
AXES = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
"""Four embeddings whose three dimensions are centred and uncorrelated."""


def naive_correlation(first: Tensor, second: Tensor) -> list[list[float]]:
    """Equation 2 as it is printed, of embeddings that are centred first, one entry at a time."""
    a, b = (view.double().numpy() - view.double().numpy().mean(axis=0) for view in (first, second))
    dimensions = range(a.shape[1])

    def entry(i: int, j: int) -> float:
        numerator = sum(a[sample, i] * b[sample, j] for sample in range(len(a)))
        lengths = np.sqrt(sum(a[:, i] ** 2)) * np.sqrt(sum(b[:, j] ** 2))
        return float(numerator / lengths)

    return [[entry(i, j) for j in dimensions] for i in dimensions]


def naive_loss(first: Tensor, second: Tensor, weight: float) -> float:
    """Equation 1 as it is printed."""
    c = naive_correlation(first, second)
    dimensions = range(len(c))
    on_diagonal = sum((1 - c[i][i]) ** 2 for i in dimensions)
    return on_diagonal + weight * sum(c[i][j] ** 2 for i in dimensions for j in dimensions if j != i)


def loss_of(first: Tensor, second: Tensor, weight: float) -> Tensor:
    correlation = cross_correlation(first, second)
    return invariance(correlation) + weight * redundancy(correlation)


def embeddings(seed: int, count: int = 6, dimensions: int = 4) -> Tensor:
    """Random ones, so large that 1e-5 is nothing beside their variance."""
    return 3 + 20 * torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def two_views(pictures: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor]) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(0, 10, 0, 1))


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., BarlowTwins]:
    def task(**options: Any) -> BarlowTwins:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return BarlowTwins(encoder, FACTS, **{"projection_dim": 6, "hidden_dim": 16, **options})

    return task


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), dimensions=st.integers(1, 6))
def test_the_correlation_is_equation_2(seed: int, dimensions: int) -> None:
    views = embeddings(seed, dimensions=dimensions), embeddings(seed + 1, dimensions=dimensions)
    expected = torch.tensor(naive_correlation(*views))
    torch.testing.assert_close(cross_correlation(*views), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.005, 1.0])
@pytest.mark.parametrize(("count", "dimensions"), [(2, 3), (5, 1), (7, 16)])
def test_the_loss_is_equation_1(count: int, dimensions: int, weight: float) -> None:
    views = embeddings(1, count, dimensions), embeddings(2, count, dimensions)
    assert loss_of(*views, weight).item() == pytest.approx(naive_loss(*views, weight), rel=1e-4)


@pytest.mark.parametrize("weight", [0.005, 0.3])
def test_the_loss_and_its_gradient_are_lightlys(weight: float) -> None:
    views = [embeddings(seed, 9, 12).requires_grad_() for seed in (1, 2)]
    ours, theirs = loss_of(*views, weight), BarlowTwinsLoss(lambda_param=weight)(*views)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, views), torch.autograd.grad(theirs, views))


def test_views_that_agree_in_uncorrelated_dimensions_have_no_loss() -> None:
    torch.testing.assert_close(cross_correlation(AXES, AXES), torch.eye(3), rtol=0, atol=1e-4)
    assert loss_of(AXES, AXES, 1.0).item() == pytest.approx(0, abs=1e-6)


def test_opposite_views_lose_four_a_dimension() -> None:
    assert loss_of(AXES, -AXES, 1.0).item() == pytest.approx(3 * 4, rel=1e-4)


def test_dimensions_that_all_agree_lose_lambda_for_every_pair() -> None:
    copies = AXES[:, :1].expand(4, 5)
    assert loss_of(copies, copies, 0.1).item() == pytest.approx(0.1 * 5 * 4, rel=1e-4)


def test_embeddings_of_one_value_lose_one_a_dimension_with_a_finite_gradient() -> None:
    dead = torch.ones(4, 3, requires_grad=True)
    loss = loss_of(dead, AXES, 1.0)
    assert loss.item() == pytest.approx(3)
    assert torch.autograd.grad(loss, dead)[0].isfinite().all()


def test_a_row_of_the_correlation_is_a_dimension_of_the_first_view() -> None:
    swapped = AXES[:, [1, 2, 0]]
    expected = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(cross_correlation(AXES, swapped), expected, rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 100), shift=st.floats(-10, 10))
def test_scale_and_shift_of_a_dimension_do_not_matter(seed: int, scale: float, shift: float) -> None:
    first, second = embeddings(seed, 20), embeddings(seed + 1, 20)
    moved = torch.cat([scale * first[:, :1] + shift, first[:, 1:]], dim=1)
    torch.testing.assert_close(loss_of(moved, second, 0.1), loss_of(first, second, 0.1), rtol=1e-4, atol=1e-4)


def test_autocast_does_not_round_the_correlation() -> None:
    views = [embeddings(seed, 64, 8).bfloat16() for seed in (1, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        cast = cross_correlation(*views)
    torch.testing.assert_close(cast, cross_correlation(*(view.float() for view in views)), rtol=0, atol=0)


def test_the_loss_of_a_batch_is_equation_1_of_the_embeddings(build: Callable[..., BarlowTwins]) -> None:
    task = build(redundancy_weight=0.2).eval()
    views = two_views()
    with torch.no_grad():
        first, second = (task.projector(task.encoder(view)) for view in views)
        output = task(batch_of(views))
    assert output.loss.item() == pytest.approx(loss_of(first, second, 0.2).item())
    torch.testing.assert_close(output.logs["correlation"], cross_correlation(first, second).diagonal().mean())


def test_each_view_passes_the_network_on_its_own(build: Callable[..., BarlowTwins]) -> None:
    task, views = build(), two_views()
    seen: list[Tensor] = []
    task.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task(batch_of(views))
    assert len(seen) == 2
    assert all(torch.equal(*pair) for pair in zip(seen, views, strict=True))


def test_the_projector_has_three_layers_the_last_of_them_bare(build: Callable[..., BarlowTwins]) -> None:
    projector = build().projector
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in projector] == [*block, *block, nn.Linear]
    linear = [layer for layer in projector if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(8, 16), (16, 16), (16, 6)]
    assert [layer.bias for layer in linear] == [None, None, None]


def test_biases_and_batch_norm_have_a_rate_of_their_own(build: Callable[..., BarlowTwins]) -> None:
    task = build(bias_rate=0.25)
    recipe = Recipe(optimizer="lars", learning_rate=0.4, scaling="none", weight_decay=0.1, warmup=0.5)
    optimizer = build_optimizer(task.parameter_groups("train"), recipe, batch_size=4)
    build_schedule(optimizer, recipe, total_steps=10).step_update(5)
    settings_of = {p: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert settings_of == {p: (0.4, 0.1) if p.ndim > 1 else (0.1, 0.0) for p in task.parameters()}


def test_the_paper_has_a_rate_of_0_0048_for_biases(build: Callable[..., BarlowTwins]) -> None:
    assert build().bias_rate * BarlowTwins.recipe.learning_rate == pytest.approx(0.0048)


def test_forward_moves_nothing_but_batch_norm(build: Callable[..., BarlowTwins]) -> None:
    task = build()
    before = copy.deepcopy(task.state_dict())
    task(batch_of(two_views()))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}
    assert task.moves == ()


def test_the_gradient_reaches_encoder_and_projector(build: Callable[..., BarlowTwins]) -> None:
    task = build()
    task(batch_of(two_views())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("projection_dim", 0, r"must be at least 1, got 0 and 16\. The paper's"),
        ("hidden_dim", -1, r"must be at least 1, got 6 and -1\. The paper's"),
        ("redundancy_weight", -0.1, r"must not be negative, got -0\.1 and 0\.024\. Typical: 0\.005"),
        ("bias_rate", -1.0, r"must not be negative, got 0\.005 and -1\.0\. Typical: 0\.005"),
    ],
)
def test_an_option_out_of_its_range_is_refused(
    build: Callable[..., BarlowTwins], option: str, value: float, message: str
) -> None:
    with pytest.raises(ClvrBenchError, match=rf"barlow_twins: .*{option}.* {message}"):
        build(**{option: value})


def test_the_loss_falls_within_a_few_steps(build: Callable[..., BarlowTwins]) -> None:
    task = build(redundancy_weight=0.05)
    views = two_views(pictures=16)
    views[1] = (views[0] + 0.1 * views[1]).clamp(max=1)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = task(batch_of(views)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
