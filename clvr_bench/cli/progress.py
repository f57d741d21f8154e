"""What a person watching a sweep sees: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from clvr_bench.contracts.values import Progress as RunProgress
from clvr_bench.planning import Planned
from clvr_bench.records import EvaluationRecord
from clvr_bench.sweep import Listener

LOG_SECONDS = 15.0


class Watcher(Listener):
    """Prints a sweep's progress.

    Args:
        console: Where to; a bar is drawn only on a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._last = {"line": 0.0, "step": 0.0}
        self._epoch_text = ""
        self._started = 0.0
        self._top1: dict[str, float] = {}
        self._postponed: set[Path] = set()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def run_started(self, number: int, total: int, planned: Planned) -> None:
        """Name the combination."""
        resumed = {"resume": " (resuming)", "evaluate": " (evaluating only)"}.get(planned.standing, "")
        self._say(f"[{number}/{total}] {planned.combination}{resumed}", style="bold")
        self._started, self._epoch_text, self._top1 = time.monotonic(), "", {}
        self._task = self._bar.add_task("starting", total=None)
        self._last["line"] = time.monotonic()

    def run_postponed(self, number: int, total: int, planned: Planned) -> None:
        """Say once that another process is at work on it."""
        if planned.folder not in self._postponed:
            self._postponed.add(planned.folder)
            self._say(f"[{number}/{total}] {planned.combination}: another process is at work on it; it comes last")

    def stepped(self, progress: RunProgress) -> None:
        """Move the bar, at most ten times a second."""
        now = time.monotonic()
        if self._task is None or now - self._last["step"] < 0.1:
            return
        self._last["step"] = now
        where = f"epoch {progress.epoch + 1}/{progress.epochs}{self._epoch_text}"
        self._bar.update(self._task, total=progress.total_steps, completed=progress.step, description=where)
        if not self._console.is_terminal and now - self._last["line"] > LOG_SECONDS:
            self._last["line"] = now
            self._say(f"  {where}, step {progress.step}/{progress.total_steps}")

    def epoch_finished(self, entry: Mapping[str, Any]) -> None:
        """Keep the epoch's numbers for the bar, or write them to a log."""
        self._epoch_text = f", loss {entry['loss']:.3f}, val k-NN {entry['knn_top1']:.1f}%"
        if not self._console.is_terminal:
            self._last["line"] = time.monotonic()
            self._say(f"  epoch {entry['epoch']}{self._epoch_text}, {entry['seconds']:.1f} s")

    def evaluating(self, name: str) -> None:
        """Say which evaluation is under way."""
        if self._task is not None:
            self._bar.update(self._task, description=f"evaluating: {name}", total=None)

    def evaluated(self, record: EvaluationRecord) -> None:
        """Keep its top-1 for the closing line."""
        if "top1" in record.metrics:
            self._top1[record.name] = record.metrics["top1"]

    def run_finished(self, planned: Planned, status: str, reason: str) -> None:
        """Say how it ended."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        scores = "".join(f", {name} top-1 {value:.1f}%" for name, value in self._top1.items())
        seconds = time.monotonic() - self._started
        text = f"{status}: {reason}" if reason else f"{status} in {seconds:.0f} s{scores}"
        self._say(f"  {text}", style="red" if status == "failed" else "")

    def warned(self, message: str) -> None:
        """Pass a warning on."""
        self._say(f"  warning: {message}", style="yellow")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
