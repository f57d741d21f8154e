"""The command that shows Figure 2: on the screen, as a picture, as CSV, HTML and LaTeX. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clvr_bench.cli.finding import warn_of_damage
from clvr_bench.cli.tables import FORMATS, PAGES, check_format, write_output
from clvr_bench.errors import ClvrBenchError
from clvr_bench.figure2.comparison import COLUMNS, Comparison, compare, table
from clvr_bench.figure2.sheets import agreement, sheet
from clvr_bench.tables import csv_text
from clvr_bench.typesetting import html_text, latex_text

if TYPE_CHECKING:
    from clvr_bench.figure2.drawing import Size


def show_figure2(
    results: Path | None,
    suite: str | None,
    dataset: str | None,
    epochs: int | None,
    size: Size,
    output: Path | None,
) -> None:
    """Print the figure as a table, or write it to a file as its suffix says; then how far both orders agree.

    Raises:
        ClvrBenchError: The file's suffix is unknown or it cannot be written; a suite, data set or number of epochs is
            named but no results; there are no runs, none of these epochs, or those of several suites or data sets.
    """
    check_format(output, (*FORMATS, *PAGES))
    if results is None and (suite or dataset or epochs is not None):
        flags = "--suite, --dataset and --epochs"
        raise ClvrBenchError(f"figure2: {flags} choose among runs. Name their folder with --results DIR.")
    comparison = _comparison(results, suite, dataset, epochs)
    console = Console()
    if output is None:
        console.print(terminal_table(comparison))
    else:
        write_output(output, _content(comparison, output.suffix.lower(), size))
    for line in remarks(comparison):
        console.print(line, markup=False, highlight=False, style="dim", soft_wrap=True)


def _comparison(results: Path | None, suite: str | None, dataset: str | None, epochs: int | None) -> Comparison:
    if results is None:
        return compare()
    from clvr_bench.standings import leaderboard  # pandas, which the published figure needs not wait for

    return compare(leaderboard(results, suite, warn_of_damage), dataset, epochs)


def _content(comparison: Comparison, suffix: str, size: Size) -> bytes:
    if suffix == ".csv":
        return csv_text(table(comparison), COLUMNS).encode()
    if suffix in PAGES:
        return (html_text if suffix == ".html" else latex_text)(sheet(comparison)).encode()
    from clvr_bench.figure2.drawing import picture  # matplotlib is imported by who draws

    return picture(comparison, suffix.removeprefix("."), size)


def terminal_table(comparison: Comparison) -> Table:
    """Lay a comparison out for a terminal, in the figure's order."""
    laid_out = sheet(comparison)
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    if comparison.suite:
        shown.title = Text(comparison.setting, "table.title")
    for heading in laid_out.headings:
        shown.add_column(Text(heading.title), justify="right" if heading.is_number else "left")
    for row in laid_out.rows:
        shown.add_row(*(Text(cell.text) for cell in row))
    return shown


def remarks(comparison: Comparison) -> Iterator[str]:
    """Yield what is to be known of the figure, a line each."""
    yield from agreement(comparison)
    for entry, _ in comparison.pairs:
        if entry.note:
            yield f"{entry.label}: {entry.note}."
