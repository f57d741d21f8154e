"""Every plugin that is registered keeps the contract of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Entry, Kind
from clvr_bench.testing import Subject, checks_of
from clvr_bench.testing.stage import pictures

REGISTRY = load_plugins().registry
ENTRIES = [entry for kind in Kind for entry in REGISTRY.entries(kind)] + [
    REGISTRY.get(Kind.ENCODER, name) for name in ("resnet18", "vit_tiny_patch16_224")
]


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


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}".replace(" ", "-"))
def test_it_keeps_the_contract_of_its_kind(entry: Entry, data_root: Path) -> None:
    findings = [check.finding() for check in checks_of(Subject(entry, REGISTRY, data_root=data_root))]
    assert {finding.title: finding.detail for finding in findings if finding.state == "fails"} == {}
    assert sum(finding.state == "holds" for finding in findings) >= 2, findings
