"""Optimizer and schedule of a recipe, built with timm's."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from clvr_bench.contracts.recipe import Recipe
from clvr_bench.errors import ClvrBenchError, unknown

_FUSED = frozenset({"sgd", "momentum", "adam", "adamw"})  # torch's own, which have a fused kernel
_LAYERWISE = frozenset({"lars", "larc", "nlars", "nlarc"})  # those with a trust coefficient


def check_optimizer(recipe: Recipe, where: str) -> None:
    """Refuse an optimizer that timm does not have.

    Args:
        recipe: Its optimizer is looked up.
        where: What the message says it came from.

    Raises:
        ClvrBenchError: It is unknown.
    """
    names = list_optimizers()
    if recipe.optimizer not in names:
        familiar = ("adamw", "lars", "momentum", "sgd")
        raise ClvrBenchError(f"{where}: {unknown('optimizer', recipe.optimizer, familiar, {'timm.optim': names})}")


def build_optimizer(groups: list[dict[str, Any]], recipe: Recipe, batch_size: int) -> Optimizer:
    """Build a recipe's optimizer at its peak rate.

    Args:
        groups: Parameter groups; one without its own weight decay takes the recipe's.
        recipe: Optimizer, rate, momentum, betas or trust coefficient, and decay.
        batch_size: Samples a step, which the rate grows with.
    """
    special: dict[str, Any] = {"fused": True} if recipe.optimizer in _FUSED else {}
    if recipe.betas is not None:
        special["betas"] = tuple(map(float, recipe.betas))  # timm drops them for optimizers that have none
    if recipe.trust_coefficient is not None and recipe.optimizer in _LAYERWISE:
        special["trust_coeff"] = recipe.trust_coefficient
    optimizer: Optimizer = create_optimizer_v2(
        groups,
        recipe.optimizer,
        lr=recipe.peak_rate(batch_size),
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        **special,
    )
    return optimizer


def build_schedule(optimizer: Optimizer, recipe: Recipe, total_steps: int) -> Scheduler:
    """Build a recipe's schedule: a linear rise over the warm-up, then a half cosine to zero or the peak rate.

    Args:
        optimizer: Its groups have the peak rate.
        recipe: Warm-up and shape.
        total_steps: Optimizer steps of the run.
    """
    warmup = round(recipe.warmup * total_steps)
    start = optimizer.param_groups[0]["lr"] / max(1, warmup)  # the first step already moves
    shared: dict[str, Any] = {"warmup_t": warmup, "warmup_lr_init": start, "warmup_prefix": True, "t_in_epochs": False}
    if recipe.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=total_steps + 1, decay_rate=1.0, **shared)
    return CosineLRScheduler(optimizer, t_initial=max(1, total_steps - warmup), **shared)
