"""A split of pictures in files, public as ``toolbox.PictureFiles``: what data sets return whose pictures are files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from clvr_bench.contracts.dataset import Split
from clvr_bench.contracts.values import Images
from clvr_bench.decoding import DECODE_VERSION, Pixels, Undecodable, decode, decoded_size
from clvr_bench.errors import ClvrBenchError

_HEADER = 1 << 14  # bytes that most formats say their size in


class PictureFiles(Split):
    """Pictures in files, one a sample, decoded as RGB.

    On its own it decodes what is asked for, in this process. In a run the harness takes its place with a split that
    holds the same pixels in a cache, or reads them ahead: a data set that returns it need know of neither.

    Args:
        paths: N files; JPEG, PNG, WebP, BMP, TIFF, PPM or GIF.
        labels: (N,) int64; -1 where unknown.
        shorter_side: Pixels that a longer shorter side is shrunk to; 0 never shrinks.
        unreadable: The largest share of the files, from 0 to 1, that may be undecodable: a run leaves those out and
            names them. Beyond it the data set is refused.
        root: What names in messages are relative to; None names files in full.

    Raises:
        ValueError: There are not as many labels as files.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        labels: Tensor,
        shorter_side: int,
        *,
        unreadable: float = 0.0,
        root: Path | None = None,
    ) -> None:
        if labels.shape != (len(paths),):
            raise ValueError(f"PictureFiles: {len(paths)} paths, but labels of shape {tuple(labels.shape)}")
        self.paths = tuple(os.fspath(path) for path in paths)
        self.labels, self.shorter_side, self.unreadable, self.root = labels, shorter_side, unreadable, root
        self._device = torch.device("cpu")

    def images(self, index: Tensor) -> Images:
        """Decode the pictures at (B,) int64 positions, padded to the largest of them.

        Raises:
            ClvrBenchError: One cannot be decoded.
        """
        padded = padded_batch([self._decoded(position) for position in index.tolist()])
        return Images(padded.pixels.to(self._device), padded.sizes.to(self._device))

    def subset(self, index: Tensor) -> Self:
        """Return the split of only these (M,) int64 positions, in this order."""
        index = index.cpu()
        return self._of([self.paths[position] for position in index.tolist()], self.labels[index])

    def joined(self, other: Split) -> Self:
        """Return this split followed by another of picture files.

        Raises:
            ValueError: The other is not of picture files, or shrinks to another size.
        """
        if not isinstance(other, PictureFiles) or other.shorter_side != self.shorter_side:
            raise ValueError("PictureFiles: only picture files that are shrunk alike can be joined")
        joined = self._of([*self.paths, *other.paths], torch.cat([self.labels, other.labels]))
        joined.unreadable = max(self.unreadable, other.unreadable)
        return joined

    def to(self, device: torch.device) -> Self:
        """Return the split with its pictures served on a device."""
        served = self._of(self.paths, self.labels)
        served._device = device
        return served

    def header_sizes(self) -> Iterator[tuple[int, int]]:
        """Yield each picture's height and width, in pixels, before it is shrunk; passes over what is no picture."""
        for path in self.paths:
            with suppress(OSError, Undecodable), open(path, "rb") as file:  # noqa: PTH123 - a million of them
                start = file.read(_HEADER)
                try:
                    size = decoded_size(start, 0)
                except Undecodable:  # some formats end with what others begin with
                    size = decoded_size(start + file.read(), 0)
                yield size

    def digests(self) -> list[bytes]:
        """Return the SHA-256 of each file's content."""
        return list(self._digests)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files' contents in order, of the labels and of how they are decoded; paths do not matter."""
        return fingerprint_of(self._digests, self.labels, self.shorter_side)

    @cached_property
    def _digests(self) -> list[bytes]:
        return [hashlib.sha256(self._content(path)).digest() for path in self.paths]

    def _of(self, paths: Sequence[str], labels: Tensor) -> Self:
        made = type(self)(paths, labels, self.shorter_side, unreadable=self.unreadable, root=self.root)
        made._device = self._device
        return made

    def _decoded(self, position: int) -> Pixels:
        path = self.paths[position]
        try:
            return decode(self._content(path), self.shorter_side)
        except Undecodable as error:
            raise ClvrBenchError(f"{shown(path, self.root)}: not a readable picture ({error}). Mend it.") from None

    def _content(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise ClvrBenchError(f"{shown(path, self.root)}: cannot be read ({error.strerror}). Mend it.") from None


def padded_batch(pictures: Sequence[Pixels]) -> Images:
    """Stack pictures (H, W, 3) into one batch on the CPU, padded at the right and at the bottom to the largest."""
    sizes = torch.tensor([picture.shape[:2] for picture in pictures], dtype=torch.int64).view(-1, 2)
    height, width = sizes.amax(0).tolist() if pictures else (0, 0)
    pixels = np.zeros((len(pictures), 3, height, width), np.uint8)
    for frame, picture in zip(pixels, pictures, strict=True):
        frame[:, : picture.shape[0], : picture.shape[1]] = picture.transpose(2, 0, 1)
    return Images(torch.from_numpy(pixels), sizes)


def fingerprint_of(digests: Iterable[bytes], labels: Tensor, shorter_side: int) -> str:
    """Hash picture files by content: equal on any machine, wherever they lie and however they reach a run.

    Args:
        digests: SHA-256 of each file's content, in order.
        labels: (N,) int64.
        shorter_side: What they are shrunk to, in pixels.
    """
    digest = hashlib.sha256(f"pictures {DECODE_VERSION} {shorter_side}\n".encode())
    for content in digests:
        digest.update(content)
    digest.update(labels.to(torch.int64).contiguous().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def shown(path: str, root: Path | None) -> str:
    """Return how messages name a file: relative to a folder where it lies in it."""
    if root is not None and Path(path).is_relative_to(root):
        return str(Path(path).relative_to(root))
    return path
