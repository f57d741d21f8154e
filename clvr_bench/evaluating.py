"""Judges a frozen representation with every evaluation of a combination, and keeps records and predictions."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clvr_bench.assembly import blaming
from clvr_bench.combinations import PROTOCOL, Choice
from clvr_bench.contracts.evaluation import Scores
from clvr_bench.errors import RunFailed
from clvr_bench.features import FrozenRepresentation
from clvr_bench.provenance import now, provenance
from clvr_bench.records import EvaluationRecord, write_atomically


def evaluation_identity(pretraining: str, evaluation: Choice) -> dict[str, Any]:
    """Return all that can change an evaluation's result.

    Args:
        pretraining: ID of the pretraining record.
        evaluation: What judges it.
    """
    return {"pretraining": pretraining, "evaluation": evaluation.identity, "protocol": PROTOCOL}


def missing_evaluations(folder: Path, pretraining: str, evaluations: Sequence[Choice]) -> list[Choice]:
    """Return the evaluations that a run still lacks; one that failed is tried again."""
    missing = []
    for choice in evaluations:
        record = EvaluationRecord(identity=evaluation_identity(pretraining, choice))
        path = folder / "evaluations" / f"{record.file_stem}.json"
        if not path.is_file() or EvaluationRecord.load(path).error:
            missing.append(choice)
    return missing


def evaluate(
    frozen: FrozenRepresentation, choice: Choice, pretraining: str, folder: Path, device: torch.device
) -> EvaluationRecord:
    """Run one evaluation and write its record and predictions into the run's folder; a failure is a record too.

    Args:
        frozen: The representation with its data.
        choice: The evaluation.
        pretraining: ID of the pretraining record.
        folder: The run's folder.
        device: Where it runs.
    """
    identity = evaluation_identity(pretraining, choice)
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
    seconds = round(time.perf_counter() - clock, 3)
    where = provenance(device, [choice.entry.plugin], started)
    record = EvaluationRecord(identity=identity, seconds=seconds, provenance=where, **outcome)
    if predictions:
        write_atomically(folder / "evaluations" / f"{record.file_stem}.npz", predictions)
    record.save(folder / "evaluations" / f"{record.file_stem}.json")
    return record


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
