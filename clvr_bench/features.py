"""Features of a frozen network: centre views, eval mode, no gradient, each split once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from clvr_bench.contracts.dataset import Split
from clvr_bench.contracts.evaluation import SplitName
from clvr_bench.data import Data
from clvr_bench.devices import autocast
from clvr_bench.ops.crops import center_view

BATCH = 500  # samples at a time


def center_views(split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield positions (B,) and centre views (B, C, size, size), float in [0, 1], over a split in order."""
    batches = torch.arange(len(split)).split(BATCH)
    split.expect(batches)
    for index in batches:
        yield index, center_view(split.images(index), size)


def evenly(split: Split, most: int) -> Split:
    """Return at most so many samples of a split, evenly spaced, so that sorted classes keep their parts."""
    if len(split) <= most:
        return split
    return split.subset(torch.linspace(0, len(split) - 1, most).long())


def extract(module: nn.Module, split: Split, size: int, device: torch.device, precision: str) -> Tensor:
    """Run a module over a split's centre views, in eval mode, and restore its modes.

    Args:
        module: Maps pictures (B, C, H, W) in [0, 1] to features (B, D).
        split: N samples.
        size: Height and width of the views, in pixels.
        device: Where the module is.
        precision: ``"bf16"`` or ``"fp32"``.

    Returns:
        Features (N, D) float32.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), autocast(device, precision):
            return torch.cat([module(views).float() for _, views in center_views(split, size)])
    finally:
        for part, training in modes.items():
            part.training = training


class FrozenRepresentation:
    """A representation and the data it is judged on; see ``contracts.evaluation.Frozen``.

    Args:
        representation: On the device; frozen from here on.
        data: The splits, on the device.
        device: Where everything is.
        precision: ``"bf16"`` or ``"fp32"``.
        seed: The run's.
    """

    def __init__(self, representation: nn.Module, data: Data, device: torch.device, precision: str, seed: int) -> None:
        self.representation = representation.eval().requires_grad_(False)
        self.num_classes, self.image_size = data.num_classes, data.dataset.image_size
        self.seed, self.device = seed, device
        self._data, self._precision = data, precision
        self._features: dict[SplitName, Tensor] = {}

    def split(self, split: SplitName) -> Split:
        """Return the stored samples of a split."""
        return {"train": self._data.train, "val": self._data.val, "test": self._data.test}[split]

    def labels(self, split: SplitName) -> Tensor:
        """Return the labels (N,) int64 of a split, on the device."""
        return self.split(split).labels.to(self.device)

    def features(self, split: SplitName) -> Tensor:
        """Return the features (N, D) float32 of a split, in its order, extracted once."""
        if split not in self._features:
            found = extract(self.representation, self.split(split), self.image_size, self.device, self._precision)
            self._features[split] = found
        return self._features[split]

    def encode(self, views: Tensor) -> Tensor:
        """Encode views (B, C, H, W), float in [0, 1], into features (B, D) float32."""
        with torch.no_grad(), self.autocast():
            features: Tensor = self.representation(views)
        return features.float()

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the run's precision."""
        return autocast(self.device, self._precision)
