"""A data set made ready for a sweep: val held out, facts and labels as a task may see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clvr_bench.contracts.dataset import Dataset, Split
from clvr_bench.contracts.pretext_task import Labels
from clvr_bench.contracts.values import DataFacts
from clvr_bench.draws import SampleRandom, key_of
from clvr_bench.errors import ClvrBenchError

VAL_FRACTION = 0.05
HIDDEN = -1


@dataclass(frozen=True)
class Data:
    """A data set, its splits on the training device.

    Attributes:
        name: The registered name, for messages.
        dataset: As its plugin built it.
        train: Samples that pretraining and the probe's fit see.
        val: 5% of the data set's training samples, the same for every task; it chooses, and is never trained on.
        test: Samples scored once.
        unlabelled: Further samples for pretraining; None where there are none.
        fingerprint: Hash of everything above.
    """

    name: str
    dataset: Dataset
    train: Split
    val: Split
    test: Split
    unlabelled: Split | None
    fingerprint: str

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.dataset.title or self.name

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.dataset.class_names)

    @cached_property
    def _everything(self) -> Split:
        return self.train if self.unlabelled is None else self.train.joined(self.unlabelled)

    def pretraining(self, labels: Labels) -> Split:
        """Return what a task pretrains on: the unlabelled samples too, unless it needs a label for each."""
        return self._everything if labels in ("none", "partial") else self.train

    def labels_for(self, labels: Labels, fraction: float, seed: int) -> Tensor:
        """Return the labels (N,) that a task may see, ``HIDDEN`` elsewhere.

        Args:
            labels: What the task declared.
            fraction: Of the labels, for ``"partial"``: stratified, at least one a class.
            seed: Of that choice.
        """
        fine = self.pretraining(labels).labels
        if labels == "none":
            return torch.full_like(fine, HIDDEN)
        if labels == "coarse":
            return torch.tensor(self.dataset.coarse)[fine]
        if labels == "partial":
            return fine.where(stratified(fine, fraction, seed), torch.tensor(HIDDEN))
        return fine

    def facts(self, labels: Labels) -> DataFacts:
        """Return what a task that declared these labels may know."""
        dataset = self.dataset
        classes = {"none": None, "coarse": len(dataset.coarse_names)}.get(labels, self.num_classes)
        size = len(self.pretraining(labels))
        return DataFacts(
            modality=dataset.modality,
            train_size=size,
            image_size=dataset.image_size,
            channels=dataset.channels,
            frames=dataset.frames,
            cameras=dataset.cameras,
            num_classes=classes,
        )


def prepare(name: str, dataset: Dataset, device: torch.device) -> Data:
    """Hold val out of a data set's training samples and move all splits to a device.

    Raises:
        ClvrBenchError: It has fewer than two classes, or too few samples to hold any out.
    """
    if len(dataset.class_names) < 2:
        raise ClvrBenchError(
            f"dataset {name}: it has only {len(dataset.class_names)} of the two or more classes that a score needs."
        )
    train, test, unlabelled = dataset.train, dataset.test, dataset.unlabelled
    if not len(train) or not len(test):
        raise ClvrBenchError(f"dataset {name}: {len(train)} training and {len(test)} test samples; both are needed.")
    held_out = stratified(train.labels, VAL_FRACTION, key_of("val"))
    if held_out.all():
        raise ClvrBenchError(
            f"dataset {name}: {len(train)} training samples are too few to hold {VAL_FRACTION:.0%} out."
        )
    parts = [train.fingerprint, test.fingerprint, unlabelled.fingerprint if unlabelled else ""]
    return Data(
        name=name,
        dataset=dataset,
        train=train.subset((~held_out).nonzero()[:, 0]).to(device),
        val=train.subset(held_out.nonzero()[:, 0]).to(device),
        test=test.to(device),
        unlabelled=unlabelled.to(device) if unlabelled else None,
        fingerprint=f"{key_of(*parts, dataset.class_names, *dataset.coarse) & (1 << 64) - 1:016x}",
    )


def stratified(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Choose the same part of every class, at least one sample of each.

    Args:
        labels: (N,) int64; negative ones are never chosen.
        fraction: From 0 to 1.
        seed: Of the choice.

    Returns:
        (N,) bool.
    """
    luck = SampleRandom.keyed(seed, 0, torch.arange(len(labels)))("stratified").uniform()
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        if label >= 0:
            chosen[members[luck[members].argsort()][: max(1, round(fraction * len(members)))]] = True
    return chosen
