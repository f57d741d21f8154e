from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import ClvrBenchError
from clvr_bench.toolbox import labelled_subset
from clvr_plugins.evaluations import finetune
from clvr_plugins.evaluations.finetune import Finetune, Tuned
from tests.plugins.evaluations.conftest import Streamed, frozen_pictures

QUICK: dict[str, Any] = {"epochs": 12, "batch_size": 20, "learning_rate": 1.0}


@pytest.mark.parametrize(("fraction", "epochs"), [(0.01, 60), (0.001, 60), (0.02, 30), (0.1, 30), (1.0, 30)])
def test_the_defaults_are_simclrs_recipe(fraction: float, epochs: int) -> None:
    recipe = Finetune(fraction=fraction).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.peak_rate) == (epochs, 256, 0.05)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay, recipe.schedule) == (0.9, True, 0.0, "cosine")
    assert Finetune(batch_size=4096).recipe.peak_rate == pytest.approx(0.8)


def test_options_override_the_recipe() -> None:
    recipe = Finetune(fraction=0.01, epochs=5, learning_rate=0.2, weight_decay=1e-4, schedule="steps").recipe
    assert (recipe.epochs, recipe.peak_rate, recipe.weight_decay, recipe.schedule) == (5, 0.2, 1e-4, "steps")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "finetune: fraction must be above 0 and at most 1, got 0.0. Typical: 0.01, 0.1, 1."),
        ({"fraction": 2.0}, "finetune: fraction must be above 0 and at most 1, got 2.0. Typical: 0.01, 0.1, 1."),
        ({"epochs": 0}, "finetune: epochs must be at least 1, got 0. The default here is 30."),
        (
            {"learning_rate": 0.0},
            "finetune: learning_rate must be a positive number, got 0.0. The default here is 0.05.",
        ),
    ],
)
def test_a_bad_option_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError) as refusal:
        Finetune(**options)
    assert str(refusal.value) == message


def test_pictures_of_different_colours_are_told_apart_and_noise_is_not() -> None:
    assert Finetune(**QUICK)(frozen_pictures()).metrics["top1"] > 95
    assert Finetune(**QUICK)(frozen_pictures(telling=False)).metrics["top1"] < 60


def test_the_representation_learns_too() -> None:
    """Of a representation that gives every picture the same features no head could tell anything apart."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    nn.init.zeros_(network[1].weight)
    nn.init.ones_(network[1].bias)
    frozen = frozen_pictures(network)
    scores = Finetune(**{**QUICK, "epochs": 40})(frozen)
    assert torch.equal(frozen.features("test"), torch.ones(60, 4))
    assert scores.metrics["top1"] > 95


def test_the_frozen_representation_stays_the_same_to_the_bit() -> None:
    frozen = frozen_pictures()
    before = copy.deepcopy(frozen.representation.state_dict())
    Finetune(**QUICK)(frozen)
    after = frozen.representation.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in frozen.representation.parameters())
    assert not any(part.training for part in frozen.representation.modules())


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[Tuned]:
    """The copies that are trained from here on."""
    kept: list[Tuned] = []

    class Kept(Tuned):
        def __init__(self, frozen: Any) -> None:
            super().__init__(frozen)
            kept.append(self)

    monkeypatch.setattr(finetune, "Tuned", Kept)
    return kept


def test_the_copy_is_trained_whole_and_in_train_mode(tuned: list[Tuned]) -> None:
    frozen = frozen_pictures()
    Finetune(**QUICK)(frozen)
    before, after = frozen.representation.state_dict(), tuned[0].representation.state_dict()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert after["0.num_batches_tracked"] == 48  # BatchNorm's statistics moved at every step, and not on test


def test_labelled_samples_are_the_first_draw_of_the_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    train = finetune.train_classifier
    monkeypatch.setattr(
        finetune, "train_classifier", lambda n, p, crops, r: seen.append(crops) or train(n, p, crops, r)
    )
    frozen = frozen_pictures(seed=4)
    labels = torch.cat([frozen.labels("train"), frozen.labels("val")])
    scores = Finetune(fraction=0.1, **QUICK)(frozen)
    assert torch.equal(seen[0].samples, labelled_subset(labels, 0.1, seed=4))
    assert scores.details["samples"] == len(seen[0].samples) == 9  # 27, 27 and 26 samples give 3 each
    assert labels[seen[0].samples].bincount().tolist() == [3, 3, 3]


def test_all_labels_are_train_and_val() -> None:
    assert Finetune(**QUICK)(frozen_pictures()).details["samples"] == 80


def test_metrics_follow_from_predictions_and_labels() -> None:
    frozen = frozen_pictures(classes=7)
    scores, labels = Finetune(epochs=2, batch_size=20)(frozen), frozen.labels("test")
    assert scores.predictions is not None
    assert (scores.predictions.shape, scores.predictions.dtype) == ((60, 5), torch.int64)
    assert scores.metrics["top1"] == pytest.approx(100 * (scores.predictions[:, 0] == labels).double().mean().item())
    assert set(scores.metrics) == {"top1", "top5"}


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    first, second, other = (Finetune(**QUICK)(frozen_pictures(seed=seed)) for seed in (0, 0, 1))
    assert first.details["losses"] == second.details["losses"] != other.details["losses"]
    assert torch.equal(first.predictions, second.predictions)  # type: ignore[arg-type]


def test_labels_of_test_change_its_score_and_nothing_else() -> None:
    frozen, flipped = frozen_pictures(), frozen_pictures()
    flipped.split("test").labels = (flipped.labels("test") + 1) % 3
    plain, other = Finetune(**QUICK)(frozen), Finetune(**QUICK)(flipped)
    assert torch.equal(plain.predictions, other.predictions)  # type: ignore[arg-type]
    assert plain.metrics != other.metrics


class Precise(nn.Module):
    """Pixels through a linear layer; remembers in which precision."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(3 * 8 * 8, 4), set[torch.dtype]()

    def forward(self, views: Tensor) -> Tensor:
        features: Tensor = self.layer(views.flatten(1))
        self.seen.add(features.dtype)
        return features

    def __deepcopy__(self, memo: Any) -> Precise:
        twin = Precise()
        twin.load_state_dict(self.state_dict())
        twin.seen = self.seen
        return twin


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_it_runs_in_the_runs_precision_on_a_cpu(precision: str, dtype: torch.dtype) -> None:
    network = Precise()
    scores = Finetune(**{**QUICK, "epochs": 30})(frozen_pictures(network, precision=precision))
    assert network.seen == {dtype}
    assert scores.metrics["top1"] > 90


def test_a_representation_without_parameters_gets_a_linear_head_and_a_note() -> None:
    scores = Finetune(epochs=100, batch_size=20)(frozen_pictures(nn.Flatten()))
    assert scores.metrics["top1"] > 90
    assert scores.notes == ("the representation has no parameters, so the linear head alone was trained.",)


def test_weights_decay_and_biases_and_normalization_do_not(tuned: list[Tuned]) -> None:
    frozen = frozen_pictures()
    Finetune(epochs=5, batch_size=20, learning_rate=0.01, weight_decay=100.0)(frozen)
    before, after = frozen.representation.state_dict(), tuned[0].representation.state_dict()
    torch.testing.assert_close(after["0.weight"], before["0.weight"], atol=0.05, rtol=0)
    assert after["1.weight"].abs().max() < 0.3 * before["1.weight"].abs().max()


def test_streamed_splits_are_walked_as_announced_and_give_the_same_numbers() -> None:
    streamed = frozen_pictures(streamed=True)
    scores, resident = Finetune(fraction=0.5, **QUICK)(streamed), Finetune(fraction=0.5, **QUICK)(frozen_pictures())
    assert scores.details["losses"] == resident.details["losses"]
    assert scores.metrics == resident.metrics
    test = streamed.split("test")
    assert isinstance(test, Streamed)
    assert test.walks == 2  # once for the features' dimension, once for the fine-tuned network's predictions


def test_details_can_be_written_as_strict_json_and_few_steps_are_noted() -> None:
    scores = Finetune(fraction=0.01)(frozen_pictures())
    details = json.loads(json.dumps(scores.details, allow_nan=False))
    assert (details["fraction"], details["samples"], details["steps"]) == (0.01, 3, 60)
    assert scores.notes == ("only 60 optimizer steps on 3 samples: so few need more epochs.",)
