"""Supervised training: the yardstick that sees every label, and its weaker kin that sees only coarse ones."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn
from torch.nn import functional as F

from clvr_bench import Batch, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register training on the classes and on coarse classes."""
    register(
        "supervised",
        Supervised,
        summary="Yardstick: cross-entropy on the classes, all labels used.",
        source="He et al. 2016, https://arxiv.org/abs/1512.03385",
        version=1,
    )
    register(
        "weakly_supervised",
        WeaklySupervised,
        summary="Cross-entropy on coarse classes, all coarse labels used.",
        source="Huh et al. 2016, https://arxiv.org/abs/1608.08614",
        version=1,
    )


class Supervised(PretextTask):
    """Cross-entropy of a linear classifier on the encoder (He et al. 2016, section 3.4).

    Differs from the paper: the rate falls along a cosine after a short warm-up, not by steps.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its ``num_classes`` sizes the classifier.
    """

    views = 1
    labels: ClassVar[Literal["fine", "coarse"]] = "fine"
    ranked = False
    separable = True
    default_augmentation = "supervised"
    recipe = Recipe(optimizer="momentum", learning_rate=0.1, weight_decay=1e-4, warmup=0.05)

    def __init__(self, encoder: Encoder, data: DataFacts) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.feature_dim, data.num_classes or 0)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the cross-entropy of the labels."""
        logits = self.classifier(self.encoder(batch.views[0])).float()  # (B, K)
        accuracy = 100 * (logits.argmax(dim=1) == batch.labels).float().mean()
        return StepOutput(loss=F.cross_entropy(logits, batch.labels), logs={"train_top1": accuracy})


class WeaklySupervised(Supervised):
    """Cross-entropy of the coarse classes, whose number ``data.num_classes`` then is; all else as ``Supervised``.

    Labels of a coarser grain than what is asked for are the "inexact" kind of weak supervision (Zhou 2018,
    https://doi.org/10.1093/nsr/nwx106). Whether they teach features that tell the fine classes apart is a question of
    Huh et al. 2016, who trained on coarser and coarser classes of ImageNet; here the data set says which classes go
    together. Listed, not ranked: these labels are a part of the answer that the features are judged by.
    """

    labels = "coarse"
