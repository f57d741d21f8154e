"""What lies in a results folder: how far each run is, what it takes on disk, and what of it nothing needs any more.

Needs no torch: a checkpoint's numbers are read past its tensors.
"""

from __future__ import annotations

import pickle
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import file_digest
from itertools import chain
from pathlib import Path
from typing import Any

from clvr_bench.errors import CannotWrite, ClvrBenchError
from clvr_bench.files import DAMAGED, lock
from clvr_bench.groups import LINEAR, label, transferred_to
from clvr_bench.records import CHECKPOINT, LOCK, WEIGHTS, EvaluationRecord, PretrainingRecord

PARTIAL_SECONDS = 3600.0
"""A file that is still being written after this long was left over by a kill."""


@dataclass(frozen=True)
class StoredRun:
    """A run's folder and what lies in it.

    Attributes:
        folder: ``RESULTS/SUITE/runs/NAME``.
        record: Of its pretraining; None where there is none yet, or none that can be read.
        evaluations: Those records that can be read.
        problems: What cannot be read, a line each that begins with the file.
        is_running: Whether another process holds it.
    """

    folder: Path
    record: PretrainingRecord | None
    evaluations: Sequence[EvaluationRecord] = ()
    problems: Sequence[str] = ()
    is_running: bool = False

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.folder.resolve().parent.parent.name

    @property
    def files(self) -> list[Path]:
        """Everything in the folder."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by what they are: ``weights``, ``checkpoint``, and ``records`` for all else."""
        found = {"weights": 0, "checkpoint": 0, "records": 0}
        for path in self.files:
            kind = {WEIGHTS: "weights", CHECKPOINT: "checkpoint"}.get(path.name.partition(DAMAGED)[0], "records")
            found[kind] += path.stat().st_size
        return found

    @property
    def set_aside(self) -> list[Path]:
        """Damaged files that were renamed; nothing here ever removes them."""
        return sorted(path for path in self.files if DAMAGED in path.name)

    @property
    def when(self) -> datetime | None:
        """When the last of its records was finished; without any, when its newest file was written."""
        said = [record.provenance.get("finished") for record in [self.record, *self.evaluations] if record]
        moments = [datetime.fromisoformat(text) for text in said if text]
        if moments:
            return max(moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in moments)
        written = [path.stat().st_mtime for path in self.files if path.name != LOCK]
        return datetime.fromtimestamp(max(written), UTC) if written else None

    @property
    def scored(self) -> set[str]:
        """The labels of the evaluations that succeeded on the run's own data."""
        return {label(record) for record in self.evaluations if not record.error and not transferred_to(record)}

    def state(self, expected: set[str]) -> str:
        """Say how far it is: done, failed, skipped, unfinished, damaged, or lacking an evaluation.

        Args:
            expected: Labels of the evaluations that it should have.
        """
        if self.problems:
            return "damaged"
        if self.record is None:
            return self._progress()
        if self.record.status != "done":
            return self.record.status
        missing = sorted(expected - self.scored)
        return f"evaluation missing: {', '.join(missing)}" if missing else "done"

    def _progress(self) -> str:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return "unfinished, no checkpoint yet"
        try:
            epoch, epochs = checkpoint_epoch(path)
        except ClvrBenchError:
            return "unfinished, checkpoint damaged"
        return f"unfinished at epoch {epoch}" + (f"/{epochs}" if epochs else "")


@dataclass
class Pruned:
    """What was removed, and what was left because a process is at work on it.

    Attributes:
        removed: Files and folders.
        bytes: They took.
        busy: Runs that were left alone.
    """

    removed: list[Path] = field(default_factory=list)
    bytes: int = 0
    busy: list[Path] = field(default_factory=list)


def stored_runs(results: Path, suite: str | None = None) -> list[StoredRun]:
    """Look at every run's folder below a results folder, finished or not.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.

    Raises:
        ClvrBenchError: There are none.
    """
    found = [_look(folder) for suite_folder in _suites(results, suite) for folder in _runs(suite_folder)]
    if not found:
        wanted = f"suite '{suite}' in {results}" if suite else str(results)
        raise ClvrBenchError(f"{wanted}: no runs found. Name the folder of results with --results.")
    return found


def expected_evaluations(runs: Sequence[StoredRun]) -> dict[str, set[str]]:
    """Return by suite what a finished run should have: the evaluations that most of the finished ones have.

    A record does not say what its suite asked for, and an evaluation that was added to a few runs later is none that
    the others lack. Where no evaluation is on most runs, the linear one is what they should have.
    """
    done: dict[str, list[StoredRun]] = {}
    for run in runs:
        if run.record and run.record.status == "done":
            done.setdefault(run.suite, []).append(run)
    return {suite: _by_most(members) for suite, members in done.items()}


def _by_most(runs: Sequence[StoredRun]) -> set[str]:
    counts = Counter(chain.from_iterable(run.scored for run in runs))
    return {name for name, count in counts.items() if 2 * count > len(runs)} or {LINEAR}


def prune(results: Path, suite: str | None = None) -> Pruned:
    """Remove what nothing needs: files left half-written by a kill, and checkpoints beside finished runs.

    A run that a process is at work on is left alone, and so are damaged files that were set aside.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.

    Raises:
        ClvrBenchError: There are no runs, or something cannot be removed.
    """
    pruned = Pruned()
    for run in stored_runs(results, suite):
        if _needless(run):  # a lock leaves a file, which a run without any waste need not get
            with lock(run.folder / LOCK) as held:
                if held:
                    _remove(_needless(_look(run.folder)), pruned)
                else:
                    pruned.busy.append(run.folder)
    for folder in _suites(results, suite):
        _remove(_partials(folder.glob(".*")), pruned)
    return pruned


def checkpoint_epoch(path: Path) -> tuple[int, int | None]:
    """Read how many epochs a checkpoint has behind it, and of how many where it says so.

    Raises:
        ClvrBenchError: It is no readable checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                saved = _PastTensors(file).load()
        return int(saved["state"]["epoch"]), saved.get("epochs")
    except Exception as error:  # a damaged pickle may raise anything
        raise ClvrBenchError(f"{path}: not a readable checkpoint ({type(error).__name__}: {error}).") from None


class _PastTensors(pickle.Unpickler):
    """Reads the numbers, texts, lists and mappings of a checkpoint; nothing that it names is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for whatever a checkpoint names."""
        return _Left

    def persistent_load(self, pid: Any) -> Any:
        """Leave a tensor's storage out."""
        return None


class _Left(dict[Any, Any]):
    """Stands for a tensor, or any other object that was left out."""

    def __init__(self, *arguments: object) -> None:
        super().__init__()

    def __call__(self, *arguments: object) -> _Left:
        return _Left()


def _suites(results: Path, suite: str | None) -> list[Path]:
    folders = (
        [results] if (results / "runs").is_dir() else sorted(p for p in results.glob("*") if (p / "runs").is_dir())
    )
    return [folder for folder in folders if suite is None or folder.resolve().name == suite]


def _runs(suite_folder: Path) -> list[Path]:
    return sorted(path for path in (suite_folder / "runs").iterdir() if path.is_dir() and not path.name.startswith("."))


def _look(folder: Path) -> StoredRun:
    record, evaluations, problems = None, [], []
    try:
        if (folder / "pretraining.json").is_file():
            record = PretrainingRecord.load(folder / "pretraining.json")
    except ClvrBenchError as error:
        problems.append(str(error))
    for path in sorted((folder / "evaluations").glob("*.json")):
        try:
            evaluations.append(EvaluationRecord.load(path))
        except ClvrBenchError as error:
            problems.append(str(error))
    return StoredRun(folder, record, evaluations, problems, _is_locked(folder / LOCK))


def _is_locked(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with lock(path) as held:
            return not held
    except CannotWrite:  # in a folder that can only be read nobody is at work
        return False


def _needless(run: StoredRun) -> list[Path]:
    return [*_partials(run.folder.rglob(".*")), *_needless_checkpoint(run)]


def _partials(paths: Iterator[Path]) -> list[Path]:
    """Return files and folders that were being written when their process was killed, long ago."""
    long_ago = time.time() - PARTIAL_SECONDS
    return sorted(path for path in paths if path.name.endswith(".partial") and _newest(path) < long_ago)


def _newest(path: Path) -> float:
    return max(part.stat().st_mtime for part in [path, *path.rglob("*")])


def _needless_checkpoint(run: StoredRun) -> list[Path]:
    """Return the checkpoint of a run that is done and whose weights are the ones it wrote."""
    checkpoint, weights = run.folder / CHECKPOINT, run.folder / WEIGHTS
    if run.problems or not run.record or run.record.status != "done":
        return []
    if not checkpoint.is_file() or not weights.is_file():
        return []
    with weights.open("rb") as file:
        is_whole = run.record.weights in ("", file_digest(file, "sha256").hexdigest())
    return [checkpoint] if is_whole else []


def _remove(paths: Sequence[Path], pruned: Pruned) -> None:
    for path in paths:
        size = sum(part.stat().st_size for part in [path, *path.rglob("*")] if part.is_file())
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise ClvrBenchError(f"{path}: cannot be removed ({error.strerror}). Remove it by hand.") from None
        pruned.removed.append(path)
        pruned.bytes += size
