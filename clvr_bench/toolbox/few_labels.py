"""Parts of the samples, of every class alike: which have a label where only few may, folds, a smaller training set."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from clvr_bench.contracts.dataset import Split
from clvr_bench.data import stratified
from clvr_bench.draws import key_of
from clvr_bench.errors import ClvrBenchError

AnySplit = TypeVar("AnySplit", bound=Split)


def labelled_subset(labels: Tensor, fraction: float, *, seed: int, draw: int = 0) -> Tensor:
    """Choose the same part of every class, at least one sample of each.

    A draw's smaller fractions are parts of its larger ones, and two evaluations of a seed that ask alike get the same.

    Args:
        labels: (N,) int64; samples of a negative one are never chosen.
        fraction: In (0, 1].
        seed: The run's.
        draw: Which of several independent choices.

    Returns:
        (M,) int64 numbers of the chosen samples, ascending, on the CPU.
    """
    return stratified(labels.cpu(), fraction, key_of(seed, "labelled subset", draw)).nonzero()[:, 0]


def stratified_folds(labels: Tensor, folds: int) -> Tensor:
    """Deal the samples of each class out to folds in turn, so that a class's shares differ by one at most.

    Args:
        labels: (M,) int64.
        folds: At least 2; where it is at most the size of the rarest class, every fold leaves some of each class.

    Returns:
        (M,) int64, each sample's fold, from 0; on the labels' device.
    """
    order = labels.argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(labels), device=labels.device) % folds)


def training_part(split: AnySplit, size: int, *, option: str) -> AnySplit:
    """Return a training set of fewer samples: the same for every run, and a smaller one is part of a larger one.

    Args:
        split: N samples with labels.
        size: How many to keep, the same share of every class, rounded, at least one of each; all where 0.
        option: What set the size, for messages, such as ``"dataset cifar10: train_size"``.

    Raises:
        ClvrBenchError: The size is negative or above N.
    """
    if not 0 <= size <= len(split):
        raise ClvrBenchError(f"{option} must be from 1 to {len(split)}, or 0 for all of them, got {size}.")
    if size in (0, len(split)):
        return split
    part: AnySplit = split.subset(labelled_subset(split.labels, size / len(split), seed=0))  # type: ignore[assignment]  # its own kind
    return part
