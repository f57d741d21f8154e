"""Figure 2 as a table to print: its entries, what was measured of them, and what is to be known of either."""

from __future__ import annotations

from collections.abc import Iterator

from clvr_bench.figure2.comparison import Comparison, Measured
from clvr_bench.figure2.entries import Entry
from clvr_bench.tables import BOLD, NOTHING, labels_note, top1_text
from clvr_bench.typesetting import Cell, Heading, Sheet

PUBLISHED = (
    Heading("method"),
    Heading("year"),
    Heading("encoder"),
    Heading("params\nM", is_number=True),
    Heading("ImageNet\ntop-1 %", is_number=True),
)


def sheet(comparison: Comparison) -> Sheet:
    """Lay a comparison out in the figure's order; without runs, the published columns alone.

    What is said of an entry is marked at its name, what is said of its row at the measured top-1. Bold is the best
    measured top-1, as printed, of the ranked rows, and whatever equals it; published ones are of different encoders.
    """
    best = _best(comparison)
    rows = [[*_published(entry), *_measured(comparison, found, best)] for entry, found in comparison.pairs]
    subject = (
        f"{comparison.suite}: {comparison.dataset}, {comparison.evaluation}" if comparison.suite else "as published"
    )
    return Sheet(
        title=f"Figure 2 of arXiv 2210.03163, {subject}",
        headings=[*PUBLISHED, *_measured_headings(comparison)],
        rows=rows,
        remarks=[*agreement(comparison), *([BOLD] if best else [])],
    )


def agreement(comparison: Comparison) -> list[str]:
    """Say how far both orders agree, where there are two."""
    if not comparison.suite:
        return []
    return [f"Published and measured order of encoders of one width: {comparison.agreement}."]


def _measured_headings(comparison: Comparison) -> list[Heading]:
    if not comparison.suite:
        return []
    return [Heading(f"{comparison.dataset}\ntop-1 %"), Heading("seeds", is_number=True)]


def _published(entry: Entry) -> list[Cell]:
    notes = [entry.note, "" if entry.verified else "not seen in print"]
    label = Cell(entry.label, notes=tuple(filter(None, notes)))
    return [label, *map(Cell, (str(entry.year), entry.encoder, f"{entry.params_m:g}", f"{entry.top1:.1f}"))]


def _measured(comparison: Comparison, found: Measured | None, best: str) -> list[Cell]:
    if not comparison.suite:
        return []
    if found is None:
        return [Cell(NOTHING), Cell(NOTHING)]
    is_best = found.rank is not None and f"{found.top1:.1f}" == best
    return [Cell(top1_text(found.top1, found.std), is_best, tuple(_notes(found))), Cell(str(found.seeds))]


def _notes(found: Measured) -> Iterator[str]:
    yield from labels_note(found.labels)
    yield from filter(None, found.note.split("; "))


def _best(comparison: Comparison) -> str:
    """Return the best measured top-1 of ranked rows as it is printed; empty where none is ranked."""
    ranked = [found.top1 for _, found in comparison.measured if found.rank is not None]
    return f"{max(ranked):.1f}" if ranked else ""
