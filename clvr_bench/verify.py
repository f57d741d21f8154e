"""Checks that nothing in a results folder was edited, swapped, lost or left out of date. Needs no weights, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clvr_bench.errors import ClvrBenchError
from clvr_bench.groups import transferred_to
from clvr_bench.records import EvaluationRecord, PretrainingRecord, Run, run_folders
from clvr_bench.standings import leaderboard
from clvr_bench.tables import render

TOLERANCE = 1e-6
"""Percent; recorded scores are rounded to six decimals, and one image of a million is a hundred times this."""


@dataclass(frozen=True)
class Verification:
    """What was checked, and what was found.

    Attributes:
        runs: How many pretraining records were read.
        evaluations: How many evaluation records were read.
        predictions: How many of those were scored again.
        tables: How many committed tables were derived again.
        problems: A line each, which begins with the file.
    """

    runs: int
    evaluations: int
    predictions: int
    tables: int
    problems: tuple[str, ...]


def verify(results: Path, suite: str | None = None) -> Verification:
    """Check every run below a results folder, and every leaderboard.csv that lies beside runs.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.

    Raises:
        ClvrBenchError: There are no runs.
    """
    folders = list(run_folders(results, suite))
    if not folders:
        raise ClvrBenchError(f"{results}: no runs found, so there is nothing to verify.")
    problems: list[str] = []
    runs = [run for folder in folders if (run := _read(folder, problems))]
    for run in runs:
        problems += _run_problems(run)
        for record in run.evaluations:
            problems += _evaluation_problems(run, record)
    tables = sorted(path for path in {folder.parent.parent / "leaderboard.csv" for folder in folders} if path.is_file())
    problems += [problem for path in tables for problem in _table_problems(path)]
    records = [record for run in runs for record in run.evaluations]
    scored = sum(bool(record.predictions) for record in records)
    return Verification(len(runs), len(records), scored, len(tables), tuple(problems))


def _read(folder: Path, problems: list[str]) -> Run | None:
    """Read those records of a run that can be read, and add why the others cannot; None without its pretraining."""
    evaluations = []
    for path in sorted((folder / "evaluations").glob("*.json")):
        try:
            record = EvaluationRecord.load(path)
        except ClvrBenchError as error:
            problems.append(str(error))
            continue
        evaluations.append(record)
        if path.stem != record.file_stem:
            problems.append(f"{path}: its record belongs in a file named {record.file_stem}.json.")
    try:
        return Run(folder, PretrainingRecord.load(folder / "pretraining.json"), evaluations)
    except ClvrBenchError as error:
        problems.append(str(error))
        return None


def _run_problems(run: Run) -> Iterator[str]:
    if run.folder.name != run.pretraining.folder_name:
        yield f"{run.folder}: its record belongs in a folder named {run.pretraining.folder_name}."


def _evaluation_problems(run: Run, record: EvaluationRecord) -> Iterator[str]:
    path = run.folder / "evaluations" / f"{record.file_stem}.json"
    judged = record.identity["pretraining"]
    if judged != run.pretraining.id:
        yield f"{path}: judges pretraining {judged}, not {run.pretraining.id}, beside which it lies."
    if (other := transferred_to(record)) and other == run.pretraining.identity["dataset"]:
        yield f"{path}: says that it judges on other data than the run's own, and names the run's own."
    if not record.predictions:
        return
    try:
        scores = _scores(run, record)
    except ClvrBenchError as error:
        yield str(error)
        return
    for name, score in scores.items():
        if not abs(score - record.metrics[name]) <= TOLERANCE:
            yield f"{path}: says {name} {record.metrics[name]:.6f}, its predictions say {score:.6f}."


def _scores(run: Run, record: EvaluationRecord) -> dict[str, float]:
    """Compute from the predictions those of top-1 and top-5 that the record has, in percent."""
    predictions, labels = run.predictions(record)
    hits = predictions == labels[:, None]
    found = {"top1": hits[:, 0], "top5": hits[:, :5].any(axis=1)}
    return {name: 100 * float(np.mean(right)) for name, right in found.items() if name in record.metrics}


def _table_problems(path: Path) -> Iterator[str]:
    try:
        derived = render(leaderboard(path.parent), "csv")
    except ClvrBenchError:
        yield f"{path}: not compared, because a record of its suite cannot be read."
        return
    if path.read_bytes() != derived.encode():
        yield f"{path}: differs from the table that its records give. Derive it again, and look at what changed."
