"""How each row learned: small multiples of a measure by epoch. matplotlib is imported only to draw."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from textwrap import fill
from typing import TYPE_CHECKING

from clvr_bench.charts.look import BLUE, DPI, FAINT, PALE, SMALL, TEXT, WIDTH
from clvr_bench.charts.rows import Row
from clvr_bench.errors import ClvrBenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 5
HEIGHT = 1.15
"""Inches of a row of panels."""
AXIS = 0.3
"""Inches for the axis' label below all panels."""
THIN = 72 / DPI
"""Points of a pixel."""
TITLE_LENGTH = 25
"""Characters in a line of a panel's title."""


def draw_learning(rows: Sequence[Row], measure: str = "knn_top1", *, label: str = "", shared: bool = True) -> Figure:
    """Draw a panel a row, in the order given: the mean over seeds as a line, from lowest to highest seed as a band.

    Titles are names, with the mean linear top-1 in percent. The line of a row that saw labels is broken. Draw and save
    in the context of ``look.settings``.

    Args:
        rows: From ``load_rows``; those that have no such measure, as they were not trained, are left out.
        measure: A key of a record's history.
        label: What the axis says of it; the measure where empty.
        shared: Whether panels share their axis, with all other rows in gray behind each: for measures of one unit.

    Raises:
        ClvrBenchError: No row has such a measure.
    """
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.curve(measure)]
    if not shown:
        raise ClvrBenchError(f"charts: no row has '{measure}' in the history of its epochs.")
    columns = min(COLUMNS, len(shown))
    lines = ceil(len(shown) / columns)
    figure = Figure(figsize=(WIDTH, HEIGHT * lines + AXIS), dpi=DPI, layout="constrained")
    panels = list(figure.subplots(lines, columns, sharex=True, sharey=shared, squeeze=False).flat)
    for row, axes in zip(shown, panels, strict=False):
        _draw_panel(axes, row, measure)
        if shared:
            _draw_context(axes, [other for other in shown if other is not row], measure)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[len(shown) - columns : len(shown)]:
        axes.tick_params(labelbottom=True)  # where no panel is below
    figure.supxlabel("epoch", fontsize=TEXT)
    figure.supylabel(label or measure, fontsize=TEXT)
    return figure


def _draw_panel(axes: Axes, row: Row, measure: str) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs, low, mean, high = zip(*row.curve(measure), strict=True)
    axes.fill_between(epochs, low, high, color=PALE, linewidth=0, zorder=2)
    style = "-" if row.labels == "none" else (0, (2.5, 1))
    marker = "." if len(epochs) == 1 else ""
    axes.plot(epochs, mean, color=BLUE, linewidth=1.5, linestyle=style, marker=marker, zorder=3)
    title = f"{row.name}: {row.mean:.1f}" if row.top1 else row.name
    axes.set_title(fill(title, TITLE_LENGTH), fontsize=SMALL, loc="left", pad=3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.tick_params(length=2, pad=2)


def _draw_context(axes: Axes, others: Sequence[Row], measure: str) -> None:
    from matplotlib.collections import LineCollection

    lines = [[(point.epoch, point.mean) for point in other.curve(measure)] for other in others]
    soft = False  # soft edges of so many lines make a PNG three times as large
    axes.add_collection(LineCollection(lines, colors=FAINT, linewidths=THIN, antialiaseds=soft, zorder=1))
