"""Judges a frozen representation with evaluations, on its own data or on others, and keeps records and predictions."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clvr_bench.assembly import blaming
from clvr_bench.combinations import PROTOCOL, Choice
from clvr_bench.contracts.evaluation import Scores
from clvr_bench.errors import DamagedFile, RunFailed
from clvr_bench.features import FrozenRepresentation
from clvr_bench.files import write_atomically
from clvr_bench.provenance import now, provenance
from clvr_bench.records import EvaluationRecord


@dataclass(frozen=True)
class Transfer:
    """Data that a run is judged on which it was not pretrained on.

    Attributes:
        identity: ``name, version, options, fingerprint``, as a pretraining record has them of its data.
        facts: What tables show of them: ``dataset`` (the title), ``num_classes``, ``class_names``, ``options_shown``,
            ``data_notes``.
    """

    identity: Mapping[str, Any]
    facts: Mapping[str, Any]


def evaluation_identity(pretraining: str, evaluation: Choice, transfer: Transfer | None = None) -> dict[str, Any]:
    """Return all that can change an evaluation's result.

    Args:
        pretraining: ID of the pretraining record.
        evaluation: What judges it.
        transfer: The data that it judges on; None where the run was pretrained on them.
    """
    identity = {"pretraining": pretraining, "evaluation": evaluation.identity, "protocol": PROTOCOL}
    return identity if transfer is None else {**identity, "dataset": dict(transfer.identity)}


def missing_evaluations(
    folder: Path, pretraining: str, evaluations: Sequence[Choice], transfer: Transfer | None = None
) -> list[Choice]:
    """Return the evaluations that a run still lacks; one that failed, or whose record is damaged, is tried again."""
    missing = []
    for choice in evaluations:
        record = EvaluationRecord(identity=evaluation_identity(pretraining, choice, transfer))
        if not _is_done(folder / "evaluations" / f"{record.file_stem}.json"):
            missing.append(choice)
    return missing


def _is_done(path: Path) -> bool:
    try:
        return path.is_file() and not EvaluationRecord.load(path).error
    except DamagedFile:
        return False


def evaluate(
    frozen: FrozenRepresentation,
    choice: Choice,
    pretraining: str,
    folder: Path,
    device: torch.device,
    transfer: Transfer | None = None,
) -> EvaluationRecord:
    """Run one evaluation and write its record and predictions into the run's folder; a failure is a record too.

    Args:
        frozen: The representation with its data.
        choice: The evaluation.
        pretraining: ID of the pretraining record.
        folder: The run's folder.
        device: Where it runs.
        transfer: The data, where the run was pretrained on others.
    """
    identity = evaluation_identity(pretraining, choice, transfer)
    started, clock = now(), time.perf_counter()
    outcome: dict[str, Any]
    try:
        scores = _score(frozen, choice)
        predictions = b"" if scores.predictions is None else _packed(scores.predictions, frozen.labels("test"))
        outcome = {
            "metrics": {name: round(float(value), 6) for name, value in scores.metrics.items()},
            "details": dict(scores.details),
            "notes": list(scores.notes),
            "predictions": sha256(predictions).hexdigest() if predictions else "",
        }
    except RunFailed as failure:
        outcome, predictions = {"error": str(failure)}, b""
    outcome["details"] = {**outcome.get("details", {}), **_shown(choice, transfer)}
    seconds = round(time.perf_counter() - clock, 3)
    where = provenance(device, [choice.entry.plugin], started)
    record = EvaluationRecord(identity=identity, seconds=seconds, provenance=where, **outcome)
    if predictions:
        write_atomically(folder / "evaluations" / f"{record.file_stem}.npz", predictions)
    record.save(folder / "evaluations" / f"{record.file_stem}.json")
    return record


def _shown(choice: Choice, transfer: Transfer | None) -> dict[str, Any]:
    """Return what tables show of an evaluation beside its name: options that are not the defaults, and other data."""
    found: dict[str, Any] = {}
    if choice.changed:
        found["options_shown"] = choice.changed_shown
    return found if transfer is None else {**found, "transfer": dict(transfer.facts)}


def _score(frozen: FrozenRepresentation, choice: Choice) -> Scores:
    name = choice.entry.name
    with blaming(name, "the evaluation"):
        scores = choice.entry.factory(**choice.options)(frozen)
    if not isinstance(scores, Scores):
        raise RunFailed(f"{name}: an evaluation must return Scores, got {type(scores).__name__}.")
    wrong = [metric for metric, value in scores.metrics.items() if not np.isfinite(value)]
    if wrong:
        raise RunFailed(f"{name}: the metric '{wrong[0]}' is not finite.")
    return scores


def _packed(predictions: Tensor, labels: Tensor) -> bytes:
    """Pack predicted classes (N, k) and labels (N,) as a compressed NumPy archive."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, predictions=predictions.cpu().numpy().astype(np.uint16), labels=labels.cpu().numpy().astype(np.uint16)
    )
    return buffer.getvalue()
