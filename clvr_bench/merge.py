"""Brings the results of several machines together in one folder. Nothing that lies there is ever overwritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clvr_bench.errors import ClvrBenchError
from clvr_bench.files import write_atomically
from clvr_bench.records import Run, load_runs


@dataclass(frozen=True)
class MergeReport:
    """What became of every run of the sources.

    Attributes:
        copied: Runs that were added, as ``SUITE/NAME``; with the evaluation where only that was added.
        duplicates: Runs that lay there already with the same results, as ``SUITE/NAME``.
        conflicts: Runs of the same ID with other results, not merged; a line each that says what differs.
    """

    copied: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


def merge(sources: Sequence[Path], target: Path) -> MergeReport:
    """Copy the runs of all suites below the sources into a results folder: records, predictions, weights if present.

    A run appears in the target as a whole or not at all. Tables are not derived again here.

    Args:
        sources: Results folders, or folders of single suites.
        target: The results folder to add to; made where there is none.

    Raises:
        ClvrBenchError: A source has no runs, a record cannot be read, or the target is the folder of one suite. Nothing
            has been copied then.
    """
    if (target / "runs").is_dir():
        raise ClvrBenchError(f"{target}: is the folder of one suite. Merge into the results folder above it.")
    runs = [run for source in sources for run in load_runs(source)]
    for run in runs:
        _load(_home(run, target))
    copied: list[str] = []
    duplicates: list[str] = []
    conflicts: list[str] = []
    for run in runs:
        name, home = f"{run.suite}/{run.folder.name}", _home(run, target)
        present = _load(home)
        if present is None:
            _copy_run(run.folder, home)
            copied.append(name)
        elif difference := _difference(run, present):
            conflicts.append(f"{run.folder} and {home} differ: {difference}. Set one of them aside and merge again.")
        elif added := sorted(_results(run).keys() - _results(present).keys()):
            _copy_evaluations(run.folder, home, added)
            copied += [f"{name}: {stem}" for stem in added]
        else:
            duplicates.append(name)
    return MergeReport(tuple(copied), tuple(duplicates), tuple(conflicts))


def _home(run: Run, target: Path) -> Path:
    return target / run.suite / "runs" / run.folder.name


def _load(folder: Path) -> Run | None:
    return Run.load(folder) if folder.exists() else None


def _copy_run(folder: Path, home: Path) -> None:
    """Copy a run's folder under a hidden name first, beside ``runs``, so that no reader meets a part of it."""
    partial = home.parent.parent / f".{home.name}.{os.getpid()}.partial"
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(folder, partial, ignore=shutil.ignore_patterns(".*"))
        partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_evaluations(folder: Path, home: Path, stems: Sequence[str]) -> None:
    """Copy evaluations, each one's predictions before the record that vouches for them."""
    for stem in stems:
        for path in (folder / "evaluations" / f"{stem}{suffix}" for suffix in (".npz", ".json")):
            if path.exists():
                write_atomically(home / "evaluations" / path.name, path.read_bytes())


def _difference(run: Run, present: Run) -> str:
    """Say in which result two runs differ; nothing where they agree. Times, machines and notes may differ."""
    if run.pretraining.id != present.pretraining.id:
        return f"IDs {run.pretraining.id} and {present.pretraining.id}"
    if run.pretraining.status != present.pretraining.status:
        return f"status {run.pretraining.status} and {present.pretraining.status}"
    ours, theirs = _results(run), _results(present)
    for stem in sorted(ours.keys() & theirs.keys()):
        for what, value in ours[stem].items():
            if value != theirs[stem][what]:
                return f"{what} of evaluation {stem}"
    added = sorted(ours.keys() - theirs.keys())
    if added and run.pretraining != present.pretraining:
        return f"evaluation {added[0]} is of another pretraining with the same ID"
    return ""


def _results(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """Return what counts as an evaluation's result, by file stem."""
    return {
        record.file_stem: {"scores": record.metrics, "predictions": record.predictions, "errors": record.error}
        for record in run.evaluations
    }
