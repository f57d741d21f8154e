import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clvr_bench import ResidentSplit
from clvr_plugins.evaluations import health
from clvr_plugins.evaluations.health import Health, fixed_order, positive_views

Clouds = Callable[..., Any]


def test_collapsed_features_are_flagged_by_every_sign(clouds: Clouds) -> None:
    frozen = clouds()
    features, labels = frozen.tables["test"]
    frozen.tables["test"] = (torch.ones_like(features), labels)
    frozen.encoder = lambda views: torch.ones(len(views), 12)
    metrics = Health()(frozen).metrics
    expected = {"rankme": 1.0, "spread": 0.0, "alignment": 0.0, "uniformity": 0.0}
    assert metrics == pytest.approx(expected, abs=1e-3)


def test_isotropic_features_have_full_rank_and_spread(clouds: Clouds) -> None:
    metrics = Health()(clouds(apart=0.0)).metrics
    assert metrics["rankme"] > 11
    assert metrics["spread"] == pytest.approx(1.0, abs=0.05)
    assert -4 < metrics["uniformity"] < -2.5


def test_labels_are_not_looked_at(clouds: Clouds) -> None:
    frozen = clouds()
    scores = Health()(frozen)
    assert frozen.asked == [("features", "test")]
    assert scores.predictions is None


def test_two_representations_are_judged_on_the_same_views(clouds: Clouds) -> None:
    seen: list[list[Tensor]] = []
    for seed in (0, 1):
        frozen = replace(clouds(seed=seed), seed=seed)
        views: list[Tensor] = []
        frozen.encoder = lambda batch, views=views: views.append(batch) or batch.mean((2, 3))
        Health()(frozen)
        seen.append(views)
    assert len(seen[0]) == 2
    assert all(torch.equal(first, second) for first, second in zip(*seen, strict=True))


def test_views_do_not_depend_on_the_pictures_beside_them(clouds: Clouds) -> None:
    frozen = clouds()
    together = positive_views(frozen, torch.tensor([3, 7, 11]))
    alone = positive_views(frozen, torch.tensor([7]))
    torch.testing.assert_close([view[1:2] for view in together], alone)


def test_a_pair_is_two_different_views_of_one_picture(clouds: Clouds) -> None:
    first, second = positive_views(clouds(), torch.arange(20))
    assert first.shape == second.shape == (20, 3, 8, 8)
    assert first.min() >= 0
    assert first.max() <= 1
    assert (first - second).flatten(1).abs().amax(1).min() > 0.01


def test_alignment_pairs_each_picture_with_itself(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded by position, both views of a picture agree; a shuffle within or between batches would show."""
    monkeypatch.setattr(health, "BATCH", 40)
    frozen = clouds()
    pixels = torch.zeros(150, 3, 12, 12, dtype=torch.uint8)
    pixels[:, 0] = torch.arange(150, dtype=torch.uint8)[:, None, None]  # a picture's colour is its number
    monkeypatch.setattr(type(frozen), "split", lambda self, split: ResidentSplit(pixels, self.tables[split][1]))
    frozen.encoder = lambda views: torch.stack([(views[:, 0, 0, 0] * 255).cos(), (views[:, 0, 0, 0] * 255).sin()], 1)
    scores = Health()(frozen)
    assert scores.metrics["alignment"] == pytest.approx(0.0, abs=1e-4)
    assert scores.details["pairs"] == 150


def test_no_more_samples_are_used_than_stated(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "SAMPLES", 40)
    monkeypatch.setattr(health, "PAIRS", 30)
    monkeypatch.setattr(health, "BATCH", 20)
    details = Health()(clouds()).details
    assert details["samples"] == 40
    assert details["pairs"] == 30


def test_the_order_of_samples_is_a_permutation_that_never_changes() -> None:
    order = fixed_order(100)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != list(range(100))
    assert torch.equal(order, fixed_order(100))


def test_every_metric_is_a_finite_number(clouds: Clouds) -> None:
    metrics = Health()(clouds()).metrics
    assert set(metrics) == {"rankme", "spread", "alignment", "uniformity"}
    assert all(math.isfinite(value) for value in metrics.values())
