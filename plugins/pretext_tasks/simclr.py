"""SimCLR: two views of a picture attract, those of all others in the batch repel; in version 2, earlier ones do too."""

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
from clvr_bench.toolbox import MomentumTarget, Queue, check_queue, mlp, view_similarities


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register both versions of SimCLR."""
    register(
        "simclr",
        SimCLR,
        summary="Two views of a picture attract, views of all others in the batch repel (NT-Xent).",
        source="Chen et al. 2020, https://arxiv.org/abs/2002.05709",
        version=2,  # similarities in float32 under autocast too
    )
    register(
        "simclr_v2",
        SimCLRV2,
        summary="SimCLR with a deeper projector, against what a slow copy makes of this batch and of earlier ones.",
        source="Chen et al. 2020, https://arxiv.org/abs/2006.10029",
        version=1,
    )


class SimCLR(PretextTask):
    """SimCLR (Chen et al. 2020, section 2.1 and algorithm 1).

    Both views pass the encoder in one batch, so they share BatchNorm's statistics, as in the authors' code. The paper's
    projector W2 ReLU(W1 h) has no normalization; the authors' code normalizes both layers, here the hidden one is.

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
        check_temperature("simclr", temperature)
        self.encoder = encoder
        self.temperature = temperature
        self.projector = mlp(encoder.feature_dim, encoder.feature_dim, projection_dim)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute NT-Xent over the 2B views of a batch."""
        embeddings = self.projector(self.encoder(torch.cat(tuple(batch.views))))  # (2B, P)
        similarities = view_similarities(embeddings, self.temperature)
        return StepOutput(loss=nt_xent(similarities), logs={"contrastive_top1": matched_percentage(similarities)})


class SimCLRV2(PretextTask):
    """SimCLR v2 (Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners", section 2).

    The projector is deeper than SimCLR's, its first layers may stay on the encoder afterwards, and views are compared
    with a memory: a moving average of encoder and projector embeds both views, and each view is to pick its picture's
    other view out of all others that were embedded so in this batch and, as a queue holds them, in those before. The
    paper finds about 1% in that, at 4096 pictures a batch (section 2). The authors' code, followed where the paper is
    silent (https://github.com/google-research/simclr), has no memory; that contrasting examples all come from the
    moving average, of this batch and past ones, they say in its discussions. Without a queue the loss is equation 1
    among the batch alone, as SimCLR's. Every layer of the projector is normalized, the last by scale only.
    Differs from the paper: only its pretraining is here. Fine-tuning is an evaluation's, distillation is left out, and
    the larger encoders with selective kernels are a suite's to choose.
    Left open by the paper: whether both views are compared with the memory and remembered, as they are here, and what
    the queue starts with, random directions here.

    Args:
        encoder: Maps pictures to features (B, D).
        data: The queue must not exceed its training set.
        projection_layers: Linear layers of the projector (section 3.1: 3), all but the last as wide as the feature.
        representation_layers: How many of them, each with BatchNorm and ReLU, are kept as the representation's end. For
            fine-tuning on 1% or 10% of the labels the paper keeps 1, on all labels 0 (section 3.1); for linear
            classifiers the authors' code keeps 0.
        projection_dim: P, the length of an embedding (authors' code: 128).
        temperature: tau of equation 1 (authors' code: 0.1).
        queue_size: Embeddings of earlier views that the memory holds (section 3.1: 64K); 0 leaves it out altogether.
        target_momentum: The memory network's, in [0, 1) (section 3.1: 0.999).

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    views = 2
    default_augmentation = "simclr"
    recipe = Recipe(  # section 3.1: 0.1 times the square root of the batch, 5% of the epochs warm up
        optimizer="lars", learning_rate=6.4, reference_batch=4096, scaling="sqrt", weight_decay=1e-4, warmup=0.05
    )
    moves: tuple[str, ...] = ("target", "queue")
    check_options: ClassVar[Mapping[str, object]] = {"queue_size": 40}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_layers: int = 3,
        representation_layers: int = 0,
        projection_dim: int = 128,
        temperature: float = 0.1,
        queue_size: int = 65_536,
        target_momentum: float = 0.999,
    ) -> None:
        super().__init__()
        check_temperature("simclr_v2", temperature)
        if not 0 <= representation_layers < projection_layers:
            raise ClvrBenchError(
                "simclr_v2: representation_layers must be at least 0 and less than projection_layers, got "
                f"{representation_layers} and {projection_layers}. The paper's are 0 or 1, and 3."
            )
        if not 0 <= target_momentum < 1:
            raise ClvrBenchError(
                f"simclr_v2: target_momentum must be in [0, 1), got {target_momentum}. Typical: 0.9 to 0.999."
            )
        if queue_size:
            check_queue("simclr_v2", queue_size, data.train_size)
        self.temperature, self.target_momentum = temperature, target_momentum
        self.representation_layers = representation_layers
        self.encoder = encoder
        self.projector = build_projector(encoder.feature_dim, projection_layers, projection_dim)
        self.target = MomentumTarget(self.encoder, self.projector) if queue_size else None
        self.queue = Queue(queue_size, projection_dim) if queue_size else None
        self.moves = ("target", "queue") if queue_size else ()

    def forward(self, batch: Batch) -> StepOutput:
        """Compute NT-Xent of the 2B views of a batch, against the memory if there is one."""
        views = torch.cat(tuple(batch.views))
        embeddings = self.projector(self.encoder(views))  # (2B, P)
        kept = {}
        if self.target is None or self.queue is None:  # there are both or none
            similarities = view_similarities(embeddings, self.temperature)
        else:
            kept["keys"] = F.normalize(self.target(views).float(), dim=1)  # (2B, P)
            similarities = memory_similarities(embeddings, kept["keys"], self.queue.embeddings, self.temperature)
        logs = {"contrastive_top1": matched_percentage(similarities)}
        return StepOutput(loss=nt_xent(similarities), logs=logs, kept=kept)

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the memory network towards encoder and projector, and what it embedded into the queue."""
        if self.target is not None and self.queue is not None:
            self.target.follow(self.encoder, self.projector, momentum=self.target_momentum)
            self.queue.push(kept["keys"])

    def representation(self) -> nn.Module:
        """Return the encoder, with the projector's first layers behind it if some are to be kept."""
        layers = self.projector[: self.representation_layers]
        return nn.Sequential(self.encoder, *layers) if self.representation_layers else self.encoder


def check_temperature(task: str, temperature: float) -> None:
    """Refuse a temperature that is not positive, in the name of a task."""
    if temperature <= 0:
        raise ClvrBenchError(f"{task}: temperature must be positive, got {temperature}. Typical: 0.1 to 0.5.")


def build_projector(feature_dim: int, layers: int, projection_dim: int) -> nn.Sequential:
    """Build version 2's projector, (B, D) to (B, P), as one module a layer: linear, BatchNorm and, but last, ReLU."""
    hidden = [
        nn.Sequential(nn.Linear(feature_dim, feature_dim, bias=False), nn.BatchNorm1d(feature_dim), nn.ReLU())
        for _ in range(layers - 1)
    ]
    norm = nn.BatchNorm1d(projection_dim)
    norm.register_parameter("bias", None)
    return nn.Sequential(*hidden, nn.Sequential(nn.Linear(feature_dim, projection_dim, bias=False), norm))


def memory_similarities(embeddings: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Compute the cosines of views with what the memory network makes of these and made of earlier ones, in float32.

    Args:
        embeddings: (2B, P), of any length.
        keys: (2B, P), of length 1; row i is the memory network's embedding of view i.
        queue: (K, P), of length 1.
        temperature: tau, positive.

    Returns:
        (2B, 2B + K), over the temperature; minus infinity where a view would meet itself.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        normalized = F.normalize(embeddings.float(), dim=1)
        in_batch = (normalized @ keys.T).fill_diagonal_(float("-inf"))
        return torch.cat([in_batch, normalized @ queue.T], dim=1) / temperature


def nt_xent(similarities: Tensor) -> Tensor:
    """Compute the mean of equation 1 over all 2B views, each with its other view as the positive.

    Args:
        similarities: (2B, 2B + K) as ``view_similarities`` (K = 0) or ``memory_similarities`` gives them.

    Returns:
        ().
    """
    return F.cross_entropy(similarities, positive_index(len(similarities), similarities.device))


def matched_percentage(similarities: Tensor) -> Tensor:
    """Return how often, in percent, a view is most like its other view, given similarities (2B, 2B + K)."""
    matched = similarities.argmax(dim=1) == positive_index(len(similarities), similarities.device)
    return 100 * matched.float().mean()


def positive_index(count: int, device: torch.device) -> Tensor:
    """Return the row (2B,) of each view's other view, for 2B views in two halves."""
    return torch.arange(count, device=device).roll(count // 2)
