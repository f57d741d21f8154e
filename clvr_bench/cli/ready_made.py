"""``clvr-bench evaluate --weights FILE``: judges weights that exist already, as a suite of one combination."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from clvr_bench.cli.loading import load_with_warnings
from clvr_bench.cli.reading import reading
from clvr_bench.cli.tables import print_failures, print_new_leaderboard
from clvr_bench.cli.watching import watching
from clvr_bench.combinations import Override
from clvr_bench.devices import choose_device
from clvr_bench.errors import ClvrBenchError
from clvr_bench.records import Run
from clvr_bench.suites import parse_suite
from clvr_bench.sweep import Sweep, plan

if TYPE_CHECKING:
    from clvr_bench.cli.evaluating import EvaluateRequest

TASK = "weights"
"""The pretext task that takes a file for the encoder's weights, and trains nothing."""
SUITE = "evaluated"
FAILED = 1
BUDGET = {"epochs": 1, "batch_size": 2}
"""A suite needs one; nothing is trained, so no record has it."""


def evaluate_weights(request: EvaluateRequest, weights: Path) -> int:
    """Evaluate a file of weights and return the exit code: 0 done, 1 something failed.

    Raises:
        ClvrBenchError: The network or the data set is not named, or the file does not fit.
    """
    for flag, value, such_as in (("encoder", request.encoder, "resnet50"), ("dataset", request.dataset, "cifar10")):
        if not value:
            raise ClvrBenchError(f"evaluate --weights {weights}: name --{flag} too, such as --{flag} {such_as}.")
    console, errors = Console(), Console(stderr=True)
    suite, overrides = parse_suite(_suite(request, weights), "evaluate"), list(map(Override.parse, request.overrides))
    device, plugins = choose_device(request.device), load_with_warnings(request.plugins, errors)
    with reading(request.reading, errors) as access:
        sweep = plan(
            suite,
            plugins,
            results=request.results,
            device=device,
            access=access,
            overrides=overrides,
            where="evaluate",
        )
    with watching(sweep, console) as listener:
        outcome = sweep.run(listener)
    for report in _reports(sweep):
        console.print(report, markup=False, highlight=False, soft_wrap=True)
    if any(sweep.results.glob("runs/*/pretraining.json")):
        print_new_leaderboard(sweep.results, console)
    print_failures(outcome.failures, console)
    return FAILED if outcome.failures else 0


def _reports(sweep: Sweep) -> Iterator[str]:
    """Yield what each finished run's record says of which tensors were taken."""
    for planned in sweep.planned:
        if (planned.folder / "pretraining.json").is_file():
            facts = Run.load(planned.folder).pretraining.facts.get("task", {})
            if "report" in facts:
                yield f"{facts['file']} as {planned.combination.encoder}: {facts['report']}"


def _suite(request: EvaluateRequest, weights: Path) -> dict[str, Any]:
    """Return a suite of one combination, as TOML would give it."""
    options = {"file": str(weights), "format": request.weights_format, "labels": request.labels}
    source = f"{request.name} ({weights.name})" if request.name else weights.name
    task = {"name": TASK, **{key: value for key, value in options.items() if value}, "options_source": source}
    return {
        "name": request.suite or SUITE,
        "encoders": [request.encoder],
        "datasets": [request.dataset],
        "budget": BUDGET,
        "pretext_tasks": [{**task, "partial": True} if request.partial else task],
        **({"evaluations": request.evaluations} if request.evaluations else {}),
    }
