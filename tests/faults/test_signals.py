"""Ctrl-C and SIGTERM: what is under way is saved at the next step, and the same command goes on from that very step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from clvr_bench.checkpoints import load_checkpoint
from tests.faults.sweeps import Child, Fault, numbers

SLOW = Fault(seconds=0.2)


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happens"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_and_leaves_cleanly(
    tmp_path: Path, undisturbed: Mapping[str, Any], number: signal.Signals, code: int
) -> None:
    child = Child(tmp_path, fault=SLOW)
    process = child.start()
    until(lambda: list(tmp_path.glob("results/custom/runs/simclr*/checkpoint.pt")))
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == code, child.output
    assert "clvr-bench: interrupted; finished work is kept, and the same command goes on from there." in child.output
    assert "Traceback" not in child.output
    (run,) = tmp_path.glob("results/custom/runs/simclr*")
    saved = load_checkpoint(run, torch.device("cpu"))
    assert saved is not None
    assert saved["underway"]["steps"] or saved["state"]["epoch"]
    assert not list(tmp_path.rglob("*.partial"))
    again = Child(tmp_path)
    assert again.run() == 0, again.output
    assert "(resuming)" in again.output
    assert numbers(tmp_path) == undisturbed


def test_a_time_limit_stops_within_an_epoch_and_is_gone_on_from_there(
    tmp_path: Path, undisturbed: Mapping[str, Any]
) -> None:
    child = Child(tmp_path, [*Child(tmp_path).arguments, "--time-limit", "1s"], Fault(seconds=0.4))
    assert child.run() == 3, child.output
    (run,) = tmp_path.glob("results/custom/runs/simclr*")
    saved = load_checkpoint(run, torch.device("cpu"))
    assert saved is not None
    assert saved["state"]["epoch"] == 0
    assert 0 < saved["underway"]["steps"] < 5
    assert "4 combinations: 4 unfinished." in child.output
    again = Child(tmp_path)
    assert again.run() == 0, again.output
    assert numbers(tmp_path) == undisturbed


def test_a_signal_outside_training_does_not_wait(tmp_path: Path, undisturbed: Mapping[str, Any]) -> None:
    child = Child(tmp_path, fault=Fault("clvr_bench.evaluating:_score", signal=signal.SIGTERM))
    assert child.run() == 143, child.output
    assert not list(tmp_path.glob("results/custom/runs/*/evaluations/*"))
    again = Child(tmp_path)
    assert again.run() == 0, again.output
    assert "(evaluating only)" in again.output
    assert numbers(tmp_path) == undisturbed
