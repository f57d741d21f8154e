"""Frozen representations for tests of evaluations: one made of given features, one that encodes small pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Dataset, Images, ResidentSplit, SampleRandom, Split
from clvr_bench.contracts.evaluation import SplitName
from clvr_bench.data import prepare
from clvr_bench.features import FrozenRepresentation

CPU = torch.device("cpu")


@dataclass
class FakeFrozen:
    """Serves tensors as features; ``asked`` records which parts of which split an evaluation looked at, in order."""

    tables: dict[SplitName, tuple[Tensor, Tensor]]
    num_classes: int
    image_size: int = 8
    seed: int = 0
    device: torch.device = CPU
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

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()


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


class Streamed(Split):
    """A split that must be told which batches will be asked for, and is never copied; ``walks`` counts the tellings."""

    def __init__(self, stored: Split) -> None:
        self.labels, self.walks = stored.labels, 0
        self._stored, self._ahead = stored, list[Tensor]()

    def expect(self, batches: Iterable[Tensor]) -> None:
        assert not self._ahead, "the walk before was not finished"
        self.walks, self._ahead = self.walks + 1, list(batches)

    def images(self, index: Tensor) -> Images:
        assert torch.equal(self._ahead.pop(0), index)
        return self._stored.images(index)

    def subset(self, index: Tensor) -> Split:
        raise AssertionError("copied")

    def joined(self, other: Split) -> Split:
        raise AssertionError("copied")

    def to(self, device: torch.device) -> Split:
        raise AssertionError("copied")

    @property
    def fingerprint(self) -> str:
        return self._stored.fingerprint


class Patches(Dataset):
    """Noise of 10 x 12 px on a class's own colour, or on gray."""

    image_size = 8

    def __init__(self, classes: int, train: int, telling: bool) -> None:
        self.class_names = tuple(map(str, range(classes)))
        self._train, self._test = (self._draw(count, telling, name) for count, name in ((train, "train"), (60, "test")))

    @property
    def train(self) -> ResidentSplit:
        return self._train

    @property
    def test(self) -> ResidentSplit:
        return self._test

    def _draw(self, count: int, telling: bool, split: str) -> ResidentSplit:
        classes = len(self.class_names)
        labels = torch.arange(count) % classes
        colors = torch.randint(40, 200, (classes, 3), generator=torch.Generator().manual_seed(1))
        noise = SampleRandom.keyed(0, 0, torch.arange(count)).scoped(split)("noise").uniform(3, 10, 12)
        ground = colors[labels] if telling else torch.full((count, 3), 100)
        return ResidentSplit((ground[:, :, None, None] + 50 * noise).to(torch.uint8), labels)


def small_network() -> nn.Sequential:
    """BatchNorm, a convolution and a mean: (B, 3, S, S) to (B, 8) of order 1; always of the same weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    norm = nn.BatchNorm2d(3)
    norm.running_mean, norm.running_var = torch.full((3,), 0.5), torch.full((3,), 0.03)
    return nn.Sequential(norm, convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def frozen_pictures(
    network: nn.Module | None = None,
    *,
    classes: int = 3,
    train: int = 80,
    telling: bool = True,
    precision: str = "fp32",
    seed: int = 0,
    streamed: bool = False,
) -> FrozenRepresentation:
    """A representation of small pictures, whose classes it can tell apart or not."""
    data = prepare("patches", Patches(classes, train, telling), CPU)
    if streamed:
        data = replace(data, train=Streamed(data.train), val=Streamed(data.val), test=Streamed(data.test))
    return FrozenRepresentation(network or small_network(), data, CPU, precision, seed)
