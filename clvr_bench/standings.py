"""From records to the leaderboard: a row a group of runs, with means, intervals, ranks and notes. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf, isnan
from pathlib import Path
from statistics import fmean, stdev
from textwrap import shorten
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clvr_bench.errors import ClvrBenchError
from clvr_bench.groups import ARROW, LINEAR, Group, group_runs, shown_options, without_superseded
from clvr_bench.records import Run, load_runs
from clvr_bench.significance import half_width, ranks

if TYPE_CHECKING:
    import pandas as pd

TEXT, COUNT = "text", "count"
COLUMNS: Mapping[str, str | int] = {
    "rank": COUNT,
    "pretext_task": TEXT,
    "encoder": TEXT,
    "params_m": 2,
    "augmentation": TEXT,
    "dataset": TEXT,
    "epochs": COUNT,
    "top1_mean": 2,
    "top1_std": 2,
    "top1_ci95": 2,
    "top5_mean": 2,
    "knn_top1_mean": 2,
    "seeds": COUNT,
    "uses_labels": TEXT,
    "val_top1_mean": 2,
    "encoder_passes": COUNT,
    "options": TEXT,
    "options_source": TEXT,
    "rankme_mean": 2,
    "spread_mean": 4,
    "alignment_mean": 4,
    "uniformity_mean": 4,
    "batch_size": COUNT,
    "seconds_mean": 1,
    "images_per_second_mean": 1,
    "peak_memory_mb": 1,
    "precision": TEXT,
    "status": TEXT,
    "note": TEXT,
    "suite": TEXT,
    "evaluation": TEXT,
}
"""Every column in order: text, a count, or how many decimals are printed. Further metrics follow, by name."""

METRICS: Mapping[tuple[str, str], str] = {
    ("linear", "top1"): "top1_mean",
    ("linear", "top5"): "top5_mean",
    ("linear", "val_top1"): "val_top1_mean",
    ("knn", "top1"): "knn_top1_mean",
    ("health", "rankme"): "rankme_mean",
    ("health", "spread"): "spread_mean",
    ("health", "alignment"): "alignment_mean",
    ("health", "uniformity"): "uniformity_mean",
}
"""Where a metric of an evaluation is found; any other becomes ``LABEL_METRIC_mean``, see ``groups.label``."""

NEAR_CHANCE = 0.05
"""k-NN is near chance below this part of the way from chance to 100%; raw pixels go a quarter of it on CIFAR-10."""
LOW_SPREAD = 0.1
"""Spread is 0 for a constant feature and 1 for an even one; below this, nearly all of a feature is its mean."""
REASON_LENGTH = 160
"""Characters of an error that a note keeps; the record has all of it."""
COMPUTE = ("seconds", "images_per_second", "peak_memory_mb", "encoder_passes")
NAN = float("nan")


class Ranking(NamedTuple):
    """A row's rank, or why it has none.

    Attributes:
        rank: 1 is the best; None where there is none.
        reason: For the note; empty where nothing is amiss.
    """

    rank: int | None = None
    reason: str = ""


def leaderboard(
    results: Path, suite: str | None = None, on_damaged: Callable[[str], None] | None = None
) -> pd.DataFrame:
    """Derive the leaderboard from the records below a results folder.

    Accuracies are in percent. A row is ranked among the rows of its suite, data set, epochs and linear evaluation,
    encoders together, if its task is ranked and at least two seeds of it count. Means are over the seeds that count:
    those that were linearly evaluated, or all that were pretrained where none was. What runs scored on other data than
    they were pretrained on are rows of their own, ranked among those of the same two data sets and as many epochs.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.
        on_damaged: Is told of records that cannot be read, a line each; what they are about is then left out.

    Returns:
        One row a group of runs, with the columns of ``COLUMNS``; by suite and data set, the best mean first.

    Raises:
        ClvrBenchError: There are no runs, or a record cannot be read and nobody is told.
    """
    return standings_frame(standings(load_runs(results, suite, on_damaged)))


class Standing(NamedTuple):
    """A row of the leaderboard, and the runs that it is derived from.

    Attributes:
        group: The runs.
        row: Values by column.
    """

    group: Group
    row: Mapping[str, Any]


def standings(runs: Iterable[Run]) -> list[Standing]:
    """Derive the leaderboard's rows from runs, by suite and data set, the best mean first; see ``leaderboard``."""
    groups, superseded = without_superseded(group_runs(runs))
    rankings, remarks = _rankings(groups), _remarks(groups)
    found = [
        Standing(group, _row(group, rankings.get(group.key, Ranking()), superseded[group.request], remarks[group.key]))
        for group in groups
    ]
    return sorted(found, key=lambda standing: _order(standing.row))


def standings_frame(found: Sequence[Standing]) -> pd.DataFrame:
    """Return standings as a data frame, a row each in the order given, with the columns of ``COLUMNS`` and further."""
    import pandas as pd  # imports in half a second, which the records' other readers need not wait for

    rows = [standing.row for standing in found]
    further = sorted({name for row in rows for name in row} - set(COLUMNS))
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *further])
    types = {TEXT: "object", COUNT: "Int64"}
    return frame.astype({name: types.get(str(COLUMNS.get(name)), "float64") for name in frame.columns})


def _rankings(groups: Sequence[Group]) -> dict[str, Ranking]:
    """Rank groups within their contests; by their keys, of those that can be ranked or could be but for a reason."""
    contests: dict[str, list[Group]] = {}
    for group in groups:
        if can_be_ranked(group):
            contests.setdefault(group.contest, []).append(group)
    return {key: ranking for members in contests.values() for key, ranking in _ranked(members)}


def can_be_ranked(group: Group) -> bool:
    """Whether a row has a rank where its predictions can be read: its task is ranked, and several seeds count."""
    return bool(group.facts.get("ranked", True)) and len(group.counted) >= 2


def _ranked(groups: Sequence[Group]) -> Iterator[tuple[str, Ranking]]:
    """Rank the groups of one contest; those whose predictions cannot be used get a reason instead."""
    reference: NDArray[np.int64] | None = None
    correct: dict[str, NDArray[np.bool_]] = {}
    for group in groups:
        try:
            labels, correct[group.key] = correctness(group, reference)
        except ClvrBenchError as error:
            yield group.key, Ranking(reason=f"not ranked: {error}")
        else:
            reference = labels
    if correct:
        yield from zip(correct, map(Ranking, ranks(list(correct.values()))), strict=True)


def correctness(group: Group, reference: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Read which test images each counted seed's linear probe got right.

    Args:
        group: S counted runs.
        reference: (N,) labels that the predictions must be for; those of the first run where None.

    Returns:
        Labels (N,) and correctness (S, N).

    Raises:
        ClvrBenchError: Predictions are missing, damaged, or for other labels.
    """
    rows = []
    for run in group.counted:
        try:
            predictions, labels = run.predictions(group.linear[run.pretraining.id])
        except ClvrBenchError:
            seed = run.pretraining.identity["seed"]
            raise ClvrBenchError(f"the predictions of seed {seed} are missing or damaged") from None
        reference = labels if reference is None else reference
        if not np.array_equal(labels, reference):
            raise ClvrBenchError("its test labels differ from those of other rows")
        rows.append(predictions[:, 0] == labels)
    return labels, np.stack(rows)


def _remarks(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Return by key what only a look at the other groups tells: that their data changed, or their code did."""
    alike: dict[str, set[str]] = {}
    for group in groups:
        alike.setdefault(group.look, set()).add(group.fingerprint)
    code = {group.origin: group.code for group in groups if group.target is None}
    found: dict[str, list[str]] = {group.key: [] for group in groups}
    for group in groups:
        if others := sorted(alike[group.look] - {group.fingerprint}):
            changed = f"fingerprint {group.fingerprint} here, {', '.join(others)} in a row that looks the same"
            found[group.key].append(f"the data changed between runs: {changed}")
        own, target = group.identity["dataset"], group.target
        if target and (own["name"], own["options"]) == (target["name"], target["options"]):
            then, now = group.fingerprint.split(ARROW)
            found[group.key].append(f"the data changed since pretraining: fingerprint {then} then, {now} now")
        if code.get(group.origin, group.code) != group.code:
            found[group.key].append("of an older version's weights: evaluate the newer run to replace this row")
    return found


def _row(group: Group, ranking: Ranking, superseded: int, remarks: Iterable[str]) -> dict[str, Any]:
    """Return a row: the columns, and further metrics under their own names."""
    facts, task = group.facts, group.identity["pretext_task"]
    labels = str(facts.get("labels", "none"))
    top1 = group.values("linear", "top1")
    return {
        "rank": ranking.rank,
        "pretext_task": task["name"],
        "encoder": group.identity["encoder"]["name"] if group.identity["encoder"] else "",
        "params_m": facts["parameters"] / 1e6 if facts.get("parameters") is not None else NAN,
        "augmentation": facts.get("augmentation", "+".join(part["name"] for part in group.identity["augmentation"])),
        "dataset": group.dataset,
        "top1_std": stdev(top1) if len(top1) > 1 else NAN,
        "top1_ci95": half_width(top1),
        "seeds": len(group.counted),
        "uses_labels": "no" if labels == "none" else labels,
        "options": shown_options(group.options_shown),
        "options_source": str(facts.get("options_source", "")),
        "precision": group.identity["precision"],
        "status": _status(group),
        "note": "; ".join([*_notes(group, ranking, superseded), *remarks]),
        "suite": group.runs[0].suite,
        "evaluation": evaluation_title(group),
        **_costs(group),
        **_means(group),
    }


def _costs(group: Group) -> dict[str, Any]:
    """Return the columns on budget and compute."""
    budget = group.identity["budget"] or {}
    seen = {name: [run.pretraining.compute.get(name, NAN) for run in group.averaged] for name in COMPUTE}
    passes = _mean(seen["encoder_passes"])
    return {
        "epochs": group.epochs,
        "batch_size": budget.get("batch_size"),
        "encoder_passes": None if isnan(passes) else round(passes),
        "seconds_mean": _mean(seen["seconds"]),
        "images_per_second_mean": _mean(seen["images_per_second"]),
        "peak_memory_mb": max(seen["peak_memory_mb"], default=NAN),
    }


def _means(group: Group) -> dict[str, float]:
    """Return the mean of every metric of every evaluation, by column."""
    names = {
        (LINEAR if name == group.headline else name, metric)
        for name, found in group.evaluations.items()
        for record in found.values()
        for metric in record.metrics
    }
    return {METRICS.get(key, f"{key[0]}_{key[1]}_mean"): _mean(group.values(*key)) for key in names | set(METRICS)}


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else NAN


def evaluation_title(group: Group) -> str:
    """Name the linear evaluation with its version and options; empty where there is none."""
    for record in group.linear.values():
        options = group.headline.removeprefix(LINEAR)
        return f"{record.name}@{record.identity['evaluation']['version']}{options}"
    return ""


def _status(group: Group) -> str:
    """Say how the runs ended: in a word where all ended alike, else in counts."""
    counts = Counter(map(group.state, group.runs))
    if len(counts) == 1:
        return next(iter(counts))
    others = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if state != "done")
    return f"{counts['done']} of {len(group.runs)} done, {others}"


def _notes(group: Group, ranking: Ranking, superseded: int) -> Iterator[str]:
    """Yield what a reader of the row must know."""
    collapsed = sum(_is_collapsed(group, run) for run in group.averaged)
    if collapsed:
        yield f"{collapsed} of {len(group.averaged)} seeds collapsed"
    yield from _merged(group, _ends(group))
    yield from _merged(group, _warnings(group))
    yield from _merged(group, _data_notes(group))
    yield from _few_seeds(group)
    if ranking.reason:
        yield ranking.reason
    if superseded:
        yield f"{superseded} {'row' if superseded == 1 else 'rows'} of older versions left out"


def _ends(group: Group) -> Iterator[tuple[Run, str]]:
    """Yield why runs are not done."""
    for run in group.runs:
        if run.pretraining.status != "done":
            yield run, f"{run.pretraining.status}: {run.pretraining.reason}"


def _warnings(group: Group) -> Iterator[tuple[Run, str]]:
    """Yield what went wrong in the evaluations, and what they say themselves."""
    for name, records in sorted(group.evaluations.items()):
        for run in group.runs:
            record = records.get(run.pretraining.id)
            if record and record.error:
                yield run, f"{name} failed: {record.error}"
            yield from ((run, f"{name}: {note}") for note in (record.notes if record else ()))


def _few_seeds(group: Group) -> Iterator[str]:
    """Yield which evaluations' means are over fewer seeds than the row has."""
    for name, records in sorted(group.evaluations.items()):
        count = sum(1 for run in group.averaged if run.pretraining.id in records)
        if 0 < count < len(group.averaged):
            yield f"{name}: of {count} of {len(group.averaged)} seeds"


def _data_notes(group: Group) -> Iterator[tuple[Run, str]]:
    """Yield what is to be known of the data: of the test pictures' own, and of others that were pretrained on."""
    for run in group.runs:
        for note in run.pretraining.facts.get("data_notes", ()):
            yield run, note if group.target is None else f"pretraining data: {note}"
        yield from ((run, note) for note in group.target_facts.get("data_notes", ()))


def _merged(group: Group, said: Iterable[tuple[Run, str]]) -> Iterator[str]:
    """Yield each text once, shortened, with the seeds it is about unless it is about all."""
    seeds: dict[str, list[int]] = {}
    for run, text in said:
        line = shorten(text.replace(";", ","), REASON_LENGTH, placeholder=" ...")
        seeds.setdefault(line, []).append(run.pretraining.identity["seed"])
    for line, about in seeds.items():
        which = f" ({'seed' if len(about) == 1 else 'seeds'} {', '.join(map(str, about))})"
        yield line if len(about) == len(group.runs) else line + which


def _is_collapsed(group: Group, run: Run) -> bool:
    """Tell a collapsed encoder: its k-NN is near chance and its features hardly spread."""
    classes = group.num_classes
    knn, spread = group.metrics(run, "knn").get("top1"), group.metrics(run, "health").get("spread")
    if not classes or knn is None or spread is None:
        return False
    chance = 100 / classes
    return bool(knn < chance + NEAR_CHANCE * (100 - chance) and spread < LOW_SPREAD)


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sort by suite and data set, then the best mean first, and what has none last."""
    top1 = row["top1_mean"]
    names = (row["pretext_task"], row["encoder"], row["augmentation"], row["options"], row["precision"])
    return (row["suite"], row["dataset"], inf if isnan(top1) else -top1, *names, row["epochs"] or 0)
