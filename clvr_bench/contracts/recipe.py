"""How a pretext task is optimized, as data: the harness builds optimizer and schedule from it with timm."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from clvr_bench.errors import ClvrBenchError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Optimizer and schedule of a pretext task, as its paper states them.

    Attributes:
        optimizer: A timm optimizer name, such as ``"momentum"`` (plain SGD with momentum), ``"sgd"`` (Nesterov's, in
            timm), ``"lars"``, ``"larc"`` (LARS whose rates are clipped at the recipe's) or ``"adamw"``.
        learning_rate: The peak rate at ``reference_batch`` samples a step.
        scaling: How the rate grows with the suite's batch size.
        reference_batch: The batch size that ``learning_rate`` is stated for.
        momentum: Of SGD and LARS; other optimizers leave it aside.
        betas: Of Adam's family, each from 0 to below 1; the optimizer's own where None, (0.9, 0.999) for most. Other
            optimizers leave them aside.
        trust_coefficient: Of LARS and LARC (https://arxiv.org/abs/1708.03888, equation 6: eta), positive: what part of
            a layer's norm a step at rate 1 moves it by; timm's 0.001 where None. Other optimizers leave it aside.
        weight_decay: For weights; biases and normalization have none, see ``PretextTask.parameter_groups``.
        warmup: The part of all steps, from 0 to 1, over which the rate rises linearly from zero.
        schedule: What follows: a half cosine to zero, or the peak rate throughout.
    """

    optimizer: str = "momentum"
    learning_rate: float = 0.05
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    reference_batch: int = 256
    momentum: float = 0.9
    betas: tuple[float, float] | None = None
    trust_coefficient: float | None = None
    weight_decay: float = 1e-4
    warmup: float = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.weight_decay < 0 or not 0 <= self.warmup < 1 or self.reference_batch < 1:
            raise ClvrBenchError(
                "recipe: learning_rate and reference_batch must be positive, weight_decay not negative, and warmup a "
                f"part of the run from 0 to below 1, got {self}."
            )
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ClvrBenchError(
                f"recipe: betas must be from 0 to below 1, got {self.betas}. Typical: (0.9, 0.999), (0.9, 0.95)."
            )
        if self.trust_coefficient is not None and self.trust_coefficient <= 0:
            raise ClvrBenchError(
                f"recipe: trust_coefficient must be positive, got {self.trust_coefficient}. Typical: 0.001, 0.02."
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What records keep of it: what is set, so that records from before a field was there keep their identity."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def peak_rate(self, batch_size: int) -> float:
        """Return the peak learning rate for a batch size, in samples."""
        ratio = batch_size / self.reference_batch
        factor: float = {"linear": ratio, "sqrt": ratio**0.5, "none": 1.0}[self.scaling]
        return self.learning_rate * factor
