"""Every rule about pretext tasks, broken by a task that breaks it alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clvr_bench import Phase, PretextTask, StepOutput, decay_groups
from clvr_bench.registry import Kind
from clvr_bench.testing import Finding, pretext_tasks
from tests.clvr_bench.testing.conftest import failing

Check = Callable[..., dict[str, Finding]]


class Sound(PretextTask):
    """Tells the four turns of a picture apart; keeps every rule."""

    views = 1
    separable = True
    default_augmentation = "none"

    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.feature_dim, 4)

    def logits(self, batch: Any) -> Any:
        turned = torch.cat([batch.views[0].rot90(quarter, dims=(-2, -1)) for quarter in range(4)])
        return self.head(self.encoder(turned)).float()

    def loss(self, batch: Any) -> Any:
        return F.cross_entropy(self.logits(batch), torch.arange(4).repeat_interleave(len(batch)))

    def forward(self, batch: Any) -> StepOutput:
        return StepOutput(self.loss(batch))


class NeedsAResNet(Sound):
    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.stem = encoder.network.conv1


class NeedsATransformer(Sound):
    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.blocks = encoder.network.blocks


class LosesNumbers(Sound):
    def loss(self, batch: Any) -> Any:
        return super().loss(batch) * float("nan")


class OverflowsInBf16(Sound):
    def forward(self, batch: Any) -> StepOutput:
        probability = (self.head(self.encoder(batch.views[0])).tanh() + 7).sigmoid()  # rounds to 1 in bf16
        return StepOutput(-torch.log(1 - probability).mean())


class HasAnIdlePart(Sound):
    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.idle = nn.Linear(4, 4)


class TrainsOnlyItsHead(Sound):
    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        return decay_groups(self.head)


class OptimizesAFrozenPart(Sound):
    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters())}]


class _Counts(Sound):
    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.register_buffer("count", torch.zeros(()))


class MovesStateInForward(_Counts):
    def forward(self, batch: Any) -> StepOutput:
        self.count += 1
        return StepOutput(self.loss(batch))


class MovesWhatItDoesNotDeclare(_Counts):
    def after_step(self, kept: Any, progress: Any) -> None:
        self.count += 1


class PreparesWhatItDoesNotDeclare(_Counts):
    def before_epoch(self, epoch: Any) -> None:
        self.count += 1


class DeclaresWhatStays(_Counts):
    moves = ("count",)


class MovesAsDeclared(_Counts):
    moves = ("count",)

    def after_step(self, kept: Any, progress: Any) -> None:
        self.count += 1


class LeavesOutWhatItWouldMove(_Counts):
    """Moves nothing, as an option of it says, though its class moves something by default."""

    moves = ("count",)

    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.moves = ()


_EVER_OTHER = itertools.count()


class IsNeverTheSame(Sound):
    def loss(self, batch: Any) -> Any:
        return super().loss(batch) * (1 + next(_EVER_OTHER))


class DrawsFromTorch(Sound):
    def loss(self, batch: Any) -> Any:
        return super().loss(batch) + torch.rand(())


class DrawsByPosition(Sound):
    def loss(self, batch: Any) -> Any:
        weight = torch.linspace(0, 1, len(batch)).repeat(4)
        target = torch.arange(4).repeat_interleave(len(batch))
        return (F.cross_entropy(self.logits(batch), target, reduction="none") * weight).mean()


class DropsOut(Sound):
    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(encoder.feature_dim, 4))


class ForgetsWhenResumed(Sound):
    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.steps = 0

    def after_step(self, kept: Any, progress: Any) -> None:
        self.steps += 1

    def loss(self, batch: Any) -> Any:
        return super().loss(batch) * (1 + self.steps)


class SavesTooLittle(Sound):
    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.scale = torch.rand(())

    def representation(self) -> nn.Module:
        return _Scaled(self.encoder, self.scale)


class _Scaled(nn.Module):
    def __init__(self, encoder: nn.Module, scale: Any) -> None:
        super().__init__()
        self.encoder, self.scale = encoder, scale

    def forward(self, images: Any) -> Any:
        return self.encoder(images) * self.scale


class EvaluatesInfinities(Sound):
    def representation(self) -> nn.Module:
        return _Scaled(self.encoder, torch.tensor(float("inf")))


class EvaluatesDifferences(Sound):
    def representation(self) -> nn.Module:
        return nn.Sequential(self.encoder, _WithoutMean())


class _WithoutMean(nn.Module):
    def forward(self, features: Any) -> Any:
        return features - features.mean(dim=0)


class IsNotSeparable(Sound):
    def loss(self, batch: Any) -> Any:
        return self.logits(batch).std(dim=0).mean()


class StandsStill(Sound):
    def loss(self, batch: Any) -> Any:
        loss = super().loss(batch)
        return loss - loss.detach() + 1


class Collapses(Sound):
    def loss(self, batch: Any) -> Any:
        return F.normalize(self.encoder(batch.views[0])).std(dim=0).mean() + 0 * super().loss(batch)


class SkipsEverything(Sound):
    @classmethod
    def skip_reason(cls, encoder: Any, data: Any) -> str:
        return "no encoder is good enough"


class HasTwoPhases(Sound):
    separable = False
    phases = (Phase("head", repeats=2), Phase("encoder"))

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        return decay_groups(self.head if phase == "head" else self.encoder)


class LeavesOutAPhase(Sound):
    """Has one of its class's two phases, as an option of it says; the other would find nothing to step."""

    phases = (Phase("adversary"), Phase("train"))

    def __init__(self, encoder: Any, data: Any) -> None:
        super().__init__(encoder, data)
        self.phases = (Phase("train"),)

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        assert phase == "train"
        return super().parameter_groups(phase)


class Previews(Sound):
    def preview(self, batch: Any) -> Any:
        return {"upright": batch.views[0], "turned": batch.views[0].rot90(1, dims=(-2, -1))}


class PreviewsAList(Sound):
    def preview(self, batch: Any) -> Any:
        return [batch.views[0]]


class PreviewsOneSample(Sound):
    def preview(self, batch: Any) -> Any:
        return {"first": batch.views[0][0]}


class PreviewsTooFew(Sound):
    def preview(self, batch: Any) -> Any:
        return {"half": batch.views[0][::2]}


class PreviewsNormalized(Sound):
    def preview(self, batch: Any) -> Any:
        return {"normalized": (batch.views[0] - self.encoder.mean) / self.encoder.std}


class PreviewsByTorchsGenerator(Sound):
    def preview(self, batch: Any) -> Any:
        return {"noise": torch.rand_like(batch.views[0])}


class PreviewsAndMoves(_Counts):
    def preview(self, batch: Any) -> Any:
        self.count += 1
        return {"view": batch.views[0]}


PREVIEW = "preview shows pictures of its samples, and moves nothing"
BREACHES = [
    (NeedsAResNet, "builds on a vision transformer, or says why not", "no attribute 'conv1'"),
    (NeedsATransformer, "builds on a ResNet, or says why not", "no attribute 'blocks'"),
    (LosesNumbers, "it trains with a finite loss", "the loss became NaN"),
    (SkipsEverything, "it trains with a finite loss", "It skips every encoder: no encoder is good enough"),
    (OverflowsInBf16, "the loss is finite in bf16", "the loss became NaN or infinite"),
    (HasAnIdlePart, "the gradient reaches every part that trains", "ever reached idle.bias, idle.weight."),
    (TrainsOnlyItsHead, "the gradient reaches no frozen part", "A gradient reached encoder."),
    (TrainsOnlyItsHead, "every part that trains has an optimizer", "No optimizer moves encoder."),
    (OptimizesAFrozenPart, "every part that trains has an optimizer", "frozen.weight, which is frozen"),
    (MovesStateInForward, "forward moves no state but normalization's", "forward moved count."),
    (MovesWhatItDoesNotDeclare, "queues, banks and targets move as declared", "Not declared, but moved: count."),
    (PreparesWhatItDoesNotDeclare, "queues, banks and targets move as declared", "Not declared, but moved: count."),
    (DeclaresWhatStays, "queues, banks and targets move as declared", "Declared, but never moved: count."),
    (IsNeverTheSame, "the same seed gives the same loss", "Twice the first epoch"),
    (DrawsFromTorch, "draws do not depend on the batch they come in", "drew from torch's own generator"),
    (DrawsByPosition, "draws do not depend on the batch they come in", "in another order"),
    (ForgetsWhenResumed, "interrupted and resumed equals uninterrupted", "differ."),
    (SavesTooLittle, "saved weights give the same features", "The features differ after loading."),
    (EvaluatesInfinities, "features are (B, D), finite, and do not depend on the batch they come in", "not finite"),
    (EvaluatesDifferences, "features are (B, D), finite, and do not depend on the batch they come in", "They depend"),
    (IsNotSeparable, "separable is true where it is claimed", "differ by"),
    (StandsStill, "the loss falls on a batch that is repeated", "it went from 1.0000 to 1.0000"),
    (Collapses, "the representation keeps its rank", "The features' effective rank fell"),
    (PreviewsAList, PREVIEW, "it returned list, not pictures by label"),
    (PreviewsOneSample, PREVIEW, "'first' is (3, 32, 32), not (B, C, H, W)"),
    (PreviewsTooFew, PREVIEW, "'half' has shape (8, 3, 32, 32), not (16, 1 or 3, H, W)"),
    (PreviewsNormalized, PREVIEW, "'normalized' is torch.float32 from -"),
    (PreviewsByTorchsGenerator, PREVIEW, "It drew from torch's own generator."),
    (PreviewsAndMoves, PREVIEW, "It moved count."),
]


@pytest.mark.parametrize(
    "task",
    [Sound, MovesAsDeclared, LeavesOutWhatItWouldMove, DropsOut, HasTwoPhases, LeavesOutAPhase, Previews],
    ids=lambda task: task.__name__,
)
def test_a_sound_task_keeps_every_rule(findings: Check, task: type[PretextTask]) -> None:
    assert failing(findings(Kind.PRETEXT_TASK, task)) == {}


@pytest.mark.parametrize(("task", "title", "found"), BREACHES, ids=[f"{b[0].__name__}-{b[1][:20]}" for b in BREACHES])
def test_a_breach_is_found_and_named(findings: Check, task: type[PretextTask], title: str, found: str) -> None:
    finding = findings(Kind.PRETEXT_TASK, task, only=title)[title]
    assert finding.state == "fails"
    assert found in finding.detail
    assert finding.advice


def test_every_rule_can_fail() -> None:
    assert {rule.title for rule in pretext_tasks.RULES} == {title for _, title, _ in BREACHES}


def test_what_leaves_views_as_they_are_has_nothing_to_preview(findings: Check) -> None:
    assert findings(Kind.PRETEXT_TASK, Sound, only=PREVIEW)[PREVIEW] == Finding(
        PREVIEW, "not applicable", "Its encoder sees the views as they are."
    )
    assert findings(Kind.PRETEXT_TASK, Previews, only=PREVIEW)[PREVIEW] == Finding(PREVIEW, "holds")


def test_rules_about_training_pass_over_what_does_not_train(findings: Check) -> None:
    found = findings(Kind.PRETEXT_TASK, LosesNumbers)
    assert found["separable is true where it is claimed"] == Finding(
        "separable is true where it is claimed", "not applicable", "It does not train."
    )
