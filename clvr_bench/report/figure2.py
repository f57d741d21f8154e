"""Figure 2 of arXiv 2210.03163 as plots: as published, and as measured in each suite that holds its methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clvr_bench.figure2.comparison import Comparison, Measured, compare
from clvr_bench.figure2.drawing import BELOW, published_labels
from clvr_bench.figure2.entries import Entry, entries
from clvr_bench.figure2.sheets import agreement
from clvr_bench.report.cards import Card
from clvr_bench.report.plots import Mark, Plot, Scale, Shape
from clvr_bench.standings import Standing, standings_frame

SHAPES: dict[int, Shape] = {2018: "dot", 2019: "cross", 2020: "triangle"}
"""A year's, as in the figure."""
LINE = 20
"""Pixels from one method to the next."""


@dataclass(frozen=True)
class Strip:
    """The figure's methods as one suite measured them.

    Attributes:
        title: Which suite, data set and evaluation these are.
        card: One of theirs, by which readers choose them.
        plot: A line a method, the best above.
        remarks: How far the order agrees with the published one.
    """

    title: str
    card: Card
    plot: Plot
    remarks: list[str]


def published_plot() -> Plot:
    """Draw top-1 by parameters, as published."""
    x, y = Scale(0, 400, 50, 850), Scale(46, 80.5, 420, 10)
    marks = []
    for label, place in published_labels():
        drawn_there = [entry for entry in entries() if entry.drawn == place]
        said = "\n".join(map(_said, drawn_there))
        at = x.at(place[0]), y.at(place[1])
        label_at = (at[0] + 7, at[1] + 16) if label in BELOW else None
        marks.append(Mark(at, said, _shape(drawn_there[0]), label, label_at=label_at))
    return Plot(
        900, 460, x, y, marks, x_title="Number of Model Parameters (Millions)", y_title="ImageNet Top-1 Accuracy (%)"
    )


def strips(shown: Sequence[Card]) -> list[Strip]:
    """Draw the methods as measured, for each suite, data set and evaluation that has two of them."""
    scopes: dict[tuple[str, ...], list[Card]] = {}
    for card in shown:
        if card.top1:
            scopes.setdefault(tuple(card.row[name] for name in ("suite", "dataset", "evaluation")), []).append(card)
    return [strip for cards in scopes.values() if (strip := _strip(cards))]


def _strip(cards: Sequence[Card]) -> Strip | None:
    comparison = compare(standings_frame([Standing(card.group, card.row) for card in cards]))
    cards = [card for card in cards if card.group.epochs in (comparison.epochs, None)]
    if not comparison.moves or len(comparison.measured) < 2:
        return None
    return Strip(
        title=comparison.setting,
        card=cards[0],
        plot=_measured_plot(comparison, cards),
        remarks=agreement(comparison),
    )


def _measured_plot(comparison: Comparison, cards: Sequence[Card]) -> Plot:
    measured = sorted(comparison.measured, key=lambda pair: -pair[1].top1)
    bottom = 10 + LINE * len(measured)
    ends = [found.top1 + sign * (found.interval or 0) for _, found in measured for sign in (-1, 1)]
    x = Scale.over([min(max(end, 0), 100) for end in ends], 150, 850)
    y = Scale(len(measured) - 0.5, -0.5, bottom, 10)
    marks = [_mark(entry, found, cards, x, y.at(i)) for i, (entry, found) in enumerate(measured)]
    names = [(y.at(i), entry.label) for i, (entry, _) in enumerate(measured)]
    interval = ", 95% interval" if any(found.interval for _, found in measured) else ""
    title = f"top-1 on {comparison.dataset} (%){interval}"
    return Plot(900, bottom + 40, x, y, marks, x_title=title, names=names)


def _mark(entry: Entry, found: Measured, cards: Sequence[Card], x: Scale, height: float) -> Mark:
    card = next(card for card in cards if _is_of(card, entry, found))
    half = found.interval or 0
    low, high = (min(max(found.top1 + end, 0), 100) for end in (-half, half))
    runs = ", ".join(run.folder.name for run in card.group.runs)
    return Mark(
        place=(x.at(found.top1), height),
        said=f"{entry.label}: {card.top1} % measured, {entry.top1:g} % published ({entry.source}). Runs: {runs}",
        shape=_shape(entry),
        anchor=card.anchor,
        task=entry.pretext_task,
        whisker=((x.at(low), height), (x.at(high), height)),
    )


def _is_of(card: Card, entry: Entry, found: Measured) -> bool:
    row = card.row
    return (row["pretext_task"], row["encoder"], row["top1_mean"]) == (entry.pretext_task, found.encoder, found.top1)


def _said(entry: Entry) -> str:
    seen = "" if entry.verified else "not seen in print"
    notes = "; ".join(filter(None, [entry.source, entry.note, seen]))
    return f"{entry.label} ({entry.year}), {entry.encoder}, {entry.params_m:g} M: {entry.top1:.1f} %. {notes}"


def _shape(entry: Entry) -> Shape:
    return "square" if entry.kind == "supervised" else SHAPES[entry.year]
