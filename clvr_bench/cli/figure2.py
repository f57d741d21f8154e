"""The command that shows Figure 2: on the screen, as a picture, as CSV. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clvr_bench.cli.finding import warn_of_damage
from clvr_bench.cli.tables import check_format, write_output
from clvr_bench.errors import ClvrBenchError
from clvr_bench.figure2.comparison import COLUMNS, Comparison, Measured, compare, table
from clvr_bench.tables import NOTHING, csv_text

if TYPE_CHECKING:
    from clvr_bench.figure2.drawing import Size


def show_figure2(results: Path | None, suite: str | None, dataset: str | None, size: Size, output: Path | None) -> None:
    """Print the figure as a table, or write it to a file as its suffix says; then how far both orders agree.

    Raises:
        ClvrBenchError: The file's suffix is unknown or it cannot be written; a suite or a data set is named but no
            results; there are no runs, or those of several suites or data sets.
    """
    check_format(output)
    if results is None and (suite or dataset):
        raise ClvrBenchError("figure2: --suite and --dataset choose among runs. Name their folder with --results DIR.")
    comparison = _comparison(results, suite, dataset)
    console = Console()
    if output is None:
        console.print(terminal_table(comparison))
    else:
        write_output(output, _content(comparison, output.suffix.lower(), size))
    for line in remarks(comparison):
        console.print(line, markup=False, highlight=False, style="dim", soft_wrap=True)


def _comparison(results: Path | None, suite: str | None, dataset: str | None) -> Comparison:
    if results is None:
        return compare()
    from clvr_bench.standings import leaderboard  # pandas, which the published figure needs not wait for

    return compare(leaderboard(results, suite, warn_of_damage), dataset)


def _content(comparison: Comparison, suffix: str, size: Size) -> bytes:
    if suffix == ".csv":
        return csv_text(table(comparison), COLUMNS).encode()
    from clvr_bench.figure2.drawing import picture  # matplotlib is imported by who draws

    return picture(comparison, suffix.removeprefix("."), size)


def terminal_table(comparison: Comparison) -> Table:
    """Lay a comparison out for a terminal, in the figure's order."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for title, side in (("method", "left"), ("year", "left"), ("encoder", "left"), ("params\nM", "right")):
        shown.add_column(title, justify=side)  # type: ignore[arg-type]  # one of the words that it takes
    shown.add_column("ImageNet\ntop-1 %", justify="right")
    if comparison.suite:
        shown.title = Text(f"{comparison.suite}: {comparison.dataset}, {comparison.evaluation}", "table.title")
        shown.add_column(Text(f"{comparison.dataset}\ntop-1 %"), justify="left")
        shown.add_column("seeds", justify="right")
    for entry, found in comparison.pairs:
        cells = [entry.label, str(entry.year), entry.encoder, f"{entry.params_m:g}", f"{entry.top1:.1f}"]
        measured = [_top1(found), str(found.seeds) if found else NOTHING] if comparison.suite else []
        shown.add_row(*map(Text, [*cells, *measured]))
    return shown


def _top1(found: Measured | None) -> str:
    if found is None:
        return NOTHING
    return f"{found.top1:>5.1f}" + (f" ± {found.std:.1f}" if found.std is not None else "")


def remarks(comparison: Comparison) -> Iterator[str]:
    """Yield what is to be known of the figure, a line each."""
    if comparison.suite:
        yield f"Published and measured order of encoders of one width: {comparison.agreement}."
    for entry, _ in comparison.pairs:
        if entry.note:
            yield f"{entry.label}: {entry.note}."
