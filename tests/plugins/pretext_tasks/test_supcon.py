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
from clvr_plugins.pretext_tasks.supcon import SupCon, positive_pairs, sup_con, view_similarities

FACTS = DataFacts("image", train_size=8, image_size=8, num_classes=3)
LABELS = [0, 1, 0, 2, 1, 0]


class Flat(nn.Module):
    """An encoder stand-in: a picture's pixels are its feature. It remembers what it was given."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images.flatten(1)


def naive_sup_con(embeddings: Tensor, labels: list[int], temperature: float) -> float:
    """Equation 2 as it is printed, set by set, divided by the number of anchors."""
    z = embeddings.double().numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    y = [*labels, *labels]
    indices = range(len(z))

    def of_anchor(i: int) -> float:
        others = [a for a in indices if a != i]
        positives = [p for p in others if y[p] == y[i]]
        total = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
        return -sum(math.log(math.exp(float(z[i] @ z[p]) / temperature) / total) for p in positives) / len(positives)

    return sum(of_anchor(i) for i in indices) / len(z)


def loss_of(embeddings: Tensor, labels: list[int], temperature: float) -> Tensor:
    return sup_con(view_similarities(embeddings, temperature), positive_pairs(torch.tensor(labels)))


def random_embeddings(pictures: int, seed: int, dimensions: int = 6) -> Tensor:
    return torch.randn(2 * pictures, dimensions, generator=torch.Generator().manual_seed(seed))


def batch_of(views: list[Tensor], labels: list[int]) -> Batch:
    index = torch.arange(len(views[0]))
    return Batch(views, index, torch.tensor(labels), SampleRandom.keyed(0, 0, index), Progress(0, 1, 0, 1))


def two_views(pictures: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


@pytest.fixture
def task(plugins: Plugins) -> SupCon:
    torch.manual_seed(0)
    encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
    encoder.feature_dim = 8
    return SupCon(encoder, FACTS, projection_dim=6, temperature=0.5)


@pytest.fixture
def reader() -> Callable[..., SupCon]:
    """A task that takes the two pixels of a picture for its embedding."""

    def build(temperature: float = 0.1) -> SupCon:
        encoder: Any = Flat(feature_dim=2)
        task = SupCon(encoder, FACTS, projection_dim=2, temperature=temperature)
        task.projector = nn.Sequential()
        return task

    return build


def views_at(*degrees: float, scale: float = 1.0) -> list[Tensor]:
    """Two views of pictures (B, 2, 1, 1) whose pixels are directions."""
    angles = torch.tensor(degrees).deg2rad()
    return list((scale * torch.stack([angles.cos(), angles.sin()], dim=1)).view(-1, 2, 1, 1).chunk(2))


@settings(deadline=None, max_examples=40)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_the_loss_is_equation_2(labels: list[int], seed: int, temperature: float) -> None:
    embeddings = random_embeddings(len(labels), seed)
    expected = naive_sup_con(embeddings, labels, temperature)
    assert loss_of(embeddings, labels, temperature).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [-1, -1, -1, -1, -1]])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_without_a_class_in_common_the_loss_is_lightlys_nt_xent(labels: list[int], temperature: float) -> None:
    embeddings = random_embeddings(5, seed=1)
    torch.testing.assert_close(loss_of(embeddings, labels, temperature), NTXentLoss(temperature)(*embeddings.chunk(2)))


def test_a_hidden_label_is_a_class_of_its_own() -> None:
    embeddings = random_embeddings(5, seed=2)
    torch.testing.assert_close(
        loss_of(embeddings, [0, -1, 1, -1, 0], 0.5), loss_of(embeddings, [0, 7, 1, 8, 0], 0.5), rtol=0, atol=0
    )


def test_positives_are_all_other_views_of_the_class() -> None:
    rows = [
        [False, False, True, True, False, True],
        [False, False, False, False, True, False],
        [True, False, False, True, False, True],
    ]
    expected = torch.tensor([*rows, *[row[3:] + row[:3] for row in rows]])
    assert torch.equal(positive_pairs(torch.tensor([5, 2, 5])), expected)


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 0], [3, 1, 3, 1, -1]])
def test_equal_embeddings_leave_the_positive_to_chance(labels: list[int]) -> None:
    ones = torch.ones(2 * len(labels), 4)
    assert loss_of(ones, labels, 0.1).item() == pytest.approx(math.log(2 * len(labels) - 1), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize(("classes", "pictures"), [(2, 1), (3, 4)])
def test_orthogonal_classes_that_have_met_have_the_closed_form(classes: int, pictures: int, temperature: float) -> None:
    labels = list(range(classes)) * pictures
    embeddings = torch.eye(classes).repeat(2 * pictures, 1)
    alike, others = 2 * pictures - 1, 2 * pictures * (classes - 1)
    expected = math.log(alike + others * math.exp(-1 / temperature))
    assert loss_of(embeddings, labels, temperature).item() == pytest.approx(expected, abs=1e-5)


def test_the_gradient_is_equation_4_with_one_share_for_each_positive() -> None:
    similarities = view_similarities(random_embeddings(6, seed=3), 0.5).requires_grad_()
    positives = positive_pairs(torch.tensor(LABELS))
    sup_con(similarities, positives).backward()
    expected = (similarities.softmax(dim=1) - positives / positives.sum(dim=1, keepdim=True)) / 12
    torch.testing.assert_close(similarities.grad, expected.detach())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_neither_order_nor_views_nor_lengths_matter(seed: int, scale: float) -> None:
    embeddings = random_embeddings(6, seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    changed = torch.cat([scale * embeddings[6:][order], embeddings[:6][order]])
    labels = torch.tensor(LABELS)[order].tolist()
    torch.testing.assert_close(loss_of(changed, labels, 0.5), loss_of(embeddings, LABELS, 0.5), rtol=1e-4, atol=1e-5)


def test_autocast_does_not_round_the_similarities() -> None:
    embeddings = random_embeddings(4, seed=0, dimensions=64).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = view_similarities(embeddings, 0.1)
    assert torch.equal(cast, view_similarities(embeddings.float(), 0.1))


def test_the_loss_of_a_batch_is_tau_times_equation_2_of_projected_unit_features(task: SupCon) -> None:
    views = two_views()
    task.eval()  # the same statistics for this forward and the next
    task.projector.append(nn.Tanh())  # a linear one would not show lengths of features
    with torch.no_grad():
        features = task.encoder(torch.cat(views))
        embeddings = task.projector(features / features.norm(dim=1, keepdim=True))
        loss = task(batch_of(views, LABELS)).loss
    assert embeddings.shape == (12, 6)
    assert loss.item() == pytest.approx(0.5 * naive_sup_con(embeddings, LABELS, 0.5), abs=1e-5)


def test_the_length_of_a_feature_does_not_matter() -> None:
    encoder: Any = Flat(feature_dim=2)
    torch.manual_seed(0)
    task = SupCon(encoder, FACTS, projection_dim=2)
    task.projector.append(nn.Tanh())  # a linear one would not show lengths of features
    short, long = (views_at(0, 90, 200, 10, 25, 250, scale=scale) for scale in (1.0, 50.0))
    torch.testing.assert_close(task(batch_of(long, [0, 1, 0])).loss, task(batch_of(short, [0, 1, 0])).loss)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_temperature_is_in_the_exponent_and_before_the_loss(
    reader: Callable[..., SupCon], temperature: float
) -> None:
    loss = reader(temperature)(batch_of(views_at(0, 90, 0, 90), [0, 1])).loss
    expected = temperature * math.log(1 + 2 * math.exp(-1 / temperature))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_contrastive_top1_is_the_percentage_of_views_nearest_to_one_of_their_class(
    reader: Callable[..., SupCon],
) -> None:
    views = views_at(0, 30, 180, 5, 100, 185)  # the view at 30 degrees is nearer to 5 than to 100
    logs = reader()(batch_of(views, [0, 1, 2])).logs
    assert float(logs["contrastive_top1"]) == pytest.approx(100 * 5 / 6)
    logs = reader()(batch_of(views, [0, 0, 2])).logs
    assert float(logs["contrastive_top1"]) == 100


def test_both_views_pass_the_encoder_in_one_batch() -> None:
    encoder: Any = Flat(feature_dim=192)
    views = two_views()
    SupCon(encoder, FACTS)(batch_of(views, LABELS))
    assert len(encoder.seen) == 1
    assert torch.equal(encoder.seen[0], torch.cat(views))


def test_the_projector_is_linear_without_bias_behind_batch_norm_where_asked_for() -> None:
    encoder: Any = Flat(feature_dim=8)
    (linear,) = SupCon(encoder, FACTS, projection_dim=6).projector
    assert (type(linear), linear.weight.shape, linear.bias) == (nn.Linear, (6, 8), None)
    norm, linear = SupCon(encoder, FACTS, projection_dim=6, batch_norm=True).projector
    assert (type(norm), norm.num_features, norm.affine) == (nn.BatchNorm1d, 8, False)
    assert (type(linear), linear.weight.shape, linear.bias) == (nn.Linear, (6, 8), None)


def test_it_sees_every_label_and_is_not_ranked() -> None:
    assert (SupCon.labels, SupCon.ranked, SupCon.moves) == ("fine", False, ())


def test_the_projector_is_no_part_of_what_is_evaluated(task: SupCon) -> None:
    assert task.representation() is task.encoder


def test_the_gradient_reaches_encoder_and_projector(task: SupCon) -> None:
    task(batch_of(two_views(), LABELS)).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_forward_moves_nothing_but_batch_norm(task: SupCon) -> None:
    before = copy.deepcopy(task.state_dict())
    task(batch_of(two_views(), LABELS))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}


@pytest.mark.parametrize("temperature", [0.0, -0.5])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    encoder: Any = Flat(feature_dim=4)
    with pytest.raises(ClvrBenchError, match=rf"supcon: temperature must be positive, got {temperature}\. Typical"):
        SupCon(encoder, FACTS, temperature=temperature)


def test_the_loss_falls_within_a_few_steps(task: SupCon) -> None:
    batch = batch_of(two_views(), LABELS)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(35):
        loss = task(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
