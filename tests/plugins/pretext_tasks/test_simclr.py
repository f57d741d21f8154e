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
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.toolbox import view_similarities
from clvr_plugins.pretext_tasks.simclr import (
    SimCLR,
    SimCLRV2,
    build_projector,
    memory_similarities,
    nt_xent,
    positive_index,
)

FACTS = DataFacts("image", train_size=64, image_size=8)


class Flat(nn.Module):
    """An encoder stand-in: a picture's pixels are its feature. It remembers what it was given."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images.flatten(1)


def naive_nt_xent(embeddings: Tensor, temperature: float) -> float:
    """Equation 1 as it is printed: l(i, j), averaged over both orders of all positive pairs."""
    z = embeddings.double().numpy()
    count = len(z)

    def sim(i: int, k: int) -> float:
        return float(z[i] @ z[k] / (np.linalg.norm(z[i]) * np.linalg.norm(z[k])))

    def loss(i: int, j: int) -> float:
        denominator = sum(math.exp(sim(i, k) / temperature) for k in range(count) if k != i)
        return -math.log(math.exp(sim(i, j) / temperature) / denominator)

    half = count // 2
    return sum(loss(k, k + half) + loss(k + half, k) for k in range(half)) / count


def naive_against_memory(embeddings: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> float:
    """Equation 1 with the memory network's embedding in every place of z_j and z_k, and with the queue's as z_k too."""
    z, m, q = (tensor.double().numpy() for tensor in (embeddings, keys, queue))
    count, half = len(z), len(z) // 2

    def sim(one: Any, other: Any) -> float:
        return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))

    def loss(i: int, j: int) -> float:
        others = [m[k] for k in range(count) if k != i] + list(q)
        denominator = sum(math.exp(sim(z[i], other) / temperature) for other in others)
        return -math.log(math.exp(sim(z[i], m[j]) / temperature) / denominator)

    return sum(loss(k, k + half) + loss(k + half, k) for k in range(half)) / count


def loss_of(embeddings: Tensor, temperature: float) -> Tensor:
    return nt_xent(view_similarities(embeddings, temperature))


def random_embeddings(pictures: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(2 * pictures, dimensions, generator=torch.Generator().manual_seed(seed))


def batch_of(views: list[Tensor]) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def unit_vectors(count: int, seed: int, dimensions: int = 6) -> Tensor:
    return F.normalize(torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)), dim=1)


def two_views(pictures: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


@pytest.fixture
def task(plugins: Plugins) -> SimCLR:
    torch.manual_seed(0)
    encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
    encoder.feature_dim = 8
    return SimCLR(encoder, FACTS, projection_dim=6, temperature=0.5)


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., SimCLRV2]:
    def task(**options: Any) -> SimCLRV2:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return SimCLRV2(encoder, FACTS, **{"projection_dim": 6, "queue_size": 20, **options})

    return task


def memory_network(task: SimCLRV2) -> nn.Module:
    assert task.target is not None
    return task.target


def take_step(task: SimCLRV2, batch: Batch, rate: float = 0.1) -> tuple[float, Tensor]:
    """One optimizer step as the harness takes it: the loss, and the keys that were kept."""
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=rate)
    output = task(batch)
    output.loss.backward()
    optimizer.step()
    task.zero_grad()
    with torch.no_grad():
        task.after_step(output.kept, batch.progress)
    return output.loss.item(), output.kept.get("keys", torch.empty(0))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("pictures", "dimensions"), [(1, 3), (2, 5), (7, 16)])
def test_the_loss_is_equation_1(pictures: int, dimensions: int, temperature: float) -> None:
    embeddings = random_embeddings(pictures, dimensions, seed=pictures)
    assert loss_of(embeddings, temperature).item() == pytest.approx(naive_nt_xent(embeddings, temperature), abs=1e-5)


def test_similarities_are_cosines_over_the_temperature_without_self_pairs() -> None:
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 0.5], [3.0, 4.0], [-1.0, 0.0]])
    cosines = torch.tensor(
        [[-math.inf, 0.0, 0.6, -1.0], [0.0, -math.inf, 0.8, 0.0], [0.6, 0.8, -math.inf, -0.6], [-1, 0, -0.6, -math.inf]]
    )
    torch.testing.assert_close(view_similarities(embeddings, 0.25), cosines / 0.25)


def test_the_positive_of_a_view_is_half_a_batch_away() -> None:
    assert positive_index(6, torch.device("cpu")).tolist() == [3, 4, 5, 0, 1, 2]


@pytest.mark.parametrize("pictures", [2, 5, 32])
def test_equal_embeddings_leave_the_positive_to_chance(pictures: int) -> None:
    embeddings = torch.ones(2 * pictures, 4)
    assert loss_of(embeddings, 0.1).item() == pytest.approx(math.log(2 * pictures - 1), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_orthogonal_pictures_with_equal_views_have_the_closed_form(temperature: float) -> None:
    pictures = 5
    embeddings = torch.eye(pictures).repeat(2, 1)
    expected = math.log(1 + (2 * pictures - 2) * math.exp(-1 / temperature))
    assert loss_of(embeddings, temperature).item() == pytest.approx(expected, abs=1e-5)


def test_opposite_pictures_reach_nothing_at_a_low_temperature() -> None:
    embeddings = torch.tensor([[1.0], [-1.0]]).repeat(2, 1)
    assert loss_of(embeddings, 0.05).item() == pytest.approx(0, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(pictures=st.integers(1, 8), seed=st.integers(0, 1000), temperature=st.floats(0.05, 2))
def test_the_order_of_the_pictures_does_not_matter(pictures: int, seed: int, temperature: float) -> None:
    embeddings = random_embeddings(pictures, 6, seed)
    order = torch.randperm(pictures, generator=torch.Generator().manual_seed(seed))
    permuted = torch.cat([half[order] for half in embeddings.chunk(2)])
    torch.testing.assert_close(loss_of(permuted, temperature), loss_of(embeddings, temperature), rtol=1e-4, atol=1e-5)


def test_autocast_does_not_round_the_similarities() -> None:
    embeddings = random_embeddings(4, 64, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = view_similarities(embeddings.to(torch.bfloat16), 0.1)
    torch.testing.assert_close(cast, view_similarities(embeddings.to(torch.bfloat16).float(), 0.1))


@settings(deadline=None, max_examples=30)
@given(pictures=st.integers(1, 8), seed=st.integers(0, 1000), temperature=st.floats(0.05, 2))
def test_the_two_views_are_interchangeable(pictures: int, seed: int, temperature: float) -> None:
    embeddings = random_embeddings(pictures, 6, seed)
    swapped = embeddings.roll(pictures, dims=0)
    torch.testing.assert_close(loss_of(swapped, temperature), loss_of(embeddings, temperature), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_the_length_of_an_embedding_does_not_matter(seed: int, scale: float) -> None:
    embeddings = random_embeddings(4, 6, seed)
    scaled = torch.cat([scale * embeddings[:3], embeddings[3:]])
    torch.testing.assert_close(loss_of(scaled, 0.5), loss_of(embeddings, 0.5), rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_batch_is_equation_1_of_the_projected_features(task: SimCLR) -> None:
    views = two_views()
    task.eval()  # the same statistics for this forward and the next
    with torch.no_grad():
        embeddings = task.projector(task.encoder(torch.cat(views)))
        loss = task(batch_of(views)).loss
    assert embeddings.shape == (8, 6)
    assert loss.item() == pytest.approx(naive_nt_xent(embeddings, 0.5), abs=1e-5)


def test_both_views_pass_the_encoder_in_one_batch() -> None:
    encoder: Any = Flat(feature_dim=192)
    views = two_views()
    SimCLR(encoder, FACTS)(batch_of(views))
    assert len(encoder.seen) == 1
    assert torch.equal(encoder.seen[0], torch.cat(views))


def test_the_gradient_reaches_encoder_and_projector(task: SimCLR) -> None:
    task(batch_of(two_views())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("temperature", [0.0, -0.5])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    encoder: Any = Flat(feature_dim=4)
    with pytest.raises(ClvrBenchError, match=rf"simclr: temperature must be positive, got {temperature}\. Typical"):
        SimCLR(encoder, FACTS, temperature=temperature)


def test_contrastive_top1_is_the_percentage_of_views_nearest_to_their_positive() -> None:
    encoder: Any = Flat(feature_dim=2)
    task = SimCLR(encoder, FACTS, projection_dim=2)
    task.projector = nn.Sequential()
    angles = torch.tensor([0, 90, 200, 10, 25, 250]).deg2rad()  # the view at 25 degrees is nearer to 10 than to 90
    pixels = torch.stack([angles.cos(), angles.sin()], dim=1).view(6, 2, 1, 1)
    logs = task(batch_of(list(pixels.chunk(2)))).logs
    assert float(logs["contrastive_top1"]) == pytest.approx(100 * 5 / 6)


def test_the_loss_falls_within_a_few_steps(task: SimCLR) -> None:
    views = two_views(pictures=16)
    views[1] = (views[0] + 0.1 * views[1]).clamp(max=1)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(15):
        loss = task(batch_of(views)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize(("pictures", "queued"), [(1, 1), (3, 7), (8, 20)])
def test_version_2_is_equation_1_with_the_memory_networks_embeddings(
    pictures: int, queued: int, temperature: float
) -> None:
    embeddings = random_embeddings(pictures, 6, seed=1)
    keys, queue = unit_vectors(2 * pictures, 2), unit_vectors(queued, 3)
    loss = nt_xent(memory_similarities(embeddings, keys, queue, temperature))
    assert loss.item() == pytest.approx(naive_against_memory(embeddings, keys, queue, temperature), abs=1e-5)


def test_a_memory_of_the_same_embeddings_and_an_empty_queue_is_version_1() -> None:
    embeddings = random_embeddings(5, 6, seed=0)
    same = memory_similarities(embeddings, F.normalize(embeddings, dim=1), torch.empty(0, 6), 0.1)
    torch.testing.assert_close(same, view_similarities(embeddings, 0.1))


@pytest.mark.parametrize("queued", [1, 9, 64])
def test_equal_embeddings_leave_the_positive_to_chance_in_batch_and_queue(queued: int) -> None:
    ones = F.normalize(torch.ones(8, 3), dim=1)
    loss = nt_xent(memory_similarities(ones, ones, ones[:1].expand(queued, 3), 0.1))
    assert loss.item() == pytest.approx(math.log(7 + queued), abs=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_the_order_of_the_queue_and_the_length_of_an_embedding_do_not_matter(seed: int, scale: float) -> None:
    embeddings, keys, queue = random_embeddings(4, 6, seed), unit_vectors(8, seed + 1), unit_vectors(9, seed + 2)
    loss = nt_xent(memory_similarities(embeddings, keys, queue, 0.2))
    torch.testing.assert_close(nt_xent(memory_similarities(scale * embeddings, keys, queue.flip(0), 0.2)), loss)


def test_autocast_does_not_round_the_similarities_with_the_memory() -> None:
    embeddings, keys, queue = random_embeddings(4, 64, 0), unit_vectors(8, 1, 64), unit_vectors(9, 2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = memory_similarities(embeddings, keys, queue, 0.1)
    assert torch.equal(inside, memory_similarities(embeddings, keys, queue, 0.1))


def test_a_batch_of_version_2_meets_the_memory_network_and_the_queue(build: Callable[..., SimCLRV2]) -> None:
    task, views = build(temperature=0.5).eval(), two_views()
    take_step(task, batch_of(two_views(seed=1)), rate=1.0)  # so that the memory network is another
    with torch.no_grad():
        embeddings = task.projector(task.encoder(torch.cat(views)))
        keys = memory_network(task)(torch.cat(views))
        output = task(batch_of(views))
    assert not torch.allclose(embeddings, keys, atol=1e-3)
    queue = task.queue
    assert queue is not None
    assert output.loss.item() == pytest.approx(naive_against_memory(embeddings, keys, queue.embeddings, 0.5), abs=1e-5)
    torch.testing.assert_close(output.kept["keys"], F.normalize(keys, dim=1))


def test_without_a_queue_version_2_is_equation_1_among_the_batch(build: Callable[..., SimCLRV2]) -> None:
    task, views = build(queue_size=0, temperature=0.5).eval(), two_views()
    assert task.moves == ()
    with torch.no_grad():
        embeddings = task.projector(task.encoder(torch.cat(views)))
        output = task(batch_of(views))
    assert output.loss.item() == pytest.approx(naive_nt_xent(embeddings, 0.5), abs=1e-5)
    assert output.kept == {}
    assert [name for name, _ in task.named_modules() if name.startswith(("target", "queue"))] == []
    task.after_step(output.kept, Progress(0, 1, 0, 1))


def shapes(head: nn.Module) -> list[tuple[str, Any]]:
    """Kinds and widths of a head's layers."""
    leaves = [layer for layer in head.modules() if not list(layer.children())]
    return [(type(layer).__name__, tuple(layer.weight.shape) if hasattr(layer, "weight") else None) for layer in leaves]


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_the_projector_is_lightlys(layers: int) -> None:
    assert shapes(build_projector(8, layers, 6)) == shapes(SimCLRProjectionHead(8, 8, 6, num_layers=layers))


def test_embeddings_are_normalized_over_the_batch_by_scale_only() -> None:
    projector = build_projector(8, 3, 6)
    assert [name for name, _ in projector[-1].named_parameters()] == ["0.weight", "1.weight"]
    embeddings = projector(random_embeddings(16, 8, seed=0))
    torch.testing.assert_close(embeddings.mean(dim=0), torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(embeddings.std(dim=0, correction=0), torch.ones(6), atol=1e-2, rtol=0)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_representation_ends_with_the_layers_that_are_kept(build: Callable[..., SimCLRV2], layers: int) -> None:
    task, images = build(representation_layers=layers).eval(), two_views()[0]
    features = task.encoder(images)
    for layer in range(layers):
        linear, norm, _ = task.projector[layer]
        features = norm(linear(features)).relu()
    torch.testing.assert_close(task.representation()(images), features)


def test_the_memory_network_follows_and_the_queue_keeps_the_newest(build: Callable[..., SimCLRV2]) -> None:
    task = build(target_momentum=0.9)  # 20 places for 3 times 8 embeddings
    old = [parameter.clone() for parameter in memory_network(task).parameters()]
    first = take_step(task, batch_of(two_views(seed=0)))[1]
    trained = [*task.encoder.parameters(), *task.projector.parameters()]
    for before, after, source in zip(old, memory_network(task).parameters(), trained, strict=True):
        torch.testing.assert_close(after, 0.9 * before + 0.1 * source)
    second, third = (take_step(task, batch_of(two_views(seed=seed)))[1] for seed in (1, 2))
    assert task.queue is not None
    assert torch.equal(task.queue.embeddings, torch.cat([third[4:], first[4:], second, third[:4]]))


def test_forward_moves_nothing_but_batch_norm_and_after_step_what_it_names(build: Callable[..., SimCLRV2]) -> None:
    task, batch = build(), batch_of(two_views())

    def moved(since: dict[str, Tensor]) -> set[str]:
        return {name for name, value in task.state_dict().items() if not torch.equal(since[name], value)}

    before = copy.deepcopy(task.state_dict())
    output = task(batch)
    assert moved(before) == {name for name in before if "running" in name or "num_batches" in name}
    with torch.no_grad():
        for parameter in task.projector.parameters():
            parameter.add_(1.0)
        before = copy.deepcopy(task.state_dict())
        task.after_step(output.kept, batch.progress)
    assert {name.split(".")[0] for name in moved(before)} == set(task.moves)


def test_the_gradient_reaches_encoder_and_projector_and_no_memory(build: Callable[..., SimCLRV2]) -> None:
    task = build()
    output = task(batch_of(two_views()))
    output.loss.backward()
    reached = {name for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, _ in task.named_parameters() if not name.startswith("target")}
    assert not output.kept["keys"].requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"simclr_v2: temperature must be positive, got 0\.0\. Typical"),
        ({"representation_layers": 3}, r"simclr_v2: representation_layers must be .* got 3 and 3\. The paper's"),
        ({"representation_layers": -1}, r"simclr_v2: representation_layers must be at least 0 .* got -1 and 3"),
        ({"projection_layers": 0}, r"simclr_v2: representation_layers must be .* got 0 and 0"),
        ({"target_momentum": 1.0}, r"simclr_v2: target_momentum must be in \[0, 1\), got 1\.0\. Typical"),
        ({"queue_size": 65}, r"simclr_v2: queue_size must be .* at most the 64 training pictures, got 65"),
        ({"queue_size": -1}, r"simclr_v2: queue_size must be at least 1 .* got -1"),
    ],
)
def test_bad_options_of_version_2_are_refused(
    build: Callable[..., SimCLRV2], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**options)


def test_the_rate_of_version_2_is_a_tenth_of_the_square_root_of_the_batch() -> None:
    assert [SimCLRV2.recipe.peak_rate(batch) for batch in (1, 256, 4096)] == pytest.approx([0.1, 1.6, 6.4])


@pytest.mark.parametrize("queue_size", [0, 20])
def test_the_loss_of_version_2_falls_within_a_few_steps(build: Callable[..., SimCLRV2], queue_size: int) -> None:
    task = build(queue_size=queue_size, target_momentum=0.9)
    colors = torch.rand(3, 12, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(30):  # a batch comes back after the queue has forgotten its keys, or they would repel it
        views = [0.8 * colors[step % 3] + 0.2 * view for view in two_views(pictures=12, seed=step)]
        losses.append(take_step(task, batch_of(views))[0])
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
