"""Every pretext task that trains learns: its linear probe beats that of its untrained encoder.

The committed records say so, and every run of the tests looks at them; ``make test-slow`` pretrains each task anew, one
seed, about a minute each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pandas import DataFrame

import clvr_bench
from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Kind
from clvr_bench.suites import Suite, load_suite

RESULTS = Path(__file__).parent.parent / "results"
MARGIN = 10.0  # points of top-1: random_init varies by about 1 between seeds, chance is 10%
SUITE = load_suite("contract-shapes")
ITEMS = {item["name"]: item for item in SUITE.pretext_tasks if isinstance(item, dict)}
YARDSTICKS = ("raw_pixels", "random_init")
TRAINED = [name for name in ITEMS if name not in YARDSTICKS]
NOT_YET = {"bigbigan": "no budget that a CPU can pay has brought it above the untrained encoder so far"}


def gains(frame: DataFrame) -> dict[str, float]:
    """Return by how many points each task's row is above that of its untrained encoder."""
    untrained = frame[frame.pretext_task == "random_init"].set_index("encoder").top1_mean
    trained = frame[~frame.pretext_task.isin(YARDSTICKS)]
    return {row.pretext_task: row.top1_mean - untrained[row.encoder] for row in trained.itertuples()}


def test_the_suite_has_every_built_in_pretext_task() -> None:
    names = {e.name for e in load_plugins().registry.entries(Kind.PRETEXT_TASK)}
    assert set(ITEMS) | set(NOT_YET) == names


def test_the_committed_records_show_that_every_task_learns() -> None:
    found = gains(clvr_bench.leaderboard(RESULTS / "contract-shapes"))
    assert set(found) == set(TRAINED)
    assert {name: gain for name, gain in found.items() if gain < MARGIN} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_minute_of_pretraining_beats_the_untrained_encoder(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    encoders = ITEMS[name].get("encoders", SUITE.encoders)
    yardstick = {"name": "random_init", "encoders": encoders}
    content = {**SUITE.model_dump(), "seeds": [0], "pretext_tasks": [yardstick, ITEMS[name]]}
    results = tmp_path_factory.getbasetemp() / "learning"  # one folder, so that yardsticks are run once
    frame = clvr_bench.run(Suite.model_validate(content), results=results, device="cpu")
    assert gains(frame[frame.pretext_task.isin(["random_init", name])])[name] >= MARGIN
