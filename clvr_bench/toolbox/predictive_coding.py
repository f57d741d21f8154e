"""Contrastive predictive coding on a grid of patches: contexts that see no row below them, InfoNCE, mean features."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BLOCKS = 5  # of Henaff et al. 2019, appendix A.2


def row_context(channels: int, hidden: int) -> nn.Sequential:
    """Build the network that sums up the rows of a grid, each with what lies above it.

    Args:
        channels: D, of its input and output (B, D, G, G).
        hidden: Channels within its blocks.

    Source: Henaff et al. 2019, https://arxiv.org/abs/1905.09272, appendix A.2.
    """
    return nn.Sequential(*(RowBlock(channels, hidden) for _ in range(_BLOCKS)), nn.ReLU())


class RowBlock(nn.Module):
    """A residual block whose output in a row depends on no row below it (Henaff et al. 2019, appendix A.2).

    Args:
        channels: D, of its input and output (B, D, G, G).
        hidden: Channels between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),  # a row and itself
            nn.ZeroPad2d((0, 0, 1, 0)),
            nn.Conv2d(hidden, hidden, (2, 1)),  # a row and the one above it
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Add what the block finds to its input."""
        found: Tensor = self.layers(z)
        return z + found


class PatchMean(nn.Module):
    """A representation: pictures (B, C, H, W) to the means (B, D) of their patches' features.

    Args:
        encoder: Maps patches to features (B, D).
        cut: Maps pictures to their patches (B, G * G, C, P, P).
    """

    def __init__(self, encoder: nn.Module, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.cut = encoder, cut

    def forward(self, images: Tensor) -> Tensor:
        """Average over the grid."""
        return encode_grid(self.encoder, self.cut(images)).mean(dim=(1, 2))


def encode_grid(encoder: nn.Module, patches: Tensor) -> Tensor:
    """Encode the patches (B, G * G, C, P, P) of square grids one by one into (B, G, G, D)."""
    grid = math.isqrt(patches.shape[1])
    features: Tensor = encoder(patches.flatten(0, 1))
    return features.view(len(patches), grid, grid, -1)


def grouped_info_nce(predicted: Tensor, z: Tensor, step: int, group: int) -> tuple[Tensor, Tensor]:
    """Compute ``info_nce`` within groups of at most ``group`` pictures, one after another in the batch."""
    groups = zip(predicted.split(group), z.split(group), strict=True)
    loss, hits = (torch.cat(parts) for parts in zip(*(info_nce(*each, step) for each in groups), strict=True))
    return loss, hits


def info_nce(predicted: Tensor, z: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Compute equation 4 of van den Oord et al. 2018 for one step, every prediction against all patches.

    Args:
        predicted: (B, G - k, G, D), W_k c of all rows but the last k.
        z: (B, G, G, D), the patches' features.
        step: k, rows from a context to what it predicts.

    Returns:
        The loss of each prediction, and whether its own patch came first; both (B, G - k, G).

    Source: https://arxiv.org/abs/1807.03748.
    """
    patches = torch.arange(z.shape[:3].numel(), device=z.device).view(z.shape[:3])  # (B, G, G)
    own = patches[:, step:].flatten()
    with torch.autocast(z.device.type, enabled=False):  # the logits have no bound, so bfloat16 would blur them
        logits = predicted.float().flatten(0, 2) @ z.float().flatten(0, 2).T  # log f_k of equation 3
    loss = F.cross_entropy(logits, own, reduction="none")
    return loss.view(predicted.shape[:3]), (logits.argmax(dim=1) == own).view(predicted.shape[:3])
