"""Where pixels come from: a cache that is mapped into memory or lies on the GPU, or workers that decode files."""

from __future__ import annotations

import warnings
from concurrent.futures import Future
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clvr_bench.contracts.values import Images
from clvr_bench.storage.catalogue import Contents
from clvr_bench.storage.stored import Reading
from clvr_bench.storage.tasks import CHANNELS, decode_files
from clvr_bench.storage.workers import WINDOW, Workers

PICTURES_A_JOB = 32  # a batch is decoded by several workers at once
PIXELS_AT_ONCE = 1 << 24  # of a ragged batch that a GPU gathers: eight bytes of address each


class CachedPixels:
    """Decoded pixels in memory; on a CPU mapped from the cache's file, and read as they are needed.

    Args:
        contents: Whose pixels.
        pixels: All of them as (3, H, W), one after the other: (total,) uint8.
    """

    at_once = 0

    def __init__(self, contents: Contents, pixels: Tensor) -> None:
        self.contents, self.device = contents, pixels.device
        self._pixels = pixels
        self._sizes = torch.from_numpy(contents.sizes)
        self._starts = torch.from_numpy(np.cumsum(contents.bytes) - contents.bytes)
        self.dense: Tensor | None = None
        if len(contents) and (self._sizes == self._sizes[0]).all():
            self.dense = pixels.view(len(contents), CHANNELS, *self._sizes[0].tolist())

    @classmethod
    def mapped(cls, contents: Contents, pixels: NDArray[np.uint8], device: torch.device) -> Self:
        """Serve a cache on a device: without a copy on a CPU, with one on a GPU."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written
            return cls(contents, torch.from_numpy(pixels).to(device))

    def read(self, numbers: Tensor) -> Reading:
        """Wait with everything until it is asked for."""
        return partial(self._gathered, numbers)

    def on(self, device: torch.device) -> Self:
        """Return the same pixels on another device, copied there."""
        there = self._pixels.to(device)
        return self if there is self._pixels else type(self)(self.contents, there)

    def _gathered(self, numbers: Tensor) -> Images:
        sizes = self._sizes[numbers]
        gather = _gathered_singly if self.device.type == "cpu" else _gathered_at_once
        return Images(gather(self._pixels, self._starts[numbers], sizes), sizes.to(self.device, non_blocking=True))


def _gathered_singly(pixels: Tensor, starts: Tensor, sizes: Tensor) -> Tensor:
    """Copy pictures that lie at (B,) offsets of a flat tensor into one padded batch (B, 3, H, W) on the CPU."""
    flat = pixels.numpy()
    frame = np.zeros((len(sizes), CHANNELS, *_frame(sizes)), np.uint8)
    for place, start, (height, width) in zip(frame, starts.tolist(), sizes.tolist(), strict=True):
        block = flat[start : start + CHANNELS * height * width]
        place[:, :height, :width] = block.reshape(CHANNELS, height, width)
    return torch.from_numpy(frame)


def _gathered_at_once(pixels: Tensor, starts: Tensor, sizes: Tensor) -> Tensor:
    """Do the same on a GPU, by addresses, for some pictures at a time."""
    height, width = _frame(sizes)
    frame = torch.empty(len(sizes), CHANNELS, height, width, dtype=torch.uint8, device=pixels.device)
    row, column = (torch.arange(side, device=pixels.device) for side in (height, width))
    step = max(1, PIXELS_AT_ONCE // (height * width))
    for part in (slice(first, first + step) for first in range(0, len(sizes), step)):
        begin, tall, wide = (
            values.to(pixels.device, non_blocking=True)[:, None, None] for values in (starts[part], *sizes[part].T)
        )
        inside = (row[:, None] < tall) & (column < wide)  # (b, H, W)
        place = torch.where(inside, begin + row[:, None] * wide + column, 0)
        for channel in range(CHANNELS):
            values = pixels[torch.where(inside, place + channel * tall * wide, 0)]
            frame[part, channel] = torch.where(inside, values, 0)
    return frame


class StreamedPixels:
    """Pixels that workers decode from the files each time they are needed.

    Args:
        contents: Whose pixels.
        workers: Decode; with none, this process does.
        device: Where pictures are served.
    """

    dense: Tensor | None = None

    def __init__(self, contents: Contents, workers: Workers, device: torch.device) -> None:
        self.contents, self.device = contents, device
        self.at_once = WINDOW * PICTURES_A_JOB * workers.count
        self._workers = workers
        self._sizes = torch.from_numpy(contents.sizes)

    def read(self, numbers: Tensor) -> Reading:
        """Begin to decode the contents of (B,) int64 numbers; without workers, wait with it until it is asked for."""
        if not self._workers.count:
            return partial(self._decoded_here, numbers)
        frame = self._empty(numbers)
        jobs = []
        for part in (slice(first, first + PICTURES_A_JOB) for first in range(0, len(numbers), PICTURES_A_JOB)):
            files = self.contents.wanted(numbers[part].tolist())
            place = partial(_place, frame.numpy()[part], [(file.height, file.width) for file in files])
            jobs.append(self._workers.submit(decode_files, files, self.contents.shorter_side, then=place))
        return partial(self._finished, frame, numbers, jobs)

    def on(self, device: torch.device) -> Self:
        """Return a source that serves on another device, by the same workers."""
        return self if device == self.device else type(self)(self.contents, self._workers, device)

    def _empty(self, numbers: Tensor) -> Tensor:
        sizes = self._sizes[numbers]
        pinned = self.device.type == "cuda"  # memory that a GPU reads by itself
        return torch.zeros(len(numbers), CHANNELS, *_frame(sizes), dtype=torch.uint8, pin_memory=pinned)

    def _decoded_here(self, numbers: Tensor) -> Images:
        frame, files = self._empty(numbers), self.contents.wanted(numbers.tolist())
        _place(frame.numpy(), [(f.height, f.width) for f in files], decode_files(files, self.contents.shorter_side))
        return self._served(frame, numbers)

    def _finished(self, frame: Tensor, numbers: Tensor, jobs: list[Future[Any]]) -> Images:
        for job in jobs:
            job.result()
        return self._served(frame, numbers)

    def _served(self, frame: Tensor, numbers: Tensor) -> Images:
        pixels, sizes = (part.to(self.device, non_blocking=True) for part in (frame, self._sizes[numbers]))
        return Images(pixels, sizes)


def _place(frame: NDArray[np.uint8], sizes: list[tuple[int, int]], flat: NDArray[np.uint8]) -> None:
    """Copy pictures (3, H, W), one after the other, into a frame (B, 3, H, W) of zeros."""
    start = 0
    for place, (height, width) in zip(frame, sizes, strict=True):
        end = start + CHANNELS * height * width
        place[:, :height, :width] = flat[start:end].reshape(CHANNELS, height, width)
        start = end


def _frame(sizes: Tensor) -> tuple[int, int]:
    """Return the height and width that holds pictures of (B, 2) sizes."""
    if not len(sizes):
        return 0, 0
    height, width = sizes.amax(0).tolist()
    return height, width
