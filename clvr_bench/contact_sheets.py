"""Lays out what ``previews`` made: titles at the left, a column for each sample, labels below. ``pages`` draws it.

Lengths are in pixels of the page. Small pictures are enlarged by whole factors, nearest pixel, so that any blur that is
seen was made by what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, zip_longest

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench.pages import Page, Placed, Rgb, Style, Text, text_width, wrapped
from clvr_bench.previews import Panel, Picture, Row, Sheet

USUAL_SIDE, LARGEST_SIDE = 192, 256  # of a view: small ones are enlarged to about the first, large ones shrunk
ACROSS = 4  # views side by side before a line is broken
MARGIN, GAP, PANEL_GAP, CELL_GAP, LABEL_GAP = 40, 10, 32, 80, 8
ROW_GAP = 24  # on each side of the rule between two rows; between two lines of pictures in a row
TITLE_WIDTHS = (140, 340)  # of the column at the left, at least and at most

TITLE, DETAIL, LABEL = Style(8.5, "#111111", "bold"), Style(7, "#666666"), Style(6.5, "#444444")


def lay_out(sheet: Sheet) -> Page:
    """Find a place for everything: titles at the left, a column for each sample, a row below the other."""
    scale = _scale(sheet.image_size)
    unit = round(scale * sheet.image_size)
    rows = [_Arranged(sheet.head, unit, None), *(_Arranged(row, unit, scale) for row in sheet.rows)]
    title_width = _title_width([row.row for row in rows])
    widths = [max(shelf.width for row in rows for shelf in row.cells[cell]) for cell in range(len(sheet.head.cells))]
    page = Page(2 * MARGIN + title_width + sum(CELL_GAP + width for width in widths), MARGIN)
    top = MARGIN
    for number, row in enumerate(rows):
        if number:
            page.rules.append(top + ROW_GAP)
            top += 2 * ROW_GAP
        top = row.place(page, top, title_width, widths)
    page.height = top + MARGIN
    return page


def _scale(side: int) -> float:
    """Return how many pixels of the page a pixel of a view takes along a side: a whole number, or a share."""
    return max(1, round(USUAL_SIDE / side)) if side <= LARGEST_SIDE else LARGEST_SIDE / side


def _title_width(rows: Sequence[Row]) -> int:
    least, most = TITLE_WIDTHS
    widths = [text_width(text, style) for row in rows for text, style in ((row.title, TITLE), (row.detail, DETAIL))]
    return math.ceil(min(max(least, *widths), most))


class _Arranged:
    """A row whose pictures stand on shelves.

    Args:
        row: What is shown.
        unit: A view's side.
        scale: Of its pictures; None where each is to be as high as a view, or nearly so.
    """

    def __init__(self, row: Row, unit: int, scale: float | None) -> None:
        self.row = row
        self.cells = [_shelves(cell, unit, scale) for cell in row.cells]

    def place(self, page: Page, top: int, title_width: int, widths: Sequence[int]) -> int:
        """Put the row on a page and return where it ends.

        Args:
            page: The page.
            top: Where the row begins.
            title_width: Of the column of titles.
            widths: Of the columns of samples.
        """
        bottom = top
        for number, shelves in enumerate(zip_longest(*self.cells)):
            bottom += ROW_GAP if number else 0
            floor, left = bottom + max(shelf.height for shelf in shelves if shelf), MARGIN + title_width
            for shelf, width in zip(shelves, widths, strict=True):
                if shelf:
                    shelf.place(page, left + CELL_GAP, floor)
                left += CELL_GAP + width
            if number == 0:
                titled = self._place_title(page, top, floor, title_width)
            bottom = floor + max(shelf.below for shelf in shelves if shelf)
        return max(bottom, titled)

    def _place_title(self, page: Page, top: int, bottom: int, width: int) -> int:
        """Write title and detail beside the first shelf, and return where they end."""
        lines = [(line, style) for text, style in ((self.row.title, TITLE), (self.row.detail, DETAIL))
                 for line in wrapped(text, style, width)]  # fmt: skip
        y = max(top, (top + bottom - sum(style.line for _, style in lines)) // 2)
        for line, style in lines:
            page.texts.append(Text(MARGIN, y + style.line / 2, line, style))
            y += style.line
        return y


@dataclass(frozen=True)
class Block:
    """Neighbours that share a label, in a grid.

    Attributes:
        pictures: (h, w, 3) each.
        columns: Of the grid.
        label: Its lines.
        gap: What separates it from what is left of it.
    """

    pictures: Sequence[Rgb]
    columns: int
    label: Sequence[str]
    gap: int

    @cached_property
    def step(self) -> tuple[int, int]:
        """From a place of the grid to the next, down and across."""
        heights, widths = zip(*(picture.shape[:2] for picture in self.pictures), strict=True)
        return max(heights) + GAP, max(widths) + GAP

    @property
    def height(self) -> int:
        """Of the grid."""
        return math.ceil(len(self.pictures) / self.columns) * self.step[0] - GAP

    @property
    def grid_width(self) -> int:
        """Of the grid."""
        return self.columns * self.step[1] - GAP

    @cached_property
    def width(self) -> int:
        """Of grid and label."""
        return max([self.grid_width, *(math.ceil(text_width(line, LABEL)) for line in self.label)])

    def place(self, page: Page, left: int, floor: int) -> None:
        """Put it on a page, its pictures standing on the floor, its label below."""
        start, top = left + (self.width - self.grid_width) // 2, floor - self.height
        for number, pixels in enumerate(self.pictures):
            row, column = divmod(number, self.columns)
            page.pictures.append(Placed(start + column * self.step[1], top + row * self.step[0], pixels))
        for number, line in enumerate(self.label):
            y = floor + LABEL_GAP + (number + 0.5) * LABEL.line
            page.texts.append(Text(left + self.width / 2, y, line, LABEL, "center"))


@dataclass(frozen=True)
class Shelf:
    """Blocks side by side, on one floor."""

    blocks: Sequence[Block]

    @property
    def height(self) -> int:
        """From the floor up."""
        return max(block.height for block in self.blocks)

    @property
    def below(self) -> int:
        """From the floor down to the end of the labels."""
        lines = max(len(block.label) for block in self.blocks)
        return LABEL_GAP + lines * LABEL.line if lines else 0

    @property
    def width(self) -> int:
        """Of all blocks."""
        return sum(block.gap + block.width for block in self.blocks) - self.blocks[0].gap

    def place(self, page: Page, left: int, floor: int) -> None:
        """Put it on a page."""
        left -= self.blocks[0].gap
        for block in self.blocks:
            block.place(page, left + block.gap, floor)
            left += block.gap + block.width


def _shelves(cell: Sequence[Panel], unit: int, scale: float | None) -> list[Shelf]:
    """Put a cell's pictures on as many shelves as they need."""
    limit = ACROSS * unit + (ACROSS - 1) * PANEL_GAP
    shelves: list[list[Block]] = [[]]
    for block in _blocks(cell, unit, limit, scale):
        if shelves[-1] and Shelf([*shelves[-1], block]).width > limit:
            shelves.append([])
        shelves[-1].append(block)
    return [Shelf(blocks) for blocks in shelves]


def _blocks(cell: Sequence[Panel], unit: int, limit: int, scale: float | None) -> Iterator[Block]:
    for panel in cell:
        for number, (label, run) in enumerate(groupby(panel, key=lambda picture: picture.label)):
            pictures = [_sized(picture, unit, limit, scale) for picture in run]
            columns = _columns(pictures, unit, limit)
            width = max(columns * pictures[0].shape[1], unit)
            yield Block(pictures, columns, wrapped(label, LABEL, width), GAP if number else PANEL_GAP)


def _columns(pictures: Sequence[Rgb], unit: int, limit: int) -> int:
    """Return the columns of a grid: small pictures stand on each other, up to a view's height."""
    count, (height, width) = len(pictures), pictures[0].shape[:2]
    stacked: int = min(max(1, (unit + GAP) // (height + GAP)), count)
    across: int = max(1, (limit + GAP) // (width + GAP))
    return math.ceil(count / max(stacked, math.ceil(count / across)))


def _sized(picture: Picture, unit: int, limit: int, scale: float | None) -> Rgb:
    """Return a picture as large as it is shown, (h, w, 3)."""
    height, width = picture.pixels.shape[1:]
    return resized(picture.pixels, min(scale or unit / height, limit / max(height, width)))


def resized(pixels: Tensor, factor: float) -> Rgb:
    """Enlarge a picture by a factor rounded down to a whole one, nearest pixel, or shrink it by averaging.

    Args:
        pixels: (C, H, W) float32 in [0, 1], C being 1 or 3.
        factor: Of each side.

    Returns:
        (h, w, 3).
    """
    height, width = pixels.shape[1:]
    if factor < 1:
        sides = max(1, round(height * factor)), max(1, round(width * factor))
        pixels = F.interpolate(pixels[None], sides, mode="area")[0]
    whole = max(1, math.floor(factor))
    pixels = pixels.repeat_interleave(whole, dim=1).repeat_interleave(whole, dim=2)
    eight_bit: Rgb = (255 * pixels).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy()
    return eight_bit
