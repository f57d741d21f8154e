"""PluginName: say in one sentence how features are judged."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Evaluation, Frozen, Register, Scores, hookimpl
from clvr_bench.ops.ranking import accuracies, rank_classes


@hookimpl
def register_evaluations(register: Register) -> None:
    """Register plugin_name."""
    register(
        "plugin_name",
        PluginName,
        summary="Top-1 of the class whose mean feature is nearest, by cosine similarity.",
        source="none",  # Edit: authors, year, link
        version=1,  # raise it with every edit that can change a score
    )


class PluginName(Evaluation):
    """Assigns each sample of test to the class whose mean over train is the most similar; ``val`` is not used.

    Metrics, in percent: ``top1`` and ``top5`` on test (``top5`` only with more than five classes).
    """

    # Edit: an __init__ with keyword-only, typed arguments gives it options. What needs choosing is chosen on "val":
    # "test" is for the score alone.
    def __call__(self, frozen: Frozen) -> Scores:
        """Judge."""
        means = class_means(frozen.features("train"), frozen.labels("train"), frozen.num_classes)
        predictions = rank_classes(similarities(frozen.features("test"), means))
        return Scores(accuracies(predictions, frozen.labels("test"), frozen.num_classes), predictions)


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Average the features of each class.

    Args:
        features: (N, D) float32; each counts with its direction, not with its length.
        labels: (N,) int64.
        num_classes: K.

    Returns:
        (K, D); zero for a class without samples.
    """
    member = F.one_hot(labels, num_classes).to(features.dtype)  # (N, K)
    return member.T @ F.normalize(features, dim=1) / member.sum(dim=0).clamp(min=1)[:, None]


def similarities(features: Tensor, means: Tensor) -> Tensor:
    """Return the cosine similarities (M, K) of features (M, D) and class means (K, D)."""
    return F.normalize(features, dim=1) @ F.normalize(means, dim=1).T
