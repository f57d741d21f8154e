"""The commands that read records: leaderboard, show, merge, verify. None of them needs torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clvr_bench.cli.finding import find_run, warn_of_damage
from clvr_bench.errors import CannotWrite, ClvrBenchError
from clvr_bench.files import write_atomically
from clvr_bench.records import Run, load_runs
from clvr_bench.run_facts import evaluation_name, judgements, run_facts, scores_text

PROBLEM = 1
SCREEN = "table"
SUFFIXES = {".csv": "csv", ".md": "markdown", ".json": "json", ".tex": "latex", ".html": "html"}
"""What a leaderboard is written as, by the file's suffix, where no flag says it."""
FORMATS = (".csv", ".pdf", ".png", ".svg")
"""What a table with a picture is written as, by the file's suffix."""
PAGES = (".html", ".tex")
"""What a table that is laid out for a page is written as besides."""


def show_leaderboard(results: Path, suite: str | None, format_name: str | None, output: Path | None) -> None:
    """Print a leaderboard, or write it to a file."""
    from clvr_bench.standings import leaderboard
    from clvr_bench.tables import render

    written_as = chosen_format(format_name, output, SUFFIXES)
    if written_as == SCREEN:
        print_leaderboard(results, Console(), suite)
        return
    text = render(leaderboard(results, suite, warn_of_damage), written_as)
    if output is None:
        sys.stdout.write(text)
        return
    write_output(output, text.encode())


def chosen_format(format_name: str | None, output: Path | None, suffixes: Mapping[str, str]) -> str:
    """Return how to write a table: as ``--format`` says, else as the file's name ends, else for the screen.

    Args:
        format_name: What ``--format`` says.
        output: The file; None is the screen.
        suffixes: Which formats there are, by the suffix that says so.

    Raises:
        ClvrBenchError: What is laid out for the screen was to go into a file, or the file's name says nothing.
    """
    if output is None:
        return format_name or SCREEN
    if format_name == SCREEN:
        raise ClvrBenchError(f"--format {SCREEN} is for the screen; for a file: {', '.join(suffixes.values())}.")
    if format_name is None:
        check_format(output, list(suffixes))
        return suffixes[output.suffix.lower()]
    return format_name


def check_format(output: Path | None, formats: Sequence[str] = FORMATS, flag: str = "--output") -> None:
    """Refuse a file before anything is read.

    Args:
        output: The file; None is the screen.
        formats: The suffixes that it may have.
        flag: What named it.

    Raises:
        ClvrBenchError: Its suffix says nothing about how to write it.
    """
    if output is not None and output.suffix.lower() not in formats:
        *others, last = sorted(formats)
        allowed = f"{', '.join(others)} or {last}" if others else last
        raise ClvrBenchError(f"{flag} {output}: expected a name that ends in {allowed}.")


def write_output(output: Path, content: bytes) -> None:
    """Write the file that ``--output`` names.

    Raises:
        ClvrBenchError: It cannot be written.
    """
    try:
        write_atomically(output, content)
    except CannotWrite as error:
        raise ClvrBenchError(f"--output {output}: cannot be written ({error.reason}).") from None


def print_leaderboard(results: Path, console: Console, suite: str | None = None) -> None:
    """Print a leaderboard with its notes; records that cannot be read are named on standard error and left out."""
    from clvr_bench.standings import leaderboard
    from clvr_bench.tables import notes, rich_table

    frame = leaderboard(results, suite, warn_of_damage)
    console.print(rich_table(frame, console.width))
    for note in notes(frame):
        console.print(note, markup=False, highlight=False, style="dim")


def print_new_leaderboard(suite_folder: Path, console: Console) -> None:
    """Print the leaderboard of a suite and write it beside its records."""
    from clvr_bench.tables import write_leaderboard

    print_leaderboard(suite_folder, console)
    written = write_leaderboard(suite_folder, on_damaged=lambda _: None)  # they were named just now
    console.print(f"Written: {written}", markup=False, highlight=False, soft_wrap=True)


def print_failures(failures: Sequence[str], console: Console) -> None:
    """Print what failed, a line each."""
    for failure in failures:
        console.print(f"failed: {failure}", markup=False, highlight=False, soft_wrap=True, style="red")


def show_run(name: str, results: Path) -> None:
    """Print one run, found by its folder or a part of its name.

    Raises:
        ClvrBenchError: No run has this name, or several have.
    """
    run = find_run("show", name, results)
    console, record = Console(), run.pretraining
    console.print(run.folder.name, style="bold", markup=False, highlight=False)
    table = Table.grid(padding=(0, 2))
    for key, value in run_facts(run):
        table.add_row(key, value)
    console.print(table)
    for evaluation in judgements(run):
        console.print(f"{evaluation_name(evaluation)}: {scores_text(evaluation)}", markup=False, highlight=False)
        for note in evaluation.notes:
            console.print(f"  {note}", markup=False, highlight=False, style="dim")
    if record.history:
        console.print(_history_table(run))


def _history_table(run: Run) -> Table:
    columns = list(run.pretraining.history[0])
    table = Table(*columns, box=None)
    for entry in run.pretraining.history:
        table.add_row(*(f"{entry[column]:.5g}" for column in columns))
    return table


def merge_results(sources: Sequence[Path], results: Path) -> int:
    """Merge results folders and write the leaderboards anew; the exit code says whether there were conflicts."""
    from clvr_bench.merge import merge
    from clvr_bench.tables import write_leaderboard

    report, console = merge(list(sources), results), Console()
    for title, names in (("copied", report.copied), ("duplicate", report.duplicates), ("conflict", report.conflicts)):
        for name in names:
            console.print(f"{title}: {name}", markup=False, highlight=False, soft_wrap=True)
    for suite in sorted({run.folder.parent.parent for run in load_runs(results)}):
        console.print(f"Written: {write_leaderboard(suite)}", markup=False, highlight=False, soft_wrap=True)
    return PROBLEM if report.conflicts else 0


def verify_results(results: Path) -> int:
    """Verify a results folder; the exit code says whether anything was wrong."""
    from clvr_bench.verify import verify

    report, console = verify(results), Console()
    for problem in report.problems:
        console.print(f"problem: {problem}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{report.runs} runs, {report.evaluations} evaluations, {report.predictions} of them scored again, "
        f"{report.tables} tables derived again: {len(report.problems)} problems.",
        highlight=False,
    )
    return PROBLEM if report.problems else 0
