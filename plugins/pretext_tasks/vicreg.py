"""VICReg: views agree; each dimension keeps its variance, and no two dimensions say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl
from clvr_bench.toolbox import mlp

TARGET_DEVIATION = 1.0  # gamma of equation 1, fixed in section 4.1
EPSILON = 1e-4  # of equation 2, section 4.2


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register VICReg."""
    register(
        "vicreg",
        VICReg,
        summary="Views agree, while dimensions keep their variance and have no covariance.",
        source="Bardes et al. 2022, https://arxiv.org/abs/2105.04906",
        version=1,
    )


class VICReg(PretextTask):
    """VICReg (Bardes et al. 2022, section 4.1, equations 1 to 6; algorithm 1).

    Each view passes the network on its own (algorithm 1), so BatchNorm's statistics are one view's. The variance term
    sums both views (equation 6, algorithm 1); the authors' code takes their mean, which is half the weight here. The
    last layer has no bias, as in the authors' code: no term would see it.
    Differs from the paper: the invariance is a mean over dimensions, as in algorithm 1 and the authors' code, where
    equation 5 sums them; the views are BYOL's pair, as in that code, where the paper has them blurred and solarized
    alike (https://github.com/facebookresearch/vicreg/issues/3); the rate falls to 0, not to 0.002.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding (section 4.2: 8192).
        hidden_dim: Width of the two hidden layers of the projector, the paper's expander (section 4.2: 8192).
        invariance_weight: lambda of equation 6, not negative (section 4.2: 25).
        variance_weight: mu of equation 6, not negative (section 4.2: 25).
        covariance_weight: nu of equation 6, not negative (section 4.2: 1).
    """

    views = 2
    default_augmentation = "byol"
    recipe = Recipe(  # section 4.2; 10 of 1000 epochs warm up
        optimizer="lars", learning_rate=0.2, weight_decay=1e-6, warmup=0.01
    )
    check_options: ClassVar[Mapping[str, object]] = {"projection_dim": 64, "hidden_dim": 64}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 8192,
        hidden_dim: int = 8192,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if min(projection_dim, hidden_dim) < 1:
            raise ClvrBenchError(
                "vicreg: projection_dim and hidden_dim must be at least 1, got "
                f"{projection_dim} and {hidden_dim}. The paper's are 8192."
            )
        if min(invariance_weight, variance_weight, covariance_weight) < 0:
            raise ClvrBenchError(
                "vicreg: invariance_weight, variance_weight and covariance_weight must not be negative, got "
                f"{invariance_weight}, {variance_weight} and {covariance_weight}. The paper's are 25, 25 and 1."
            )
        self.encoder = encoder
        self.invariance_weight = invariance_weight
        self.variance_weight, self.covariance_weight = variance_weight, covariance_weight
        self.projector = mlp(encoder.feature_dim, hidden_dim, hidden_dim, projection_dim, last_bias=False)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 6 of the embeddings of both views."""
        first, second = (self.projector(self.encoder(view)).float() for view in batch.views)  # each (B, P)
        alike = invariance(first, second)
        lack = variance(first) + variance(second)
        overlap = covariance(first) + covariance(second)
        loss = self.invariance_weight * alike + self.variance_weight * lack + self.covariance_weight * overlap
        return StepOutput(loss=loss, logs={"invariance": alike, "variance": lack, "covariance": overlap})


def invariance(first: Tensor, second: Tensor) -> Tensor:
    """Compute s of equation 5, divided by P: the mean squared difference of embeddings (B, P) of two views, ()."""
    return F.mse_loss(first, second)


def variance(embeddings: Tensor) -> Tensor:
    """Compute v (equations 1 and 2): how far, on average, a dimension's deviation falls short of 1.

    Args:
        embeddings: (B, P) float32, B at least 2.

    Returns:
        (), from 0 to 1.
    """
    deviation = (embeddings.var(dim=0) + EPSILON).sqrt()  # (P,)
    return F.relu(TARGET_DEVIATION - deviation).mean()


def covariance(embeddings: Tensor) -> Tensor:
    """Compute c (equations 3 and 4): the squared covariances of all pairs of dimensions, summed and divided by P.

    Args:
        embeddings: (B, P) float32, B at least 2.

    Returns:
        ().
    """
    centred = embeddings - embeddings.mean(dim=0)
    with torch.autocast(embeddings.device.type, enabled=False):  # sums over the batch in float32
        matrix = centred.T @ centred / (len(centred) - 1)  # (P, P)
    return (matrix - matrix.diagonal().diag()).square().sum() / len(matrix)
