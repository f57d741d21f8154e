"""Jigsaw puzzles: a picture's nine tiles, cut so that gaps say nothing, shuffled, and a branch that embeds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from clvr_bench.draws import SampleRandom
from clvr_bench.errors import ClvrBenchError
from clvr_bench.ops.color import grayscale
from clvr_bench.toolbox.patches import cut_pieces, enlarged_side, patch_grid, resized, tiled

GRID = 3  # tiles along a side (figure 3)
TILES = GRID * GRID
TILE = 64 / 85  # a tile's side as a part of its cell's (the paper on edges)


@dataclass(frozen=True)
class TileCut:
    """Pictures into the tiles of their 3 x 3 cells, each tile at a random place of its cell.

    Attributes:
        cell: P, a cell's side in pixels.
        tile: A tile's side in pixels.
        side: S, what it is enlarged to, in pixels.
        gray: The share of pictures that lose their color.
        shift: How far the channels of a tile are shifted at most, in pixels.

    Source: Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246, section 3.
    """

    cell: int
    tile: int
    side: int
    gray: float = 0.0
    shift: int = 0

    @classmethod
    def fitted(
        cls,
        image_size: int,
        minimum_size: int,
        *,
        tile: float = TILE,
        enlarged: float = 1.0,
        gray: float = 0.0,
        color_shift: float = 0.0,
    ) -> Self:
        """Fit sizes that are stated as parts to pictures, in whole pixels.

        Args:
            image_size: The pictures' side in pixels.
            minimum_size: The encoder's, which enlarged tiles become a multiple of.
            tile: A tile's side as a part of its cell's, in (0, 1].
            enlarged: By what tiles are enlarged, at least 1.
            gray: As the attribute.
            color_shift: How far channels are shifted at most, as a part of the picture's side.

        Raises:
            ClvrBenchError: Tiles would become smaller.
        """
        if enlarged < 1:
            raise ClvrBenchError(f"tiles: enlarged must be at least 1, got {enlarged}. Typical: 1 to 2.")
        cell = image_size // GRID
        side = max(1, round(tile * cell))
        return cls(cell, side, enlarged_side(side, enlarged, minimum_size), gray, round(color_shift * image_size))

    def __call__(self, images: Tensor, random: SampleRandom) -> Tensor:
        """Cut pictures (B, C, H, W) into tiles (B, 9, C, S, S), row by row."""
        spare, channels = self.cell - self.tile, images.shape[1]
        gray = random("gray").chance(self.gray)
        cells = patch_grid(grayscale(images, gray) if self.gray else images, self.cell, GRID)  # (B, 9, C, P, P)
        corners = random("tiles").integers(spare + 1, TILES, 1, 2)
        shifts = random("color shift").integers(2 * self.shift + 1, TILES, channels, 2) - self.shift
        corners = (corners + shifts * ~gray[:, None, None, None]).clamp(0, spare)  # (B, 9, C, 2)
        tiles = cut_pieces(cells.flatten(1, 2)[:, :, None], self.tile, corners.flatten(1, 2))  # (B, 9C, 1, T, T)
        return resized(tiles.view(-1, TILES, channels, self.tile, self.tile), self.side)

    def drawn(self, tiles: Tensor) -> Tensor:
        """Lay tiles (B, 9, C, S, S) out as pictures, drawn apart, for people to look at."""
        return tiled(tiles, gap=max(1, self.side // 8))


def shuffled(tiles: Tensor, orders: Tensor) -> Tensor:
    """Put tile ``orders[b, k]`` of picture b at place k: (B, 9, C, S, S) by orders (B, 9)."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], orders]


class JigsawBranch(nn.Module):
    """Pictures to embeddings by their tiles: each is encoded on its own, and a linear layer sees all, in random order.

    Any of the 9! orders may come up, and nothing says which it is: so what is embedded does not depend on it, unlike
    where a puzzle is solved. The encoder stays outside, as it is another module's too.

    Args:
        cut: Cuts the tiles.
        each: Maps a tile's feature (B, D) to numbers (B, P).
        dim: P, also the length of an embedding.

    Source: Misra and van der Maaten 2019, https://arxiv.org/abs/1912.01991, section 2.3.
    """

    def __init__(self, cut: TileCut, each: nn.Module, dim: int) -> None:
        super().__init__()
        self.cut, self.each = cut, each
        self.together = nn.Linear(TILES * dim, dim)

    def forward(self, encoder: nn.Module, images: Tensor, random: SampleRandom) -> Tensor:
        """Embed pictures (B, C, H, W), shuffled by their draws, with an encoder of tiles: (B, P), of any length."""
        features = encoder(self.puzzles(images, random).flatten(0, 1))  # (9B, D)
        embeddings: Tensor = self.together(self.each(features).view(len(images), -1))
        return embeddings

    def puzzles(self, images: Tensor, random: SampleRandom) -> Tensor:
        """Cut and shuffle pictures (B, C, H, W): (B, 9, C, S, S)."""
        return shuffled(self.cut(images, random), random("permutation").permutation(TILES))

    def preview(self, images: Tensor, random: SampleRandom) -> dict[str, Tensor]:
        """Show the tiles of pictures (B, C, H, W) in place, and the puzzle."""
        tiles, puzzle = self.cut(images, random), self.puzzles(images, random)
        return {"tiles": self.cut.drawn(tiles), "puzzle": self.cut.drawn(puzzle)}
