"""The linear probe's speed, and its predictions beside scikit-learn's, in two comparisons.

``solver``: the batched grid solve beside scikit-learn's logistic regression, penalty by penalty, on synthetic features.
``encoder``: features once and the whole grid beside 100 epochs of SGD that run the encoder on every crop of each epoch,
as peers do; a few epochs are timed and scaled to 100. Contenders take turns, for the speed of shared machines drifts.
The encoder is pretrained for a few epochs first. How long the grid takes depends on its features: the more separable
they are, the more iterations the weakest penalties take, so try ``--pretext-task supervised`` for a hard case.

Usage: python benchmarks/probe.py [--rounds 3] [--only solver] [--encoder resnet18] [--pretext-task simclr]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import clvr_bench
from clvr_bench import Scores, Split
from clvr_bench.contracts.encoder import IMAGENET_MEAN, IMAGENET_STD
from clvr_bench.data import Data, prepare
from clvr_bench.devices import choose_precision, describe, keep_freed_memory
from clvr_bench.features import FrozenRepresentation
from clvr_bench.ops.logistic import fit_logistic
from clvr_bench.suites import Suite, load_suite
from clvr_bench.toolbox import Standardizer, TimmEncoder
from clvr_plugins.datasets.shapes import Shapes
from clvr_plugins.evaluations.linear import PENALTIES as GRID
from clvr_plugins.evaluations.linear import LinearProbe
from clvr_plugins.evaluations.linear_sgd import LinearSgd

SAMPLES, HELD_OUT, DIMENSIONS, CLASSES = 10_000, 2_000, 512, 10
PENALTIES = tuple(10.0**exponent for exponent in range(-5, 2))
TOLERANCE = 1e-6  # of both solvers, on the largest absolute entry of the gradient
SIDE = 32  # pixels
EPOCHS, BATCH, RATE = 100, 256, 30.0  # of MoCo's linear protocol
PRETRAINING = 4  # epochs, with the quickstart suite's options
CPU = torch.device("cpu")


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


def scikit_learn(features: Tensor, labels: Tensor, held_out: Tensor, penalty: float) -> NDArray[np.int64]:
    """Predict held-out samples (M, D) with scikit-learn at one penalty, in float32 as well: (M,)."""
    model = LogisticRegression(C=1 / (penalty * len(features)), tol=TOLERANCE, max_iter=5_000)
    predictions: NDArray[np.int64] = model.fit(features.numpy(), labels.numpy()).predict(held_out.numpy())
    return predictions


def solve_one_by_one(features: Tensor, labels: Tensor, held_out: Tensor) -> NDArray[np.int64]:
    """Predict held-out samples (M, D) at every penalty with scikit-learn: (L, M)."""
    return np.stack([scikit_learn(features, labels, held_out, penalty) for penalty in PENALTIES])


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Call once: wall-clock seconds, and what came back."""
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def agreement(ours: NDArray[np.int64], theirs: NDArray[np.int64], truth: NDArray[np.int64]) -> list[str]:
    """Compare predictions (L, M) with each other and with true labels (M,): the lines of a Markdown table."""
    lines = ["| penalty | same predictions, percent | top-1, clvr-bench | top-1, scikit-learn |", "|---|---|---|---|"]
    for penalty, mine, other in zip(PENALTIES, ours, theirs, strict=True):
        same, top1, other_top1 = (100 * np.mean(hits) for hits in (mine == other, mine == truth, other == truth))
        lines.append(f"| {penalty:.0e} | {same:.2f} | {top1:.2f} | {other_top1:.2f} |")
    return lines


def compare_solvers(rounds: int) -> Iterator[str]:
    """Run both solvers in turns and yield the lines of what came of it."""
    features, labels = synthetic_features()
    data = features[:SAMPLES], labels[:SAMPLES], features[SAMPLES:]
    runs = [(timed(solve_together, *data), timed(solve_one_by_one, *data)) for _ in range(rounds)]
    (_, ours), (_, theirs) = runs[-1]
    mine, other = (statistics.median(run[solver][0] for run in runs) for solver in (0, 1))
    ratio = statistics.median(run[1][0] / run[0][0] for run in runs)
    yield f"N={SAMPLES:,} D={DIMENSIONS} K={CLASSES}, {_machine()}, float32, {rounds} rounds\n"
    yield from agreement(ours, theirs, labels[SAMPLES:].numpy())
    yield f"\nMedian seconds for all {len(PENALTIES)} penalties: clvr-bench {mine:.2f}, scikit-learn {other:.2f}"
    yield f"Median of the rounds' ratios: {ratio:.1f}x"


def pretrained_encoder(name: str, pretext_task: str) -> TimmEncoder:
    """Pretrain an encoder with one of the quickstart suite's tasks, as it sets it; in eval mode, frozen."""
    quickstart = load_suite("quickstart")
    items = [item for item in quickstart.pretext_tasks if isinstance(item, dict) and item["name"] == pretext_task]
    shapes = {"name": "shapes", "train_size": SAMPLES, "test_size": HELD_OUT, "image_size": SIDE}
    budget = {"epochs": PRETRAINING, "batch_size": 64}
    changes = {"encoders": [name], "datasets": [shapes], "evaluations": ["knn"], "budget": budget}
    suite = Suite.model_validate({**quickstart.model_dump(), **changes, "pretext_tasks": items})
    with TemporaryDirectory() as folder:
        clvr_bench.run(suite, results=folder, device="cpu")
        (run,) = Path(folder).glob("quickstart/runs/*")
        encoder = clvr_bench.load_encoder(run)
    assert isinstance(encoder, TimmEncoder)
    return encoder


class PeerPictures(Dataset[tuple[Tensor, int]]):
    """A split as peers' data sets are: PIL pictures, each transformed on its own by torchvision."""

    def __init__(self, split: Split) -> None:
        pixels = split.images(torch.arange(len(split))).pixels.permute(0, 2, 3, 1).numpy()
        self._pictures, self._labels = [Image.fromarray(picture) for picture in pixels], split.labels.tolist()
        self._transform = v2.Compose([
            v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self._transform(self._pictures[number]), self._labels[number]


class PeerProbe:
    """A linear classifier by SGD in peers' way: worker processes, PIL, a float32 encoder in eval mode, batch by batch.

    Cheaper than MoCo's script, which also runs all of its validation pictures after every epoch.
    """

    def __init__(self, data: Data, network: nn.Module) -> None:
        self._encoder = network
        self._classifier = nn.Linear(DIMENSIONS, CLASSES)
        self._optimizer = torch.optim.SGD(self._classifier.parameters(), RATE, momentum=0.9)
        pictures = PeerPictures(data.train.joined(data.val))
        self._loader = DataLoader(
            pictures, BATCH, shuffle=True, num_workers=os.cpu_count() or 1, persistent_workers=True
        )

    def run_epoch(self) -> None:
        """Train an epoch."""
        for pictures, labels in self._loader:
            loss = F.cross_entropy(self._classifier(self._encoder(pictures)), labels)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()


@dataclass(frozen=True)
class Round:
    """What one round gave.

    Attributes:
        seconds: Of features once, the grid and the final fit; of an epoch in peers' way; of one of ``linear_sgd``.
        scores: Of the first.
        frozen: What it judged, with its features.
    """

    seconds: tuple[float, float, float]
    scores: Scores
    frozen: FrozenRepresentation


def compare_with_sgd(rounds: int, name: str, pretext_task: str) -> Iterator[str]:
    """Run an epoch of SGD through the encoder beside the whole probe and yield the lines of what came of it."""
    data = prepare("shapes", Shapes(None, train_size=SAMPLES, test_size=HELD_OUT, image_size=SIDE), CPU)
    precision, encoder = choose_precision(CPU, "auto"), pretrained_encoder(name, pretext_task)
    peer = PeerProbe(data, encoder.network)
    peer.run_epoch()  # starts the workers
    _round(data, precision, encoder, peer)  # and the first run of a network is slow
    runs = [_round(data, precision, encoder, peer) for _ in range(rounds)]
    once, peers, own = (statistics.median(seconds) for seconds in zip(*(run.seconds for run in runs), strict=True))
    to_peers, to_own = (
        statistics.median(EPOCHS * run.seconds[place] / run.seconds[0] for run in runs) for place in (1, 2)
    )
    yield f"{name} after {PRETRAINING} epochs of {pretext_task}; {_machine()}, {rounds} rounds"
    yield f"{SAMPLES:,} training and {HELD_OUT:,} test pictures of {SIDE} px\n"
    yield "| | seconds | times features once |\n|---|---|---|"
    yield f"| features once ({precision}), {len(GRID)} penalties, final fit | {once:.2f} | 1 |"
    scaled = f"s an epoch, of which {rounds} were timed, x {EPOCHS}"
    yield f"| SGD as peers have it (PIL, float32): {peers:.2f} {scaled} | {EPOCHS * peers:.0f} | {to_peers:.0f} |"
    yield f"| linear_sgd ({precision}): {own:.2f} {scaled} | {EPOCHS * own:.0f} | {to_own:.0f} |"
    search: Any = runs[-1].scores.details["search"]
    yield f"\nMedians; ratios are medians of the rounds'. The grid's iterations: {search['iterations']}."
    yield from _same_as_scikit_learn(runs[-1].scores, runs[-1].frozen)


def _round(data: Data, precision: str, encoder: TimmEncoder, peer: PeerProbe) -> Round:
    frozen = FrozenRepresentation(encoder, data, CPU, precision, seed=0)
    once, scores = timed(LinearProbe(), frozen)
    peer_epoch, _ = timed(peer.run_epoch)
    own_epoch: Any = LinearSgd(epochs=1)(frozen).details["seconds"]  # features of test are there already
    return Round((once, peer_epoch, own_epoch), scores, frozen)


def _same_as_scikit_learn(scores: Scores, frozen: FrozenRepresentation) -> Iterator[str]:
    """Fit what the probe fitted last with scikit-learn and yield how many test pictures it sees alike."""
    standardizer = Standardizer.of(frozen.features("train"))
    train, val, test = (standardizer(frozen.features(split)) for split in ("train", "val", "test"))
    labels = torch.cat([frozen.labels("train"), frozen.labels("val")])
    penalty: Any = scores.details["penalty"]
    seconds, theirs = timed(scikit_learn, torch.cat([train, val]), labels, test, penalty)
    assert scores.predictions is not None
    same, top1 = (100 * np.mean(theirs == other.numpy()) for other in (scores.predictions[:, 0], frozen.labels("test")))
    yield f"Same predictions as scikit-learn's at the penalty that val chose ({penalty:.2g}): {same:.2f}%"
    yield f"Top-1: {scores.metrics['top1']:.2f}, scikit-learn {top1:.2f} (its one fit took {seconds:.1f} s)"


def _machine() -> str:
    return f"{describe(CPU)}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    """Run the comparisons and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times that each contender runs")
    parser.add_argument("--only", choices=["solver", "encoder"], help="one comparison alone")
    parser.add_argument(
        "--encoder", default="resnet18", help="timm's, with its plain stem; or resnet18_small, with 3x3"
    )
    parser.add_argument(
        "--pretext-task", default="simclr", help="how the encoder is pretrained; of the quickstart suite"
    )
    options = parser.parse_args()
    keep_freed_memory()
    lines: dict[str, Callable[[], Iterator[str]]] = {
        "solver": lambda: compare_solvers(options.rounds),
        "encoder": lambda: compare_with_sgd(options.rounds, options.encoder, options.pretext_task),
    }
    for name, compared in lines.items():
        if options.only in (None, name):
            print(*compared(), "", sep="\n", flush=True)  # noqa: T201 - a script's output


if __name__ == "__main__":
    main()
