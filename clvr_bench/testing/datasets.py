"""What holds for every data set."""

from __future__ import annotations

from functools import cached_property

import torch

from clvr_bench.contracts.dataset import Split
from clvr_bench.data import Access, Data, load
from clvr_bench.testing.checks import NotApplicable, listed, require, rule
from clvr_bench.testing.stage import CPU
from clvr_bench.testing.subject import Subject

SOME = 64  # samples looked at where all would take long


class DatasetTrial:
    """A data set, built once.

    Args:
        subject: The registered data set.
    """

    def __init__(self, subject: Subject) -> None:
        self._choice, self._root = subject.choice(), subject.data_root

    def build(self) -> Data:
        """Build it and hold val out anew."""
        return load(self._choice, Access(root=self._root), CPU)

    def read(self) -> Data:
        """Build it and hold val out, once."""
        return self._data

    @cached_property
    def _data(self) -> Data:
        return self.build()

    @property
    def data(self) -> Data:
        """The data, for rules that mean nothing without.

        Raises:
            NotApplicable: It cannot be read.
        """
        try:
            return self.read()
        except Exception:
            raise NotApplicable("It cannot be read.") from None

    @property
    def splits(self) -> dict[str, Split]:
        """All its splits by name."""
        data = self.data
        splits: dict[str, Split] = {"train": data.train, "test": data.test}
        return splits | ({"unlabelled": data.unlabelled} if data.unlabelled else {})


@rule("it can be read, and val held out", "Name its folder with --data-root DIR, or mend what the message says.")
def can_be_read(trial: DatasetTrial) -> None:
    """Build it and prepare it for a sweep."""
    trial.read()


@rule(
    "pictures are as its attributes say",
    "pixels must be (B, C, H, W) uint8 or float in [0, 1] with C = channels; sizes (B, 2) within their frame.",
)
def pictures_are_as_declared(trial: DatasetTrial) -> None:
    """Look at some pictures of each split."""
    channels = trial.data.dataset.channels
    for name, split in trial.splits.items():
        images = split.images(torch.arange(min(SOME, len(split))))
        pixels, sizes = images.pixels, images.sizes
        require(pixels.shape[-3] == channels, f"{name}: pictures of shape {tuple(pixels.shape[1:])}.")
        in_range = pixels.dtype == torch.uint8 or (
            pixels.is_floating_point() and 0 <= pixels.min() <= pixels.max() <= 1
        )
        require(in_range, f"{name}: {pixels.dtype} from {pixels.min()} to {pixels.max()}.")
        frame = torch.tensor(pixels.shape[-2:])
        require(((sizes >= 1) & (sizes <= frame)).all(), f"{name}: sizes beyond their frame of {frame.tolist()}.")


@rule("labels are class numbers, and every class is in train", "labels must be int64 from 0 to K - 1; -1 is unknown.")
def labels_are_classes(trial: DatasetTrial) -> None:
    """Look at the labels of every split."""
    names = trial.data.dataset.class_names
    for name, split in trial.splits.items():
        labels, known = split.labels, name != "unlabelled"
        require(labels.dtype == torch.int64, f"{name}: labels are {labels.dtype}.")
        low, high = int(labels.min()), int(labels.max())
        require(high < len(names) and low >= (0 if known else -1), f"{name}: labels from {low} to {high}.")
    missing = set(range(len(names))) - set(trial.data.train.labels.tolist())
    require(not missing, f"No training picture of {listed([names[number] for number in missing])}.")


@rule("coarse classes cover the classes", "coarse must give each of the K classes a number of coarse_names.")
def coarse_classes_cover_the_classes(trial: DatasetTrial) -> None:
    """Compare the coarse classes with the classes."""
    dataset = trial.data.dataset
    if not dataset.coarse and not dataset.coarse_names:
        raise NotApplicable("It has no coarse classes.")
    require(len(dataset.coarse) == len(dataset.class_names), f"{len(dataset.coarse)} for {len(dataset.class_names)}.")
    require(set(dataset.coarse) == set(range(len(dataset.coarse_names))), f"Numbers: {sorted(set(dataset.coarse))}.")


@rule("built again, it is the same", "Draw from a seed that is an option; sort what the file system lists.")
def built_again_it_is_the_same(trial: DatasetTrial) -> None:
    """Compare the fingerprints of two builds."""
    data = trial.data
    require(data.fingerprint == trial.build().fingerprint, "Its fingerprint changed.")


@rule("a subset keeps the order asked for", "subset(index) must take pictures and labels at the same positions.")
def a_subset_keeps_its_order(trial: DatasetTrial) -> None:
    """Take some samples, backwards."""
    for name, split in trial.splits.items():
        index = torch.arange(min(SOME, len(split))).flip(0)
        subset, images = split.subset(index), split.images(index)
        found = subset.images(torch.arange(len(subset)))
        same = torch.equal(found.pixels, images.pixels) and torch.equal(subset.labels, split.labels[index])
        require(same, f"{name}: the subset differs.")


@rule("train and test share no picture", "Remove the copies: a test picture that was trained on measures memory.")
def train_and_test_share_nothing(trial: DatasetTrial) -> None:
    """Compare the pictures of both splits: by their hashes where they have any, else byte by byte."""
    train, test = (_contents(trial.splits[name]) for name in ("train", "test"))
    require(not train & test, f"{len(train & test)} pictures of test are in train.")


def _contents(split: Split) -> set[bytes]:
    digests = split.digests()
    if digests is not None:
        return set(digests)
    found = set()
    for index in torch.arange(len(split)).split(SOME):
        images = split.images(index)
        for picture, (height, width) in zip(images.pixels, images.sizes.tolist(), strict=True):
            found.add(picture[..., :height, :width].contiguous().numpy().tobytes())
    return found


RULES = (
    can_be_read,
    pictures_are_as_declared,
    labels_are_classes,
    coarse_classes_cover_the_classes,
    built_again_it_is_the_same,
    a_subset_keeps_its_order,
    train_and_test_share_nothing,
)
