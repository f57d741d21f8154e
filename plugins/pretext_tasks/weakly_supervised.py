"""Weakly supervised training: classify by coarse classes, and be judged by the fine ones."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from clvr_bench import Batch, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register weakly supervised training."""
    register(
        "weakly_supervised",
        WeaklySupervised,
        summary="Cross-entropy on coarse classes, all coarse labels used.",
        source="Huh et al. 2016, https://arxiv.org/abs/1608.08614",
        version=1,
    )


class WeaklySupervised(PretextTask):
    """Cross-entropy of a linear classifier of the coarse classes on the encoder.

    Labels of a coarser grain than what is asked for are the "inexact" kind of weak supervision (Zhou 2018,
    https://doi.org/10.1093/nsr/nwx106). Whether they teach features that tell the fine classes apart is a question of
    Huh et al. 2016, who trained on coarser and coarser classes of ImageNet; here the data set says which classes go
    together. Listed, not ranked: these labels are a part of the answer that the features are judged by.
    Differs from the paper: the rate falls along a cosine after a short warm-up, as that of ``supervised`` does.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its ``num_classes``, that of the coarse classes, sizes the classifier.
    """

    views = 1
    labels = "coarse"
    ranked = False
    separable = True
    default_augmentation = "crop_flip"
    recipe = Recipe(optimizer="momentum", learning_rate=0.1, weight_decay=1e-4, warmup=0.05)

    def __init__(self, encoder: Encoder, data: DataFacts) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.feature_dim, data.num_classes or 0)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the cross-entropy of the coarse labels."""
        logits = self.classifier(self.encoder(batch.views[0])).float()  # (B, K)
        accuracy = 100 * (logits.argmax(dim=1) == batch.labels).float().mean()
        return StepOutput(loss=F.cross_entropy(logits, batch.labels), logs={"coarse_top1": accuracy})
