"""The losses against the paper's formulas, and the task as it uses them."""
# ruff: noqa: D103 - a test's name states its behaviour

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from align_uniform.pretext_task import AlignUniform, align_loss, uniform_loss
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, Progress, SampleRandom

FACTS = DataFacts("image", train_size=8, image_size=4)


class Flat(Encoder):
    """A picture's pixels are its feature."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 48

    def encode(self, images: Tensor) -> Tensor:
        """Flatten pictures (B, 3, 4, 4)."""
        return images.flatten(1)


def points(count: int, seed: int = 0) -> Tensor:
    """Draw points (count, 5) on the unit sphere."""
    return F.normalize(torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_alignment_is_the_mean_power_of_the_distance_of_positive_pairs(alpha: float) -> None:
    first, second = points(6), points(6, seed=1)
    naive = sum(math.dist(x, y) ** alpha for x, y in zip(first.tolist(), second.tolist(), strict=True)) / 6
    assert align_loss(first, second, alpha).item() == pytest.approx(naive, abs=1e-5)


@pytest.mark.parametrize("t", [0.5, 2.0, 3.0])
def test_uniformity_is_the_log_of_the_mean_potential_of_all_pairs(t: float) -> None:
    sample = points(7)
    potentials = [math.exp(-t * math.dist(x, y) ** 2) for x, y in combinations(sample.tolist(), 2)]
    assert uniform_loss(sample, t).item() == pytest.approx(math.log(sum(potentials) / len(potentials)), abs=1e-5)


def test_the_losses_are_0_where_everything_collapsed() -> None:
    one_place = points(1).expand(6, -1)
    assert align_loss(one_place, one_place, 2.0).item() == 0
    assert uniform_loss(one_place, 2.0).item() == pytest.approx(0, abs=1e-5)


def test_opposite_points_reach_the_ends_of_both_losses() -> None:
    point = points(1)
    assert align_loss(point, -point, 2.0).item() == pytest.approx(4, abs=1e-5)
    assert uniform_loss(torch.cat([point, -point]), 2.0).item() == pytest.approx(-8, abs=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_equal_points_have_a_finite_gradient(alpha: float) -> None:
    one_place = points(1).repeat(4, 1).requires_grad_()
    (align_loss(one_place, one_place.detach(), alpha) + uniform_loss(one_place, 2.0)).backward()
    assert one_place.grad is not None
    assert one_place.grad.isfinite().all()


def test_the_task_weighs_alignment_and_the_uniformity_of_both_views() -> None:
    views = [torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    index = torch.arange(8)
    batch = Batch(views, index, -torch.ones_like(index), SampleRandom.keyed(0, 0, index), Progress(0, 1, 0, 1))
    task = AlignUniform(Flat(), FACTS, align_weight=3.0, uniform_weight=0.5, t=3.0)
    first, second = F.normalize(task.projector(task.encoder(torch.cat(views))), dim=1).chunk(2)
    uniformity = (uniform_loss(first, 3.0) + uniform_loss(second, 3.0)) / 2
    expected = 3.0 * align_loss(first, second, 2.0) + 0.5 * uniformity
    torch.testing.assert_close(task(batch).loss, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"align_weight": -1.0}, "align_weight must not be negative, got -1.0"),
        ({"uniform_weight": -1.0}, "uniform_weight must not be negative, got -1.0"),
        ({"alpha": 0.5}, "alpha must be at least 1, got 0.5"),
        ({"t": 0.0}, "t must be positive, got 0.0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=f"align_uniform: {message}"):
        AlignUniform(Flat(), FACTS, **options)
