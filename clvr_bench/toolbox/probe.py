"""What linear probes share beside their solver, which is in ``ops.logistic``: standardization, and a choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Standardizer:
    """Subtracts the mean and divides by the standard deviation of the features it was measured on, one by one.

    Attributes:
        mean: (D,).
        scale: (D,) one over the standard deviation; 0 for a feature that is constant up to rounding.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Measure features (N, D)."""
        deviation, mean = torch.std_mean(features, dim=0, correction=0)
        rounding = 8 * torch.finfo(features.dtype).eps * features.abs().amax(dim=0)
        return cls(mean, torch.where(deviation > rounding, 1 / deviation, 0.0))

    def __call__(self, features: Tensor) -> Tensor:
        """Standardize features (M, D)."""
        return (features - self.mean) * self.scale


def strongest_best(top1: Sequence[float]) -> int:
    """Return the position of the best accuracy in a grid of ascending penalties; of equal ones the last, strongest."""
    return max(range(len(top1)), key=lambda position: (top1[position], position))
