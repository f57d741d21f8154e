"""The Python interface: run a suite, read a leaderboard, load a pretrained representation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from clvr_bench.errors import ClvrBenchError
from clvr_bench.pairwise import pair_study, pair_table
from clvr_bench.records import Run
from clvr_bench.standings import leaderboard as _leaderboard
from clvr_bench.tables import write_leaderboard

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

    from clvr_bench.suites import Suite
    from clvr_bench.sweep import Listener


def run(
    suite: Suite | str | Path,
    *,
    results: str | Path = "results",
    device: str = "auto",
    data_root: str | Path | None = None,
    plugins_dirs: Sequence[str | Path] = (),
    time_limit: float | None = None,
    compiled: bool = False,
    listener: Listener | None = None,
) -> DataFrame:
    """Run what is left of a suite and return its leaderboard, also written as ``RESULTS/SUITE/leaderboard.csv``.

    Args:
        suite: A suite, the name of a built-in one, or a TOML file.
        results: The folder of all suites' results.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data_root: Handed to every data set.
        plugins_dirs: Folders with plugin files.
        time_limit: Seconds after which it stops at a checkpoint; call it again to go on.
        compiled: Whether to compile the augmentations' operations, see ``ops.compiling``.
        listener: Is told what happens.

    Returns:
        One row a pretext task, encoder, augmentation, data set and set of options.

    Raises:
        ClvrBenchError: Anything that the caller can mend. A failed combination is a row, not an error.
    """
    from clvr_bench.devices import choose_device  # torch is imported only by who runs something
    from clvr_bench.ops.compiling import compiled_operations
    from clvr_bench.plugins import load_plugins
    from clvr_bench.suites import Suite, load_suite
    from clvr_bench.sweep import plan

    chosen = suite if isinstance(suite, Suite) else load_suite(str(suite))
    sweep = plan(
        chosen,
        load_plugins([Path(folder) for folder in plugins_dirs]),
        results=Path(results),
        device=choose_device(device),
        data_root=None if data_root is None else Path(data_root),
        where=chosen.name if isinstance(suite, Suite) else str(suite),
    )
    with compiled_operations() if compiled else nullcontext():
        sweep.run(listener, time_limit)
    if not any(sweep.results.glob("runs/*/pretraining.json")):
        raise ClvrBenchError(f"{sweep.results}: nothing finished within the time limit. Call run again to go on.")
    write_leaderboard(sweep.results)
    return _leaderboard(sweep.results)


def leaderboard(path: str | Path, suite: str | None = None) -> DataFrame:
    """Derive the leaderboard of a results folder from its records.

    Args:
        path: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.
    """
    return _leaderboard(Path(path), suite)


def pairs(
    path: str | Path,
    suite: str | None = None,
    *,
    pretext_task: str | None = None,
    encoder: str | None = None,
    dataset: str | None = None,
) -> DataFrame:
    """Derive top-1 by first and second augmentation from the records of a study of pairs (SimCLR, Figure 5).

    For the matrix of the figure, put single augmentations on the diagonal: ``frame["second"] = frame["second"].where(
    frame["second"] != "", frame["first"])``, then ``frame.pivot(index="first", columns="second", values="top1_mean")``.

    Args:
        path: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.
        pretext_task: The only pretext task wanted.
        encoder: The only encoder wanted.
        dataset: The only data set wanted.

    Returns:
        One row a chain of one or two augmentations: ``first``, ``second`` (empty where the first is alone),
        ``top1_mean`` (percent), ``top1_std`` and ``top1_ci95`` (points), ``seeds``, ``pretext_task``, ``encoder``,
        ``dataset``, ``epochs``. The row without augmentation, ``none``, comes first where there is one.

    Raises:
        ClvrBenchError: There is no such study or more than one, or its chains differ in more than augmentations.
    """
    study = pair_study(Path(path), suite, pretext_task=pretext_task, encoder=encoder, dataset=dataset)
    return pair_table(study)


def load_encoder(run: str | Path, plugins_dirs: Sequence[str | Path] = ()) -> nn.Module:
    """Load the pretrained representation of a run: maps (B, C, H, W) in [0, 1] to features (B, D).

    Args:
        run: The run's folder, such as ``results/quickstart/runs/simclr--...``.
        plugins_dirs: Folders with plugin files that it needs.

    Returns:
        The representation in eval mode, on the CPU, without gradients.

    Raises:
        ClvrBenchError: The run is not there or not done, its weights are gone, or a plugin is of another version.
    """
    from clvr_bench.checkpoints import load_weights
    from clvr_bench.plugins import load_plugins
    from clvr_bench.rebuilding import rebuild_task

    folder = Path(run)
    if not (folder / "pretraining.json").is_file():
        raise ClvrBenchError(f"{folder}: no run here. Name a folder such as results/quickstart/runs/simclr--...")
    record = Run.load(folder).pretraining
    if record.status != "done":
        raise ClvrBenchError(f"{folder}: this run is {record.status} ({record.reason}), so it has no weights.")
    task = rebuild_task(record, load_plugins([Path(directory) for directory in plugins_dirs]).registry)
    representation = task.representation()
    representation.load_state_dict(load_weights(folder))
    return representation.eval().requires_grad_(False)
