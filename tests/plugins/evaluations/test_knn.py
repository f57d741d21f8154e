from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from clvr_plugins.evaluations.knn import WeightedKnn, neighbors

Clouds = Callable[..., Any]


def test_well_separated_classes_score_near_100_percent(clouds: Clouds) -> None:
    assert WeightedKnn()(clouds(apart=20.0)).metrics["top1"] > 99


def test_features_without_information_score_near_chance(clouds: Clouds) -> None:
    assert WeightedKnn()(clouds(apart=0.0)).metrics["top1"] < 25


def test_metrics_follow_from_predictions_and_labels(clouds: Clouds) -> None:
    frozen = clouds(apart=3.0)
    scores, labels = WeightedKnn()(frozen), frozen.tables["test"][1]
    assert scores.predictions is not None
    assert scores.predictions.shape == (150, 5)
    first = (scores.predictions[:, 0] == labels).float().mean().item()
    five = sum(label in row for row, label in zip(scores.predictions, labels, strict=True)) / len(labels)
    assert scores.metrics["top1"] == pytest.approx(100 * first)
    assert scores.metrics["top5"] == pytest.approx(100 * five)


def test_top5_is_left_out_for_five_classes(clouds: Clouds) -> None:
    scores = WeightedKnn()(clouds(classes=5))
    assert set(scores.metrics) == {"top1"}


def test_val_is_not_looked_at(clouds: Clouds) -> None:
    frozen = clouds()
    WeightedKnn()(frozen)
    assert {split for _, split in frozen.asked} == {"train", "test"}


def test_labels_of_test_change_no_prediction(clouds: Clouds) -> None:
    plain = clouds()
    features, labels = plain.tables["test"]
    flipped = replace(plain, tables={**plain.tables, "test": (features, labels.flip(0))})
    first, second = WeightedKnn()(plain), WeightedKnn()(flipped)
    assert torch.equal(first.predictions, second.predictions)
    assert first.metrics != second.metrics


@pytest.mark.parametrize(("samples", "classes", "k"), [(47_500, 10, 200), (3_800, 10, 190), (100, 10, 5), (12, 10, 1)])
def test_k_is_200_or_half_a_class(samples: int, classes: int, k: int) -> None:
    assert neighbors(samples, classes) == k


def test_details_state_k_and_temperature(clouds: Clouds) -> None:
    assert WeightedKnn()(clouds()).details == {"k": 20, "temperature": 0.07}
