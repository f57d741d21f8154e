"""The values that pass between the harness and a plugin, all frozen: facts, progress, images, batches, outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from clvr_bench.draws import SampleRandom

Modality = Literal["image", "video", "multiview"]


@dataclass(frozen=True)
class DataFacts:
    """What a plugin may know of the data before it sees any.

    Attributes:
        modality: What a sample is: an image, a clip, or clips of one scene by several cameras.
        train_size: Samples that pretraining sees, ``val`` already held out.
        image_size: Height and width, in pixels, of what the encoder is evaluated on.
        channels: Colour channels, 3 for every built-in data set.
        frames: Frames a clip; 1 for images.
        cameras: Views of a scene that were recorded at once; 1 but for ``multiview``.
        num_classes: Classes of the labels that the task declared; None when it declared none.
    """

    modality: Modality
    train_size: int
    image_size: int
    channels: int = 3
    frames: int = 1
    cameras: int = 1
    num_classes: int | None = None


@dataclass(frozen=True)
class EncoderFacts:
    """What a pretext task may know of an encoder before one is built.

    Attributes:
        name: The registered name.
        feature_dim: D, the length of a feature.
        parameters: How many numbers are trained.
        minimum_size: The smallest image, in pixels a side, that it takes.
        has_feature_maps: Whether ``feature_maps`` works.
        has_tokens: Whether ``tokens`` works (patch encoders).
    """

    name: str
    feature_dim: int
    parameters: int
    minimum_size: int
    has_feature_maps: bool
    has_tokens: bool


@dataclass(frozen=True)
class Progress:
    """Where a run stands. ``step`` and ``epoch`` count from 0 and name the one under way."""

    step: int
    total_steps: int
    epoch: int
    epochs: int

    @property
    def fraction(self) -> float:
        """How much of the run is done, from 0 to 1."""
        return self.step / self.total_steps if self.total_steps else 1.0


@dataclass(frozen=True)
class Phase:
    """One kind of optimizer step; a run cycles through a task's phases, a batch a step.

    Attributes:
        name: What ``Batch.phase`` says during it.
        repeats: Steps in a row before the next phase.
    """

    name: str
    repeats: int = 1


@dataclass(frozen=True)
class Images:
    """Pictures as a data set stores them.

    Attributes:
        pixels: (B, C, H, W) uint8, or float in [0, 1]; (B, T, C, H, W) for video. Smaller pictures are padded at the
            right and at the bottom.
        sizes: (B, 2) int64, each picture's own height and width in pixels.
        times: (B, T) float32, seconds of each frame; None for images.
    """

    pixels: Tensor
    sizes: Tensor
    times: Tensor | None = None

    @classmethod
    def whole(cls, pixels: Tensor) -> Images:
        """Wrap pictures (B, C, H, W) that fill their frame."""
        sizes = [torch.full((len(pixels),), side, device=pixels.device) for side in pixels.shape[-2:]]
        return cls(pixels, torch.stack(sizes, 1))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, part: slice) -> Images:
        return Images(self.pixels[part], self.sizes[part], None if self.times is None else self.times[part])


@dataclass(frozen=True)
class Batch:
    """What one optimizer step sees.

    Attributes:
        views: V tensors (B, C, H, W), or (B, T, C, H, W) for video; float32 in [0, 1].
        index: (B,) int64, each sample's number in the training set.
        labels: (B,) int64; -1 where hidden from the task.
        random: Per-sample draws: ``batch.random("purpose")``, alike for any batch, rank and device.
        progress: Where the run stands.
        phase: The name of the task's phase.
        roles: V names, such as global and local; empty where views are alike.
        times: (B, T) float32 seconds; None for images.
        labelled: The labelled stream of a task whose labels are ``"partial"``; else None.
    """

    views: Sequence[Tensor]
    index: Tensor
    labels: Tensor
    random: SampleRandom
    progress: Progress
    phase: str = "train"
    roles: tuple[str, ...] = ()
    times: Tensor | None = None
    labelled: Batch | None = None

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class StepOutput:
    """What ``PretextTask.forward`` returns.

    Attributes:
        loss: () with a gradient.
        logs: Numbers worth a look, averaged over the epoch and kept in the record.
        kept: (B, ...) detached tensors for ``after_step``: of all ranks and of all accumulated parts of the step.
    """

    loss: Tensor
    logs: Mapping[str, Tensor | float] = field(default_factory=dict)
    kept: Mapping[str, Tensor] = field(default_factory=dict)
