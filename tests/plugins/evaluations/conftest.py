"""A frozen representation made of given features, for tests of evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import ResidentSplit, Split
from clvr_bench.contracts.evaluation import SplitName


@dataclass
class FakeFrozen:
    """Serves tensors as features; ``asked`` records which parts of which split an evaluation looked at, in order."""

    tables: dict[SplitName, tuple[Tensor, Tensor]]
    num_classes: int
    image_size: int = 8
    seed: int = 0
    representation: nn.Module = field(default_factory=nn.Identity)
    encoder: Callable[[Tensor], Tensor] = lambda views: views.mean((2, 3))
    asked: list[tuple[str, str]] = field(default_factory=list)

    def features(self, split: SplitName) -> Tensor:
        self.asked.append(("features", split))
        return self.tables[split][0]

    def labels(self, split: SplitName) -> Tensor:
        self.asked.append(("labels", split))
        return self.tables[split][1]

    def split(self, split: SplitName) -> Split:
        labels = self.tables[split][1]
        generator = torch.Generator().manual_seed(len(labels))
        pixels = torch.randint(256, (len(labels), 3, 12, 12), generator=generator, dtype=torch.uint8)
        return ResidentSplit(pixels, labels)

    def encode(self, views: Tensor) -> Tensor:
        return self.encoder(views)


@pytest.fixture
def clouds() -> Callable[..., FakeFrozen]:
    """Builds normal clouds, one a class, ``apart`` standard deviations from each other."""

    def build(*, classes: int = 10, apart: float = 4.0, dimensions: int = 12, seed: int = 0) -> FakeFrozen:
        generator = torch.Generator().manual_seed(seed)
        centers = torch.randn(classes, dimensions, generator=generator) * apart / (2 * dimensions) ** 0.5
        tables: dict[SplitName, tuple[Tensor, Tensor]] = {}
        sizes: dict[SplitName, int] = {"train": 400, "val": 60, "test": 150}
        for split, size in sizes.items():
            labels = torch.arange(size) % classes
            tables[split] = centers[labels] + torch.randn(size, dimensions, generator=generator), labels
        return FakeFrozen(tables, classes)

    return build
