"""Every rule about encoders, broken by an encoder that breaks it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from clvr_bench import Encoder
from clvr_bench.registry import Kind
from clvr_bench.testing import Finding, encoders
from clvr_bench.testing.stage import small_resnet, small_vit
from tests.clvr_bench.testing.conftest import failing

Check = Callable[..., dict[str, Finding]]


class Sound(Encoder):
    """Two convolutions and a mean; keeps every rule."""

    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(mean=[0.5] * in_channels, std=[0.25] * in_channels)
        self.first = nn.Conv2d(in_channels, 8, 3, stride=2)
        self.second = nn.Conv2d(8, 8, 3, stride=2)

    def encode(self, images: Any) -> Any:
        return self.encode_maps(images)[-1].mean(dim=(2, 3))

    def encode_maps(self, images: Any) -> list[Any]:
        fine = self.first(images).relu()
        return [fine, self.second(fine).relu()]


class GivesInfinities(Sound):
    def encode(self, images: Any) -> Any:
        return super().encode(images) / 0


class OverflowsInBf16(Sound):
    def encode(self, images: Any) -> Any:
        features = super().encode(images)
        return features if features.dtype == torch.float32 else features / 0


class LooksAtTheBatch(Sound):
    def encode(self, images: Any) -> Any:
        features = super().encode(images)
        return features - features.mean(dim=0)


class CountsAlways(Sound):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        self.register_buffer("count", torch.zeros(()))

    def encode(self, images: Any) -> Any:
        self.count += 1
        return super().encode(images)


class HasAnIdlePart(Sound):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        self.classifier = nn.Linear(8, 10)


class IsNeverTheSame(Sound):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        torch.seed()
        nn.init.normal_(self.first.weight)


class IsAlwaysTheSame(Sound):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.01)


class IgnoresItsChannels(Sound):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        self.first = nn.Conv2d(3, 8, 3, stride=2)


class GivesCoarseMapsFirst(Sound):
    def encode_maps(self, images: Any) -> list[Any]:
        return super().encode_maps(images)[::-1]


class KeepsEverything(Sound):
    def encode_tokens(self, images: Any, keep: Any) -> Any:
        return self.encode_maps(images)[-1].flatten(2).transpose(1, 2)


BREACHES: list[tuple[Any, str, str]] = [
    (GivesInfinities, "features are (B, D) and finite", "Some are not finite."),
    (OverflowsInBf16, "features are finite in bf16", "Some are not finite."),
    (LooksAtTheBatch, "features do not depend on the batch they come in", "They do."),
    (CountsAlways, "encoding in eval mode moves no state", "It moved count."),
    (HasAnIdlePart, "the gradient reaches every parameter", "None reached classifier.bias, classifier.weight."),
    (
        IsNeverTheSame,
        "the same seed gives the same weights, another seed others",
        "Built twice with one seed, first.bias",
    ),
    (IsAlwaysTheSame, "the same seed gives the same weights, another seed others", "Another seed changes nothing."),
    (IsAlwaysTheSame, "a sibling has the same shapes and fresh weights", "It has the same weights."),
    (IgnoresItsChannels, "it takes other numbers of channels", "expected input"),
    (GivesCoarseMapsFirst, "feature maps go from fine to coarse", "Heights: [7, 15]."),
    (KeepsEverything, "tokens can be encoded for some patches only", "gave (2, 49, 8)"),
]


@pytest.mark.parametrize("encoder", [Sound, small_resnet, small_vit], ids=lambda factory: factory.__name__)
def test_a_sound_encoder_keeps_every_rule(findings: Check, encoder: Any) -> None:
    assert failing(findings(Kind.ENCODER, encoder)) == {}


@pytest.mark.parametrize(
    ("encoder", "title", "found"), BREACHES, ids=[f"{b[0].__name__}-{b[1][:20]}" for b in BREACHES]
)
def test_a_breach_is_found_and_named(findings: Check, encoder: Any, title: str, found: str) -> None:
    finding = findings(Kind.ENCODER, encoder, only=title)[title]
    assert finding.state == "fails"
    assert found in finding.detail
    assert finding.advice


def test_every_rule_can_fail() -> None:
    assert {rule.title for rule in encoders.RULES} == {title for _, title, _ in BREACHES}


def test_an_encoder_without_maps_tokens_or_channels_says_so(findings: Check) -> None:
    found = findings(Kind.ENCODER, Plain)
    assert failing(found) == {}
    assert sum(finding.state == "not applicable" for finding in found.values()) == 3


class Plain(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def encode(self, images: Any) -> Any:
        return self.convolution(images).mean(dim=(2, 3))
