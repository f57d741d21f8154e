"""The data set contract: splits of stored pictures with labels, and what is known of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench.contracts.values import Images, Modality
from clvr_bench.errors import ClvrBenchError


class Split(ABC):
    """An indexed set of samples.

    Attributes:
        labels: (N,) int64 on the CPU, class numbers; -1 where unknown.
    """

    labels: Tensor

    @abstractmethod
    def images(self, index: Tensor) -> Images:
        """Return the pictures at (B,) int64 positions, on the split's device."""

    @abstractmethod
    def subset(self, index: Tensor) -> Split:
        """Return the split of only these (M,) int64 positions, in this order."""

    @abstractmethod
    def joined(self, other: Split) -> Split:
        """Return this split followed by another of its own kind."""

    @abstractmethod
    def to(self, device: torch.device) -> Split:
        """Return the split with its pictures served on a device."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the content; two splits of equal content have equal fingerprints on any machine."""

    def expect(self, batches: Iterable[Tensor]) -> None:  # noqa: B027 - what lies in memory has nothing to prepare
        """Learn which (B,) int64 positions will be asked for next, in this order; one that reads may read ahead.

        Ask for these very tensors later: they are then known without looking at their values, which may lie on a GPU.
        """

    def digests(self) -> Sequence[bytes] | None:
        """Return a hash of each of the N samples without its label, to find copies; None where that takes too long."""
        return None

    def __len__(self) -> int:
        return len(self.labels)


class ResidentSplit(Split):
    """A split that lies in memory, or on the training device, as uint8.

    Args:
        pixels: (N, C, H, W) or (N, T, C, H, W) uint8, padded at the right and at the bottom.
        labels: (N,) int64; -1 where unknown.
        sizes: (N, 2) int64, each picture's height and width; all whole where None.
        times: (N, T) float32 seconds; None for images.
    """

    def __init__(
        self, pixels: Tensor, labels: Tensor, sizes: Tensor | None = None, times: Tensor | None = None
    ) -> None:
        self.labels = labels
        self._images = Images(pixels, Images.whole(pixels).sizes if sizes is None else sizes, times)

    def images(self, index: Tensor) -> Images:
        """Return the pictures at (B,) int64 positions, on the split's device."""
        stored = self._images
        index = index.to(stored.pixels.device)
        return Images(stored.pixels[index], stored.sizes[index], None if stored.times is None else stored.times[index])

    def subset(self, index: Tensor) -> Self:
        """Return the split of only these (M,) int64 positions, in this order."""
        chosen = self.images(index)
        return type(self)(chosen.pixels, self.labels[index], chosen.sizes, chosen.times)

    def joined(self, other: Split) -> Self:
        """Return this split followed by another, padded to the larger frame."""
        parts = [split.images(torch.arange(len(split))) for split in (self, other)]
        frame = [max(part.pixels.shape[axis] for part in parts) for axis in (-2, -1)]
        pixels = torch.cat([_padded(part.pixels, *frame) for part in parts])
        times = (
            None if parts[0].times is None or parts[1].times is None else torch.cat([parts[0].times, parts[1].times])
        )
        labels = torch.cat([self.labels, other.labels])
        return type(self)(pixels, labels, torch.cat([part.sizes for part in parts]), times)

    def to(self, device: torch.device) -> Self:
        """Return the split with its pictures on a device."""
        stored = self._images
        times = None if stored.times is None else stored.times.to(device)
        return type(self)(stored.pixels.to(device), self.labels, stored.sizes.to(device), times)

    def digests(self) -> list[bytes]:
        """Return a hash of each sample's own pixels, without what pads them."""
        found = []
        for picture, (height, width) in zip(self._images.pixels.cpu(), self._images.sizes.tolist(), strict=True):
            own = picture[..., :height, :width].contiguous()
            digest = hashlib.blake2b(f"{tuple(own.shape)}".encode(), digest_size=16)
            digest.update(own.numpy().data)
            found.append(digest.digest())
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Hash of pixels, sizes, times and labels."""
        stored = self._images
        digest = hashlib.sha256()
        for tensor in (stored.pixels, stored.sizes, stored.times, self.labels):
            if tensor is not None:
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def _padded(pixels: Tensor, height: int, width: int) -> Tensor:
    missing = (0, width - pixels.shape[-1], 0, height - pixels.shape[-2])
    return F.pad(pixels, missing) if any(missing) else pixels


class Dataset(ABC):
    """A named set of samples. Built as ``factory(root, **options)``; ``root`` is ``--data-root``, or None.

    Attributes:
        title: What tables call it; the registered name where empty.
        modality: What a sample is.
        image_size: Height and width, in pixels, that views are made in and features are taken at.
        channels: Colour channels.
        frames: Frames a clip; 1 for images.
        cameras: Simultaneous views of a scene; 1 but for multiview data.
        class_names: K names, in the order of the labels.
        coarse_names: Names of the coarse classes; empty where there are none.
        coarse: K numbers: the coarse class of each class; empty where there are none.
    """

    modality: ClassVar[Modality] = "image"
    title: str = ""
    image_size: int
    channels: int = 3
    frames: int = 1
    cameras: int = 1
    class_names: tuple[str, ...]
    coarse_names: tuple[str, ...] = ()
    coarse: tuple[int, ...] = ()

    @classmethod
    def download(cls, root: Path) -> None:
        """Fetch the files into a folder, for ``--download``; called before the data set is built.

        Raises:
            ClvrBenchError: It cannot be downloaded, or what arrived is not what its checksum says.
        """
        raise ClvrBenchError("--download: this data set cannot be downloaded. Leave the flag out.")

    @property
    @abstractmethod
    def train(self) -> Split:
        """The samples with labels that pretraining and the probe's fit may see; ``val`` is held out of them."""

    @property
    @abstractmethod
    def test(self) -> Split:
        """The samples that are scored once, at the end."""

    @property
    def unlabelled(self) -> Split | None:
        """Further samples for pretraining alone, their labels -1; None where there are none."""
        return None
