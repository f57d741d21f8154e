"""Sweeps in processes of their own, to be killed: forked from one that has imported everything and computed nothing.

A kill is a real SIGKILL. Where it must hit a certain moment, the child wraps the function whose call is that moment.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from clvr_bench.records import load_runs
from clvr_bench.tables import render
from tests.conftest import CONTRACT_PLUGINS, TINY

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.imported"])
FLAGS = [
    "--pretext-task", "simclr", "--pretext-task", "dropout", "--pretext-task", "queued",
    "--pretext-task", "random_init", "--epochs", "3",
]  # fmt: skip
TIMES = ("seconds_mean", "images_per_second_mean", "peak_memory_mb")


@dataclass(frozen=True)
class Fault:
    """What is to happen to a child.

    Attributes:
        at: ``"module:function"`` whose call is the moment; a method as ``"module:Class.method"``.
        call: The number of that call, counted from 1.
        about: Only calls whose arguments mention this count.
        after: Whether it hits after the call instead of before.
        signal: What hits.
        file_size: Bytes beyond which the system refuses to write, as on a full disk; 0 for no limit.
        seconds: Of every step, so that a signal finds one under way; 0 for as long as it takes.
    """

    at: str = ""
    call: int = 1
    about: str = ""
    after: bool = False
    signal: signal.Signals = signal.SIGKILL
    file_size: int = 0
    seconds: float = 0.0


@dataclass
class Child:
    """A sweep in a process of its own; what it prints lies in ``output``."""

    folder: Path
    arguments: Sequence[object] = tuple(FLAGS)
    fault: Fault = field(default_factory=Fault)

    def start(self) -> ForkServerProcess:
        process = CONTEXT.Process(target=_sweep, args=(self.folder, [str(a) for a in self.arguments], self.fault))
        process.start()
        return process

    def run(self) -> int:
        """Return its exit code; minus a signal's number where that ended it."""
        process = self.start()
        process.join(120)
        assert process.exitcode is not None, "it hangs"
        return process.exitcode

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()


def _sweep(folder: Path, arguments: Sequence[str], fault: Fault) -> None:
    import torch

    from clvr_bench import sweep
    from clvr_bench.cli import main

    torch.set_num_threads(1)
    os.chdir(folder)
    with Path("output").open("a") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    sys.stdout = sys.stderr = os.fdopen(os.dup(1), "w", buffering=1)
    sweep.CHECKPOINT_SECONDS = 0.0  # a checkpoint after every step
    _prepare(fault)
    sys.argv = ["clvr-bench", "--plugins-dir", str(CONTRACT_PLUGINS), "run", *TINY, *arguments]
    main()


def _prepare(fault: Fault) -> None:
    if fault.file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_size, fault.file_size))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing raises, as on a full disk
    if fault.at:
        _wrap(fault.at, partial(_Moment, fault))
    if fault.seconds:
        _wrap("clvr_bench.pretraining:Pretraining._step", partial(_Slow, fault.seconds))


def _wrap(place: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = sys.modules[module]
    for part in owners:
        owner = getattr(owner, part)
    wrapped = wrapper(getattr(owner, name))
    setattr(owner, name, lambda *arguments, **named: wrapped(*arguments, **named))  # a function, so that it binds


class _Moment:
    def __init__(self, fault: Fault, original: Callable[..., Any]) -> None:
        self._fault, self._original, self._calls = fault, original, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._calls += self._fault.about in f"{arguments}{named}"
        hits = self._calls == self._fault.call
        if hits and not self._fault.after:
            os.kill(os.getpid(), self._fault.signal)
        result = self._original(*arguments, **named)
        if hits and self._fault.after:
            os.kill(os.getpid(), self._fault.signal)
        return result


class _Slow:
    def __init__(self, seconds: float, original: Callable[..., Any]) -> None:
        self._seconds, self._original = seconds, original

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        import time

        time.sleep(self._seconds)
        return self._original(*arguments, **named)


def numbers(folder: Path) -> Mapping[str, Any]:
    """Return everything that must be the same whatever happened: weights, losses, scores, predictions, the table."""
    results = folder / "results" / "custom"
    found: dict[str, Any] = {}
    for run in load_runs(results):
        files = [run.folder / "weights.safetensors", *sorted((run.folder / "evaluations").glob("*.npz"))]
        found[run.folder.name] = {
            "status": run.pretraining.status,
            "history": [{k: v for k, v in entry.items() if k != "seconds"} for entry in run.pretraining.history],
            "passes": run.pretraining.compute["encoder_passes"],
            "scores": {record.file_stem: record.metrics for record in run.evaluations},
            "files": {path.name: path.read_bytes() for path in files},
        }
    from clvr_bench.standings import leaderboard

    written = (results / "leaderboard.csv").read_text()
    assert written == render(leaderboard(results), "csv")
    found["table"] = leaderboard(results).drop(columns=list(TIMES)).to_csv()
    return found
