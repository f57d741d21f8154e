"""SimSiam: predict one view's embedding from the other's, with the gradient stopped at what is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl
from clvr_bench.ops.health import spread
from clvr_bench.toolbox import mlp, normalized_mlp


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register SimSiam."""
    register(
        "simsiam",
        SimSiam,
        summary="Predicts the embedding of the other view, through which no gradient flows.",
        source="Chen and He 2020, https://arxiv.org/abs/2011.10566",
        version=1,
    )


class SimSiam(PretextTask):
    """SimSiam (Chen and He 2020, section 3, algorithm 1: equations 1 and 4).

    Each view passes the network on its own (algorithm 1), so BatchNorm's statistics are one view's. The projector has
    BatchNorm on its output too, the predictor none (section 3, "baseline settings"); the former has no parameters and
    no bias before it, as in the authors' code, since the paper does not say.
    Differs from the paper: the predictor's rate falls with all others, as in the first row of table 1, because a recipe
    has one schedule; where it stays (row c), the paper's network is 0.4 points better, and later sections keep it so.
    Biases and BatchNorm's parameters do not decay; in the authors' code they do.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding (section 3: 2048).
        hidden_dim: Width of the projector's two hidden layers (section 3: 2048).
        bottleneck_dim: Width of the predictor's hidden layer (section 3: 512, a quarter of P).
    """

    views = 2
    default_augmentation = "moco_v2"  # appendix A
    recipe = Recipe(optimizer="momentum", learning_rate=0.05, weight_decay=1e-4, warmup=0.0)  # section 3
    check_options: ClassVar[Mapping[str, object]] = {"projection_dim": 64, "hidden_dim": 64, "bottleneck_dim": 16}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 2048,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 512,
    ) -> None:
        super().__init__()
        if min(projection_dim, hidden_dim, bottleneck_dim) < 1:
            raise ClvrBenchError(
                "simsiam: projection_dim, hidden_dim and bottleneck_dim must be at least 1, got "
                f"{projection_dim}, {hidden_dim} and {bottleneck_dim}. Typical: 2048, 2048 and 512."
            )
        self.encoder = encoder
        self.projector = normalized_mlp(encoder.feature_dim, hidden_dim, hidden_dim, projection_dim)
        self.predictor = mlp(projection_dim, bottleneck_dim, projection_dim)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 4: each view's prediction against the embedding of the other."""
        first, second = (self.projector(self.encoder(view)) for view in batch.views)  # each (B, P)
        forwards = negative_cosine(self.predictor(first), second)
        backwards = negative_cosine(self.predictor(second), first)
        return StepOutput(loss=(forwards + backwards).mean() / 2, logs={"spread": spread(first.detach().float())})


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Compute D of equation 1, minus the cosine of each pair of vectors, in float32.

    Args:
        predictions: (B, P), p.
        targets: (B, P), z; takes no gradient (equation 3).

    Returns:
        (B,), from -1 to 1.
    """
    return -F.cosine_similarity(predictions.float(), targets.detach().float(), dim=1)
