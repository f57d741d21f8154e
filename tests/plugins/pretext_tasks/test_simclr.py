from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.simclr import SimCLR, nt_xent, positive_index, view_similarities

FACTS = DataFacts("image", train_size=8, image_size=8)


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


def loss_of(embeddings: Tensor, temperature: float) -> Tensor:
    return nt_xent(view_similarities(embeddings, temperature))


def random_embeddings(pictures: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(2 * pictures, dimensions, generator=torch.Generator().manual_seed(seed))


def batch_of(views: list[Tensor]) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def two_views(pictures: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


@pytest.fixture
def task(plugins: Plugins) -> SimCLR:
    torch.manual_seed(0)
    encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
    encoder.feature_dim = 8
    return SimCLR(encoder, FACTS, projection_dim=6, temperature=0.5)


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
