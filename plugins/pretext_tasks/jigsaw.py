"""Jigsaw: a picture's nine tiles come shuffled; say which of a fixed set of permutations they are in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import lru_cache
from math import factorial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    PretextTask,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import TileCut, linear_head, mlp, shuffled

TILES = 9  # that TileCut makes of a picture
LEAST_DEVIATION = 1 / 255  # a tile of less contrast than one gray level is not blown up to noise


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register jigsaw puzzles."""
    register(
        "jigsaw",
        Jigsaw,
        summary="Tells in which of many permutations a picture's nine tiles are.",
        source="Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246",
        version=1,
    )


class Jigsaw(PretextTask):
    """Jigsaw puzzles (Noroozi and Favaro 2016, section 3): the context-free network.

    A picture is divided into 3 x 3 cells, and a tile is cut at a random place of each, so that no edge goes on from one
    tile to the next and gaps say nothing. Each channel of each tile gets mean 0 and deviation 1, against shortcuts by
    statistics (the authors' code subtracts the mean alone). Some pictures lose their color, and in tiles of the others
    the channels are shifted against one another, each within its cell, against shortcuts by chromatic aberration. The
    encoder sees every tile on its own; only the head sees all, in the order of a permutation drawn from the set of
    algorithm 1, and says which it is.
    Algorithm 1 starts from a random permutation; here it starts from the identity and settles ties by the first in
    lexicographic order, so the set is the same in every run. A hundred have the paper's mean distance (8.08).
    Sizes are the paper's as parts of a picture of 255 px: at 32 px, cells have 10 px and tiles 8, and channels stay.
    Differs from the paper: the encoder may have BatchNorm, and the layer behind it has no dropout, which the authors'
    code has; the rate falls along a cosine, not tenfold every 100 000 steps as in that code (its momentum and weight
    decay are taken, https://github.com/MehdiNoroozi/JigsawPuzzleSolver); pictures are cropped at random by the
    augmentation, where the paper cuts a square of almost the whole picture.

    Args:
        encoder: Maps tiles to features (B, D).
        data: A third of its image size is a cell's side.
        permutations: N, how many are told apart, from 2 to 9! (the paper's largest set; 100 in the authors' code).
        tile: A tile's side as a part of its cell's, in (0, 1]; rounded to pixels (the paper on edges: 64 of 85).
        gray: The share of pictures without color, in [0, 1] (the paper on chromatic aberration: 0.3).
        color_shift: How far channels of a tile are shifted at most, as a part of the picture's side; rounded to pixels
            (the paper on chromatic aberration: 2 of 255).
        enlarged: By what tiles are enlarged for the encoder, at least 1: to bring tiles of small pictures closer to the
            size that is evaluated. They also become multiples of the encoder's smallest size, such as a patch.
        tile_dim: Width of the layer behind the encoder that all tiles share (figure 3: 512; the authors' code: 1024).
        hidden_dim: Width of the layer that sees all tiles (figure 3: 4096).
        batch_norm: Whether that layer is normalized over the batch, which the paper's is not.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    views = 1
    separable = True
    default_augmentation = "crop"  # unmirrored, as in the authors' code
    recipe = Recipe(optimizer="momentum", learning_rate=0.01, weight_decay=5e-4, warmup=0.0)  # the paper's rate, at 256
    check_options: ClassVar[Mapping[str, Any]] = {"permutations": 20, "hidden_dim": 64, "tile_dim": 32}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        permutations: int = 1000,
        tile: float = 64 / 85,
        gray: float = 0.3,
        color_shift: float = 2 / 255,
        enlarged: float = 1.0,
        tile_dim: int = 512,
        hidden_dim: int = 4096,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if not 2 <= permutations <= factorial(TILES):
            raise ClvrBenchError(
                f"jigsaw: permutations must be from 2 to {factorial(TILES)}, got {permutations}. Typical: 100 to 1000."
            )
        if not (0 < tile <= 1 and 0 <= gray <= 1 and 0 <= color_shift < 1 and enlarged >= 1):
            raise ClvrBenchError(
                "jigsaw: tile must be in (0, 1], gray in [0, 1], color_shift in [0, 1) and enlarged at least 1, got "
                f"{tile}, {gray}, {color_shift} and {enlarged}. The paper's are 64/85, 0.3, 2/255 and 1."
            )
        self.encoder = encoder
        sizes = {"tile": tile, "enlarged": enlarged, "gray": gray, "color_shift": color_shift}
        self.cut = TileCut.fitted(data.image_size, encoder.minimum_size, **sizes)
        self.orders: Tensor
        self.register_buffer("orders", distant_permutations(permutations, TILES), persistent=False)
        self.tile_head = nn.Sequential(linear_head(encoder.feature_dim, tile_dim), nn.ReLU())
        self.solver = mlp(TILES * tile_dim, hidden_dim, permutations, batch_norm=batch_norm)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the cross-entropy of the permutations of the batch's puzzles."""
        tiles, number = self.puzzles(batch)
        features = self.encoder(tiles.flatten(0, 1), normalize=False)  # (9B, D)
        logits = self.solver(self.tile_head(features).view(len(batch), -1)).float()  # (B, N)
        accuracy = 100 * (logits.argmax(dim=1) == number).float().mean()
        return StepOutput(loss=F.cross_entropy(logits, number), logs={"puzzle_top1": accuracy})

    def puzzles(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return shuffled tiles (B, 9, C, S, S) and the numbers of their permutations (B,)."""
        tiles = standardized(self.cut(batch.views[0], batch.random))
        number = batch.random("permutation").integers(len(self.orders))
        return shuffled(tiles, self.orders[number]), number

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the tiles in place, and the puzzle: standardized, from 3 deviations below the mean to 3 above."""
        tiles, puzzle = self.cut(batch.views[0], batch.random), self.puzzles(batch)[0]
        return {"tiles": self.cut.drawn(tiles), "puzzle": self.cut.drawn((puzzle / 6 + 0.5).clamp(0, 1))}


def standardized(tiles: Tensor) -> Tensor:
    """Give each channel of each tile (..., S, S) mean 0 and deviation 1."""
    deviation, mean = torch.std_mean(tiles, dim=(-2, -1), correction=0, keepdim=True)
    return (tiles - mean) / deviation.clamp(min=LEAST_DEVIATION)


@lru_cache(maxsize=8)  # a thousand of nine take half a second, and checks build a task many times
def distant_permutations(count: int, length: int) -> Tensor:
    """Choose permutations one after another, each with the greatest sum of Hamming distances to those before.

    Args:
        count: N, from 1 to ``length!``.
        length: n, of a permutation.

    Returns:
        (N, n) int64, distinct; the identity first, of equally distant ones the first in lexicographic order.

    Source: Noroozi and Favaro 2016, algorithm 1.
    """
    everything = itertools.chain.from_iterable(itertools.permutations(range(length)))
    candidates = np.fromiter(everything, np.uint8, count=factorial(length) * length).reshape(-1, length).T.copy()
    distances = np.zeros(candidates.shape[1], np.int64)  # of each candidate, summed over those that are chosen
    chosen = [0]
    while len(chosen) < count:
        distances += (candidates != candidates[:, chosen[-1], None]).sum(axis=0, dtype=np.uint8)
        distances[chosen[-1]] = -factorial(length) * length  # below all sums, and it stays there
        chosen.append(int(distances.argmax()))
    return torch.from_numpy(candidates[:, chosen].T.astype(np.int64))
