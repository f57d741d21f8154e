"""What a log of a sweep says: a line where something happens, and one now and then in between."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from clvr_bench.contracts.values import Progress
from clvr_bench.planning import Planned
from clvr_bench.records import EvaluationRecord
from clvr_bench.sweep import Listener

LOG_SECONDS = 15.0


class LogLines(Listener):
    """Prints a sweep's progress, line by line.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_line = self._started = 0.0
        self._epoch_text = ""
        self._top1: dict[str, float] = {}
        self._postponed: set[Path] = set()

    def run_started(self, number: int, total: int, planned: Planned) -> None:
        """Name the combination."""
        resumed = {"resume": " (resuming)", "evaluate": " (evaluating only)"}.get(planned.standing, "")
        self._say(f"[{number}/{total}] {planned.combination}{resumed}", style="bold")
        self._started, self._epoch_text, self._top1 = time.monotonic(), "", {}

    def run_postponed(self, number: int, total: int, planned: Planned) -> None:
        """Say once that another process is at work on it."""
        if planned.folder not in self._postponed:
            self._postponed.add(planned.folder)
            self._say(f"[{number}/{total}] {planned.combination}: another process is at work on it; it comes last")

    def run_found_done(self, planned: Planned) -> None:
        """Say that the other process is done with it."""
        self._say(f"{planned.combination}: done by another process")

    def stepped(self, progress: Progress) -> None:
        """Say where it stands, if nothing was said for a while."""
        if time.monotonic() - self._last_line > LOG_SECONDS:
            where = f"epoch {progress.epoch + 1}/{progress.epochs}{self._epoch_text}"
            self._say(f"  {where}, step {progress.step}/{progress.total_steps}")

    def epoch_finished(self, entry: Mapping[str, Any]) -> None:
        """Write the epoch's numbers."""
        self._epoch_text = f", loss {entry['loss']:.3f}, val k-NN {entry['knn_top1']:.1f}%"
        self._say(f"  epoch {entry['epoch']}{self._epoch_text}, {entry['seconds']:.1f} s")

    def evaluated(self, record: EvaluationRecord) -> None:
        """Keep its top-1 for the closing line."""
        if "top1" in record.metrics:
            self._top1[record.name] = record.metrics["top1"]

    def run_finished(self, planned: Planned, status: str, reason: str) -> None:
        """Say how it ended."""
        scores = "".join(f", {name} top-1 {value:.1f}%" for name, value in self._top1.items())
        seconds = time.monotonic() - self._started
        text = f"{status}: {reason}" if reason else f"{status} in {seconds:.0f} s{scores}"
        self._say(f"  {text}", style="red" if status == "failed" else "")

    def warned(self, message: str) -> None:
        """Pass a warning on."""
        self._say(f"  warning: {message}", style="yellow")

    def _say(self, text: str, style: str = "") -> None:
        self._last_line = time.monotonic()
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
