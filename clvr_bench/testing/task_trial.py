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
from clvr_bench.pretraining import Pretraining, Setting
from clvr_bench.suites import parse_suite
from clvr_bench.testing.checks import NotApplicable, Violation
from clvr_bench.testing.stage import CPU, ENTRIES, PICTURES, RESNET, VIT, pictures
from clvr_bench.testing.subject import Subject

BATCH, EPOCHS = 16, 2


class TaskTrial:
    """A pretext task with the options that it is tried under.

    Args:
        subject: The registered task.
    """

    def __init__(self, subject: Subject) -> None:
        self.entry = subject.entry
        self.task: type[PretextTask] = self.entry.factory  # type: ignore[assignment]  # checked when it was registered
        self._registry = subject.registry.extended(self.entry, *ENTRIES)
        self._options = {**self.task.check_options, **subject.options}
        replace(subject, options=self._options).choice()  # a wrong one stops the check

    def skip_reason(self, encoder: str) -> str | None:
        """Say why the task does not run with an encoder; None where it does."""
        combination = self._combination(encoder, {})
        facts = pictures().facts(self.task.labels)
        return skip_reason(
            combination,
            pictures(),
            encoder_facts(combination.encoder, facts) if combination.encoder else None,
        )

    @cached_property
    def encoder(self) -> str:
        """The first encoder of the stage that the task runs with."""
        reasons = {name: self.skip_reason(name) for name in (RESNET, VIT)}
        for name, reason in reasons.items():
            if reason is None:
                return name
        raise Violation(f"It skips every encoder: {'; '.join(str(reason) for reason in reasons.values())}.")

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
