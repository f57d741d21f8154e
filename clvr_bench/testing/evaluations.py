"""What holds for every evaluation."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn

from clvr_bench.contracts.dataset import Dataset, ResidentSplit
from clvr_bench.contracts.evaluation import Scores
from clvr_bench.data import Data, prepare
from clvr_bench.draws import SampleRandom
from clvr_bench.features import FrozenRepresentation
from clvr_bench.testing.checks import NotApplicable, require, rule
from clvr_bench.testing.stage import CPU
from clvr_bench.testing.subject import Subject
from clvr_bench.testing.task_trial import changed, state_of

CLASSES, TRAIN, TEST, SIDE = 4, 200, 100, 4
LEAST_TOP1 = 90.0  # percent, of features that tell the classes apart
MOST_TOP1 = 50.0  # percent, of features that tell nothing: chance is 25, its deviation on 100 samples 4.3


class _Patches(Dataset):
    """Pictures of noise on a class's own color, or on none."""

    image_size = SIDE
    class_names = ("one", "two", "three", "four")

    def __init__(self, telling: bool) -> None:
        self._telling = telling

    @property
    def train(self) -> ResidentSplit:
        return self._draw(TRAIN, "train")

    @property
    def test(self) -> ResidentSplit:
        return self._draw(TEST, "test")

    def _draw(self, count: int, split: str) -> ResidentSplit:
        labels = torch.arange(count) % CLASSES
        colors = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200], [190, 190, 60]])
        noise = SampleRandom.keyed(0, 0, torch.arange(count)).scoped(split)("noise").uniform(3, SIDE, SIDE)
        ground = colors[labels] if self._telling else torch.full((count, 3), 100)
        return ResidentSplit((ground[:, :, None, None] + 50 * noise).to(torch.uint8), labels)


class EvaluationTrial:
    """An evaluation and two frozen representations: one that tells the classes apart, one that tells nothing.

    Args:
        subject: The registered evaluation.
    """

    def __init__(self, subject: Subject) -> None:
        self._choice = subject.choice()

    def judge(self, telling: bool = True) -> tuple[Scores, FrozenRepresentation]:
        """Judge pixels as features."""
        frozen = FrozenRepresentation(pixels_and_norm(), _data(telling), CPU, "fp32", seed=0)
        scores = self._choice.entry.factory(**self._choice.options)(frozen)
        require(isinstance(scores, Scores), f"It returned {type(scores).__name__}, not Scores.")
        return scores, frozen

    def run(self) -> Scores:
        """Judge what tells the classes apart, once."""
        return self._scores

    @cached_property
    def _scores(self) -> Scores:
        return self.judge()[0]

    @property
    def scores(self) -> Scores:
        """The scores, for rules that mean nothing without.

        Raises:
            NotApplicable: It fails.
        """
        try:
            return self.run()
        except Exception:
            raise NotApplicable("It gives no scores.") from None


def pixels_and_norm() -> nn.Module:
    """Return a network that has state to lose: pixels, flattened and normalized."""
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * SIDE * SIDE))


def _data(telling: bool) -> Data:
    return prepare("patches", _Patches(telling), CPU)


@rule("it gives finite metrics", "Return Scores(metrics={name: number}).")
def gives_finite_metrics(trial: EvaluationTrial) -> None:
    """Judge features that tell the classes apart."""
    metrics = trial.run().metrics
    require(metrics, "There are no metrics.")
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    require(not wrong, f"Not finite: {', '.join(wrong)}.")


@rule("accuracies are in percent", "Multiply by 100: 93.1, not 0.931.")
def accuracies_are_in_percent(trial: EvaluationTrial) -> None:
    """Look at the metrics that have a top1 or top5 in their names."""
    accuracies = _accuracies(trial.scores)
    require(all(0 <= value <= 100 for value in accuracies.values()), f"{accuracies}")
    require(max(accuracies.values()) > 1, f"{accuracies}")


def _accuracies(scores: Scores) -> dict[str, float]:
    parts = {name: name.split("_") for name in scores.metrics}
    found = {name: scores.metrics[name] for name in parts if any(part.startswith("top") for part in parts[name])}
    if not found:
        raise NotApplicable("It gives no accuracy (a metric top1, top5, top1_1pct, ...).")
    return found


def _main_top1(scores: Scores) -> str:
    """Name the top-1 that is judged: ``top1``, or else the first one of a kind."""
    found = [name for name in _accuracies(scores) if "top1" in name.split("_")]
    if not found:
        raise NotApplicable("It gives no top1.")
    return "top1" if "top1" in found else found[0]


@rule(
    "features that tell the classes apart score high, others near chance", "Is it fitted on train and scored on test?"
)
def scores_tell_features_apart(trial: EvaluationTrial) -> None:
    """Judge telling and untelling features."""
    scores = trial.scores
    name = _main_top1(scores)
    high, low = scores.metrics[name], trial.judge(telling=False)[0].metrics[name]
    require(high >= LEAST_TOP1, f"Features that tell the classes apart score {high:.1f}.")
    require(low <= MOST_TOP1, f"Features that tell nothing score {low:.1f}, where chance is {100 / CLASSES:.0f}.")


@rule("predictions are class numbers of the test samples, best first", "predictions must be (N, k) int64, or None.")
def predictions_are_classes(trial: EvaluationTrial) -> None:
    """Look at the predictions, and count the right ones again."""
    scores = trial.scores
    if scores.predictions is None:
        raise NotApplicable("It predicts nothing.")
    predictions: Tensor = scores.predictions
    right_shape = predictions.ndim == 2 and len(predictions) == TEST and predictions.dtype == torch.int64
    require(right_shape, f"They are {predictions.dtype} of shape {tuple(predictions.shape)}.")
    require(((predictions >= 0) & (predictions < CLASSES)).all(), "Some are no class.")
    if "top1" in scores.metrics:
        top1 = 100 * (predictions[:, 0].cpu() == torch.arange(TEST) % CLASSES).float().mean().item()
        require(abs(top1 - scores.metrics["top1"]) < 0.01, f"They give {top1:.2f}, top1 says {scores.metrics['top1']}.")


@rule("judging twice gives the same", "Draw from frozen.seed alone.")
def judging_twice_gives_the_same(trial: EvaluationTrial) -> None:
    """Judge again after other random numbers were drawn."""
    torch.manual_seed(123)
    again = trial.judge()[0].metrics
    require(dict(trial.scores.metrics) == dict(again), f"{dict(trial.scores.metrics)}, then {dict(again)}.")


@rule("the representation stays as it is", "Never train, move or switch the mode of frozen.representation; copy it.")
def the_representation_stays(trial: EvaluationTrial) -> None:
    """Compare the representation before and after."""
    _ = trial.scores
    before = state_of(pixels_and_norm())
    representation = trial.judge()[1].representation
    require(not changed(before, state_of(representation)), "Its state changed.")
    require(not any(part.training for part in representation.modules()), "It was left in train mode.")


RULES = (
    gives_finite_metrics,
    accuracies_are_in_percent,
    scores_tell_features_apart,
    predictions_are_classes,
    judging_twice_gives_the_same,
    the_representation_stays,
)
