"""Deep InfoMax: maximize the mutual information between a picture's code and its local features, or all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    EncoderFacts,
    PretextTask,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import (
    FeatureMaps,
    ResidualEmbedding,
    mlp,
    no_local_features,
    others_only,
    own_scores,
    place_nce,
    place_scores,
    place_top1,
    place_vectors,
)

Estimator = Literal["jsd", "infonce", "dv"]


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register Deep InfoMax."""
    register(
        "deep_infomax",
        DeepInfoMax,
        summary="A picture's code tells its own local features from others', and is matched to a prior.",
        source="Hjelm et al. 2018, https://arxiv.org/abs/1808.06670",
        version=1,
    )


class DeepInfoMax(PretextTask):
    """Deep InfoMax (Hjelm et al. 2018, section 3; equation 8), with its encode-and-dot-product architecture.

    Two layers make a code y of the encoder's feature, as at the top of the paper's encoder. The local term (equation 6)
    lets it tell the vectors at all places of one of its picture's feature maps from those of the other pictures in the
    batch; the global term (equation 3) tells whole maps apart. Mutual information is estimated by equation 4 or 5, or
    by Donsker and Varadhan's bound. The prior term (equation 7) matches sigmoid(y) to a uniform distribution: a
    discriminator learns to tell one from the other, and the code to be taken for the prior. All parts step at once, on
    the same pictures and each on its own loss, as in the authors' code (https://github.com/rdevon/DIM), from which all
    that the paper leaves open is taken. What is evaluated is the encoder's feature, not the code.
    Differs from the paper: the encoder is any convolutional network, and the map is one of those before its last, so
    the local features of a deep one see more of a picture than the paper's; the discriminator's gradient is not
    penalized, which that code does; pictures are cropped and flipped at random, which the paper does for STL-10 alone.
    The authors' code maps a whole feature map to its embedding by the encoder's own upper layers, here two linear
    layers do. The default weights are those of the paper's DIM(L); they and DIM(G)'s are quoted from memory.

    Args:
        encoder: Maps pictures to features (B, D), and has at least two feature maps.
        data: Its ``image_size`` decides which map is taken.
        alpha: Weight of the global term, 0 to leave it out (0; DIM(G) has 1, with beta 0 and gamma 1).
        beta: Weight of the local term, 0 to leave it out (1).
        gamma: Weight of the prior term for the encoder, 0 to leave it out (0.1); the discriminator's loss has 1.
        scaled: Whether scores are divided by the root of P, as in AMDIM, but not in this paper. If they are not, they
            start far apart, and a short run spends itself on drawing them together.
        estimator: Of mutual information: Jensen-Shannon (equation 4), InfoNCE (5) or Donsker-Varadhan.
        code_dim: The length of a code (64).
        fc_dim: Width of the normalized layer between the feature and the code (1024).
        embedding_dim: P, the length of what local features and codes are compared as (2048).
        local_side: M, the height and width wanted of the feature map (8, of 32 px pictures); the nearest is taken.
        hidden_dim: Width of the layer between a whole map and its embedding.
    """

    views = 1
    default_augmentation = "crop_flip"
    recipe = Recipe(  # the authors' code, for batches of 64
        optimizer="adam", learning_rate=1e-4, scaling="none", weight_decay=0.0, warmup=0.0, schedule="constant"
    )
    check_options: ClassVar[Mapping[str, Any]] = {"alpha": 0.5, "fc_dim": 64, "embedding_dim": 64, "hidden_dim": 32}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        alpha: float = 0.0,
        beta: float = 1.0,
        gamma: float = 0.1,
        scaled: bool = False,
        estimator: Estimator = "jsd",
        code_dim: int = 64,
        fc_dim: int = 1024,
        embedding_dim: int = 2048,
        local_side: int = 8,
        hidden_dim: int = 512,
    ) -> None:
        super().__init__()
        if min(alpha, beta, gamma) < 0 or alpha == beta == 0:
            raise ClvrBenchError(
                "deep_infomax: alpha, beta and gamma must not be negative, nor alpha and beta both 0, got "
                f"{alpha}, {beta} and {gamma}. The paper's are 0, 1 and 0.1."
            )
        if min(code_dim, fc_dim, embedding_dim, local_side, hidden_dim) < 1:
            raise ClvrBenchError(
                "deep_infomax: code_dim, fc_dim, embedding_dim, local_side and hidden_dim must be positive, got "
                f"{code_dim}, {fc_dim}, {embedding_dim}, {local_side} and {hidden_dim}. "
                "Typical: 64, 1024, 2048, 8 and 512."
            )
        self.encoder, self.estimator = encoder, estimator
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.scale = math.sqrt(embedding_dim) if scaled else 1.0
        self.maps = FeatureMaps.of(encoder, data)
        if len(self.maps.sides) < 2:
            raise ClvrBenchError("deep_infomax: the encoder has one feature map, and it takes one before the last.")
        self.local = self.maps.nearest(local_side, range(len(self.maps.sides) - 1))
        channels, places = self.maps.channels[self.local], self.maps.sides[self.local] ** 2
        self.code = mlp(encoder.feature_dim, fc_dim, code_dim)
        if alpha:
            self.global_source = embedding(code_dim, embedding_dim)
            self.global_target = mlp(channels * places, hidden_dim, embedding_dim)
        if beta:
            self.local_source = embedding(code_dim, embedding_dim)
            self.local_target = embedding(channels, embedding_dim)
        if gamma:
            self.discriminator = mlp(code_dim, 1000, 200, 1, batch_norm=False)

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Pass over encoders without local features."""
        return no_local_features(encoder)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 8, and the discriminator's loss beside it."""
        feature, maps = self.maps(self.encoder, batch.views[0])
        code, vectors = self.code(feature), place_vectors(maps[self.local])  # (B, code), (B, L, c)
        losses, logs = [], {}
        if self.alpha:
            wholes = self.global_target(vectors.flatten(1))[:, None]  # (B, 1, P)
            scores = place_scores(self.global_source(code), wholes) / self.scale  # (B, B, 1)
            losses.append(self.alpha * information_loss(scores, self.estimator))
            logs["global_top1"] = place_top1(scores)
        if self.beta:
            scores = place_scores(self.local_source(code), self.local_target(vectors)) / self.scale  # (B, B, L)
            losses.append(self.beta * information_loss(scores, self.estimator))
            logs["local_top1"] = place_top1(scores)
        if self.gamma:
            prior = batch.random("prior").uniform(code.shape[1])  # (B, code)
            fooling, telling = prior_losses(self.discriminator, code.float().sigmoid(), prior)
            losses += [self.gamma * fooling, telling]
            logs["discriminator_loss"] = telling
        return StepOutput(torch.stack(losses).sum(), logs)


def embedding(inputs: int, outputs: int) -> ResidualEmbedding:
    """Build an embedding function of the encode-and-dot-product architecture: (..., inputs) to (..., outputs)."""
    return ResidualEmbedding(inputs, outputs, norm="layer", hidden_batch_norm=True)


def information_loss(scores: Tensor, estimator: Estimator) -> Tensor:
    """Estimate mutual information, negative, up to a constant.

    Args:
        scores: (B, B, L), T(x', y) of every code with every place of all pictures, its own on the diagonal.
        estimator: ``"jsd"`` is equation 4, ``"infonce"`` equation 5 with the other pictures' places as negatives,
            ``"dv"`` the bound of Donsker and Varadhan.

    Returns:
        (), to be minimized.
    """
    if estimator == "infonce":
        return place_nce(scores).mean()
    own = own_scores(scores)  # (B, L)
    pairs = len(scores) * (len(scores) - 1) * scores.shape[2]  # of codes with places of other pictures
    if estimator == "jsd":
        return F.softplus(-own).mean() + F.softplus(others_only(scores, float("-inf"))).sum() / pairs
    return others_only(scores, float("-inf")).flatten().logsumexp(dim=0) - math.log(pairs) - own.mean()


def prior_losses(discriminator: nn.Module, codes: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Compute both sides of equation 7; neither's gradient reaches the other's parameters.

    Args:
        discriminator: Maps (B, code) to (B, 1), the logit of D.
        codes: (B, code), in [0, 1].
        prior: (B, code), drawn from it.

    Returns:
        What the encoder minimizes, -log D(code): the form of the authors' code, which does not saturate as
        log(1 - D(code)) does; and what the discriminator minimizes, -log D(prior) - log(1 - D(code)). Both ().
    """
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    fooling = F.softplus(-functional_call(discriminator, frozen, (codes,)).float()).mean()
    real, fake = discriminator(prior).float(), discriminator(codes.detach()).float()
    return fooling, F.softplus(-real).mean() + F.softplus(fake).mean()
