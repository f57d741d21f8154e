"""Where labels of points can stand without touching one another: placing knows boxes alone, writing knows axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Box:
    """A rectangle, in any unit: left and lower edge, width and height."""

    left: float
    bottom: float
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        """Whether both share more than an edge."""
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.bottom < other.bottom + other.height
            and other.bottom < self.bottom + self.height
        )

    def inside(self, other: Box) -> bool:
        """Whether this lies in the other."""
        return (
            self.left >= other.left
            and self.bottom >= other.bottom
            and self.left + self.width <= other.left + other.width
            and self.bottom + self.height <= other.bottom + other.height
        )


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    gap: float,
    obstacles: Sequence[Box] = (),
    other_ends: Mapping[int, tuple[float, float]] = MappingProxyType({}),
) -> list[Box]:
    """Place a label at each point: right of it where that is free, else around it, else ever farther away.

    Args:
        points: The points.
        sizes: Width and height of each point's label.
        frame: What labels stay in, wherever there is room.
        gap: From the middle of a point to its label; points themselves are as large.
        obstacles: What else labels must not cover.
        other_ends: By a label's number, another point that it may stand at as well.

    Returns:
        A box for each label. None overlaps another, a point or an obstacle, unless no place near is free.
    """
    marks = [*obstacles, *(Box(x - gap, y - gap, 2 * gap, 2 * gap) for x, y in points)]
    placed: dict[int, Box] = {}
    for number in sorted(range(len(points)), key=lambda i: (-points[i][1], points[i][0])):
        ends = [points[number], *([other_ends[number]] if number in other_ends else [])]
        placed[number] = _first_free(ends, sizes[number], frame, gap, [*marks, *placed.values()])
    return [placed[number] for number in range(len(points))]


def _first_free(
    ends: Sequence[tuple[float, float]], size: tuple[float, float], frame: Box, gap: float, taken: Sequence[Box]
) -> Box:
    width, height = size
    candidates = [
        Box(left, y + shift * height - height / 2, width, height)
        for distance in range(12)
        for x, y in ends
        for shift in ((0.0,) if distance == 0 else (distance / 2, -distance / 2))
        for left in (x + gap, x - gap - width, x - width / 2)
    ]
    free = [box for box in candidates if box.inside(frame) and not any(box.overlaps(other) for other in taken)]
    return free[0] if free else candidates[0]


def _strip(first: tuple[float, float], second: tuple[float, float]) -> Box:
    """Return the box around a line, half a pixel larger on every side."""
    (left, right), (bottom, top) = (sorted(ends) for ends in zip(first, second, strict=True))
    return Box(left - 0.5, bottom - 0.5, right - left + 1, top - bottom + 1)


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    *,
    size: float,
    gap: float,
    kept_free: Sequence[Sequence[tuple[float, float]]] = (),
    other_ends: Mapping[int, tuple[float, float]] = MappingProxyType({}),
) -> None:
    """Write labels beside points where nothing is in their way; a thin line leads to one that stands apart.

    Args:
        axes: With everything else in it, as the axes' final place and limits decide where there is room.
        points: In the axes' data.
        labels: One a point.
        size: Of their font, in points.
        gap: From the middle of a point to its label, in points.
        kept_free: Both ends of each level or upright line that labels must not cover, in the axes' data.
        other_ends: By a label's number, another point that it may stand at as well, in the axes' data.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # so that the axes have their final place
    axes.autoscale(False)  # and keep it, whatever lines are added
    to_pixels = axes.transData
    spots = to_pixels.transform(points).tolist()
    other_spots = {number: to_pixels.transform(end).tolist() for number, end in other_ends.items()}
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
    texts = [axes.text(0, 0, label, fontsize=size, va="bottom", bbox=paper, in_layout=False) for label in labels]
    extents = [text.get_window_extent() for text in texts]
    window = axes.get_window_extent()
    boxes = place_labels(
        spots,
        [(extent.width, extent.height) for extent in extents],
        Box(window.x0, window.y0, window.width, window.height),
        gap=gap * figure.dpi / 72,
        obstacles=[_strip(*to_pixels.transform(ends).tolist()) for ends in kept_free],
        other_ends=other_spots,
    )
    to_data = to_pixels.inverted()
    for number, (text, box) in enumerate(zip(texts, boxes, strict=True)):
        text.set_position(to_data.transform((box.left, box.bottom)).tolist())
        x, y = min([spots[number], other_spots.get(number, spots[number])], key=lambda spot: abs(spot[0] - box.left))
        if abs(box.bottom + box.height / 2 - y) > 0.9 * box.height:  # places are half a height apart
            near = min(max(x, box.left), box.left + box.width), box.bottom + box.height / 2
            axes.plot(*to_data.transform([(x, y), near]).T, color=text.get_color(), linewidth=0.4, zorder=1)
