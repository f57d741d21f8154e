"""What a plot consists of, in pixels: scales, ticks, marks, lines. Knows neither records nor SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log10
from typing import Literal

Shape = Literal["dot", "ring", "square", "cross", "triangle"]
Place = tuple[float, float]
LINEAR_TICKS, LOG_TICKS = 5, (1, 2, 5)
"""At most so many; at these multiples of powers of ten."""
ROOM = 0.04
"""Of the range, beyond the outermost values."""


@dataclass(frozen=True)
class Scale:
    """Values to pixels.

    Attributes:
        low: The value at ``start``.
        high: The value at ``end``.
        start: In pixels.
        end: In pixels; less than ``start`` where values grow upwards.
        is_log: Whether equal factors are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, *, is_log: bool = False) -> Scale:
        """Return the scale from the lowest to the highest of some values, with some room at both ends."""
        seen = [log10(value) if is_log else value for value in values]
        room = ROOM * (max(seen) - min(seen)) or 0.5
        low, high = min(seen) - room, max(seen) + room
        return cls(10**low, 10**high, start, end, is_log=True) if is_log else cls(low, high, start, end)

    def at(self, value: float) -> float:
        """Return a value's place, to a tenth of a pixel."""
        low, high, own = (log10(v) if self.is_log else v for v in (self.low, self.high, value))
        return round(self.start + (own - low) / (high - low) * (self.end - self.start), 1)

    @cached_property
    def ticks(self) -> list[tuple[float, str]]:
        """Round values in range: their places and how they are written."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        locator = LogLocator(subs=LOG_TICKS) if self.is_log else MaxNLocator(LINEAR_TICKS, steps=[1, 2, 5, 10])
        values = locator.tick_values(self.low, self.high)
        return [(self.at(value), f"{value:,.10g}") for value in values if self.low <= value <= self.high]


@dataclass(frozen=True)
class Mark:
    """A point of a plot.

    Attributes:
        place: Its center.
        said: What a reader sees who points at it.
        shape: How it looks.
        label: What stands beside it.
        label_at: Where that begins, on its baseline; right of the mark where None.
        anchor: The card that it leads to; empty where there is none.
        task: The pretext task by which readers choose it; empty where they cannot.
        whisker: Both ends of a line through it.
    """

    place: Place
    said: str
    shape: Shape = "dot"
    label: str = ""
    label_at: Place | None = None
    anchor: str = ""
    task: str = ""
    whisker: tuple[Place, Place] | None = None


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        width: In pixels, all around.
        height: In pixels, all around.
        x: From left to right.
        y: From below to above.
        x_title: What the horizontal axis says.
        y_title: What the vertical axis says.
        marks: Its points.
        line: The corners of a line below them.
        band: The corners of an area below that.
        names: Places along the vertical axis with what is written there; the ticks of ``y`` where there are none.
    """

    width: float
    height: float
    x: Scale
    y: Scale
    marks: Sequence[Mark]
    x_title: str = ""
    y_title: str = ""
    line: Sequence[Place] = ()
    band: Sequence[Place] = ()
    names: Sequence[tuple[float, str]] = ()

    @property
    def left_ticks(self) -> Sequence[tuple[float, str]]:
        """What is written at the vertical axis."""
        return self.names or self.y.ticks


def corners(places: Sequence[Place]) -> str:
    """Write corners as SVG's ``points``."""
    return " ".join(f"{x:g},{y:g}" for x, y in places)
