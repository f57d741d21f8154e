"""Every plugin that is registered keeps the contract of its kind."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from PIL import Image

from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Entry, Kind
from clvr_bench.testing import Check, checks_of
from clvr_bench.testing.checks import Finding
from clvr_bench.testing.stage import CheckPictures

REGISTRY = load_plugins().registry
ENTRIES = [entry for kind in Kind for entry in REGISTRY.entries(kind)] + [
    REGISTRY.get(Kind.ENCODER, name) for name in ("resnet18", "vit_tiny_patch16_224")
]
_FOLDER = TemporaryDirectory()


@cache
def data_root() -> Path:
    """Write the pictures of the stage as class folders, for data sets that read files."""
    pictures, root = CheckPictures(None), Path(_FOLDER.name)
    for name, split in (("train", pictures.train), ("test", pictures.test)):
        pixels = split.images(torch.arange(len(split))).pixels
        for number, (picture, label) in enumerate(zip(pixels, split.labels.tolist(), strict=True)):
            path = root / name / pictures.class_names[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
    return root


@cache
def checks(entry_number: int) -> list[Check]:
    entry = ENTRIES[entry_number]
    return checks_of(entry, REGISTRY, data_root=data_root() if entry.kind is Kind.DATASET else None)


def name_of(entry: Entry) -> str:
    return f"{entry.kind}-{entry.name}".replace(" ", "-")


@pytest.mark.parametrize("number", range(len(ENTRIES)), ids=[name_of(entry) for entry in ENTRIES])
def test_it_keeps_the_contract_of_its_kind(number: int) -> None:
    findings: list[Finding] = [check.finding() for check in checks(number)]
    assert {finding.title: finding.detail for finding in findings if finding.state == "fails"} == {}
    assert sum(finding.state == "holds" for finding in findings) >= 2, findings
