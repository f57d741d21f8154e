"""ImageNet (ILSVRC 2012), read through torchvision from the original archives or from the folders it makes of them."""

from __future__ import annotations

import os
import pickle
import shutil
import tarfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torchvision.datasets import imagenet  # type: ignore[import-untyped]  # it ships no types

from clvr_bench import ClvrBenchError, Dataset, Register, Split, hookimpl
from clvr_bench.toolbox import PictureFiles

TRAIN_PICTURES = 1_281_167  # as published; what torchvision stores beside the pictures counts only val's
_STORED_SIDE = 256 / 224  # of the shorter side to the view, as the field resizes before it crops
_ARCHIVES = {kind: name for kind, (name, _) in imagenet.ARCHIVE_META.items()}
_PARSERS: dict[str, Callable[..., None]] = {
    "train": imagenet.parse_train_archive,
    "val": imagenet.parse_val_archive,
}
_FETCH = (
    f"{_ARCHIVES['train']}, {_ARCHIVES['val']} and {_ARCHIVES['devkit']} are given out on ImageNet's own site to those "
    "who register; put them into the folder that --data-root names: they are checked and extracted when first used."
)


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ImageNet."""
    register(
        "imagenet",
        Ilsvrc2012,
        summary="ImageNet (ILSVRC 2012) from --data-root, as torchvision lays it out: 1,000 classes, 1,281,167 "
        "pictures; test is its val, 50,000. No download.",
        source="Russakovsky et al. 2015, https://doi.org/10.1007/s11263-015-0816-y",
        version=1,
    )


class Ilsvrc2012(Dataset):
    """ImageNet from ``train``, ``val`` and torchvision's ``meta.bin``, or from the three original archives.

    Archives are extracted where their folder is missing, once torchvision has found their checksum right. Folders have
    no checksum; so classes and pictures are counted, and each picture of val must lie in the class that ``meta.bin``
    gives it. Pictures are stored with a shorter side of ``image_size * 256 / 224``, 256 px for views of 224.

    Args:
        root: The folder that holds the folders or the archives.
        image_size: Height and width, in pixels, that views are made in and features are taken at.
        unreadable: Share of the pictures, from 0 to below 1, that may be undecodable or, of train, missing.

    Raises:
        ClvrBenchError: There is no root, an archive is missing or damaged or cannot be extracted, classes or pictures
            are missing or lie elsewhere, or an option is out of range.
    """

    title = "ImageNet"

    def __init__(self, root: Path | None, *, image_size: int = 224, unreadable: float = 0.0) -> None:
        if image_size < 1:
            raise ClvrBenchError(f"dataset imagenet: image_size must be positive, got {image_size}.")
        if not 0 <= unreadable < 1:
            raise ClvrBenchError(f"dataset imagenet: unreadable must be from 0 to below 1, got {unreadable}.")
        if root is None or not root.is_dir():
            where = "it needs a folder" if root is None else f"{root} is no folder"
            raise ClvrBenchError(f"dataset imagenet: {where}. {_FETCH}")
        self.image_size, self._unreadable, self._root = image_size, unreadable, root
        if not (root / imagenet.META_FILE).is_file():
            _write_meta(root)
        synonyms, self._classes_of_val = _meta(root)
        self._wordnet_ids = sorted(synonyms)
        self.class_names = unique_names(synonyms)
        for kind in _PARSERS:
            if not (root / kind).is_dir():
                _extract(root, kind)
            self._require_classes(kind)

    @classmethod
    def download(cls, root: Path) -> None:
        """Say where ImageNet is to be had.

        Raises:
            ClvrBenchError: Always; it is not given out to everybody.
        """
        raise ClvrBenchError(f"dataset imagenet: --download cannot fetch it. {_FETCH} Then leave --download out.")

    @cached_property
    def train(self) -> Split:
        """The 1,281,167 training pictures."""
        paths, labels = self._listed("train")
        missing = TRAIN_PICTURES - len(paths)
        if missing < 0 or missing > self._unreadable * TRAIN_PICTURES:
            raise ClvrBenchError(
                f"dataset imagenet: {self._root / 'train'} holds {len(paths):,} pictures instead of "
                f"{TRAIN_PICTURES:,}. {self._anew('train')} To go on without some: --set imagenet.unreadable=0.01"
            )
        return self._pictures(paths, labels)

    @cached_property
    def test(self) -> Split:
        """The 50,000 pictures of val; the labels of ImageNet's own test are not public."""
        paths, labels = self._listed("val")
        expected = self._classes_of_val
        if len(paths) != len(expected):
            raise ClvrBenchError(
                f"dataset imagenet: {self._root / 'val'} holds {len(paths):,} pictures instead of {len(expected):,}. "
                f"{self._anew('val')}"
            )
        by_name = sorted(zip(paths, labels, strict=True), key=lambda pair: pair[0].rpartition(os.sep)[2])
        misplaced = [
            path
            for (path, label), wordnet_id in zip(by_name, expected, strict=True)
            if self._wordnet_ids[label] != wordnet_id
        ]
        if misplaced:
            raise ClvrBenchError(
                f"dataset imagenet: {len(misplaced):,} pictures of val lie in another class than {imagenet.META_FILE} "
                f"gives them, such as {misplaced[0]}. {self._anew('val')}"
            )
        return self._pictures(paths, labels)

    def _listed(self, kind: str) -> tuple[list[str], list[int]]:
        """List the pictures of a folder and their labels, in torchvision's order."""
        try:
            samples = imagenet.ImageNet(self._root, kind).samples
        except (OSError, RuntimeError) as error:
            raise ClvrBenchError(f"dataset imagenet: {self._root / kind} cannot be read ({_told(error)}).") from None
        return [path for path, _ in samples], [label for _, label in samples]

    def _pictures(self, paths: list[str], labels: list[int]) -> Split:
        shorter_side = round(self.image_size * _STORED_SIDE)
        return PictureFiles(
            paths, torch.tensor(labels), shorter_side=shorter_side, root=self._root, unreadable=self._unreadable
        )

    def _require_classes(self, kind: str) -> None:
        folder, wanted = self._root / kind, set(self._wordnet_ids)
        found = {entry.name for entry in os.scandir(folder) if entry.is_dir()}
        if wanted - found:
            raise ClvrBenchError(
                f"dataset imagenet: {folder} lacks {len(wanted - found):,} of {len(wanted):,} classes, such as "
                f"{min(wanted - found)}. {self._anew(kind)} For a part of ImageNet use --dataset folder."
            )
        if found - wanted:
            raise ClvrBenchError(
                f"dataset imagenet: {folder / min(found - wanted)} is no class of {self._root / imagenet.META_FILE}. "
                "Move it elsewhere."
            )

    def _anew(self, kind: str) -> str:
        return f"To have it made anew, remove it and put {_ARCHIVES[kind]} into {self._root}."


def unique_names(synonyms: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Name classes for people, no two alike.

    Args:
        synonyms: Of each class, by WordNet identifier.

    Returns:
        K names in the order of the identifiers: the first synonym; all of them where several classes share the first
        (two kinds of maillot); with the identifier where they share all (the bird and the machine named crane).
    """
    ordered = sorted(synonyms.items())
    names = [words[0] for _, words in ordered]
    for longer in ([", ".join(words) for _, words in ordered], [f"{words[0]} ({key})" for key, words in ordered]):
        count = Counter(names)
        names = [other if count[name] > 1 else name for name, other in zip(names, longer, strict=True)]
    return tuple(names)


def _meta(root: Path) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Read each class's synonyms and the class of each val picture, by WordNet identifier."""
    try:
        synonyms, classes_of_val = imagenet.load_meta_file(root)
        if not synonyms or not all(synonyms.values()) or not set(classes_of_val) <= set(synonyms):
            raise ValueError("it names other classes for val than it describes")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, TypeError, AttributeError) as error:
        raise ClvrBenchError(
            f"dataset imagenet: {root / imagenet.META_FILE} is not what torchvision writes ({_told(error)[:200]}). "
            f"Remove it and put {_ARCHIVES['devkit']} into {root}, of which it is made anew."
        ) from None
    return synonyms, classes_of_val


def _write_meta(root: Path) -> None:
    """Let torchvision write ``meta.bin``."""
    with _extracting(root, "devkit", imagenet.META_FILE):
        imagenet.parse_devkit_archive(root)


def _extract(root: Path, kind: str) -> None:
    """Let torchvision extract an archive beside its folder, which then appears whole or not at all."""
    partial = root / f"{kind}.partial"
    if partial.exists():
        raise ClvrBenchError(
            f"dataset imagenet: {partial} is there already: another process is extracting {_ARCHIVES[kind]}, or one "
            "was killed doing so. Wait for it, or remove the folder."
        )
    with _extracting(root, kind, kind):
        partial.mkdir()
        try:
            _PARSERS[kind](root, folder=partial.name)
            partial.rename(root / kind)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def _extracting(root: Path, kind: str, wanted: str) -> Iterator[None]:
    """Turn what goes wrong with an archive into an error of one line."""
    archive, md5 = root / _ARCHIVES[kind], imagenet.ARCHIVE_META[kind][1]
    if not archive.is_file():
        raise ClvrBenchError(f"dataset imagenet: {root} holds neither '{wanted}' nor {archive.name}. {_FETCH}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torchvision extracts without naming a filter
            yield
    except RuntimeError:  # torchvision's answer to another checksum
        raise ClvrBenchError(f"dataset imagenet: {archive} is damaged: its MD5 is not {md5}. Fetch it again.") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ClvrBenchError(f"dataset imagenet: {archive} could not be extracted ({_told(error)}).") from None


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
