"""Judges finished runs again with their kept weights: by other evaluations, or on other data (a transfer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clvr_bench.combinations import Choice
from clvr_bench.data import Data
from clvr_bench.errors import ClvrBenchError
from clvr_bench.evaluating import Transfer, evaluate, missing_evaluations
from clvr_bench.features import FrozenRepresentation
from clvr_bench.files import lock, set_aside
from clvr_bench.options import resolve_options, shown
from clvr_bench.planning import damages
from clvr_bench.rebuilding import load_representation
from clvr_bench.records import LOCK, EvaluationRecord, PretrainingRecord, Run, digest
from clvr_bench.registry import Kind, Registry
from clvr_bench.sweep import Listener


def reevaluate(
    run: Run,
    dataset: Choice,
    data: Data,
    evaluations: Sequence[Choice],
    *,
    registry: Registry,
    device: torch.device,
    listener: Listener | None = None,
) -> list[EvaluationRecord]:
    """Run those evaluations that a run still lacks on some data, and keep their records in the run's folder.

    Args:
        run: A finished one that still has its weights.
        dataset: What the data are.
        data: Of that data set, on the device.
        evaluations: What judges it.
        registry: With the plugins of the run, in their versions.
        device: Where it runs.
        listener: Is told what happens.

    Returns:
        The new records, also of evaluations that failed.

    Raises:
        ClvrBenchError: The run has no weights, its code is of another version, its encoder cannot take the data, or
            another process is at work on it.
    """
    listener, transfer = listener or Listener(), transfer_to(run.pretraining, dataset, data)
    with lock(run.folder / LOCK) as held:
        if not held:
            raise ClvrBenchError(f"{run.folder}: another process is at work on this run. Try again when it is done.")
        for damage in list(damages(run.folder)):
            aside = " and ".join(set_aside(path).name for path in damage.paths)
            listener.warned(f"{damage.reason} Set aside as {aside}.")
        missing = missing_evaluations(run.folder, run.pretraining.id, evaluations, transfer)
        if not missing:
            return []
        frozen = freeze(run, data, registry=registry, device=device)
        records = []
        for choice in missing:
            listener.evaluating(choice.entry.name)
            records.append(evaluate(frozen, choice, run.pretraining.id, run.folder, device, transfer))
            listener.evaluated(records[-1])
        return records


def freeze(run: Run, data: Data, *, registry: Registry, device: torch.device) -> FrozenRepresentation:
    """Load a run's representation and put it before some data, in the run's own precision.

    Args:
        run: A finished one that still has its weights.
        data: Its own, or others; on the device.
        registry: With the plugins of the run, in their versions.
        device: Where to.

    Raises:
        ClvrBenchError: The run has no weights, its code is of another version, or its encoder cannot take the data.
    """
    representation = load_representation(run, registry, device)
    identity = run.pretraining.identity
    frozen = FrozenRepresentation(representation, data, device, identity["precision"], identity["seed"])
    _require_fit(frozen, run, data)
    return frozen


def _require_fit(frozen: FrozenRepresentation, run: Run, data: Data) -> None:
    """Show the representation one empty picture of the data's size.

    Raises:
        ClvrBenchError: It cannot take it.
    """
    dataset, device = data.dataset, frozen.device
    size, known = dataset.image_size, run.pretraining.facts["data"]
    encoder = (run.pretraining.identity["encoder"] or run.pretraining.identity["pretext_task"])["name"]
    if dataset.modality != known["modality"]:
        raise ClvrBenchError(
            f"{run.folder}: '{encoder}' was pretrained on data of kind {known['modality']}, {data.title} is of kind "
            f"{dataset.modality}. Choose data of the same kind."
        )
    try:
        features = frozen.encode(torch.zeros(1, dataset.channels, size, size, device=device))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ClvrBenchError(
            f"{run.folder}: '{encoder}' cannot take the {size} px pictures of {data.title} ({type(error).__name__}: "
            f"{reason}). Choose another image size, such as --set {data.name}.image_size={known['image_size']}."
        ) from error
    if features.ndim != 2:
        raise ClvrBenchError(
            f"{run.folder}: '{encoder}' gives features of shape {tuple(features.shape)} on {data.title}, not (B, D)."
        )


def own_dataset(record: PretrainingRecord, registry: Registry) -> Choice:
    """Return what a run was pretrained on, whatever version of its code is installed: content tells whether it changed.

    Raises:
        ClvrBenchError: It is not registered, or has other options by now.
    """
    own = record.identity["dataset"]
    entry = registry.get(Kind.DATASET, own["name"], "this run")
    return Choice(entry, resolve_options(entry.options, own["options"], f"this run: dataset '{entry.name}'"))


def transfer_to(record: PretrainingRecord, dataset: Choice, data: Data) -> Transfer | None:
    """Describe data for an evaluation's record; None where they are what the run was pretrained on.

    They are if name, options and content agree. An option that the run's record does not know, because the data set had
    fewer when it ran, agrees at its default.

    Args:
        record: The run's.
        dataset: What the data are.
        data: Of that data set.
    """
    own = record.identity["dataset"]
    differing = _differing(dataset, own["options"]) if dataset.entry.name == own["name"] else dataset.changed
    if dataset.entry.name == own["name"] and not differing and data.fingerprint == own["fingerprint"]:
        return None
    facts: dict[str, Any] = {
        "dataset": data.title,
        "num_classes": data.num_classes,
        "class_names": list(data.dataset.class_names),
        "options_shown": {name: shown(value) for name, value in {**dataset.changed, **differing}.items()},
    }
    facts |= {"data_notes": list(data.notes)} if data.notes else {}
    return Transfer({**dataset.identity, "fingerprint": data.fingerprint}, facts)


def _differing(dataset: Choice, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in which a choice differs from known ones."""
    defaults = {name: option.default for name, option in dataset.entry.options.items()}
    return {
        name: value
        for name, value in dataset.options.items()
        if digest(value) != digest(known.get(name, defaults[name]))  # records hold a tuple as a list
    }
