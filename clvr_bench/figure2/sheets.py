"""Figure 2 as a table to print: its entries, what was measured of them, and what is to be known of either."""

from __future__ import annotations

from collections.abc import Iterator

from clvr_bench.budgets import epochs_said
from clvr_bench.figure2.comparison import Comparison, Measured
from clvr_bench.figure2.entries import Entry
from clvr_bench.tables import NOTHING, labels_note, top1_text
from clvr_bench.typesetting import Cell, Heading, Sheet

BOLD = "Bold: the best top-1 of a column; what saw labels, and rows without a rank, do not compete."
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
    top-1 of each column, as printed, and whatever equals it: of those without labels, and of the ranked rows.
    """
    published, best = _best_published(comparison), _best(comparison)
    rows = [[*_published(entry, published), *_measured(comparison, found, best)] for entry, found in comparison.pairs]
    return Sheet(
        title=f"Figure 2 of arXiv 2210.03163, {comparison.setting or 'as published'}",
        headings=[*PUBLISHED, *_measured_headings(comparison)],
        rows=rows,
        remarks=[*agreement(comparison), BOLD],
    )


def agreement(comparison: Comparison) -> list[str]:
    """Say how far both orders agree, where there are two, and which rows neither is of."""
    if not comparison.suite:
        return []
    said = [f"Published and measured order of encoders of one width: {comparison.agreement}."]
    if comparison.epochs and comparison.other_epochs:
        others = ", ".join(map(str, comparison.other_epochs))
        said.append(f"Only rows of {epochs_said(comparison.epochs)}; there are also rows of {others}.")
    return said


def _measured_headings(comparison: Comparison) -> list[Heading]:
    if not comparison.suite:
        return []
    return [Heading(f"{comparison.dataset}\ntop-1 %"), Heading("seeds", is_number=True)]


def _published(entry: Entry, best: str) -> list[Cell]:
    notes = [entry.note, "" if entry.verified else "not seen in print"]
    label = Cell(entry.label, notes=tuple(filter(None, notes)))
    top1 = f"{entry.top1:.1f}"
    is_best = entry.kind != "supervised" and top1 == best
    return [label, *map(Cell, (str(entry.year), entry.encoder, f"{entry.params_m:g}")), Cell(top1, is_best)]


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


def _best_published(comparison: Comparison) -> str:
    return f"{max(entry.top1 for entry, _ in comparison.pairs if entry.kind != 'supervised'):.1f}"


def _best(comparison: Comparison) -> str:
    """Return the best measured top-1 of ranked rows as it is printed; empty where none is ranked."""
    ranked = [found.top1 for _, found in comparison.measured if found.rank is not None]
    return f"{max(ranked):.1f}" if ranked else ""
