"""``clvr-bench features``: what evaluations see of a run's pictures, as a file for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from clvr_bench.cli.choosing import Chooser
from clvr_bench.cli.finding import find_run
from clvr_bench.cli.judging import chosen_dataset
from clvr_bench.cli.loading import load_with_warnings
from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.cli.reading import ReadingFlags, reading
from clvr_bench.combinations import Choice, Override
from clvr_bench.contracts.evaluation import SplitName
from clvr_bench.data import Data, load
from clvr_bench.devices import choose_device, keep_freed_memory
from clvr_bench.errors import ClvrBenchError
from clvr_bench.exporting import require_place, save_features
from clvr_bench.provenance import provenance
from clvr_bench.rebuilding import require_weights
from clvr_bench.records import Run
from clvr_bench.reevaluating import freeze

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class FeaturesRequest:
    """The flags of ``features``, as they were given."""

    run: str
    output: Path
    dataset: str | None
    reading: ReadingFlags
    splits: str
    overrides: list[str]
    results: Path
    device: str
    plugins: PluginFlags


def write_features(request: FeaturesRequest) -> None:
    """Encode the splits that were asked for and write them.

    Raises:
        ClvrBenchError: Something in what was asked is to be mended, or the run has no weights.
    """
    console, errors = Console(), Console(stderr=True)
    splits = parse_splits(request.splits)
    require_place(request.output)
    device = choose_device(request.device)
    overrides = [Override.parse(text) for text in request.overrides]
    run = find_run("features", request.run, request.results)
    require_weights(run)
    chooser = Chooser("features", load_with_warnings(request.plugins, errors).registry, overrides)
    dataset = chosen_dataset(chooser, run, request.dataset)
    chooser.require_all_met()
    if device.type == "cpu":
        keep_freed_memory()
    with reading(request.reading, errors) as access:
        data = load(dataset, access, device)
    frozen = freeze(run, data, registry=chooser.registry, device=device)
    about = {**_about(run, dataset, data), "machine": provenance(device, [], "")}
    save_features(request.output, frozen, splits, class_names=data.dataset.class_names, provenance=about)
    shapes = ", ".join(f"{split} {tuple(frozen.features(split).shape)}" for split in splits)
    console.print(f"{run.folder.name} on {dataset}: {shapes}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written: {request.output}", markup=False, highlight=False, soft_wrap=True)


def parse_splits(text: str) -> list[SplitName]:
    """Read names of splits with commas between them.

    Raises:
        ClvrBenchError: One is unknown, or named twice.
    """
    asked = [part.strip() for part in text.split(",")]
    found = [split for split in SPLITS if split in asked]
    if len(found) != len(asked):
        raise ClvrBenchError(f"--split {text}: expected some of {','.join(SPLITS)}, each once, with commas between.")
    return found


def _about(run: Run, dataset: Choice, data: Data) -> dict[str, Any]:
    """Describe what was encoded by what."""
    identity = run.pretraining.identity
    return {
        "run": run.folder.name,
        "pretraining": run.pretraining.id,
        "pretext_task": identity["pretext_task"],
        "encoder": identity["encoder"],
        "seed": identity["seed"],
        "precision": identity["precision"],
        "dataset": {**dataset.identity, "fingerprint": data.fingerprint},
        "image_size": data.dataset.image_size,
    }
