"""Local aggregation: a picture nears those that cluster with it, away from others that are near in a memory bank."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    DataFacts,
    Encoder,
    Epoch,
    PretextTask,
    Progress,
    Recipe,
    Register,
    SampleRandom,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.kmeans import kmeans
from clvr_bench.toolbox import NCE, MemoryBank, check_contrast, discriminate_instances, linear_head, require

_LEAST = 1e-7  # added to a probability before its logarithm, as in the authors' code

_require = partial(require, "local_aggregation")


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register local aggregation."""
    register(
        "local_aggregation",
        LocalAggregation,
        summary="Of its nearest neighbours in a memory bank, a picture nears those that share a cluster with it.",
        source="Zhuang et al. 2019, https://arxiv.org/abs/1903.12355",
        version=1,
    )


class LocalAggregation(PretextTask):
    """Local aggregation (Zhuang et al. 2019, and the authors' code, which the numbers here come from).

    A picture's background neighbours B are the k vectors of the memory bank that are most like its embedding v; its
    close neighbours C are those that share a cluster with it in any of H k-means clusterings of the bank, renewed each
    epoch. The loss is -log(P(C and B | v) / P(B | v)), where P sums exp(v_j v / tau) over a set (its normalizing
    constant cancels). A picture's own vector is in C. The first epochs discriminate instances, as InstDisc does.
    Left open by the paper: what is lost where no background neighbour is close; as in the authors' code, 1e-7 is added
    to the ratio, so that such a picture has a loss of 16.1 and no gradient.
    Differs from the authors' code: the rate falls along a cosine over the whole run, not in two steps after the plain
    epochs; those estimate the normalizing constant from the first step, where the code has it fixed.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its ``train_size`` is N, the size of the bank.
        projection_dim: P, the length of an embedding; 128 there.
        background: k; 4,096 there.
        clusters: m of each clustering; 30,000 there for a ResNet, of ImageNet's 1.28 million pictures.
        clusterings: H; 10 there for a ResNet.
        warmup_epochs: How many epochs discriminate instances first; 10 there. A run that has no more never aggregates.
        negatives: Drawn from the bank for each picture in those epochs; 4,096 there; 0 compares with all N.
        temperature: tau; 0.07 there.
        bank_momentum: The share of a picture's old vector that a visit keeps, in [0, 1); 0.5 there.
        batch_norm: Whether the projector normalizes features over the batch first, which theirs does not; see InstDisc.

    Raises:
        ClvrBenchError: An option is out of its range, or exceeds the training pictures.
    """

    views = 1
    separable = True
    default_augmentation = "moco_v1"
    recipe = Recipe(optimizer="momentum", learning_rate=0.03, reference_batch=128, weight_decay=1e-4, warmup=0.0)
    moves = ("bank", "nce", "assignments")
    check_options: ClassVar[Mapping[str, Any]] = {
        "background": 32,
        "clusters": 8,
        "clusterings": 2,
        "warmup_epochs": 1,
        "negatives": 32,
    }
    assignments: Tensor
    key: Tensor

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 128,
        background: int = 4096,
        clusters: int = 30_000,
        clusterings: int = 10,
        warmup_epochs: int = 10,
        negatives: int = 4096,
        temperature: float = 0.07,
        bank_momentum: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        size = data.train_size
        check_contrast("local_aggregation", negatives=negatives, least=0, train_size=size, temperature=temperature)
        _require(2 <= background <= size, f"background must be from 2 to the {size} training pictures", background)
        _require(2 <= clusters <= size, f"clusters must be from 2 to the {size} training pictures", clusters)
        _require(clusterings >= 1, "clusterings must be positive", clusterings)
        _require(warmup_epochs >= 0, "warmup_epochs must not be negative", warmup_epochs)
        self.encoder = encoder
        self.background, self.clusters, self.negatives = background, clusters, negatives
        self.warmup_epochs = warmup_epochs
        self.projector = linear_head(encoder.feature_dim, projection_dim, batch_norm=batch_norm)
        self.bank = MemoryBank(size, projection_dim, momentum=bank_momentum)
        self.nce = NCE(size, temperature)
        self.register_buffer("assignments", torch.zeros(clusterings, size, dtype=torch.int64))
        self.register_buffer("key", torch.randint(2**62, ()))  # from the run's seed: k-means draws from it

    def before_epoch(self, epoch: Epoch) -> None:
        """Cluster the bank, once the plain epochs are over."""
        if epoch.progress.epoch < self.warmup_epochs:
            return
        numbers = torch.arange(len(self.bank), device=self.bank.vectors.device)
        random = SampleRandom.keyed(int(self.key), epoch.progress.epoch, numbers)
        for place, assignments in enumerate(self.assignments):
            found = kmeans(self.bank.vectors, self.clusters, random.scoped(f"clustering{place}"))
            assignments.copy_(found.assignments)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the loss of one view a picture: of instances first, of local aggregation later."""
        embeddings = F.normalize(self.projector(self.encoder(batch.views[0])).float(), dim=1)  # (B, P)
        kept = {"index": batch.index, "embeddings": embeddings.detach()}
        if batch.progress.epoch < self.warmup_epochs:
            losses, hits, constants = discriminate_instances(embeddings, batch, self.bank, self.nce, self.negatives)
            return StepOutput(losses.mean(), {"contrastive_top1": 100 * hits.float().mean()}, {**kept, **constants})
        nearest = self.bank.similarities(embeddings).topk(self.background, dim=1)  # (B, k)
        close = share_cluster(self.assignments, batch.index, nearest.indices)  # (B, k)
        ratios = close_ratios(nearest.values / self.nce.temperature, close)
        logs = {"close_percentage": 100 * ratios.detach().mean(), "close_neighbours": close.sum(dim=1).float().mean()}
        return StepOutput(-(ratios + _LEAST).log().mean(), logs, kept)

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the vectors of the pictures just seen; after the first plain step, fix the normalizing constant."""
        self.bank.update(kept["index"], kept["embeddings"])
        if "log_constants" in kept:
            self.nce.settle(kept["log_constants"])


def share_cluster(assignments: Tensor, index: Tensor, others: Tensor) -> Tensor:
    """Say which pictures share a cluster with a sample in any clustering.

    Args:
        assignments: (H, N), the clusters of all pictures.
        index: (B,), the samples.
        others: (B, k), the pictures that each is compared with.

    Returns:
        (B, k) bool.
    """
    return (assignments[:, others] == assignments[:, index, None]).any(dim=0)


def close_ratios(exponents: Tensor, close: Tensor) -> Tensor:
    """Compute P(C and B | v) / P(B | v).

    Args:
        exponents: (B, k), v_j v / tau of the background neighbours.
        close: (B, k) bool, which of them are close neighbours too.

    Returns:
        (B,) in [0, 1].
    """
    return (exponents.softmax(dim=1) * close).sum(dim=1)
