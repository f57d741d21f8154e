"""Two sweeps on one results folder share the work: nothing is done twice, nothing is lost when one of them dies."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.sweeps import Child, Fault, numbers
from tests.faults.test_signals import until

STARTED = re.compile(r"^\[(\d)/4\] .*seed 0( \(\w+.*\))?$", re.MULTILINE)


def test_two_sweeps_share_the_work(tmp_path: Path, undisturbed: Mapping[str, Any]) -> None:
    children = [Child(tmp_path, fault=Fault(seconds=0.02)) for _ in range(2)]
    processes = [child.start() for child in children]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0], children[0].output
    started = Counter(STARTED.findall(children[0].output))  # they print into the same file
    assert started == {(str(number), ""): 1 for number in range(1, 5)}
    assert "another process is at work on it; it comes last" in children[0].output
    assert numbers(tmp_path) == undisturbed


def test_a_sweep_takes_over_what_a_killed_one_had_begun(tmp_path: Path, undisturbed: Mapping[str, Any]) -> None:
    first = Child(tmp_path, fault=Fault(seconds=30.0))
    killed = first.start()
    until(lambda: list(tmp_path.glob("results/custom/runs/simclr*/.lock")))
    second = Child(tmp_path)
    process = second.start()
    until(lambda: len(list(tmp_path.glob("results/custom/runs/*/pretraining.json"))) == 3)
    assert process.is_alive()  # it waits for the one that the other holds
    killed.kill()
    killed.join()
    process.join(60)
    assert (killed.exitcode, process.exitcode) == (-signal.SIGKILL, 0), second.output
    assert numbers(tmp_path) == undisturbed


def test_a_time_limit_ends_the_waiting_for_another_sweep(tmp_path: Path) -> None:
    first = Child(tmp_path, fault=Fault(seconds=30.0))
    holder = first.start()
    until(lambda: list(tmp_path.glob("results/custom/runs/simclr*/.lock")))
    second = Child(tmp_path, [*first.arguments, "--time-limit", "4s"])
    code = second.run()
    holder.kill()
    holder.join()
    assert code == 3, second.output
    assert "4 combinations: 3 done, 1 unfinished." in second.output
