"""Barlow Twins: dimensions of two views' embeddings agree with themselves and with no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    PretextTask,
    Recipe,
    Register,
    StepOutput,
    decay_groups,
    hookimpl,
)
from clvr_bench.toolbox import mlp


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register Barlow Twins."""
    register(
        "barlow_twins",
        BarlowTwins,
        summary="Makes the cross-correlation of two views' embeddings the identity.",
        source="Zbontar et al. 2021, https://arxiv.org/abs/2103.03230",
        version=1,
    )


class BarlowTwins(PretextTask):
    """Barlow Twins (Zbontar et al. 2021, section 2, equations 1 and 2; algorithm 1).

    Each view passes the network on its own (algorithm 1), so BatchNorm's statistics are one view's. Embeddings are
    centred over the batch, which equation 2 takes for granted, and 1e-5 is added to their variance, as in the authors'
    code. The projector's last layer has no bias, as there; centring would remove it. Where that code has other numbers
    than the paper (lambda 0.0051, weight decay 1e-6), the paper is followed.
    Differs from the paper: the rate falls to 0, not to a thousandth of its peak.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding (section 2.2: 8192).
        hidden_dim: Width of the projector's two hidden layers (section 2.2: 8192).
        redundancy_weight: lambda of equation 1, not negative (section 2.2: 0.005).
        bias_rate: The learning rate of biases and BatchNorm's parameters, as a multiple of the weights' (section 2.2:
            0.0048 to 0.2, since LARS scales the latter's steps alone); 1 with optimizers that scale none.
    """

    views = 2
    default_augmentation = "byol"  # section 2.2
    recipe = Recipe(  # section 2.2; 10 of 1000 epochs warm up
        optimizer="lars", learning_rate=0.2, weight_decay=1.5e-6, warmup=0.01
    )
    check_options: ClassVar[Mapping[str, object]] = {"projection_dim": 64, "hidden_dim": 64}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 8192,
        hidden_dim: int = 8192,
        redundancy_weight: float = 0.005,
        bias_rate: float = 0.024,
    ) -> None:
        super().__init__()
        if min(projection_dim, hidden_dim) < 1:
            raise ClvrBenchError(
                "barlow_twins: projection_dim and hidden_dim must be at least 1, got "
                f"{projection_dim} and {hidden_dim}. The paper's are 8192."
            )
        if min(redundancy_weight, bias_rate) < 0:
            raise ClvrBenchError(
                "barlow_twins: redundancy_weight and bias_rate must not be negative, got "
                f"{redundancy_weight} and {bias_rate}. Typical: 0.005; 0.024 with lars, 1 with other optimizers."
            )
        self.encoder = encoder
        self.redundancy_weight, self.bias_rate = redundancy_weight, bias_rate
        self.projector = mlp(encoder.feature_dim, hidden_dim, hidden_dim, projection_dim, last_bias=False)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 1 of the embeddings of both views."""
        first, second = (self.projector(self.encoder(view)) for view in batch.views)  # each (B, P)
        correlation = cross_correlation(first, second)
        loss = invariance(correlation) + self.redundancy_weight * redundancy(correlation)
        return StepOutput(loss=loss, logs={"correlation": correlation.diagonal().mean()})

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Return two groups: weights, and biases and BatchNorm's parameters at a rate of their own."""
        weights, others = decay_groups(self)
        return [weights, {**others, "lr_scale": self.bias_rate}]


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Compute C of equation 2 in float32.

    Args:
        first: (B, P), embeddings of one view of each picture; B at least 2.
        second: (B, P), of the other.

    Returns:
        (P, P), from -1 to 1; the row is the dimension of the first, the column that of the second.
    """
    with torch.autocast(first.device.type, enabled=False):  # sums over the batch in float32
        first, second = (F.batch_norm(view.float(), None, None, training=True) for view in (first, second))
        return first.T @ second / len(first)


def invariance(correlation: Tensor) -> Tensor:
    """Compute the first term of equation 1 from C (P, P): how far its diagonal is from 1, summed: ()."""
    return (1 - correlation.diagonal()).square().sum()


def redundancy(correlation: Tensor) -> Tensor:
    """Compute the second term of equation 1, without lambda, from C (P, P): what is off its diagonal, squared: ()."""
    return (correlation - correlation.diagonal().diag()).square().sum()
