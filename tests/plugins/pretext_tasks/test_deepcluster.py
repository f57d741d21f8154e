from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom, load_encoder
from clvr_bench.ops.kmeans import kmeans
from clvr_bench.ops.sobel import sobel
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.deepcluster import DeepCluster, PseudoClassifier, uniform_visits
from tests.conftest import CONTRACT_PLUGINS

N = 60
FACTS = DataFacts("image", train_size=N, image_size=8)
PICTURES = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Recorded:
    """An epoch that remembers what was asked of it."""

    def __init__(self, number: int = 0) -> None:
        self.progress = Progress(10 * number, 30, number, 3)
        self.visited = torch.zeros(0)
        self.were_reset: list[nn.Module] = []
        self.encoded_by: list[nn.Module] = []

    def features(self, module: nn.Module) -> Tensor:
        self.encoded_by.append(module)
        with torch.no_grad():
            return module.eval()(PICTURES)

    def visit(self, indices: Tensor) -> None:
        self.visited = indices

    def reset(self, module: nn.Module) -> None:
        self.were_reset.append(module)


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., DeepCluster]:
    def make(seed: int = 0, sobel: bool = True, **options: Any) -> DeepCluster:
        torch.manual_seed(seed)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory(in_channels=2 if sobel else 3)
        encoder.feature_dim = 8
        return DeepCluster(encoder, FACTS, **{"clusters": 5, "sobel": sobel, **options})

    return make


def prepared(task: DeepCluster, number: int = 0) -> Recorded:
    epoch: Any = Recorded(number)
    task.before_epoch(epoch)
    return epoch


def batch_of(index: Tensor) -> Batch:
    random = SampleRandom.keyed(0, 0, index)
    return Batch([PICTURES[index]], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def random_of(count: int, seed: int = 0) -> SampleRandom:
    return SampleRandom.keyed(seed, 0, torch.arange(count))


@pytest.mark.parametrize("with_filter", [True, False])
def test_pseudo_labels_are_k_means_of_whitened_normalized_features(
    build: Callable[..., DeepCluster], with_filter: bool
) -> None:
    task = build(sobel=with_filter, pca_dim=3)
    task.eval()
    with torch.no_grad():
        features = task.representation()(PICTURES)
    centred = (features - features.mean(dim=0)).double()
    variances, axes = torch.linalg.eigh(centred.T @ centred / N)
    white = (centred @ axes[:, -3:] / variances[-3:].sqrt()).flip(1)
    expected = kmeans(F.normalize(white, dim=1).float(), 5, random_of_task(task)).assignments
    prepared(task)
    assert torch.equal(task.assignments, expected)


def random_of_task(task: DeepCluster, epoch: int = 0) -> SampleRandom:
    return SampleRandom.keyed(int(task.key), epoch, torch.arange(N))


def test_before_an_epoch_the_classifier_starts_anew_and_clusters_are_visited_evenly(
    build: Callable[..., DeepCluster],
) -> None:
    task = build()
    epoch = prepared(task)
    assert epoch.were_reset == [task.classifier]
    assert Counter(task.assignments[epoch.visited].tolist()) == dict.fromkeys(range(5), N // 5)


def test_clusters_follow_the_features_of_each_epoch(build: Callable[..., DeepCluster]) -> None:
    task = build()
    prepared(task)
    first = task.assignments.clone()
    nn.init.normal_(task.encoder.network[0].weight)
    prepared(task, number=1)
    assert not torch.equal(task.assignments, first)


def test_a_resumed_run_repeats_an_epochs_clusters_and_visits(build: Callable[..., DeepCluster]) -> None:
    task = build()
    prepared(task)
    state = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    epoch, clusters = prepared(task, number=1), task.assignments.clone()
    resumed = build(seed=7)
    resumed.load_state_dict(state)
    assert torch.equal(prepared(resumed, number=1).visited, epoch.visited)
    assert torch.equal(resumed.assignments, clusters)


def test_seeds_and_epochs_draw_differently(build: Callable[..., DeepCluster]) -> None:
    task, other = build(), build(seed=1)
    other.encoder.load_state_dict(task.encoder.state_dict())
    orders = [prepared(task).visited, prepared(task, number=1).visited, prepared(other).visited]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_the_loss_is_the_cross_entropy_of_the_pseudo_labels(build: Callable[..., DeepCluster]) -> None:
    task = build()
    prepared(task)
    task.eval()
    index = torch.tensor([5, 17, 17, 58])
    with torch.no_grad():
        probabilities = task.classifier(task.representation()(PICTURES[index])).softmax(dim=1)
    expected = -sum(math.log(probabilities[n, task.assignments[i]]) for n, i in enumerate(index.tolist())) / 4
    assert task(batch_of(index)).loss.item() == pytest.approx(expected, abs=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(build: Callable[..., DeepCluster]) -> None:
    task = build()
    prepared(task)
    task.eval()
    parts = [task(batch_of(index)).loss for index in torch.arange(12).chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(torch.arange(12))).loss)


def test_pseudo_label_top1_is_in_percent(build: Callable[..., DeepCluster]) -> None:
    task = build()
    nn.init.zeros_(task.classifier.weight)
    nn.init.zeros_(task.classifier.bias)
    with torch.no_grad():
        task.classifier.bias[3] = 1
        task.assignments[:3] = 3
    assert float(task(batch_of(torch.arange(4))).logs["pseudo_label_top1"]) == 75


def test_the_gradient_reaches_encoder_and_classifier(build: Callable[..., DeepCluster]) -> None:
    task = build()
    prepared(task)
    task.train()
    task(batch_of(torch.arange(20))).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_only_the_epochs_preparation_moves_state(build: Callable[..., DeepCluster]) -> None:
    task = build().eval()
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task(batch_of(torch.arange(20)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.state_dict().items())
    prepared(task)
    moved = {name for name, tensor in task.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"assignments"}


def test_the_classifier_starts_with_a_deviation_of_a_hundredth_and_no_bias() -> None:
    torch.manual_seed(0)
    classifier = PseudoClassifier(100, 200)
    nn.init.ones_(classifier.bias)
    classifier.reset_parameters()
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not classifier.bias.any()


def test_the_filter_is_part_of_the_representation(build: Callable[..., DeepCluster]) -> None:
    task = build().eval()
    edges = sobel((PICTURES - 0.449) / 0.226)
    torch.testing.assert_close(task.representation()(PICTURES), task.encoder.encode(edges))
    assert task.encoder_options(clusters=5, sobel=True) == {"in_channels": 2}


def test_without_the_filter_the_encoder_sees_colour(build: Callable[..., DeepCluster]) -> None:
    task = build(sobel=False)
    assert task.representation() is task.encoder
    assert task.encoder_options(clusters=5, sobel=False) == {}


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 60), clusters=st.integers(1, 12), seed=st.integers(0, 1000))
def test_visits_are_spread_evenly_over_clusters_and_over_the_members_of_each(
    count: int, clusters: int, seed: int
) -> None:
    assignments = torch.randint(clusters, (count,), generator=torch.Generator().manual_seed(seed))
    visits = uniform_visits(assignments, random_of(count, seed))
    assert len(visits) == count
    by_cluster = Counter(assignments[visits].tolist())
    assert set(by_cluster) == set(assignments.tolist())
    assert max(by_cluster.values()) - min(by_cluster.values()) <= 1
    for cluster in by_cluster:
        members = (assignments == cluster).nonzero()[:, 0].tolist()
        times = Counter(visits[assignments[visits] == cluster].tolist())
        assert max(times.values()) - min(times.get(member, 0) for member in members) <= 1


def test_visits_are_shuffled_and_take_different_parts_of_a_large_cluster() -> None:
    assignments = (torch.arange(100) < 80).long()
    first, second = (uniform_visits(assignments, random_of(100, seed)) for seed in range(2))
    assert assignments[first][::2].unique().tolist() == [0, 1]  # clusters do not just take turns
    assert set(first[assignments[first] == 1].tolist()) != set(second[assignments[second] == 1].tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": N + 1}, r"clusters must be from 2 to the 60 training pictures, got 61\. Typical: ten times"),
        ({"clusters": 1}, r"clusters must be from 2 to the 60 training pictures, got 1\. Typical: ten times"),
        ({"pca_dim": 0}, r"pca_dim must be positive, got 0\. Typical: 256\."),
    ],
)
def test_options_that_make_no_sense_are_refused(
    build: Callable[..., DeepCluster], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ClvrBenchError, match=f"deepcluster: {message}"):
        build(**options)


def test_the_loss_falls_within_a_few_steps(build: Callable[..., DeepCluster]) -> None:
    task = build()
    prepared(task)
    task.train()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for _ in range(25):
        loss = task(batch_of(torch.arange(N))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(5), abs=0.1)
    assert losses[-1] < 0.8 * losses[0]


def test_a_finished_run_is_loaded_with_its_filter(tiny_run: Callable[..., Any], tmp_path: Path) -> None:
    task = ("--pretext-task", "deepcluster", "--set", "deepcluster.clusters=10", "--epochs", "2")
    answer = tiny_run(*task, "--results", tmp_path)
    assert answer.code == 0, answer.err
    (folder,) = {path.parent for path in tmp_path.rglob("weights.safetensors")}
    representation = load_encoder(folder, plugins_dirs=[CONTRACT_PLUGINS])
    assert representation(PICTURES).shape == (N, 8)


def test_the_preview_is_what_the_encoder_sees_scaled_around_mid_gray(build: Callable[..., DeepCluster]) -> None:
    task, seen = build(), []
    task.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    batch = batch_of(torch.tensor([3, 50]))
    shown = task.preview(batch)
    task(batch)
    (edges,) = seen
    assert list(shown) == ["left - right", "above - below"]
    for number, channel in enumerate(shown.values()):
        strongest = edges.abs().amax(dim=(1, 2, 3))[:, None, None, None]
        torch.testing.assert_close((channel - 0.5) * 2 * strongest, edges[:, number : number + 1])
    extremes = torch.cat(list(shown.values()), dim=1).sub(0.5).abs().amax(dim=(1, 2, 3))
    assert extremes.tolist() == pytest.approx([0.5, 0.5])


def test_a_picture_without_edges_is_previewed_in_mid_gray(build: Callable[..., DeepCluster]) -> None:
    shown = build().preview(replace(batch_of(torch.tensor([0])), views=[torch.full((1, 3, 8, 8), 0.449)]))
    assert all((channel == 0.5).all() for channel in shown.values())


def test_without_the_filter_there_is_nothing_to_preview(build: Callable[..., DeepCluster]) -> None:
    assert build(sobel=False).preview(batch_of(torch.tensor([0]))) == {}
