"""The Python interface: run a suite, evaluate a run again, read a leaderboard, load a pretrained representation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from clvr_bench.comparing import compare_rows
from clvr_bench.errors import ClvrBenchError
from clvr_bench.matchups import matchup_table
from clvr_bench.pairwise import pair_study, pair_table
from clvr_bench.records import Run
from clvr_bench.standings import leaderboard as _leaderboard
from clvr_bench.tables import write_leaderboard

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

    from clvr_bench.suites import Item, Suite
    from clvr_bench.sweep import Listener


def run(
    suite: Suite | str | Path,
    *,
    results: str | Path = "results",
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    memory_limit: int | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    plugins_dirs: Sequence[str | Path] = (),
    plugins: Sequence[str] = (),
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
        download: Whether data sets may fetch their files into ``data_root``.
        memory_limit: Bytes of decoded pictures that are kept in memory; larger sets are decoded as they are needed.
            Half of the memory where None.
        cache: Where decoded pictures are kept; ``$CLVR_BENCH_CACHE`` or ``~/.cache/clvr-bench`` where None.
        workers: Processes that decode pictures; one a core where None, none where 0.
        plugins_dirs: Folders with plugin files.
        plugins: Installed plugins that wait to be asked for, such as ``"tensorboard"``.
        time_limit: Seconds after which it stops at a checkpoint; call it again to go on.
        compiled: Whether to compile the augmentations' operations, see ``ops.compiling``.
        listener: Is told what happens.

    Returns:
        One row a pretext task, encoder, augmentation, data set and set of options.

    Raises:
        ClvrBenchError: Anything that the caller can mend. A failed combination is a row, not an error.
    """
    from clvr_bench.data import Access  # torch is imported only by who runs something
    from clvr_bench.devices import choose_device
    from clvr_bench.ops.compiling import compiled_operations
    from clvr_bench.plugins import load_plugins
    from clvr_bench.suites import Suite, load_suite
    from clvr_bench.sweep import Listener, plan

    listener = listener or Listener()
    chosen = suite if isinstance(suite, Suite) else load_suite(str(suite))
    sweep = plan(
        chosen,
        load_plugins([Path(folder) for folder in plugins_dirs], requested=plugins),
        results=Path(results),
        device=choose_device(device),
        access=Access(
            root=_path(data_root),
            download=download,
            memory_limit=memory_limit,
            cache=_path(cache),
            workers=workers,
            report=listener.warned,
        ),
        where=chosen.name if isinstance(suite, Suite) else str(suite),
    )
    with compiled_operations() if compiled else nullcontext():
        sweep.run(listener, time_limit)
    if not any(sweep.results.glob("runs/*/pretraining.json")):
        raise ClvrBenchError(f"{sweep.results}: nothing finished within the time limit. Call run again to go on.")
    write_leaderboard(sweep.results)
    return _leaderboard(sweep.results)


def evaluate(
    run: str | Path,
    *,
    evaluations: Sequence[Item] = ("linear", "knn", "health"),
    dataset: Item | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    memory_limit: int | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    plugins_dirs: Sequence[str | Path] = (),
) -> DataFrame:
    """Run those evaluations that a finished run still lacks, with its kept weights, and return its suite's leaderboard.

    Args:
        run: The run's folder, such as ``results/quickstart/runs/simclr--...``.
        evaluations: Names, or mappings of ``name`` and options, of which a list is an axis.
        dataset: What it is evaluated on, likewise; what it was pretrained on where None. Other data are another row.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data_root: Handed to the data set; as all that is not explained here, see ``run``.
        download: Whether the data set may fetch its files.
        memory_limit: Bytes of decoded pictures that are kept in memory.
        cache: Where decoded pictures are kept.
        workers: Processes that decode pictures.
        plugins_dirs: Folders with plugin files.

    Returns:
        The leaderboard, also written as ``RESULTS/SUITE/leaderboard.csv``.

    Raises:
        ClvrBenchError: Anything that the caller can mend. An evaluation that failed is a note, not an error.
    """
    from clvr_bench.combinations import choices
    from clvr_bench.data import Access, load
    from clvr_bench.devices import choose_device
    from clvr_bench.plugins import load_plugins
    from clvr_bench.reevaluating import own_dataset, reevaluate
    from clvr_bench.registry import Kind

    found, chosen_device = _run_in(run), choose_device(device)
    if found.folder.resolve().parent.name != "runs":
        raise ClvrBenchError(f"{run}: not in a folder such as results/quickstart/runs, so it has no leaderboard.")
    registry = load_plugins([Path(directory) for directory in plugins_dirs]).registry
    judges = [choice for item in evaluations for choice in choices(Kind.EVALUATION, item, registry, "evaluate")]
    named = [] if dataset is None else choices(Kind.DATASET, dataset, registry, "evaluate")
    access = Access(_path(data_root), download, memory_limit, _path(cache), workers)
    for choice in named or [own_dataset(found.pretraining, registry)]:
        data = load(choice, access, chosen_device)
        reevaluate(found, choice, data, judges, registry=registry, device=chosen_device)
    suite_folder = found.folder.resolve().parent.parent
    write_leaderboard(suite_folder)
    return _leaderboard(suite_folder)


def leaderboard(path: str | Path, suite: str | None = None) -> DataFrame:
    """Derive the leaderboard of a results folder from its records.

    Args:
        path: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.
    """
    return _leaderboard(Path(path), suite)


def compare(
    path: str | Path, first: str, second: str, suite: str | None = None, *, dataset: str | None = None
) -> DataFrame:
    """Compare two rows of a leaderboard, test picture by test picture, over the seeds that both have.

    Args:
        path: A folder of suites, or the folder of one suite.
        first: A pretext task, a run's folder, or a part of its name; a run stands for its row.
        second: The other row, likewise.
        suite: The only suite wanted.
        dataset: The data set that rows are of, such as ``"shapes → digits"``; None for rows that were judged on the
            data that they were pretrained on.

    Returns:
        One row for ``part`` ``"all"``, with ``ci95`` (points), ``p_value`` and ``adjusted_p_value``; then one a
        ``"seed"`` and one a ``"class"``, which ``of`` numbers. Each has ``pictures``, ``first_top1``, ``second_top1``
        (percent), ``difference`` (points), and the pictures that ``first_only``, ``second_only``, ``both`` or
        ``neither`` got right, means over the seeds.

    Raises:
        ClvrBenchError: A name means no row or several, or the two cannot be compared.
    """
    return matchup_table(compare_rows(Path(path), first, second, suite, dataset=dataset))


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
    from clvr_bench.devices import choose_device
    from clvr_bench.plugins import load_plugins
    from clvr_bench.rebuilding import load_representation

    registry = load_plugins([Path(directory) for directory in plugins_dirs]).registry
    return load_representation(_run_in(run), registry, choose_device("cpu"))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _run_in(folder: str | Path) -> Run:
    """Read a run from its folder.

    Raises:
        ClvrBenchError: There is none.
    """
    if not (Path(folder) / "pretraining.json").is_file():
        raise ClvrBenchError(f"{folder}: no run here. Name a folder such as results/quickstart/runs/simclr--...")
    return Run.load(Path(folder))
