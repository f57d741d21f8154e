"""Every pretext task that trains learns: its linear probe beats that of its untrained encoder.

The committed records say so, and every run of the tests looks at them; ``make test-slow`` pretrains anew each task that
about a minute is enough for, one seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

import clvr_bench
from clvr_bench.options import REQUIRED
from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Kind
from clvr_bench.suites import Suite, load_suite

RESULTS = Path(__file__).parent.parent / "results"
MARGIN = 10.0  # points of top-1: random_init has a standard deviation of 3 to 4 over seeds, chance is 10%
SUITE, LONG_SUITE = load_suite("contract-shapes"), load_suite("contract-shapes-long")
YARDSTICKS = ("raw_pixels", "random_init")


def items(suite: Suite) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in suite.pretext_tasks if isinstance(item, dict)}


TRAINED = [name for name in items(SUITE) if name not in YARDSTICKS]
LONGER = [name for name in items(LONG_SUITE) if name not in YARDSTICKS]  # too slow for a minute


def gains(frame: DataFrame) -> dict[str, float]:
    """Return by how many points each task's row is above that of its untrained encoder."""
    untrained = frame[frame.pretext_task == "random_init"].set_index("encoder").top1_mean
    trained = frame[~frame.pretext_task.isin(YARDSTICKS)]
    return {row.pretext_task: row.top1_mean - untrained[row.encoder] for row in trained.itertuples()}


def test_every_built_in_pretext_task_that_needs_no_file_is_in_the_suite() -> None:
    entries = load_plugins().registry.entries(Kind.PRETEXT_TASK)
    given = {e.name for e in entries if not any(option.default is REQUIRED for option in e.options.values())}
    assert set(items(SUITE)) == given
    assert {entry.name for entry in entries} - given == {"weights"}


def test_the_committed_records_show_that_every_task_learns() -> None:
    found = gains(clvr_bench.leaderboard(RESULTS / "contract-shapes"))
    found |= gains(clvr_bench.leaderboard(RESULTS / "contract-shapes-long"))
    assert set(found) == set(TRAINED)
    assert {name: gain for name, gain in found.items() if gain < MARGIN} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINED if name not in LONGER])
def test_a_minute_of_pretraining_beats_the_untrained_encoder(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    encoders = items(SUITE)[name].get("encoders", SUITE.encoders)
    yardstick = {"name": "random_init", "encoders": encoders}
    content = {**SUITE.model_dump(), "seeds": [0], "pretext_tasks": [yardstick, items(SUITE)[name]]}
    results = tmp_path_factory.getbasetemp() / "learning"  # one folder, so that yardsticks are run once
    frame = clvr_bench.run(Suite.model_validate(content), results=results, device="cpu")
    assert gains(frame[frame.pretext_task.isin(["random_init", name])])[name] >= MARGIN
