"""What a combination will cost, measured on a few real steps rather than guessed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from clvr_bench.assembly import build_augmentation, build_task_on
from clvr_bench.devices import MemoryMeter
from clvr_bench.features import BATCH, evenly, extract
from clvr_bench.planning import Planned
from clvr_bench.pretraining import Pretraining, Setting
from clvr_bench.sweep import Sweep

STEPS = 4  # the first warms up and is not timed


@dataclass(frozen=True)
class Estimate:
    """The cost of one combination.

    Attributes:
        seconds: Of pretraining and of extracting features; probes come on top.
        memory_mb: Peak while a step was taken, the data included.
        disk_mb: Checkpoint and weights, while it runs.
    """

    seconds: float
    memory_mb: float
    disk_mb: float


def estimate(planned: Planned, sweep: Sweep) -> Estimate:
    """Take a few steps of a combination, throw them away, and say what all of them will cost.

    Raises:
        RunFailed: The task raised, as it will when it runs.
    """
    combination, data = planned.combination, planned.data
    facts = data.facts(combination.task.task.labels)
    meter = MemoryMeter(sweep.device)
    task = build_task_on(sweep.device, combination, facts)
    augmentation = build_augmentation(combination.augmentation, facts)
    run = Pretraining(task, Setting(combination, data, augmentation, sweep.device, sweep.precision))
    seconds = run.time_steps(STEPS) * run.steps_per_epoch * run.epochs
    sample = evenly(data.train, BATCH)
    started = time.perf_counter()
    extract(task.representation(), sample, data.dataset.image_size, sweep.device, sweep.precision)
    per_sample = (time.perf_counter() - started) / len(sample)
    monitored = 2 * len(sample) * run.epochs
    seconds += per_sample * (len(data.train) + len(data.val) + len(data.test) + monitored)
    weights = sum(p.numel() * p.element_size() for p in task.parameters()) / 1e6
    return Estimate(seconds, meter.peak_mb(), weights * (4 if task.trains else 1))
