"""A pretext task on the stage: short pretrainings on a few dozen pictures, watched at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from clvr_bench.assembly import build_augmentation, build_task_on, encoder_facts, skip_reason
from clvr_bench.combinations import Combination, Planner
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.values import Batch, Progress
from clvr_bench.errors import ClvrBenchError, RunFailed
from clvr_bench.options import InputFile
from clvr_bench.pretraining import Pretraining, Setting
from clvr_bench.suites import parse_suite
from clvr_bench.testing.checks import NotApplicable, Violation
from clvr_bench.testing.stage import CPU, ENTRIES, PICTURES, RESNET, VIT, pictures
from clvr_bench.testing.subject import Subject

BATCH, EPOCHS = 16, 2


class TaskTrial:
    """A pretext task with the options that it is tried under.

    Args:
        subject: The registered task. Beside its options it may have ``encoders``, as in a suite: what to try it with
            instead of the stage's, for a task that is given a file which is for another.
    """

    def __init__(self, subject: Subject) -> None:
        self.entry = subject.entry
        self.task: type[PretextTask] = self.entry.factory  # type: ignore[assignment]  # checked when it was registered
        self._registry = subject.registry.extended(self.entry, *ENTRIES)
        given = {**self.task.check_options, **subject.options}
        encoders = given.pop("encoders", (RESNET, VIT))
        self._encoders: tuple[str, ...] = (encoders,) if isinstance(encoders, str) else tuple(encoders)
        self._options = given
        replace(subject, options=self._options).choice()  # a wrong one stops the check

    def skip_reason(self, encoder: str) -> str | None:
        """Say why the task does not run with an encoder; None where it does."""
        combination = self._combination(encoder, {})
        facts = pictures().facts(self.task.labels)
        return skip_reason(
            combination,
            pictures(),
            encoder_facts(combination.encoder, facts) if combination.encoder else None,
        ) or self._file_refused(combination)

    def _file_refused(self, combination: Combination) -> str | None:
        """Say why a task refuses a file that it is given for an encoder; None where it does not, or is given none."""
        if not any(isinstance(value, InputFile) for value in combination.task.options.values()):
            return None
        try:
            build_task_on(CPU, combination, pictures().facts(self.task.labels))
        except RunFailed as failure:
            return str(failure).rstrip(".") if isinstance(failure.__cause__, ClvrBenchError) else None
        return None

    @cached_property
    def encoder(self) -> str:
        """The first encoder that the task runs with, of those named or else of the stage's."""
        reasons = {name: self.skip_reason(name) for name in self._encoders}
        for name, reason in reasons.items():
            if reason is None:
                return name
        told = "; ".join(map(str, reasons.values()))
        if any(option.annotation is InputFile for option in self.entry.options.values()):
            hint = f"Name one that its file is for: --set '{self.entry.name}.encoders=[\"resnet50\"]'"
            raise NotApplicable(f"Its file is for no encoder of the check ({told}). {hint}.")
        raise Violation(f"It skips every encoder: {told}.")

    def start(
        self,
        *,
        encoder: str | None = None,
        precision: str = "fp32",
        seed: int = 0,
        epochs: int = EPOCHS,
        recipe: Mapping[str, Any] | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> Pretraining:
        """Set a pretraining of the task up, on the CPU."""
        combination = self._combination(encoder or self.encoder, recipe or {}, seed=seed, epochs=epochs)
        facts = pictures().facts(self.task.labels)
        augmentation = build_augmentation(combination.augmentation, facts)
        setting = Setting(combination, pictures(), augmentation, CPU, precision)
        return Pretraining(build_task_on(CPU, combination, facts), setting, on_step)

    def _combination(
        self, encoder: str, recipe: Mapping[str, Any], *, seed: int = 0, epochs: int = EPOCHS
    ) -> Combination:
        content = {
            "name": "check",
            "seeds": [seed],
            "encoders": [encoder],
            "datasets": [PICTURES],
            "budget": {"epochs": epochs, "batch_size": BATCH},
            "pretext_tasks": [{"name": self.entry.name, **self._options, "recipe": dict(recipe)}],
        }
        return Planner(parse_suite(content, "check"), self._registry, "check").combinations()[0]

    def train(self) -> Watched:
        """Train for two epochs, watched; once.

        Raises:
            NotApplicable: It does not train.
            ClvrBenchError: Whatever went wrong.
        """
        if not self.task.trains:
            raise NotApplicable("It is not trained.")
        return self._watched

    @cached_property
    def _watched(self) -> Watched:
        return Watched(self)

    @property
    def trained(self) -> Watched:
        """The watched pretraining, for rules that mean nothing without one.

        Raises:
            NotApplicable: There is none.
        """
        try:
            return self.train()
        except NotApplicable:
            raise
        except Exception:
            raise NotApplicable("It does not train.") from None


class Watched:
    """A whole pretraining and what was seen to happen in it.

    Attributes:
        run: The pretraining, finished.
        reached: Parameters that had a gradient other than zero in at least one step.
        frozen_reached: Parameters that no optimizer moves and that had a gradient all the same.
        moved: By method (``forward``, ``after_step``, ``before_epoch``), the state that it moved.
    """

    def __init__(self, trial: TaskTrial) -> None:
        self.reached: set[str] = set()
        self.frozen_reached: set[str] = set()
        self.moved: dict[str, set[str]] = {}
        self.run = trial.start(on_step=lambda _: self._look_at_gradients())
        for method in ("forward", "after_step", "before_epoch"):
            self._watch(method)
        while not self.run.finished:
            self.run.run_epoch()

    def _look_at_gradients(self) -> None:
        for name, parameter in self.run.task.named_parameters():
            if parameter.grad is not None and parameter.requires_grad and parameter.grad.any():
                self.reached.add(name)
            if parameter.grad is not None and parameter not in self.run.optimized:
                self.frozen_reached.add(name)

    def _watch(self, method: str) -> None:
        task, original = self.run.task, getattr(self.run.task, method)
        moved = self.moved.setdefault(method, set())

        def watched(*arguments: Any) -> Any:
            before = state_of(task)
            result = original(*arguments)
            moved.update(changed(before, state_of(task)))
            return result

        setattr(task, method, watched)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Copy a module's parameters and buffers, also those that no checkpoint keeps."""
    return {name: tensor.detach().clone() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Return the names of tensors that differ, or are new."""
    return {name for name, tensor in after.items() if name not in before or not _same(before[name], tensor)}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def statistics_of(module: nn.Module) -> set[str]:
    """Return the names of the statistics that normalization layers keep."""
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, layer in module.named_modules()
        if isinstance(layer, _NormBase)
        for name, _ in layer.named_buffers(recurse=False)
    }


def first_batch(run: Pretraining, phase: str, order: Tensor | None = None) -> Batch:
    """Prepare the epoch and make its first batch.

    Args:
        run: A pretraining.
        phase: Of the task's phases.
        order: (BATCH,) int64, the pictures' order in the batch; ascending where None.
    """
    index = torch.arange(BATCH) if order is None else order
    return run.batch(index, index, torch.arange(len(index)), Progress(0, 2 * run.steps_per_epoch, 0, 2), phase)
