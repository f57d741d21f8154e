"""Weighted k-nearest-neighbour classification on frozen features: nothing is trained, nothing is chosen."""

from __future__ import annotations

from clvr_bench import Evaluation, Frozen, Register, Scores, hookimpl
from clvr_bench.ops.knn import weighted_knn
from clvr_bench.ops.ranking import accuracies, rank_classes

# The protocol is frozen: none of these is an option, and a change of any is a new version.
TEMPERATURE = 0.07
MOST_NEIGHBORS = 200


@hookimpl
def register_evaluations(register: Register) -> None:
    """Register the k-NN classifier."""
    register(
        "knn",
        WeightedKnn,
        summary="Top-1 of a vote among the nearest training samples, weighted by cosine similarity.",
        source="Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4; k shrinks with small sets",
        version=1,
    )


class WeightedKnn(Evaluation):
    """Lets the nearest samples of train vote for each sample of test; ``val`` is not used.

    Metrics, in percent: ``top1`` and ``top5`` on test (``top5`` only with more than five classes).
    """

    def __call__(self, frozen: Frozen) -> Scores:
        """Judge."""
        bank = frozen.features("train")
        k = neighbors(len(bank), frozen.num_classes)
        scores = weighted_knn(bank, frozen.labels("train"), frozen.features("test"), frozen.num_classes, k, TEMPERATURE)
        predictions = rank_classes(scores)
        metrics = accuracies(predictions, frozen.labels("test"), frozen.num_classes)
        return Scores(metrics, predictions, details={"k": k, "temperature": TEMPERATURE})


def neighbors(train_size: int, num_classes: int) -> int:
    """Return k: 200 as in the paper, but at most half of the samples that a class has on average, and at least 1."""
    return max(1, min(MOST_NEIGHBORS, train_size // (2 * num_classes)))
