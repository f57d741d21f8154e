"""Alignment and uniformity: views of a picture come together, and the pictures spread over the sphere."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl
from clvr_bench.toolbox import mlp


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register the alignment and uniformity losses."""
    register(
        "align_uniform",
        AlignUniform,
        summary="Views of a picture come together (alignment), pictures spread over the sphere (uniformity).",
        source="Wang and Isola 2020, https://arxiv.org/abs/2005.10242",
        version=1,
    )


class AlignUniform(PretextTask):
    """The weighted sum of the alignment and the uniformity loss (Wang and Isola 2020, section 4).

    Differs from the paper: embeddings come from a projector with one hidden layer and BatchNorm, and the rate falls
    along a cosine after a warm-up, not by steps at epochs 155, 170 and 185 of 200.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding.
        align_weight: Weight of the alignment loss, not negative. On STL-10 the paper finds weights of about one to one
            best; far above the uniformity's, all embeddings collapse to one.
        uniform_weight: Weight of the uniformity loss, not negative.
        alpha: Power of the distance between the two views, at least 1; the paper has any above 0, but below 1 the
            gradient of equal views is infinite.
        t: Reach of the repulsion, positive: the larger, the more the nearest pictures count.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    views = 2
    default_augmentation = "simclr"
    recipe = Recipe(optimizer="momentum", learning_rate=0.12, weight_decay=1e-4)  # STL-10; the rate is for 256 samples

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 128,
        align_weight: float = 1.0,
        uniform_weight: float = 1.0,
        alpha: float = 2.0,
        t: float = 2.0,
    ) -> None:
        super().__init__()
        for option, value in (("align_weight", align_weight), ("uniform_weight", uniform_weight)):
            if value < 0:
                raise ClvrBenchError(f"align_uniform: {option} must not be negative, got {value}. Typical: 0.5 to 3.")
        if alpha < 1:
            raise ClvrBenchError(f"align_uniform: alpha must be at least 1, got {alpha}. The paper's are 1 and 2.")
        if t <= 0:
            raise ClvrBenchError(f"align_uniform: t must be positive, got {t}. Typical: 2 to 3.")
        self.encoder = encoder
        self.projector = mlp(encoder.feature_dim, encoder.feature_dim, projection_dim)
        self.align_weight, self.uniform_weight = align_weight, uniform_weight
        self.alpha, self.t = alpha, t

    def forward(self, batch: Batch) -> StepOutput:
        """Compute both losses; uniformity is that of the first views and that of the second, averaged."""
        embeddings = self.projector(self.encoder(torch.cat(tuple(batch.views))))  # (2B, P)
        first, second = F.normalize(embeddings.float(), dim=1).chunk(2)  # (B, P) each
        alignment = align_loss(first, second, self.alpha)
        uniformity = (uniform_loss(first, self.t) + uniform_loss(second, self.t)) / 2
        loss = self.align_weight * alignment + self.uniform_weight * uniformity
        return StepOutput(loss, logs={"alignment": alignment.detach(), "uniformity": uniformity.detach()})


def align_loss(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """Compute the alignment loss, the mean of ``||x - y||^alpha`` over positive pairs (section 4.1).

    Args:
        first: (B, P) on the unit sphere.
        second: (B, P) on the unit sphere; row i is another view of the picture of row i in ``first``.
        alpha: At least 1.

    Returns:
        (), from 0 (the views agree) to 2 ** alpha (they are opposite).
    """
    distance: Tensor = (first - second).norm(dim=1)  # (B,)
    return distance.pow(alpha).mean()


def uniform_loss(points: Tensor, t: float) -> Tensor:
    """Compute the uniformity loss, ``log mean exp(-t ||x - y||^2)`` over all pairs of different pictures (section 4.1).

    Args:
        points: (B, P) on the unit sphere, at least two.
        t: Positive.

    Returns:
        (), from -4 t (two opposite points; about -2 t for many all over the sphere) to 0 (all in one place).
    """
    exponents = (2 * t * (points @ points.T - 1)).fill_diagonal_(float("-inf"))  # ||x - y||^2 = 2 - 2 x.y
    return exponents.flatten().logsumexp(dim=0) - math.log(len(points) * (len(points) - 1))
