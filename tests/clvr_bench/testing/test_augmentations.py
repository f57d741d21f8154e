"""Every rule about augmentations, broken by an augmentation that breaks it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clvr_bench import Augmentation, Images
from clvr_bench.ops.crops import center_view
from clvr_bench.registry import Kind
from clvr_bench.testing import Finding, augmentations
from tests.clvr_bench.testing.conftest import failing

Check = Callable[..., dict[str, Finding]]


class Sound(Augmentation):
    """Makes pictures darker, each by its own share; keeps every rule."""

    def __init__(self, data: Any) -> None:
        self.size = data.image_size

    def __call__(self, images: Any, views: int, random: Any) -> list[Any]:
        return [self.view(images, random.scoped(f"view{view}")) for view in range(views)]

    def view(self, images: Any, random: Any) -> Any:
        return center_view(images, self.size) * random("light").uniform(1, 1, 1)


class IsTooBright(Sound):
    def view(self, images: Any, random: Any) -> Any:
        return super().view(images, random) * 1.5


class SharesADraw(Sound):
    def view(self, images: Any, random: Any) -> Any:
        return center_view(images, self.size) * random("light").uniform(1, 1, 1).mean()


class DrawsFromTorch(Sound):
    def view(self, images: Any, random: Any) -> Any:
        return center_view(images, self.size) * torch.rand(())


class MakesEqualViews(Sound):
    def __call__(self, images: Any, views: int, random: Any) -> list[Any]:
        return [self.view(images, random) for _ in range(views)]


class SeesThePadding(Sound):
    def view(self, images: Any, random: Any) -> Any:
        return super().view(Images.whole(images.pixels), random)


class DividesTwice(Sound):
    def view(self, images: Any, random: Any) -> Any:
        return center_view(Images(images.pixels.float() / 255, images.sizes), self.size)


class WorksInPlace(Sound):
    def view(self, images: Any, random: Any) -> Any:
        images.pixels.div_(2, rounding_mode="floor")
        return super().view(images, random)


BREACHES: list[tuple[Any, str, str]] = [
    (IsTooBright, "views are float32 in [0, 1], of the size and number asked for", "Values from 0.0"),
    (SharesADraw, "draws do not depend on the batch they come in", "Alone, a view differs by up to 0."),
    (DrawsFromTorch, "it draws from its own streams", "It drew from torch's own generator."),
    (MakesEqualViews, "views are drawn each for itself", "Two views are the same."),
    (SeesThePadding, "what lies outside a picture is never seen", "The padding shows in the views."),
    (DividesTwice, "it takes pictures in uint8 and in float", "They differ by 0."),
    (WorksInPlace, "it leaves the stored pictures as they are", "The pictures changed."),
]


def test_a_sound_augmentation_keeps_every_rule(findings: Check) -> None:
    assert failing(findings(Kind.AUGMENTATION, Sound)) == {}


@pytest.mark.parametrize(
    ("augmentation", "title", "found"), BREACHES, ids=[f"{b[0].__name__}-{b[1][:20]}" for b in BREACHES]
)
def test_a_breach_is_found_and_named(findings: Check, augmentation: Any, title: str, found: str) -> None:
    finding = findings(Kind.AUGMENTATION, augmentation, only=title)[title]
    assert finding.state == "fails"
    assert found in finding.detail
    assert finding.advice


def test_every_rule_can_fail() -> None:
    assert {rule.title for rule in augmentations.RULES} == {title for _, title, _ in BREACHES}
