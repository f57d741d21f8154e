"""The pretraining loop: data -> augmentation -> views -> pretext task -> loss -> optimizer, to the final epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from clvr_bench.assembly import blaming, view_count
from clvr_bench.combinations import Combination
from clvr_bench.contracts.augmentation import Augmentation
from clvr_bench.contracts.dataset import Split
from clvr_bench.contracts.encoder import Encoder
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.values import Batch, Progress, StepOutput
from clvr_bench.data import Data
from clvr_bench.devices import autocast, generator_states, is_out_of_memory, set_generator_states
from clvr_bench.draws import SampleRandom, key_of
from clvr_bench.errors import RunFailed
from clvr_bench.features import center_views, evenly, extract
from clvr_bench.ops.knn import weighted_knn
from clvr_bench.optimization import build_optimizer, build_schedule
from clvr_bench.views import make_views
from clvr_bench.visits import VisitOrder, shuffled

FINITE_CHECK_STEPS = 20  # looking at the loss makes a GPU wait, so it is looked at this seldom
MONITOR_SAMPLES = 1000  # of train and of val, for the k-NN accuracy of every epoch


@dataclass(frozen=True)
class Setting:
    """Everything that a pretraining needs beside the task itself.

    Attributes:
        combination: What is pretrained.
        data: On the training device.
        augmentation: Makes the views; None for tasks that take none.
        device: Where it runs.
        precision: ``"bf16"`` or ``"fp32"``.
    """

    combination: Combination
    data: Data
    augmentation: Augmentation | None
    device: torch.device
    precision: str


@dataclass
class State:
    """What a checkpoint holds beside the modules: where the run stands and what was recorded."""

    epoch: int = 0
    seconds: float = 0.0
    passes: int = 0
    peak_memory_mb: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Underway:
    """An epoch that has begun: the order of its samples, how many steps of it are done, and what they gave.

    Attributes:
        order: (N,) int64, the samples' numbers in the order of their visits.
        steps: Optimizer steps that are done.
        seconds: That they took.
        sums: Of the loss and of each log, over the steps that had it; tensors stay on the device.
        counts: How many steps had it.
    """

    order: Tensor
    steps: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor | float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, output: StepOutput) -> None:
        """Add a step's loss and logs."""
        self.steps += 1
        for name, value in {"loss": output.loss, **output.logs}.items():
            self.sums[name] = self.sums.get(name, 0.0) + _number(value)
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the mean of each."""
        return {name: round(float(total) / self.counts[name], 5) for name, total in self.sums.items()}


class Pretraining:
    """One pretraining, an epoch at a time, resumable after every step.

    Args:
        task: On the training device.
        setting: Its data, augmentation and device.
        on_step: Called after every optimizer step with where the run stands.
    """

    def __init__(
        self, task: PretextTask, setting: Setting, on_step: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self.task, self.setting, self.state = task, setting, State()
        self._underway: Underway | None = None
        self._on_step = on_step
        self._name = setting.combination.task.entry.name
        self._batch_size, self._parts = setting.combination.budget.batch_size, setting.combination.budget.accumulate
        self._split = setting.data.pretraining(task.labels)
        seed = setting.combination.seed
        self._labels = setting.data.labels_for(task.labels, task.labelled_fraction, seed).to(setting.device)
        self._cycle = [phase.name for phase in task.phases for _ in range(phase.repeats)]
        self._optimizers = {name: self._optimizer(name) for name in dict.fromkeys(self._cycle)} if task.trains else {}
        self._schedules = {name: self._schedule(optimizer) for name, optimizer in self._optimizers.items()}

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.setting.combination.budget.epochs if self.task.trains else 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; the last, smaller batch is dropped."""
        return len(self._split) // self._batch_size

    @property
    def optimized(self) -> set[nn.Parameter]:
        """The parameters that an optimizer moves."""
        groups = [group for optimizer in self._optimizers.values() for group in optimizer.param_groups]
        return {parameter for group in groups for parameter in group["params"]}

    @property
    def finished(self) -> bool:
        """Whether the final epoch is done."""
        return self.state.epoch >= self.epochs

    def run_epoch(self, pause: Callable[[], bool] = lambda: False) -> bool:
        """Train the epoch under way to its end, or begin one, and add it to the history.

        Args:
            pause: Asked after every step but the last whether to stop here; another call goes on from there.

        Returns:
            Whether it came to its end.

        Raises:
            RunFailed: The task raised, its loss is not finite or has no gradient, or memory ran out.
        """
        started, passes = time.perf_counter(), self._count_passes()
        underway = self._underway = self._underway or self._begin_epoch()
        finished = self._train(underway, pause)
        underway.seconds += time.perf_counter() - started
        self.state.passes += self._count_passes() - passes
        if finished:
            self._end_epoch(underway)
        return finished

    def _begin_epoch(self) -> Underway:
        torch.manual_seed(key_of(self.setting.combination.seed, "epoch", self.state.epoch))
        return Underway(self.prepare_epoch().index)

    def _train(self, underway: Underway, pause: Callable[[], bool]) -> bool:
        """Take the steps that an epoch still lacks; False where it paused before the last."""
        order = VisitOrder(underway.order, len(self._split))
        batches = list(order.batches(self._batch_size))[underway.steps :]
        self._split.expect(part for index, _ in batches for part in index.chunk(self._parts))
        self.task.train()
        for index, samples in batches:
            progress = self._progress(self.state.epoch, underway.steps)
            with self._explaining_lack_of_memory():
                underway.add(self._step(index, samples, progress))
            last = underway.steps == self.steps_per_epoch
            if last or underway.steps % FINITE_CHECK_STEPS == 1:
                self._require_finite(underway, progress)
            self._on_step(self._progress(self.state.epoch, underway.steps))
            if not last and pause():
                return False
        return True

    def _end_epoch(self, underway: Underway) -> None:
        self._underway = None
        rate = next(iter(self._optimizers.values())).param_groups[0]["lr"]
        seconds = round(underway.seconds, 3)
        entry = {"epoch": self.state.epoch + 1, **underway.means(), "learning_rate": rate, "seconds": seconds}
        self.state.seconds += underway.seconds
        entry["knn_top1"] = self._monitor()
        self.state.epoch += 1
        self.state.history.append(entry)

    def _require_finite(self, underway: Underway, progress: Progress) -> None:
        """Check the loss so far.

        Raises:
            RunFailed: It is NaN or infinite.
        """
        if not torch.as_tensor(underway.sums["loss"]).isfinite():
            where = f"epoch {progress.epoch + 1}, step {progress.step + 1} of {progress.total_steps}"
            raise RunFailed(
                f"{self._name}: the loss became NaN or infinite in {where}. "
                f"Lower the learning rate (--set {self._name}.recipe.learning_rate=...)."
            )

    @contextmanager
    def _explaining_lack_of_memory(self) -> Iterator[None]:
        """Suggest a smaller batch where a step ran out of memory.

        Raises:
            RunFailed: It did.
        """
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error.__cause__ or error):
                raise
            smaller = f"--batch-size {max(2, self._batch_size // 2)}"
            parts = f", or accumulate = {2 * self._parts} under [budget]" if self.task.separable else ""
            raise RunFailed(
                f"{self._name}: out of memory at batch size {self._batch_size}. Choose a smaller one, such as "
                f"{smaller}{parts}."
            ) from error

    def prepare_untrained(self) -> None:
        """Give a task that does not train its one look at the data."""
        started, passes = time.perf_counter(), self._count_passes()
        self.prepare_epoch()
        self.state.seconds += time.perf_counter() - started
        self.state.passes += self._count_passes() - passes

    def time_steps(self, steps: int) -> float:
        """Take a few steps and return the seconds of one after the first; 0 for a task that does not train."""
        if not self.task.trains:
            return 0.0
        order = self.prepare_epoch()
        self.task.train()
        clocks = []
        for position, (index, samples) in enumerate(islice(order.batches(self._batch_size), steps)):
            loss = self._step(index, samples, self._progress(0, position)).loss
            loss.item()  # waits until the device is done
            clocks.append(time.perf_counter())
        return (clocks[-1] - clocks[0]) / max(1, len(clocks) - 1)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a later process needs to go on."""
        return {
            "task": self.task.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "state": vars(self.state),
            "epochs": self.epochs,
            "underway": vars(self._underway) if self._underway else None,
            "generators": generator_states(self.setting.device),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.task.load_state_dict(saved["task"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        self.state = State(**saved["state"])
        self._underway = Underway(**saved["underway"]) if saved["underway"] else None
        if self._underway:  # an epoch that is yet to begin seeds them itself
            set_generator_states(saved["generators"], self.setting.device)

    def _step(self, index: Tensor, samples: Tensor, progress: Progress) -> StepOutput:
        """Take one optimizer step, from one batch or from the parts of one."""
        phase = self._cycle[progress.step % len(self._cycle)]
        self.task.zero_grad(set_to_none=True)
        whole = (index, samples, torch.arange(len(index), device=index.device))
        parts = zip(*(numbers.chunk(self._parts) for numbers in whole), strict=True)  # the tensors that were announced
        outputs = []
        for part, keys, positions in parts:
            output = self.forward(self.batch(part, keys, positions, progress, phase))
            with blaming(self._name, "the backward pass"):
                (output.loss * (len(part) / len(index))).backward()
            outputs.append(output)
        self._schedules[phase].step_update(progress.step)
        self._optimizers[phase].step()
        joined = _join(outputs)
        with blaming(self._name, "after_step"), torch.no_grad():
            self.task.after_step(joined.kept, progress)
        return joined

    def forward(self, batch: Batch) -> StepOutput:
        """Compute a batch's loss, in the run's precision.

        Raises:
            RunFailed: The task raised, or what it returned is no loss with a gradient.
        """
        with blaming(self._name, "forward"), autocast(self.setting.device, self.setting.precision):
            output = self.task(batch)
        if not isinstance(output, StepOutput):
            raise RunFailed(f"{self._name}: forward must return a StepOutput, got {type(output).__name__}.")
        if output.loss.numel() != 1 or not output.loss.requires_grad:
            shape = tuple(output.loss.shape)
            raise RunFailed(f"{self._name}: the loss must be one number with a gradient, got shape {shape}, "
                            f"requires_grad={output.loss.requires_grad}. Was it detached?")  # fmt: skip
        return output

    def batch(self, index: Tensor, samples: Tensor, positions: Tensor, progress: Progress, phase: str) -> Batch:
        """Make the batch of some samples of a step.

        Args:
            index: (B,) int64, their numbers in the training set.
            samples: (B,) int64, what their draws are keyed by: the same, but for visits after the first of an epoch.
            positions: (B,) int64, their places in the step's batch.
            progress: Of the step.
            phase: Of the step.
        """
        labelled = self._labelled_batch(positions, progress, phase) if self.task.labels == "partial" else None
        random = SampleRandom.keyed(self.setting.combination.seed, progress.epoch, samples)
        return self._make_batch(index, random, progress, phase, labelled)

    def _labelled_batch(self, positions: Tensor, progress: Progress, phase: str) -> Batch:
        """Take these positions' share of a stream of labelled samples that reshuffles each time it has gone round."""
        pool = (self._labels >= 0).nonzero()[:, 0]
        start = progress.step * self._batch_size + int(positions[0])
        first, end = (round(sample * self.task.labelled_ratio) for sample in (start, start + len(positions)))
        places = range(first, max(end, first + 1))
        seed = self.setting.combination.seed
        numbers = {place // len(pool) for place in places}
        shuffles = {number: shuffled(pool, key_of(seed, "labelled"), number) for number in numbers}
        index = torch.stack([shuffles[place // len(pool)][place % len(pool)] for place in places])
        rounds = torch.tensor([place // len(pool) for place in places], device=index.device)
        random = SampleRandom.keyed(seed, progress.epoch, index + len(self._split) * rounds).scoped("labelled")
        return self._make_batch(index, random, progress, phase, None)

    def _make_batch(
        self, index: Tensor, random: SampleRandom, progress: Progress, phase: str, labelled: Batch | None
    ) -> Batch:
        images = self._split.images(index)
        augmentation, views = self.setting.augmentation, view_count(self.setting.combination, self.setting.augmentation)
        made: list[Tensor] = []
        if augmentation is not None:
            with blaming(self._name, "its augmentation"):
                made = make_views(augmentation, images, views, random.scoped("augmentation"))
            self._check_views(made, views)
        return Batch(
            views=made,
            index=index,
            labels=self._labels[index],
            random=random,
            progress=progress,
            phase=phase,
            roles=tuple(role.name for role in augmentation.roles for _ in range(role.views)) if augmentation else (),
            times=images.times,
            labelled=labelled,
        )

    def _check_views(self, made: list[Tensor], views: int) -> None:
        chain = "+".join(choice.entry.name for choice in self.setting.combination.augmentation)
        if len(made) != views:
            raise RunFailed(
                f"{self._name}: expected {views} views an image, got {len(made)} from augmentation '{chain}'."
            )

    def prepare_epoch(self) -> VisitOrder:
        """Let the task prepare the epoch under way, and return the order of the samples."""
        seed, epoch = self.setting.combination.seed, self.state.epoch
        everything = torch.arange(len(self._split), device=self.setting.device)
        access = EpochAccess(self, VisitOrder(shuffled(everything, key_of(seed, "order"), epoch), len(self._split)))
        with blaming(self._name, "before_epoch"):
            self.task.before_epoch(access)
        return access.order

    def _progress(self, epoch: int, position: int) -> Progress:
        steps = self.steps_per_epoch
        return Progress(epoch * steps + position, self.epochs * steps, epoch, self.epochs)

    def _optimizer(self, phase: str) -> Optimizer:
        with blaming(self._name, "parameter_groups"):
            groups = [group for group in self.task.parameter_groups(phase) if group["params"]]
        combination = self.setting.combination
        return build_optimizer(groups, combination.task.recipe, combination.budget.batch_size)

    def _schedule(self, optimizer: Optimizer) -> Scheduler:
        return build_schedule(optimizer, self.setting.combination.task.recipe, self.epochs * self.steps_per_epoch)

    def _count_passes(self) -> int:
        return sum(module.passes for module in self.task.modules() if isinstance(module, Encoder))

    def _monitor(self) -> float:
        """Return the k-NN top-1 of val, in percent, on at most 1,000 samples of each side."""
        data = self.setting.data
        bank, queries = (evenly(split, MONITOR_SAMPLES) for split in (data.train, data.val))
        with blaming(self._name, "its representation"):
            features = [self.features(self.task.representation(), split) for split in (bank, queries)]
        labels, targets = (split.labels.to(self.setting.device) for split in (bank, queries))
        k = max(1, min(200, len(bank) // (2 * data.num_classes)))
        scores = weighted_knn(features[0], labels, features[1], data.num_classes, k)
        return round(100 * (scores.argmax(dim=1) == targets).float().mean().item(), 2)

    def features(self, module: nn.Module, split: Split) -> Tensor:
        """Run a module over the centre views of a split: (N, D) float32, frozen meanwhile."""
        setting = self.setting
        return extract(module, split, setting.data.dataset.image_size, setting.device, setting.precision)


class EpochAccess:
    """What ``before_epoch`` gets; see ``contracts.pretext_task.Epoch``."""

    def __init__(self, run: Pretraining, order: VisitOrder) -> None:
        self._run = run
        self.order = order
        self.progress = run._progress(run.state.epoch, 0)

    def features(self, module: nn.Module) -> Tensor:
        """Return (N, D) features of all training samples, in index order."""
        return self._run.features(module, self._run._split)

    def images(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield indices (B,) and centre views (B, C, H, W) of all training samples, in index order."""
        return center_views(self._run._split, self._run.setting.data.dataset.image_size)

    def visit(self, indices: Tensor) -> None:
        """Set this epoch's order.

        Raises:
            ValueError: It has not N entries, or one is no sample.
        """
        count = len(self._run._split)
        if indices.shape != (count,) or indices.min() < 0 or indices.max() >= count:
            raise ValueError(f"visit takes {count} sample numbers below {count}, got shape {tuple(indices.shape)}")
        self.order = VisitOrder(indices.to(self._run.setting.device), count)

    def reset(self, module: nn.Module) -> None:
        """Give a module fresh weights and clear their optimizer state.

        Raises:
            ValueError: A part of it has parameters but no ``reset_parameters``.
        """
        for part in module.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()  # type: ignore[operator]  # every torch layer's own initialization
            elif list(part.parameters(recurse=False)):
                raise ValueError(f"reset: {type(part).__name__} has no reset_parameters()")
        for optimizer in self._run._optimizers.values():
            for parameter in module.parameters():
                for moment in optimizer.state.get(parameter, {}).values():
                    moment.zero_()  # fused optimizers refuse a parameter that lost its state beside ones that have it


def _join(outputs: list[StepOutput]) -> StepOutput:
    """Join the outputs of a step's parts: kept tensors in order, losses and logs as means."""
    if len(outputs) == 1:
        return outputs[0]
    loss = torch.stack([output.loss.detach() for output in outputs]).mean()
    logs = {name: sum(_number(output.logs[name]) for output in outputs) / len(outputs) for name in outputs[0].logs}
    kept = {name: torch.cat([output.kept[name] for output in outputs]) for name in outputs[0].kept}
    return StepOutput(loss, logs, kept)


def _number(value: Tensor | float) -> Tensor | float:
    return value.detach().float() if isinstance(value, Tensor) else value
