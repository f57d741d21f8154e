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
from lightly.models.modules import NNCLRPredictionHead, NNCLRProjectionHead, NNMemoryBankModule
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.nnclr import (
    NNCLR,
    build_projector,
    nearest,
    own_percentage,
    similarities,
    symmetric_info_nce,
)

FACTS = DataFacts("image", train_size=64, image_size=8)


def naive_nearest(embeddings: Tensor, support: Tensor) -> Tensor:
    """Equation 4 as it is printed, on vectors of length 1."""
    z, q = embeddings.double().numpy(), support.double().numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return support[[int(np.argmin([np.linalg.norm(row - other) for other in q])) for row in z]]


def naive_loss(neighbours: Tensor, predictions: Tensor, temperature: float) -> float:
    """Equation 3 with p for z+, and its symmetric term, as they are printed; their mean over the batch."""
    n, p = neighbours.double().numpy(), predictions.double().numpy()
    p = p / np.linalg.norm(p, axis=1, keepdims=True)
    pictures = range(len(n))

    def match(i: int, k: int) -> float:
        return math.exp(float(n[i] @ p[k]) / temperature)

    def one_way(i: int) -> float:
        return -math.log(match(i, i) / sum(match(i, k) for k in pictures))

    def other_way(i: int) -> float:
        return -math.log(match(i, i) / sum(match(k, i) for k in pictures))

    return sum(one_way(i) + other_way(i) for i in pictures) / (2 * len(n))


def loss_of(neighbours: Tensor, predictions: Tensor, temperature: float) -> Tensor:
    return symmetric_info_nce(similarities(neighbours, predictions, temperature))


def vectors(count: int, seed: int, dimensions: int = 6) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def unit_vectors(count: int, seed: int) -> Tensor:
    return F.normalize(vectors(count, seed), dim=1)


def two_views(pictures: int = 8, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor], step: int = 0) -> Batch:
    index = torch.arange(len(views[0]))
    return Batch(views, index, torch.full_like(index, -1), SampleRandom.keyed(0, 0, index), Progress(step, 100, 0, 1))


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., NNCLR]:
    def task(**options: Any) -> NNCLR:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        small = {"projection_dim": 6, "hidden_dim": 16, "predictor_dim": 12, "queue_size": 20}
        return NNCLR(encoder, FACTS, **{**small, **options})

    return task


def take_step(task: NNCLR, batch: Batch, rate: float = 0.1) -> tuple[float, Tensor]:
    """One optimizer step as the harness takes it: the loss, and the embeddings that were kept."""
    optimizer = torch.optim.SGD(task.parameters(), lr=rate)
    output = task(batch)
    output.loss.backward()
    optimizer.step()
    task.zero_grad()
    with torch.no_grad():
        task.after_step(output.kept, batch.progress)
    return output.loss.item(), output.kept["embeddings"]


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("pictures", [1, 2, 7])
def test_the_loss_is_equation_3_and_its_symmetric_term(pictures: int, temperature: float) -> None:
    neighbours, predictions = unit_vectors(pictures, 1), vectors(pictures, 2)
    expected = naive_loss(neighbours, predictions, temperature)
    assert loss_of(neighbours, predictions, temperature).item() == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_neighbours_are_those_of_equation_4_however_long_an_embedding(seed: int, scale: float) -> None:
    embeddings, support = vectors(5, seed), unit_vectors(9, seed + 1)
    assert torch.equal(nearest(scale * embeddings, support), naive_nearest(embeddings, support))


def test_neighbours_are_lightlys() -> None:
    embeddings, support = vectors(5, 1), unit_vectors(16, 2)
    theirs = NNMemoryBankModule(size=(16, 6))
    theirs.bank = support.clone()
    torch.testing.assert_close(nearest(embeddings, support), theirs(embeddings))


@pytest.mark.parametrize("pictures", [2, 5, 32])
def test_equal_vectors_leave_the_match_to_chance(pictures: int) -> None:
    ones = F.normalize(torch.ones(pictures, 4), dim=1)
    assert loss_of(ones, ones, 0.1).item() == pytest.approx(math.log(pictures), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_met_neighbours_of_orthogonal_pictures_have_the_closed_form(temperature: float) -> None:
    expected = math.log(1 + 5 * math.exp(-1 / temperature))
    assert loss_of(torch.eye(6), 3 * torch.eye(6), temperature).item() == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.1, 2))
def test_the_order_of_the_pictures_does_not_matter(seed: int, temperature: float) -> None:
    neighbours, predictions = unit_vectors(6, seed), vectors(6, seed + 1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        loss_of(neighbours[order], predictions[order], temperature),
        loss_of(neighbours, predictions, temperature),
        rtol=1e-4,
        atol=1e-5,
    )


def test_similarities_and_neighbours_stay_in_float32_under_autocast() -> None:
    neighbours, predictions = unit_vectors(64, 1), vectors(64, 2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarities(neighbours, predictions, 0.1), nearest(predictions, neighbours)
    assert torch.equal(inside[0], similarities(neighbours, predictions, 0.1))
    assert torch.equal(inside[1], nearest(predictions, neighbours))


def test_the_loss_of_a_batch_pairs_neighbours_of_each_view_with_predictions_of_the_other(
    build: Callable[..., NNCLR],
) -> None:
    task = build(temperature=0.2).eval()
    views = two_views()
    with torch.no_grad():
        embeddings = [task.projector(task.encoder(view)) for view in views]
        predictions = [task.predictor(embedding) for embedding in embeddings]
        output = task(batch_of(views))
    neighbours = [naive_nearest(embedding, task.queue.embeddings) for embedding in embeddings]
    ways = zip(neighbours, reversed(predictions), strict=True)
    assert output.loss.item() == pytest.approx(sum(naive_loss(*way, 0.2) for way in ways) / 2, abs=1e-5)
    torch.testing.assert_close(output.kept["embeddings"], F.normalize(embeddings[0], dim=1))


def test_the_views_are_interchangeable_but_for_what_is_kept(build: Callable[..., NNCLR]) -> None:
    task, views = build(), two_views()
    one, other = task(batch_of(views)), task(batch_of(views[::-1]))
    torch.testing.assert_close(one.loss, other.loss)
    assert not torch.allclose(one.kept["embeddings"], other.kept["embeddings"])


def test_each_view_passes_the_encoder_on_its_own(build: Callable[..., NNCLR]) -> None:
    task, views = build(), two_views()
    seen: list[Tensor] = []
    task.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task(batch_of(views))
    assert len(seen) == 2
    assert all(torch.equal(*pair) for pair in zip(seen, views, strict=True))


def shapes(head: nn.Module) -> list[tuple[str, Any]]:
    """Kinds and widths of a head's layers."""
    leaves = [layer for layer in head.modules() if not list(layer.children())]
    return [(type(layer).__name__, tuple(layer.weight.shape) if hasattr(layer, "weight") else None) for layer in leaves]


def test_the_heads_are_lightlys(build: Callable[..., NNCLR]) -> None:
    assert shapes(build_projector(8, 16, 6)) == shapes(NNCLRProjectionHead(8, 16, 6))
    assert shapes(build().projector) == shapes(NNCLRProjectionHead(8, 16, 6))
    assert shapes(build().predictor) == shapes(NNCLRPredictionHead(6, 12, 6))


def test_the_queue_keeps_the_newest_first_views_in_order(build: Callable[..., NNCLR]) -> None:
    task = build()  # 20 places for 3 times 8 embeddings
    first, second, third = (take_step(task, batch_of(two_views(seed=seed)))[1] for seed in range(3))
    assert torch.equal(task.queue.embeddings, torch.cat([third[4:], first[4:], second, third[:4]]))


def test_a_batch_joins_the_queue_after_it_looked_for_neighbours(build: Callable[..., NNCLR]) -> None:
    task = build(queue_size=8).eval()
    batch = batch_of(two_views())
    before = task.queue.embeddings.clone()
    output = task(batch)
    assert torch.equal(task.queue.embeddings, before)
    task.after_step(output.kept, batch.progress)
    assert torch.equal(task.queue.embeddings, output.kept["embeddings"])
    assert task(batch).loss != output.loss


def test_forward_moves_nothing_but_batch_norm(build: Callable[..., NNCLR]) -> None:
    task = build()
    before = copy.deepcopy(task.state_dict())
    task(batch_of(two_views()))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}


def test_after_step_moves_the_queue_and_nothing_else(build: Callable[..., NNCLR]) -> None:
    task, batch = build(), batch_of(two_views())
    output = task(batch)
    before = copy.deepcopy(task.state_dict())
    task.after_step(output.kept, batch.progress)
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {"queue.embeddings", "queue.pushed"}
    assert task.moves == ("queue",)


def test_the_gradient_reaches_every_parameter(build: Callable[..., NNCLR]) -> None:
    task = build()
    task(batch_of(two_views())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_neighbours_take_no_gradient_and_neither_does_what_is_kept(build: Callable[..., NNCLR]) -> None:
    embeddings, support = vectors(4, 1).requires_grad_(), unit_vectors(9, 2).requires_grad_()
    assert not nearest(embeddings, support).requires_grad
    assert not build()(batch_of(two_views())).kept["embeddings"].requires_grad


def test_contrastive_top1_is_the_percentage_of_neighbours_nearest_to_their_own_prediction(
    build: Callable[..., NNCLR],
) -> None:
    exponents = torch.tensor([[0.9, 0.1, 0.3], [0.8, 0.2, 0.1], [0.1, 0.2, 0.4]])
    assert own_percentage(exponents).item() == pytest.approx(100 * 2 / 3)
    task = build(queue_size=8).eval()
    task.predictor = nn.Sequential()
    views = two_views()[:1] * 2
    assert float(task(batch_of(views)).logs["contrastive_top1"]) < 100
    task.after_step(task(batch_of(views)).kept, batch_of(views).progress)  # each is now its own neighbour
    assert float(task(batch_of(views)).logs["contrastive_top1"]) == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"nnclr: temperature must be positive, got 0\.0\. Typical: 0\.1 to 0\.2"),
        ({"queue_size": 0}, r"nnclr: queue_size must be at least 1 .* got 0\. Set queue_size = 32, say"),
        ({"queue_size": 65}, r"nnclr: queue_size must be .* at most the 64 training .* got 65\. Set queue_size = 32"),
    ],
)
def test_bad_options_are_refused(build: Callable[..., NNCLR], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**options)


def test_the_loss_falls_within_a_few_steps(build: Callable[..., NNCLR]) -> None:
    task = build()
    colors = torch.rand(12, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(40):
        views = [0.8 * colors + 0.2 * view for view in two_views(pictures=12, seed=step)]
        losses.append(take_step(task, batch_of(views, step), rate=0.3)[0])
    assert sum(losses[-3:]) < 0.8 * max(sum(losses[start : start + 3]) for start in range(5))
