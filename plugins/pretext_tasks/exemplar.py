"""Exemplar-CNN: every picture is a class of its own, told from the others however it is transformed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    Epoch,
    PretextTask,
    Recipe,
    Register,
    SampleRandom,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import linear_head

NO_CLASS = -1


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register Exemplar-CNN."""
    register(
        "exemplar",
        Exemplar,
        summary="Tells which of many pictures a transformed one is: a softmax over pictures.",
        source="Dosovitskiy et al. 2014, https://arxiv.org/abs/1406.6909",
        version=1,
    )


class Exemplar(PretextTask):
    """Exemplar-CNN (Dosovitskiy et al. 2014, the parts on surrogate training data and on the learning algorithm).

    Some of the training pictures, the exemplars, are surrogate classes, told apart by a softmax over all of them. An
    epoch takes as many steps as ever but shows exemplars alone, all equally often, give or take one visit, each time
    transformed anew. So the fewer the classes, the more views of each there are in a run.
    Differs from the paper: a class is a whole picture of the data, drawn at random, and not a patch of a larger one
    drawn where its gradients are large; its views are made as they are needed, not once, some hundred of each; no
    fully connected layer with dropout lies between encoder and softmax; the rate falls along a cosine, not by steps
    whenever the validation error stays.
    Left open by the paper: batch size and weight decay. They are those of a reproduction by Arazo et al. 2019
    (https://github.com/EricArazo/ExemplarCNN), without its factors by layer.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its training pictures are what exemplars are drawn from.
        classes: N, how many exemplars, from 2 to the number of training pictures (16,000 for the paper's large nets).
        batch_norm: Whether the classifier normalizes features over the batch first, which the paper's does not. It
            spares many classes the epochs in which all features share a direction.

    Raises:
        ClvrBenchError: There are fewer training pictures than classes, or fewer than two classes.
    """

    views = 1
    separable = True
    default_augmentation = "exemplar"
    recipe = Recipe(  # rate and momentum are the paper's
        optimizer="momentum", learning_rate=0.01, reference_batch=128, weight_decay=4e-3, warmup=0.0
    )
    check_options: ClassVar[Mapping[str, Any]] = {"classes": 60}
    class_of: Tensor
    key: Tensor

    def __init__(self, encoder: Encoder, data: DataFacts, *, classes: int = 16_000, batch_norm: bool = False) -> None:
        super().__init__()
        if not 2 <= classes <= data.train_size:
            raise ClvrBenchError(
                f"exemplar: classes must be from 2 to the {data.train_size} training pictures, got {classes}. "
                f"Set classes = {data.train_size // 2}, say."
            )
        self.encoder = encoder
        self.classifier = linear_head(encoder.feature_dim, classes, batch_norm=batch_norm)
        self.register_buffer("key", torch.randint(2**62, ()))  # from the run's seed: exemplars and visits draw from it
        self.register_buffer("class_of", surrogate_classes(int(self.key), data.train_size, classes))

    def before_epoch(self, epoch: Epoch) -> None:
        """Visit the exemplars alone."""
        epoch.visit(exemplar_visits(self.class_of, int(self.key), epoch.progress.epoch))

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the cross-entropy of surrogate classes; a picture that is no exemplar, which no epoch has, adds 0."""
        logits = self.classifier(self.encoder(batch.views[0])).float()  # (B, N)
        classes = self.class_of[batch.index]
        loss = F.cross_entropy(logits, classes, ignore_index=NO_CLASS, reduction="sum") / len(batch)
        return StepOutput(loss, logs={"exemplar_top1": 100 * (logits.argmax(dim=1) == classes).float().mean()})


def surrogate_classes(key: int, pictures: int, classes: int) -> Tensor:
    """Draw exemplars and number them.

    Args:
        key: Of the draw.
        pictures: How many there are.
        classes: N, how many of them are exemplars.

    Returns:
        (pictures,) int64: 0 to N - 1 of exemplars, ascending, and ``NO_CLASS`` of the others.
    """
    numbers = torch.arange(pictures)
    drawn = SampleRandom.keyed(key, 0, numbers)("exemplars").uniform().argsort(stable=True)[:classes]
    return torch.full_like(numbers, NO_CLASS).scatter_(0, drawn.sort().values, torch.arange(classes))


def exemplar_visits(class_of: Tensor, key: int, epoch: int) -> Tensor:
    """Order as many visits as there are pictures, to exemplars alone, equally many to each but for one.

    Args:
        class_of: (pictures,) int64; ``NO_CLASS`` marks those that are no exemplars.
        key: Of the draw.
        epoch: Counted from 0.

    Returns:
        (pictures,) int64 numbers of exemplars.
    """
    random = SampleRandom.keyed(key, epoch, torch.arange(len(class_of), device=class_of.device))
    exemplars = (class_of != NO_CLASS).nonzero()[:, 0]
    exemplars = exemplars[random("exemplars").uniform()[exemplars].argsort(stable=True)]  # any may come once more
    visits = exemplars.repeat(-(-len(class_of) // len(exemplars)))[: len(class_of)]
    return visits[random("visits").uniform().argsort(stable=True)]
