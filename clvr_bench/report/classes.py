"""What the classes of a row's test pictures were taken for, from saved predictions. Knows records, not HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clvr_bench.errors import DamagedFile
from clvr_bench.groups import Group

MATRIX = 20
"""Classes up to which a page has room for all pairs."""


@dataclass(frozen=True)
class ClassLine:
    """One class, over all seeds.

    Attributes:
        name: What it is called.
        pictures: How many test pictures it has.
        accuracy: Part of them that was taken for what it is, from 0 to 1.
        taken_for: Part that was taken for each class, from 0 to 1; empty where a page has no room for it.
        confused_with: The class that it was most often wrongly taken for, and how often; empty where it never was.
    """

    name: str
    pictures: int
    accuracy: float
    taken_for: Sequence[float]
    confused_with: str


@dataclass(frozen=True)
class Confusion:
    """What was taken for what.

    Attributes:
        counts: (K, K) predictions by true class and predicted class, summed over the seeds.
        seeds: How many.
        names: Of the K classes; empty where no record says them.
    """

    counts: NDArray[np.int64]
    seeds: int
    names: Sequence[str] = ()

    @property
    def has_room(self) -> bool:
        """Whether a page shows every pair of classes."""
        return len(self.counts) <= MATRIX

    @property
    def columns(self) -> Sequence[str]:
        """What stands above each predicted class: its name, or its number where no record says the name."""
        return self.names or [str(number) for number in range(len(self.counts))]

    @cached_property
    def lines(self) -> list[ClassLine]:
        """A line a class that has test pictures."""
        return [self._line(number) for number in np.flatnonzero(self.counts.sum(axis=1)).tolist()]

    def _line(self, number: int) -> ClassLine:
        taken = self.counts[number] / self.counts[number].sum()
        others = np.where(np.arange(len(taken)) == number, 0, taken)
        worst = int(others.argmax())
        return ClassLine(
            name=self._name(number),
            pictures=int(self.counts[number].sum()) // self.seeds,
            accuracy=float(taken[number]),
            taken_for=taken.tolist() if self.has_room else (),
            confused_with=f"{self._name(worst)} ({others[worst]:.1%})" if others[worst] else "",
        )

    def _name(self, number: int) -> str:
        return self.names[number] if self.names else f"class {number}"


def confusion(group: Group) -> Confusion | None:
    """Count what the linear evaluation took each class for; None where predictions are missing or damaged.

    Args:
        group: The runs of a row; those that enter its top-1 are counted.
    """
    try:
        found = [run.predictions(group.linear[run.pretraining.id]) for run in group.counted]
    except DamagedFile:
        return None
    if not found:
        return None
    taken = np.concatenate([predictions[:, 0] for predictions, _ in found])
    labels = np.concatenate([labels for _, labels in found])
    size = max(int(taken.max()) + 1, int(labels.max()) + 1, len(group.class_names))
    counts = np.bincount(labels * size + taken, minlength=size * size).reshape(size, size)
    return Confusion(counts, len(found), group.class_names)
