"""A memory bank: one unit vector for every training picture, compared with by index, moved after a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench.draws import Draws
from clvr_bench.errors import ClvrBenchError


class MemoryBank(nn.Module):
    """The embeddings that training pictures had when they were last visited; random directions before that.

    Vectors are read in ``forward`` and moved in ``after_step`` alone; no gradient reaches them.

    Args:
        size: N, the training pictures.
        dimension: P, the length of an embedding.
        momentum: m in [0, 1): a visit moves a vector to m times itself plus 1 - m times the new embedding, on the
            sphere. 0 replaces it (Wu et al. 2018, section 3.1); their code and most that follow it have 0.5.

    Raises:
        ClvrBenchError: The momentum is out of its range.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.1.
    """

    vectors: Tensor

    def __init__(self, size: int, dimension: int, *, momentum: float = 0.5) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ClvrBenchError(f"memory bank: momentum must be in [0, 1), got {momentum}. The usual value is 0.5.")
        self.momentum = momentum
        self.register_buffer("vectors", F.normalize(torch.randn(size, dimension), dim=1))  # (N, P)

    def __len__(self) -> int:
        return len(self.vectors)

    def entries(self, index: Tensor, draws: Draws, negatives: int) -> Tensor:
        """Choose what samples are compared with: their own vector, then others drawn uniformly from the whole bank.

        Args:
            index: (B,) int64, the samples' numbers in the training set.
            draws: Their stream; a sample's own number may come up again.
            negatives: m, how many others.

        Returns:
            (B, 1 + m) int64.
        """
        return torch.cat([index[:, None], draws.integers(len(self), negatives)], dim=1)

    def similarities(self, embeddings: Tensor, entries: Tensor | None = None) -> Tensor:
        """Compute cosine similarities in float32, also under autocast.

        Args:
            embeddings: (B, P) of unit length.
            entries: (B, M) int64, which vectors each is compared with; all N where None.

        Returns:
            (B, M) or (B, N) float32 in [-1, 1].
        """
        embeddings = embeddings.float()
        with torch.autocast(embeddings.device.type, enabled=False):
            if entries is None:
                return embeddings @ self.vectors.T
            if len(self) > entries.shape[1] * self.vectors.shape[1]:  # (B, M, P) takes less memory than (B, N)
                return torch.einsum("bp,bmp->bm", embeddings, self.vectors[entries])
            return (embeddings @ self.vectors.T).gather(1, entries)

    def update(self, index: Tensor, embeddings: Tensor) -> None:
        """Move the vectors of visited samples.

        Args:
            index: (B,) int64, no number twice.
            embeddings: (B, P) of unit length.
        """
        moved = self.momentum * self.vectors[index] + (1 - self.momentum) * embeddings
        self.vectors[index] = F.normalize(moved, dim=1)
