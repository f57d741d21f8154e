"""BYOL: predict what a slow copy makes of a picture's other view; nothing repels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    PretextTask,
    Progress,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import MomentumTarget, growing_momentum, mlp


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register BYOL."""
    register(
        "byol",
        BYOL,
        summary="Predicts a momentum encoder's embedding of the other view, without negatives.",
        source="Grill et al. 2020, https://arxiv.org/abs/2006.07733",
        version=1,
    )


class BYOL(PretextTask):
    """BYOL (Grill et al. 2020, section 3, equations 1 and 2; algorithm 1 of appendix A).

    Each view passes each network on its own, as in the authors' code, so BatchNorm's statistics are one view's; they
    are the whole batch's. The target uses its own batch statistics too. It starts as a copy: the authors' code
    starts it from other random weights and notes no difference. The last layers of the heads have a bias here, which
    the authors' code leaves out; the paper does not say.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding (section 3.3: 256).
        hidden_dim: Width of the hidden layers of projector and predictor (section 3.3: 4096).
        target_momentum: tau_base, what the target's momentum is at first, in [0, 1] (section 3.3: 0.996).
    """

    views = 2
    default_augmentation = "byol"
    recipe = Recipe(  # section 3.3; 10 of 1000 epochs warm up
        optimizer="lars", learning_rate=0.2, weight_decay=1.5e-6, warmup=0.01
    )
    moves = ("target",)
    check_options: ClassVar[Mapping[str, object]] = {"hidden_dim": 64}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 256,
        hidden_dim: int = 4096,
        target_momentum: float = 0.996,
    ) -> None:
        super().__init__()
        if not 0 <= target_momentum <= 1:
            raise ClvrBenchError(
                f"byol: target_momentum must be in [0, 1], got {target_momentum}. Typical: 0.98 (short runs) to 0.996."
            )
        self.target_momentum = target_momentum
        self.encoder = encoder
        self.projector = mlp(encoder.feature_dim, hidden_dim, projection_dim)
        self.predictor = mlp(projection_dim, hidden_dim, projection_dim)
        self.target = MomentumTarget(self.encoder, self.projector)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the loss in both directions: each view's prediction against the target of the other."""
        first, second = (self.predictor(self.projector(self.encoder(view))) for view in batch.views)  # each (B, P)
        first_target, second_target = (self.target(view) for view in batch.views)  # each (B, P)
        loss = prediction_error(first, second_target) + prediction_error(second, first_target)
        return StepOutput(loss=loss.mean(), logs={"target_spread": spread(first_target)})

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the target towards encoder and projector (equation 1), ever slower."""
        momentum = growing_momentum(self.target_momentum, progress)
        self.target.follow(self.encoder, self.projector, momentum=momentum)


def prediction_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Compute the squared distance of normalized vectors, 2 - 2 cos (equation 2), in float32.

    Args:
        predictions: (B, P).
        targets: (B, P); takes no gradient.

    Returns:
        (B,), from 0 to 4.
    """
    return 2 - 2 * F.cosine_similarity(predictions.float(), targets.detach().float(), dim=1)


def spread(embeddings: Tensor) -> Tensor:
    """Measure how embeddings (B, P) differ in direction: () from 0, collapsed to one, to 1, to all sides."""
    return (1 - F.normalize(embeddings.detach().float(), dim=1).mean(dim=0).square().sum()).sqrt()
