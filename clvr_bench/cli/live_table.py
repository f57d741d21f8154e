"""What a person at a terminal sees of a sweep: a table of all its combinations that follows them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from clvr_bench.evaluating import evaluation_identity
from clvr_bench.groups import LINEAR
from clvr_bench.planning import Planned
from clvr_bench.records import EvaluationRecord, Run
from clvr_bench.sweep import Listener

REDRAWN_A_SECOND = 2
AROUND_THE_TABLE = 6
"""Lines of a terminal that are not for rows: title, header, counts, and room for the cursor."""
STANDINGS = {"to do": "waiting", "resume": "to resume", "evaluate": "to evaluate"}
"""What a planned combination's standing is called in the table; the others are called what they are."""
STYLES = {"done": "green", "failed": "red", "skipped": "dim", "waiting": "dim", "elsewhere": "yellow"}
NUMBERS = {"epoch": 5, "loss": 10, "k-NN %": 6, "images/s": 8, "left": 7, "top-1 %": 7}
"""Columns of numbers and their least widths."""
DISPENSABLE = ("images/s", "loss", "k-NN %")
"""Those that a narrow terminal goes without, the first one first, so that names have room."""
LONGEST_NAME = 32
"""Letters of a name that other columns make room for."""


@dataclass
class Row:
    """One combination as it stands.

    Attributes:
        planned: The combination.
        state: ``waiting``, ``to resume``, ``to evaluate``, ``elsewhere`` (another process is at work on it), ``done``,
            ``failed``, ``skipped``, ``unfinished``, or what is under way: ``starting``, ``training``, ``evaluating``.
        progress: Where its training stands; None before the first step.
        loss: The mean of the last epoch.
        knn_top1: The k-NN accuracy on val after the last epoch, in percent.
        top1: The linear probe's accuracy on test, in percent.
        begun: When it started here, in seconds; 0 before.
        ended: When it ended; 0 before.
        first_step: The first step that it took here.
        first_step_at: When that was done.
    """

    planned: Planned
    state: str
    progress: Progress | None = None
    loss: float | None = None
    knn_top1: float | None = None
    top1: float | None = None
    begun: float = 0.0
    ended: float = 0.0
    first_step: int = 0
    first_step_at: float = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether it runs in this process."""
        return bool(self.begun) and not self.ended

    @property
    def is_waiting(self) -> bool:
        """Whether its turn is still to come."""
        return self.state in STANDINGS.values()

    @property
    def is_whole_training(self) -> bool:
        """Whether it is trained from its first step to its last, so that its time is worth knowing for others."""
        return self.planned.combination.task.task.trains and self.planned.standing == "to do"

    def steps_a_second(self, now: float) -> float:
        """Return how fast it has trained here; 0 as long as nothing is known."""
        seconds = now - self.first_step_at
        return (self.progress.step - self.first_step) / seconds if self.progress and seconds > 0 else 0.0

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
        self._rows = {one.folder: Row(one, STANDINGS.get(one.standing, one.standing)) for one in planned}
        self._names = _telling_apart([one.combination for one in planned])
        self._current: Row | None = None
        self._is_over = False
        self._live = Live(
            get_renderable=self.drawn,
            console=console,
            refresh_per_second=REDRAWN_A_SECOND,
            redirect_stderr=sys.stderr.isatty(),
        )
        for row in self._rows.values():
            if row.state == "done":
                row.top1 = _top1_of(row.planned)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._current is not None:
            self._end(self._current, "unfinished")
        self._is_over = True
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
        row = self._rows[planned.folder]
        row.state, row.top1 = "done", _top1_of(planned)

    def stepped(self, progress: Progress) -> None:
        """Keep where its training stands."""
        if self._current is None:
            return
        if self._current.progress is None:
            self._current.first_step, self._current.first_step_at = progress.step, self._clock()
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
        if self._current is not None and record.id == _linear_id(self._current.planned):
            self._current.top1 = record.metrics.get("top1")

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
        size = len(rows) if self._is_over else max(self._console.height - AROUND_THE_TABLE, 1)
        start = _window_start(rows, size)
        shown = rows[start : start + size]
        widths = self._widths()
        table = Table(box=None, padding=(0, 1, 0, 0))
        table.add_column("#", justify="right", width=len(str(len(rows))))
        for heading in self._names:
            table.add_column(heading, overflow="ellipsis")
        table.add_column("state", width=len("to evaluate"))
        for heading, width in widths.items():
            table.add_column(heading, justify="right", width=width, no_wrap=True)
        for number, row in enumerate(shown, start):
            names = [Text(texts[number], no_wrap=True, overflow="ellipsis") for texts in self._names.values()]
            style = "bold" if row.is_under_way else STYLES.get(row.state, "")
            numbers = _numbers(row, now)
            table.add_row(str(number + 1), *names, Text(row.state, style), *(numbers[heading] for heading in widths))
        counts = _counts(rows, len(shown), None if self._is_over else _sweep_left(rows, now))
        return Group(Text(self._title, "bold"), table, Text(counts))

    def _widths(self) -> dict[str, int]:
        """Return the columns of numbers that leave room for the names, with their widths."""
        epochs = max((row.planned.combination.budget.epochs for row in self._rows.values()), default=0)
        widths = {**NUMBERS, "epoch": max(NUMBERS["epoch"], 2 * len(str(epochs)) + 1)}
        names = sum(min(max(map(len, (heading, *texts))), LONGEST_NAME) + 1 for heading, texts in self._names.items())
        others = len(str(len(self._rows))) + 1 + len("to evaluate") + 1
        for heading in DISPENSABLE:
            if names + others + sum(widths.values()) + len(widths) > self._console.width:
                del widths[heading]
        return widths

    def _end(self, row: Row, status: str) -> None:
        row.state, row.ended = status, self._clock()
        self._current = None

    def _say(self, text: str, style: str) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _linear_id(planned: Planned) -> str:
    """Return the ID of the record that its top-1 is in; empty where the suite has no linear probe."""
    for choice in planned.combination.evaluations:
        if choice.entry.name == LINEAR:
            return EvaluationRecord(evaluation_identity(planned.id, choice)).id
    return ""


def _top1_of(planned: Planned) -> float | None:
    wanted = _linear_id(planned)
    records = Run.load(planned.folder).evaluations
    return next((record.metrics.get("top1") for record in records if record.id == wanted), None)


def _numbers(row: Row, now: float) -> dict[str, str]:
    progress, training, left = row.progress, row.state == "training", row.seconds_left(now)
    speed = row.steps_a_second(now) * row.planned.combination.budget.batch_size
    return {
        "epoch": f"{min(progress.epoch + 1, progress.epochs)}/{progress.epochs}" if progress else "",
        "loss": "" if row.loss is None else f"{row.loss:.4g}",
        "k-NN %": "" if row.knn_top1 is None else f"{row.knn_top1:.1f}",
        "images/s": f"{speed:,.0f}" if training and speed else "",
        "left": duration(left) if training and left is not None else "",
        "top-1 %": "" if row.top1 is None else f"{row.top1:.1f}",
    }


def _counts(rows: Sequence[Row], shown: int, left: float | None) -> str:
    counts = Counter(row.state for row in rows)
    states = ("done", "failed", "skipped", "elsewhere", "unfinished")
    parts = [f"{counts[state]} {state}" for state in states if counts[state] or state == "done"]
    time_left = "" if left is None else f"; about {duration(left)} left"
    hidden = f"; {shown} rows shown" if shown < len(rows) else ""
    total = f"{len(rows)} combination{'' if len(rows) == 1 else 's'}"
    return f"{total}: {', '.join(parts)}{time_left}{hidden}; k-NN on val, top-1 on test"


def _sweep_left(rows: Sequence[Row], now: float) -> float | None:
    """Return what is left here if runs go on to take what those that are trained took, in seconds; None if unknown.

    Yardsticks and evaluations are passed over: next to training they take no time.
    """
    taken = [row.ended - row.begun for row in rows if row.state == "done" and row.ended and row.is_whole_training]
    current = next((left for row in rows if row.is_under_way and (left := row.seconds_left(now)) is not None), None)
    if current is not None:
        taken += [now - row.begun + current for row in rows if row.is_under_way and row.is_whole_training]
    waiting = sum(row.is_waiting and row.planned.combination.task.task.trains for row in rows)
    if waiting and not taken:
        return None
    return (current or 0.0) + waiting * sum(taken) / len(taken) if waiting else current


def _window_start(rows: Sequence[Row], size: int) -> int:
    """Return the number of the first of ``size`` rows to show: that under way, or else the next, at a third of them."""
    at = next((number for number, row in enumerate(rows) if row.is_under_way), None)
    if at is None:
        at = next((number for number, row in enumerate(rows) if row.is_waiting), len(rows))
    return max(min(at - size // 3, len(rows) - size), 0)


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
