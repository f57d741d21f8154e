"""MoCo v3: a view's prediction attracts a slow copy's embedding of the other view, and repels those of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn
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
from clvr_bench.toolbox import MomentumTarget, growing_momentum, normalized_mlp


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register MoCo v3."""
    register(
        "moco_v3",
        MoCoV3,
        summary="Predicts a momentum encoder's embedding of the other view; those of the batch repel, no queue.",
        source="Chen, Xie and He 2021, https://arxiv.org/abs/2104.02057",
        version=1,
    )


class MoCoV3(PretextTask):
    """MoCo v3 (Chen, Xie and He 2021, section 3, equation 1 and algorithm 1; section 5).

    Defaults and recipe are those for vision transformers. ResNet-50 has (appendix A) LARS at a rate of 0.3 and weight
    decay 1.5e-6, temperature 1 and a momentum from 0.996. Each view passes each network on its own (appendix A), so
    BatchNorm's statistics are one view's. All layers of both heads have BatchNorm (section 5); on their outputs it has
    no parameters, as in the authors' code. The momentum grows to 1 along a cosine, which the paper says of ResNet-50
    alone and the authors' code does for all.
    The paper's features are class tokens, or means of tokens without the last LayerNorm; means behind it are 7 points
    worse (section 6.2), and are what small vision transformers here give unless built with ``pool = "token"``.
    The heads of section 5 serve every encoder here; in the authors' code those of ResNet-50 have one hidden layer each
    and no BatchNorm on predictions.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
        projection_dim: P, the length of an embedding (section 5: 256).
        hidden_dim: Width of all hidden layers, two of the projector and one of the predictor (section 5: 4096).
        temperature: tau of equation 1 (section 5: 0.2).
        target_momentum: m, what the target's momentum is at first, in [0, 1] (section 6.2: 0.99).
        frozen_patches: Whether the patch projection of a vision transformer keeps its random weights, which makes
            training stable (section 4.2). Encoders without timm's patch projection stay as they are.
    """

    views = 2
    default_augmentation = "byol"  # appendix A names its operations, the authors' code its numbers
    recipe = Recipe(  # section 5 and figure 5; weight decay of the authors' code; 40 of 300 epochs warm up
        optimizer="adamw", learning_rate=1.5e-4, weight_decay=0.1, warmup=0.133
    )
    moves = ("target",)
    check_options: ClassVar[Mapping[str, object]] = {"projection_dim": 32, "hidden_dim": 64}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 256,
        hidden_dim: int = 4096,
        temperature: float = 0.2,
        target_momentum: float = 0.99,
        frozen_patches: bool = True,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ClvrBenchError(f"moco_v3: temperature must be positive, got {temperature}. Typical: 0.2 to 1.")
        if not 0 <= target_momentum <= 1:
            raise ClvrBenchError(
                f"moco_v3: target_momentum must be in [0, 1], got {target_momentum}. Typical: 0.9 (short runs) to 0.99."
            )
        self.temperature, self.target_momentum = temperature, target_momentum
        self.encoder = encoder
        if frozen_patches:
            freeze_patch_projection(encoder)
        self.projector = normalized_mlp(encoder.feature_dim, hidden_dim, hidden_dim, projection_dim)
        self.predictor = normalized_mlp(projection_dim, hidden_dim, projection_dim)
        self.target = MomentumTarget(self.encoder, self.projector)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the loss in both directions: each view's predictions against the keys of the other."""
        queries = [self.predictor(self.projector(self.encoder(view))) for view in batch.views]  # each (B, P)
        keys = [self.target(view) for view in batch.views]  # each (B, P)
        ways = [contrast(*way, self.temperature) for way in zip(queries, reversed(keys), strict=True)]  # each (B, B)
        return StepOutput(
            loss=2 * self.temperature * torch.stack([info_nce(way) for way in ways]).sum(),
            logs={"contrastive_top1": torch.stack([matched_percentage(way) for way in ways]).mean()},
        )

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the target towards encoder and projector (algorithm 1), ever slower."""
        momentum = growing_momentum(self.target_momentum, progress)
        self.target.follow(self.encoder, self.projector, momentum=momentum)


def freeze_patch_projection(encoder: nn.Module) -> None:
    """Keep the weights that turn patches into tokens out of training, where an encoder has timm's (section 4.2)."""
    for module in encoder.modules():
        if isinstance(module, PatchEmbed):
            module.requires_grad_(False)


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Compute the exponents of equation 1, q . k / tau for q and k of length 1, in float32.

    Args:
        queries: (B, P), of any length.
        keys: (B, P), of any length; row i is the positive of query i. Takes no gradient.
        temperature: tau, positive.

    Returns:
        (B, B), a row for each query; the positives are on the diagonal.
    """
    with torch.autocast(queries.device.type, enabled=False):
        return F.normalize(queries.float(), dim=1) @ F.normalize(keys.detach().float(), dim=1).T / temperature


def info_nce(exponents: Tensor) -> Tensor:
    """Compute the mean of equation 1 over the queries, from exponents (B, B) with the positives on the diagonal."""
    return F.cross_entropy(exponents, torch.arange(len(exponents), device=exponents.device))


def matched_percentage(exponents: Tensor) -> Tensor:
    """Return how often, in percent, a query is most like its own key, from exponents (B, B) as above."""
    own = torch.arange(len(exponents), device=exponents.device)
    return 100 * (exponents.argmax(dim=1) == own).float().mean()
