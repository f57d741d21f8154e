"""``clvr-bench run``: from flags to a suite, from a suite to finished runs, with progress throughout."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from clvr_bench.cli.app import parse_duration
from clvr_bench.cli.loading import load_with_warnings
from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.cli.reading import ReadingFlags, reading
from clvr_bench.cli.watching import watching
from clvr_bench.combinations import Override
from clvr_bench.devices import choose_device
from clvr_bench.errors import ClvrBenchError
from clvr_bench.ops.compiling import compiled_operations
from clvr_bench.suites import Item, Suite, built_in_suites, load_suite, parse_suite
from clvr_bench.sweep import Outcome, Sweep, plan

CUSTOM = {
    "name": "custom",
    "encoders": ["resnet18_small_w16"],
    "datasets": ["shapes"],
    "budget": {"epochs": 10, "batch_size": 128},
}
"""What flags alone run: the built-in data set, small enough for a CPU."""

FAILED, UNFINISHED = 1, 3


@dataclass(frozen=True)
class RunRequest:
    """The flags of ``run``, as they were given."""

    suite: str | None
    pretext_tasks: list[str]
    encoders: list[str]
    augmentations: list[str]
    datasets: list[str]
    reading: ReadingFlags
    seeds: str | None
    epochs: int | None
    batch_size: int | None
    overrides: list[str]
    results: Path
    device: str
    time_limit: str | None
    dry_run: bool
    compiled: bool
    plugins: PluginFlags


def run_request(request: RunRequest) -> int:
    """Run what was asked and return the exit code: 0 done, 1 a combination failed, 3 out of time."""
    console, errors = Console(), Console(stderr=True)
    time_limit = parse_duration(request.time_limit) if request.time_limit else None
    suite = requested_suite(request)
    overrides = [Override.parse(text) for text in request.overrides]
    device = choose_device(request.device)
    plugins = load_with_warnings(request.plugins, errors)
    where = request.suite or "command line"
    with reading(request.reading, errors) as access:
        sweep = plan(
            suite,
            plugins,
            results=request.results,
            device=device,
            access=access,
            overrides=overrides,
            where=where,
        )
    compiled = compiled_operations() if request.compiled else nullcontext()
    if request.dry_run:
        from clvr_bench.cli.dry_run import show_plan

        with compiled:
            show_plan(sweep, console)
        return 0
    with compiled, watching(sweep, console) as listener:
        outcome = sweep.run(listener, time_limit)
    return _conclude(sweep, outcome, console)


def requested_suite(request: RunRequest) -> Suite:
    """Return the named suite with the flags applied, or the suite that the flags alone make.

    A pretext task, encoder, augmentation or data set that the suite has keeps the suite's options.
    """
    if request.suite is None and not request.pretext_tasks:
        names = ", ".join(built_in_suites())
        raise ClvrBenchError(f"run: name a suite ({names}), a TOML file, or at least one --pretext-task.")
    content: dict[str, Any] = load_suite(request.suite).model_dump() if request.suite else dict(CUSTOM)
    content["budget"] = dict(content["budget"])
    chains: list[Item | list[Item]] = [_chain(text) for text in request.augmentations]
    for key, wanted in (
        ("pretext_tasks", request.pretext_tasks),
        ("encoders", request.encoders),
        ("augmentations", chains),
        ("datasets", request.datasets),
    ):
        if wanted:
            content[key] = [match for item in wanted for match in _from_suite(item, content.get(key, []))]
    if request.encoders:
        content["pretext_tasks"] = [_without_encoders(item) for item in content["pretext_tasks"]]
    if request.seeds is not None:
        content["seeds"] = _parse_seeds(request.seeds)
    content["budget"] |= {"epochs": request.epochs} if request.epochs is not None else {}
    content["budget"] |= {"batch_size": request.batch_size} if request.batch_size is not None else {}
    return parse_suite(content, request.suite or "command line")


def _chain(text: str) -> Item | list[Item]:
    names: list[Item] = list(text.split("+"))
    return names if len(names) > 1 else text


def _from_suite(item: Any, items: list[Any]) -> list[Any]:
    found = [other for other in items if isinstance(other, dict) and other.get("name") == item]
    return found or [item]


def _without_encoders(item: Item) -> Item:
    return item if isinstance(item, str) else {key: value for key, value in item.items() if key != "encoders"}


def _parse_seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ClvrBenchError(f"--seeds {text}: expected whole numbers, such as 0,1,2.") from None


def _conclude(sweep: Sweep, outcome: Outcome, console: Console) -> int:
    from clvr_bench.cli.tables import print_failures, print_new_leaderboard

    if any(sweep.results.glob("runs/*/pretraining.json")):
        print_new_leaderboard(sweep.results, console)
    counts = ", ".join(f"{count} {status}" for status, count in outcome.counts.items())
    total = sum(outcome.counts.values())
    console.print(f"{total} combination{'' if total == 1 else 's'}: {counts}.", highlight=False)
    print_failures(outcome.failures, console)
    if outcome.counts["unfinished"]:
        console.print("Stopped at the time limit; the same command goes on from the last checkpoint.")
        return UNFINISHED
    return FAILED if outcome.failures else 0
