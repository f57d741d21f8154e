"""Draws the study of pairs as a heat map: PNG, SVG or PDF. Knows scores and inches, not records; needs no torch.

matplotlib is imported when something is drawn, with the settings of this file; the user's own are back in place after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from math import cos, radians, sin
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from clvr_bench.errors import ClvrBenchError
from clvr_bench.pages import FONT, NO_DATES, SETTINGS
from clvr_bench.pairwise import Study
from clvr_bench.tables import NOTHING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

WIDTH = 7.0
"""Inches; both columns of a page, between its margins. More labels than fit make a figure wider, not illegible."""
CELL_WIDTHS = (0.5, 0.8)
"""Inches, the narrowest and the widest; the narrowest has room for ``100.0`` and, below it, ``± 12.3``."""
CELL_HEIGHT = 0.44
LOWEST = 1.25
"""Inches, of all the cells together: beside them stands "first augmentation"."""
ONE_LINE = 1.75
"""Inches, the height of the cells from which on the color bar's label is a single line."""
GAP = 0.25
"""Of a cell's width, between the pairs and the averages."""
MARGIN = 0.08
BAR = 0.13
BESIDE_BAR = 0.62
"""Inches, for the color bar's numbers and its label."""
TITLE, LABEL, NAME, MEAN, SPREAD = 9.5, 8.0, 8.0, 8.5, 6.5
"""Points: the title; caption, axes and color bar; augmentations; a cell's mean; a cell's standard deviation."""
RAISED, LOWERED = 4.5, 7.3
"""Points, of a mean and of its deviation from a cell's middle."""
LINE = 1.25
"""Of a font's size, from one line to the next."""
POINTS = 72.0
"""Points an inch."""
NAME_LENGTH = 20
"""Characters after which a row's name goes on in a new line, at a space."""
TURNED, UPRIGHT = 40.0, 90.0
"""Degrees, of names of columns that are wider than their column: in one line, and where one of them has several."""
TURNS: Mapping[float, Mapping[str, Any]] = {
    0.0: {},
    TURNED: {"rotation": TURNED, "ha": "right", "va": "top", "rotation_mode": "anchor"},
    UPRIGHT: {"rotation": UPRIGHT},
}
"""How names of columns are set, by their turn."""
DPI = 200
PAPER, INK, FAINT = "#f0f0f0", "#222222", "#bdbdbd"
DARK = 0.179
"""Relative luminance below which white stands out more than black: (0.179 + 0.05)^2 is 0.05 x 1.05 (WCAG 2.1).

The contrast of text is never less than 4.5 to 1.
"""
LOOK = {
    "font.family": FONT,
    "hatch.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def picture(study: Study, kind: str) -> bytes:
    """Draw a study; the same scores and version of matplotlib always give the same bytes.

    Args:
        study: From ``pair_study``.
        kind: ``"png"``, or ``"svg"`` or ``"pdf"``, whose text is text.

    Raises:
        ClvrBenchError: The kind is none of these.
    """
    if kind not in NO_DATES:
        raise ClvrBenchError(f"unknown kind of picture '{kind}'. Available: {', '.join(sorted(NO_DATES))}.")
    file = BytesIO()
    with settings():
        draw(study).savefig(file, format=kind, dpi=DPI, metadata=NO_DATES[kind])
    return file.getvalue()


def settings() -> AbstractContextManager[None]:
    """Return a context in which matplotlib has this file's settings; ``draw`` and saving belong into it."""
    from matplotlib import style

    return style.context(["default", SETTINGS, LOOK])


def draw(study: Study) -> Figure:
    """Draw first augmentations downwards, second ones to the right, and beside them the average of each row.

    A cell shows top-1 in percent and, where it has several seeds, the standard deviation in points. One without a score
    is hatched. Colors get lighter as top-1 grows, evenly to the eye, and in gray too.

    Args:
        study: From ``pair_study``.
    """
    from matplotlib.figure import Figure

    plan = Plan(study)
    figure = Figure(figsize=(plan.width, plan.height))
    shades = _shades(study)
    axes = figure.add_axes((plan.left / plan.width, plan.below / plan.height, plan.wide / plan.width, plan.filled))
    _draw_cells(axes, plan, shades)
    _label(axes, plan)
    _draw_bar(figure, plan, shades)
    _write_caption(figure, plan)
    return figure


@dataclass(frozen=True)
class Plan:
    """Where everything goes, in inches.

    Attributes:
        study: What is drawn.
    """

    study: Study

    @cached_property
    def rows(self) -> list[str]:
        """The rows' names, long ones in several lines."""
        return [_in_lines(name) for name in self.study.names]

    @cached_property
    def columns(self) -> list[str]:
        """The columns' names and ``average``: broken after underscores, unless that is not enough."""
        broken = [name.replace("_", "_\n") for name in [*self.study.names, "average"]]
        if not self._fit(broken):
            return [*self.rows, "average"]
        most = max(name.count("\n") for name in broken)
        return [name + "\n" * (most - name.count("\n")) for name in broken]  # so that the first lines are level

    @property
    def turn(self) -> float:
        """Degrees by which the columns' names are turned."""
        if self._fit(self.columns):
            return 0.0
        return UPRIGHT if any("\n" in name for name in self.columns) else TURNED

    @cached_property
    def left(self) -> float:
        """From the figure's edge to the cells."""
        return 2 * MARGIN + _lines(1, LABEL) + max(_width_of(name, NAME) for name in self.rows) + MARGIN

    @property
    def right(self) -> float:
        """From the cells to the figure's edge."""
        return 2 * MARGIN + BAR + BESIDE_BAR

    @property
    def across(self) -> float:
        """Columns of cells with the gap, in widths of a cell."""
        return len(self.study.names) + GAP + 1

    @cached_property
    def cell_width(self) -> float:
        """As much as the page's width leaves, within bounds."""
        narrowest, widest = CELL_WIDTHS
        wanted = min((WIDTH - self.left - self.right) / self.across, widest)
        return max(wanted, narrowest, self._thickest)

    @property
    def cell_height(self) -> float:
        """Enough for a score with its deviation, for a name, and for the label beside all of them."""
        return max(CELL_HEIGHT, LOWEST / len(self.study.names), self._thickest)

    @property
    def wide(self) -> float:
        """Width of all the cells."""
        return self.cell_width * self.across

    @property
    def high(self) -> float:
        """Height of all the cells."""
        return self.cell_height * len(self.study.names)

    @property
    def width(self) -> float:
        """Width of the figure."""
        return self.left + self.wide + self.right

    @property
    def height(self) -> float:
        """Height of the figure."""
        return self.below + self.high + self.above

    @property
    def filled(self) -> float:
        """The part of the height that the cells fill."""
        return self.high / self.height

    @cached_property
    def below(self) -> float:
        """From the figure's lower edge to the cells: the columns' names, the axis' label."""
        turn = radians(self.turn)
        tallest = max(
            _width_of(name, NAME) * sin(turn) + _lines(name.count("\n") + 1, NAME) * cos(turn) for name in self.columns
        )
        return MARGIN + tallest + MARGIN + _lines(1, LABEL) + MARGIN

    @property
    def above(self) -> float:
        """From the cells to the figure's upper edge: title and caption."""
        return MARGIN + _lines(len(self.title), TITLE) + _lines(len(self.caption), LABEL) + 2 * MARGIN

    @cached_property
    def title(self) -> list[str]:
        """The title's lines."""
        return list(_wrapped(str(self.study.subject).split(), TITLE, self._line))

    @cached_property
    def caption(self) -> list[str]:
        """The caption's lines."""
        return list(_wrapped(self.study.sentences, LABEL, self._line))

    @property
    def _line(self) -> float:
        """Length of a line of the caption, with room for what a renderer adds when it rounds letters to pixels."""
        return 0.98 * self.width - 2 * MARGIN

    def _fit(self, names: Iterable[str]) -> bool:
        """Whether names fit below their columns, side by side."""
        return all(_width_of(name, NAME) <= 0.95 * self.cell_width for name in names)

    @property
    def _thickest(self) -> float:
        """Height of the name with the most lines, with space around it."""
        return _lines(max(name.count("\n") + 1 for name in self.rows), NAME) + MARGIN


def _in_lines(name: str) -> str:
    return "\n".join(wrap(name, NAME_LENGTH, break_long_words=False, break_on_hyphens=False))


def _width_of(text: str, size: float) -> float:
    """Measure a text, the widest of its lines, in inches.

    Args:
        text: Any.
        size: Of its font, in points.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=FONT, size=size)
    widths = (text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n"))
    return float(max(widths)) / POINTS


def _lines(count: int, size: float) -> float:
    """Return the height of lines of text, in inches."""
    return count * LINE * size / POINTS


def _wrapped(parts: Iterable[str], size: float, width: float) -> Iterator[str]:
    """Put parts, with spaces between them, into lines of at most a width, in inches."""
    line = ""
    for part in parts:
        if line and _width_of(f"{line} {part}", size) > width:
            yield line
            line = ""
        line = f"{line} {part}".lstrip()
    yield line


def _shades(study: Study) -> ScalarMappable:
    """Return the map from percent to color: from the lowest score to the highest."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    means = [score.mean for score in study.scores.values() if score]
    lowest, highest = min(means), max(means)
    room = 0.0 if highest > lowest else 0.5  # points, so that equal scores have a scale too
    return ScalarMappable(Normalize(lowest - room, highest + room), "viridis")


def _draw_cells(axes: Axes, plan: Plan, shades: ScalarMappable) -> None:
    study, names = plan.study, plan.study.names
    axes.set(xlim=(0, plan.across), ylim=(len(names), 0))
    for row, (first, average) in enumerate(zip(names, study.averages, strict=True)):
        for column, second in enumerate(names):
            score = study.cell(first, second)
            _draw_cell(axes, (column, row), score.mean if score else None, shades)
            if score and score.std is not None:
                _add_spread(axes, score.std, 1 / (POINTS * plan.cell_height))
        _draw_cell(axes, (len(names) + GAP, row), average, shades)


def _draw_cell(axes: Axes, corner: tuple[float, float], mean: float | None, shades: ScalarMappable) -> None:
    """Draw a cell of width and height 1 and write its mean, in percent, into the middle."""
    look: dict[str, Any] = {"facecolor": PAPER, "hatch": "/////", "edgecolor": FAINT}
    ink = INK
    if mean is not None:
        color = shades.to_rgba(np.array([mean]))[0, :3]
        look, ink = {"facecolor": color}, "white" if _luminance(color) < DARK else "black"
    axes.add_patch(_box(corner, linewidth=0, **look))
    axes.add_patch(_box(corner, fill=False, edgecolor="white", linewidth=1.5))
    text = NOTHING if mean is None else f"{mean:.1f}"
    axes.text(corner[0] + 0.5, corner[1] + 0.5, text, color=ink, fontsize=MEAN, ha="center", va="center_baseline")


def _add_spread(axes: Axes, spread: float, point: float) -> None:
    """Write a standard deviation below the mean that was written last, which moves up to make room.

    Args:
        axes: With cells of height 1.
        spread: In points of percent.
        point: A 72nd of an inch in heights of a cell.
    """
    mean = axes.texts[-1]
    x, y = mean.get_position()
    mean.set_y(y - RAISED * point)
    place = x, y + LOWERED * point
    axes.text(*place, f"± {spread:.1f}", color=mean.get_color(), fontsize=SPREAD, ha="center", va="center_baseline")


def _box(corner: tuple[float, float], **look: Any) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, **look)


def _luminance(color: Iterable[float]) -> float:
    """Return the relative luminance, 0 to 1, of an sRGB color whose parts are from 0 to 1 (WCAG 2.1)."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _label(axes: Axes, plan: Plan) -> None:
    """Name rows, columns and axes."""
    count = len(plan.rows)
    centers = [position + 0.5 for position in range(count)]
    axes.set_xticks([*centers, count + GAP + 0.5], plan.columns, **TURNS[plan.turn])
    axes.set_yticks(centers, plan.rows)
    axes.tick_params(length=0, labelsize=NAME)
    axes.set_xlabel("second augmentation", fontsize=LABEL, x=count / 2 / plan.across)
    axes.set_ylabel("first augmentation", fontsize=LABEL)
    axes.spines[:].set_visible(False)


def _draw_bar(figure: Figure, plan: Plan, shades: ScalarMappable) -> None:
    """Draw the color bar, as high as the cells."""
    start = plan.left + plan.wide + 2 * MARGIN
    place = (start / plan.width, plan.below / plan.height, BAR / plan.width, plan.filled)
    bar = figure.colorbar(shades, cax=figure.add_axes(place))
    between = " " if plan.high > ONE_LINE else "\n"
    bar.set_label(f"linear evaluation,{between}top-1 (%)", fontsize=LABEL)
    bar.ax.tick_params(labelsize=LABEL - 1, length=2)
    bar.outline.set_visible(False)


def _write_caption(figure: Figure, plan: Plan) -> None:
    top = plan.height - MARGIN
    _write_lines(figure, plan, top, plan.title, TITLE)
    _write_lines(figure, plan, top - _lines(len(plan.title), TITLE), plan.caption, LABEL)


def _write_lines(figure: Figure, plan: Plan, top: float, lines: Sequence[str], size: float) -> None:
    """Write lines at the left, from a height in inches downwards."""
    place = MARGIN / plan.width, top / plan.height
    figure.text(*place, "\n".join(lines), fontsize=size, va="top", linespacing=LINE)
