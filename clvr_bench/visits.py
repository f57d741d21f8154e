"""The order in which an epoch visits its samples, keyed so that it is the same on every device and after a resume."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clvr_bench.draws import SampleRandom


class VisitOrder:
    """The samples of an epoch in the order of their visits.

    Args:
        index: (N,) int64 sample numbers; repeats allowed.
        count: How many samples there are.

    Attributes:
        index: As given.
    """

    def __init__(self, index: Tensor, count: int) -> None:
        self.index = index
        self._keys = index + count * earlier_visits(index)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut the order into full batches; a smaller last one is dropped.

        Yields:
            Sample numbers (size,), and the numbers (size,) that key their draws: a second visit draws afresh.
        """
        full = len(self.index) // size * size
        yield from zip(self.index[:full].split(size), self._keys[:full].split(size), strict=True)


def earlier_visits(index: Tensor) -> Tensor:
    """Count how often each position's value came up before it: (N,) int64."""
    order = index.argsort(stable=True)
    ordered = index[order]
    place = torch.arange(len(order), device=order.device)
    first = torch.searchsorted(ordered, ordered)  # where the run of each value begins
    return torch.empty_like(order).scatter_(0, order, place - first)


def shuffled(values: Tensor, key: int, round_number: int) -> Tensor:
    """Shuffle (N,) sample numbers.

    Args:
        values: (N,) int64.
        key: Of the shuffle.
        round_number: Such as the epoch.
    """
    return values[SampleRandom.keyed(key, round_number, values)("order").uniform().argsort(stable=True)]
