"""Who shows a sweep to whom: a table that follows it on a terminal, lines in a log."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

from clvr_bench.cli.live_table import LiveTable
from clvr_bench.cli.log_lines import LogLines
from clvr_bench.sweep import Listener, Sweep


def watching(sweep: Sweep, console: Console) -> AbstractContextManager[Listener]:
    """Return what shows a sweep while it is entered."""
    if console.file.isatty() and not console.is_dumb_terminal:  # rich calls it a terminal wherever colors are forced
        return LiveTable(console, sweep.suite.name, sweep.planned)
    return nullcontext(LogLines(console))
