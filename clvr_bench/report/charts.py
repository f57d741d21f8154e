"""Learning curves and top-1 by seconds, as plots of the cards' rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from clvr_bench.charts.costs import AXES, Spot, front, spots
from clvr_bench.charts.labels import Box, place_labels
from clvr_bench.charts.rows import Row, chart_rows
from clvr_bench.report.cards import Card
from clvr_bench.report.plots import Mark, Place, Plot, Scale

CURVE = "knn_top1"
"""What learning curves follow: k-NN top-1 on val, in percent, which every task has."""
LETTER, LINE, BASELINE, GAP = 6.2, 13, 10, 7
"""Of labels, in pixels: a letter's width, a line's height, its baseline below its top; half of a mark's room."""
Pair = tuple[Card, Row]


@dataclass(frozen=True)
class Panel:
    """How one row learned."""

    card: Card
    name: str
    plot: Plot


@dataclass(frozen=True)
class Costs:
    """What the rows of one suite and data set cost.

    Attributes:
        title: Which these are.
        card: One of theirs, by which readers choose them.
        plot: Top-1 by seconds.
    """

    title: str
    card: Card
    plot: Plot


def scopes(shown: Sequence[Card]) -> list[list[Pair]]:
    """Return the cards of each suite and data set with their rows of charts; transfers and failures are left out."""
    found: dict[tuple[str, str], list[Card]] = {}
    for card in shown:
        if card.group.target is None and card.group.averaged:
            found.setdefault((card.row["suite"], card.row["dataset"]), []).append(card)
    return [list(zip(cards, chart_rows([card.group for card in cards]), strict=True)) for cards in found.values()]


def panels(scope: Sequence[Pair]) -> list[Panel]:
    """Draw how each row of a suite and data set learned; those that were not trained are left out.

    Heights are the same in all, epochs in those of as many.
    """
    curves = {card.anchor: curve for card, row in scope if (curve := row.curve(CURVE))}
    points = list(chain.from_iterable(curves.values()))
    if not points:
        return []
    x = {row.epochs: Scale(0, row.epochs or 1, 30, 186) for card, row in scope if card.anchor in curves}
    y = Scale(0, max(point.high for point in points) or 1, 84, 6)
    return [Panel(card, row.name, _panel(row, x[row.epochs], y)) for card, row in scope if card.anchor in curves]


def _panel(row: Row, x: Scale, y: Scale) -> Plot:
    curve = row.curve(CURVE)
    marks = []
    for point in curve:
        spread = f", seeds {point.low:.1f} to {point.high:.1f}" if len(row.histories) > 1 else ""
        marks.append(Mark((x.at(point.epoch), y.at(point.mean)), f"epoch {point.epoch}: {point.mean:.1f} %{spread}"))
    lows = [(x.at(point.epoch), y.at(point.low)) for point in curve]
    highs = [(x.at(point.epoch), y.at(point.high)) for point in curve]
    line = [mark.place for mark in marks]
    line = line if len(line) > 1 else line * 2  # one of no length is drawn as a dot
    return Plot(192, 102, x, y, marks, line=line, band=[*lows, *reversed(highs)])


def costs(scope: Sequence[Pair]) -> Costs | None:
    """Draw top-1 by seconds of pretraining, the Pareto front joined; None where no row was trained and evaluated."""
    placed = [
        spot for spot in spots([row for _, row in scope], "seconds") if spot.cost > 0
    ]  # as its axis is logarithmic
    if not placed:
        return None
    cards = {row.name: card for card, row in scope}
    x = Scale.over((spot.cost for spot in placed), 50, 850, is_log=True)
    y = Scale.over(chain.from_iterable(_reach(spot) for spot in placed), 360, 10)
    best = front(placed, "seconds")
    line = list(_steps([(x.at(spot.cost), y.at(spot.top1)) for spot in best]))
    marks = [_mark(spot, cards[spot.row.name], x, y, on_front=spot in best) for spot in placed]
    card = scope[0][0]
    return Costs(
        title=f"{card.row['suite']}: {card.row['dataset']}",
        card=card,
        plot=Plot(
            900, 400, x, y, _labelled_apart(marks, line, x, y),
            x_title=AXES["seconds"], y_title="linear top-1 (%)", line=line,
        ),
    )  # fmt: skip


def _reach(spot: Spot) -> tuple[float, float]:
    return spot.top1 - spot.row.std, spot.top1 + spot.row.std


def _mark(spot: Spot, card: Card, x: Scale, y: Scale, *, on_front: bool) -> Mark:
    low, high = _reach(spot)
    across = x.at(spot.cost)
    labels = "" if spot.row.labels == "none" else f", labels: {spot.row.labels}"
    return Mark(
        place=(across, y.at(spot.top1)),
        said=f"{spot.row.name}: {card.top1} % after {spot.cost:,.0f} seconds{labels}",
        shape="square" if labels else "dot" if on_front else "ring",
        label=spot.row.name if on_front else "",
        anchor=card.anchor,
        task=card.row["pretext_task"],
        whisker=((across, y.at(low)), (across, y.at(high))),
    )


def _labelled_apart(marks: Sequence[Mark], line: Sequence[Place], x: Scale, y: Scale) -> list[Mark]:
    """Place labels where they cover no mark, whisker, line or other label; one without a place near is left out."""
    named, others = [mark for mark in marks if mark.label], [mark for mark in marks if not mark.label]
    taken = [*(_square(mark.place) for mark in others), *_whiskers(marks), *_level_parts(line)]
    boxes = place_labels(
        [mark.place for mark in named],
        [(LETTER * len(mark.label), LINE) for mark in named],
        Box(x.start, y.end, x.end - x.start, y.start - y.end),
        gap=GAP,
        obstacles=taken,
    )
    return [*others, *(_labelled(mark, box, [*taken, *boxes]) for mark, box in zip(named, boxes, strict=True))]


def _labelled(mark: Mark, box: Box, taken: Sequence[Box]) -> Mark:
    top = box.bottom  # the edge with the lesser number, which is above here
    is_far = abs(top + LINE / 2 - mark.place[1]) > 1.5 * LINE
    if is_far or any(box.overlaps(other) for other in taken if other is not box):
        return replace(mark, label="")
    return replace(mark, label_at=(round(box.left, 1), round(top + BASELINE, 1)))


def _square(place: Place) -> Box:
    return Box(place[0] - GAP, place[1] - GAP, 2 * GAP, 2 * GAP)


def _whiskers(marks: Sequence[Mark]) -> Iterator[Box]:
    for mark in marks:
        if mark.whisker:
            (across, low), (_, high) = mark.whisker
            yield Box(across - 1, high, 2, low - high)


def _level_parts(line: Sequence[Place]) -> Iterator[Box]:
    for (left, height), (right, below) in pairwise(line):
        if height == below:
            yield Box(left, height - 1, right - left, 2)


def _steps(places: Sequence[Place]) -> Iterator[Place]:
    """Yield the corners of a line that runs level from each place to the next one, and rises there."""
    yield from places[:1]
    for (_, before), (across, height) in pairwise(places):
        yield across, before
        yield across, height
