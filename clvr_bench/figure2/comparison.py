"""The entries of Figure 2 beside what a leaderboard measured of the same methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clvr_bench.budgets import epochs_said, usual_epochs
from clvr_bench.errors import ClvrBenchError
from clvr_bench.figure2.agreement import RankCorrelation, rank_correlation, ranks
from clvr_bench.figure2.entries import Entry, entries
from clvr_bench.tables import labels_note

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, str | int] = {
    "method": "text",
    "pretext_task": "text",
    "year": "count",
    "encoder": "text",
    "params_m": 1,
    "published_top1": 1,
    "measured_top1_mean": 2,
    "measured_top1_std": 2,
    "seeds": "count",
    "dataset": "text",
    "epochs": "count",
    "source": "text",
    "note": "text",
    "measured_encoder": "text",
    "measured_params_m": 2,
}
"""The columns of the table: text, a count, or how many decimals are printed."""
MOVED = 3
"""How many of the methods that moved most are named."""


@dataclass(frozen=True)
class Measured:
    """A row of a leaderboard.

    Attributes:
        encoder: Its registered name.
        params_m: Millions of parameters of the representation.
        top1: Linear top-1 in percent, mean over seeds.
        std: Standard deviation over seeds, in points; None for one seed.
        interval: Half of the width of the mean's 95% interval, in points; None for one seed.
        seeds: How many.
        note: What the row says of itself.
        rank: Its rank in the leaderboard; None where it has none.
        labels: Which labels pretraining used; ``"no"`` where it used none.
    """

    encoder: str
    params_m: float
    top1: float
    std: float | None
    interval: float | None
    seeds: int
    note: str
    rank: int | None = None
    labels: str = "no"


@dataclass(frozen=True)
class Move:
    """An entry's place in both orders, 1 for the best; ties share the mean of their places.

    Attributes:
        entry: The entry.
        found: What was measured of it.
        published: Its place among the published ones.
        measured: Its place among the measured ones.
    """

    entry: Entry
    found: Measured
    published: float
    measured: float

    @property
    def places(self) -> float:
        """How many places it gained; negative where it lost."""
        return self.published - self.measured

    def top1(self, side: int) -> float:
        """Return the published top-1 (side 0) or the measured one (side 1), in percent."""
        return self.found.top1 if side else self.entry.top1


@dataclass(frozen=True)
class Comparison:
    """Published and measured, entry by entry.

    Attributes:
        pairs: The 23 entries in the figure's order, each with what was measured of it, or None.
        suite: The measured ones' suite; empty where nothing is compared.
        dataset: Their data, as tables call it.
        epochs: Their budget.
        other_epochs: Budgets of rows that are left out, as only rows of one budget are compared.
        evaluation: Their linear evaluation and its version.
    """

    pairs: tuple[tuple[Entry, Measured | None], ...]
    suite: str = ""
    dataset: str = ""
    epochs: int | None = None
    evaluation: str = ""
    other_epochs: tuple[int, ...] = ()

    @cached_property
    def setting(self) -> str:
        """The suite, its data, its budget and its evaluation; empty where nothing is compared."""
        if not self.suite:
            return ""
        budget = epochs_said(self.epochs) if self.epochs else ""
        return f"{self.suite}: {', '.join(filter(None, [self.dataset, budget, self.evaluation]))}"

    @cached_property
    def measured(self) -> list[tuple[Entry, Measured]]:
        """The entries that were measured."""
        return [(entry, found) for entry, found in self.pairs if found is not None]

    @cached_property
    def missing(self) -> list[Entry]:
        """The entries that were not."""
        return [entry for entry, found in self.pairs if found is None]

    @cached_property
    def encoder(self) -> str:
        """The one encoder that all measured ones share; empty where they do not."""
        names = {found.encoder for _, found in self.measured}
        return names.pop() if len(names) == 1 else ""

    @cached_property
    def moves(self) -> list[Move]:
        """Both places of each method of one width that was measured, in the published order."""
        ranked = [(e, m) for e, m in self.measured if not e.widened and e.kind != "supervised"]
        published = ranks([entry.top1 for entry, _ in ranked])
        measured = ranks([found.top1 for _, found in ranked])
        moves = [Move(*pair, *places) for pair, *places in zip(ranked, published, measured, strict=True)]
        return sorted(moves, key=lambda move: move.published)

    @cached_property
    def agreement(self) -> RankCorrelation:
        """How far both orders agree."""
        return rank_correlation([-move.published for move in self.moves], [-move.measured for move in self.moves])

    @cached_property
    def moved_most(self) -> list[Move]:
        """The methods that moved most, those that gained before those that lost as much."""
        moved = sorted(self.moves, key=lambda move: (-abs(move.places), -move.places))
        return [move for move in moved[:MOVED] if move.places]


def compare(
    leaderboard: pd.DataFrame | None = None, dataset: str | None = None, epochs: int | None = None
) -> Comparison:
    """Set the rows of one suite, one data set and one number of epochs beside the entries of Figure 2.

    An entry takes the row of its pretext task; one that widens the encoder of another entry takes only a row with that
    very encoder. Where a pretext task has several rows, those with the entry's own encoder come first, then those with
    the encoder that most rows have, and among them the one that is best on val, so that test chooses nothing.

    Args:
        leaderboard: From ``clvr_bench.leaderboard``; None compares with nothing.
        dataset: The only data set wanted, as the leaderboard calls it.
        epochs: The only number of epochs wanted; None takes that which most methods of the figure were trained for,
            the largest of equally common ones.

    Raises:
        ClvrBenchError: No row was measured linearly, rows are of several suites or data sets, or none has these epochs.
    """
    if leaderboard is None:
        return Comparison(tuple((entry, None) for entry in entries()))
    judged = leaderboard[leaderboard["top1_mean"].notna()]
    rows: list[dict[str, Any]] = judged.to_dict("records")  # type: ignore[assignment]  # its columns are named by texts
    if dataset is not None:
        known = sorted({row["dataset"] for row in rows})
        rows = [row for row in rows if row["dataset"] == dataset]
        if not rows:
            raise ClvrBenchError(f"figure2: no row of data set '{dataset}'. There are: {', '.join(known) or 'none'}.")
    if not rows:
        raise ClvrBenchError("figure2: no run has been judged by the linear evaluation.")
    for column, flag in (("suite", "--suite"), ("dataset", "--dataset"), ("evaluation", "--suite")):
        found = sorted({row[column] for row in rows})
        if len(found) > 1:
            raise ClvrBenchError(f"figure2: rows of several {column}s: {', '.join(found)}. Name one with {flag}.")
    rows, budget, others = _of_one_budget(rows, epochs)
    counts = Counter(row["encoder"] for row in rows)
    pairs = tuple((entry, _measured(entry, rows, counts)) for entry in entries())
    first = rows[0]
    return Comparison(pairs, first["suite"], first["dataset"], budget, first["evaluation"], others)


def _of_one_budget(
    rows: Sequence[dict[str, Any]], wanted: int | None
) -> tuple[list[dict[str, Any]], int | None, tuple[int, ...]]:
    """Return the rows that were trained for as long as is wanted, or as most were; how long; and how long others were.

    Rows that were not trained are among them.
    """
    methods = {entry.pretext_task for entry in entries()}
    found = {(row["pretext_task"], row["epochs"]) for row in rows if isinstance(row["epochs"], int)}
    lengths = {epochs for _, epochs in found}
    if wanted is not None and wanted not in lengths:
        known = ", ".join(map(str, sorted(lengths)))
        raise ClvrBenchError(f"figure2: no row of {epochs_said(wanted)}. There are rows of: {known or 'none'}.")
    compared = [epochs for task, epochs in found if task in methods] or lengths
    usual = usual_epochs(compared)
    budget = usual if wanted is None else wanted
    kept = [row for row in rows if row["epochs"] == budget or not isinstance(row["epochs"], int)]
    return kept, budget, tuple(sorted(lengths - {budget}))


def _measured(entry: Entry, rows: Sequence[dict[str, Any]], counts: Counter[str]) -> Measured | None:
    own = [row for row in rows if row["pretext_task"] == entry.pretext_task]
    if entry.is_variant:
        own = [row for row in own if row["encoder"] == entry.registered_encoder]
    else:
        widened = {other.registered_encoder for other in entries() if other.is_variant}
        own = [row for row in own if row["encoder"] not in widened]
    if not own:
        return None
    order = [(row["encoder"] == entry.registered_encoder, counts[row["encoder"]], row["val_top1_mean"]) for row in own]
    row = own[max(range(len(own)), key=order.__getitem__)]
    note = row["note"] if len(own) == 1 else "; ".join(filter(None, [_chosen(row), row["note"]]))
    return Measured(
        encoder=row["encoder"],
        params_m=float(row["params_m"]),
        top1=float(row["top1_mean"]),
        std=_number(row["top1_std"]),
        interval=_number(row["top1_ci95"]),
        seeds=int(row["seeds"]),
        note=note,
        rank=row["rank"] if isinstance(row["rank"], int) else None,
        labels=row["uses_labels"],
    )


def _chosen(row: dict[str, Any]) -> str:
    parts = [row["encoder"], row["augmentation"], row["options"]]
    return f"of several rows, that of {', '.join(filter(None, parts))}"


def _number(value: float) -> float | None:
    return None if value != value else float(value)


def table(comparison: Comparison) -> pd.DataFrame:
    """Return the comparison as a data frame: the 23 entries in the figure's order, with the columns of ``COLUMNS``."""
    import pandas as pd

    lines = []
    for entry, found in comparison.pairs:
        measured = [*labels_note(found.labels), found.note] if found else ["not measured" if comparison.suite else ""]
        lines.append(
            {
                "method": entry.label,
                "pretext_task": entry.pretext_task,
                "year": entry.year,
                "encoder": entry.encoder,
                "params_m": entry.params_m,
                "published_top1": entry.top1,
                "measured_encoder": found.encoder if found else "",
                "measured_params_m": found.params_m if found else None,
                "measured_top1_mean": found.top1 if found else None,
                "measured_top1_std": found.std if found else None,
                "seeds": found.seeds if found else None,
                "dataset": comparison.dataset if found else "",
                "epochs": comparison.epochs if found else None,
                "source": entry.source,
                "note": "; ".join(filter(None, [entry.note, *measured])),
            }
        )
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.astype({"seeds": "Int64"})
