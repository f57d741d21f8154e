"""Semi-supervised training: FixMatch, where confident guesses on weak views become labels of strong ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register FixMatch."""
    register(
        "semi_supervised",
        SemiSupervised,
        summary="FixMatch: a part of the labels, and confident guesses on the other pictures.",
        source="Sohn et al. 2020, https://arxiv.org/abs/2001.07685",
        version=1,
    )


class SemiSupervised(PretextTask):
    """FixMatch (Sohn et al. 2020, section 2.2, equations 3 and 4).

    Semi-supervised learning in general minimizes L = L_supervised + lambda L_unsupervised (arXiv 2210.03163). Here
    L_supervised is the cross-entropy of the labelled pictures' weak views (equation 3), L_unsupervised that of the
    other pictures' strong views, whose target is the class of the weak view where that is sure enough (equation 4).
    All views pass the encoder in one batch, so they share BatchNorm's statistics, as in the authors' code. The
    suite's batch counts unlabelled pictures, mu for each labelled one. Unlabelled are all pictures, the labelled
    ones with their labels hidden among them, as the paper has it in practice. Listed, not ranked: it sees some of the
    labels that the features are judged by.
    Differs from the paper: the final weights are evaluated, not their moving average, whose decay of 0.999 is slower
    than a short run; the rate falls along a half cosine to zero, not along 7/16 of a period; biases and normalization
    do not decay.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its ``num_classes``, K, sizes the classifier.
        fraction: Share of the training labels that it sees, in (0, 1], the same of each class.
        threshold: tau, how sure a guess must be to count, in [0, 1] (section 4: 0.95).
        unlabelled_ratio: mu, unlabelled pictures for each labelled one in a step, positive (section 4: 7).
        unlabelled_weight: lambda_u, not negative (section 4: 1).
    """

    views = 2
    labels = "partial"
    ranked = False
    default_augmentation = "fixmatch"
    recipe = Recipe(  # section 4: rate 0.03 at 64 labelled, so 448 unlabelled, pictures a step; Nesterov's momentum
        optimizer="sgd", learning_rate=0.03, reference_batch=448, weight_decay=5e-4, warmup=0.0
    )

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        fraction: float = 0.1,
        threshold: float = 0.95,
        unlabelled_ratio: float = 7.0,
        unlabelled_weight: float = 1.0,
    ) -> None:
        super().__init__()
        _require(0 < fraction <= 1, f"fraction must be above 0 and at most 1, got {fraction}. Typical: 0.01 to 0.1.")
        _require(0 <= threshold <= 1, f"threshold must be from 0 to 1, got {threshold}. Typical: 0.95.")
        _require(unlabelled_ratio > 0, f"unlabelled_ratio must be positive, got {unlabelled_ratio}. Typical: 7.")
        _require(
            unlabelled_weight >= 0, f"unlabelled_weight must not be negative, got {unlabelled_weight}. Typical: 1."
        )
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.feature_dim, data.num_classes or 0)
        self.labelled_fraction, self.labelled_ratio = fraction, 1 / unlabelled_ratio
        self.threshold, self.unlabelled_weight = threshold, unlabelled_weight

    def forward(self, batch: Batch) -> StepOutput:
        """Compute both losses; of labelled pictures only the weak view is used."""
        labelled = batch.labelled
        assert labelled is not None  # the harness gives one where labels are "partial"
        views = torch.cat([labelled.views[0], *batch.views])  # (L + 2B, C, H, W)
        logits = self.classifier(self.encoder(views)).float()  # (L + 2B, K)
        sure, weak, strong = logits.split([len(labelled), len(batch), len(batch)])
        supervised = F.cross_entropy(sure, labelled.labels)  # equation 3
        guesses, counts = pseudo_labels(weak, self.threshold)
        unsupervised = pseudo_label_loss(strong, guesses, counts)
        logs = {
            "supervised_loss": supervised,
            "unsupervised_loss": unsupervised,
            "labelled_top1": 100 * (sure.argmax(dim=1) == labelled.labels).float().mean(),
            "confident_percent": 100 * counts.float().mean(),
        }
        return StepOutput(loss=supervised + self.unlabelled_weight * unsupervised, logs=logs)


def pseudo_labels(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Guess classes from weak views, without a gradient.

    Args:
        logits: (B, K).
        threshold: tau, what the largest probability must reach.

    Returns:
        Classes (B,) int64, and whether each counts, (B,) bool.
    """
    confidence, guesses = logits.detach().softmax(dim=1).max(dim=1)
    return guesses, confidence >= threshold


def pseudo_label_loss(logits: Tensor, guesses: Tensor, counts: Tensor) -> Tensor:
    """Compute equation 4: the cross-entropy of strong views (B, K), 0 where a guess does not count, over all B: ()."""
    return (F.cross_entropy(logits, guesses, reduction="none") * counts).mean()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ClvrBenchError(f"semi_supervised: {message}")
