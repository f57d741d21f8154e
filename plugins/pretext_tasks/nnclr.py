"""NNCLR: a view predicts not its picture's other view but that view's nearest neighbour among earlier pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    PretextTask,
    Progress,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import Queue, check_queue, mlp


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register NNCLR."""
    register(
        "nnclr",
        NNCLR,
        summary="A view predicts the nearest neighbour, in a queue, of its picture's other view; others repel.",
        source="Dwibedi et al. 2021, https://arxiv.org/abs/2104.14548",
        version=1,
    )


class NNCLR(PretextTask):
    """NNCLR (Dwibedi et al. 2021, section 3, equations 2 to 4).

    A view's embedding is replaced by its nearest neighbour in a support set (equation 4), which the prediction of the
    other view is to pick out, and be picked out by, among all predictions and neighbours of the batch (equation 3 and
    its symmetric term, section 3.3). Both views look for neighbours in turn, and each passes the networks on its own,
    so that BatchNorm's statistics are one view's. The support set is a queue of the first views' embeddings, which join
    it after they served; it starts with random directions.
    Differs from the paper: a queue longer than the training set, which would hold pictures twice, is refused.

    Args:
        encoder: Maps pictures to features (B, D).
        data: The queue must not exceed its training set.
        projection_dim: P, the length of an embedding (section 4: 256).
        hidden_dim: Width of the projector's two hidden layers (section 4: 2048).
        predictor_dim: Width of the predictor's hidden layer (section 4: 4096).
        temperature: tau of equation 3 (section 4: 0.1).
        queue_size: m, the size of the support set (section 4: 98,304); need not be a multiple of the batch.
    """

    views = 2
    default_augmentation = "simclr"
    recipe = Recipe(  # SimCLR's; 10 of 1000 epochs warm up
        optimizer="lars", learning_rate=0.3, weight_decay=1e-6, warmup=0.01
    )
    moves = ("queue",)
    check_options: ClassVar[Mapping[str, object]] = {"queue_size": 40, "hidden_dim": 64, "predictor_dim": 64}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 256,
        hidden_dim: int = 2048,
        predictor_dim: int = 4096,
        temperature: float = 0.1,
        queue_size: int = 98_304,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ClvrBenchError(f"nnclr: temperature must be positive, got {temperature}. Typical: 0.1 to 0.2.")
        check_queue("nnclr", queue_size, data.train_size)
        self.encoder = encoder
        self.temperature = temperature
        self.projector = build_projector(encoder.feature_dim, hidden_dim, projection_dim)
        self.predictor = mlp(projection_dim, predictor_dim, projection_dim)
        self.queue = Queue(queue_size, projection_dim)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the loss in both directions: each view's prediction against the neighbours of the other."""
        embeddings = [self.projector(self.encoder(view)) for view in batch.views]  # each (B, P)
        first, second = (self.predictor(embedding) for embedding in embeddings)  # each (B, P)
        neighbours = [nearest(embedding, self.queue.embeddings) for embedding in embeddings]  # each (B, P)
        ways = [
            similarities(near, predictions, self.temperature)
            for near, predictions in zip(neighbours, (second, first), strict=True)
        ]
        return StepOutput(
            loss=torch.stack([symmetric_info_nce(way) for way in ways]).mean(),
            logs={"contrastive_top1": torch.stack([own_percentage(way) for way in ways]).mean()},
            kept={"embeddings": F.normalize(embeddings[0].detach().float(), dim=1)},
        )

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Queue the first views' embeddings."""
        self.queue.push(kept["embeddings"])


def build_projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build the projector of section 4: three linear layers, each with BatchNorm, and ReLU after all but the last."""
    last = nn.Linear(hidden, outputs, bias=False)
    return nn.Sequential(mlp(inputs, hidden, hidden, outputs)[:-1], last, nn.BatchNorm1d(outputs))


@torch.no_grad()
def nearest(embeddings: Tensor, support: Tensor) -> Tensor:
    """Find each embedding's nearest neighbour, once it has length 1 (equation 4): (B, P), without a gradient.

    Args:
        embeddings: (B, P), of any length.
        support: (m, P), of length 1; so the nearest has the greatest dot product.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        return support[(embeddings.float() @ support.T).argmax(dim=1)]


def similarities(neighbours: Tensor, predictions: Tensor, temperature: float) -> Tensor:
    """Compute the exponents of equation 3, NN(z_i) . p_k / tau, in float32.

    Args:
        neighbours: (B, P), of length 1.
        predictions: (B, P), of any length; they are scaled to length 1.
        temperature: tau, positive.

    Returns:
        (B, B), a row for each neighbour.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        return neighbours @ F.normalize(predictions.float(), dim=1).T / temperature


def symmetric_info_nce(exponents: Tensor) -> Tensor:
    """Average equation 3 and its symmetric term over a batch, given exponents (B, B) whose diagonal is positive."""
    own = torch.arange(len(exponents), device=exponents.device)
    return (F.cross_entropy(exponents, own) + F.cross_entropy(exponents.T, own)) / 2


def own_percentage(exponents: Tensor) -> Tensor:
    """Return how often, in percent, the prediction that is most like a neighbour is its own, given exponents (B, B)."""
    own = torch.arange(len(exponents), device=exponents.device)
    return 100 * (exponents.argmax(dim=1) == own).float().mean()
