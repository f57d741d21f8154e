"""kill -9 at named moments and at random ones: the final numbers are those of an undisturbed sweep, to the bit."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.sweeps import Child, Fault, numbers

KILLS = int(os.environ.get("CLVR_BENCH_TEST_KILLS", "30"))  # more for a longer search
MOMENTS = {
    "before the first step": Fault("clvr_bench.pretraining:Pretraining._step"),
    "within the first epoch": Fault("clvr_bench.pretraining:Pretraining._step", call=3),
    "within a later epoch": Fault("clvr_bench.pretraining:Pretraining._step", call=9, after=True),
    "within an epoch of a task with dropout": Fault("clvr_bench.pretraining:Pretraining._step", call=24),
    "at the k-NN of an epoch": Fault("clvr_bench.pretraining:Pretraining._monitor", call=2),
    "within the writing of a checkpoint": Fault("clvr_bench.files:os.fsync", call=4),
    "before a checkpoint takes its name": Fault("clvr_bench.files:Path.replace", call=5, about="checkpoint.pt"),
    "after a checkpoint took its name": Fault("clvr_bench.files:Path.replace", call=6, about="checkpoint", after=True),
    "before the weights are written": Fault("clvr_bench.sweep:save_weights"),
    "between weights and record": Fault("clvr_bench.sweep:save_weights", after=True),
    "within the writing of a record": Fault("clvr_bench.files:Path.replace", about="pretraining.json"),
    "between record and evaluation": Fault("clvr_bench.files:Path.replace", about="pretraining.json", after=True),
    "within the features": Fault("clvr_bench.features:center_view", call=25),
    "before the probe": Fault("clvr_bench.evaluating:_score"),
    "after the probe": Fault("clvr_bench.evaluating:_score", after=True),
    "between predictions and evaluation record": Fault("clvr_bench.files:Path.replace", about=".npz", after=True),
    "after an evaluation record": Fault("clvr_bench.files:Path.replace", about="evaluations/knn", call=3, after=True),
    "in the last run": Fault("clvr_bench.evaluating:_score", call=11),
    "before the table is written": Fault("clvr_bench.tables:write_leaderboard"),
    "within the writing of the table": Fault("clvr_bench.files:Path.replace", about="leaderboard.csv"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_loses_nothing_but_time(tmp_path: Path, undisturbed: Mapping[str, Any], moment: str) -> None:
    assert Child(tmp_path, fault=MOMENTS[moment]).run() == -signal.SIGKILL
    child = Child(tmp_path)
    assert child.run() == 0, child.output
    assert numbers(tmp_path) == undisturbed


def test_kills_at_random_moments_lose_nothing_but_time(tmp_path: Path, undisturbed: Mapping[str, Any]) -> None:
    luck = random.Random(0)
    kills, sweeps = 0, 0
    while kills < KILLS:
        folder = tmp_path / str(sweeps)
        folder.mkdir()
        while True:
            child = Child(folder)
            process = child.start()
            process.join(luck.uniform(0.1, 1.0))
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            kills += 1
        assert process.exitcode == 0, child.output
        assert numbers(folder) == undisturbed
        sweeps += 1
