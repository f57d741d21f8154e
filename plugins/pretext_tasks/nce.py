"""NCE: a view is to be more like its picture's other view than like a view of one other picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl
from clvr_bench.toolbox import mlp


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register the contrastive loss with one negative."""
    register(
        "nce",
        SingleNegative,
        summary="A view is to be more like its picture's other view than like one view of another picture.",
        source="Jaiswal et al. 2020, https://arxiv.org/abs/2011.00362",
        version=1,
    )


class SingleNegative(PretextTask):
    """The NCE loss of reviews of contrastive learning, with one negative (Jaiswal et al. 2020; arXiv 2210.03163).

    A query q and its positive k+ are two views of a picture, k- is a view of another picture:
    ``-log(exp(sim(q, k+) / tau) / (exp(sim(q, k+) / tau) + exp(sim(q, k-) / tau)))``, where sim is the cosine. With all
    other pictures of the batch in the sum it would be InfoNCE.
    Left open by the formula: where k- comes from (here each step draws a ring of the batch's pictures, in which each
    has the next as its negative, so that all serve once), which views are which (the first is the query, the second the
    keys, through which gradients flow too), and all else, which is as in SimCLR (https://arxiv.org/abs/2002.05709):
    projector, temperature, augmentation and optimizer. Both views pass the encoder in one batch, as there, so they
    share BatchNorm's statistics.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding (SimCLR, section 2.1: 128).
        temperature: tau (SimCLR, table 5: 0.1).
    """

    views = 2
    default_augmentation = "simclr"
    recipe = Recipe(optimizer="lars", learning_rate=0.3, weight_decay=1e-6)  # SimCLR's

    def __init__(
        self, encoder: Encoder, data: DataFacts, *, projection_dim: int = 128, temperature: float = 0.1
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ClvrBenchError(f"nce: temperature must be positive, got {temperature}. Typical: 0.1 to 0.5.")
        self.encoder = encoder
        self.temperature = temperature
        self.projector = mlp(encoder.feature_dim, encoder.feature_dim, projection_dim)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the loss of each picture's first view."""
        if len(batch) < 2:
            raise ClvrBenchError("nce: a batch of one picture has no other for a negative. Use --batch-size 2 or more.")
        queries, keys = self.projector(self.encoder(torch.cat(tuple(batch.views)))).chunk(2)  # each (B, P)
        negatives = keys[another(batch.random("negative").uniform())]
        advantage = similarity(queries, keys) - similarity(queries, negatives)  # (B,)
        won = 100 * (advantage > 0).float().mean()
        return StepOutput(loss=nce(advantage, self.temperature).mean(), logs={"contrastive_top1": won})


def another(draws: Tensor) -> Tensor:
    """Return the place of another picture for each of a batch's (B,): the next in the ring that draws (B,) order."""
    ring = draws.argsort()
    places = torch.empty_like(ring)
    places[ring] = ring.roll(-1)
    return places


def similarity(queries: Tensor, keys: Tensor) -> Tensor:
    """Compute the cosines (B,) of vectors (B, P) in float32."""
    return F.cosine_similarity(queries.float(), keys.float(), dim=1)


def nce(advantage: Tensor, temperature: float) -> Tensor:
    """Compute the loss of each query, ``log(1 + exp(-(sim(q, k+) - sim(q, k-)) / tau))``.

    It is the formula, divided above and below by its numerator.

    Args:
        advantage: (B,), by how much the positive is more similar than the negative.
        temperature: tau, positive.

    Returns:
        (B,).
    """
    return F.softplus(-advantage / temperature)
