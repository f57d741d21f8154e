"""What is kept of a run: one pretraining record, one evaluation record an evaluation, the predictions. Needs no torch.

A run is a folder ``RESULTS/SUITE/runs/NAME/`` with ``pretraining.json``, and for each evaluation ``NAME-ID.json`` and
``NAME-ID.npz`` under ``evaluations/``. Tables are derived from these alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from clvr_bench.errors import ClvrBenchError, DamagedFile
from clvr_bench.files import write_atomically

FORMAT = 1
CHECKPOINT, WEIGHTS, LOCK = "checkpoint.pt", "weights.safetensors", ".lock"
"""What else lies in a run's folder: the state of an unfinished run, the representation, and what its process holds."""
Status = Literal["done", "failed", "skipped"]


def digest(value: object) -> str:
    """Hash a JSON value to 12 hexadecimal digits; equal values hash alike whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Record:
    """What both kinds of record share: an identity, and a way to and from a JSON file.

    Attributes:
        identity: All that can change a score; its digest is the ID.
        provenance: What should not change a score: library versions, device, threads, times.
        format: The version of this layout.
    """

    identity: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    format: int = field(default=FORMAT, kw_only=True)

    @property
    def id(self) -> str:
        """The digest of the identity."""
        return digest(self.identity)

    def save(self, path: Path) -> None:
        """Write the record as JSON, atomically."""
        content = json.dumps({"id": self.id, **asdict(self)}, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(path, content.encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            DamagedFile: The file is cut off, was edited, or is no record.
            ClvrBenchError: It cannot be opened, or was written by a newer version.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ClvrBenchError(f"{path}: cannot be read ({error.strerror}).") from None
        try:
            content = json.loads(text)
            written_id = content.pop("id")
            newer = content["format"] > FORMAT
            record = cls(**{f.name: content[f.name] for f in fields(cls) if f.name in content}) if not newer else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "Run its suite again."
            raise DamagedFile(f"{path}: not a readable record ({type(error).__name__}: {error}). {hint}") from None
        if record is None:
            hint = "Upgrade clvr-bench."
            raise ClvrBenchError(f"{path}: format {content['format']} is newer than this version reads. {hint}")
        if record.id != written_id:
            raise DamagedFile(f"{path}: its identity hashes to {record.id}, not to {written_id}: it was edited.")
        return record


@dataclass(frozen=True)
class PretrainingRecord(Record):
    """One pretraining: what was asked, what came of it, and every epoch on the way.

    The identity's keys: ``pretext_task`` and ``encoder`` (each ``name, version, options``; encoder None where the task
    uses none), ``augmentation`` (a list of the same, in chain order), ``dataset`` (the same and ``fingerprint``),
    ``recipe``, ``budget`` (``epochs, batch_size, accumulate``), ``seed``, ``precision``, ``protocol``.

    Attributes:
        status: How it ended; ``skipped`` where the combination makes no sense.
        reason: Why it failed or was skipped; empty where it is done.
        facts: ``dataset`` (its title), ``parameters`` of the representation, ``feature_dim``, ``augmentation`` (as
            shown), ``labels`` (none, fine, coarse, partial), ``ranked``, ``options_source``, ``num_classes``,
            ``class_names`` (in the order of the labels; older versions wrote none), ``options_shown`` (those that
            differ from their defaults), ``data`` (what the task may know of the data), ``data_notes`` (files left out,
            copies of train in test) where there are any, ``task`` (the task's own).
        compute: ``seconds``, ``images_per_second``, ``peak_memory_mb``, ``encoder_passes`` (pictures encoded).
        history: One mapping an epoch: ``epoch, loss, learning_rate, knn_top1, seconds`` and the task's logs.
        weights: SHA-256 of the representation's weights file; empty in records that older versions wrote.
    """

    status: Status = "done"
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    compute: Mapping[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    weights: str = ""

    @property
    def folder_name(self) -> str:
        """What the run's folder is called: readable, unique, and safe as a file name."""
        encoder = self.identity["encoder"]
        parts = [
            self.identity["pretext_task"]["name"],
            encoder["name"] if encoder else "none",
            self.facts.get("dataset") or self.identity["dataset"]["name"],
            f"seed{self.identity['seed']}",
            self.id,
        ]
        return "--".join(re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip(".-") for part in parts)


@dataclass(frozen=True)
class EvaluationRecord(Record):
    """One evaluation of one pretraining.

    The identity's keys: ``pretraining`` (its ID), ``evaluation`` (``name, version, options``), ``protocol``; and,
    where it was judged on other data than it was pretrained on, ``dataset`` (the same and ``fingerprint``).

    Attributes:
        metrics: Numbers by name; accuracies in percent. Empty where the evaluation failed.
        details: What else the evaluation found worth keeping; ``options_shown`` (its own that differ from their
            defaults) and ``transfer`` (``dataset, num_classes, class_names, options_shown, data_notes``) where there
            are any.
        notes: Warnings for readers.
        predictions: SHA-256 of the predictions' file; empty where there is none.
        seconds: Wall-clock time of the evaluation, without the shared extraction of features.
        error: Why it failed; empty where it did not.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    predictions: str = ""
    seconds: float = 0.0
    error: str = ""

    @property
    def name(self) -> str:
        """The evaluation's registered name."""
        return str(self.identity["evaluation"]["name"])

    @property
    def file_stem(self) -> str:
        """What the record and its predictions are called under ``evaluations/``."""
        return f"{self.name}-{self.id}"


@dataclass(frozen=True)
class Run:
    """A run's folder and what its records say.

    Attributes:
        folder: ``RESULTS/SUITE/runs/NAME``.
        pretraining: Its pretraining record.
        evaluations: Its evaluation records, sorted by name.
    """

    folder: Path
    pretraining: PretrainingRecord
    evaluations: list[EvaluationRecord]

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.folder.resolve().parent.parent.name

    @classmethod
    def load(cls, folder: Path, on_damaged: Callable[[str], None] | None = None) -> Self:
        """Read a run's records.

        Args:
            folder: The run's.
            on_damaged: Is told of evaluation records that cannot be read, which are then left out.

        Raises:
            DamagedFile: The pretraining's record cannot be read, or any where nobody is told.
        """
        pretraining, evaluations = PretrainingRecord.load(folder / "pretraining.json"), []
        for path in sorted((folder / "evaluations").glob("*.json")):
            try:
                evaluations.append(EvaluationRecord.load(path))
            except DamagedFile as error:
                if on_damaged is None:
                    raise
                on_damaged(str(error))
        return cls(folder, pretraining, evaluations)

    def predictions(self, evaluation: EvaluationRecord) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read what an evaluation predicted.

        Returns:
            Class numbers (N, k), best first, and true labels (N,).

        Raises:
            DamagedFile: The file is missing or is not the one that was recorded.
        """
        path = self.folder / "evaluations" / f"{evaluation.file_stem}.npz"
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != evaluation.predictions:
            raise DamagedFile(f"{path}: missing, or not the file that was recorded. Run the suite again.")
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["predictions"].astype(np.int64), arrays["labels"].astype(np.int64)


def run_folders(results: Path, suite: str | None = None) -> Iterator[Path]:
    """Yield the folders of all runs below a results folder, sorted; of one suite where it is named.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: Name of the only suite wanted.
    """
    suites = [results] if (results / "runs").is_dir() else sorted(p for p in results.glob("*") if (p / "runs").is_dir())
    for folder in suites:
        if suite is None or folder.resolve().name == suite:
            yield from sorted(p.parent for p in folder.glob("runs/*/pretraining.json"))


def load_runs(results: Path, suite: str | None = None, on_damaged: Callable[[str], None] | None = None) -> list[Run]:
    """Read all runs below a results folder.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: Name of the only suite wanted.
        on_damaged: Is told of records that cannot be read, a line each; what they are about is then left out.

    Raises:
        ClvrBenchError: The folder or the suite has no runs, or a record cannot be read and nobody is told.
    """
    runs = []
    for folder in run_folders(results, suite):
        try:
            runs.append(Run.load(folder, on_damaged))
        except DamagedFile as error:
            if on_damaged is None:
                raise
            on_damaged(str(error))
    if not runs:
        wanted = f"suite '{suite}' in {results}" if suite else str(results)
        hint = f"Run a suite first: clvr-bench run quickstart --results {results}"
        raise ClvrBenchError(f"{wanted}: no runs found. {hint}")
    return runs
