"""A page of pictures and lines of text, and how a PNG, SVG or PDF is made of it. matplotlib is imported then.

Lengths are in pixels of the page, from its upper left corner; sizes of fonts are in points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure

FileType = Literal["png", "svg", "pdf"]
Rgb = NDArray[np.uint8]

DPI = 256  # a power of 2: a page's pixels over it, times it, are exactly its pixels again
PAPER, FRAME, RULE = 255, 190, 225  # grays
FONT = "DejaVu Sans"  # comes with matplotlib, so measures are the same everywhere
LINE = 1.3  # of a font's size, from one line to the next
SETTINGS = {
    "text.parse_math": False,  # names of classes and options may hold dollar signs
    "svg.fonttype": "none",  # text stays text, which can be searched
    "svg.hashsalt": "clvr-bench",  # names of parts are random without
    "pdf.fonttype": 42,  # TrueType
}
NO_DATES = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # else no two files agree


@dataclass(frozen=True)
class Style:
    """How a text is set.

    Attributes:
        points: The font's size.
        color: As matplotlib takes it.
        weight: Of the font.
    """

    points: float
    color: str
    weight: Literal["normal", "bold"] = "normal"

    @property
    def line(self) -> int:
        """From one line to the next."""
        return round(LINE * self.points * DPI / 72)


@dataclass(frozen=True)
class Placed:
    """A picture (h, w, 3) on the page, and its upper left corner."""

    left: int
    top: int
    pixels: Rgb


@dataclass(frozen=True)
class Text:
    """A line of text: where it starts, or is centered, and the middle of its height."""

    x: float
    y: float
    words: str
    style: Style
    anchor: Literal["left", "center"] = "left"


@dataclass
class Page:
    """Everything in its place.

    Attributes:
        width: Of the page.
        margin: What stays free at its left and right.
        height: Of the page.
        pictures: In reading order, row by row.
        texts: All lines of text.
        rules: Heights of the lines between rows.
    """

    width: int
    margin: int
    height: int = 0
    pictures: list[Placed] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    rules: list[int] = field(default_factory=list)

    def painted(self) -> Rgb:
        """Paint everything but the texts: (height, width, 3)."""
        page = np.full((self.height, self.width, 3), PAPER, np.uint8)
        for rule in self.rules:
            page[rule - 1 : rule + 1, self.margin : self.width - self.margin] = RULE
        for picture in self.pictures:
            top, left, (height, width) = picture.top, picture.left, picture.pixels.shape[:2]
            page[top - 1 : top + height + 1, left - 1 : left + width + 1] = FRAME
            page[top : top + height, left : left + width] = picture.pixels
        return page


def drawn(page: Page, file_type: FileType) -> bytes:
    """Draw a page; the same page and version of matplotlib always give the same bytes.

    Args:
        page: Of pictures and texts.
        file_type: ``"png"``; or ``"svg"`` or ``"pdf"``, whose text is text.

    Returns:
        The file's content.
    """
    from matplotlib import style

    file = BytesIO()
    with style.context(["default", SETTINGS]):
        _figure(page).savefig(file, format=file_type, dpi=DPI, metadata=NO_DATES[file_type])
    return file.getvalue()


def _figure(page: Page) -> Figure:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    class Painted(Artist):
        """The painted page as it is: matplotlib's own images are resampled, which takes seconds."""

        def draw(self, renderer: RendererBase) -> None:
            """Hand all pixels to the renderer, which wants them opaque and from the bottom up."""
            opaque = np.pad(page.painted(), ((0, 0), (0, 0), (0, 1)), constant_values=255)
            renderer.draw_image(renderer.new_gc(), 0, 0, opaque[::-1])

    figure = Figure(figsize=(page.width / DPI, page.height / DPI), dpi=DPI)
    figure.add_artist(Painted())
    for text in page.texts:
        figure.text(
            text.x / page.width, 1 - text.y / page.height, text.words, color=text.style.color, fontfamily=FONT,
            fontsize=text.style.points, fontweight=text.style.weight, ha=text.anchor, va="center_baseline",
        )  # fmt: skip
    return figure


@lru_cache(maxsize=4096)
def text_width(text: str, style: Style) -> float:
    """Measure a line of text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=FONT, size=style.points, weight=style.weight)
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(points) * DPI / 72


def wrapped(text: str, style: Style, width: float) -> list[str]:
    """Break a text at its spaces into lines of at most a width; a longer word after a ``_``, or anywhere."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        lines = [*lines[:-1], joined] if text_width(joined, style) <= width else [*lines, *_pieces(word, style, width)]
    return [line for line in lines if line]


def _pieces(word: str, style: Style, width: float) -> Iterator[str]:
    """Cut a word into pieces of at most a width, of a character at least."""
    piece = ""
    for part in re.split(r"(?<=[_=-])", word):
        for addition in [part] if text_width(part, style) <= width else part:
            if piece and text_width(piece + addition, style) > width:
                yield piece
                piece = ""
            piece += addition
    yield piece
