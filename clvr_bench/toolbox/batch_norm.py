"""BatchNorm over parts of a batch, as if each part were on a device of its own."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from clvr_bench.errors import ClvrBenchError

_SPLITTABLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


def split_batch_norm(module: nn.Module, splits: int) -> nn.Module:
    """Replace every BatchNorm in a module by one that normalizes each of n parts of a batch on its own.

    Args:
        module: Changed in place. Its parameters, buffers and state_dict keys stay what they are.
        splits: n, how many parts a batch has; 1 leaves the module as it is.

    Returns:
        The module, or its replacement where it is a BatchNorm itself.

    Raises:
        ClvrBenchError: ``splits`` is not positive, or a BatchNorm is of a kind that cannot be split.
    """
    if splits < 1:
        raise ClvrBenchError(f"split_batch_norm: splits must be at least 1, got {splits}. Typical: 1 (whole) to 8.")
    if splits == 1:
        return module
    if isinstance(module, _BatchNorm):
        return SplitBatchNorm(module, splits)
    for name, child in module.named_children():
        setattr(module, name, split_batch_norm(child, splits))
    return module


class SplitBatchNorm(_BatchNorm):
    """BatchNorm whose batch is cut, in order, into n parts that are normalized each by its own statistics.

    Parts differ by one sample at most where n does not divide the batch, and have two samples at least: a smaller batch
    has fewer parts. The running statistics move by the mean of what the n parts would each move them by; data parallel
    training keeps the first device's alone, a noisier estimate of the same thing. In eval mode it is BatchNorm.

    Args:
        norm: Gives all that it has: parameters, buffers, and the activation of timm's ``BatchNormAct2d``.
        splits: n, at least 1.

    Raises:
        ClvrBenchError: The norm is of another kind, such as a synchronized one, which is the opposite.
    """

    def __init__(self, norm: _BatchNorm, splits: int) -> None:
        if type(norm) not in _SPLITTABLE:
            kinds = ", ".join(kind.__name__ for kind in _SPLITTABLE)
            raise ClvrBenchError(
                f"split_batch_norm: it takes {kinds}, got {type(norm).__name__}. Use one split to leave it whole."
            )
        super().__init__(norm.num_features)
        vars(self).update(vars(norm))
        self.splits = splits

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize inputs (B, C, ...), then apply the activation that the norm came with."""
        outputs = self._normalize_parts(inputs) if self.training else self._normalize_as_it_stands(inputs)
        for activation in self.children():  # the drop and act of BatchNormAct2d, in its order
            outputs = activation(outputs)
        return outputs

    def _normalize_as_it_stands(self, inputs: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        return F.batch_norm(inputs, mean, variance, self.weight, self.bias, mean is None, 0.0, self.eps)

    def _normalize_parts(self, inputs: Tensor) -> Tensor:
        parts = inputs.tensor_split(max(1, min(self.splits, len(inputs) // 2)))
        means, variances = (_copies(running, len(parts)) for running in (self.running_mean, self.running_var))
        rate = self._count_batch()
        normalized = [
            F.batch_norm(part, mean, variance, self.weight, self.bias, True, rate, self.eps)  # moves mean and variance
            for part, mean, variance in zip(parts, means, variances, strict=True)
        ]
        for running, moved in ((self.running_mean, means), (self.running_var, variances)):
            if running is not None:
                running.copy_(torch.stack(moved).mean(dim=0))
        return torch.cat(normalized)

    def _count_batch(self) -> float:
        """Return how far the running statistics move; without a momentum they are the mean over all batches."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.num_batches_tracked is None else 1 / float(self.num_batches_tracked)


def _copies(running: Tensor | None, count: int) -> list[Any]:
    return [None if running is None else running.clone() for _ in range(count)]
