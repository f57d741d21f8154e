"""The linear probe with few labels: 1% and 10% of them, several draws of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Self

import torch
from torch import Tensor

from clvr_bench import ClvrBenchError, Evaluation, Frozen, Register, Scores, hookimpl
from clvr_bench.ops.logistic import LogisticFit, fit_logistic
from clvr_bench.ops.ranking import accuracies, rank_classes
from clvr_bench.toolbox import Standardizer, labelled_subset, stratified_folds, strongest_best

# The protocol is frozen: none of these is an option, and a change of any is a new version. Grid and tolerance are those
# of linear-v1.
PROTOCOL = "few-label-v1"
PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-10, 3))
TOLERANCE = 1e-6
MAX_ITERATIONS = 500
MOST_FOLDS = 5
FIXED_PENALTY = 0.1  # where a class has one sample and none can be held out; any of the grid does as well then


@hookimpl
def register_evaluations(register: Register) -> None:
    """Register the probe with few labels."""
    register(
        "few_label",
        FewLabel,
        summary="Top-1 of the linear probe with 1% and 10% of the labels, stratified, the mean of several draws.",
        source="Fractions: Chen et al. 2020, https://arxiv.org/abs/2002.05709, section 6; the probe is this project's",
        version=1,
    )


class FewLabel(Evaluation):
    """Fits the linear probe on a part of the labels of train and val, which chooses nothing; scores each draw on test.

    Metrics, in percent, are means over the draws: ``top1_1pct``, ``top1_10pct`` and so on, and with more than five
    classes ``top5_1pct``. Details have each draw's. No predictions are kept, for each draw has its own.

    The penalty is chosen by stratified cross-validation among the labelled samples: as many folds as the rarest class
    has samples, at most five. Where it has one, the penalty is 0.1 and a note says so. Labels are few, pictures are
    not: features are standardized by all of train, as ``linear`` does.

    Args:
        fractions: Of the labels, each in (0, 1]; at least one sample a class is drawn.
        draws: Choices of labelled samples, each with its own fit; the same for every method of a seed.

    Raises:
        ClvrBenchError: A value is out of its range, or a fraction comes twice.
    """

    def __init__(self, *, fractions: tuple[float, ...] = (0.01, 0.1), draws: int = 5) -> None:
        wrong = [fraction for fraction in fractions if not 0 < fraction <= 1]
        if wrong or not fractions:
            raise ClvrBenchError(
                f"few_label: fractions must be above 0 and at most 1, got {list(fractions)}. Typical: [0.01, 0.1]."
            )
        if len({percent(fraction) for fraction in fractions}) < len(fractions):
            raise ClvrBenchError(f"few_label: fractions must differ from each other, got {list(fractions)}.")
        if draws < 1:
            raise ClvrBenchError(f"few_label: draws must be at least 1, got {draws}. The default is 5.")
        self.fractions, self.draws = fractions, draws

    def __call__(self, frozen: Frozen) -> Scores:
        """Judge; each draw's fit is scored on test once."""
        problem = Problem.of(frozen)
        found = {
            percent(fraction): [
                problem.probe(labelled_subset(problem.labels, fraction, seed=frozen.seed, draw=draw))
                for draw in range(self.draws)
            ]
            for fraction in self.fractions
        }
        metrics = {
            f"{metric}_{share}": fmean(probe.metrics[metric] for probe in probes)
            for share, probes in found.items()
            for metric in probes[0].metrics
        }
        shares = {share: share_details(probes) for share, probes in found.items()}
        protocol = {"protocol": PROTOCOL, "penalties": list(PENALTIES), "tolerance": TOLERANCE, "draws": self.draws}
        return Scores(metrics, details={**protocol, **shares}, notes=tuple(notes(found)))


@dataclass(frozen=True)
class Probe:
    """What one draw of labelled samples gave.

    Attributes:
        samples: (M,) int64, the labelled samples' numbers.
        folds: Of the cross-validation; 1 where there was none.
        cross_top1: Top-1 in percent on held-out folds, by penalty; empty where there was no cross-validation.
        penalty: That the final fit had.
        metrics: On test, in percent.
        unsolved: How many fits stopped at the limit of iterations.
    """

    samples: Tensor
    folds: int
    cross_top1: list[float]
    penalty: float
    metrics: dict[str, float]
    unsolved: int


@dataclass(frozen=True)
class Problem:
    """Standardized features and labels that may be labelled samples, and those of test.

    Attributes:
        features: (N, D), of train and val.
        labels: (N,) int64.
        test: (M, D).
        test_labels: (M,) int64.
        num_classes: K.
    """

    features: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    num_classes: int

    @classmethod
    def of(cls, frozen: Frozen) -> Self:
        """Take them from a frozen representation."""
        standardizer = Standardizer.of(frozen.features("train"))
        features = torch.cat([standardizer(frozen.features(split)) for split in ("train", "val")])
        labels = torch.cat([frozen.labels("train"), frozen.labels("val")])
        test = standardizer(frozen.features("test"))
        return cls(features, labels, test, frozen.labels("test"), frozen.num_classes)

    def probe(self, samples: Tensor) -> Probe:
        """Choose the penalty among the labelled samples (M,) alone, fit on all of them and score test."""
        chosen = samples.to(self.labels.device)
        labels = self.labels[chosen]
        known = self.features[chosen]
        folds = min(MOST_FOLDS, int(labels.unique(return_counts=True)[1].min()))
        cross_top1, unsolved = cross_validate(known, labels, self.num_classes, folds) if folds > 1 else ([], 0)
        penalty = PENALTIES[strongest_best(cross_top1)] if cross_top1 else FIXED_PENALTY
        fit = _fit(known, labels, self.num_classes, (penalty,))
        metrics = accuracies(rank_classes(fit.logits(self.test)[0]), self.test_labels, self.num_classes)
        return Probe(samples, folds, cross_top1, penalty, metrics, unsolved + _unsolved(fit))


def cross_validate(known: Tensor, labels: Tensor, num_classes: int, folds: int) -> tuple[list[float], int]:
    """Hold each fold out once, and predict it with fits on the others, one solve of all penalties a fold.

    Args:
        known: (M, D).
        labels: (M,) int64.
        num_classes: K.
        folds: At least 2.

    Returns:
        Top-1 in percent over all held-out samples, by penalty; and how many fits stopped at the limit of iterations.
    """
    fold = stratified_folds(labels, folds)
    right, unsolved = torch.zeros(len(PENALTIES), dtype=torch.int64, device=labels.device), 0
    for held_out in (fold == number for number in range(folds)):
        fit = _fit(known[~held_out], labels[~held_out], num_classes, PENALTIES)
        right += (fit.logits(known[held_out]).argmax(dim=2) == labels[held_out]).sum(dim=1)
        unsolved += _unsolved(fit)
    return (100 * right.double() / len(labels)).tolist(), unsolved


def share_details(probes: Sequence[Probe]) -> dict[str, object]:
    """Return what the record keeps of the draws of one fraction."""
    found: dict[str, object] = {
        "samples": len(probes[0].samples),
        "folds": probes[0].folds,
        "penalty": [probe.penalty for probe in probes],
        "cross_validated_top1": [probe.cross_top1 for probe in probes],
    }
    for metric in probes[0].metrics:
        values = [probe.metrics[metric] for probe in probes]
        found |= {metric: values, f"{metric}_std": stdev(values) if len(values) > 1 else None}
    return found


def notes(found: Mapping[str, Sequence[Probe]]) -> Iterator[str]:
    """Yield what a reader of the row must know, of draws by the share of labels."""
    for share, probes in found.items():
        if probes[0].folds < 2:
            yield f"{share}: a class with one labelled sample leaves none to hold out: the penalty is {FIXED_PENALTY}."
        unsolved = sum(probe.unsolved for probe in probes)
        if unsolved:
            yield f"{share}: {unsolved} fits did not reach their tolerance in {MAX_ITERATIONS} iterations."
    for (one, probes), (other, others) in combinations(found.items(), 2):
        if all(torch.equal(a.samples, b.samples) for a, b in zip(probes, others, strict=True)):
            yield f"{one} and {other} label the same {len(probes[0].samples)} samples."


def percent(fraction: float) -> str:
    """Name a fraction in metrics: ``"1pct"`` for 0.01."""
    return f"{100 * fraction:g}pct"


def _fit(features: Tensor, labels: Tensor, num_classes: int, penalties: tuple[float, ...]) -> LogisticFit:
    return fit_logistic(features, labels, num_classes, penalties, tolerance=TOLERANCE, max_iterations=MAX_ITERATIONS)


def _unsolved(fit: LogisticFit) -> int:
    return int((fit.gradient > TOLERANCE).sum())
