"""The flags of how data reach a run, and what a person sees meanwhile: a bar, or a line now and then in a log."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from clvr_bench.data import Access
from clvr_bench.errors import ClvrBenchError

LOG_SECONDS = 15.0
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class ReadingFlags:
    """Flags of a command that loads data, as they were given."""

    data_root: Path | None = None
    download: bool = False
    memory_limit: str | None = None
    cache: Path | None = None
    workers: int | None = None


@contextmanager
def reading(flags: ReadingFlags, errors: Console) -> Iterator[Access]:
    """Show how far the reading of data is for as long as the context lasts.

    Args:
        flags: How data are reached.
        errors: Where messages and the bar go.

    Raises:
        ClvrBenchError: The memory limit is none.
    """
    with _Bar(errors) as bar:
        yield Access(
            root=flags.data_root,
            download=flags.download,
            memory_limit=None if flags.memory_limit is None else parse_bytes(flags.memory_limit),
            cache=flags.cache,
            workers=flags.workers,
            report=bar.report,
            progress=bar.progress,
        )


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as ``8G`` or ``500M``; a G is 10^9 bytes.

    Raises:
        ClvrBenchError: It is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not found:
        raise ClvrBenchError(f"--memory-limit {text}: expected a number of bytes, such as 8G or 500M.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


class _Bar:
    """One bar for whatever is under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said = time.monotonic()

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, message: str) -> None:
        """Print a line that stays."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def progress(self, done: int, total: int, what: str) -> None:
        """Move the bar, or write a line to a log from time to time."""
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total, visible=done < total)
        if not self._console.is_terminal and time.monotonic() - self._said > LOG_SECONDS:
            self._said = time.monotonic()
            self.report(f"{what}: {done:,} of {total:,}")
