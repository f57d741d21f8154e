"""CIFAR-10 and CIFAR-100, read through torchvision: 50,000 training and 10,000 test pictures of 32 px each."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.exceptions import VisibleDeprecationWarning
from torchvision import datasets  # type: ignore[import-untyped]  # it ships no types

from clvr_bench import ClvrBenchError, Dataset, Register, ResidentSplit, hookimpl
from clvr_bench.toolbox import Archive, training_part

_SOURCE = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"


@hookimpl
def register_datasets(register: Register) -> None:
    """Register CIFAR-10 and CIFAR-100."""
    register(
        "cifar10",
        Cifar10,
        summary="CIFAR-10 from --data-root: 10 classes, 50,000 + 10,000 pictures of 32 px; --download fetches 170 MB.",
        source=_SOURCE,
        version=1,
    )
    register(
        "cifar100",
        Cifar100,
        summary="CIFAR-100 from --data-root: 100 classes in 20 coarse ones, 50,000 + 10,000 pictures of 32 px; "
        "--download fetches 169 MB.",
        source=_SOURCE,
        version=1,
    )


class Cifar10(Dataset):
    """CIFAR-10 from the Python files of its authors, each of which must have the checksum that torchvision knows.

    Args:
        root: The folder that holds ``cifar-10-batches-py``.
        train_size: Training pictures to keep, the same share of every class; all 50,000 where 0.

    Raises:
        ClvrBenchError: There is no root, a file is missing, cannot be read or has another checksum, or ``train_size``
            is out of its range.
    """

    title = "CIFAR-10"
    image_size = 32
    _name: ClassVar[str] = "cifar10"
    _reader: ClassVar[Any] = datasets.CIFAR10

    def __init__(self, root: Path | None, *, train_size: int = 0) -> None:
        self._train_size = train_size
        self._archive = Archive.of_torchvision(self._name, self._reader)
        self._root = self._archive.checked(root)
        self.class_names = self._names(self._reader.meta["key"])

    @classmethod
    def download(cls, root: Path) -> None:
        """Fetch the authors' archive through torchvision and extract it.

        Raises:
            ClvrBenchError: It cannot be fetched, or is not what its checksum says.
        """
        Archive.of_torchvision(cls._name, cls._reader).download(root)

    @cached_property
    def train(self) -> ResidentSplit:
        """The 50,000 training pictures, or ``train_size`` of them."""
        option = f"dataset {self._name}: train_size"
        return training_part(self._split(train=True), self._train_size, option=option)

    @cached_property
    def test(self) -> ResidentSplit:
        """The 10,000 test pictures."""
        return self._split(train=False)

    def _split(self, train: bool) -> ResidentSplit:
        with self._archive.reading(self._root), _old_pickles():
            stored = self._reader(self._root, train=train)
        pixels = stored.data.transpose(0, 3, 1, 2)  # (N, 3, 32, 32), as it lies in the file
        return ResidentSplit(torch.from_numpy(pixels), torch.tensor(stored.targets))

    def _names(self, key: str) -> tuple[str, ...]:
        return tuple(self._unpickled(self._reader.meta["filename"])[key])

    def _unpickled(self, filename: str) -> dict[str, Any]:
        """Read what torchvision passes over, from a file whose checksum has been verified."""
        path = self._root / self._archive.folder / filename
        with self._archive.reading(self._root), _old_pickles(), path.open("rb") as file:
            content: dict[str, Any] = pickle.load(file, encoding="latin1")
        return content


class Cifar100(Cifar10):
    """CIFAR-100, with the coarse classes of its own files; all else as ``Cifar10``.

    Args:
        root: The folder that holds ``cifar-100-python``.
        train_size: Training pictures to keep, the same share of every class; all 50,000 where 0.

    Raises:
        ClvrBenchError: There is no root, a file is missing, cannot be read or has another checksum, or ``train_size``
            is out of its range.
    """

    title = "CIFAR-100"
    _name = "cifar100"
    _reader = datasets.CIFAR100

    def __init__(self, root: Path | None, *, train_size: int = 0) -> None:
        super().__init__(root, train_size=train_size)
        self.coarse_names = self._names("coarse_label_names")
        self.coarse = self._coarse_of_fine()

    def _coarse_of_fine(self) -> tuple[int, ...]:
        """Return each class's coarse class: the one that the test file gives to all of its pictures."""
        stored = self._unpickled(self._reader.test_list[0][0])
        pairs = np.unique([stored["fine_labels"], stored["coarse_labels"]], axis=1)  # (2, K), sorted by fine label
        if pairs[0].tolist() != list(range(len(self.class_names))):
            raise ClvrBenchError("dataset cifar100: the test file gives some class no coarse class, or several.")
        return tuple(pairs[1].tolist())


@contextmanager
def _old_pickles() -> Iterator[None]:
    """Silence numpy 2.4.0 to 2.4.4 on arrays that Python 2 stored, which CIFAR's are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"dtype\(\): align should be", VisibleDeprecationWarning)
        yield
