"""SwAV: views of a picture predict one another's assignment to prototypes, which is kept balanced over the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    DataFacts,
    Encoder,
    PretextTask,
    Progress,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.sinkhorn import sinkhorn
from clvr_bench.toolbox import Queue, cross_view_entropy, encode_by_size, global_views, mlp, require

_require = partial(require, "swav")


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register SwAV."""
    register(
        "swav",
        SwAV,
        summary="Views predict one another's balanced assignment to prototypes (Sinkhorn), with multi-crop.",
        source="Caron et al. 2020, https://arxiv.org/abs/2006.09882",
        version=1,
    )


class SwAV(PretextTask):
    """SwAV (Caron et al. 2020, section 3, algorithm 1 of the appendix and the authors' code).

    Codes come from global views alone (section 3.2), of all views where they are alike. Views of one size pass the
    encoder in one batch and all embeddings the projector in one, as in the authors' code. Prototypes are normalized
    after each step (algorithm 1) and get no gradient during the first epoch.
    Differs from the paper: the rate rises from 0, not from 0.3, and falls to 0, not to a thousandth of its peak; biases
    and BatchNorm's parameters neither decay nor are scaled by LARS; the queue is filled from the first step on, not
    only from the epoch on that uses it.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its ``train_size`` bounds the queue.
        prototypes: K; 3,000 in the paper, about three times ImageNet's classes.
        projection_dim: P, the length of an embedding.
        hidden_dim: Width of the projector's hidden layer.
        temperature: tau of equation 2.
        epsilon: Smoothness of the codes, equation 3.
        queue_size: Earlier embeddings of each global view that balance the codes of small batches; 0 for none. The
            paper: none at a batch of 4,096, 3,840 at 256.
        queue_from_epoch: The first epoch, counted from 0, that uses the queue, once it is full.
        freeze_epochs: Epochs at the start in which the prototypes stay fixed.
    """

    views = "multi"
    default_augmentation = "multicrop"
    # 4.8 at 4,096 pictures, 10 of 800 epochs warm up; at 256 the paper takes 0.6, without warm-up
    recipe = Recipe(optimizer="lars", learning_rate=4.8, reference_batch=4096, weight_decay=1e-6, warmup=0.0125)
    moves: tuple[str, ...] = ("prototypes", "queues")
    check_options: ClassVar[Mapping[str, Any]] = {
        "prototypes": 12,
        "queue_size": 32,
        "queue_from_epoch": 0,
        "freeze_epochs": 0,
    }

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        prototypes: int = 3000,
        projection_dim: int = 128,
        hidden_dim: int = 2048,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        queue_size: int = 0,
        queue_from_epoch: int = 15,
        freeze_epochs: int = 1,
    ) -> None:
        super().__init__()
        _require(prototypes > 1, "prototypes must be at least 2", prototypes, "Typical: three times the classes.")
        _require(temperature > 0, "temperature must be positive", temperature, "Typical: 0.1.")
        _require(epsilon > 0, "epsilon must be positive", epsilon, "Typical: 0.03 to 0.05.")
        rule = f"queue_size must be from 0 to the {data.train_size} training pictures"
        _require(0 <= queue_size <= data.train_size, rule, queue_size, "Typical: 10 to 15 batches.")
        self.encoder = encoder
        self.projector = mlp(encoder.feature_dim, hidden_dim, projection_dim)
        self.prototypes = nn.Linear(projection_dim, prototypes, bias=False)
        self.queues = nn.ModuleList(Queue(queue_size, projection_dim) for _ in range(2 if queue_size else 0))
        self.moves = ("prototypes", "queues") if queue_size else ("prototypes",)
        self.temperature, self.epsilon = temperature, epsilon
        self.queue_size, self.queue_from_epoch, self.freeze_epochs = queue_size, queue_from_epoch, freeze_epochs
        with torch.no_grad():
            self._normalize_prototypes()

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the swapped prediction loss of all views."""
        sources = self._sources(batch)
        features = encode_by_size(self.encoder, batch.views)  # (VB, D)
        embeddings = F.normalize(self.projector(features).float(), dim=1)  # (VB, P)
        frozen = batch.progress.epoch < self.freeze_epochs
        weight = self.prototypes.weight.detach() if frozen else self.prototypes.weight
        scores = F.linear(embeddings, weight).float().unflatten(0, (len(batch.views), -1))  # (V, B, K)
        codes = [self._codes(scores[view], place, batch.progress) for place, view in enumerate(sources)]
        kept = embeddings.detach().unflatten(0, (len(batch.views), -1))[sources].transpose(0, 1)  # (B, S, P)
        return StepOutput(
            loss=swapped_prediction(scores, codes, sources, self.temperature),
            logs={"swapped_top1": agreement(scores, codes, sources)},
            kept={"embeddings": kept} if self.queues else {},
        )

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Normalize the prototypes; queue the embeddings (B, 2, P) of the global views."""
        self._normalize_prototypes()
        for place, queue in enumerate(self.queues):
            queue.push(kept["embeddings"][:, place])  # type: ignore[operator]  # a ModuleList forgets what it holds

    def _normalize_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def _sources(self, batch: Batch) -> list[int]:
        """Return the numbers of the views that codes are made of."""
        sources = global_views(batch)
        rule = f"expected {'exactly 2' if self.queues else 'some'} global views among at least 2 views"
        fits = len(sources) == 2 if self.queues else bool(sources)
        _require(
            fits and len(batch.views) > 1,
            rule,
            batch.roles or "views that are alike",
            "Use the augmentation 'multicrop'.",
        )
        return sources

    def _codes(self, scores: Tensor, place: int, progress: Progress) -> Tensor:
        """Assign scores (B, K) of a global view to the prototypes, evenly over batch and queue: (B, K)."""
        count = len(scores)
        filled = progress.step * count >= self.queue_size  # every step pushes one batch
        if self.queues and filled and progress.epoch >= self.queue_from_epoch:
            queued: Tensor = self.prototypes(self.queues[place].embeddings)
            scores = torch.cat([scores, queued.float()])
        return sinkhorn(scores, self.epsilon)[:count]


def swapped_prediction(scores: Tensor, codes: Sequence[Tensor], sources: Sequence[int], temperature: float) -> Tensor:
    """Compute equation 6, as a mean over samples, codes and the views that predict each (all but its own).

    Args:
        scores: (V, B, K), z^T c of every view.
        codes: S tensors (B, K), q of equation 2.
        sources: The view that each code was made of.
        temperature: tau of equation 2.

    Returns:
        ().
    """
    return cross_view_entropy(F.log_softmax(scores / temperature, dim=-1), codes, sources)


def agreement(scores: Tensor, codes: Sequence[Tensor], sources: Sequence[int]) -> Tensor:
    """Return how often, in percent, the nearest prototype of another view is a code's largest entry; see above."""
    others = [torch.cat([scores[:view], scores[view + 1 :]]) for view in sources]  # each (V - 1, B, K)
    hits = [other.argmax(dim=-1) == code.argmax(dim=-1) for other, code in zip(others, codes, strict=True)]
    return 100 * torch.stack(hits).float().mean()
