"""From a pretraining record back to its pretext task, so that saved weights find their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from clvr_bench.assembly import build_task
from clvr_bench.checkpoints import load_weights
from clvr_bench.combinations import Choice, TaskChoice
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.values import DataFacts
from clvr_bench.convolutions import go_around_faults
from clvr_bench.errors import ClvrBenchError
from clvr_bench.options import resolve_options
from clvr_bench.records import WEIGHTS, PretrainingRecord, Run
from clvr_bench.registry import Kind, Registry


def load_representation(run: Run, registry: Registry, device: torch.device) -> nn.Module:
    """Build the representation of a finished run with its weights, as a sweep would hold it.

    Args:
        run: Whose folder still has the weights.
        registry: With the plugins of the run, in their versions.
        device: Where to.

    Returns:
        Maps (B, C, H, W) in [0, 1] to features (B, D); in eval mode, without gradients.

    Raises:
        ClvrBenchError: The run is not done, its weights are gone or damaged, or a plugin is of another version.
    """
    require_weights(run)
    weights = load_weights(run.folder, run.pretraining.weights)
    try:
        task = rebuild_task(run.pretraining, registry)
    except ClvrBenchError as error:
        raise ClvrBenchError(f"{run.folder}: {error}") from error
    if device.type == "cpu":
        go_around_faults(task)
    representation = task.to(device).to(memory_format=torch.channels_last).representation()
    try:
        representation.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ClvrBenchError(f"{run.folder / WEIGHTS}: not the weights of this run's encoder ({reason}).") from None
    return representation.eval().requires_grad_(False)


def require_weights(run: Run) -> None:
    """Refuse a run that has no weights, before anything slow is done.

    Raises:
        ClvrBenchError: It is not done, or its weights are gone.
    """
    record = run.pretraining
    if record.status != "done":
        raise ClvrBenchError(f"{run.folder}: this run is {record.status} ({record.reason}), so it has no weights.")
    if not (run.folder / WEIGHTS).is_file():
        hint = "They are not kept in version control; run the suite again."
        raise ClvrBenchError(f"{run.folder / WEIGHTS}: no weights here. {hint}")


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
