"""Every plugin that is registered keeps the contract of its kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from clvr_bench.options import REQUIRED, InputFile
from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Entry, Kind
from clvr_bench.testing import Subject, checks_of
from clvr_bench.testing.stage import pictures, small_resnet
from tests.plugins.datasets.originals import write_cifar10, write_cifar100, write_imagenet, write_stl10

REGISTRY = load_plugins().registry
ENTRIES = [entry for kind in Kind for entry in REGISTRY.entries(kind)] + [
    REGISTRY.get(Kind.ENCODER, name) for name in ("resnet18", "vit_tiny_patch16_224")
]

SLOW = ("amdim_small", "resnet50x4")  # of 194 and 375 million parameters; smaller ones of their kind are checked

PUBLISHED = {"cifar10": write_cifar10, "cifar100": write_cifar100, "imagenet": write_imagenet, "stl10": write_stl10}
"""Data sets whose files others have published, and what writes small ones of their format."""


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of the stage as class folders, for data sets that read files."""
    root, data = tmp_path_factory.mktemp("pictures"), pictures()
    for name, split in (("train", data.train), ("test", data.test)):
        pixels = split.images(torch.arange(len(split))).pixels
        for number, (picture, label) in enumerate(zip(pixels, split.labels.tolist(), strict=True)):
            path = root / name / data.dataset.class_names[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
    return root


@pytest.fixture
def root_of(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Entry], Path]:
    """Where a data set finds its files, written now where others have published them."""

    def root(entry: Entry) -> Path:
        write = PUBLISHED.get(entry.name) if entry.kind is Kind.DATASET else None
        if write is None:
            return data_root
        write(tmp_path, monkeypatch)
        return tmp_path

    return root


@pytest.fixture
def files_of(tmp_path: Path) -> Callable[[Entry], dict[str, str]]:
    """The files that a plugin cannot do without: weights of the stage's ResNet."""

    def files(entry: Entry) -> dict[str, str]:
        torch.save(small_resnet().state_dict(), tmp_path / "weights.pth")
        needed = (o for o in entry.options.values() if o.annotation is InputFile and o.default is REQUIRED)
        return {option.name: str(tmp_path / "weights.pth") for option in needed}

    return files


def case(entry: Entry) -> object:
    marks = [pytest.mark.slow] if entry.name in SLOW else []
    return pytest.param(entry, id=f"{entry.kind}-{entry.name}".replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("entry", [case(entry) for entry in ENTRIES])
def test_it_keeps_the_contract_of_its_kind(
    entry: Entry, root_of: Callable[[Entry], Path], files_of: Callable[[Entry], dict[str, str]]
) -> None:
    subject = Subject(entry, REGISTRY, files_of(entry), root_of(entry))
    findings = [check.finding() for check in checks_of(subject)]
    assert {finding.title: finding.detail for finding in findings if finding.state == "fails"} == {}
    assert sum(finding.state == "holds" for finding in findings) >= 2, findings
