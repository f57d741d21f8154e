from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import ClvrBenchError
from clvr_bench.toolbox import LabelledCrops
from clvr_plugins.evaluations import linear_sgd
from clvr_plugins.evaluations.linear_sgd import LinearSgd
from tests.plugins.evaluations.conftest import Streamed, frozen_pictures, small_network

QUICK: dict[str, Any] = {"epochs": 12, "batch_size": 20}


def test_mocos_preset_is_the_papers_recipe() -> None:
    recipe = LinearSgd().recipe
    assert recipe == LinearSgd(preset="moco").recipe
    assert (recipe.epochs, recipe.batch_size, recipe.peak_rate) == (100, 256, 30.0)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, False, 0.0)
    rates = [recipe.rate(epoch / 100) for epoch in range(100)]
    assert rates == pytest.approx([30.0] * 60 + [3.0] * 20 + [0.3] * 20)


def test_simclrs_preset_is_the_papers_recipe() -> None:
    recipe = LinearSgd(preset="simclr").recipe
    assert (recipe.epochs, recipe.batch_size) == (90, 4096)
    assert recipe.peak_rate == pytest.approx(0.1 * 4096 / 256)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, True, 0.0)
    assert [recipe.rate(part) for part in (0, 0.5, 1)] == pytest.approx([1.6, 0.8, 0.0])


def test_options_override_a_preset_one_by_one() -> None:
    recipe = LinearSgd(preset="simclr", epochs=7, batch_size=512).recipe
    assert (recipe.epochs, recipe.nesterov, recipe.schedule) == (7, True, "cosine")
    assert recipe.peak_rate == pytest.approx(0.2)
    recipe = LinearSgd(learning_rate=1.0, weight_decay=1e-4, schedule="constant").recipe
    assert (recipe.peak_rate, recipe.weight_decay, recipe.rate(0.9), recipe.epochs) == (1.0, 1e-4, 1.0, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "linear_sgd: epochs must be at least 1, got 0. The default here is 100."),
        (
            {"learning_rate": -1.0},
            "linear_sgd: learning_rate must be a positive number, got -1.0. The default here is 30.",
        ),
        (
            {"preset": "simclr", "learning_rate": 0.0},
            "linear_sgd: learning_rate must be a positive number, got 0.0. The default here is 0.1.",
        ),
        ({"batch_size": 1}, "linear_sgd: batch_size must be at least 2, got 1. The default here is 256."),
    ],
)
def test_a_bad_option_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError) as refusal:
        LinearSgd(**options)
    assert str(refusal.value) == message


def test_pictures_of_different_colours_are_told_apart_and_noise_is_not() -> None:
    assert LinearSgd(**QUICK)(frozen_pictures()).metrics["top1"] > 95
    assert LinearSgd(**QUICK)(frozen_pictures(telling=False)).metrics["top1"] < 60


def test_metrics_follow_from_predictions_and_labels() -> None:
    frozen = frozen_pictures(classes=7)
    scores, labels = LinearSgd(epochs=1, batch_size=20)(frozen), frozen.labels("test")
    assert scores.predictions is not None
    assert scores.predictions.shape == (60, 5)
    assert scores.metrics["top1"] == pytest.approx(100 * (scores.predictions[:, 0] == labels).double().mean().item())
    hits = [label in row for row, label in zip(scores.predictions.tolist(), labels.tolist(), strict=True)]
    assert scores.metrics["top5"] == pytest.approx(100 * sum(hits) / 60)


def test_the_classifier_is_fitted_on_train_and_val_together() -> None:
    """Class 0 is absent from train, so only val, which has one sample of each class, can teach it."""
    frozen = frozen_pictures()
    labels = frozen.labels("train")
    frozen.split("train").labels = torch.where((labels > 0) & (torch.arange(len(labels)) < 9), labels, -1)
    scores = LinearSgd(epochs=100, batch_size=9)(frozen)
    assert scores.predictions is not None
    assert scores.details["samples"] == 6 + 3
    assert (scores.predictions[frozen.labels("test") == 0, 0] == 0).all()


class Noting(nn.Module):
    """Remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = small_network(), list[tuple[int, bool, bool, torch.dtype]]()

    def forward(self, views: Tensor) -> Tensor:
        features: Tensor = self.network(views)
        self.calls.append((len(views), self.training, torch.is_grad_enabled(), features.dtype))
        return features


def test_the_encoder_runs_anew_on_every_crop_in_eval_mode_without_a_gradient_in_the_runs_precision() -> None:
    encoder = Noting()
    scores = LinearSgd(epochs=3, batch_size=20)(frozen_pictures(encoder, precision="bf16"))
    assert encoder.calls == [(count, False, False, torch.bfloat16) for count in (60, *[20] * 12)]
    assert scores.details["encoder_passes"] == 240


def test_a_large_batch_is_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LinearSgd(epochs=3, batch_size=40)(frozen_pictures())
    monkeypatch.setattr(linear_sgd, "ENCODED_AT_ONCE", 16)
    encoder = Noting()
    parts = LinearSgd(epochs=3, batch_size=40)(frozen_pictures(encoder))
    assert [count for count, *_ in encoder.calls] == [60, *[16, 16, 8] * 6]
    assert parts.details["losses"] == pytest.approx(whole.details["losses"], rel=1e-4)


def test_the_representation_is_untouched() -> None:
    frozen = frozen_pictures()
    before = {name: tensor.clone() for name, tensor in frozen.representation.state_dict().items()}
    LinearSgd(**QUICK)(frozen)
    for name, tensor in frozen.representation.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not frozen.representation.training


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    first, second, other = (LinearSgd(**QUICK)(frozen_pictures(seed=seed)) for seed in (0, 0, 1))
    assert first.details["losses"] == second.details["losses"] != other.details["losses"]
    assert torch.equal(first.predictions, second.predictions)  # type: ignore[arg-type]


def test_labels_of_test_change_its_score_and_nothing_else() -> None:
    frozen, flipped = frozen_pictures(), frozen_pictures()
    flipped.split("test").labels = (flipped.labels("test") + 1) % 3
    plain, other = LinearSgd(**QUICK)(frozen), LinearSgd(**QUICK)(flipped)
    assert torch.equal(plain.predictions, other.predictions)  # type: ignore[arg-type]
    assert plain.metrics != other.metrics


def test_streamed_splits_are_walked_as_announced_and_give_the_same_numbers() -> None:
    streamed = frozen_pictures(streamed=True)
    scores, resident = LinearSgd(**QUICK)(streamed), LinearSgd(**QUICK)(frozen_pictures())
    assert scores.metrics == resident.metrics
    assert scores.details["losses"] == resident.details["losses"]
    walks = {name: streamed.split(name) for name in ("train", "val", "test")}
    assert {name: split.walks for name, split in walks.items() if isinstance(split, Streamed)} == {
        "train": 12, "val": 12, "test": 1,
    }  # fmt: skip


def test_crops_are_drawn_with_the_runs_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str, int]] = []
    build: Callable[..., None] = LabelledCrops.__init__

    def noting(self: LabelledCrops, splits: Any, size: int, *, seed: int, purpose: str, **options: Any) -> None:
        seen.append((size, purpose, seed))
        build(self, splits, size, seed=seed, purpose=purpose, **options)

    monkeypatch.setattr(LabelledCrops, "__init__", noting)
    LinearSgd(epochs=1)(frozen_pictures(seed=5))
    assert seen == [(8, "linear_sgd", 5)]


def test_details_tell_the_recipe_the_history_and_the_cost() -> None:
    details = json.loads(json.dumps(LinearSgd(**QUICK)(frozen_pictures()).details, allow_nan=False))
    assert details["recipe"]["learning_rate"] == 30.0
    assert details["recipe"]["peak_rate"] == pytest.approx(30 * 20 / 256)
    assert len(details["losses"]) == 12
    assert details["losses"][-1] < details["losses"][0]
    assert (details["samples"], details["steps"], details["encoder_passes"]) == (80, 48, 960)
    assert details["seconds"] > 0


def test_a_set_too_small_for_the_recipe_is_noted() -> None:
    assert LinearSgd()(frozen_pictures(train=40)).notes == (
        "only 100 optimizer steps on 40 samples: so few need more epochs.",
    )
