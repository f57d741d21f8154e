"""Curves and scores for TensorBoard, in ``SUITE/tensorboard/RUN``, where ``--plugin tensorboard`` asks for them."""

from __future__ import annotations

import atexit
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clvr_bench import ClvrBenchError, EvaluationRecord, PretrainingRecord, hookimpl

try:
    from torch.utils.tensorboard import SummaryWriter
except ModuleNotFoundError as error:
    raise ClvrBenchError(
        f"{error.name} is not installed. Install the extra: pip install 'clvr-bench[tensorboard]'"
    ) from None


@hookimpl
def run_started(folder: Path, identity: Mapping[str, Any]) -> None:
    """Begin with what was asked for."""
    _begin(folder, identity)


@hookimpl
def epoch_finished(folder: Path, epoch: Mapping[str, Any]) -> None:
    """Add a point to every curve."""
    values = {name: value for name, value in epoch.items() if name != "epoch"}
    _events_of(folder).write(values, epoch["epoch"])


@hookimpl
def evaluation_finished(folder: Path, record: EvaluationRecord) -> None:
    """Add an evaluation's numbers at the last epoch."""
    values = {f"{record.name}/{name}": value for name, value in record.metrics.items()}
    _events_of(folder).write(values, len(PretrainingRecord.load(folder / "pretraining.json").history))


class _Events:
    """The event file of one run, opened when there is something to write.

    Args:
        folder: The run's.
        identity: What was asked for; None where it is evaluated alone.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any] | None) -> None:
        self.folder = folder
        self._identity = identity
        self._writer: SummaryWriter | None = None

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Write numbers of an epoch; where training begins or goes on, earlier ones of it and later are void."""
        if self._writer is None:
            folder = self.folder.parent.parent / "tensorboard" / self.folder.name
            self._writer = SummaryWriter(str(folder), purge_step=None if self._identity is None else epoch)
            if self._identity is not None:
                self._writer.add_text("identity", f"```\n{json.dumps(self._identity, indent=1)}\n```", epoch)
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


_latest: list[_Events] = []  # of the run that was told of last, for a process has one under way at a time


def _begin(folder: Path, identity: Mapping[str, Any] | None = None) -> _Events:
    _close()
    _latest[:] = [_Events(folder, identity)]
    return _latest[0]


def _events_of(folder: Path) -> _Events:
    return _latest[0] if _latest and _latest[0].folder == folder else _begin(folder)


@atexit.register
def _close() -> None:
    for events in _latest:
        events.close()
