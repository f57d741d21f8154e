"""From class scores to ranked predictions and their accuracies; what every evaluation that predicts classes shares."""

from __future__ import annotations

from torch import Tensor

DEPTH = 5  # classes kept a sample


def rank_classes(scores: Tensor) -> Tensor:
    """Rank classes by scores (M, K): (M, min(5, K)) int64, best first; of equals the lower number."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :DEPTH]


def accuracies(predictions: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    """Score ranked predictions (M, min(5, K)) against labels (M,).

    Returns:
        ``top1``, and with more than five classes ``top5``, in percent.
    """
    hits = predictions == labels[:, None]  # (M, min(5, K))
    depths = (1, DEPTH) if num_classes > DEPTH else (1,)
    return {f"top{depth}": 100 * hits[:, :depth].any(dim=1).double().mean().item() for depth in depths}
