"""A few pictures of a data set with their names and draws: what previews are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clvr_bench.assembly import blaming
from clvr_bench.contracts.dataset import Dataset
from clvr_bench.contracts.pretext_task import Labels
from clvr_bench.contracts.values import DataFacts, Images
from clvr_bench.data import Data
from clvr_bench.draws import SampleRandom
from clvr_bench.errors import ClvrBenchError
from clvr_bench.ops.crops import center_view

CHANNELS = (1, 3)  # that can be drawn
LEAST_TRAIN_SIZE = 100  # that tasks are told of: the number of pictures that ``check_options`` are made for


@dataclass(frozen=True)
class Samples:
    """The pictures that a preview is made of.

    Attributes:
        data: Of these pictures alone.
        index: (B,) int64, their numbers in the data set's training split.
        train_size: How many that has.
        image_size: Of views, in pixels.
        seed: Of all draws.
    """

    data: Data
    index: Tensor
    train_size: int
    image_size: int
    seed: int

    @property
    def images(self) -> Images:
        """The pictures as they are stored."""
        return self.data.train.images(torch.arange(len(self.index)))

    @property
    def views(self) -> Tensor:
        """The pictures as encoders are evaluated on them: (B, C, image_size, image_size) float32 in [0, 1]."""
        return center_view(self.images, self.image_size)

    @property
    def labels(self) -> list[str]:
        """The class and the number of each picture."""
        names, classes = self.data.dataset.class_names, self.data.train.labels.tolist()
        numbered = zip(classes, self.index.tolist(), strict=True)
        return [f"{names[label]}, image {number}" if label >= 0 else f"image {number}" for label, number in numbered]

    def facts(self, labels: Labels) -> DataFacts:
        """Return what an augmentation or a task that declared these labels may know."""
        size = max(self.train_size, LEAST_TRAIN_SIZE)
        return replace(self.data.facts(labels), train_size=size, image_size=self.image_size)

    def random(self, draw: int = 0) -> SampleRandom:
        """Return the pictures' draws; those of another ``draw`` are independent."""
        return SampleRandom.keyed(self.seed, draw, self.index)


def choose_samples(
    name: str, dataset: Dataset, *, numbers: Sequence[int] | None, image_size: int | None, seed: int
) -> Samples:
    """Choose pictures of a data set's training split; val is not held out.

    Args:
        name: The data set's registered name.
        dataset: The data set.
        numbers: Of the pictures; None for the first and the first of another class.
        image_size: Of views, in pixels; None for the data set's.
        seed: Of all draws.

    Raises:
        ClvrBenchError: There is no such picture, or the data set is not of pictures that can be drawn.
    """
    if dataset.modality != "image" or dataset.channels not in CHANNELS:
        found = f"{dataset.modality} of {dataset.channels} channels"
        raise ClvrBenchError(f"preview: dataset '{name}' holds {found}; only images of 1 or 3 channels can be drawn.")
    with blaming(f"dataset {name}", "its training split"):
        train = dataset.train
    if not len(train):
        raise ClvrBenchError(f"preview: dataset '{name}' has no training pictures.")
    index = torch.tensor(_two_classes(train.labels) if numbers is None else list(numbers))
    for number in index.tolist():
        if not 0 <= number < len(train):
            raise ClvrBenchError(
                f"--images {number}: dataset '{name}' has the training pictures 0 to {len(train) - 1}. "
                "Choose among these, such as --images 0,1."
            )
    with blaming(f"dataset {name}", "its training split"):
        chosen = train.subset(index)
    data = Data(name, dataset, train=chosen, val=chosen, test=chosen, unlabelled=None, fingerprint="")
    return Samples(data, index, len(train), image_size or dataset.image_size, seed)


def _two_classes(labels: Tensor) -> list[int]:
    """Return the first position and the first of another class, where there is one."""
    others = (labels != labels[0]).nonzero()[:1, 0]
    return [0, *others.tolist()]
