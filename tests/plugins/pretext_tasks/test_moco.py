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
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.toolbox import SplitBatchNorm
from clvr_plugins.pretext_tasks.moco import MoCoV1, MoCoV2, contrast, info_nce

FACTS = DataFacts("image", train_size=64, image_size=8)


def naive_info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> float:
    """Equation 1 as it is printed, averaged over the queries."""
    q, k, n = (tensor.double().numpy() for tensor in (queries, keys, negatives))

    def loss(i: int) -> float:
        positive = math.exp(float(np.dot(q[i], k[i])) / temperature)
        total = positive + sum(math.exp(float(np.dot(q[i], row)) / temperature) for row in n)
        return -math.log(positive / total)

    return sum(loss(i) for i in range(len(q))) / len(q)


def unit_vectors(count: int, seed: int, dimensions: int = 6) -> Tensor:
    return F.normalize(torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)), dim=1)


def loss_of(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    return info_nce(contrast(queries, keys, negatives, temperature))


def two_views(pictures: int = 8, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor], index: Tensor | None = None, step: int = 0) -> Batch:
    index = torch.arange(len(views[0])) if index is None else index
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(step, 10, 0, 1))


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., MoCoV1]:
    def task(kind: type[MoCoV1] = MoCoV2, **options: Any) -> MoCoV1:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return kind(encoder, FACTS, **{"projection_dim": 6, "queue_size": 20, "batch_norm_splits": 2, **options})

    return task


def take_step(task: MoCoV1, batch: Batch, rate: float = 0.1) -> tuple[float, Tensor]:
    """One optimizer step as the harness takes it: the loss, and the keys that were kept."""
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=rate, momentum=0.9)
    output = task(batch)
    output.loss.backward()
    optimizer.step()
    task.zero_grad()
    with torch.no_grad():
        task.after_step(output.kept, batch.progress)
    return output.loss.item(), output.kept["keys"]


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize(("pictures", "negatives"), [(1, 1), (3, 7), (8, 20)])
def test_the_loss_is_equation_1(pictures: int, negatives: int, temperature: float) -> None:
    vectors = unit_vectors(pictures, 1), unit_vectors(pictures, 2), unit_vectors(negatives, 3)
    assert loss_of(*vectors, temperature).item() == pytest.approx(naive_info_nce(*vectors, temperature), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_the_loss_is_lightlys_with_the_queue_as_its_memory_bank(temperature: float) -> None:
    queries, keys, negatives = unit_vectors(5, 1), unit_vectors(5, 2), unit_vectors(16, 3)
    theirs = NTXentLoss(temperature, memory_bank_size=(16, 6))
    theirs.memory_bank.bank = negatives.clone()
    torch.testing.assert_close(loss_of(queries, keys, negatives, temperature), theirs(queries, keys))


@pytest.mark.parametrize("negatives", [1, 9, 64])
def test_equal_embeddings_leave_the_positive_to_chance(negatives: int) -> None:
    ones = F.normalize(torch.ones(4, 3), dim=1)
    expected = math.log(1 + negatives)
    assert loss_of(ones, ones, ones[:1].expand(negatives, 3), 0.07).item() == pytest.approx(expected, abs=1e-5)


def test_met_positives_and_orthogonal_negatives_have_the_closed_form() -> None:
    axes = torch.eye(6)
    loss = loss_of(axes[:2], axes[:2], axes[2:], 0.2)
    assert loss.item() == pytest.approx(math.log(1 + 4 * math.exp(-5)), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.07, 2))
def test_the_order_of_the_negatives_does_not_matter_and_one_more_only_adds(seed: int, temperature: float) -> None:
    queries, keys, negatives = unit_vectors(4, seed), unit_vectors(4, seed + 1), unit_vectors(9, seed + 2)
    loss = loss_of(queries, keys, negatives, temperature)
    torch.testing.assert_close(loss_of(queries, keys, negatives.flip(0), temperature), loss)
    assert loss_of(queries, keys, negatives[:-1], temperature) <= loss


def test_similarities_stay_in_float32_under_autocast() -> None:
    vectors = unit_vectors(4, 1), unit_vectors(4, 2), unit_vectors(9, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrast(*vectors, 0.07)
    assert torch.equal(inside, contrast(*vectors, 0.07))


@pytest.mark.parametrize("kind", [MoCoV1, MoCoV2])
def test_the_loss_of_a_batch_is_equation_1_of_query_key_and_queue(build: Callable[..., MoCoV1], kind: Any) -> None:
    task = build(kind).eval()
    first, second = two_views()
    with torch.no_grad():
        queries = F.normalize(task.head(task.encoder(first)), dim=1)
        keys = F.normalize(task.target(second), dim=1)
        output = task(batch_of([first, second]))
    expected = naive_info_nce(queries, keys, task.queue.embeddings, task.temperature)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(output.kept["keys"], keys)


def test_version_1_has_a_linear_head_and_version_2_a_hidden_layer_as_wide_as_the_feature(
    build: Callable[..., MoCoV1],
) -> None:
    assert isinstance(build(MoCoV1).head, nn.Linear)
    kinds = [(type(layer), getattr(layer, "out_features", None)) for layer in build(MoCoV2).head.children()]
    assert kinds == [(nn.Linear, 8), (nn.ReLU, None), (nn.Linear, 6)]


def test_the_versions_have_their_papers_temperatures() -> None:
    encoder: Any = nn.Conv2d(3, 4, 8)
    encoder.feature_dim = 4
    assert [kind(encoder, FACTS, queue_size=8).temperature for kind in (MoCoV1, MoCoV2)] == [0.07, 0.2]


def test_a_step_is_algorithm_1(build: Callable[..., MoCoV1]) -> None:
    task = build(target_momentum=0.9)
    queue, old = task.queue.embeddings.clone(), [p.clone() for p in task.target.parameters()]
    _, keys = take_step(task, batch_of(two_views()))
    trained = [*task.encoder.parameters(), *task.head.parameters()]
    for before, after, source in zip(old, task.target.parameters(), trained, strict=True):
        torch.testing.assert_close(after, 0.9 * before + 0.1 * source)
    assert torch.equal(task.queue.embeddings, torch.cat([keys, queue[8:]]))


def test_the_queue_keeps_the_keys_of_the_newest_pictures_in_order(build: Callable[..., MoCoV1]) -> None:
    task = build()  # 20 places for 3 times 8 keys
    first, second, third = (take_step(task, batch_of(two_views(seed=seed)))[1] for seed in range(3))
    assert torch.equal(task.queue.embeddings, torch.cat([third[4:], first[4:], second, third[:4]]))


def test_forward_moves_nothing_but_batch_norm(build: Callable[..., MoCoV1]) -> None:
    task = build()
    before = copy.deepcopy(task.state_dict())
    task(batch_of(two_views()))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}
    assert len(moved) == 6  # three of the encoder, three of the target


def test_a_batch_does_not_meet_its_own_keys_as_negatives(build: Callable[..., MoCoV1]) -> None:
    task = build()
    output = task(batch_of(two_views()))
    similarities = output.kept["keys"] @ task.queue.embeddings.T
    assert similarities.max() < 1 - 1e-4


def test_the_gradient_reaches_encoder_and_head_and_nothing_of_the_target(build: Callable[..., MoCoV1]) -> None:
    task = build()
    task(batch_of(two_views())).loss.backward()
    reached = {
        name for name, parameter in task.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == {name for name, _ in task.named_parameters() if not name.startswith("target")}
    assert reached == {name for name, parameter in task.named_parameters() if parameter.requires_grad}


def test_keys_are_normalized_in_shuffled_parts_and_come_back_in_order(build: Callable[..., MoCoV1]) -> None:
    task = build()
    batch = batch_of(two_views())
    seen: list[Tensor] = []
    task.target.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    keys = task(batch).kept["keys"]
    order = batch.random("shuffle").uniform().argsort()
    assert sorted(order.tolist()) == list(range(8))
    assert order.tolist() != list(range(8))
    assert torch.equal(seen[0], batch.views[1][order])
    target = build(batch_norm_splits=1).target
    for part, places in zip(seen[0].chunk(2), order.chunk(2), strict=True):
        torch.testing.assert_close(keys[places], F.normalize(target(part), dim=1))


def test_queries_are_normalized_in_parts_as_they_come(build: Callable[..., MoCoV1]) -> None:
    task, ordinary = build(), build(batch_norm_splits=1).encoder
    features: list[Tensor] = []
    task.encoder.register_forward_hook(lambda module, inputs, output: features.append(output))
    task(batch_of(two_views()))
    first = two_views()[0]
    torch.testing.assert_close(features[0], torch.cat([ordinary(part) for part in first.chunk(2)]))
    assert not torch.allclose(features[0], ordinary(first), atol=1e-3)


def test_one_split_is_ordinary_batch_norm(build: Callable[..., MoCoV1]) -> None:
    assert not any(isinstance(module, SplitBatchNorm) for module in build(batch_norm_splits=1).modules())


def test_the_loss_does_not_depend_on_the_order_of_the_batch(build: Callable[..., MoCoV1]) -> None:
    task = build().eval()
    views, order = two_views(), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    loss = task(batch_of(views)).loss
    torch.testing.assert_close(task(batch_of([view[order] for view in views], order)).loss, loss)


def test_contrastive_top1_is_the_percentage_of_queries_nearest_to_their_key(build: Callable[..., MoCoV1]) -> None:
    task = build().eval()
    views = two_views()
    with torch.no_grad():
        logits = contrast(
            F.normalize(task.head(task.encoder(views[0])), dim=1),
            F.normalize(task.target(views[1]), dim=1),
            task.queue.embeddings,
            1.0,
        )
    expected = 100 * sum(row.argmax().item() == 0 for row in logits) / 8
    assert float(task(batch_of(views)).logs["contrastive_top1"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"moco_v1: temperature must be positive, got 0\.0\. Typical: 0\.07 to 0\.2"),
        ({"target_momentum": 1.0}, r"moco_v1: target_momentum must be in \[0, 1\), got 1\.0\. Typical"),
        ({"target_momentum": -0.1}, r"moco_v1: target_momentum must be in \[0, 1\), got -0\.1"),
        (
            {"queue_size": 65},
            r"queue_size must be at least 1 and at most the 64 training .* got 65\. Set queue_size = 32",
        ),
        ({"queue_size": 0}, r"moco_v1: queue_size must be at least 1 .* got 0"),
        ({"batch_norm_splits": 0}, r"splits must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(build: Callable[..., MoCoV1], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(MoCoV1, **options)


def test_version_2_is_named_in_what_it_refuses(build: Callable[..., MoCoV1]) -> None:
    with pytest.raises(ClvrBenchError, match="moco_v2: temperature must be positive"):
        build(MoCoV2, temperature=-1.0)


@pytest.mark.parametrize(("train_size", "fitting"), [(1, 1), (3, 1), (4, 2), (3800, 1024), (50_000, 16_384)])
def test_the_queue_that_is_suggested_fits_at_least_twice(train_size: int, fitting: int) -> None:
    encoder: Any = nn.Conv2d(3, 4, 8)
    encoder.feature_dim = 4
    data = DataFacts("image", train_size=train_size, image_size=8)
    with pytest.raises(ClvrBenchError, match=rf"got 65536\. Set queue_size = {fitting}, say"):
        MoCoV1(encoder, data)
    MoCoV1(encoder, data, queue_size=fitting)


@pytest.mark.parametrize("kind", [MoCoV1, MoCoV2])
def test_the_loss_falls_within_a_few_steps(build: Callable[..., MoCoV1], kind: Any) -> None:
    task = build(kind, target_momentum=0.9)
    colors = torch.rand(3, 12, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(30):  # a batch comes back after the queue has forgotten its keys, or they would repel it
        views = [0.8 * colors[step % 3] + 0.2 * view for view in two_views(pictures=12, seed=step)]
        losses.append(take_step(task, batch_of(views))[0])
    assert sum(losses[-3:]) < 0.8 * max(sum(losses[start : start + 3]) for start in range(5))
