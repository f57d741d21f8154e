"""Networks of tasks that generate: from a vector to a picture, from a picture to a vector, from vector to vector.

Those of pictures are small: convolutions that double or halve height and width, as in DCGAN (Radford et al. 2016,
https://arxiv.org/abs/1511.06434) and in table 3 of Miyato et al. 2018 (https://arxiv.org/abs/1802.05957).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST = range(4, 8)  # pixels a side that doubling starts from; DCGAN's starts from 4
_WIDEST = 16  # times the width at full resolution; 8 in that table, at 32 pixels
_SLOPE = 0.1  # of a leaky ReLU where it is negative, as in Miyato et al. 2018


def can_double_to(image_size: int) -> bool:
    """Say whether a picture's size is 4, 5, 6 or 7 pixels, doubled at least once."""
    return _doublings(image_size) > 0


def picture_generator(latent_dim: int, channels: int, image_size: int, width: int) -> nn.Sequential:
    """Build a generator: a linear layer, transposed convolutions that double, and a convolution.

    Args:
        latent_dim: L, the length of a latent.
        channels: C, the colour channels.
        image_size: H = W, a size that ``can_double_to`` allows.
        width: Channels at full resolution; they double with each halving.

    Returns:
        A module that maps (B, L) to (B, C, H, W) in [0, 1].
    """
    widths = _widths(width, image_size)[::-1]
    smallest = image_size >> (len(widths) - 1)
    return nn.Sequential(
        nn.Linear(latent_dim, widths[0] * smallest**2, bias=False),
        Folded(smallest),
        *(layer for step in pairwise(widths) for layer in _doubling(*step)),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, channels, 3, padding=1),
        nn.Sigmoid(),
    )


def picture_decoder(inputs: int, channels: int, doublings: int, width: int) -> nn.Sequential:
    """Build a decoder of maps: a convolution across channels, then what follows the first layer of a generator.

    Args:
        inputs: c, the channels of the maps.
        channels: C, the colour channels.
        doublings: How often height and width are doubled, 0 or more.
        width: Channels at full resolution; they double with each halving.

    Returns:
        A module that maps (B, c, n, n) to (B, C, H, W) in [0, 1], H = W = n * 2 ** doublings.
    """
    widths = _doubled(width, doublings)[::-1]
    return nn.Sequential(
        nn.Conv2d(inputs, widths[0], 1, bias=False),
        *(layer for step in pairwise(widths) for layer in _doubling(*step)),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, channels, 3, padding=1),
        nn.Sigmoid(),
    )


def _doubling(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.BatchNorm2d(inputs), nn.ReLU(), convolution


def picture_features(channels: int, image_size: int, width: int) -> tuple[nn.Sequential, int]:
    """Build the trunk of a discriminator, without normalization; arguments are those of ``picture_generator``.

    Returns:
        A module that maps (B, C, H, W) in [0, 1] to (B, D), all places of its smallest maps, and D.
    """
    widths = _widths(width, image_size)
    smallest = image_size >> (len(widths) - 1)
    trunk = nn.Sequential(
        Centred(),
        nn.Conv2d(channels, width, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
        *(layer for step in pairwise(widths) for layer in _halving(*step)),
        nn.Flatten(),
    )
    return trunk, widths[-1] * smallest**2


def _halving(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)


class ResidualMLP(nn.Module):
    """A linear layer, then residual blocks of two more, each after a ReLU.

    Args:
        inputs: The length of what comes in.
        width: The length of what comes out.
        blocks: How many residual blocks.
    """

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(blocks)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, inputs) to (B, width), not negative."""
        hidden: Tensor = self.first(features)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return F.relu(hidden)


class Folded(nn.Module):
    """Folds vectors into small maps, channels last in memory, which convolutions are fastest with.

    Args:
        size: Height and width of the maps.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (B, size * size * c) to (B, c, size, size)."""
        return vectors.view(len(vectors), self.size, self.size, -1).permute(0, 3, 1, 2)


class Centred(nn.Module):
    """Maps [0, 1] to [-1, 1], channels last in memory."""

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (B, C, H, W)."""
        return (2 * images - 1).contiguous(memory_format=torch.channels_last)


def _widths(width: int, image_size: int) -> list[int]:
    """Return the channels of a picture's maps and after each halving, fine to coarse."""
    return _doubled(width, _doublings(image_size))


def _doubled(width: int, times: int) -> list[int]:
    return [width * min(2**halving, _WIDEST) for halving in range(times + 1)]


def _doublings(image_size: int) -> int:
    """Count how often the smallest picture is doubled; 0 where there is no way."""
    counts = range(1, image_size.bit_length())
    return next((n for n in counts if image_size % 2**n == 0 and image_size >> n in _SMALLEST), 0)
