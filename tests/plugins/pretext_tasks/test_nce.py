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
from lightly.loss import NTXentLoss
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.nce import SingleNegative, another, nce, similarity

FACTS = DataFacts("image", train_size=64, image_size=8)


def naive_loss(query: Tensor, positive: Tensor, negative: Tensor, temperature: float) -> float:
    """The formula as it is printed, of one query and its two keys."""
    q, *keys = (vector.double().numpy() for vector in (query, positive, negative))
    to_positive, to_negative = (
        math.exp(float(q @ k / (np.linalg.norm(q) * np.linalg.norm(k))) / temperature) for k in keys
    )
    return -math.log(to_positive / (to_positive + to_negative))


def loss_of(queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    return nce(similarity(queries, positives) - similarity(queries, negatives), temperature)


def vectors(seed: int, count: int = 5) -> Tensor:
    return torch.randn(count, 7, generator=torch.Generator().manual_seed(seed))


def two_views(pictures: int = 8, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor], epoch: int = 0) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, epoch, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(0, 10, 0, 1))


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., SingleNegative]:
    def task(**options: Any) -> SingleNegative:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return SingleNegative(encoder, FACTS, **{"projection_dim": 6, **options})

    return task


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.05, 2))
def test_the_loss_is_the_formula(seed: int, temperature: float) -> None:
    triples = [vectors(seed + number) for number in range(3)]
    expected = [naive_loss(*triple, temperature) for triple in zip(*triples, strict=True)]
    assert loss_of(*triples, temperature).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_is_lightlys_with_one_negative_in_its_memory(temperature: float) -> None:
    queries, positives = vectors(1), vectors(2)
    theirs = NTXentLoss(temperature, memory_bank_size=(1, 7))
    negatives = theirs.memory_bank.bank.expand(5, -1)  # one for all
    torch.testing.assert_close(loss_of(queries, positives, negatives, temperature).mean(), theirs(queries, positives))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equal_keys_leave_it_to_chance(temperature: float) -> None:
    queries, keys = vectors(1), vectors(2)
    assert loss_of(queries, keys, keys, temperature).tolist() == pytest.approx([math.log(2)] * 5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_a_met_positive_and_an_orthogonal_negative_have_the_closed_form(temperature: float) -> None:
    axes = torch.eye(4)
    loss = loss_of(3 * axes, 0.1 * axes, axes.roll(1, dims=0), temperature)
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-1 / temperature))] * 4, rel=1e-4)


def test_a_positive_far_behind_has_a_finite_loss() -> None:
    assert nce(torch.tensor([-2.0]), 0.01).item() == pytest.approx(200)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), pictures=st.integers(2, 9))
def test_negatives_are_other_pictures_each_of_them_once(seed: int, pictures: int) -> None:
    places = another(torch.rand(pictures, generator=torch.Generator().manual_seed(seed))).tolist()
    assert sorted(places) == list(range(pictures))
    assert all(place != own for own, place in enumerate(places))


def test_a_negative_is_the_next_in_the_ring_of_draws() -> None:
    assert another(torch.tensor([0.5, 0.1, 0.9, 0.3])).tolist() == [2, 3, 1, 0]


def test_every_other_picture_is_a_negative_equally_often() -> None:
    draws = torch.rand(6000, 4, generator=torch.Generator().manual_seed(0))
    counts = torch.stack([another(draw) for draw in draws])[:, 0].bincount(minlength=4)
    assert counts[0] == 0
    assert counts[1:].tolist() == pytest.approx([2000] * 3, rel=0.06)  # 3.3 standard deviations


def test_the_order_of_the_pictures_does_not_matter(build: Callable[..., SingleNegative]) -> None:
    task, batch = build().eval(), batch_of(two_views())
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    random = SampleRandom.keyed(0, 0, order)
    permuted = Batch([view[order] for view in batch.views], order, batch.labels, random, batch.progress)
    torch.testing.assert_close(task(permuted).loss, task(batch).loss)


def test_the_loss_of_a_batch_is_the_formula_of_first_views_against_two_second_ones(
    build: Callable[..., SingleNegative],
) -> None:
    task, batch = build(temperature=0.5).eval(), batch_of(two_views())
    with torch.no_grad():
        queries, keys = (task.projector(task.encoder(view)) for view in batch.views)
        output = task(batch)
    places = another(batch.random("negative").uniform())
    expected = [naive_loss(queries[i], keys[i], keys[places[i]], 0.5) for i in range(8)]
    assert output.loss.item() == pytest.approx(sum(expected) / 8, abs=1e-5)
    won = [loss < math.log(2) for loss in expected]
    assert float(output.logs["contrastive_top1"]) == pytest.approx(100 * sum(won) / 8)


def test_negatives_are_drawn_anew_each_epoch(build: Callable[..., SingleNegative]) -> None:
    task, views = build().eval(), two_views()
    assert task(batch_of(views)).loss == task(batch_of(views)).loss
    assert task(batch_of(views)).loss != task(batch_of(views, epoch=1)).loss


def test_both_views_pass_the_encoder_in_one_batch(build: Callable[..., SingleNegative]) -> None:
    task, views = build(), two_views()
    seen: list[Tensor] = []
    task.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task(batch_of(views))
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.cat(views))


def test_the_projector_is_simclrs(build: Callable[..., SingleNegative]) -> None:
    projector = build().projector
    assert [type(layer) for layer in projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [tuple(projector[place].weight.shape) for place in (0, 3)] == [(8, 8), (6, 8)]


def test_autocast_rounds_embeddings_but_no_similarity() -> None:
    first, second = (vectors(seed).to(torch.bfloat16) for seed in (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        cast = similarity(first, second)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, similarity(first.float(), second.float()), rtol=0, atol=0)


def test_forward_moves_nothing_but_batch_norm(build: Callable[..., SingleNegative]) -> None:
    task = build()
    before = copy.deepcopy(task.state_dict())
    task(batch_of(two_views()))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}
    assert task.moves == ()


def test_the_gradient_reaches_encoder_and_projector(build: Callable[..., SingleNegative]) -> None:
    task = build()
    task(batch_of(two_views())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_gradient_reaches_queries_and_both_keys() -> None:
    triples = [vectors(seed).requires_grad_() for seed in range(3)]
    loss_of(*triples, 0.5).sum().backward()
    assert all(vector.grad is not None and vector.grad.any(dim=1).all() for vector in triples)


@pytest.mark.parametrize("temperature", [0.0, -0.5])
def test_a_temperature_that_is_not_positive_is_refused(
    build: Callable[..., SingleNegative], temperature: float
) -> None:
    with pytest.raises(ClvrBenchError, match=rf"nce: temperature must be positive, got {temperature}\. Typical"):
        build(temperature=temperature)


def test_a_batch_without_another_picture_is_refused(build: Callable[..., SingleNegative]) -> None:
    with pytest.raises(ClvrBenchError, match=r"nce: a batch of one picture has no other .* --batch-size 2"):
        build()(batch_of(two_views(pictures=1)))


def test_the_loss_falls_within_a_few_steps(build: Callable[..., SingleNegative]) -> None:
    task = build(temperature=0.5)
    colors = torch.rand(12, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for step in range(60):
        views = [0.8 * colors + 0.2 * view for view in two_views(pictures=12, seed=step)]
        loss = task(batch_of(views, epoch=step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
