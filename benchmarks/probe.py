"""The linear probe's batched grid solve beside scikit-learn's logistic regression: seconds, and predictions shared.

Usage: python benchmarks/probe.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from clvr_bench.ops.logistic import fit_logistic

SAMPLES, HELD_OUT, DIMENSIONS, CLASSES = 10_000, 2_000, 512, 10
PENALTIES = tuple(10.0**exponent for exponent in range(-5, 2))
TOLERANCE = 1e-6  # of both solvers, on the largest absolute entry of the gradient


def synthetic_features() -> tuple[Tensor, Tensor]:
    """Return standardized rectified features (N, D) with a decaying spectrum, and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    count, hidden = SAMPLES + HELD_OUT, 64
    labels = torch.randint(CLASSES, (count,), generator=generator)
    centers = torch.randn(CLASSES, hidden, generator=generator) * 3 / hidden**0.5
    signal = centers[labels] + torch.randn(count, hidden, generator=generator)
    mixing = torch.randn(hidden, DIMENSIONS, generator=generator) / hidden**0.5
    noise = torch.randn(count, DIMENSIONS, generator=generator) / torch.arange(1, DIMENSIONS + 1)
    rotation = torch.linalg.qr(torch.randn(DIMENSIONS, DIMENSIONS, generator=generator))[0]
    features = torch.relu(signal @ mixing + noise @ rotation)
    return (features - features.mean(0)) / features.std(0), labels


def solve_together(features: Tensor, labels: Tensor, held_out: Tensor) -> NDArray[np.int64]:
    """Predict held-out samples (M, D) at every penalty with one batched solve: (L, M)."""
    fit = fit_logistic(features, labels, CLASSES, PENALTIES, tolerance=TOLERANCE)
    return np.asarray(fit.logits(held_out).argmax(2).numpy())


def solve_one_by_one(features: Tensor, labels: Tensor, held_out: Tensor) -> NDArray[np.int64]:
    """Predict held-out samples (M, D) at every penalty with scikit-learn, in float32 as well: (L, M)."""
    models = (LogisticRegression(C=1 / (penalty * SAMPLES), tol=TOLERANCE, max_iter=5_000) for penalty in PENALTIES)
    return np.stack([model.fit(features.numpy(), labels.numpy()).predict(held_out.numpy()) for model in models])


def timed(solve: Callable[..., NDArray[np.int64]], *data: Tensor) -> tuple[float, NDArray[np.int64]]:
    """Run a solver once: wall-clock seconds, and what it predicts."""
    start = time.perf_counter()
    predictions = solve(*data)
    return time.perf_counter() - start, predictions


def table(ours: NDArray[np.int64], theirs: NDArray[np.int64], truth: NDArray[np.int64]) -> list[str]:
    """Compare predictions (L, M) with each other and with true labels (M,): the lines of a Markdown table."""
    lines = ["| penalty | same predictions, percent | top-1, clvr-bench | top-1, scikit-learn |", "|---|---|---|---|"]
    for penalty, mine, other in zip(PENALTIES, ours, theirs, strict=True):
        same, top1, other_top1 = (100 * np.mean(hits) for hits in (mine == other, mine == truth, other == truth))
        lines.append(f"| {penalty:.0e} | {same:.2f} | {top1:.2f} | {other_top1:.2f} |")
    return lines


def main() -> None:
    """Run both solvers in turns, so that a slow spell of the machine meets both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times that each solver runs")
    rounds = parser.parse_args().rounds
    features, labels = synthetic_features()
    data = features[:SAMPLES], labels[:SAMPLES], features[SAMPLES:]
    runs = [(timed(solve_together, *data), timed(solve_one_by_one, *data)) for _ in range(rounds)]
    (_, ours), (_, theirs) = runs[-1]
    mine, other = (statistics.median(run[solver][0] for run in runs) for solver in (0, 1))
    ratio = statistics.median(run[1][0] / run[0][0] for run in runs)
    lines = [
        f"N={SAMPLES:,} D={DIMENSIONS} K={CLASSES}, {torch.get_num_threads()} threads, float32, {rounds} rounds",
        "",
        *table(ours, theirs, labels[SAMPLES:].numpy()),
        "",
        f"Median seconds for all {len(PENALTIES)} penalties: clvr-bench {mine:.2f}, scikit-learn {other:.2f}",
        f"Median of the rounds' ratios: {ratio:.1f}x",
    ]
    print("\n".join(lines))  # noqa: T201 - a script's output


if __name__ == "__main__":
    main()
