"""Fine-tuning: the whole representation and a new linear head, trained with a part of the labels or with all."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clvr_bench import ClvrBenchError, Evaluation, Frozen, Register, Scores, decay_groups, hookimpl
from clvr_bench.ops.ranking import accuracies, rank_classes
from clvr_bench.toolbox import (
    ClassifierRecipe,
    LabelledCrops,
    Schedule,
    center_outputs,
    labelled_subset,
    train_classifier,
    zero_classifier,
)

FEW = 0.01  # up to this fraction of the labels, training is longer
EPOCHS, EPOCHS_OF_FEW = 30, 60


@hookimpl
def register_evaluations(register: Register) -> None:
    """Register fine-tuning."""
    register(
        "finetune",
        Finetune,
        summary="Top-1 of the whole network trained on with a part of the labels, or with all of them.",
        source="Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix B.5; epochs for all labels: "
        "Chen et al. 2020, https://arxiv.org/abs/2006.10029, section 3",
        version=1,
    )


class Finetune(Evaluation):
    """Trains a copy of the representation and a linear head on crops and flips; scores test after the last epoch.

    Metrics, in percent: ``top1`` and ``top5`` on test (``top5`` only with more than five classes). Nothing is chosen,
    so labels are drawn from train and val together, the same part of every class and at least one: for a seed the same
    for every method, and those of the first draw of ``few_label``. A representation without parameters, such as
    pixels, gets the head alone, and a note.

    The recipe is SimCLR's: Nesterov's momentum of 0.9, no warm-up, no weight decay; the schedule and a head that starts
    at zero are those of its code. For all labels its paper states no epochs: SimCLRv2's are taken. Differs from the
    paper: batches are of 256 unless told otherwise (4,096), a smaller last batch of an epoch is left out, and centre
    views are the largest central square (theirs: 7/8 of its side).

    Args:
        fraction: Of the labels, in (0, 1].
        epochs: Passes over the labelled samples; 60 up to 1% of the labels and 30 beyond where None.
        learning_rate: At 256 samples a step; it grows linearly with the batch size.
        batch_size: Samples a step.
        weight_decay: Of weights; biases and normalization have none.
        schedule: ``"cosine"``, ``"steps"`` (60% and 80% of the run) or ``"constant"``.

    Raises:
        ClvrBenchError: A value is out of its range.
    """

    def __init__(
        self,
        *,
        fraction: float = 1.0,
        epochs: int | None = None,
        learning_rate: float = 0.05,
        batch_size: int = 256,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
    ) -> None:
        if not 0 < fraction <= 1:
            raise ClvrBenchError(
                f"finetune: fraction must be above 0 and at most 1, got {fraction}. Typical: 0.01, 0.1, 1."
            )
        self.fraction = fraction
        paper = ClassifierRecipe(
            epochs=EPOCHS_OF_FEW if fraction <= FEW else EPOCHS, learning_rate=0.05, nesterov=True, schedule="cosine"
        )
        self.recipe = paper.changed(
            "finetune",
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            weight_decay=weight_decay,
            schedule=schedule,
        )

    def __call__(self, frozen: Frozen) -> Scores:
        """Judge; test is scored once, at the end."""
        splits = [frozen.split("train"), frozen.split("val")]
        samples = labelled_subset(torch.cat([split.labels for split in splits]), self.fraction, seed=frozen.seed)
        crops = LabelledCrops(splits, frozen.image_size, seed=frozen.seed, purpose="finetune", samples=samples)
        tuned = Tuned(frozen)
        training = train_classifier(tuned.train(), decay_groups(tuned), crops, self.recipe)
        predictions = rank_classes(center_outputs(tuned.eval(), frozen.split("test"), frozen.image_size))
        return Scores(
            accuracies(predictions, frozen.labels("test"), frozen.num_classes),
            predictions,
            details={"fraction": self.fraction, **training.details},
            notes=(*headless_notes(frozen.representation), *training.notes),
        )


class Tuned(nn.Module):
    """A copy of a frozen representation, all of it trainable, and a linear head."""

    def __init__(self, frozen: Frozen) -> None:
        super().__init__()
        self.representation = copy.deepcopy(frozen.representation).requires_grad_(True)
        self.head = zero_classifier(frozen.features("test").shape[1], frozen.num_classes).to(frozen.device)
        self._autocast = frozen.autocast

    def forward(self, views: Tensor) -> Tensor:
        """Map pictures (B, C, S, S) in [0, 1] to logits (B, K) float32."""
        with self._autocast():
            features = self.representation(views)
        logits: Tensor = self.head(features.float())
        return logits


def headless_notes(representation: nn.Module) -> list[str]:
    """Say so where there is nothing to fine-tune but the head."""
    if any(True for _ in representation.parameters()):
        return []
    return ["the representation has no parameters, so the linear head alone was trained."]
