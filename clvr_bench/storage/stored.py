"""The split that takes the place of picture files in a run: numbers of pictures, and where their pixels come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Protocol, Self

import torch
from torch import Tensor

from clvr_bench.contracts.dataset import Split
from clvr_bench.contracts.values import Images
from clvr_bench.storage.catalogue import Contents
from clvr_bench.storage.picture_files import fingerprint_of

Reading = Callable[[], Images]
"""Pictures that are being read; called once, it waits for them."""


class Source(Protocol):
    """Where the pixels of numbered contents come from.

    Attributes:
        contents: Whose pixels.
        device: Where pictures are served.
        at_once: How many pictures may be read ahead; 0 where nothing is gained by it.
        dense: (P, C, H, W) uint8, all of them, where they are of one size and in memory; else None.
    """

    contents: Contents
    device: torch.device
    at_once: int
    dense: Tensor | None

    def read(self, numbers: Tensor) -> Reading:
        """Begin to read the contents of (B,) int64 numbers, which are on the CPU."""

    def on(self, device: torch.device) -> Self:
        """Return a source that serves on another device."""


class StoredPictures(Split):
    """Some of the pictures of a source, in some order. Subsets and joined splits copy no pixels.

    Args:
        source: Has the pixels.
        numbers: (N,) int64 on the CPU, the numbers of the contents.
        labels: (N,) int64; -1 where unknown.
    """

    def __init__(self, source: Source, numbers: Tensor, labels: Tensor) -> None:
        self.labels, self._source, self._numbers = labels, source, numbers
        self._ahead = _Ahead(source, numbers, ())

    def images(self, index: Tensor) -> Images:
        """Return the pictures at (B,) int64 positions, padded to the largest of them, on the split's device.

        Raises:
            RunFailed: The files changed, or are gone.
        """
        if self._source.dense is not None:  # a GPU is not asked which they are
            return Images.whole(self._source.dense[self._numbers_there[index.to(self._source.device)]])
        reading = self._ahead.reading(index) or self._source.read(self._numbers[index.cpu()])
        return reading()

    def expect(self, batches: Iterable[Tensor]) -> None:
        """Begin to read the (B,) int64 positions that will be asked for next; what was expected before is forgotten."""
        if self._source.dense is None:
            self._ahead = _Ahead(self._source, self._numbers, tuple(batches))

    def subset(self, index: Tensor) -> Self:
        """Return the split of only these (M,) int64 positions, in this order."""
        index = index.cpu()
        return type(self)(self._source, self._numbers[index], self.labels[index])

    def joined(self, other: Split) -> Self:
        """Return this split followed by another of the same data set.

        Raises:
            ValueError: It is of another one.
        """
        if not isinstance(other, StoredPictures) or other._source.contents is not self._source.contents:
            raise ValueError("StoredPictures: only splits of one data set can be joined")
        numbers, labels = torch.cat([self._numbers, other._numbers]), torch.cat([self.labels, other.labels])
        return type(self)(self._source, numbers, labels)

    def to(self, device: torch.device) -> Self:
        """Return the split with its pictures served on a device."""
        return type(self)(self._source.on(device), self._numbers, self.labels)

    def digests(self) -> list[bytes]:
        """Return the SHA-256 of the content of each picture's file."""
        return [self._source.contents.digests[number] for number in self._numbers.tolist()]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files' contents in order, of the labels and of how they are decoded, as of ``PictureFiles``."""
        return fingerprint_of(self.digests(), self.labels, self._source.contents.shorter_side)

    @cached_property
    def _numbers_there(self) -> Tensor:
        return self._numbers.to(self._source.device)


class _Ahead:
    """Batches that were announced; a bounded number of them is being read.

    Args:
        source: Reads them.
        numbers: (N,) int64, the numbers of the split's contents.
        batches: Positions (B,) int64 in the split, in the order in which they will be asked for.
    """

    def __init__(self, source: Source, numbers: Tensor, batches: Sequence[Tensor]) -> None:
        self._source = source
        known = torch.cat(tuple(batches)).cpu() if batches else torch.empty(0, dtype=torch.int64)
        chosen = numbers[known].split([len(batch) for batch in batches])
        self._left = deque(zip(batches, chosen, strict=True))
        self._under_way: deque[tuple[Tensor, Reading]] = deque()
        self._pictures = 0
        self._fill()

    def reading(self, index: Tensor) -> Reading | None:
        """Return the reading of a batch that is under way, and begin others; None where it was not announced."""
        for skipped, (announced, reading) in enumerate(self._under_way):
            if _is_same(announced, index):
                for _ in range(skipped + 1):
                    self._pictures -= len(self._under_way.popleft()[0])
                self._fill()
                return reading
        return None

    def _fill(self) -> None:
        """Keep at least two batches under way, and more as long as they are of few pictures."""
        while self._left and (len(self._under_way) < 2 or self._pictures < self._source.at_once):
            index, numbers = self._left.popleft()
            self._under_way.append((index, self._source.read(numbers)))
            self._pictures += len(index)


def _is_same(announced: Tensor, index: Tensor) -> bool:
    """Whether two tensors are one, or of equal values; a GPU is only asked for those where they are not one."""
    if announced.shape != index.shape or announced.device != index.device:
        return False
    return announced.data_ptr() == index.data_ptr() or torch.equal(announced, index)
