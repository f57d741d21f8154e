"""SupCon: all views of a class attract, the views of all other classes in the batch repel."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl
from clvr_bench.toolbox import view_similarities


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register supervised contrastive learning."""
    register(
        "supcon",
        SupCon,
        summary="Yardstick: views of one class attract, those of other classes in the batch repel, all labels used.",
        source="Khosla et al. 2020, https://arxiv.org/abs/2004.11362",
        version=1,
    )


class SupCon(PretextTask):
    """Supervised contrastive learning (Khosla et al. 2020, section 3, L_out of equation 2).

    Features are scaled to length 1 before the projector, embeddings after it (section 3.1). What is minimized is
    equation 2 times tau, so that gradients do not grow as tau falls (section 4.5), as a mean over the 2B views, as in
    the authors' code, where the equation has a sum. Both views pass the encoder in one batch. The projector is the
    second of the two of section 3.1, one linear layer, without bias, as in the authors' script for ImageNet. A sample
    whose label is hidden has its own other view for its only positive, which makes its terms equation 1.
    Differs from the paper: the augmentation is SimCLR's (its SimAugment, without warping), not AutoAugment, which is
    better on ImageNet by 0.7 points; evaluations read features of any length; biases and BatchNorm's
    parameters neither decay nor are scaled by LARS. Listed, not ranked: it sees the labels that features are judged by.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding (section 3.1: 128).
        temperature: tau of equation 2 (section 4.5: 0.1 for all results).
        batch_norm: Whether features are normalized over the batch before the projector. The authors' are not, but
            rectified features share a direction, and so do linear maps of them until training has parted them.
    """

    views = 2
    labels: ClassVar[Literal["fine"]] = "fine"
    ranked = False
    default_augmentation = "simclr"
    recipe = Recipe(  # the authors' script for ResNet-50: 12 of 350 epochs warm up
        optimizer="lars", learning_rate=0.4, weight_decay=1e-3, warmup=0.034
    )

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 128,
        temperature: float = 0.1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ClvrBenchError(f"supcon: temperature must be positive, got {temperature}. Typical: 0.07 to 0.2.")
        self.encoder = encoder
        self.temperature = temperature
        norm = [nn.BatchNorm1d(encoder.feature_dim, affine=False)] if batch_norm else []
        self.projector = nn.Sequential(*norm, nn.Linear(encoder.feature_dim, projection_dim, bias=False))

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 2, times the temperature, over the 2B views of a batch."""
        features = F.normalize(self.encoder(torch.cat(tuple(batch.views))).float(), dim=1)  # (2B, D)
        similarities = view_similarities(self.projector(features), self.temperature)  # (2B, 2B)
        positives = positive_pairs(batch.labels)
        hits = positives.gather(1, similarities.argmax(dim=1, keepdim=True))  # (2B, 1)
        return StepOutput(
            loss=self.temperature * sup_con(similarities, positives),
            logs={"contrastive_top1": 100 * hits.float().mean()},
        )


def positive_pairs(labels: Tensor) -> Tensor:
    """Say which views are each view's positives, P(i) of equation 2.

    Args:
        labels: (B,) of the pictures; a hidden one, -1, is like no other.

    Returns:
        (2B, 2B) bool, False on the diagonal; views i and i + B are of one picture.
    """
    picture = torch.arange(len(labels), device=labels.device)
    classes = labels.where(labels >= 0, -1 - picture).repeat(2)  # (2B,), a class of its own for each hidden one
    return (classes[:, None] == classes).fill_diagonal_(False)


def sup_con(similarities: Tensor, positives: Tensor) -> Tensor:
    """Compute L_out (equation 2) as a mean over all views.

    Args:
        similarities: (2B, 2B) as ``view_similarities`` gives them.
        positives: (2B, 2B) as ``positive_pairs`` gives them; at least one in each row.

    Returns:
        ().
    """
    log_p = F.log_softmax(similarities, dim=1).where(positives, 0.0)  # (2B, 2B), without the diagonal's infinities
    return -(log_p.sum(dim=1) / positives.sum(dim=1)).mean()
