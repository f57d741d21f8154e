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
from lightly.loss import VICRegLoss
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.vicreg import VICReg, covariance, invariance, variance

FACTS = DataFacts("image", train_size=64, image_size=8)
AXES = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
"""Four embeddings whose three dimensions are centred, uncorrelated and of variance 4/3."""


def naive_variance(embeddings: Tensor) -> float:
    """Equations 1 and 2 as they are printed, gamma 1 and epsilon 1e-4, the variance unbiased as in algorithm 1."""
    z = embeddings.double().numpy()
    count, dimensions = z.shape
    total = 0.0
    for j in range(dimensions):
        mean = sum(z[:, j]) / count
        deviation = math.sqrt(sum((z[i, j] - mean) ** 2 for i in range(count)) / (count - 1) + 1e-4)
        total += max(0.0, 1 - deviation)
    return total / dimensions


def naive_covariance(embeddings: Tensor) -> float:
    """Equations 3 and 4 as they are printed."""
    z = embeddings.double().numpy()
    count, dimensions = z.shape
    mean = sum(z) / count
    matrix = sum(np.outer(row - mean, row - mean) for row in z) / (count - 1)
    return float(sum(matrix[i, j] ** 2 for i in range(dimensions) for j in range(dimensions) if i != j) / dimensions)


def naive_invariance(first: Tensor, second: Tensor) -> float:
    """Equation 5 as it is printed."""
    pairs = zip(first.double().numpy(), second.double().numpy(), strict=True)
    return float(sum(np.linalg.norm(a - b) ** 2 for a, b in pairs) / len(first))


def naive_loss(first: Tensor, second: Tensor, weights: tuple[float, float, float]) -> float:
    """Equation 6, with s divided by the dimensions as in algorithm 1."""
    terms = (
        naive_invariance(first, second) / first.shape[1],
        naive_variance(first) + naive_variance(second),
        naive_covariance(first) + naive_covariance(second),
    )
    return sum(weight * term for weight, term in zip(weights, terms, strict=True))


def embeddings(seed: int, count: int = 6, dimensions: int = 4, scale: float = 1.0) -> Tensor:
    return 3 + scale * torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def two_views(pictures: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor]) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(0, 10, 0, 1))


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., VICReg]:
    def task(**options: Any) -> VICReg:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return VICReg(encoder, FACTS, **{"projection_dim": 6, "hidden_dim": 16, **options})

    return task


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), count=st.integers(2, 7), dimensions=st.integers(1, 6), scale=st.floats(0.1, 2))
def test_the_terms_are_equations_1_to_5(seed: int, count: int, dimensions: int, scale: float) -> None:
    first, second = (embeddings(number, count, dimensions, scale) for number in (seed, seed + 1))
    assert variance(first).item() == pytest.approx(naive_variance(first), abs=1e-5)
    assert covariance(first).item() == pytest.approx(naive_covariance(first), rel=1e-4, abs=1e-6)
    assert dimensions * invariance(first, second).item() == pytest.approx(naive_invariance(first, second), rel=1e-4)


@pytest.mark.parametrize("deviation", [0.0, 0.3, 0.9, 1.0, 2.0])
def test_the_variance_term_is_what_a_deviation_lacks_to_1(deviation: float) -> None:
    scaled = deviation * math.sqrt(3 / 4) * AXES
    expected = max(0.0, 1 - math.sqrt(deviation**2 + 1e-4))
    assert variance(scaled).item() == pytest.approx(expected, abs=1e-6)


def test_the_variance_term_has_a_finite_gradient_where_all_are_one() -> None:
    collapsed = torch.ones(4, 3, requires_grad=True)
    loss = variance(collapsed)
    assert loss.item() == pytest.approx(0.99)  # epsilon is 0.01 squared
    assert torch.autograd.grad(loss, collapsed)[0].isfinite().all()


def test_uncorrelated_dimensions_have_no_covariance() -> None:
    assert covariance(AXES).item() == pytest.approx(0, abs=1e-10)
    assert covariance(5 * AXES + 2).item() == pytest.approx(0, abs=1e-6)


def test_copies_of_one_dimension_have_its_variance_for_covariance() -> None:
    copies = AXES[:, :1].expand(4, 5)
    assert covariance(copies).item() == pytest.approx((5 * 4) * (4 / 3) ** 2 / 5)


def test_the_invariance_is_the_mean_squared_difference() -> None:
    assert invariance(AXES, AXES).item() == 0
    assert invariance(AXES, -AXES).item() == 4


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 3.0)])
def test_the_loss_of_a_batch_is_equation_6(build: Callable[..., VICReg], weights: tuple[float, float, float]) -> None:
    names = ("invariance_weight", "variance_weight", "covariance_weight")
    task = build(**dict(zip(names, weights, strict=True))).eval()
    views = two_views()
    with torch.no_grad():
        first, second = (task.projector(task.encoder(view)) for view in views)
        loss = task(batch_of(views)).loss
    assert loss.item() == pytest.approx(naive_loss(first, second, weights), rel=1e-4)


def test_the_loss_and_its_gradient_are_lightlys_with_twice_the_variance(build: Callable[..., VICReg]) -> None:
    """Theirs follows the authors' code, which takes the mean of both views' variance terms."""
    task, views = build(), two_views()
    embedded = [task.projector(task.encoder(view)) for view in views]
    theirs = VICRegLoss(lambda_param=25.0, mu_param=2 * 25.0, nu_param=1.0)(*embedded)
    ours = task(batch_of(views)).loss
    torch.testing.assert_close(ours, theirs)
    parameters = list(task.parameters())
    torch.testing.assert_close(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters))


def test_the_terms_are_logged(build: Callable[..., VICReg]) -> None:
    with torch.no_grad():
        output = build()(batch_of(two_views()))
    terms = (output.logs[name] for name in ("invariance", "variance", "covariance"))
    weighted = sum(weight * float(term) for weight, term in zip((25, 25, 1), terms, strict=True))
    assert output.loss.item() == pytest.approx(weighted)


def test_the_views_are_interchangeable(build: Callable[..., VICReg]) -> None:
    views = two_views()
    torch.testing.assert_close(build()(batch_of(views)).loss, build()(batch_of(views[::-1])).loss)


def test_autocast_rounds_embeddings_but_no_term(build: Callable[..., VICReg]) -> None:
    task = build().eval()
    views = two_views()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        first, second = (task.projector(task.encoder(view)) for view in views)
        loss = task(batch_of(views)).loss
    assert first.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(naive_loss(first, second, (25, 25, 1)), rel=1e-5)


def test_each_view_passes_the_network_on_its_own(build: Callable[..., VICReg]) -> None:
    task, views = build(), two_views()
    seen: list[Tensor] = []
    task.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task(batch_of(views))
    assert len(seen) == 2
    assert all(torch.equal(*pair) for pair in zip(seen, views, strict=True))


def test_the_projector_has_three_layers_the_last_of_them_bare(build: Callable[..., VICReg]) -> None:
    projector = build().projector
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in projector] == [*block, *block, nn.Linear]
    linear = [layer for layer in projector if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(8, 16), (16, 16), (16, 6)]
    assert [layer.bias for layer in linear] == [None, None, None]


def test_forward_moves_nothing_but_batch_norm(build: Callable[..., VICReg]) -> None:
    task = build()
    before = copy.deepcopy(task.state_dict())
    task(batch_of(two_views()))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}
    assert task.moves == ()


@pytest.mark.parametrize("only", ["invariance_weight", "variance_weight", "covariance_weight"])
def test_the_gradient_of_each_term_reaches_encoder_and_projector(build: Callable[..., VICReg], only: str) -> None:
    weights = dict.fromkeys(("invariance_weight", "variance_weight", "covariance_weight"), 0.0)
    task = build(**{**weights, only: 1.0})
    task(batch_of(two_views())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("projection_dim", 0, "must be at least 1, got 0 and 16"),
        ("hidden_dim", -1, "must be at least 1, got 6 and -1"),
        ("invariance_weight", -1.0, r"must not be negative, got -1\.0, 25\.0 and 1\.0"),
        ("variance_weight", -1.0, r"must not be negative, got 25\.0, -1\.0 and 1\.0"),
        ("covariance_weight", -0.1, r"must not be negative, got 25\.0, 25\.0 and -0\.1"),
    ],
)
def test_an_option_out_of_its_range_is_refused(
    build: Callable[..., VICReg], option: str, value: float, message: str
) -> None:
    with pytest.raises(ClvrBenchError, match=rf"vicreg: .*{option}.* {message}\. The paper's"):
        build(**{option: value})


def test_the_loss_falls_within_a_few_steps(build: Callable[..., VICReg]) -> None:
    task = build()
    views = two_views(pictures=16)
    views[1] = (views[0] + 0.1 * views[1]).clamp(max=1)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = task(batch_of(views)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
