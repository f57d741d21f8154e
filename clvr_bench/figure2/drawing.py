"""Draws Figure 2: as published, as measured, and how both orders agree. matplotlib is imported only then."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

from clvr_bench.budgets import epochs_said
from clvr_bench.charts.labels import label_points
from clvr_bench.errors import ClvrBenchError
from clvr_bench.figure2.comparison import Comparison, Move
from clvr_bench.figure2.entries import Entry, entries
from clvr_bench.pages import FONT, NO_DATES, SETTINGS

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Size = Literal["one-column", "two-column"]

DPI = 300
INK, GRID, FAINT = "#222222", "#d0d0d0", "#777777"
AXIS, TITLE = 7.5, 8.5
"""Points: axes; titles."""
OPACITY = 0.6
LINE = 0.155
"""Inches, from one method to the next."""


@dataclass(frozen=True)
class Series:
    """The look of a year's markers."""

    marker: str
    color: str
    opacity: float = OPACITY


YEARS = {2018: Series("o", "#1f4fd8"), 2019: Series("x", "#0a7d28"), 2020: Series("^", "#d42a20")}
SUPERVISED = Series("s", "black", opacity=1)
BELOW_LEFT = {"BYOL (4x)", "SimCLR (4x)", "MoCo v1 (4x)"}
BELOW = {"DeepCluster", "CPC v2 & PIRL"}
"""Whose labels the figure has elsewhere than to the right."""


@dataclass(frozen=True)
class Sizes:
    """How large things are.

    Attributes:
        width: Of the figure, in inches.
        published: Height of the published figure, in inches.
        label: Of labels, in points.
        marker: Of markers, in points.
    """

    width: float
    published: float
    label: float
    marker: float


SIZES: dict[Size, Sizes] = {
    "one-column": Sizes(width=3.5, published=4.3, label=5.2, marker=4.0),
    "two-column": Sizes(width=7.16, published=4.3, label=6.5, marker=5.5),
}
"""As most journals have columns."""

LOOK = {
    "font.family": FONT,
    "font.size": AXIS,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": AXIS,
    "axes.titlesize": TITLE,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": AXIS - 1,
    "ytick.labelsize": AXIS - 1,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": AXIS - 1,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
}


def picture(comparison: Comparison, kind: str, size: Size = "two-column") -> bytes:
    """Draw Figure 2; the same numbers and version of matplotlib always give the same bytes.

    Args:
        comparison: From ``compare``; without measured rows, the published figure alone is drawn.
        kind: ``"png"``, or ``"svg"`` or ``"pdf"``, whose text is text.
        size: How wide it is.

    Raises:
        ClvrBenchError: The kind is none of these.
    """
    if kind not in NO_DATES:
        raise ClvrBenchError(f"unknown kind of picture '{kind}'. Available: {', '.join(sorted(NO_DATES))}.")
    file = BytesIO()
    with settings():
        Drawing(comparison, SIZES[size]).figure().savefig(file, format=kind, metadata=NO_DATES[kind])
    return file.getvalue()


def settings() -> AbstractContextManager[None]:
    """Return a context in which matplotlib has this file's settings; drawing and saving belong into it."""
    from matplotlib import style

    return style.context(["default", SETTINGS, LOOK])


@dataclass(frozen=True)
class Drawing:
    """Figure 2 in the making.

    Attributes:
        comparison: What is drawn.
        sizes: How large.
    """

    comparison: Comparison
    sizes: Sizes

    def figure(self) -> Figure:
        """Draw the published figure and, where something was measured, the methods as measured, and both orders."""
        from matplotlib.figure import Figure

        width, published = self.sizes.width, self.sizes.published
        if not self.comparison.measured:
            figure = Figure(figsize=(width, published), dpi=DPI, layout="constrained")
            self.draw_published(figure.add_subplot())
            return figure
        figure = Figure(dpi=DPI, layout="constrained")
        heights = [published, self._measured_height, 0.6 + LINE * len(self.comparison.moves)]
        if width > 2 * SIZES["one-column"].width:
            below = max(heights[1:])
            grid = figure.add_gridspec(2, 2, height_ratios=(published, below), width_ratios=(1.15, 1))
            places: list[Any] = [grid[0, :], grid[1, 0], grid[1, 1]]
            figure.set_size_inches(width, published + below)
        else:
            column = figure.add_gridspec(3, height_ratios=heights)
            places = [column[number] for number in range(3)]
            figure.set_size_inches(width, sum(heights))
        first, second, third = (figure.add_subplot(place) for place in places)
        self.draw_published(first, "As published")
        self.draw_measured(second)
        self.draw_orders(third)
        if not self.comparison.encoder:
            self._label_measured(second)  # last, when everything has its place
        return figure

    def draw_published(self, axes: Axes, title: str = "") -> None:
        """Draw the write-up's figure: 22 markers of 23 entries, with its axes, ticks, grid, labels and legend."""
        for entry in entries():
            self._mark(axes, entry, entry.drawn)
        for label, place in published_labels():
            look: dict[str, Any] = {"xytext": (0.8 * self.sizes.marker, -0.3), "ha": "left", "va": "center"}
            if label in BELOW_LEFT:
                look = {"xytext": (-2, -0.6 * self.sizes.marker), "ha": "right", "va": "top"}
            elif label in BELOW:
                look = {"xytext": (-3, -0.6 * self.sizes.marker), "ha": "left", "va": "top"}
            axes.annotate(label, place, textcoords="offset points", fontsize=self.sizes.label, **look)
        axes.set(xlim=(0, 400), ylim=(46, 80.5), xticks=range(0, 351, 50), yticks=range(50, 81, 5), title=title)
        axes.set(xlabel="Number of Model Parameters (Millions)", ylabel="ImageNet Top-1 Accuracy (%)")
        _add_grid(axes)
        self._add_legend(axes, entries())

    def draw_measured(self, axes: Axes) -> None:
        """Draw the methods as measured: by parameters, or one below the other where all share an encoder."""
        comparison = self.comparison
        how = [epochs_said(comparison.epochs) if comparison.epochs else "", comparison.encoder]
        axes.set_title("\n".join(filter(None, [f"As measured: {comparison.dataset}", ", ".join(filter(None, how))])))
        if comparison.encoder:
            self._draw_strip(axes)
        else:
            self._draw_scatter(axes)
        _add_grid(axes)

    def draw_orders(self, axes: Axes) -> None:
        """Draw the published places of the methods of one width at the left, the measured ones at the right."""
        moves = self.comparison.moves
        for move in moves:
            look, places = _series(move.entry), (move.published, move.measured)
            axes.plot((0, 1), places, look.marker, color=look.color, markersize=self.sizes.marker, alpha=look.opacity)
            axes.plot((0, 1), places, color=look.color, alpha=OPACITY, linewidth=1.1)
        for side, align, offset in ((0, "right", -7), (1, "left", 7)):
            for place, label in _side_labels(moves, side):
                axes.annotate(
                    label, (side, place), (offset, 0), textcoords="offset points", fontsize=self.sizes.label, ha=align,
                    va="center",
                )  # fmt: skip
        axes.set(xlim=(-0.75, 1.75), ylim=(len(moves) + 0.6, 0.4), xticks=(0, 1), yticks=())
        axes.set_xticklabels(("published,\nImageNet", f"measured,\n{self.comparison.dataset}"))
        axes.set_title("Both orders, encoders of one width")
        said = [str(self.comparison.agreement), *_moved_most(self.comparison)]
        axes.set_xlabel("\n".join(said), fontsize=AXIS - 1)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    @property
    def _measured_height(self) -> float:
        lines = len(self.comparison.measured) + len(self._missing)
        return 0.75 + LINE * lines if self.comparison.encoder else 3.2

    @property
    def _missing(self) -> list[Entry]:
        """The methods that have no run; where all share one encoder, those that widen another's have no place."""
        return [entry for entry in self.comparison.missing if not (self.comparison.encoder and entry.is_variant)]

    def _draw_strip(self, axes: Axes) -> None:
        """Draw a line a method, the best above, and below them those that have no run."""
        rows = sorted(self.comparison.measured, key=lambda pair: -pair[1].top1)
        for height, (entry, found) in enumerate(rows):
            self._mark(axes, entry, (found.top1, height), error=found.interval, across=True)
        names = [entry.label for entry in [*(entry for entry, _ in rows), *self._missing]]
        for height in range(len(rows), len(names)):
            axes.annotate(
                "no run", (0.02, height), xycoords=("axes fraction", "data"), va="center_baseline", color=FAINT,
                fontsize=self.sizes.label, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
        axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
        wider = [
            entry.label.replace(" ", "\N{NO-BREAK SPACE}") for entry in self.comparison.missing if entry.is_variant
        ]
        axes.set_xlabel("\n".join([self._measured_axis, *wrap(f"no run: {', '.join(wider)}" if wider else "", 48)]))
        axes.tick_params(axis="y", length=0)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, 0), min(high, 101))  # an interval may reach beyond what an accuracy can be

    def _draw_scatter(self, axes: Axes) -> None:
        """Draw top-1 by millions of parameters."""
        for entry, found in self.comparison.measured:
            self._mark(axes, entry, (found.params_m, found.top1), error=found.interval)
        names = ", ".join(entry.label for entry in self._missing)
        missing = wrap(f"no run: {names}", 60) if names else []
        axes.set_xlabel("\n".join(["Parameters of the representation (millions)", *missing]))
        axes.set_ylabel(self._measured_axis)
        axes.margins(x=0.25, y=0.12)
        self._add_legend(axes, [entry for entry, _ in self.comparison.measured])

    @property
    def _measured_axis(self) -> str:
        interval = ", 95% interval" if any(found.interval for _, found in self.comparison.measured) else ""
        probe = re.sub(r"@[^\[]*", " probe", self.comparison.evaluation)  # its version says nothing here
        return f"Top-1 on {self.comparison.dataset} (%), {probe}{interval}"

    def _label_measured(self, axes: Axes) -> None:
        """Write labels beside the markers where nothing is in their way; a thin line leads to one that stands apart."""
        rows = self.comparison.measured
        points = [(found.params_m, found.top1) for _, found in rows]
        labels = [entry.label for entry, _ in rows]
        label_points(axes, points, labels, size=self.sizes.label, gap=0.7 * self.sizes.marker)

    def _mark(
        self, axes: Axes, entry: Entry, place: tuple[float, float], error: float | None = None, across: bool = False
    ) -> None:
        """Draw an entry's marker, and an interval where there is one: upwards and downwards, or across."""
        look = _series(entry)
        bars: dict[str, Any] = {"xerr" if across else "yerr": error} if error is not None else {}
        axes.errorbar(
            *place, **bars, fmt=look.marker, color=look.color, alpha=look.opacity, markersize=self.sizes.marker,
            elinewidth=0.8, markeredgewidth=1.2 if look.marker == "x" else 0.6, zorder=3,
        )  # fmt: skip

    def _add_legend(self, axes: Axes, shown: Iterable[Entry]) -> None:
        """Name the years; the supervised yardstick has no entry, as in the write-up."""
        from matplotlib.lines import Line2D

        looks = {entry.year: _series(entry) for entry in shown if entry.kind != "supervised"}
        lines = [
            Line2D([], [], marker=look.marker, color=look.color, linestyle="", alpha=OPACITY, label=str(year))
            for year, look in sorted(looks.items())
        ]
        axes.legend(handles=lines, loc="lower right", framealpha=0.9, borderpad=0.4, markerscale=self.sizes.marker / 6)


def published_labels() -> list[tuple[str, tuple[float, float]]]:
    """Return each marker's label, that of all entries which share it, and its place."""
    names: dict[tuple[float, float], list[str]] = {}
    for entry in entries():
        names.setdefault(entry.drawn, []).append(entry.label)
    return [(" & ".join(labels), place) for place, labels in names.items()]


def _side_labels(moves: Iterable[Move], side: int) -> list[tuple[float, str]]:
    """Return the labels of one side, with those that share a place in one line."""
    names: dict[float, list[str]] = {}
    for move in moves:
        place = move.measured if side else move.published
        names.setdefault(place, []).append(f"{move.entry.label} {move.top1(side):.1f}")
    return [(place, ", ".join(labels)) for place, labels in names.items()]


def _moved_most(comparison: Comparison) -> list[str]:
    moved = [f"{move.entry.label} {move.places:+g}" for move in comparison.moved_most]
    return [f"moved most: {', '.join(moved)} places"] if moved else []


def _series(entry: Entry) -> Series:
    return SUPERVISED if entry.kind == "supervised" else YEARS[entry.year]


def _add_grid(axes: Axes) -> None:
    axes.grid(visible=True)
    axes.set_axisbelow(True)
