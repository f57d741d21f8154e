"""What all charts of a suite have in common: fonts, colors that differ in gray too, and a size for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clvr_bench.pages import FONT, SETTINGS

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

WIDTH = 8.5
"""Inches: at ``DPI``, two pixels for each of the 850 that a page on the web is wide."""
DPI = 200
INK, FAINT, GRID = "#222222", "#c8c8c8", "#e4e4e4"
BLUE, PALE = "#0072b2", "#9ecae1"
"""What is shown, and its band; blue is told from gray by all eyes."""
TEXT, SMALL = 8.0, 7.0
"""Points: axes and titles; labels and ticks."""

LOOK = {
    "font.family": FONT,
    "font.size": TEXT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
}


def settings() -> AbstractContextManager[None]:
    """Return a context in which matplotlib has the charts' settings; drawing and saving belong into it."""
    from matplotlib import style

    return style.context(["default", SETTINGS, LOOK])
