"""The encoder contract: pictures in, features out, at any size from a stated minimum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from clvr_bench.errors import ClvrBenchError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(nn.Module, ABC):
    """A network f that maps a picture to a feature h = f(x). An author implements ``encode``.

    Args:
        mean: C channel means of the inputs that the network expects.
        std: C channel standard deviations, likewise.
        minimum_size: The smallest picture, in pixels a side, that it takes.

    Attributes:
        feature_dim: D, the length of a feature; measured by the harness, never declared.
        passes: Pictures encoded so far; compute is counted in these.
    """

    feature_dim: int
    mean: Tensor
    std: Tensor

    def __init__(
        self, *, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, minimum_size: int = 1
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.minimum_size = minimum_size
        self.passes = 0
        self._build: Callable[..., Encoder] | None = None
        self._options: Mapping[str, object] = {}

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Map normalized pictures (B, C, H, W) to features (B, D)."""

    def encode_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalized pictures (B, C, H, W) to feature maps (B, c, h, w), fine to coarse."""
        raise ClvrBenchError(f"{type(self).__name__} has no feature maps. Use an encoder that has, such as 'resnet18'.")

    def encode_tokens(self, images: Tensor, keep: Tensor | None) -> Tensor:
        """Map normalized pictures to patch tokens; see ``tokens``."""
        raise ClvrBenchError(
            f"{type(self).__name__} has no patch tokens. Use a patch encoder, such as 'vit_tiny_patch16_224'."
        )

    def forward(self, images: Tensor, normalize: bool = True) -> Tensor:
        """Encode pictures.

        Args:
            images: (B, C, H, W) float in [0, 1], or already normalized.
            normalize: Whether the encoder subtracts its mean and divides by its standard deviation first.

        Returns:
            Features (B, D).
        """
        return self.encode(self._prepare(images, normalize))

    def feature_maps(self, images: Tensor, normalize: bool = True) -> list[Tensor]:
        """Encode pictures (B, C, H, W) into feature maps (B, c, h, w), fine to coarse."""
        return self.encode_maps(self._prepare(images, normalize))

    def tokens(self, images: Tensor, keep: Tensor | None = None, normalize: bool = True) -> Tensor:
        """Encode pictures into patch tokens.

        Args:
            images: (B, C, H, W) float in [0, 1], or already normalized.
            keep: (B, n) int64 numbers of the patches to encode, in raster order; all where None.
            normalize: As in ``forward``.

        Returns:
            (B, prefix + n, D): class and register tokens first, if there are any.
        """
        return self.encode_tokens(self._prepare(images, normalize), keep)

    def sibling(self, **options: object) -> Encoder:
        """Build another encoder of the same specification with fresh weights.

        Args:
            **options: What is to differ, such as ``in_channels=1``.
        """
        if self._build is None:
            raise ClvrBenchError(f"{type(self).__name__} was built outside the registry, so it has no siblings.")
        return self._build(**{**self._options, **options})

    def bind(self, build: Callable[..., Encoder], options: Mapping[str, object]) -> Self:
        """Remember how this encoder was built, for ``sibling``. Called by the harness."""
        self._build, self._options = build, dict(options)
        return self

    def _prepare(self, images: Tensor, normalize: bool) -> Tensor:
        self.passes += len(images)
        if images.ndim == 4:  # convolutions are fastest with channels last, on a CPU as on a GPU
            images = images.contiguous(memory_format=torch.channels_last)
        return (images - self.mean) / self.std if normalize else images
