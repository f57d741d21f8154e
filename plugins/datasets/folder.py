"""Pictures in class folders, as ImageNet has them: ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg (or val)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch

from clvr_bench import ClvrBenchError, Dataset, Register, hookimpl
from clvr_bench.toolbox import PictureFiles, training_part

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TEST_FOLDERS = ("test", "val")
UNLABELLED_FOLDERS = ("unlabelled", "unlabeled")
LAYOUT = "Expected ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg (or val)"


@hookimpl
def register_datasets(register: Register) -> None:
    """Register class folders."""
    register(
        "folder",
        ClassFolders,
        summary="Your own pictures in class folders: ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val).",
        source="the layout of ImageNet, Deng et al. 2009, https://doi.org/10.1109/CVPR.2009.5206848",
        version=2,
    )


class ClassFolders(Dataset):
    """Class folders, decoded as RGB, and further pictures without a class where there is a folder ``unlabelled``.

    Pictures may lie at any depth below their class. Symbolic links are followed, hidden files passed over.

    Args:
        root: The folder that holds ``train``, ``test`` (or ``val``), and perhaps ``unlabelled`` (or ``unlabeled``).
        image_size: Height and width, in pixels, that views are made in; 0 takes the size that all pictures share.
            Pictures whose shorter side is longer are shrunk to it.
        title: What tables call the data set; the folder's name where empty.
        unreadable: The largest share of each split's files, from 0 to 1, that may be undecodable; they are left out.
        train_size: Training pictures to keep, the same share of every class; all where 0.

    Raises:
        ClvrBenchError: The folder is missing, has no classes or only one, no test split, other classes in test than
            in train, a class without pictures, fewer training pictures than ``train_size``, or pictures of several
            sizes without ``image_size``.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        image_size: int = 0,
        title: str = "",
        unreadable: float = 0.01,
        train_size: int = 0,
    ) -> None:
        if root is None:
            raise ClvrBenchError("dataset folder: it needs a folder of pictures. Name it with --data-root DIR.")
        if not root.is_dir():
            raise ClvrBenchError(f"dataset folder: {root} is no folder. {LAYOUT}.")
        _require_options(image_size, unreadable)
        self.title = title or root.resolve().name
        self._root, self._limit, self._unreadable, self._train_size = root, image_size, unreadable, train_size
        train, test = _split_folder(root, ("train",)), _split_folder(root, TEST_FOLDERS)
        self._train, self._test = _classes(train), _classes(test)
        self.class_names = tuple(self._train)
        unknown = [name for name in self._test if name not in self._train]
        if unknown:
            raise ClvrBenchError(f"dataset folder: {test / unknown[0]} is a class that {train} lacks.")
        self.image_size = image_size or self._shared_size()

    @cached_property
    def train(self) -> PictureFiles:
        """The pictures under ``train``, or ``train_size`` of them."""
        return training_part(self._labelled(self._train), self._train_size, option="dataset folder: train_size")

    @cached_property
    def test(self) -> PictureFiles:
        """The pictures under ``test`` or ``val``."""
        return self._labelled(self._test)

    @cached_property
    def unlabelled(self) -> PictureFiles | None:
        """The pictures under ``unlabelled`` or ``unlabeled``, at any depth; None where there is no such folder."""
        folder = _first_of(self._root, UNLABELLED_FOLDERS)
        if folder is None:
            return None
        paths = list(_pictures(folder))
        _require_pictures(folder, paths)
        return self._files(paths, [-1] * len(paths))

    def _labelled(self, classes: Mapping[str, Sequence[str]]) -> PictureFiles:
        number = {name: label for label, name in enumerate(self.class_names)}
        labels = [number[name] for name, paths in classes.items() for _ in paths]
        return self._files([path for paths in classes.values() for path in paths], labels)

    def _files(self, paths: Sequence[str], labels: Sequence[int]) -> PictureFiles:
        return PictureFiles(paths, torch.tensor(labels), self._limit, unreadable=self._unreadable, root=self._root)

    def _shared_size(self) -> int:
        """Return the side that all pictures share; the first that has another ends the search."""
        first: tuple[int, int] | None = None
        for split in (self.train, self.test, self.unlabelled):
            for height, width in split.header_sizes() if split else ():
                first = first or (height, width)
                if (height, width) != first or height != width:
                    small, large = sorted([first, (height, width)])
                    raise ClvrBenchError(
                        f"dataset folder: pictures in {self._root} are not all of one square size "
                        f"({small[0]}x{small[1]} to {large[0]}x{large[1]} px). Choose what views are made in, such as: "
                        "--set folder.image_size=64"
                    )
        if first is None:
            raise ClvrBenchError(f"dataset folder: no file in {self._root} is a picture that can be read.")
        return first[0]


def _require_options(image_size: int, unreadable: float) -> None:
    if image_size < 0:
        raise ClvrBenchError(f"dataset folder: image_size must be a number of pixels, or 0, got {image_size}.")
    if not 0 <= unreadable <= 1:
        raise ClvrBenchError(f"dataset folder: unreadable must be a share from 0 to 1, got {unreadable}.")


def _split_folder(root: Path, names: Sequence[str]) -> Path:
    found = _first_of(root, names)
    if found is None:
        raise ClvrBenchError(f"dataset folder: {root} has no folder '{' or '.join(names)}'. {LAYOUT}.")
    return found


def _first_of(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _classes(split: Path) -> dict[str, list[str]]:
    """Return the pictures of each class, both in the order of their names."""
    names = sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        found = f"only one class folder ('{names[0]}')" if names else "no class folders"
        raise ClvrBenchError(f"dataset folder: {split} has {found}; at least two are needed. {LAYOUT}.")
    classes = {name: list(_pictures(split / name)) for name in names}
    for name, paths in classes.items():
        _require_pictures(split / name, paths)
    return classes


def _require_pictures(folder: Path, paths: Sequence[str]) -> None:
    if not paths:
        raise ClvrBenchError(f"dataset folder: {folder} holds no pictures ({', '.join(SUFFIXES)}).")


def _pictures(folder: str | Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Yield the pictures of a folder and those below it, in the order of their names.

    Args:
        folder: May be a link.
        above: Which folders it was reached through: a link back to one of them is not followed.
    """
    found = os.stat(folder)  # noqa: PTH116 - of as many folders as a data set has
    if (found.st_dev, found.st_ino) in above:
        return
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if _is_folder(entry):
            yield from _pictures(entry.path, above | {(found.st_dev, found.st_ino)})
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
