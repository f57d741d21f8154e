"""What the page says of a row and of each of its runs. Knows records, not HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import Any

from clvr_bench.groups import Group
from clvr_bench.records import Run
from clvr_bench.report.classes import Confusion, confusion
from clvr_bench.run_facts import evaluation_name, judgements, run_facts, scores_text
from clvr_bench.standings import Standing
from clvr_bench.tables import NOTHING, top1_text

HEALTH = {
    "k-NN %": ("knn_top1_mean", 1),
    "RankMe": ("rankme_mean", 1),
    "spread": ("spread_mean", 3),
    "alignment": ("alignment_mean", 3),
    "uniformity": ("uniformity_mean", 3),
}
"""What describes a row's features: its column, and how many decimals are shown."""


@dataclass(frozen=True)
class Judgement:
    """What one evaluation found of one run."""

    name: str
    scores: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RunCard:
    """One run: its folder's name, what its record says that its row does not, what its evaluations found."""

    name: str
    facts: list[tuple[str, str]]
    judgements: list[Judgement]


@dataclass(frozen=True)
class Card:
    """One row of the leaderboard.

    Attributes:
        anchor: Its place on the page.
        group: Its runs.
        row: Its values by the leaderboard's columns.
    """

    anchor: str
    group: Group
    row: Mapping[str, Any]

    @property
    def facets(self) -> dict[str, str]:
        """What readers choose rows by."""
        return {"suite": self.row["suite"], "dataset": self.row["dataset"], "task": self.row["pretext_task"]}

    @property
    def subtitle(self) -> str:
        """What tells it from other rows of its pretext task."""
        shown = (self.row[column] for column in ("encoder", "augmentation", "dataset", "suite"))
        return " · ".join(filter(None, [*shown, *self.group.budget_said]))

    @property
    def top1(self) -> str:
        """Mean and standard deviation; empty where no run was judged."""
        mean, std = self.row["top1_mean"], self.row["top1_std"]
        return "" if isnan(mean) else top1_text(mean, None if isnan(std) else std).strip()

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What is said of the row as a whole."""
        return [(name, text) for name, text in self._facts() if text] + self._shared

    def _facts(self) -> Iterator[tuple[str, str]]:
        row = self.row
        yield "top-1", f"{self.top1} %" if self.top1 else ""
        yield "seeds", str(row["seeds"] or "")
        yield "evaluation", row["evaluation"]
        yield "labels", row["uses_labels"]
        yield "options", row["options"]
        yield "options from", row["options_source"]
        yield "status", row["status"]
        yield "note", row["note"]

    @cached_property
    def _shared(self) -> list[tuple[str, str]]:
        """What the records of all its runs say alike; nothing where there is one."""
        first, *others = ([fact for fact in run_facts(run) if fact[0] != "status"] for run in self.group.runs)
        return [fact for fact in first if all(fact in other for other in others)] if others else []

    @property
    def has_health(self) -> bool:
        """Whether its features were measured."""
        return bool(self.group.evaluations.get("health"))

    @property
    def health(self) -> list[str]:
        """What describes its features, in the order of ``HEALTH``."""
        values = ((self.row[column], decimals) for column, decimals in HEALTH.values())
        return [NOTHING if isnan(value) else f"{value:.{decimals}f}" for value, decimals in values]

    @cached_property
    def confusion(self) -> Confusion | None:
        """What its classes were taken for; None where no predictions can be read."""
        return confusion(self.group)

    @property
    def runs(self) -> list[RunCard]:
        """A card a run, by seed."""
        return [_run_card(run, self._shared) for run in self.group.runs]


def cards(standings: list[Standing]) -> list[Card]:
    """Return a card a row, in the leaderboard's order."""
    return [Card(f"row-{number}", *standing) for number, standing in enumerate(standings, start=1)]


def _run_card(run: Run, known: Sequence[tuple[str, str]]) -> RunCard:
    found = [Judgement(evaluation_name(record), scores_text(record), tuple(record.notes)) for record in judgements(run)]
    return RunCard(run.folder.name, [fact for fact in run_facts(run) if fact not in known], found)
