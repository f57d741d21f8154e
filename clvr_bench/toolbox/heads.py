"""Heads: the small networks between a feature and a loss."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def mlp(*widths: int, batch_norm: bool = True, last_bias: bool = True) -> nn.Sequential:
    """Build a multilayer perceptron: linear layers with BatchNorm and ReLU between them, nothing after the last.

    Args:
        *widths: Input, hidden and output dimensions, at least two: ``mlp(512, 2048, 128)`` has one hidden layer.
        batch_norm: Whether hidden layers are normalized over the batch.
        last_bias: Whether the last layer has a bias. It is drawn either way, so that all other weights are the same.

    Returns:
        A module that maps (B, widths[0]) to (B, widths[-1]).
    """
    if len(widths) < 2:
        raise ValueError(f"mlp needs an input and an output width, got {widths}")
    layers: list[nn.Module] = []
    for inputs, hidden in pairwise(widths[:-1]):
        layers.append(nn.Linear(inputs, hidden, bias=not batch_norm))
        layers += [nn.BatchNorm1d(hidden)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    last = nn.Linear(widths[-2], widths[-1])
    if not last_bias:
        last.register_parameter("bias", None)
    return nn.Sequential(*layers, last)


def normalized_mlp(*widths: int) -> nn.Sequential:
    """Build an ``mlp`` with BatchNorm on its output too, there without parameters and without a bias before it.

    Args:
        *widths: As for ``mlp``.

    Returns:
        A module that maps (B, widths[0]) to (B, widths[-1]), each dimension of mean 0 and variance 1 over the batch.
    """
    return nn.Sequential(*mlp(*widths, last_bias=False), nn.BatchNorm1d(widths[-1], affine=False))


def linear_head(inputs: int, outputs: int, *, batch_norm: bool = False) -> nn.Module:
    """Build a linear layer, behind a BatchNorm without parameters where asked for.

    Args:
        inputs: The width of what it takes.
        outputs: The width of what it gives.
        batch_norm: Whether inputs are normalized over the batch. Rectified features share a direction, and so do linear
            maps of them until training has parted them; normalized ones differ from the start.

    Returns:
        A module that maps (B, inputs) to (B, outputs).
    """
    linear = nn.Linear(inputs, outputs)
    return nn.Sequential(nn.BatchNorm1d(inputs, affine=False), linear) if batch_norm else linear
