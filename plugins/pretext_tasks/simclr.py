"""SimCLR: two views of a picture attract, the views of all other pictures in the batch repel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl
from clvr_bench.toolbox import mlp, view_similarities


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register SimCLR."""
    register(
        "simclr",
        SimCLR,
        summary="Two views of a picture attract, views of all others in the batch repel (NT-Xent).",
        source="Chen et al. 2020, https://arxiv.org/abs/2002.05709",
        version=2,  # similarities in float32 under autocast too
    )


class SimCLR(PretextTask):
    """SimCLR (Chen et al. 2020, section 2.1 and algorithm 1).

    Both views pass the encoder in one batch, so they share BatchNorm's statistics, as in the authors' code. The paper's
    projector W2 ReLU(W1 h) has no normalization; the authors' code, followed here, normalizes the hidden layer.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding (section 2.1: 128).
        temperature: tau of equation 1; 0.1 is best on ImageNet (table 5), 0.5 on CIFAR-10 (appendix B.9).
    """

    views = 2
    default_augmentation = "simclr"
    recipe = Recipe(optimizer="lars", learning_rate=0.3, weight_decay=1e-6)  # section 2.2; 10 of 100 epochs warm up

    def __init__(
        self, encoder: Encoder, data: DataFacts, *, projection_dim: int = 128, temperature: float = 0.1
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ClvrBenchError(f"simclr: temperature must be positive, got {temperature}. Typical: 0.1 to 0.5.")
        self.encoder = encoder
        self.temperature = temperature
        self.projector = mlp(encoder.feature_dim, encoder.feature_dim, projection_dim)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute NT-Xent over the 2B views of a batch."""
        embeddings = self.projector(self.encoder(torch.cat(tuple(batch.views))))  # (2B, P)
        similarities = view_similarities(embeddings, self.temperature)
        accuracy = (
            100 * (similarities.argmax(dim=1) == positive_index(len(embeddings), embeddings.device)).float().mean()
        )
        return StepOutput(loss=nt_xent(similarities), logs={"contrastive_top1": accuracy})


def nt_xent(similarities: Tensor) -> Tensor:
    """Compute the mean of equation 1 over all 2B views, each with its other view as the positive.

    Args:
        similarities: (2B, 2B) as ``view_similarities`` gives them.

    Returns:
        ().
    """
    return F.cross_entropy(similarities, positive_index(len(similarities), similarities.device))


def positive_index(count: int, device: torch.device) -> Tensor:
    """Return the row (2B,) of each view's other view, for 2B views in two halves."""
    return torch.arange(count, device=device).roll(count // 2)
