"""Instance discrimination over a memory bank: every training picture is a class of its own."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from clvr_bench.contracts.values import Batch
from clvr_bench.toolbox.memory_bank import MemoryBank
from clvr_bench.toolbox.nce import NCE


def discriminate_instances(
    embeddings: Tensor, batch: Batch, bank: MemoryBank, nce: NCE, negatives: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Tell each picture from others by their vectors in the bank (Wu et al. 2018, https://arxiv.org/abs/1805.01978).

    Args:
        embeddings: (B, P) of length 1, of the pictures of the batch.
        batch: Gives their numbers and the draws of negatives.
        bank: Moved by the caller, after the step.
        nce: Settled by the caller, after the step, with what is kept.
        negatives: m, drawn for each picture; 0 takes the softmax over the whole bank (equation 2), which needs no NCE.

    Returns:
        Losses (B,); which pictures are most like their own vector (B,) bool; ``log_constants`` (B,) to keep for
        ``nce.settle``, or nothing if there are no negatives.
    """
    if not negatives:
        similarities = bank.similarities(embeddings)  # (B, N)
        losses = F.cross_entropy(similarities / nce.temperature, batch.index, reduction="none")
        return losses, similarities.argmax(dim=1) == batch.index, {}
    entries = bank.entries(batch.index, batch.random("negatives"), negatives)
    similarities = bank.similarities(embeddings, entries)  # (B, 1 + m)
    losses, estimates = nce(similarities)
    return losses, similarities.argmax(dim=1) == 0, {"log_constants": estimates}
