from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.ops.kmeans import spherical_kmeans
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.deepcluster_v2 import DeepClusterV2, similarities

N = 40
FACTS = DataFacts("image", train_size=N, image_size=8)
PICTURES = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MULTI_CROP = ("global", "local", "global", "local")
Build = Callable[..., DeepClusterV2]


class Recorded:
    """An epoch that runs modules over the pictures, and counts how often it was asked to."""

    def __init__(self, number: int) -> None:
        self.progress = Progress(10 * number, 30, number, 3)
        self.passes = 0

    def features(self, module: nn.Module) -> Tensor:
        self.passes += 1
        with torch.no_grad():
            return module.eval()(PICTURES)


@pytest.fixture
def build(plugins: Plugins) -> Build:
    def make(seed: int = 0, **options: Any) -> DeepClusterV2:
        torch.manual_seed(seed)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return DeepClusterV2(encoder, FACTS, **{"clusters": 5, "projection_dim": 4, "hidden_dim": 16, **options})

    return make


def prepared(task: DeepClusterV2, number: int = 0) -> Recorded:
    epoch: Any = Recorded(number)
    task.before_epoch(epoch)
    return epoch


def views_of(index: Tensor, roles: Sequence[str] = MULTI_CROP, noise: float = 0.1) -> list[Tensor]:
    """Noisy views; local ones are the pictures' middles."""
    generator = torch.Generator().manual_seed(1)
    views = [PICTURES[index] + noise * torch.rand(len(index), 3, 8, 8, generator=generator) for _ in roles]
    return [view if role == "global" else view[..., 2:6, 2:6] for view, role in zip(views, roles, strict=True)]


def batch_of(index: Tensor, roles: tuple[str, ...] = MULTI_CROP) -> Batch:
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views_of(index, roles), index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1), roles=roles)


def embed(task: DeepClusterV2, view: Tensor) -> Tensor:
    """Unit embeddings in float64, from the task's own parts."""
    projected = task.projector(task.encoder(view)).detach().double()
    return projected / projected.norm(dim=1, keepdim=True)


def naive_loss(task: DeepClusterV2, batch: Batch, temperature: float) -> float:
    """Cross-entropy of each view of each picture in each clustering, then the mean over all of them."""
    losses = []
    for view in batch.views:
        for embedding, picture in zip(embed(task, view), batch.index.tolist(), strict=True):
            for centroids, assignments in zip(task.centroids.double(), task.assignments, strict=True):
                powers = [math.exp(float(embedding @ centroid) / temperature) for centroid in centroids]
                losses.append(-math.log(powers[assignments[picture]] / sum(powers)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_is_the_cross_entropy_of_all_views_in_all_clusterings(build: Build, temperature: float) -> None:
    task = build(temperature=temperature).eval()
    prepared(task)
    batch = batch_of(torch.tensor([5, 17, 2, 38, 9]))
    assert task(batch).loss.item() == pytest.approx(naive_loss(task, batch, temperature), abs=1e-4)


def test_two_alike_views_are_both_global(build: Build) -> None:
    task = build().eval()
    prepared(task)
    roles = batch_of(torch.arange(4), ("global", "global"))
    alike = Batch(roles.views, roles.index, roles.labels, roles.random, roles.progress)
    assert torch.equal(task(alike).loss, task(roles).loss)
    assert torch.equal(task(alike).kept["embeddings"], task(roles).kept["embeddings"])


def test_embeddings_on_their_centroids_have_the_loss_of_a_softmax_of_one(build: Build) -> None:
    task = build(clusters=3, projection_dim=3, clusterings=2, temperature=0.5).eval()
    task.projector = nn.Sequential(nn.Flatten(), Direction(3, 1))
    task.centroids.copy_(torch.eye(3).expand(2, 3, 3))
    task.assignments[0] = 1
    task.assignments[1] = 2
    near, far = -math.log(math.exp(2) / (math.exp(2) + 2)), math.log(math.exp(2) + 2)
    output = task(batch_of(torch.arange(6)))
    assert output.loss.item() == pytest.approx((near + far) / 2, abs=1e-5)
    assert float(output.logs["pseudo_label_top1"]) == 50


class Direction(nn.Module):
    """Answers with one axis of a space, whatever it is asked."""

    def __init__(self, dimensions: int, axis: int) -> None:
        super().__init__()
        self.direction = 7 * torch.eye(dimensions)[axis]

    def forward(self, features: Tensor) -> Tensor:
        return self.direction.expand(len(features), -1)


def test_similarities_are_cosines_in_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(6, 4, generator=generator), dim=1)
    centroids = F.normalize(torch.randn(2, 3, 4, generator=generator), dim=2)
    expected = torch.einsum("mp,hkp->hmk", embeddings.double(), centroids.double()).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(similarities(embeddings, centroids), expected)


def test_before_the_first_epoch_the_memory_is_filled_with_centre_views(build: Build) -> None:
    task = build().eval()
    epoch = prepared(task)
    assert epoch.passes == 1
    for remembered in task.memory:
        torch.testing.assert_close(remembered.double(), embed(task, PICTURES), rtol=0, atol=1e-6)


def test_later_epochs_cluster_what_the_memory_holds(build: Build) -> None:
    task = build().eval()
    prepared(task)
    task.memory.copy_(F.normalize(torch.randn(2, N, 4, generator=torch.Generator().manual_seed(3)), dim=2))
    remembered = task.memory.clone()
    assert prepared(task, number=1).passes == 0
    assert torch.equal(task.memory, remembered)
    random = SampleRandom.keyed(int(task.key), 1, torch.arange(N))
    for place, memory in enumerate([remembered[0], remembered[1], remembered[0]]):
        expected = spherical_kmeans(memory, 5, random.scoped(f"clustering{place}"), iterations=10)
        assert torch.equal(task.assignments[place], expected.assignments)
        assert torch.equal(task.centroids[place], expected.centroids)


def test_clusterings_differ_by_their_draws(build: Build) -> None:
    task = build()
    prepared(task)
    first, second, third = task.assignments
    assert not torch.equal(first, third)
    assert not torch.equal(first, second)  # of one memory, that before the first epoch


def test_a_step_remembers_the_embeddings_of_both_global_views(build: Build) -> None:
    task = build().eval()
    prepared(task)
    before, batch = task.memory.clone(), batch_of(torch.tensor([9, 2, 31]))
    task.after_step(task(batch).kept, batch.progress)
    for remembered, view in zip(task.memory, (batch.views[0], batch.views[2]), strict=True):
        torch.testing.assert_close(remembered[batch.index].double(), embed(task, view), rtol=0, atol=1e-6)
    others = [picture for picture in range(N) if picture not in (9, 2, 31)]
    assert torch.equal(task.memory[:, others], before[:, others])


def test_an_epoch_moves_all_three_and_a_step_the_memory_alone(build: Build) -> None:
    task = build().eval()
    assert moved(task, lambda: prepared(task)) == set(DeepClusterV2.moves)
    batch = batch_of(torch.arange(6))
    kept = task(batch).kept
    assert moved(task, lambda: task(batch)) == set()
    assert moved(task, lambda: task.after_step(kept, batch.progress)) == {"memory"}


def moved(task: DeepClusterV2, act: Callable[[], object]) -> set[str]:
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    act()
    return {name for name, tensor in task.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_resumed_run_repeats_an_epochs_clusters(build: Build) -> None:
    task = build()
    prepared(task)
    state = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    prepared(task, number=1)
    resumed = build(seed=7)
    resumed.load_state_dict(state)
    prepared(resumed, number=1)
    assert torch.equal(resumed.assignments, task.assignments)
    assert torch.equal(resumed.centroids, task.centroids)


def test_epochs_and_seeds_draw_differently(build: Build) -> None:
    task, other = build(), build(seed=1)
    prepared(task)
    first = task.assignments.clone()
    prepared(task, number=1)
    other.memory.copy_(task.memory)
    prepared(other, number=1)
    assert not torch.equal(task.assignments, first)
    assert not torch.equal(task.assignments, other.assignments)


def test_the_gradient_reaches_encoder_and_projector_and_centroids_are_no_parameters(build: Build) -> None:
    task = build()
    prepared(task)
    task.train()
    output = task(batch_of(torch.arange(20)))
    output.loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert {name.split(".")[0] for name, _ in task.named_parameters()} == {"encoder", "projector"}
    assert not any(tensor.requires_grad for tensor in output.kept.values())


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(build: Build) -> None:
    task = build().eval()
    prepared(task)
    whole = batch_of(torch.arange(12))
    parts = [
        Batch([view[part] for view in whole.views], part, part, whole.random, whole.progress, roles=MULTI_CROP)
        for part in torch.arange(12).chunk(3)
    ]
    torch.testing.assert_close(torch.stack([task(part).loss for part in parts]).mean(), task(whole).loss)
    assert DeepClusterV2.separable


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": N + 1}, r"clusters must be from 2 to the 40 training pictures, got 41\. Typical: three times"),
        ({"clusters": 1}, r"clusters must be from 2 to the 40 training pictures, got 1\. Typical: three times"),
        ({"clusterings": 0}, r"clusterings must be positive, got 0\. Typical: 3\."),
        ({"temperature": 0.0}, r"temperature must be positive, got 0\.0\. Typical: 0\.1\."),
    ],
)
def test_options_that_make_no_sense_are_refused(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=f"deepcluster_v2: {message}"):
        build(**options)


@pytest.mark.parametrize("roles", [("global", "local"), ("global", "global", "global"), ("local", "local")])
def test_other_than_two_global_views_are_refused(build: Build, roles: tuple[str, ...]) -> None:
    message = rf"deepcluster_v2: expected exactly 2 global views, got {roles.count('global')}\. Use the augmentation"
    with pytest.raises(ClvrBenchError, match=message):
        build()(batch_of(torch.arange(4), roles))


def test_the_loss_falls_within_a_few_steps(build: Build) -> None:
    task = build()
    prepared(task)
    task.train()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = task(batch_of(torch.arange(N), ("global", "global"))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
