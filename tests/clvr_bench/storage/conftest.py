from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clvr_bench.data import Access
from clvr_bench.storage.catalogue import Contents, survey
from clvr_bench.storage.keeping import Kept, keep
from clvr_bench.storage.memo import Memo
from clvr_bench.storage.picture_files import PictureFiles
from clvr_bench.storage.workers import Workers

RAGGED = ((12, 9), (8, 8), (20, 10), (9, 30), (8, 100), (7, 7), (40, 30), (16, 16), (8, 12), (30, 8))
DENSE = ((8, 8),) * 10
HERE = Workers(0)
CPU = torch.device("cpu")


def draw(path: Path, height: int, width: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)).save(path)
    return path


@dataclass
class Told:
    """What somebody who watches was told."""

    lines: list[str] = field(default_factory=list)
    steps: list[tuple[int, int, str]] = field(default_factory=list)

    def progress(self, done: int, total: int, what: str) -> None:
        self.steps.append((done, total, what))

    def kinds(self) -> set[str]:
        return {what for _, _, what in self.steps}


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., PictureFiles]:
    """Draw pictures of given sizes into files."""

    def make(
        sizes: Sequence[tuple[int, int]] = RAGGED, shorter_side: int = 8, folder: str = "pictures", **options: Any
    ) -> PictureFiles:
        root = tmp_path / folder
        suffixes = ("png", "jpg", "webp")
        paths = [
            draw(root / f"{number}.{suffixes[number % 3]}", *size, seed=number) for number, size in enumerate(sizes)
        ]
        return PictureFiles(paths, torch.arange(len(sizes)) % 2, shorter_side, root=root, **options)

    return make


@pytest.fixture
def kept(cache: Path, told: Told) -> Callable[..., Kept]:
    """Keep splits, in this process unless workers are asked for."""

    def run(splits: dict[str, PictureFiles] | PictureFiles, **how: Any) -> Kept:
        named = {"train": splits} if isinstance(splits, PictureFiles) else splits
        access = Access(**{"cache": cache, "workers": 0, "report": told.lines.append, "progress": told.progress, **how})
        return keep("pets", named, access, CPU, option="pets.unreadable")

    return run


def contents_of(split: PictureFiles, cache: Path) -> Contents:
    cache.mkdir(exist_ok=True)
    with Memo(cache, print) as memo:
        return Contents(survey(split.paths, memo, HERE, lambda *_: None), split.shorter_side)
