"""Pictures in class folders, as ImageNet has them: ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg (or val)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clvr_bench import ClvrBenchError, Dataset, Register, ResidentSplit, hookimpl

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
TEST_FOLDERS = ("test", "val")
LAYOUT = "Expected ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg (or val)"
Pixels = NDArray[np.uint8]


@hookimpl
def register_datasets(register: Register) -> None:
    """Register class folders."""
    register(
        "folder",
        ClassFolders,
        summary="Your own pictures in class folders: ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val).",
        source="the layout of ImageNet, Deng et al. 2009, https://doi.org/10.1109/CVPR.2009.5206848",
        version=1,
    )


class ClassFolders(Dataset):
    """Class folders, decoded once into memory as RGB.

    Args:
        root: The folder that holds ``train`` and ``test`` (or ``val``).
        image_size: Height and width, in pixels, that views are made in; 0 takes the size that all pictures share.
            Pictures whose shorter side is longer are shrunk to it.
        title: What tables call the data set; the folder's name where empty.

    Raises:
        ClvrBenchError: The folder is missing, has no classes or only one, no test split, other classes in test than
            in train, a file that is no picture, or pictures of several sizes without ``image_size``.
    """

    def __init__(self, root: Path | None, *, image_size: int = 0, title: str = "") -> None:
        if root is None:
            raise ClvrBenchError("dataset folder: it needs a folder of pictures. Name it with --data-root DIR.")
        if not root.is_dir():
            raise ClvrBenchError(f"dataset folder: {root} is no folder. {LAYOUT}.")
        self.title = title or root.resolve().name
        self._train_folder = _split_folder(root, ("train",))
        self._test_folder = _split_folder(root, TEST_FOLDERS)
        self.class_names = _classes(self._train_folder)
        unknown = sorted(set(_classes(self._test_folder)) - set(self.class_names))
        if unknown:
            raise ClvrBenchError(
                f"dataset folder: {self._test_folder / unknown[0]} is a class that {self._train_folder} lacks."
            )
        self._limit = image_size
        self.image_size = image_size or self._shared_size()

    @cached_property
    def train(self) -> ResidentSplit:
        """The pictures under ``train``."""
        return self._read(self._train_folder)

    @cached_property
    def test(self) -> ResidentSplit:
        """The pictures under ``test`` or ``val``."""
        return self._read(self._test_folder)

    def _read(self, folder: Path) -> ResidentSplit:
        files = [_pictures(folder / name) if (folder / name).is_dir() else [] for name in self.class_names]
        with ThreadPoolExecutor() as pool:
            pictures = list(
                pool.map(lambda path: _decode(path, self._limit), [f for of_class in files for f in of_class])
            )
        labels = [label for label, of_class in enumerate(files) for _ in of_class]
        pixels, sizes = _pad(pictures)
        return ResidentSplit(torch.from_numpy(pixels), torch.tensor(labels), torch.from_numpy(sizes))

    def _shared_size(self) -> int:
        sizes = {_size(path) for folder in (self._train_folder, self._test_folder) for path in _all_pictures(folder)}
        if len(sizes) > 1 or len(set(next(iter(sizes)))) > 1:
            small, large = min(sizes), max(sizes)
            raise ClvrBenchError(
                f"dataset folder: pictures in {self._train_folder.parent} are not all of one square size "
                f"({small[0]}x{small[1]} to {large[0]}x{large[1]} px). Choose what views are made in, such as: "
                "--set folder.image_size=64"
            )
        return next(iter(sizes))[0]


def _split_folder(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise ClvrBenchError(f"dataset folder: {root} has no folder '{' or '.join(names)}'. {LAYOUT}.")


def _classes(split: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(names) < 2:
        found = f"only one class folder ('{names[0]}')" if names else "no class folders"
        raise ClvrBenchError(f"dataset folder: {split} has {found}; at least two are needed. {LAYOUT}.")
    for name in names:
        if not _pictures(split / name):
            raise ClvrBenchError(f"dataset folder: {split / name} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    return names


def _pictures(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _all_pictures(split: Path) -> list[Path]:
    return [path for name in _classes(split) for path in _pictures(split / name)]


def _size(path: Path) -> tuple[int, int]:
    """Read a picture's height and width, in pixels, from its header."""
    with _opened(path) as picture:
        return picture.height, picture.width


def _decode(path: Path, limit: int) -> Pixels:
    """Read a picture as (H, W, 3), shrunk so that its shorter side is at most ``limit`` pixels; 0 never shrinks."""
    with _opened(path) as picture:
        rgb = (_eight_bit(picture) if picture.mode.startswith("I") else picture).convert("RGB")
    shorter = min(rgb.size)
    if limit and shorter > limit:
        width, height = (round(side * limit / shorter) for side in rgb.size)
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; whatever Pillow raises then, or while it is decoded, names the file."""
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ClvrBenchError(
            f"dataset folder: {path} is not a readable picture ({error}). Mend or remove it."
        ) from None


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, which Pillow's own conversion would clip."""
    return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))


def _pad(pictures: Sequence[Pixels]) -> tuple[Pixels, NDArray[np.int64]]:
    """Stack pictures (H, W, 3) into (N, 3, max H, max W), zeros at the right and bottom, with their sizes (N, 2)."""
    sizes = np.array([picture.shape[:2] for picture in pictures], dtype=np.int64)
    height, width = sizes.max(axis=0)
    pixels = np.zeros((len(pictures), 3, height, width), dtype=np.uint8)
    for stored, picture in zip(pixels, pictures, strict=True):
        stored[:, : picture.shape[0], : picture.shape[1]] = picture.transpose(2, 0, 1)
    return pixels, sizes
