"""Every rule about data sets, broken by a data set that breaks it alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from clvr_bench import Dataset, ResidentSplit
from clvr_bench.registry import Kind
from clvr_bench.testing import Finding, datasets
from tests.clvr_bench.testing.conftest import failing

Check = Callable[..., dict[str, Finding]]


def split_of(count: int, first: int, labels: Any = None, split: type[ResidentSplit] = ResidentSplit) -> ResidentSplit:
    shades = torch.arange(first, first + count)[:, None, None, None].expand(-1, 3, 8, 8)
    return split(shades.to(torch.uint8).contiguous(), torch.arange(count) % 2 if labels is None else labels)


class Sound(Dataset):
    """Shades of grey; keeps every rule."""

    image_size = 8
    class_names = ("even", "odd")
    coarse_names = ("shade",)
    coarse = (0, 0)

    def __init__(self, root: Any) -> None:
        pass

    @property
    def train(self) -> ResidentSplit:
        return split_of(40, 0)

    @property
    def test(self) -> ResidentSplit:
        return split_of(20, 100)


class CannotBeRead(Sound):
    @property
    def train(self) -> ResidentSplit:
        raise OSError("the disk is gone")


class IsGrey(Sound):
    channels = 1


class LabelsFromOne(Sound):
    @property
    def test(self) -> ResidentSplit:
        return split_of(20, 100, torch.arange(20) % 2 + 1)


class LacksAClass(Sound):
    class_names = ("even", "odd", "neither")
    coarse = (0, 0, 0)


class MissesACoarseClass(Sound):
    coarse_names = ("shade", "light")


class ChangesEachTime(Sound):
    numbers: ClassVar = itertools.count()

    def __init__(self, root: Any) -> None:
        self.first = next(self.numbers)

    @property
    def train(self) -> ResidentSplit:
        return split_of(40, self.first)


class _Sorted(ResidentSplit):
    def subset(self, index: Any) -> Any:
        return super().subset(index.sort().values)


class SortsItsSubsets(Sound):
    @property
    def test(self) -> ResidentSplit:
        return split_of(20, 100, split=_Sorted)


class SharesPictures(Sound):
    @property
    def test(self) -> ResidentSplit:
        return split_of(20, 30)


BREACHES: list[tuple[Any, str, str]] = [
    (CannotBeRead, "it can be read, and val held out", "OSError: the disk is gone"),
    (IsGrey, "pictures are as its attributes say", "train: pictures of shape (3, 8, 8)."),
    (LabelsFromOne, "labels are class numbers, and every class is in train", "test: labels from 1 to 2."),
    (LacksAClass, "labels are class numbers, and every class is in train", "No training picture of neither."),
    (MissesACoarseClass, "coarse classes cover the classes", "Numbers: [0]."),
    (ChangesEachTime, "built again, it is the same", "Its fingerprint changed."),
    (SortsItsSubsets, "a subset keeps the order asked for", "test: the subset differs."),
    (SharesPictures, "train and test share no picture", "pictures of test are in train."),
]


def test_a_sound_data_set_keeps_every_rule(findings: Check) -> None:
    assert failing(findings(Kind.DATASET, Sound)) == {}


@pytest.mark.parametrize(
    ("dataset", "title", "found"), BREACHES, ids=[f"{b[0].__name__}-{b[1][:20]}" for b in BREACHES]
)
def test_a_breach_is_found_and_named(findings: Check, dataset: Any, title: str, found: str) -> None:
    finding = findings(Kind.DATASET, dataset, only=title)[title]
    assert finding.state == "fails"
    assert found in finding.detail
    assert finding.advice


def test_every_rule_can_fail() -> None:
    assert {rule.title for rule in datasets.RULES} == {title for _, title, _ in BREACHES}
