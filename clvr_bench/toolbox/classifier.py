"""Training a classifier by gradient descent on random crops of labelled samples: what such evaluations share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench.contracts.dataset import Split
from clvr_bench.devices import is_out_of_memory
from clvr_bench.draws import SampleRandom, key_of
from clvr_bench.errors import ClvrBenchError
from clvr_bench.features import center_views
from clvr_bench.ops.crops import crop_resize, random_boxes
from clvr_bench.visits import shuffled

STEPS_AT = (0.6, 0.8)  # parts of the run, after which the schedule "steps" divides the rate by ten each time
FEW_STEPS = 200  # with fewer a note asks for more epochs; SimCLR takes 187, of 4,096 samples each, with 1% of ImageNet

Schedule = Literal["cosine", "steps", "constant"]

_RANGES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": (lambda value: value >= 1, "at least 1"),
    "batch_size": (lambda value: value >= 2, "at least 2"),
    "learning_rate": (lambda value: 0 < value < math.inf, "a positive number"),
    "weight_decay": (lambda value: 0 <= value < math.inf, "0 or a positive number"),
}


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """How a classifier is trained: SGD with momentum, its budget and its schedule.

    Attributes:
        epochs: Passes over the samples.
        learning_rate: The peak rate at ``reference_batch`` samples a step; it grows linearly with ``batch_size``.
        batch_size: Samples a step.
        reference_batch: The batch size that ``learning_rate`` is stated for.
        momentum: Of SGD.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: For weights; see ``train_classifier``.
        schedule: A half cosine from the peak rate to zero; a tenth of it from 60% of the run on and a hundredth from
            80% on; or the peak rate throughout.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 256
    reference_batch: int = 256
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"

    @property
    def peak_rate(self) -> float:
        """The peak learning rate at ``batch_size`` samples a step."""
        return self.learning_rate * self.batch_size / self.reference_batch

    def rate(self, fraction: float) -> float:
        """Return the learning rate where a fraction of the run, from 0 to below 1, is done."""
        if self.schedule == "cosine":
            return self.peak_rate * (1 + math.cos(math.pi * fraction)) / 2
        passed = sum(fraction >= part for part in STEPS_AT) if self.schedule == "steps" else 0
        return self.peak_rate / (1, 10, 100)[passed]

    def changed(self, where: str, **options: Any) -> ClassifierRecipe:
        """Return the recipe with some values replaced.

        Args:
            where: What the message says they came from: the evaluation's name.
            **options: New values; None leaves a value as it is.

        Raises:
            ClvrBenchError: A value is out of its range.
        """
        given = {name: value for name, value in options.items() if value is not None}
        for name, value in given.items():
            allowed, range_ = _RANGES.get(name, (lambda _: True, ""))
            if not allowed(value):
                usual = getattr(self, name)
                raise ClvrBenchError(f"{where}: {name} must be {range_}, got {value}. The default here is {usual:g}.")
        return replace(self, **given)


class LabelledCrops:
    """Labelled samples of one split or of several, walked in batches of random crops; pixels are never copied.

    Samples are numbered through the splits, those of the first from 0. Draws and order are keyed by seed, purpose,
    epoch and sample: alike on any machine, and again after a restart. Crops are Inception's, half of them mirrored.

    Args:
        splits: At least one.
        size: S, height and width of the crops in pixels.
        seed: The run's.
        purpose: The evaluation's name; it keeps these draws apart from others of the same seed.
        samples: (M,) int64 numbers of the samples to use; all that have a label where None.
        area: The least and the greatest share of a picture's area in a crop, in (0, 1].

    Attributes:
        seed: As given.
        purpose: As given.
        samples: (M,) int64, on the CPU.

    Raises:
        ClvrBenchError: No sample has a label.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        size: int,
        *,
        seed: int,
        purpose: str,
        samples: Tensor | None = None,
        area: tuple[float, float] = (0.08, 1.0),
    ) -> None:
        self.seed, self.purpose = seed, purpose
        self._splits, self._size, self._area = splits, size, area
        labels = torch.cat([split.labels for split in splits])
        self.samples = (labels >= 0).nonzero()[:, 0] if samples is None else samples.cpu()
        if not len(self):
            raise ClvrBenchError(f"{purpose}: no sample has a label, so there is nothing to train on.")

    def __len__(self) -> int:
        return len(self.samples)

    def steps(self, size: int) -> int:
        """Return how many batches of this size an epoch has."""
        return max(1, len(self) // size)

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Walk the samples once, in an order of the epoch's own.

        Batches are full, so that a smaller last one is left out; fewer samples than ``size`` are a batch all the same.

        Args:
            epoch: Counted from 0.
            size: B, samples a batch.

        Yields:
            Crops (B, C, S, S), float32 in [0, 1], and labels (B,) int64, on the splits' device.
        """
        size = min(size, len(self))
        order = shuffled(self.samples, key_of(self.seed, self.purpose), epoch)
        batches = [self._by_split(batch) for batch in order[: len(order) // size * size].split(size)]
        for split, own in zip(self._splits, zip(*batches, strict=True), strict=True):
            split.expect([numbers - first for numbers, first in own if len(numbers)])
        for batch in batches:
            parts = [
                self._crops(split, numbers, first, epoch)
                for split, (numbers, first) in zip(self._splits, batch, strict=True)
                if len(numbers)
            ]
            crops, labels = (torch.cat(side) for side in zip(*parts, strict=True))
            yield crops, labels

    def _by_split(self, batch: Tensor) -> list[tuple[Tensor, int]]:
        """Part the numbers of a batch by split: each split's, and the number of its first sample."""
        parts, first = [], 0
        for split in self._splits:
            parts.append((batch[(batch >= first) & (batch < first + len(split))], first))
            first += len(split)
        return parts

    def _crops(self, split: Split, numbers: Tensor, first: int, epoch: int) -> tuple[Tensor, Tensor]:
        images = split.images(numbers - first)
        device = images.pixels.device
        random = SampleRandom.keyed(self.seed, epoch, numbers.to(device)).scoped(self.purpose)
        boxes = random_boxes(images.sizes, random("crop"), self._area)
        crops = crop_resize(images, boxes, self._size, flip=random("flip").chance(0.5))
        return crops, split.labels[numbers - first].to(device)


@dataclass(frozen=True)
class Training:
    """What a training came to.

    Attributes:
        recipe: How it was trained.
        samples: M, how many samples it saw.
        losses: The mean loss of every epoch.
        steps: Optimizer steps.
        passes: Pictures that went through the network.
        seconds: Wall-clock time.
    """

    recipe: ClassifierRecipe
    samples: int
    losses: tuple[float, ...]
    steps: int
    passes: int
    seconds: float

    @property
    def details(self) -> dict[str, object]:
        """What a record should keep."""
        return {
            "recipe": {**asdict(self.recipe), "peak_rate": self.recipe.peak_rate},
            "samples": self.samples,
            "steps": self.steps,
            "encoder_passes": self.passes,
            "seconds": round(self.seconds, 3),
            "losses": [round(loss, 6) for loss in self.losses],
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Warn readers of a training that was over before it got anywhere."""
        if self.steps >= FEW_STEPS:
            return ()
        return (f"only {self.steps} optimizer steps on {self.samples} samples: so few need more epochs.",)


def train_classifier(
    network: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    crops: LabelledCrops,
    recipe: ClassifierRecipe,
) -> Training:
    """Minimize the cross-entropy of a network on random crops, to the recipe's final epoch.

    torch's own generator, which dropout draws from, is seeded anew for each epoch and afterwards is as it was.

    Args:
        network: Maps pictures (B, C, S, S) in [0, 1] to logits (B, K) with a gradient.
        parameters: What is trained, or groups of it as torch's optimizers take them; the recipe's weight decay is for
            those without their own.
        crops: What it is trained on; messages begin with their purpose.
        recipe: How.

    Raises:
        ClvrBenchError: The loss became NaN or infinite, or memory ran out.
    """
    optimizer = torch.optim.SGD(
        parameters, recipe.peak_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
    device = optimizer.param_groups[0]["params"][0].device
    losses, started = [], time.perf_counter()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _explaining_lack_of_memory(crops, recipe):
        for epoch in range(recipe.epochs):
            torch.manual_seed(key_of(crops.seed, crops.purpose, epoch))
            loss = _train_epoch(network, optimizer, crops, recipe, epoch)
            if not math.isfinite(loss):
                raise ClvrBenchError(
                    f"{crops.purpose}: the loss became NaN or infinite in epoch {epoch + 1} of {recipe.epochs}. Lower "
                    f"learning_rate, which is {recipe.learning_rate:g}."
                )
            losses.append(loss)
    steps = recipe.epochs * crops.steps(recipe.batch_size)
    passes = steps * min(recipe.batch_size, len(crops))
    return Training(recipe, len(crops), tuple(losses), steps, passes, time.perf_counter() - started)


def _train_epoch(
    network: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    crops: LabelledCrops,
    recipe: ClassifierRecipe,
    epoch: int,
) -> float:
    """Train one epoch and return its mean loss."""
    steps, losses = crops.steps(recipe.batch_size), []
    for step, (views, labels) in enumerate(crops.batches(epoch, recipe.batch_size)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate((epoch * steps + step) / (recipe.epochs * steps))
        loss = F.cross_entropy(network(views).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())  # looked at once an epoch, so that a GPU need not wait
    return torch.stack(losses).mean().item()


def zero_classifier(inputs: int, num_classes: int) -> nn.Linear:
    """Return a linear layer from (B, inputs) to (B, num_classes), its weights and biases zero: nothing is drawn."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def center_outputs(network: Callable[[Tensor], Tensor], split: Split, size: int) -> Tensor:
    """Return a network's outputs (N, K) float32 for the centre views of a split, in its order, without a gradient.

    Args:
        network: Maps pictures (B, C, S, S) in [0, 1] to outputs (B, K).
        split: N samples.
        size: S, height and width of the views in pixels.
    """
    with torch.no_grad():
        return torch.cat([network(views).float() for _, views in center_views(split, size)])


@contextmanager
def _explaining_lack_of_memory(crops: LabelledCrops, recipe: ClassifierRecipe) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ClvrBenchError(
            f"{crops.purpose}: out of memory at batch_size {recipe.batch_size}. Choose a smaller one, such as "
            f"{max(2, recipe.batch_size // 2)}; the rate follows."
        ) from error
