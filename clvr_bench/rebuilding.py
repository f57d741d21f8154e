"""From a pretraining record back to its pretext task, so that saved weights find their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clvr_bench.assembly import build_task
from clvr_bench.combinations import Choice, TaskChoice
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.values import DataFacts
from clvr_bench.errors import ClvrBenchError
from clvr_bench.options import resolve_options
from clvr_bench.records import PretrainingRecord
from clvr_bench.registry import Kind, Registry


def rebuild_task(record: PretrainingRecord, registry: Registry) -> PretextTask:
    """Build the task of a record, freshly initialized.

    Raises:
        ClvrBenchError: One of its plugins is missing or of another version.
    """
    identity = record.identity
    task = _choice(Kind.PRETEXT_TASK, identity["pretext_task"], registry)
    encoder = _choice(Kind.ENCODER, identity["encoder"], registry) if identity["encoder"] else None
    return build_task(
        TaskChoice(task.entry, task.options), encoder, identity["seed"], DataFacts(**record.facts["data"])
    )


def _choice(kind: Kind, named: Mapping[str, Any], registry: Registry) -> Choice:
    entry = registry.get(kind, named["name"], "this run")
    if entry.version != named["version"]:
        raise ClvrBenchError(
            f"this run was made by {kind} '{entry.name}' version {named['version']}; {entry.version} is installed."
        )
    return Choice(entry, resolve_options(entry.options, named["options"], f"this run: {kind} '{entry.name}'"))
