"""``clvr-bench runs``: what lies in a results folder, how far it is, what it takes, and what of it can go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clvr_bench.inventory import Pruned, StoredRun, expected_evaluations, prune, stored_runs

STYLES = {"damaged": "red", "failed": "red", "skipped": "dim", "unfinished": "yellow", "evaluation": "yellow"}
KINDS = ("weights", "checkpoint", "records")


def show_runs(results: Path, suite: str | None, *, remove: bool) -> None:
    """Print a line a run, and what cannot be read or was set aside; with ``remove``, prune first.

    Raises:
        ClvrBenchError: There are no runs, or something cannot be removed.
    """
    console = Console()
    if remove:
        _print_pruned(prune(results, suite), console)
    runs = stored_runs(results, suite)
    table = _table(runs)
    width = max(console.width, Console(width=10_000).measure(table).maximum)  # a name that is cut cannot be copied
    Console(width=width).print(table)
    for line in _remarks(runs):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(runs: Sequence[StoredRun]) -> Table:
    expected, sizes = expected_evaluations(runs), [run.sizes for run in runs]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("suite", "run", "state"):
        table.add_column(title, no_wrap=True)
    for title in (*KINDS, "total"):
        table.add_column(f"{title}\nMB", justify="right")
    table.add_column("when (UTC)")
    for run, size in zip(runs, sizes, strict=True):
        state = run.state(expected.get(run.suite, set()))
        shown = Text(state + (", running" if run.is_running else ""), STYLES.get(state.partition(" ")[0], ""))
        when = run.when.strftime("%Y-%m-%d %H:%M") if run.when else "-"
        table.add_row(Text(run.suite), Text(run.folder.name), shown, *_megabytes(size), when)
    total = {kind: sum(size[kind] for size in sizes) for kind in KINDS}
    table.add_row("total", f"{len(runs)} run{'' if len(runs) == 1 else 's'}", "", *_megabytes(total), "", style="bold")
    return table


def _megabytes(size: dict[str, int]) -> list[str]:
    values = [*(size[kind] for kind in KINDS), sum(size.values())]
    return [f"{value / 1e6:.2f}" if value else "-" for value in values]


def _remarks(runs: Iterable[StoredRun]) -> list[str]:
    """Return what a person may want to look at: damaged files, and those that were set aside."""
    damaged = [f"damaged: {problem}" for run in runs for problem in run.problems]
    aside = [f"set aside: {path} ({path.stat().st_size / 1e6:.2f} MB)" for run in runs for path in run.set_aside]
    return damaged + aside


def _print_pruned(pruned: Pruned, console: Console) -> None:
    said = [f"removed: {path}" for path in pruned.removed]
    said += [f"left alone, a process is at work on it: {folder}" for folder in pruned.busy]
    said += [f"{len(pruned.removed)} removed, {pruned.bytes / 1e6:.2f} MB."]
    for line in said:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
