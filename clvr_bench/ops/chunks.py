"""Where a batched operation is cut, so that a CPU works in its cache. Results do not depend on it."""

from __future__ import annotations

import math

from torch import Tensor

# 2 MiB of float32. Whole batches cost up to twice the time on a CPU: besides missing the cache, every intermediate
# result is then so large that the allocator may fetch and return its pages each time.
_NUMBERS = 1 << 19


def cache_sized(pixels: Tensor) -> list[slice]:
    """Cut a batch into parts that fit a CPU's cache.

    Args:
        pixels: (B, ...) what is worked on.

    Returns:
        Slices of the samples, in order, none for an empty batch; a single one on an accelerator, where few large
        operations are faster. All but the last have the same power of two of samples, which usual batches are
        multiples of, for operations are compiled for one size.
    """
    if pixels.device.type != "cpu":
        return [slice(0, len(pixels))]
    step = 1 << max(1, _NUMBERS // math.prod(pixels.shape[1:])).bit_length() - 1
    return [slice(start, start + step) for start in range(0, len(pixels), step)]
