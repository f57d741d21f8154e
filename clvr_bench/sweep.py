"""A sweep: plans a suite's combinations against what is already done, and runs what is left, one after the other."""

from __future__ import annotations

import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from clvr_bench.assembly import blaming, build_augmentation, build_task_on
from clvr_bench.checkpoints import load_checkpoint, load_weights, save_checkpoint, save_weights
from clvr_bench.combinations import Choice, Override, Planner
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.values import Progress
from clvr_bench.data import Access
from clvr_bench.devices import MemoryMeter, choose_precision, keep_freed_memory
from clvr_bench.errors import DamagedFile, RunFailed
from clvr_bench.evaluating import evaluate, missing_evaluations
from clvr_bench.features import FrozenRepresentation
from clvr_bench.files import lock, set_aside, write_atomically
from clvr_bench.interruption import interruption
from clvr_bench.planning import Planned, damages, place, require_writable, standing_of
from clvr_bench.plugins import Plugins
from clvr_bench.pretraining import Pretraining, Setting
from clvr_bench.provenance import now, provenance
from clvr_bench.records import CHECKPOINT, LOCK, WEIGHTS, EvaluationRecord, PretrainingRecord
from clvr_bench.suites import Suite


class Listener:
    """Watches a sweep; every method does nothing until it is overridden."""

    def run_started(self, number: int, total: int, planned: Planned) -> None:
        """A combination starts or resumes."""

    def run_postponed(self, number: int, total: int, planned: Planned) -> None:
        """Another process is at work on a combination; it comes up again after all others."""

    def run_found_done(self, planned: Planned) -> None:
        """Another process has finished a combination that was left to it."""

    def stepped(self, progress: Progress) -> None:
        """An optimizer step is done; ``progress`` names the next."""

    def epoch_finished(self, entry: Mapping[str, Any]) -> None:
        """An epoch is done and its checkpoint written."""

    def evaluating(self, name: str) -> None:
        """An evaluation starts."""

    def evaluated(self, record: EvaluationRecord) -> None:
        """An evaluation is done."""

    def run_finished(self, planned: Planned, status: str, reason: str) -> None:
        """A combination ended: done, failed, skipped, or stopped at a checkpoint."""

    def warned(self, message: str) -> None:
        """Something went wrong that stops nothing."""


@dataclass
class Outcome:
    """What a sweep came to.

    Attributes:
        counts: Combinations by how they ended: done, failed, skipped, unfinished.
        failures: One line a failure.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


CHECKPOINT_SECONDS = 600.0
"""Within a long epoch, a checkpoint is written this often: what a kill loses at most."""
WAIT_SECONDS = 1.0
"""Between looks at whether another process is done with what is left."""


class OutOfTime(Exception):  # noqa: N818 - not an error
    """The time limit would be passed; everything up to the last checkpoint is saved."""


@dataclass(frozen=True)
class Sweep:
    """A planned suite, ready to run.

    Attributes:
        suite: What was asked.
        planned: Its combinations, in the order in which they run.
        device: Where they run.
        precision: ``"bf16"`` or ``"fp32"``.
        results: The suite's folder.
        plugins: Their observers are told.
    """

    suite: Suite
    planned: list[Planned]
    device: torch.device
    precision: str
    results: Path
    plugins: Plugins

    def run(self, listener: Listener | None = None, time_limit: float | None = None) -> Outcome:
        """Run every combination that is not done; a failed one does not stop the others.

        Records of those that are done say from now on what the suite says of where their options come from.

        Other processes may run the same suite into the same folder: they share the work.

        Args:
            listener: Is told what happens.
            time_limit: Seconds after which the sweep stops at a checkpoint.

        Returns:
            How the combinations ended.

        Raises:
            Interrupted: By Ctrl-C or SIGTERM; what was under way is saved.
            CannotWrite: The disk is full; what was finished is kept.
        """
        deadline = inf if time_limit is None else time.monotonic() + time_limit
        listener, outcome = listener or Listener(), Outcome()
        left = [planned for planned in self.planned if planned.standing != "done"]
        for planned in self.planned:
            if planned.standing == "done":
                _restate_source(planned)
        if len(left) < len(self.planned):
            outcome.counts["done"] = len(self.planned) - len(left)
        with interruption:
            while left and not outcome.counts["unfinished"]:
                left = self._pass_over(left, outcome, _Watch(listener, deadline))
        return outcome

    def _pass_over(self, left: Sequence[Planned], outcome: Outcome, watch: _Watch) -> list[Planned]:
        """Run those combinations that no other process is at work on, and return the others."""
        busy: list[Planned] = []
        for position, planned in enumerate(left):
            with lock(planned.folder / LOCK) as held:
                if held:
                    self._run_one(planned, outcome, watch)
                else:
                    busy.append(planned)
                    watch.listener.run_postponed(*self._number(planned), planned)
            if outcome.counts["unfinished"]:
                outcome.counts["unfinished"] += len(busy) + len(left) - position - 1
                return []
        if len(busy) == len(left):  # nothing to do but wait until another process is done, or gone
            if time.monotonic() > watch.deadline:
                outcome.counts["unfinished"] += len(busy)
                return []
            time.sleep(WAIT_SECONDS)
        return busy

    def _run_one(self, planned: Planned, outcome: Outcome, watch: _Watch) -> None:
        """Take a combination from wherever it stands by now to its end."""
        for damage in list(damages(planned.folder)):
            aside = " and ".join(set_aside(path).name for path in damage.paths)
            watch.listener.warned(f"{damage.reason} Set aside as {aside}, and made anew.")
        planned = replace(planned, standing=standing_of(planned.folder, planned.combination, planned.skip))
        if planned.standing == "done":  # by another process
            outcome.counts["done"] += 1
            watch.listener.run_found_done(planned)
            return
        watch.listener.run_started(*self._number(planned), planned)
        try:
            status, reason = _Execution(self, planned, watch).run()
        except OutOfTime:
            status, reason = "unfinished", "stopped at the time limit"
        outcome.counts[status] += 1
        if status == "failed":
            outcome.failures.append(f"{planned.combination}: {reason}")
        watch.listener.run_finished(planned, status, reason)

    def _number(self, planned: Planned) -> tuple[int, int]:
        """Return which of how many a combination is, counted from 1."""
        folders = [other.folder for other in self.planned]
        return folders.index(planned.folder) + 1, len(folders)


@dataclass(frozen=True)
class _Watch:
    """Who is told of a combination's progress, and what may stop it."""

    listener: Listener
    deadline: float

    @property
    def must_stop(self) -> bool:
        return interruption.requested is not None or time.monotonic() > self.deadline

    def require_time(self) -> None:
        """Stop at the time limit.

        Raises:
            OutOfTime: It is reached.
        """
        if time.monotonic() > self.deadline:
            raise OutOfTime


def plan(
    suite: Suite,
    plugins: Plugins,
    *,
    results: Path,
    device: torch.device,
    access: Access | None = None,
    overrides: Sequence[Override] = (),
    where: str = "suite",
) -> Sweep:
    """Look every name of a suite up, load its data, and see what is done; nothing is trained.

    Args:
        suite: What to run.
        plugins: Loaded plugins.
        results: The folder of all suites' results.
        device: Where it will run.
        access: How the data are reached; as by default where None.
        overrides: Options from the command line.
        where: The suite's file, for messages.

    Raises:
        ClvrBenchError: Anything a user can mend, before any time is spent.
    """
    combinations = Planner(suite, plugins.registry, where, overrides).combinations()
    folder = results / suite.name
    require_writable(folder)
    if device.type == "cpu":
        keep_freed_memory()
    precision = choose_precision(device, suite.budget.precision)
    planned = place(combinations, folder, device=device, precision=precision, access=access or Access())
    return Sweep(suite, planned, device, precision, folder, plugins)


class _Execution:
    """One combination, from wherever it stands to its last evaluation."""

    def __init__(self, sweep: Sweep, planned: Planned, watch: _Watch) -> None:
        self._sweep, self._planned, self._watch = sweep, planned, watch
        self._listener = watch.listener
        self._started = now()
        self._run: Pretraining | None = None

    def run(self) -> tuple[str, str]:
        """Return how it ended, and why if it did not end well."""
        planned = self._planned
        if planned.skip:
            self._record("skipped", planned.skip)
            return "skipped", planned.skip
        try:
            representation = self._representation()
        except RunFailed as failure:
            self._record("failed", str(failure))
            cause = traceback.format_exception(failure.__cause__ or failure)
            write_atomically(planned.folder / "error.txt", "".join(cause).encode())
            return "failed", str(failure)
        return self._evaluate(representation)

    def _representation(self) -> nn.Module:
        combination = self._planned.combination
        facts = self._planned.data.facts(combination.task.task.labels)
        task = build_task_on(self._sweep.device, combination, facts)
        if self._planned.standing == "evaluate":
            record = PretrainingRecord.load(self._planned.folder / "pretraining.json")
            weights = self._unless_damaged(WEIGHTS, lambda: load_weights(self._planned.folder, record.weights))
            if weights is not None:
                representation = task.representation()
                representation.load_state_dict(weights)
                return representation
        return self._pretrain(task)

    def _unless_damaged(self, name: str, load: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
        """Load a file of the run's; a damaged one is named and set aside, never deleted."""
        try:
            return load()
        except DamagedFile as error:
            aside = set_aside(self._planned.folder / name)
            self._listener.warned(f"{error} Set aside as {aside.name}; the run starts over.")
            return None

    def _pretrain(self, task: PretextTask) -> nn.Module:
        planned, sweep = self._planned, self._sweep
        augmentation = build_augmentation(planned.combination.augmentation, planned.data.facts(task.labels))
        setting = Setting(planned.combination, planned.data, augmentation, sweep.device, sweep.precision)
        with blaming(planned.combination.task.entry.name, "setting it up"):
            run = self._run = Pretraining(task, setting, self._listener.stepped)
        saved = self._unless_damaged(CHECKPOINT, lambda: load_checkpoint(planned.folder, sweep.device))
        if saved:
            run.load_state_dict(saved)
        self._tell("run_started", identity=planned.identity)
        meter = MemoryMeter(sweep.device)
        if not task.trains:
            run.prepare_untrained()
            run.state.peak_memory_mb = round(meter.peak_mb(), 1)
        while not run.finished:
            self._train(run, meter)
        with blaming(planned.combination.task.entry.name, "its representation"):
            representation = task.representation()
            measured = {**_measured(representation, planned), **_facts_of(task)}
        written = save_weights(planned.folder, representation)
        self._record("done", measured=measured, weights=written)
        (planned.folder / CHECKPOINT).unlink(missing_ok=True)
        return representation

    def _train(self, run: Pretraining, meter: MemoryMeter) -> None:
        """Train to the end of an epoch, or until it is time to save or to stop, and write a checkpoint.

        Raises:
            OutOfTime: The time limit is reached.
            Interrupted: Somebody asked for it; the checkpoint is written.
        """
        self._watch.require_time()
        due = time.monotonic() + CHECKPOINT_SECONDS
        with interruption.deferred():
            is_epoch = run.run_epoch(pause=lambda: self._watch.must_stop or time.monotonic() > due)
            run.state.peak_memory_mb = max(run.state.peak_memory_mb, round(meter.peak_mb(), 1))
            save_checkpoint(self._planned.folder, run.state_dict())
            if is_epoch:
                self._listener.epoch_finished(run.state.history[-1])
                self._tell("epoch_finished", epoch=run.state.history[-1])

    def _evaluate(self, representation: nn.Module) -> tuple[str, str]:
        planned, sweep = self._planned, self._sweep
        combination = planned.combination
        frozen = FrozenRepresentation(representation, planned.data, sweep.device, sweep.precision, combination.seed)
        failures = []
        for choice in missing_evaluations(planned.folder, planned.id, combination.evaluations):
            self._watch.require_time()
            self._listener.evaluating(choice.entry.name)
            record = evaluate(frozen, choice, planned.id, planned.folder, sweep.device)
            self._listener.evaluated(record)
            self._tell("evaluation_finished", record=record)
            failures += [record.error] if record.error else []
        return ("failed", "; ".join(failures)) if failures else ("done", "")

    def _record(
        self,
        status: Literal["done", "failed", "skipped"],
        reason: str = "",
        measured: Mapping[str, Any] | None = None,
        weights: str = "",
    ) -> None:
        planned = self._planned
        run = self._run
        record = PretrainingRecord(
            identity=planned.identity,
            status=status,
            reason=reason,
            facts={**planned.facts, **(measured or {})},
            compute=_compute(run) if run else {},
            history=run.state.history if run else [],
            weights=weights,
            provenance=provenance(self._sweep.device, self._plugin_names(), self._started),
        )
        (planned.folder / "error.txt").unlink(missing_ok=True)
        record.save(planned.folder / "pretraining.json")
        self._tell("run_finished", record=record)

    def _plugin_names(self) -> list[str]:
        combination = self._planned.combination
        choices: list[Choice | None] = [
            combination.task,
            combination.encoder,
            combination.dataset,
            *combination.augmentation,
        ]
        return [choice.entry.plugin for choice in choices if choice]

    def _tell(self, hook: str, **what: object) -> None:
        """Call the observers; one that raises is named, and the run goes on."""
        try:
            folder = self._planned.folder
            getattr(self._sweep.plugins.hook, hook)(run=folder.name, folder=folder, **what)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._listener.warned(
                f"an observer's {hook} raised {type(error).__name__}: {error} ({Path(place.filename).name})"
            )


def _compute(run: Pretraining) -> dict[str, float]:
    state = run.state
    images = len(state.history) * run.steps_per_epoch * run.setting.combination.budget.batch_size
    return {
        "seconds": round(state.seconds, 2),
        "images_per_second": round(images / state.seconds, 1) if images else 0.0,
        "peak_memory_mb": state.peak_memory_mb,
        "encoder_passes": state.passes,
    }


def _restate_source(planned: Planned) -> None:
    """Let the record of a finished run say what its suite says by now of where its options come from."""
    path, source = planned.folder / "pretraining.json", planned.facts["options_source"]
    record = PretrainingRecord.load(path)
    if record.facts.get("options_source") != source:
        replace(record, facts={**record.facts, "options_source": source}).save(path)


def _facts_of(task: PretextTask) -> dict[str, Any]:
    """Return what a task wants kept, as it will be read back; nothing where there is nothing."""
    facts = json.loads(json.dumps(dict(task.facts()), allow_nan=False))
    return {"task": facts} if facts else {}


def _measured(representation: nn.Module, planned: Planned) -> dict[str, int]:
    size, channels = planned.data.dataset.image_size, planned.data.dataset.channels
    parameters = list(representation.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    modes = representation.training
    with torch.no_grad():
        features = representation.eval()(torch.zeros(1, channels, size, size, device=device))
    representation.train(modes)
    return {"parameters": sum(p.numel() for p in parameters), "feature_dim": features.shape[1]}
