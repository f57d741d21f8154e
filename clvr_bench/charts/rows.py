"""What charts show of a suite: a row a group of runs, with every seed's numbers. Knows no matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from clvr_bench.budgets import usual_epochs
from clvr_bench.errors import ClvrBenchError
from clvr_bench.groups import LINEAR, Group, group_runs, told_apart, without_superseded
from clvr_bench.records import load_runs


class Point(NamedTuple):
    """A measure at the end of an epoch: the lowest, the mean and the highest of the seeds."""

    epoch: int
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Row:
    """One row of a leaderboard.

    Attributes:
        name: The pretext task, and what else tells it from others of the same pretext task.
        labels: Which labels pretraining saw: ``"none"``, or another word.
        top1: Linear top-1 in percent, one a seed that counts; empty where none was evaluated.
        seconds: Of pretraining, one a seed.
        encoder_passes: Pictures encoded in pretraining, mean over seeds.
        histories: The epochs of each seed, as records keep them; empty where nothing is trained.
        encoder: Its name; empty where there is none.
        epochs: Its budget; None where nothing is trained.
    """

    name: str
    labels: str = "none"
    top1: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    encoder_passes: float = 0.0
    histories: tuple[Sequence[Mapping[str, Any]], ...] = ()
    encoder: str = ""
    epochs: int | None = None

    @property
    def trained(self) -> bool:
        """Whether there was an epoch of pretraining."""
        return any(self.histories)

    @property
    def mean(self) -> float:
        """Mean top-1 in percent; below all others where none was evaluated."""
        return fmean(self.top1) if self.top1 else -inf

    @property
    def std(self) -> float:
        """Standard deviation of top-1 over seeds, in points; 0 for one seed."""
        return stdev(self.top1) if len(self.top1) > 1 else 0.0

    def curve(self, measure: str) -> list[Point]:
        """Follow a measure through the epochs.

        Args:
            measure: A key of a record's history, such as ``"knn_top1"`` (percent, on val) or ``"loss"``.

        Returns:
            The epochs at whose end it was measured, in order.
        """
        found: dict[int, list[float]] = {}
        for history in self.histories:
            for epoch in history:
                if epoch.get(measure) is not None:
                    found.setdefault(epoch["epoch"], []).append(epoch[measure])
        return [Point(epoch, min(seen), fmean(seen), max(seen)) for epoch, seen in sorted(found.items())]


def load_rows(results: Path, suite: str | None = None) -> list[Row]:
    """Read what charts show of one suite, the best mean first; transfers are left out.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.

    Raises:
        ClvrBenchError: There are no runs, those of several suites or data sets, or a record cannot be read.
    """
    groups, _ = without_superseded(group_runs(load_runs(results, suite)))
    groups = [group for group in groups if group.target is None and group.averaged]
    for what, seen in (
        ("suite", {group.runs[0].suite for group in groups}),
        ("data set", {group.dataset for group in groups}),
    ):
        if len(seen) > 1:
            raise ClvrBenchError(f"{results}: charts are of one {what}, here are: {', '.join(sorted(seen))}.")
    return sorted(chart_rows(groups), key=lambda row: (-row.mean, row.name))


def chart_rows(groups: Sequence[Group]) -> list[Row]:
    """Return a row a group, in their order, of groups of one suite and data set of which some run is done."""
    tasks: dict[str, list[Group]] = {}
    for group in groups:
        tasks.setdefault(group.identity["pretext_task"]["name"], []).append(group)
    names = {
        group.key: ", ".join(filter(None, [task, told]))
        for task, alike in tasks.items()
        for group, told in zip(alike, told_apart(alike), strict=True)
    }
    return [_row(group, names[group.key]) for group in groups]


def of_usual_length(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of as many epochs as most, to draw on one axis, and those that were not trained."""
    usual = usual_epochs(row.epochs for row in rows if row.top1)
    return [row for row in rows if row.epochs in (usual, None)]


def _row(group: Group, name: str) -> Row:
    records, encoder = [run.pretraining for run in group.averaged], group.identity["encoder"]
    return Row(
        name=name,
        labels=str(group.facts.get("labels", "none")),
        top1=tuple(group.values(LINEAR, "top1")),
        seconds=tuple(record.compute["seconds"] for record in records),
        encoder_passes=fmean(record.compute["encoder_passes"] for record in records),
        histories=tuple(record.history for record in records),
        encoder=encoder["name"] if encoder else "",
        epochs=group.epochs,
    )
