"""The linear probe, protocol linear-v1: multinomial logistic regression on cached, standardized features."""

from __future__ import annotations

import torch
from torch import Tensor

from clvr_bench import ClvrBenchError, Evaluation, Frozen, Register, Scores, hookimpl
from clvr_bench.ops.logistic import LogisticFit, fit_logistic
from clvr_bench.ops.ranking import accuracies, rank_classes
from clvr_bench.toolbox import Standardizer, strongest_best

# The protocol is frozen: none of these is an option, and a change of any is a new version.
PROTOCOL = "linear-v1"
PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-10, 3))  # 1e-5 to 10 in half decades
TOLERANCE = 1e-6  # on the gradient; float32 reaches 1e-8, and at 1e-5 the weakest penalties are still unsettled
MAX_ITERATIONS = 500  # the weakest penalty takes about 80


@hookimpl
def register_evaluations(register: Register) -> None:
    """Register the linear probe."""
    register(
        "linear",
        LinearProbe,
        summary="Top-1 of a logistic regression on frozen features, its penalty chosen on val.",
        source="Kornblith et al. 2019, https://arxiv.org/abs/1805.08974; the grid and the solver are this project's",
        version=1,
    )


class LinearProbe(Evaluation):
    """Fits on train, chooses the penalty by top-1 on val, fits again on train and val together, scores test once.

    Metrics, in percent: ``top1`` and ``top5`` on test (``top5`` only with more than five classes), and ``val_top1`` of
    the chosen penalty, fitted on train alone.
    """

    def __call__(self, frozen: Frozen) -> Scores:
        """Judge; ``val`` chooses, ``test`` is scored once."""
        standardizer = Standardizer.of(frozen.features("train"))
        train, val = (standardizer(frozen.features(split)) for split in ("train", "val"))
        train_labels, val_labels = frozen.labels("train"), frozen.labels("val")
        search = _fit(train, train_labels, frozen.num_classes, PENALTIES)
        val_top1 = grid_top1(search.logits(val), val_labels)
        chosen = strongest_best(val_top1)

        both = torch.cat([train, val]), torch.cat([train_labels, val_labels])
        refit = _fit(*both, frozen.num_classes, PENALTIES[chosen : chosen + 1])
        predictions = rank_classes(refit.logits(standardizer(frozen.features("test")))[0])
        metrics = accuracies(predictions, frozen.labels("test"), frozen.num_classes)
        return Scores(
            metrics={**metrics, "val_top1": val_top1[chosen]},
            predictions=predictions,
            details={
                "protocol": PROTOCOL,
                "penalty": PENALTIES[chosen],
                "penalties": list(PENALTIES),
                "val_top1": val_top1,
                "tolerance": TOLERANCE,
                "search": _convergence(search),
                "refit": _convergence(refit),
            },
            notes=(*edge_notes(chosen), *convergence_notes(search, refit)),
        )


def grid_top1(logits: Tensor, labels: Tensor) -> list[float]:
    """Score logits (L, M, K) against labels (M,): L accuracies in percent.

    Raises:
        ClvrBenchError: There are no samples to choose by.
    """
    if len(labels) == 0:
        raise ClvrBenchError(
            "linear: val has no samples, so no penalty can be chosen. Use a data set with more of them."
        )
    correct: list[float] = (logits.argmax(dim=2) == labels).double().mean(dim=1).mul(100).tolist()
    return correct


def edge_notes(chosen: int) -> list[str]:
    """Warn where a stronger or a weaker penalty than the grid holds might have been better."""
    if chosen not in (0, len(PENALTIES) - 1):
        return []
    end = "weakest" if chosen == 0 else "strongest"
    return [f"val chose the {end} penalty of the grid, {PENALTIES[chosen]:.2g}; the best may lie beyond it."]


def convergence_notes(search: LogisticFit, refit: LogisticFit) -> list[str]:
    """Warn of fits that stopped at the limit of iterations."""
    unsolved = [f"{penalty:.2g}" for penalty, solved in zip(PENALTIES, _solved(search), strict=True) if not solved]
    found = [f"the search at penalty {', '.join(unsolved)}"] if unsolved else []
    found += [] if all(_solved(refit)) else ["the final fit"]
    return [f"{fit} did not reach its tolerance in {MAX_ITERATIONS} iterations." for fit in found]


def _fit(features: Tensor, labels: Tensor, num_classes: int, penalties: tuple[float, ...]) -> LogisticFit:
    return fit_logistic(features, labels, num_classes, penalties, tolerance=TOLERANCE, max_iterations=MAX_ITERATIONS)


def _solved(fit: LogisticFit) -> list[bool]:
    solved: list[bool] = (fit.gradient <= TOLERANCE).tolist()
    return solved


def _convergence(fit: LogisticFit) -> dict[str, object]:
    return {
        "iterations": fit.iterations.tolist(),
        "gradient": fit.gradient.tolist(),
        "converged": all(_solved(fit)),
    }
