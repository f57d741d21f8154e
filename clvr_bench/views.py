"""Makes the views of a batch; on a CPU in parts, a thread to each, since single operations are too short to share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from clvr_bench.contracts.augmentation import Augmentation
from clvr_bench.contracts.values import Images
from clvr_bench.draws import SampleRandom
from clvr_bench.ops.compiling import compiling

_LEAST = 1 << 19  # numbers in a part; operations on less are so short that threads mostly wait for Python's lock


def make_views(augmentation: Augmentation, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
    """Make views without gradients, as ``augmentation(images, views, random)`` does.

    A picture's draws are its own, so that a batch may be cut anywhere. torch would share every single operation out
    among its threads instead, and where another process takes a core for a moment, each of a hundred short operations
    waits for it. Compiled operations are few and long, and are left to torch.

    Args:
        augmentation: Makes them.
        images: B stored pictures.
        views: V, how many views of each.
        random: Draws of the B samples.

    Returns:
        V tensors (B, C, size, size), float32 in [0, 1].
    """
    if images.pixels.device.type != "cpu" or compiling():
        return _views_of(augmentation, images, views, random)
    threads = min(torch.get_num_threads(), len(images), images.pixels.numel() // _LEAST)
    if threads <= 1:
        with _one_thread_each():
            return _views_of(augmentation, images, views, random)
    bounds = [len(images) * number // threads for number in range(threads + 1)]

    def made_of(bound: tuple[int, int]) -> list[Tensor]:
        part = slice(*bound)
        return _views_of(augmentation, images[part], views, random[part])

    with _one_thread_each():
        made = list(_pool(threads, os.getpid()).map(made_of, pairwise(bounds)))
    return [torch.cat(view) for view in zip(*made, strict=True)]


def _views_of(augmentation: Augmentation, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
    with torch.no_grad():
        return augmentation(images, views, random)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of a process; a forked one needs its own."""
    return ThreadPoolExecutor(threads, "views", initializer=torch.set_num_threads, initargs=(1,))
