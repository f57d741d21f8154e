"""What a person at a terminal sees of a sweep: a table of all its combinations that follows them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clvr_bench.cli.dry_run import duration
from clvr_bench.combinations import Choice, Combination
from clvr_bench.contracts.values import Progress
from clvr_bench.groups import LINEAR
from clvr_bench.planning import Planned
from clvr_bench.records import EvaluationRecord, Run
from clvr_bench.sweep import Listener

REDRAWN_A_SECOND = 2
NUMBERS = {"epoch": 7, "loss": 7, "k-NN %": 6, "images/s": 8, "left": 6, "top-1 %": 7}
"""Columns of numbers and their widths: what is too wide for a terminal is taken from the names."""
AROUND_THE_TABLE = 6
"""Lines of a terminal that are not for rows: title, header, caption, and room for the cursor."""
STYLES = {"done": "green", "failed": "red", "skipped": "dim", "waiting": "dim", "elsewhere": "yellow"}
"""Of states that nothing moves in; those of a run under way are bold."""


@dataclass
class Row:
    """One combination as it stands.

    Attributes:
        planned: The combination.
        state: ``waiting``, ``elsewhere`` (another process is at work on it), ``done``, ``failed``, ``skipped``,
            ``unfinished``, or what is under way: ``starting``, ``training``, ``evaluating``.
        progress: Where its training stands; None before the first step.
        loss: The mean of the last epoch.
        knn_top1: The k-NN accuracy on val after the last epoch, in percent.
        top1: The linear probe's accuracy on test, in percent.
        begun: When it started, in seconds; 0 before.
        ended: When it ended; 0 before.
        first: When its first step here was done, and which that was.
    """

    planned: Planned
    state: str = "waiting"
    progress: Progress | None = None
    loss: float | None = None
    knn_top1: float | None = None
    top1: float | None = None
    begun: float = 0.0
    ended: float = 0.0
    first: tuple[float, int] = (0.0, 0)

    @property
    def under_way(self) -> bool:
        """Whether it runs in this process."""
        return bool(self.begun) and not self.ended

    def steps_a_second(self, now: float) -> float:
        """Return how fast it has trained here; 0 as long as nothing is known."""
        began, step = self.first
        return (self.progress.step - step) / (now - began) if self.progress and now > began > 0 else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Return what its training still takes at this speed; None as long as nothing is known."""
        speed = self.steps_a_second(now)
        return (self.progress.total_steps - self.progress.step) / speed if self.progress and speed else None


class LiveTable(Listener):
    """A table of a sweep, drawn anew while it is entered and left on the screen at the end.

    Args:
        console: A terminal.
        title: Stands above it.
        planned: The sweep's combinations.
        clock: Seconds that only grow.
    """

    def __init__(
        self, console: Console, title: str, planned: Sequence[Planned], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._title, self._clock = console, title, clock
        self._rows = {one.folder: Row(one) for one in planned}
        self._names = _telling_apart([one.combination for one in planned])
        self._current: Row | None = None
        self._whole = False
        self._live = Live(get_renderable=self.drawn, console=console, refresh_per_second=REDRAWN_A_SECOND)
        for row in self._rows.values():
            if row.planned.standing == "done":
                self._found_done(row)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._current is not None:
            self._end(self._current, "unfinished")
        self._whole = True
        self._live.stop()

    def run_started(self, number: int, total: int, planned: Planned) -> None:
        """Begin its row."""
        row = self._current = self._rows[planned.folder]
        row.state, row.begun = "starting", self._clock()

    def run_postponed(self, number: int, total: int, planned: Planned) -> None:
        """Show that another process is at work on it."""
        self._rows[planned.folder].state = "elsewhere"

    def run_found_done(self, planned: Planned) -> None:
        """Show what another process found."""
        self._found_done(self._rows[planned.folder])

    def stepped(self, progress: Progress) -> None:
        """Keep where its training stands."""
        if self._current is None:
            return
        if self._current.progress is None:
            self._current.first = (self._clock(), progress.step)
        self._current.state, self._current.progress = "training", progress

    def epoch_finished(self, entry: Mapping[str, Any]) -> None:
        """Keep the epoch's numbers."""
        if self._current is not None:
            self._current.loss, self._current.knn_top1 = entry["loss"], entry["knn_top1"]

    def evaluating(self, name: str) -> None:
        """Show that its training is over."""
        if self._current is not None:
            self._current.state = "evaluating"

    def evaluated(self, record: EvaluationRecord) -> None:
        """Keep the linear probe's top-1."""
        if self._current is not None:
            _keep_top1(self._current, [record])

    def run_finished(self, planned: Planned, status: str, reason: str) -> None:
        """End its row; a reason stands above the table, where there is room for it."""
        self._end(self._rows[planned.folder], status)
        if reason and status != "unfinished":
            self._say(f"{planned.combination}: {status}: {reason}", "red" if status == "failed" else "")

    def warned(self, message: str) -> None:
        """Pass a warning on."""
        self._say(f"warning: {message}", "yellow")

    def drawn(self) -> Group:
        """Return title, table and counts: at the end all rows, before that as many as the terminal has lines for."""
        rows, now = list(self._rows.values()), self._clock()
        shown = rows if self._whole else _window(rows, max(self._console.height - AROUND_THE_TABLE, 1))
        table = Table(box=None, padding=(0, 1, 0, 0))
        table.add_column("#", justify="right", width=len(str(len(rows))))
        for heading in self._names:
            table.add_column(heading, overflow="ellipsis")
        table.add_column("state", width=len("unfinished"))
        for heading, width in NUMBERS.items():
            table.add_column(heading, justify="right", width=width)
        for row in shown:
            number = rows.index(row)
            names = [Text(texts[number], no_wrap=True, overflow="ellipsis") for texts in self._names.values()]
            style = "bold" if row.under_way else STYLES.get(row.state, "")
            table.add_row(str(number + 1), *names, Text(row.state, style), *_numbers(row, now))
        return Group(Text(self._title, "bold"), table, Text(_counts(rows, len(shown), now)))

    def _found_done(self, row: Row) -> None:
        row.state = "done"
        _keep_top1(row, Run.load(row.planned.folder).evaluations)

    def _end(self, row: Row, status: str) -> None:
        row.state, row.ended = status, self._clock()
        self._current = None

    def _say(self, text: str, style: str) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _keep_top1(row: Row, records: Iterable[EvaluationRecord]) -> None:
    for record in records:
        if record.name == LINEAR and "top1" in record.metrics:
            row.top1 = record.metrics["top1"]


def _numbers(row: Row, now: float) -> list[str]:
    progress, training = row.progress, row.state == "training"
    epoch = f"{min(progress.epoch + 1, progress.epochs)}/{progress.epochs}" if progress else ""
    speed = row.steps_a_second(now) * row.planned.combination.budget.batch_size
    left = row.seconds_left(now)
    return [
        epoch,
        "" if row.loss is None else f"{row.loss:.3f}",
        "" if row.knn_top1 is None else f"{row.knn_top1:.1f}",
        f"{speed:,.0f}" if training and speed else "",
        duration(left) if training and left is not None else "",
        "" if row.top1 is None else f"{row.top1:.1f}",
    ]


def _counts(rows: Sequence[Row], shown: int, now: float) -> str:
    counts = Counter(row.state for row in rows)
    states = ("done", "failed", "skipped", "elsewhere")
    parts = [f"{counts[state]} {state}" for state in states if counts[state] or state == "done"]
    left = _sweep_left(rows, now)
    time_left = f"; about {duration(left)} left" if left else ""
    hidden = f"; {shown} rows shown" if shown < len(rows) else ""
    total = f"{len(rows)} combination{'' if len(rows) == 1 else 's'}"
    return f"{total}: {', '.join(parts)}{time_left}{hidden}; k-NN on val, top-1 on test"


def _sweep_left(rows: Sequence[Row], now: float) -> float:
    """Return what is left at the pace of the runs so far, in seconds; 0 as long as nothing is known."""
    taken = [row.ended - row.begun for row in rows if row.ended]
    current = 0.0
    for row in rows:
        if row.under_way and (left := row.seconds_left(now)) is not None:
            taken.append(now - row.begun + left)
            current = left
    waiting = sum(row.state == "waiting" for row in rows)
    return current + waiting * sum(taken) / len(taken) if taken else 0.0


def _window(rows: Sequence[Row], size: int) -> list[Row]:
    """Return as many rows in a row, that under way, or else the next, at a third of them."""
    at = next((number for number, row in enumerate(rows) if row.under_way), None)
    if at is None:
        at = next((number for number, row in enumerate(rows) if row.state == "waiting"), len(rows))
    start = max(min(at - size // 3, len(rows) - size), 0)
    return list(rows[start : start + size])


def _telling_apart(combinations: Sequence[Combination]) -> dict[str, list[str]]:
    """Return by heading each combination's pretext task, and whatever else is not the same wherever that is."""
    tasks = [str(one.task) for one in combinations]
    others = {
        "encoder": _short([(one.encoder,) if one.encoder else () for one in combinations]),
        "augmentation": _short([one.augmentation for one in combinations]),
        "data set": _short([(one.dataset,) for one in combinations]),
        "seed": [str(one.seed) for one in combinations],
    }
    shown = {
        heading: texts
        for heading, texts in others.items()
        if len(set(zip(tasks, texts, strict=True))) > len(set(tasks))
    }
    return {"pretext task": _short([(one.task,) for one in combinations]), **shown}


def _short(chains: Sequence[tuple[Choice, ...]]) -> list[str]:
    """Return each chain as text, without options where no other has the same names with other options."""
    full: dict[str, set[str]] = {}
    texts = [("+".join(choice.entry.name for choice in chain), "+".join(map(str, chain))) for chain in chains]
    for name, text in texts:
        full.setdefault(name, set()).add(text)
    return [name if len(full[name]) == 1 else text for name, text in texts]
