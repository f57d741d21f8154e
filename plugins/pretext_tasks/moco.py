"""MoCo: a view attracts its picture's other view, and repels a queue of views encoded earlier by a slow copy.

InfoMin is its second version with more augmentation, and with shuffled tiles as a query beside the view.
"""

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
from clvr_bench.toolbox import JigsawBranch, MomentumTarget, Queue, TileCut, check_queue, mlp, split_batch_norm


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register both versions of MoCo, and InfoMin."""
    shared = "Two views attract, a queue of earlier views by a momentum encoder repels"
    puzzle = "A view and its picture's shuffled tiles attract another view, a queue of earlier ones repels"
    v1, v2 = "He et al. 2020, https://arxiv.org/abs/1911.05722", "Chen et al. 2020, https://arxiv.org/abs/2003.04297"
    register("moco_v1", MoCoV1, summary=f"{shared}.", source=v1, version=1)
    register("moco_v2", MoCoV2, summary=f"{shared}; MLP head, more augmentation.", source=v2, version=1)
    infomin = "Tian et al. 2020, https://arxiv.org/abs/2005.10243"
    register("infomin", InfoMin, summary=f"{puzzle}; RandAugment.", source=infomin, version=1)


class MoCoV1(PretextTask):
    """MoCo (He et al. 2020, algorithm 1 and section 3).

    The first view is the query, the second the key; as in the paper, their parts are not exchanged. Keys are computed
    with the target as the previous step left it, and join the queue after they served as positives. So that BatchNorm
    betrays no positives (section 3.3), it sees a batch in parts, as on several GPUs, and keys pass in shuffled order.
    The queue starts with random directions, as in the authors' code; the paper does not say.
    Differs from the paper: the rate falls along a cosine, as in version 2, not tenfold at epochs 120 and 160 of 200;
    biases and BatchNorm's parameters do not decay, as they do in the authors' code.

    Args:
        encoder: Maps pictures to features (B, D); its BatchNorm is split.
        data: The queue must not exceed its training set.
        projection_dim: P, the length of an embedding (section 3.3: 128).
        temperature: tau of equation 1 (section 3.3: 0.07).
        queue_size: K, the number of negatives (section 4.1: 65,536); need not be a multiple of the batch.
        target_momentum: m of equation 2 (section 3.2: 0.999), in [0, 1).
        batch_norm_splits: Parts that BatchNorm sees a batch in (the paper's 8 GPUs); 1 is ordinary BatchNorm.
    """

    name = "moco_v1"
    views: ClassVar[int] = 2
    default_augmentation = "moco_v1"
    recipe = Recipe(optimizer="momentum", learning_rate=0.03, weight_decay=1e-4, warmup=0.0)  # section 4, ImageNet-1M
    moves = ("target", "queue")
    check_options: ClassVar[Mapping[str, object]] = {"queue_size": 40, "batch_norm_splits": 4}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 128,
        temperature: float = 0.07,
        queue_size: int = 65_536,
        target_momentum: float = 0.999,
        batch_norm_splits: int = 8,
    ) -> None:
        super().__init__()
        self._check(data, temperature, queue_size, target_momentum)
        self.temperature, self.target_momentum = temperature, target_momentum
        self.encoder = encoder
        self.head = self.build_head(encoder.feature_dim, projection_dim)
        for module in (self.encoder, self.head):
            split_batch_norm(module, batch_norm_splits)
        self.target = MomentumTarget(self.encoder, self.head)
        self.queue = Queue(queue_size, projection_dim)

    def build_head(self, feature_dim: int, projection_dim: int) -> nn.Module:
        """Build what maps features (B, D) to embeddings (B, P): one linear layer (section 3.3)."""
        return nn.Linear(feature_dim, projection_dim)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute InfoNCE of the queries against their keys and the queue."""
        first, second, *_ = batch.views
        queries = F.normalize(self.head(self.encoder(first)).float(), dim=1)  # (B, P)
        order = batch.random("shuffle").uniform().argsort()
        keys = F.normalize(self.target(second[order]).float(), dim=1)[order.argsort()]  # (B, P)
        logits = contrast(queries, keys, self.queue.embeddings, self.temperature)
        accuracy = 100 * (logits.argmax(dim=1) == 0).float().mean()
        return StepOutput(loss=info_nce(logits), logs={"contrastive_top1": accuracy}, kept={"keys": keys})

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the target towards the encoder, then the keys into the queue (algorithm 1)."""
        self.target.follow(self.encoder, self.head, momentum=self.target_momentum)
        self.queue.push(kept["keys"])

    def _check(self, data: DataFacts, temperature: float, queue_size: int, target_momentum: float) -> None:
        if temperature <= 0:
            raise ClvrBenchError(f"{self.name}: temperature must be positive, got {temperature}. Typical: 0.07 to 0.2.")
        if not 0 <= target_momentum < 1:
            raise ClvrBenchError(
                f"{self.name}: target_momentum must be in [0, 1), got {target_momentum}. Typical: 0.99 to 0.999."
            )
        check_queue(self.name, queue_size, data.train_size)


class MoCoV2(MoCoV1):
    """MoCo v2 (Chen et al. 2020): version 1 with an MLP head, a higher temperature, more augmentation and a cosine.

    Its arguments are version 1's.

    Args:
        temperature: tau; of those that section 3 compares, 0.2 is best.
    """

    name = "moco_v2"
    default_augmentation = "moco_v2"

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 128,
        temperature: float = 0.2,
        queue_size: int = 65_536,
        target_momentum: float = 0.999,
        batch_norm_splits: int = 8,
    ) -> None:
        super().__init__(
            encoder,
            data,
            projection_dim=projection_dim,
            temperature=temperature,
            queue_size=queue_size,
            target_momentum=target_momentum,
            batch_norm_splits=batch_norm_splits,
        )

    def build_head(self, feature_dim: int, projection_dim: int) -> nn.Module:
        """Build the MLP head: a hidden layer as wide as the feature (2048 for ResNet-50), ReLU, no BatchNorm."""
        return mlp(feature_dim, feature_dim, projection_dim, batch_norm=False)


class InfoMin(MoCoV2):
    """InfoMin (Tian et al. 2020): MoCo v2 with the augmentation that the paper finds, and a jigsaw branch.

    The paper argues that views should share no more than a downstream task needs, and that more augmentation brings
    them there. What it trains with that is followed here from the authors' code, which the abstract points to
    (https://github.com/HobbitLong/PyContrast, method InfoMin): momentum contrast, an MLP head, temperature 0.15, and
    the branch of PIRL (https://arxiv.org/abs/1912.01991), whose embedding of nine shuffled tiles is a second query for
    the same key, against the same queue. It maps each tile by an MLP like the head, and all nine by a linear layer.
    Differs from that code: tiles are cut from a third view like the others, where it mirrors a crop of 60 to 100% and
    changes no color; the key encoder has no copy of the branch, which there is never used. Its rate falls tenfold at
    epochs 120 and 160 of 200 unless told to follow a cosine, as it does here.

    Args:
        encoder: Maps pictures and tiles to features (B, D); its BatchNorm is split.
        data: The queue must not exceed its training set.
        projection_dim: P, the length of an embedding and of a tile's (code: 128).
        temperature: tau (code: 0.15).
        queue_size: K, the number of negatives (code: 65,536); need not be a multiple of the batch.
        target_momentum: m of MoCo's equation 2 (code: 0.999), in [0, 1).
        batch_norm_splits: Parts that BatchNorm sees a batch in (the code's GPUs); 1 is ordinary BatchNorm.
        jigsaw_weight: The branch's share of the loss, in [0, 1] (code: 0.5); the view has the rest.
        enlarged: By what tiles are enlarged for the encoder, at least 1: to bring tiles of small pictures closer to the
            size that is evaluated. They also become multiples of the encoder's smallest size, such as a patch.
        batch_norm: Whether hidden layers of head and branch are normalized over (parts of) the batch, which the code's
            are not. It spares a small data set the epochs in which all embeddings share a direction.
    """

    name = "infomin"
    views = 3
    default_augmentation = "infomin"

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 128,
        temperature: float = 0.15,
        queue_size: int = 65_536,
        target_momentum: float = 0.999,
        batch_norm_splits: int = 8,
        jigsaw_weight: float = 0.5,
        enlarged: float = 1.0,
        batch_norm: bool = False,
    ) -> None:
        self.batch_norm = batch_norm  # read by build_head, which is called next
        super().__init__(
            encoder,
            data,
            projection_dim=projection_dim,
            temperature=temperature,
            queue_size=queue_size,
            target_momentum=target_momentum,
            batch_norm_splits=batch_norm_splits,
        )
        if not 0 <= jigsaw_weight <= 1:
            raise ClvrBenchError(f"infomin: jigsaw_weight must be in [0, 1], got {jigsaw_weight}. The code's is 0.5.")
        self.jigsaw_weight = jigsaw_weight
        cut = TileCut.fitted(data.image_size, encoder.minimum_size, enlarged=enlarged)
        self.branch = JigsawBranch(cut, self.build_head(encoder.feature_dim, projection_dim), projection_dim)
        split_batch_norm(self.branch, batch_norm_splits)

    def build_head(self, feature_dim: int, projection_dim: int) -> nn.Module:
        """Build MoCo v2's MLP head, normalized where asked for."""
        return mlp(feature_dim, feature_dim, projection_dim, batch_norm=self.batch_norm)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute InfoNCE of the queries and of the puzzles against the same keys and queue."""
        view = super().forward(batch)
        queries = F.normalize(self.branch(self.encoder, batch.views[2], batch.random).float(), dim=1)  # (B, P)
        logits = contrast(queries, view.kept["keys"], self.queue.embeddings, self.temperature)
        accuracy = 100 * (logits.argmax(dim=1) == 0).float().mean()
        return StepOutput(
            loss=(1 - self.jigsaw_weight) * view.loss + self.jigsaw_weight * info_nce(logits),
            logs={**view.logs, "jigsaw_top1": accuracy},
            kept=view.kept,
        )

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show query and key, and the tiles of the third view in place and shuffled."""
        first, second, third = batch.views
        return {"query": first, "key": second, **self.branch.preview(third, batch.random)}


def contrast(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Compute the exponents of equation 1, q.k / tau, in float32.

    Args:
        queries: (B, P), of unit length.
        keys: (B, P), of unit length; row i is the positive of query i.
        negatives: (K, P), of unit length.
        temperature: tau, positive.

    Returns:
        (B, 1 + K), the positive first.
    """
    with torch.autocast(queries.device.type, enabled=False):
        positive = (queries * keys).sum(dim=1, keepdim=True)  # (B, 1)
        return torch.cat([positive, queries @ negatives.T], dim=1) / temperature


def info_nce(logits: Tensor) -> Tensor:
    """Compute the mean over queries of equation 1 from exponents (B, 1 + K) whose first is the positive's."""
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
