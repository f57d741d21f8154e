"""Every rule about evaluations, broken by an evaluation that breaks it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clvr_bench import Evaluation, Scores
from clvr_bench.ops.knn import weighted_knn
from clvr_bench.registry import Kind
from clvr_bench.testing import Finding, evaluations
from tests.clvr_bench.testing.conftest import failing

Check = Callable[..., dict[str, Finding]]


class Sound(Evaluation):
    """Nearest neighbours; keeps every rule."""

    fitted_on = "train"

    def scores(self, frozen: Any) -> Any:
        train, test = frozen.features("train"), frozen.features("test")
        return weighted_knn(train, frozen.labels("train"), test, frozen.num_classes, 5)

    def top1(self, predictions: Any, labels: Any) -> float:
        return 100 * (predictions[:, 0] == labels).float().mean().item()

    def __call__(self, frozen: Any) -> Scores:
        predictions = self.scores(frozen).argsort(dim=1, descending=True)
        return Scores({"top1": self.top1(predictions, frozen.labels("test"))}, predictions)


class DividesByNothing(Sound):
    def top1(self, predictions: Any, labels: Any) -> float:
        return float("nan")


class GivesAShare(Sound):
    def top1(self, predictions: Any, labels: Any) -> float:
        return super().top1(predictions, labels) / 100


class Guesses(Sound):
    def scores(self, frozen: Any) -> Any:
        return torch.eye(4)[torch.arange(100) // 25]


class GuessesWithFewLabels(Guesses):
    def __call__(self, frozen: Any) -> Scores:
        return Scores({"top1_1pct": super().__call__(frozen).metrics["top1"]})


class LooksAtTheTestLabels(Sound):
    def scores(self, frozen: Any) -> Any:
        return torch.eye(4)[frozen.labels("test")]


class CountsOtherwise(Sound):
    def top1(self, predictions: Any, labels: Any) -> float:
        return super().top1(predictions, labels) - 1


class DrawsFromTorch(Sound):
    def top1(self, predictions: Any, labels: Any) -> float:
        return super().top1(predictions, labels) - torch.rand(()).item()


class TrainsTheRepresentation(Sound):
    def __call__(self, frozen: Any) -> Scores:
        scores = super().__call__(frozen)
        frozen.representation.train()(torch.rand(4, 3, 4, 4))
        return scores


class ForgetsTheMode(Sound):
    def __call__(self, frozen: Any) -> Scores:
        frozen.representation.train()
        return super().__call__(frozen)


class OnlyDescribes(Evaluation):
    def __call__(self, frozen: Any) -> Scores:
        return Scores({"spread": frozen.features("test").std().item()})


BREACHES: list[tuple[Any, str, str]] = [
    (DividesByNothing, "it gives finite metrics", "Not finite: top1."),
    (GivesAShare, "accuracies are in percent", "{'top1': 1.0}"),
    (Guesses, "features that tell the classes apart score high, others near chance", "apart score 28.0."),
    (
        GuessesWithFewLabels,
        "features that tell the classes apart score high, others near chance",
        "apart score 28.0.",
    ),
    (LooksAtTheTestLabels, "features that tell the classes apart score high, others near chance", "score 100.0, where"),
    (CountsOtherwise, "predictions are class numbers of the test samples, best first", "top1 says 99.0"),
    (DrawsFromTorch, "judging twice gives the same", "then {'top1'"),
    (TrainsTheRepresentation, "the representation stays as it is", "Its state changed."),
    (ForgetsTheMode, "the representation stays as it is", "It was left in train mode."),
]


@pytest.mark.parametrize("evaluation", [Sound, OnlyDescribes], ids=lambda factory: factory.__name__)
def test_a_sound_evaluation_keeps_every_rule(findings: Check, evaluation: Any) -> None:
    assert failing(findings(Kind.EVALUATION, evaluation)) == {}


@pytest.mark.parametrize(("evaluation", "title", "found"), BREACHES, ids=[f"{b[0].__name__}" for b in BREACHES])
def test_a_breach_is_found_and_named(findings: Check, evaluation: Any, title: str, found: str) -> None:
    finding = findings(Kind.EVALUATION, evaluation, only=title)[title]
    assert finding.state == "fails"
    assert found in finding.detail
    assert finding.advice


def test_every_rule_can_fail() -> None:
    assert {rule.title for rule in evaluations.RULES} == {title for _, title, _ in BREACHES}
