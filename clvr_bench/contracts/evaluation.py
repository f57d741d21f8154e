"""The evaluation contract: a frozen representation and its data in, metrics and predictions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from clvr_bench.contracts.dataset import Split

SplitName = Literal["train", "val", "test"]


class Frozen(Protocol):
    """A frozen representation with the data it is judged on. Features are extracted once and shared.

    Attributes:
        representation: The network in eval mode; no evaluation may change it, one that trains it copies it.
        num_classes: K.
        image_size: Height and width, in pixels, of what it is fed.
        seed: The run's seed, for evaluations that draw.
        device: Where the network is, and features and labels are served.
    """

    representation: nn.Module
    num_classes: int
    image_size: int
    seed: int
    device: torch.device

    def features(self, split: SplitName) -> Tensor:
        """Return the features (N, D) float32 of a split, in its order, on the evaluation's device."""

    def labels(self, split: SplitName) -> Tensor:
        """Return the labels (N,) int64 of a split, on the evaluation's device."""

    def split(self, split: SplitName) -> Split:
        """Return the stored samples of a split."""

    def encode(self, views: Tensor) -> Tensor:
        """Encode views (B, C, H, W), float in [0, 1], into features (B, D) float32, without a gradient."""

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the run's precision, for an evaluation that runs a copy of the network itself."""


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    Attributes:
        metrics: Numbers by name; accuracies in percent. Each becomes a column.
        predictions: (N, k) int64 class numbers of the test samples, best first; None where nothing is predicted.
        details: Anything else worth keeping with the record: what was chosen, over which grid.
        notes: Warnings for readers of the row.
    """

    metrics: Mapping[str, float]
    predictions: Tensor | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Evaluation(ABC):
    """Judges a frozen representation. Built as ``factory(**options)``; an author implements ``__call__``."""

    @abstractmethod
    def __call__(self, frozen: Frozen) -> Scores:
        """Judge; ``val`` may choose, ``test`` is scored once."""
