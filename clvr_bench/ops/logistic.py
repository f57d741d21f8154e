"""Multinomial logistic regression for a whole grid of penalties as one batched solve.

Standardization, the choice of the penalty and the scoring belong to whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

_HISTORY = 10  # pairs that L-BFGS remembers; 20 saved no iterations on features of 128 to 512 dimensions
_FLATTENED = 0.3  # a step is taken once the slope along it has fallen to this share of its first value
_TRIALS = 20  # step lengths tried in one search; about two are needed
_LEAST_CURVATURE = 1e-6  # keeps the intercept's scale finite when every sample is fitted perfectly


@dataclass(frozen=True)
class LogisticFit:
    """The solutions of one grid of L penalties.

    Attributes:
        weight: (L, K, D).
        bias: (L, K).
        gradient: (L,) largest absolute entry of the objective's gradient at the solution.
        iterations: (L,) int64.
    """

    weight: Tensor
    bias: Tensor
    gradient: Tensor
    iterations: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Map features (M, D) to logits (L, M, K)."""
        return features @ self.weight.transpose(1, 2) + self.bias[:, None]


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalties: Sequence[float],
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
) -> LogisticFit:
    """Minimize, for each penalty, ``mean cross-entropy + penalty / 2 * ||W||^2``; the intercept is free.

    scikit-learn's ``LogisticRegression(C=1 / (penalty * N))`` has the same objective. Full-batch L-BFGS over all
    penalties at once: the features are read twice an iteration, whatever the length of the grid, and solved penalties
    drop out. Its initial inverse Hessian comes from the features' covariance: that changes the path, not the objective.
    Fewer samples than features are solved in their own span, which holds the solutions: the penalty keeps weights
    out of all other directions.

    Args:
        features: (N, D) float32 or float64; no constant column, entries of order 1 (standardize them).
        labels: (N,) int64 in [0, K); classes may be absent.
        num_classes: K.
        penalties: L positive numbers, in any order.
        tolerance: Largest absolute entry of the gradient at which a solution is accepted.
        max_iterations: Where the search stops otherwise; compare ``LogisticFit.gradient`` with the tolerance.

    Source: L-BFGS as in Nocedal and Wright 2006, Numerical Optimization, algorithms 7.4 and 7.5.
    """
    if len(features) < features.shape[1]:
        axes = torch.linalg.qr(features.T).Q  # (D, N)
        fit = fit_logistic(
            features @ axes, labels, num_classes, penalties, tolerance=tolerance, max_iterations=max_iterations
        )
        return replace(fit, weight=fit.weight @ axes.T)
    objective = _Objective(features, labels, num_classes)
    penalty = features.new_tensor(list(penalties))[:, None, None] * objective.penalized  # (L, 1, D + 1)
    state = objective.at(features.new_zeros(len(penalty), num_classes, penalty.shape[2]), penalty)
    weight, gradient = state.weight.clone(), state.steepness
    iterations = torch.zeros(len(penalty), dtype=torch.int64, device=features.device)
    active, memory = torch.arange(len(penalty), device=features.device), _Memory()
    for iteration in range(max_iterations + 1):
        if bool((state.steepness <= tolerance).any()):
            state = objective.at(state.weight, state.penalty)  # the running logits carry rounding errors
        weight[active], gradient[active], iterations[active] = state.weight, state.steepness, iteration
        unsolved = state.steepness > tolerance
        if iteration == max_iterations or not bool(unsolved.any()):
            break
        active, state, memory = active[unsolved], state.only(unsolved), memory.only(unsolved)
        state = _advance(objective, state, memory)
    bias = weight[..., -1] - weight[..., :-1] @ objective.center
    return LogisticFit(weight[..., :-1], bias, gradient, iterations)


@dataclass(frozen=True)
class _State:
    """Where the searches of L penalties stand.

    Attributes:
        weight: (L, K, D + 1), the intercept last.
        penalty: (L, 1, D + 1), zero for the intercept.
        logits: (L, K, N).
        gradient: (L, K, D + 1).
        curvature: (L, 1, 1), the mean curvature of the cross-entropy in its logits.
    """

    weight: Tensor
    penalty: Tensor
    logits: Tensor
    gradient: Tensor
    curvature: Tensor

    @property
    def steepness(self) -> Tensor:
        """(L,) largest absolute entry of the gradient."""
        return self.gradient.abs().amax(dim=(1, 2))

    def only(self, mask: Tensor) -> _State:
        """Return the state of the penalties in a mask (L,)."""
        if bool(mask.all()):
            return self
        kept = (self.weight, self.penalty, self.logits, self.gradient, self.curvature)
        return _State(*(tensor[mask] for tensor in kept))


class _Objective:
    """The objective of all penalties on centred features, where intercept and weights have no mixed curvature.

    Classes come before samples, so that sums over the few classes run along long rows.
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        self.center = features.mean(dim=0)  # (D,)
        self.inputs = torch.cat([features - self.center, features.new_ones(len(features), 1)], dim=1)  # (N, D + 1)
        self.targets = one_hot(labels, num_classes).T.to(features.dtype).contiguous()  # (K, N)
        self.penalized = torch.ones_like(self.inputs[0])
        self.penalized[-1] = 0.0
        centered = self.inputs[:, :-1]
        variances, axes = torch.linalg.eigh(centered.T @ centered / len(features))
        self._variances = torch.cat([variances.clamp(min=0.0), features.new_ones(1)])  # (D + 1,)
        self._axes = pad(axes, (0, 1, 0, 1))  # (D + 1, D + 1), the intercept an axis of its own
        self._axes[-1, -1] = 1.0

    def logits(self, weight: Tensor) -> Tensor:
        """Map weights (L, K, D + 1) to logits (L, K, N)."""
        return (weight.flatten(0, 1) @ self.inputs.T).view(*weight.shape[:2], -1)

    def at(self, weight: Tensor, penalty: Tensor, logits: Tensor | None = None) -> _State:
        """Evaluate weights (L, K, D + 1), whose logits may be known already."""
        logits = self.logits(weight) if logits is None else logits
        probabilities = logits.softmax(dim=1)
        residual = (probabilities - self.targets).flatten(0, 1)  # (L K, N)
        gradient = (residual @ self.inputs).view(weight.shape) / len(self.inputs) + penalty * weight
        spread = 1 - probabilities.square().sum(dim=1).mean(dim=1)  # (L,), trace of the curvature in the logits
        curvature = (spread / (weight.shape[1] - 1)).clamp(min=_LEAST_CURVATURE)
        return _State(weight, penalty, logits, gradient, curvature[:, None, None])

    def precondition(self, gradient: Tensor, state: _State) -> Tensor:
        """Multiply (L, K, D + 1) with ``(curvature * covariance + penalty)^-1``, an approximate inverse Hessian."""
        scale = state.curvature * self._variances + state.penalty  # (L, 1, D + 1)
        return torch.div(gradient @ self._axes, scale) @ self._axes.T


class _Memory:
    """The last steps of L searches and the changes of the gradient along them."""

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor, Tensor]] = ()) -> None:
        self._pairs = list(pairs)

    def only(self, mask: Tensor) -> _Memory:
        """Return the memory of the penalties in a mask (L,)."""
        return self if bool(mask.all()) else _Memory([(s[mask], y[mask], rho[mask]) for s, y, rho in self._pairs])

    def remember(self, step: Tensor, change: Tensor) -> None:
        """Add a step and the gradient's change (L, K, D + 1); without positive curvature it will count for nothing."""
        product = _dot(step, change)
        inverse = torch.where(product > 0, 1 / product, 0.0)
        self._pairs = [*self._pairs, (step, change, inverse)][-_HISTORY:]

    def direction(self, objective: _Objective, state: _State) -> Tensor:
        """Return the L-BFGS direction (L, K, D + 1)."""
        wanted, shares = state.gradient, []
        for step, change, inverse in reversed(self._pairs):
            shares.append(inverse * _dot(step, wanted))
            wanted = wanted - shares[-1] * change
        wanted = objective.precondition(wanted, state)
        for (step, change, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            wanted = wanted + (share - inverse * _dot(change, wanted)) * step
        return -wanted


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Multiply (L, K, D) with (L, K, D) into (L, 1, 1)."""
    return (first * second).sum(dim=(1, 2), keepdim=True)


def _advance(objective: _Objective, state: _State, memory: _Memory) -> _State:
    """Take one step for every penalty and remember it."""
    direction = memory.direction(objective, state)
    rise = objective.logits(direction)  # logits are linear in the weights, so no trial reads the features again
    length = _step_length(objective, state, direction, rise)
    step = length * direction
    moved = objective.at(state.weight + step, state.penalty, state.logits + length * rise)
    memory.remember(step, moved.gradient - state.gradient)
    return moved


def _step_length(objective: _Objective, state: _State, direction: Tensor, rise: Tensor) -> Tensor:
    """Find where the slope along a direction has flattened, by Newton's method kept inside a bracket.

    The objective is convex, so its slope only grows along the direction and is zero at the minimum. Slopes, unlike
    values, still tell two steps apart in float32 close to the solution.

    Args:
        objective: The objective.
        state: Where the searches stand.
        direction: (L, K, D + 1), downhill.
        rise: (L, K, N), what a step of length 1 adds to the logits.

    Returns:
        Step lengths (L, 1, 1).
    """
    samples = rise.shape[2]
    fixed = _dot(state.penalty * state.weight, direction) - _dot(objective.targets.expand_as(rise), rise) / samples
    bend = _dot(state.penalty * direction, direction)
    enough = _FLATTENED * _dot(state.gradient, direction).abs()
    length = torch.ones_like(bend)
    low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
    for _ in range(_TRIALS):
        weighted = (state.logits + length * rise).softmax(dim=1) * rise  # (L, K, N)
        mean = weighted.sum(dim=1, keepdim=True)  # (L, 1, N)
        slope = mean.mean(dim=2, keepdim=True) + fixed + length * bend
        unfinished = slope.abs() > enough
        if not bool(unfinished.any()):
            break
        curvature = (_dot(weighted, rise) - mean.square().sum(dim=2, keepdim=True)) / samples + bend
        low, high = torch.where(slope < 0, length, low), torch.where(slope > 0, length, high)
        middle = torch.where(high.isinf(), 2 * length, (low + high) / 2)
        newton = length - slope / curvature
        following = torch.where((newton > low) & (newton < high), newton, middle)
        length = torch.where(unfinished, following, length)
    return length
