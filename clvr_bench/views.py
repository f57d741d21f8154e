"""Makes the views of a batch; on a CPU in parts, a thread each, since single operations are too short to share out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache, partial
from itertools import pairwise

import torch
from torch import Tensor

from clvr_bench.contracts.augmentation import Augmentation
from clvr_bench.contracts.values import Images
from clvr_bench.draws import SampleRandom

_LEAST = 8  # pictures in a part; below, what every operation costs whatever its size would be more than its work


def make_views(augmentation: Augmentation, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
    """Make views without gradients, as ``augmentation(images, views, random)`` does.

    A picture's draws are its own, so that a batch may be cut anywhere. torch would share every single operation out
    among its threads instead, where waiting for the last one takes longer than the work, above all on a machine that
    has other things to do.

    Args:
        augmentation: Makes them.
        images: B stored pictures.
        views: V, how many views of each.
        random: Draws of the B samples.

    Returns:
        V tensors (B, C, size, size), float32 in [0, 1].
    """
    threads = min(torch.get_num_threads(), len(images) // _LEAST) if images.pixels.device.type == "cpu" else 1
    if threads <= 1:
        return _views_of(augmentation, images, views, random)
    bounds = [len(images) * number // threads for number in range(threads + 1)]
    parts = [slice(start, end) for start, end in pairwise(bounds)]
    with _one_thread_each():
        # every part has a context of its own, for a context is entered once at a time
        jobs = [partial(copy_context().run, _views_of, augmentation, images[p], views, random[p]) for p in parts]
        made = list(_pool(threads, os.getpid()).map(lambda job: job(), jobs))
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
