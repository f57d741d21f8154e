"""A data set made ready for a sweep: val held out, facts and labels as a task may see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clvr_bench.combinations import Choice
from clvr_bench.contracts.dataset import Dataset, Split
from clvr_bench.contracts.pretext_task import Labels
from clvr_bench.contracts.values import DataFacts
from clvr_bench.draws import SampleRandom, key_of
from clvr_bench.errors import ClvrBenchError
from clvr_bench.storage.access import Access as Access
from clvr_bench.storage.keeping import keep
from clvr_bench.storage.picture_files import PictureFiles

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
        notes: What a reader of its scores should know: files that were left out, copies of train in test.
    """

    name: str
    dataset: Dataset
    train: Split
    val: Split
    test: Split
    unlabelled: Split | None
    fingerprint: str
    notes: tuple[str, ...] = ()

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


def load(choice: Choice, access: Access, device: torch.device) -> Data:
    """Build a data set, make its picture files fast, and hold val out.

    Args:
        choice: The data set.
        access: How its files are reached; where it matters for memory it decides between a cache and streaming.
        device: Where pictures are served.

    Raises:
        ClvrBenchError: Anything a user can mend; a plugin that raised anything else is named too.
    """
    name = choice.entry.name
    try:
        if access.download:
            _download(choice, access)
        dataset: Dataset = choice.entry.factory(access.root, **choice.options)
        splits = {"train": dataset.train, "test": dataset.test, "unlabelled": dataset.unlabelled}
        files = {key: split for key, split in splits.items() if isinstance(split, PictureFiles)}
        notes: tuple[str, ...] = ()
        if files:
            option = f"{name}.unreadable" if "unreadable" in choice.options else ""
            kept = keep(name, files, access, device, option=option)
            splits, notes = {**splits, **kept.splits}, kept.notes
        data = _prepared(name, dataset, splits, device, notes)
    except ClvrBenchError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ClvrBenchError(f"dataset '{name}' could not be loaded ({reason}).") from error
    for note in data.notes[len(notes) :]:  # of what is left out, users were told in full
        access.report(f"dataset {name}: {note}")
    return data


def _download(choice: Choice, access: Access) -> None:
    if access.root is None:
        raise ClvrBenchError(
            f"--download: name the folder that {choice.entry.name} is downloaded into, with --data-root DIR."
        )
    contract: type[Dataset] = choice.entry.factory  # type: ignore[assignment]  # checked when it was registered
    contract.download(access.root)


def prepare(name: str, dataset: Dataset, device: torch.device) -> Data:
    """Hold val out of a data set's training samples and move all splits to a device; files are left to be decoded.

    Raises:
        ClvrBenchError: It has fewer than two classes, or too few samples to hold any out.
    """
    splits = {"train": dataset.train, "test": dataset.test, "unlabelled": dataset.unlabelled}
    return _prepared(name, dataset, splits, device)


def _prepared(
    name: str,
    dataset: Dataset,
    splits: Mapping[str, Split | None],
    device: torch.device,
    notes: tuple[str, ...] = (),
) -> Data:
    if len(dataset.class_names) < 2:
        raise ClvrBenchError(
            f"dataset {name}: it has only {len(dataset.class_names)} of the two or more classes that a score needs."
        )
    train, test, unlabelled = splits["train"], splits["test"], splits["unlabelled"]
    if not train or not test:
        counts = [len(split) if split else 0 for split in (train, test)]
        raise ClvrBenchError(f"dataset {name}: {counts[0]} training and {counts[1]} test samples; both are needed.")
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
        notes=notes + _copies(train, test, "pictures" if dataset.modality == "image" else "samples"),
    )


def _copies(train: Split, test: Split, what: str) -> tuple[str, ...]:
    """Say how many samples of test are in train too, where that can be told."""
    trained_on, tested = train.digests(), test.digests()
    if trained_on is None or tested is None:
        return ()
    known = set(trained_on)
    count = sum(digest in known for digest in tested)
    return (f"{count:,} of {len(test):,} test {what} are also in train",) if count else ()


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
