"""PluginName: say in one sentence what is learned, and from what."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl
from clvr_bench.toolbox import mlp


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register plugin_name."""
    register(
        "plugin_name",
        PluginName,
        summary="Finds a picture's other view among the other views of the batch.",
        source="none",  # Edit: authors, year, link
        version=1,  # raise it with every edit that can change a score
    )


class PluginName(PretextTask):
    """Each view of a picture is matched with its other view, among the other views of all pictures in the batch.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Facts of the data; unused.
        projection_dim: P, the length of an embedding.
        temperature: What similarities are divided by, above 0; the smaller, the more the nearest pictures count.

    Raises:
        ClvrBenchError: The temperature is not positive.
    """

    views = 2  # how many the augmentation makes of each picture
    default_augmentation = "simclr"
    recipe = Recipe(optimizer="sgd", learning_rate=0.8, reference_batch=64, weight_decay=5e-4)

    # Edit: keyword-only, typed arguments are its options: --set plugin_name.temperature=0.5
    def __init__(
        self, encoder: Encoder, data: DataFacts, *, projection_dim: int = 128, temperature: float = 0.2
    ) -> None:
        super().__init__()
        if temperature <= 0:
            rule = "temperature must be positive"
            raise ClvrBenchError(f"plugin_name: {rule}, got {temperature}. Typical: 0.1 to 0.5.")
        self.encoder = encoder
        self.projector = mlp(encoder.feature_dim, encoder.feature_dim, projection_dim)
        self.temperature = temperature

    # Edit: targets, queues and the like do not move here but in after_step; name them in `moves` then
    def forward(self, batch: Batch) -> StepOutput:
        """Compute the loss of a batch."""
        embeddings = self.projector(self.encoder(torch.cat(tuple(batch.views))))  # (2B, P)
        first, second = embeddings.float().chunk(2)  # (B, P) each
        scores = match_scores(first, second, self.temperature)  # (B, B)
        return StepOutput(loss=matching_loss(scores), logs={"match_top1": match_accuracy(scores)})


# Edit: the maths, as functions of tensors alone, so that a test can compare them with the paper's equations
def match_scores(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Compare the first view of every picture with the second view of every picture.

    Args:
        first: (B, P) embeddings.
        second: (B, P) embeddings; row i is another view of the picture of row i in ``first``.
        temperature: Positive.

    Returns:
        (B, B) cosine similarities over the temperature; those on the diagonal belong together.
    """
    return F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature


def matching_loss(scores: Tensor) -> Tensor:
    """Return the cross-entropy () of finding the match in scores (B, B), by row and by column alike."""
    match = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, match) + F.cross_entropy(scores.T, match)) / 2


def match_accuracy(scores: Tensor) -> Tensor:
    """Return how often (), in percent, the match has the highest score of its row, of scores (B, B)."""
    match = torch.arange(len(scores), device=scores.device)
    return 100 * (scores.argmax(dim=1) == match).float().mean()
