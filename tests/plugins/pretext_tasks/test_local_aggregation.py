from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.ops.kmeans import kmeans
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.toolbox import discriminate_instances
from clvr_plugins.pretext_tasks.local_aggregation import LocalAggregation, close_ratios, share_cluster

N = 40
FACTS = DataFacts("image", train_size=N, image_size=8)
PICTURES = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OPTIONS = {"projection_dim": 6, "background": 12, "clusters": 8, "clusterings": 2, "negatives": 10, "warmup_epochs": 2}
WARM, LATER = 1, 2  # an epoch that discriminates instances, and one that aggregates
Build = Callable[..., LocalAggregation]


@pytest.fixture
def build(plugins: Plugins) -> Build:
    def make(seed: int = 0, **options: Any) -> LocalAggregation:
        torch.manual_seed(seed)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return LocalAggregation(encoder, FACTS, **{**OPTIONS, **options})

    return make


class Numbered:
    """An epoch that knows nothing but its number."""

    def __init__(self, number: int) -> None:
        self.progress = Progress(10 * number, 50, number, 5)


def prepared(task: LocalAggregation, epoch: int = LATER) -> LocalAggregation:
    numbered: Any = Numbered(epoch)
    task.before_epoch(numbered)
    return task


def batch_of(index: Tensor, epoch: int = LATER, images: Tensor = PICTURES) -> Batch:
    random = SampleRandom.keyed(0, epoch, index)
    return Batch([images[index]], index, torch.full_like(index, -1), random, Progress(10 * epoch, 50, epoch, 5))


def embed(task: LocalAggregation, images: Tensor) -> Tensor:
    """Unit embeddings in float64, from the task's own parts."""
    projected = task.projector(task.encoder(images)).detach().double()
    return projected / projected.norm(dim=1, keepdim=True)


def naive_loss(task: LocalAggregation, batch: Batch, background: int, temperature: float) -> float:
    """The paper's loss with sets of pictures, a picture at a time."""
    losses = []
    for embedding, own in zip(embed(task, batch.views[0]), batch.index.tolist(), strict=True):
        powers = [math.exp(float(vector.double() @ embedding) / temperature) for vector in task.bank.vectors]
        near = set(sorted(range(N), key=lambda other: -powers[other])[:background])
        close = {other for other in range(N) for groups in task.assignments if groups[other] == groups[own]}
        ratio = sum(powers[other] for other in near & close) / sum(powers[other] for other in near)
        losses.append(-math.log(ratio + 1e-7))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("background", "temperature"), [(12, 0.07), (12, 0.5), (N, 0.2)])
def test_the_loss_is_that_of_close_neighbours_among_background_neighbours(
    build: Build, background: int, temperature: float
) -> None:
    task = prepared(build(background=background, temperature=temperature).eval())
    batch = batch_of(torch.tensor([3, 30, 7, 39, 0]))
    assert task(batch).loss.item() == pytest.approx(naive_loss(task, batch, background, temperature), rel=1e-4)


def test_close_ratios_are_those_of_equal_and_unequal_exponents() -> None:
    exponents = torch.tensor([[1.0, 1.0, 1.0, 1.0], [math.log(6), math.log(3), 0.0, 300.0], [0.0, 0.0, 0.0, 0.0]])
    close = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).bool()
    assert close_ratios(exponents, close).tolist() == pytest.approx([3 / 4, 1, 0])
    tiny = close_ratios(torch.tensor([[math.log(6), math.log(3), 0.0]]), torch.tensor([[True, False, True]]))
    assert tiny.item() == pytest.approx(0.7)


def test_one_shared_cluster_in_any_clustering_is_enough() -> None:
    assignments = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 0, 2, 2]])
    others = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    found = share_cluster(assignments, torch.tensor([0, 3]), others)
    assert found.tolist() == [[True, True, True, False, False], [True, True, True, False, False]]


def test_where_all_background_neighbours_are_close_nothing_is_lost(build: Build) -> None:
    task = build().eval()
    task.assignments.fill_(3)
    output = task(batch_of(torch.arange(5)))
    assert output.loss.item() == pytest.approx(0, abs=1e-5)
    assert float(output.logs["close_percentage"]) == pytest.approx(100)
    assert float(output.logs["close_neighbours"]) == OPTIONS["background"]


def test_where_none_is_close_the_loss_is_finite_and_has_no_gradient(build: Build) -> None:
    task, batch = build(background=2).eval(), batch_of(torch.arange(5))
    task.assignments.copy_(torch.arange(N))
    task.bank.vectors[:5] = -embed(task, batch.views[0]).float()  # their own vectors are as far away as can be
    loss = task(batch).loss
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-7), rel=1e-4)
    assert not any(p.grad.any() for p in task.parameters())


def test_the_first_epochs_discriminate_instances(build: Build) -> None:
    for negatives in (0, 10):
        task = build(negatives=negatives).eval()
        batch = batch_of(torch.arange(5), WARM)
        embeddings = embed(task, batch.views[0]).float()
        expected = discriminate_instances(embeddings, batch, task.bank, task.nce, negatives)[0].mean()
        output = task(batch)
        torch.testing.assert_close(output.loss, expected)
        assert set(output.logs) == {"contrastive_top1"}


@pytest.mark.parametrize(("epoch", "clusters"), [(0, 1), (WARM, 1), (LATER, 8), (LATER + 1, 8)])
def test_the_bank_is_clustered_once_instances_are_no_longer_discriminated(
    build: Build, epoch: int, clusters: int
) -> None:
    task = prepared(build(), epoch)
    assert [len(groups.unique()) for groups in task.assignments] == [clusters, clusters]


def test_clusterings_are_k_means_of_the_bank_each_with_draws_of_its_own(build: Build) -> None:
    task = prepared(build())
    random = SampleRandom.keyed(int(task.key), LATER, torch.arange(N))
    for place, assignments in enumerate(task.assignments):
        expected = kmeans(task.bank.vectors, 8, random.scoped(f"clustering{place}"), iterations=20)
        assert torch.equal(assignments, expected.assignments)
    assert not torch.equal(task.assignments[0], task.assignments[1])


def test_a_resumed_run_repeats_an_epochs_clusters_and_other_seeds_and_epochs_do_not(build: Build) -> None:
    task, resumed, other = build(), build(seed=7), build(seed=1)
    other.bank.load_state_dict(task.bank.state_dict())
    resumed.load_state_dict(task.state_dict())
    first = prepared(task).assignments.clone()
    assert torch.equal(prepared(resumed).assignments, first)
    assert not torch.equal(prepared(other).assignments, first)
    assert not torch.equal(prepared(task, LATER + 1).assignments, first)


@pytest.mark.parametrize("epoch", [WARM, LATER])
def test_a_step_moves_the_vectors_of_its_pictures_half_way(build: Build, epoch: int) -> None:
    task = prepared(build().eval(), epoch)
    batch = batch_of(torch.tensor([9, 2, 31]), epoch)
    before = task.bank.vectors.clone()
    task.after_step(task(batch).kept, batch.progress)
    half_way = 0.5 * before[batch.index].double() + 0.5 * embed(task, batch.views[0])
    expected = (half_way / half_way.norm(dim=1, keepdim=True)).float()
    torch.testing.assert_close(task.bank.vectors[batch.index], expected)
    others = [picture for picture in range(N) if picture not in (9, 2, 31)]
    assert torch.equal(task.bank.vectors[others], before[others])


def moved(task: LocalAggregation, act: Callable[[], object]) -> set[str]:
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    act()
    names = {name for name, tensor in task.state_dict().items() if not torch.equal(tensor, before[name])}
    return {name.split(".")[0] for name in names}


def test_what_moves_when_is_what_it_declares(build: Build) -> None:
    task = build().eval()
    assert moved(task, lambda: prepared(task, WARM)) == set()
    kept = task(batch_of(torch.arange(6), WARM)).kept
    assert moved(task, lambda: task.after_step(kept, Progress(0, 50, WARM, 5))) == {"bank", "nce"}
    assert moved(task, lambda: prepared(task)) == {"assignments"}
    later = batch_of(torch.arange(6))
    assert moved(task, lambda: task(later)) == set()
    assert moved(task, lambda: task.after_step(task(later).kept, later.progress)) == {"bank"}
    assert set(LocalAggregation.moves) == {"bank", "nce", "assignments"}


@pytest.mark.parametrize("epoch", [WARM, LATER])
def test_the_gradient_reaches_encoder_and_projector_and_nothing_else(build: Build, epoch: int) -> None:
    task = prepared(build(), epoch)
    output = task(batch_of(torch.arange(20), epoch))
    output.loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert {name.split(".")[0] for name, _ in task.named_parameters()} == {"encoder", "projector"}
    assert not any(tensor.requires_grad for tensor in output.kept.values())


def test_a_step_of_the_gradient_moves_an_embedding_towards_close_neighbours() -> None:
    """Of two background neighbours that are equally near, the close one pulls and the other pushes."""
    exponents = torch.zeros(1, 2, requires_grad=True)
    (-close_ratios(exponents, torch.tensor([[True, False]])).log()).sum().backward()
    assert exponents.grad is not None
    assert exponents.grad.tolist() == [[-0.5, 0.5]]


@pytest.mark.parametrize("epoch", [WARM, LATER])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(build: Build, epoch: int) -> None:
    task, index = prepared(build().eval(), epoch), torch.arange(12)
    parts = [task(batch_of(part, epoch)).loss for part in index.chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(index, epoch)).loss)
    assert LocalAggregation.separable


@pytest.mark.parametrize("epoch", [WARM, LATER])
def test_the_loss_is_in_float32_under_autocast(build: Build, epoch: int) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = prepared(build(), epoch)(batch_of(torch.arange(6), epoch))
    assert output.loss.dtype is torch.float32
    assert output.kept["embeddings"].dtype is torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": 41}, r"local_aggregation: background must be from 2 to the 40 training pictures, got 41\."),
        ({"background": 1}, r"local_aggregation: background must be from 2 to the 40 training pictures, got 1\."),
        ({"clusters": 41}, r"local_aggregation: clusters must be from 2 to the 40 training pictures, got 41\."),
        ({"clusterings": 0}, r"local_aggregation: clusterings must be positive, got 0\."),
        ({"warmup_epochs": -1}, r"local_aggregation: warmup_epochs must not be negative, got -1\."),
        ({"negatives": 41}, r"local_aggregation: negatives must be from 0 to the 40 training pictures, got 41\."),
        ({"temperature": 0.0}, r"local_aggregation: temperature must be positive, got 0\.0\."),
        ({"bank_momentum": 1.0}, r"memory bank: momentum must be in \[0, 1\), got 1\.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**options)


def test_the_loss_falls_within_a_few_steps(build: Build) -> None:
    task, batch = build(temperature=0.2), batch_of(torch.arange(N))
    task.after_step(task(batch).kept, batch.progress)
    prepared(task)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = task(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
