"""AMDIM: what one view of a picture is embedded as, whole or at a place, predicts all places of its other view."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

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
    no_local_features,
    place_nce,
    place_scores,
    place_top1,
    place_vectors,
)


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register AMDIM."""
    register(
        "amdim",
        AMDIM,
        summary="One view predicts the local features of the other at two scales, against all pictures of the batch.",
        source="Bachman et al. 2019, https://arxiv.org/abs/1906.00910",
        version=1,
    )


class AMDIM(PretextTask):
    """Augmented multiscale Deep InfoMax (Bachman et al. 2019, its sections on NCE, views and multiple scales).

    The paper writes f1, f5 and f7 for an encoder's feature and its maps of 5 x 5 and 7 x 7 places. Of each view, f1
    predicts f5 and f7 of the other view, and f5 at a place drawn for each picture predicts the other's f5: "1-to-5",
    "1-to-7" and "5-to-5". A prediction scores all places of all pictures, and its loss is that of telling each place of
    its own picture from those of the others. Scores are dot products of embeddings over the root of their length,
    softly clipped by a tanh; their squares before that are penalized. Each view passes encoder and embeddings on its
    own. What the paper leaves open is taken from the authors' code (https://github.com/Philip-Bachman/amdim-public).
    With another encoder than the paper's, f5 is the map whose side is nearest to 5 and f7 the one nearest to 7 among
    those finer than that: 4 and 8 px in a ResNet with a stem for 32 px, 7 and 14 px in one at 224 px. Unlike the
    paper's, their places may see all of the picture.
    Differs from the paper: color is changed as in MoCo, whose hue varies more, and crops may be a little smaller; views
    are mirrored each on its own, not together; the rate falls along a cosine, not fivefold at epochs 30 and 45 of 50.
    The learnt augmentation of its best results is not here.

    Args:
        encoder: Maps pictures to features (B, D), and has at least two feature maps of different sides.
        data: Its ``image_size`` decides which maps are taken.
        embedding_dim: P, the length of an embedding (1536 for AMDIM-small).
        embed_feature: Whether f1 is embedded too. Where it is not, it must have P numbers, as in the authors' code;
            None embeds it only where it has another number of them.
        clip: c, what scores stay below in size (20).
        penalty: lambda, the weight of squared scores (4e-2).
        coarse_side: The height and width wanted of f5.
        fine_side: Those wanted of f7.
    """

    views = 2
    default_augmentation = "moco_v1"
    recipe = Recipe(  # the authors' code; 500 steps warm up, of 50 epochs on ImageNet in batches of 480
        optimizer="adam", learning_rate=2e-4, scaling="none", betas=(0.8, 0.999), weight_decay=1e-5, warmup=0.004
    )
    check_options: ClassVar[Mapping[str, Any]] = {"embedding_dim": 96}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        embedding_dim: int = 1536,
        embed_feature: bool | None = None,
        clip: float = 20.0,
        penalty: float = 4e-2,
        coarse_side: int = 5,
        fine_side: int = 7,
    ) -> None:
        super().__init__()
        if min(embedding_dim, coarse_side, fine_side) < 1 or clip <= 0 or penalty < 0:
            raise ClvrBenchError(
                "amdim: embedding_dim, coarse_side, fine_side and clip must be positive and penalty not negative, got "
                f"{embedding_dim}, {coarse_side}, {fine_side}, {clip} and {penalty}. Typical: 1536, 5, 7, 20 and 0.04."
            )
        self.encoder, self.clip, self.penalty = encoder, clip, penalty
        self.maps = FeatureMaps.of(encoder, data)
        self.coarse, self.fine = two_scales(self.maps, coarse_side, fine_side)
        self.embed_feature = feature_embedding(encoder.feature_dim, embedding_dim, embed_feature)
        self.embed_coarse, self.embed_fine = (
            map_embedding(self.maps.channels[number], embedding_dim) for number in (self.coarse, self.fine)
        )

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Pass over encoders without local features."""
        return no_local_features(encoder)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the three losses, with their penalties, in both directions."""
        first, second = (self._embed(view) for view in batch.views)
        places = batch.random("places").integers(first.coarse.shape[1], 2)  # (B, 2), where f5 of either view predicts
        losses, top1s = [], []
        for source, target, place in ((first, second, places[:, 0]), (second, first, places[:, 1])):
            one_place = source.coarse[torch.arange(len(place), device=place.device), place]  # (B, P)
            scores = [
                scaled_scores(source.whole, target.coarse),
                scaled_scores(source.whole, target.fine),
                scaled_scores(one_place, target.coarse),
            ]  # each (B, B, L)
            losses += [clipped_nce(one, self.clip) + self.penalty * one.square().mean() for one in scores]
            top1s.append(place_top1(scores[1]))
        return StepOutput(torch.stack(losses).sum() / 2, logs={"fine_top1": torch.stack(top1s).mean()})

    def _embed(self, view: Tensor) -> Embedded:
        feature, maps = self.maps(self.encoder, view)
        return Embedded(
            whole=self.embed_feature(feature),
            coarse=self.embed_coarse(place_vectors(maps[self.coarse])),
            fine=self.embed_fine(place_vectors(maps[self.fine])),
        )


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a view of B pictures.

    Attributes:
        whole: Of f1, (B, P).
        coarse: Of f5 at its places, (B, L, P).
        fine: Of f7, likewise.
    """

    whole: Tensor
    coarse: Tensor
    fine: Tensor


def two_scales(maps: FeatureMaps, coarse_side: int, fine_side: int) -> tuple[int, int]:
    """Return the numbers of the maps that are f5 and f7: of the sides nearest to those wanted, f7 finer than f5.

    Raises:
        ClvrBenchError: All maps are of one side.
    """
    coarse = maps.nearest(coarse_side)
    finer = [number for number, side in enumerate(maps.sides) if side > maps.sides[coarse]]
    if not finer:
        raise ClvrBenchError(
            f"amdim: the encoder's feature maps have {sorted(set(maps.sides))} places a side, none of them more than "
            f"the {maps.sides[coarse]} nearest to coarse_side = {coarse_side}. Choose an encoder of several scales, "
            "such as 'resnet18', or a smaller coarse_side."
        )
    return coarse, maps.nearest(fine_side, finer)


def feature_embedding(feature_dim: int, embedding_dim: int, wanted: bool | None) -> nn.Module:
    """Build what embeds a feature (B, D) as (B, P): nothing where it is not wanted, or by default where D is P.

    Raises:
        ClvrBenchError: It is not wanted, but D is not P.
    """
    if feature_dim != embedding_dim and wanted is False:
        raise ClvrBenchError(
            f"amdim: without embed_feature, features must be as long as embeddings, {embedding_dim}, got "
            f"{feature_dim}. Set embedding_dim = {feature_dim}."
        )
    return map_embedding(feature_dim, embedding_dim) if wanted or feature_dim != embedding_dim else nn.Identity()


def map_embedding(inputs: int, embedding_dim: int) -> ResidualEmbedding:
    """Build an embedding function: (..., inputs) to (..., P)."""
    return ResidualEmbedding(inputs, embedding_dim, norm="batch", zero_start=True)


def scaled_scores(sources: Tensor, targets: Tensor) -> Tensor:
    """Score each source (B, P) with all places of all targets (B, L, P): s of (B, B, L), over the root of P."""
    return place_scores(sources, targets) / math.sqrt(sources.shape[1])


def clipped_nce(scores: Tensor, clip: float) -> Tensor:
    """Compute the mean NCE loss of scores (B, B, L), softly clipped to c tanh(s / c)."""
    return place_nce(clip * torch.tanh(scores / clip)).mean()
