"""A sweep: plans a suite's combinations against what is already done, and runs what is left, one after the other."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from clvr_bench.assembly import blaming, build_augmentation, build_task, build_task_on, encoder_facts, skip_reason
from clvr_bench.checkpoints import CHECKPOINT, WEIGHTS, load_checkpoint, load_weights, save_checkpoint, save_weights
from clvr_bench.combinations import Choice, Combination, Override, Planner
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.values import EncoderFacts, Progress
from clvr_bench.data import Data, prepare
from clvr_bench.devices import MemoryMeter, choose_precision
from clvr_bench.errors import ClvrBenchError, RunFailed
from clvr_bench.evaluating import evaluate, missing_evaluations
from clvr_bench.features import FrozenRepresentation
from clvr_bench.optimization import check_optimizer
from clvr_bench.plugins import Plugins
from clvr_bench.pretraining import Pretraining, Setting
from clvr_bench.provenance import now, provenance
from clvr_bench.records import EvaluationRecord, PretrainingRecord, write_atomically
from clvr_bench.suites import Suite

Standing = Literal["skipped", "done", "evaluate", "resume", "to do"]
"""Of a combination before it runs; ``evaluate`` where only evaluations are missing."""


class Listener:
    """Watches a sweep; every method does nothing until it is overridden."""

    def run_started(self, number: int, total: int, planned: Planned) -> None:
        """A combination starts or resumes."""

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


@dataclass(frozen=True)
class Planned:
    """A combination with its data, its place on disk, and how far it is.

    Attributes:
        combination: What is asked.
        data: On the training device.
        identity: Of its pretraining record.
        facts: Of its pretraining record, as far as they are known before it is built.
        skip: Why it makes no sense; empty where it does.
        folder: The run's folder.
        standing: How far it is.
    """

    combination: Combination
    data: Data
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]
    skip: str
    folder: Path
    standing: Standing

    @property
    def id(self) -> str:
        """Of its pretraining record."""
        return PretrainingRecord(self.identity).id


@dataclass
class Outcome:
    """What a sweep came to.

    Attributes:
        counts: Combinations by how they ended: done, failed, skipped, unfinished.
        failures: One line a failure.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


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

        Args:
            listener: Is told what happens.
            time_limit: Seconds after which the sweep stops at a checkpoint.

        Returns:
            How the combinations ended.
        """
        deadline = None if time_limit is None else time.monotonic() + time_limit
        listener, outcome = listener or Listener(), Outcome()
        for number, planned in enumerate(self.planned, start=1):
            if planned.standing == "done":
                outcome.counts["done"] += 1
                continue
            listener.run_started(number, len(self.planned), planned)
            try:
                status, reason = _Execution(self, planned, listener, deadline).run()
            except OutOfTime:
                status, reason = "unfinished", "stopped at the time limit"
            outcome.counts[status] += 1
            if status == "failed":
                outcome.failures.append(f"{planned.combination}: {reason}")
            listener.run_finished(planned, status, reason)
            if status == "unfinished":
                outcome.counts["unfinished"] += len(self.planned) - number - self._done_after(number)
                outcome.counts["done"] += self._done_after(number)
                break
        return outcome

    def _done_after(self, number: int) -> int:
        return sum(planned.standing == "done" for planned in self.planned[number:])


def plan(
    suite: Suite,
    plugins: Plugins,
    *,
    results: Path,
    device: torch.device,
    data_root: Path | None = None,
    overrides: Sequence[Override] = (),
    where: str = "suite",
) -> Sweep:
    """Look every name of a suite up, load its data, and see what is done; nothing is trained.

    Args:
        suite: What to run.
        plugins: Loaded plugins.
        results: The folder of all suites' results.
        device: Where it will run.
        data_root: Handed to every data set.
        overrides: Options from the command line.
        where: The suite's file, for messages.

    Raises:
        ClvrBenchError: Anything a user can mend, before any time is spent.
    """
    combinations = Planner(suite, plugins.registry, where, overrides).combinations()
    folder = results / suite.name
    _require_writable(folder)
    data = _load_data(combinations, data_root, device)
    encoders = _learn_encoders(combinations, data)
    precision = choose_precision(device, suite.budget.precision)
    planned = [_place(c, data[str(c.dataset)], encoders, precision, folder) for c in combinations]
    return Sweep(suite, planned, device, precision, folder, plugins)


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise ClvrBenchError(f"--results: cannot write to {folder} ({error.strerror}). Name another folder.") from None


def _load_data(combinations: Iterable[Combination], root: Path | None, device: torch.device) -> dict[str, Data]:
    loaded: dict[str, Data] = {}
    for combination in combinations:
        choice = combination.dataset
        if str(choice) not in loaded:
            try:
                dataset = choice.entry.factory(root, **choice.options)
                loaded[str(choice)] = prepare(choice.entry.name, dataset, device)
            except ClvrBenchError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                raise ClvrBenchError(f"dataset '{choice.entry.name}' could not be loaded ({reason}).") from error
        count = len(loaded[str(choice)].pretraining(combination.task.task.labels))
        if combination.task.task.trains and combination.budget.batch_size > count:
            raise ClvrBenchError(
                f"batch_size {combination.budget.batch_size} is larger than the {count} training samples of "
                f"{loaded[str(choice)].title}. Choose a smaller one, such as --batch-size {max(2, count // 8)}."
            )
    return loaded


def _learn_encoders(combinations: Iterable[Combination], data: Mapping[str, Data]) -> dict[str, EncoderFacts]:
    """Learn every encoder's facts at every size it will meet."""
    found: dict[str, EncoderFacts] = {}
    for combination in combinations:
        key = _encoder_key(combination)
        if combination.encoder and key not in found:
            found[key] = encoder_facts(combination.encoder, data[str(combination.dataset)].facts("none"))
    return found


def _encoder_key(combination: Combination) -> str:
    return f"{combination.encoder} on {combination.dataset}"


def _place(
    combination: Combination, data: Data, encoders: Mapping[str, EncoderFacts], precision: str, suite_folder: Path
) -> Planned:
    identity = combination.identity(data.fingerprint, precision)
    task = combination.task.task
    facts = {
        "dataset": data.title,
        "num_classes": data.num_classes,
        "augmentation": _describe_augmentation(combination, data),
        "labels": task.labels,
        "ranked": task.ranked,
        "options_source": combination.task.options_source,
        "options_shown": combination.options_shown,
        "data": asdict(data.facts(task.labels)),
    }
    skip = skip_reason(combination, data, encoders.get(_encoder_key(combination))) or ""
    if task.trains:
        check_optimizer(combination.task.recipe, f"pretext task '{combination.task.entry.name}', recipe")
    if not skip:
        _try_construction(combination, data)
    folder = suite_folder / "runs" / PretrainingRecord(identity, facts=facts).folder_name
    return Planned(combination, data, identity, facts, skip, folder, _standing(folder, combination, skip))


def _describe_augmentation(combination: Combination, data: Data) -> str:
    described = []
    for choice in combination.augmentation:
        augmentation = build_augmentation((choice,), data.facts(combination.task.task.labels))
        setting = [augmentation.setting] if augmentation and augmentation.setting else []
        changed = [f"{name}={value}" for name, value in choice.changed.items()]
        described.append(choice.entry.name + (f" ({', '.join(setting + changed)})" if setting or changed else ""))
    return " + ".join(described)


def _try_construction(combination: Combination, data: Data) -> None:
    """Let a task refuse its options now, not after an hour of other runs; whatever else it raises fails its own run."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            build_task(
                combination.task, combination.encoder, combination.seed, data.facts(combination.task.task.labels)
            )
    except ClvrBenchError:
        raise
    except Exception:
        return


def _standing(folder: Path, combination: Combination, skip: str) -> Standing:
    path = folder / "pretraining.json"
    if skip:
        return "skipped"
    if path.is_file():
        record = PretrainingRecord.load(path)
        if record.status == "done":
            missing = missing_evaluations(folder, record.id, combination.evaluations)
            if not missing:
                return "done"
            if (folder / WEIGHTS).is_file():
                return "evaluate"
    return "resume" if (folder / CHECKPOINT).is_file() else "to do"


class _Execution:
    """One combination, from wherever it stands to its last evaluation."""

    def __init__(self, sweep: Sweep, planned: Planned, listener: Listener, deadline: float | None) -> None:
        self._sweep, self._planned, self._listener, self._deadline = sweep, planned, listener, deadline
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
            representation = task.representation()
            representation.load_state_dict(load_weights(self._planned.folder))
            return representation
        return self._pretrain(task)

    def _pretrain(self, task: PretextTask) -> nn.Module:
        planned, sweep = self._planned, self._sweep
        augmentation = build_augmentation(planned.combination.augmentation, planned.data.facts(task.labels))
        setting = Setting(planned.combination, planned.data, augmentation, sweep.device, sweep.precision)
        with blaming(planned.combination.task.entry.name, "setting it up"):
            run = self._run = Pretraining(task, setting, self._listener.stepped)
        saved = load_checkpoint(planned.folder, sweep.device)
        if saved:
            run.load_state_dict(saved)
        self._tell("run_started", identity=planned.identity)
        meter = MemoryMeter(sweep.device)
        if not task.trains:
            run.prepare_untrained()
            run.state.peak_memory_mb = round(meter.peak_mb(), 1)
        while not run.finished:
            self._require_time(run)
            entry = run.run_epoch()
            run.state.peak_memory_mb = max(run.state.peak_memory_mb, round(meter.peak_mb(), 1))
            save_checkpoint(planned.folder, run.state_dict())
            self._listener.epoch_finished(entry)
            self._tell("epoch_finished", epoch=entry)
        with blaming(planned.combination.task.entry.name, "its representation"):
            representation = task.representation()
            measured = _measured(representation, planned)
        save_weights(planned.folder, representation)
        self._record("done", measured=measured)
        (planned.folder / CHECKPOINT).unlink(missing_ok=True)
        return representation

    def _require_time(self, run: Pretraining) -> None:
        """Stop while an epoch of the usual length still fits.

        Raises:
            OutOfTime: It no longer fits.
        """
        longest = max((entry["seconds"] for entry in run.state.history), default=0.0)
        if self._deadline is not None and time.monotonic() + longest > self._deadline:
            raise OutOfTime

    def _evaluate(self, representation: nn.Module) -> tuple[str, str]:
        planned, sweep = self._planned, self._sweep
        combination = planned.combination
        frozen = FrozenRepresentation(representation, planned.data, sweep.device, sweep.precision, combination.seed)
        failures = []
        for choice in missing_evaluations(planned.folder, planned.id, combination.evaluations):
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise OutOfTime
            self._listener.evaluating(choice.entry.name)
            record = evaluate(frozen, choice, planned.id, planned.folder, sweep.device)
            self._listener.evaluated(record)
            failures += [record.error] if record.error else []
        return ("failed", "; ".join(failures)) if failures else ("done", "")

    def _record(
        self,
        status: Literal["done", "failed", "skipped"],
        reason: str = "",
        measured: Mapping[str, int] | None = None,
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
            getattr(self._sweep.plugins.hook, hook)(run=self._planned.folder.name, **what)
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


def _measured(representation: nn.Module, planned: Planned) -> dict[str, int]:
    size, channels = planned.data.dataset.image_size, planned.data.dataset.channels
    parameters = list(representation.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    modes = representation.training
    with torch.no_grad():
        features = representation.eval()(torch.zeros(1, channels, size, size, device=device))
    representation.train(modes)
    return {"parameters": sum(p.numel() for p in parameters), "feature_dim": features.shape[1]}
