"""The command that sets two rows beside each other: on the screen, as CSV, as JSON. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clvr_bench.cli.tables import SCREEN, write_output
from clvr_bench.matchups import COLUMNS, PICTURE_COLUMNS, Matchup, Part, disagreements, matchup_table
from clvr_bench.significance import LEVEL
from clvr_bench.tables import csv_text, fits, json_text

SUFFIXES = {".csv": "csv", ".json": "json"}
"""What a comparison is written as, by the file's suffix, where no flag says it."""
SHOWN_CLASSES = 5
"""Of those where both differ most, on the screen; the files have all."""


def show_matchup(matchup: Matchup, format_name: str, output: Path | None) -> None:
    """Print a comparison, or write it to a file.

    Raises:
        ClvrBenchError: The file cannot be written.
    """
    if format_name == SCREEN:
        console = Console()
        console.print(terminal_table(matchup, console.width))
        for line in remarks(matchup):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    text = (csv_text if format_name == "csv" else json_text)(matchup_table(matchup), COLUMNS)
    if output is None:
        sys.stdout.write(text)
    else:
        write_output(output, text.encode())


def write_pictures(matchup: Matchup, output: Path) -> None:
    """Write which test pictures one got right more often, as CSV.

    Raises:
        ClvrBenchError: The file cannot be written.
    """
    write_output(output, csv_text(disagreements(matchup), PICTURE_COLUMNS).encode())
    Console().print(f"Written: {output}", markup=False, highlight=False, soft_wrap=True)


def terminal_table(matchup: Matchup, width: int) -> Table:
    """Lay a comparison out for a terminal: all pictures, each seed, and the classes where both differ most.

    Args:
        matchup: From ``compare_rows``.
        width: Columns of the terminal. Where they are too few for the rows' names, the title has these.
    """
    table = _layout(matchup, matchup.names)
    subject = f"{matchup.suite}: {matchup.dataset}, {matchup.evaluation}"
    if not fits(table, width):
        table = _layout(matchup, ("first", "second"))
        subject += "\nfirst: {}\nsecond: {}".format(*matchup.names)
    table.title = Text(subject, "table.title")
    return table


def _layout(matchup: Matchup, names: tuple[str, str]) -> Table:
    first, second = names
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("test pictures", no_wrap=True)
    tops, only = (f"{first}\n%", f"{second}\n%", "difference\npoints"), (f"only\n{first}", f"only\n{second}")
    for title in (*tops, *only, "both", "neither"):
        table.add_column(Text(title), justify="right")
    seeds = matchup.by_seed
    for part in (matchup.whole, *seeds, *_apart(matchup)):
        table.add_row(*map(Text, _cells(part)), end_section=part in (matchup.whole, seeds[-1]))
    return table


def _apart(matchup: Matchup) -> list[Part]:
    """Return the classes where both differ most, the largest difference first, whichever is ahead."""
    return sorted(matchup.by_class, key=lambda part: -abs(part.difference))[:SHOWN_CLASSES]


def _cells(part: Part) -> list[str]:
    titles = {"all": f"all {part.pictures:,}", "seed": f"seed {part.of}"}
    name = f"class {part.of}" if part.of.isdigit() else part.of
    counts = (part.first_only, part.second_only, part.both, part.neither)
    decimals = 0 if part.kind == "seed" else 1
    return [
        titles.get(part.kind, f"{name} ({part.pictures:,})"),
        f"{part.first_top1:.1f}",
        f"{part.second_top1:.1f}",
        f"{part.difference:+.1f}",
        *(f"{count:,.{decimals}f}" for count in counts),
    ]


def remarks(matchup: Matchup) -> Iterator[str]:
    """Yield what the table says of both rows, a line each."""
    (first, second), verdict, whole = matchup.names, matchup.verdict, matchup.whole
    difference = f"{first} - {second}: {whole.difference:+.2f} points"
    seeds = f"{len(matchup.seeds)} shared seeds ({', '.join(map(str, matchup.seeds))})"
    if verdict is None:
        yield f"{difference}, of one shared seed ({matchup.seeds[0]}): an interval and a test need two."
    else:
        low, high = whole.difference - verdict.ci95, whole.difference + verdict.ci95
        yield f"{difference}, 95% interval {low:+.2f} to {high:+.2f}, p = {verdict.p_value:.2g}; {seeds}."
        yield from _in_the_leaderboard(verdict.adjusted_p_value, verdict.pairs)
    yield "Counts of pictures are means over the seeds; all classes: --format csv."


def _in_the_leaderboard(adjusted: float | None, pairs: int) -> Iterator[str]:
    if adjusted is None:
        yield (
            "The leaderboard has no such test: not both are ranked, their epochs differ, or one has seeds that the "
            "other lacks."
        )
    else:
        said = "a difference" if adjusted < LEVEL else "no difference found"
        yield f"Adjusted to all pairs that the leaderboard ranks (Holm, {pairs:,}): p = {adjusted:.2g}, {said}."
