"""The field's ImageNet protocol: a linear classifier by SGD on random crops, through the frozen encoder every epoch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clvr_bench import Evaluation, Frozen, Register, Scores, hookimpl
from clvr_bench.ops.ranking import accuracies, rank_classes
from clvr_bench.toolbox import ClassifierRecipe, LabelledCrops, Schedule, train_classifier, zero_classifier

ENCODED_AT_ONCE = 256  # pictures; the frozen encoder needs no whole batch, whose 4,096 would fill a GPU

PRESETS = {
    "moco": ClassifierRecipe(epochs=100, learning_rate=30.0, batch_size=256, schedule="steps"),
    "simclr": ClassifierRecipe(epochs=90, learning_rate=0.1, batch_size=4096, nesterov=True, schedule="cosine"),
}
"""The papers' recipes: rates are stated for 256 samples a step and momentum is 0.9 in both, nothing is regularized."""


@hookimpl
def register_evaluations(register: Register) -> None:
    """Register the linear classifier by SGD."""
    register(
        "linear_sgd",
        LinearSgd,
        summary="Top-1 of a linear classifier trained by SGD on random crops through the frozen encoder.",
        source="He et al. 2020, https://arxiv.org/abs/1911.05722, section 4.1; "
        "Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix B.6",
        version=1,
    )


class LinearSgd(Evaluation):
    """Trains on crops and flips of train and val, for nothing is chosen; scores test after the last epoch.

    Metrics, in percent: ``top1`` and ``top5`` on test (``top5`` only with more than five classes). The encoder runs
    anew on every crop, in eval mode. Test is seen in centre views.

    The rate grows linearly with the batch size, from what the recipe states for 256. SimCLR's schedule is that of its
    code. Differs from the papers: the classifier starts at zero (MoCo: at deviations of 0.01), a smaller last
    batch of an epoch is left out, and centre views are the largest central square (theirs: 7/8 of its side).

    Args:
        preset: ``"moco"`` (SGD, rate 30, batches of 256, 100 epochs, the rate divided by ten at 60% and 80%) or
            ``"simclr"`` (Nesterov's momentum, rate 0.1, batches of 4,096, 90 epochs, cosine).
        epochs: Passes over the data; as all below, the preset's where None.
        learning_rate: At 256 samples a step.
        batch_size: Samples a step.
        weight_decay: Of the classifier's weights and biases.
        schedule: ``"cosine"``, ``"steps"`` (60% and 80% of the run) or ``"constant"``.

    Raises:
        ClvrBenchError: A value is out of its range.
    """

    def __init__(
        self,
        *,
        preset: Literal["moco", "simclr"] = "moco",
        epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        weight_decay: float | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self.recipe = PRESETS[preset].changed(
            "linear_sgd",
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            weight_decay=weight_decay,
            schedule=schedule,
        )

    def __call__(self, frozen: Frozen) -> Scores:
        """Judge; test is scored once, at the end."""
        splits = [frozen.split("train"), frozen.split("val")]
        crops = LabelledCrops(splits, frozen.image_size, seed=frozen.seed, purpose="linear_sgd")
        features = frozen.features("test")
        classifier = zero_classifier(features.shape[1], frozen.num_classes).to(frozen.device)

        def network(views: Tensor) -> Tensor:
            encoded = torch.cat([frozen.encode(part) for part in views.split(ENCODED_AT_ONCE)])  # (B, D)
            logits: Tensor = classifier(encoded)
            return logits

        training = train_classifier(network, classifier.parameters(), crops, self.recipe)
        with torch.no_grad():
            predictions = rank_classes(classifier(features))
        return Scores(
            accuracies(predictions, frozen.labels("test"), frozen.num_classes),
            predictions,
            details=training.details,
            notes=training.notes,
        )
