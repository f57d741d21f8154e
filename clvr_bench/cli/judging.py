"""``clvr-bench evaluate RUN...``: judges finished runs again, without pretraining them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from clvr_bench.cli.choosing import Chooser
from clvr_bench.cli.finding import find_runs, warn_of_damage
from clvr_bench.cli.loading import load_with_warnings
from clvr_bench.cli.reading import ReadingFlags, reading
from clvr_bench.cli.tables import print_failures, print_new_leaderboard
from clvr_bench.combinations import Choice, Override
from clvr_bench.data import Data, load
from clvr_bench.devices import choose_device, keep_freed_memory
from clvr_bench.errors import ClvrBenchError
from clvr_bench.groups import label
from clvr_bench.rebuilding import require_weights
from clvr_bench.records import EvaluationRecord, Run, digest
from clvr_bench.reevaluating import reevaluate, transfer_to
from clvr_bench.registry import Kind
from clvr_bench.sweep import Listener

if TYPE_CHECKING:
    from clvr_bench.cli.evaluating import EvaluateRequest

FAILED = 1
STANDARD = ("linear", "knn", "health")
"""The evaluations that are made where none is named."""


def evaluate_runs(request: EvaluateRequest) -> int:
    """Evaluate what was asked and return the exit code: 0 all done, 1 an evaluation failed or a run was left out.

    Raises:
        ClvrBenchError: Something in what was asked is to be mended, or the only run cannot be evaluated.
    """
    console, errors = Console(), Console(stderr=True)
    device = choose_device(request.device)
    overrides = [Override.parse(text) for text in request.overrides]
    runs = find_runs("evaluate", request.runs, request.results, take_all=request.take_all)
    chooser = Chooser("evaluate", load_with_warnings(request.plugins, errors).registry, overrides)
    names = request.evaluations or STANDARD
    evaluations = [choice for name in names for choice in chooser.choices(chooser.entry(Kind.EVALUATION, name))]
    datasets = {run.folder: chosen_dataset(chooser, run, request.dataset) for run in runs}
    chooser.require_all_met()
    if device.type == "cpu":
        keep_freed_memory()
    judge = _Judge(chooser, evaluations, device, request.reading, console, errors)
    failures = judge.judge(sorted(runs, key=lambda run: (str(datasets[run.folder]), run.folder)), datasets)
    for suite in sorted({suite for run in runs if (suite := _suite_folder(run))}):
        print_new_leaderboard(suite, console)
    print_failures(failures, console)
    return FAILED if failures else 0


def chosen_dataset(chooser: Chooser, run: Run, name: str | None) -> Choice:
    """Return the data set that a run is put before: a named one, or its own with the options it was pretrained on.

    Args:
        chooser: Has the options of the command line, which win.
        run: Whose data set is taken where none is named.
        name: As it is registered; None where none is named.

    Raises:
        ClvrBenchError: It is unknown, or an option is unknown or ill-typed.
    """
    if name is not None:
        return chooser.choice(chooser.entry(Kind.DATASET, name))
    own = run.pretraining.identity["dataset"]
    return chooser.choice(chooser.entry(Kind.DATASET, own["name"]), own["options"])


def _suite_folder(run: Run) -> Path | None:
    """Return the folder whose leaderboard has a run's row; None for a run that was taken out of its suite."""
    parent = run.folder.resolve().parent
    return run.folder.parent.parent if parent.name == "runs" else None


@dataclass
class _Judge:
    """Evaluates runs one after the other; those on the same data share them.

    Attributes:
        chooser: Has the plugins.
        evaluations: What judges them.
        device: Where it runs.
        flags: How data are reached.
        console: Where progress is printed.
        errors: Where messages about the data go.
    """

    chooser: Chooser
    evaluations: Sequence[Choice]
    device: torch.device
    flags: ReadingFlags
    console: Console
    errors: Console
    _loaded: tuple[Choice, Data] | None = field(default=None, init=False)

    def judge(self, runs: Sequence[Run], datasets: dict[Path, Choice]) -> list[str]:
        """Evaluate runs and return what failed, a line each; one of several that cannot be evaluated is left out.

        Raises:
            ClvrBenchError: The only one cannot be, or the data of all cannot be loaded.
        """
        failures: list[str] = []
        if len(runs) == 1:
            require_weights(runs[0])
        if len(set(map(str, datasets.values()))) == 1:
            self._data(datasets[runs[0].folder])
        for number, run in enumerate(runs, start=1):
            self._say(f"[{number}/{len(runs)}] {run.folder.name}", style="bold")
            if len(runs) > 1 and run.pretraining.status != "done":
                self._say(f"  left out: it is {run.pretraining.status}, so it has no weights")
                continue
            try:
                records = self._judge_one(run, datasets[run.folder])
            except ClvrBenchError as error:
                if len(runs) == 1:
                    raise
                failures.append(str(error))
                self._say(f"  left out: {error}")
                continue
            failures += [f"{run.folder.name}: {label(record)}: {record.error}" for record in records if record.error]
        return failures

    def _judge_one(self, run: Run, dataset: Choice) -> list[EvaluationRecord]:
        require_weights(run)
        data = self._data(dataset)
        if transfer_to(run.pretraining, dataset, data):
            self._say(f"  {_about_transfer(run, dataset, data)}")
        records = reevaluate(
            run,
            dataset,
            data,
            self.evaluations,
            registry=self.chooser.registry,
            device=self.device,
            listener=_Teller(self.console),
        )
        if not records:
            self._say("  nothing to do: it has all of these evaluations")
        return records

    def _data(self, dataset: Choice) -> Data:
        if self._loaded is None or self._loaded[0] != dataset:
            self._loaded = None  # so that two sets are never in memory at once
            with reading(self.flags, self.errors) as access:
                self._loaded = dataset, load(dataset, access, self.device)
        return self._loaded[1]

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _about_transfer(run: Run, dataset: Choice, data: Data) -> str:
    own = run.pretraining.identity["dataset"]
    if (dataset.entry.name, digest(dataset.options)) != (own["name"], digest(own["options"])):
        return f"on {dataset}: a transfer, for it was pretrained on other data"
    prints = f"fingerprint {own['fingerprint'][:8]} then, {data.fingerprint[:8]} now"
    return f"on {dataset}: a transfer, for these data are not those of the pretraining ({prints})"


class _Teller(Listener):
    """Prints a line an evaluation."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def evaluated(self, record: EvaluationRecord) -> None:
        """Say what it found."""
        scores = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
        text = f"  {label(record)}: {record.error or scores} ({record.seconds:.1f} s)"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True, style="red" if record.error else "")

    def warned(self, message: str) -> None:
        """Pass a warning on."""
        warn_of_damage(message)
