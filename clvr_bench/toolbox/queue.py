"""A first-in, first-out memory of embeddings, part of the module's state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench.errors import ClvrBenchError


class Queue(nn.Module):
    """The newest embeddings, a fixed number of them; each that is pushed takes the oldest one's place.

    It starts with random directions, so that it has its full length from the first step on. Nothing in it waits for
    the device: no length or position is ever read back.

    Args:
        size: K, how many embeddings it holds; need not be a multiple of the batch.
        dim: P, the length of an embedding.

    Attributes:
        embeddings: (K, P) float32, in no particular order; random unit vectors until they are replaced.
        pushed: () int64, how many were pushed so far; the next one goes to place ``pushed % size``.

    Raises:
        ClvrBenchError: It would hold nothing.

    Source: He et al. 2020, section 3.2, https://arxiv.org/abs/1911.05722.
    """

    embeddings: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ClvrBenchError(
                f"queue: size and dim must be positive, got {size} and {dim}. Typical sizes: 256 to 65,536."
            )
        self.register_buffer("embeddings", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def full(self) -> Tensor:
        """Whether only pushed embeddings are left: () bool, on the device."""
        return self.pushed >= len(self)

    @torch.no_grad()
    def push(self, embeddings: Tensor) -> None:
        """Put embeddings (n, P) in, the last row as the newest; of more than K, the last K."""
        count = len(embeddings)
        newest = torch.arange(max(0, count - len(self)), count, device=self.pushed.device)
        self.embeddings[(self.pushed + newest) % len(self)] = embeddings[newest].to(self.embeddings.dtype)
        self.pushed += count


def check_queue(task: str, size: int, train_size: int) -> None:
    """Refuse a queue that holds nothing or would hold pictures twice, in the name of a task.

    Args:
        task: What the message begins with.
        size: Its option ``queue_size``.
        train_size: How many pictures it pretrains on.

    Raises:
        ClvrBenchError: The size is not from 1 to the number of pictures.
    """
    if not 1 <= size <= train_size:
        raise ClvrBenchError(
            f"{task}: queue_size must be at least 1 and at most the {train_size} training pictures, got {size}. "
            f"Set queue_size = {1 << max(0, (train_size // 2).bit_length() - 1)}, say."
        )
