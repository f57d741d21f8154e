"""STL-10, read through torchvision: few labelled pictures of 96 px, and 100,000 unlabelled ones to pretrain on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import datasets  # type: ignore[import-untyped]  # it ships no types

from clvr_bench import ClvrBenchError, Dataset, Register, ResidentSplit, hookimpl
from clvr_bench.toolbox import Archive

Pixels = NDArray[np.uint8]
_CHUNK = 8  # pictures turned at a time: 220 kB, which fits the cache


@hookimpl
def register_datasets(register: Register) -> None:
    """Register STL-10."""
    register(
        "stl10",
        Stl10,
        summary="STL-10 from --data-root: 10 classes, 5,000 + 8,000 pictures of 96 px, and 100,000 unlabelled ones; "
        "--download fetches 2.6 GB.",
        source="Coates et al. 2011, https://proceedings.mlr.press/v15/coates11a.html",
        version=1,
    )


class Stl10(Dataset):
    """STL-10 from the binary files of its authors, each of which must have the checksum that torchvision knows.

    Differs from the paper: the probe is fitted once, on all training pictures but val, not on ten folds of 1,000.

    Args:
        root: The folder that holds ``stl10_binary``.
        image_size: Height and width, in pixels, that views are made in and features are taken at. Pictures are stored
            at their 96 px whatever it is.

    Raises:
        ClvrBenchError: There is no root, a file is missing, cannot be read or has another checksum, or the size is not
            positive.
    """

    title = "STL-10"
    class_names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

    def __init__(self, root: Path | None, *, image_size: int = 96) -> None:
        if image_size < 1:
            raise ClvrBenchError(f"dataset stl10: image_size must be positive, got {image_size}.")
        self.image_size = image_size
        self._archive = Archive.of_torchvision("stl10", datasets.STL10)
        self._root = self._archive.checked(root)

    @classmethod
    def download(cls, root: Path) -> None:
        """Fetch the authors' archive through torchvision and extract it.

        Raises:
            ClvrBenchError: It cannot be fetched, or is not what its checksum says.
        """
        Archive.of_torchvision("stl10", datasets.STL10).download(root)

    @cached_property
    def train(self) -> ResidentSplit:
        """The 5,000 labelled training pictures."""
        return self._split("train")

    @cached_property
    def test(self) -> ResidentSplit:
        """The 8,000 test pictures."""
        return self._split("test")

    @cached_property
    def unlabelled(self) -> ResidentSplit:
        """The 100,000 unlabelled pictures, some of other classes: 2.8 GB, of which no copy is made here."""
        return self._split("unlabeled")

    def _split(self, split: str) -> ResidentSplit:
        with self._archive.reading(self._root):
            stored = _Reader(self._root, split)
        labels = torch.from_numpy(stored.labels.astype(np.int64))  # torchvision gives unlabelled ones -1
        return ResidentSplit(torch.from_numpy(_upright(stored.data)), labels)


def _upright(pictures: Pixels) -> Pixels:
    """Lay pictures out by rows, in place: they lie in the file by columns, and torchvision only looks at them so.

    Args:
        pictures: (N, 3, 96, 96), a view of an array (N, 3, W, H).
    """
    stored = pictures.transpose(0, 1, 3, 2)  # as it lies in memory
    for start in range(0, len(stored), _CHUNK):
        part = stored[start : start + _CHUNK]
        part[:] = part.transpose(0, 1, 3, 2).copy()
    return stored


class _Reader(datasets.STL10):  # type: ignore[misc]  # torchvision ships no types
    """torchvision's reader, spared from hashing all 2.9 GB again for each split."""

    def _check_integrity(self) -> bool:
        return True  # the archive has checked every file by name
