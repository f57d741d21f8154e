"""What top-1 cost: rows by seconds or encoder passes, and the Pareto front among them.

matplotlib is imported only to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, mode
from typing import TYPE_CHECKING, Literal

from clvr_bench.charts.labels import label_points
from clvr_bench.charts.look import BLUE, DPI, FAINT, INK, SMALL, WIDTH
from clvr_bench.charts.rows import Row
from clvr_bench.errors import ClvrBenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cost = Literal["seconds", "encoder_passes"]

AXES: dict[Cost, str] = {
    "seconds": "seconds of pretraining, mean over seeds (log scale)",
    "encoder_passes": "pictures encoded in pretraining (log scale)",
}
HEIGHTS = (2.8, 5.6)
"""Inches of the lowest and of the highest chart: the more rows, the higher."""
A_ROW = 0.1
"""Inches that a row adds."""
MARKER = 4.5
"""Points."""


@dataclass(frozen=True)
class Spot:
    """A row's place: what it cost, and its mean top-1 in percent."""

    row: Row
    cost: float
    top1: float


def spots(rows: Sequence[Row], cost: Cost) -> list[Spot]:
    """Place the rows that were trained and evaluated, cheapest first."""
    placed = [
        Spot(row, fmean(row.seconds) if cost == "seconds" else row.encoder_passes, row.mean)
        for row in rows
        if row.trained and row.top1
    ]
    return sorted(placed, key=lambda spot: (spot.cost, -spot.top1))


def front(placed: Sequence[Spot], cost: Cost) -> list[Spot]:
    """Return the Pareto front, cheapest first: better than all others without labels that cost as much or less.

    Args:
        placed: From ``spots``.
        cost: What they cost; by encoder passes, only rows with the encoder that most have are compared.
    """
    compared = [spot for spot in placed if spot.row.labels == "none"]
    if compared and cost == "encoder_passes":
        usual = mode(spot.row.encoder for spot in compared)
        compared = [spot for spot in compared if spot.row.encoder == usual]
    found: list[Spot] = []
    for spot in compared:
        if not found or spot.top1 > found[-1].top1:
            found.append(spot)
    return found


def draw_costs(rows: Sequence[Row], cost: Cost) -> Figure:
    """Draw mean top-1 by cost, an upright line of one standard deviation over seeds each way, and every name.

    Filled circles, joined by a line, are the Pareto front of the rows without labels; open circles are other such rows,
    squares are rows that saw labels. Rows that were not trained are broken lines. Draw and save in the context of
    ``look.settings``.

    Args:
        rows: From ``load_rows``.
        cost: What stands on the axis, which is logarithmic.

    Raises:
        ClvrBenchError: No row was both trained and evaluated.
    """
    from matplotlib.figure import Figure

    placed = spots(rows, cost)
    if not placed:
        raise ClvrBenchError("charts: no row was both trained and judged by the linear evaluation.")
    best = front(placed, cost)
    lowest, highest = HEIGHTS
    figure = Figure(figsize=(WIDTH, min(lowest + A_ROW * len(placed), highest)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    _set_scale(axes)
    axes.step([s.cost for s in best], [s.top1 for s in best], where="post", color=BLUE, linewidth=0.8, zorder=2)
    for spot in placed:
        _draw_spot(axes, spot, on_front=spot in best)
    axes.grid(visible=True, which="major")
    axes.set(xlabel=AXES[cost], ylabel="linear top-1 (%)")
    _add_legend(figure, placed)
    untrained = [row for row in rows if not row.trained and row.top1]
    for row in untrained:
        axes.axhline(row.mean, color=INK, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1)
    left, right = axes.get_xlim()
    label_points(
        axes,
        [*((spot.cost, spot.top1) for spot in placed), *((left, row.mean) for row in untrained)],
        [*(spot.row.name for spot in placed), *(row.name for row in untrained)],
        size=SMALL,
        gap=0.9 * MARKER,
        kept_free=[[(here.cost, here.top1), (there.cost, here.top1)] for here, there in pairwise(best)],
        other_ends={number: (right, row.mean) for number, row in enumerate(untrained, start=len(placed))},
    )
    return figure


def _set_scale(axes: Axes) -> None:
    """Make costs logarithmic, with numbers written out: 20,000."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12, y=0.06)


def _draw_spot(axes: Axes, spot: Spot, *, on_front: bool) -> None:
    marker, color = ("o", BLUE) if spot.row.labels == "none" else ("s", INK)
    axes.vlines(spot.cost, spot.top1 - spot.row.std, spot.top1 + spot.row.std, colors=FAINT, linewidths=0.8, zorder=1)
    face = color if on_front else "white"
    axes.plot(spot.cost, spot.top1, marker, color=color, markerfacecolor=face, markersize=MARKER, zorder=3)


def _add_legend(figure: Figure, placed: Sequence[Spot]) -> None:
    from matplotlib.lines import Line2D

    looks = [("o", BLUE, BLUE, "no labels, on the Pareto front"), ("o", BLUE, "white", "no labels")]
    looks += [("s", INK, "white", "saw labels")] if any(spot.row.labels != "none" for spot in placed) else []
    handles = [
        Line2D([], [], linestyle="", marker=marker, markersize=MARKER, color=edge, markerfacecolor=face, label=said)
        for marker, edge, face, said in looks
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
