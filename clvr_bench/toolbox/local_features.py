"""Local features: which feature maps an encoder has, embeddings of the vectors at their places, and their scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench.contracts.encoder import Encoder
from clvr_bench.contracts.values import DataFacts, EncoderFacts

_NEAR_ZERO = 0.01  # how far, at most, a shortcut starts from the identity


@dataclass(frozen=True)
class FeatureMaps:
    """The feature maps that an encoder makes of the data's pictures, and its feature together with them.

    Attributes:
        channels: Of every map, fine to coarse.
        sides: Height and width of every map.
        pooled: Whether the feature is the mean of the last map, as in a ResNet, so that one pass gives all.
    """

    channels: tuple[int, ...]
    sides: tuple[int, ...]
    pooled: bool

    @classmethod
    def of(cls, encoder: Encoder, data: DataFacts) -> FeatureMaps:
        """Measure an encoder, which stays as it is.

        Args:
            encoder: One that has feature maps.
            data: Its ``image_size`` is that of the pictures.
        """
        training, passes = encoder.training, encoder.passes
        shape = (1, len(encoder.mean), data.image_size, data.image_size)
        picture = torch.linspace(0, 1, shape[1] * shape[2] * shape[3], device=encoder.mean.device).view(shape)
        encoder.eval()
        with torch.no_grad():
            feature, maps = encoder(picture), encoder.feature_maps(picture)
        encoder.train(training)
        encoder.passes = passes
        pooled = _are_close(maps[-1].mean(dim=(2, 3)), feature)
        return cls(tuple(one.shape[1] for one in maps), tuple(one.shape[2] for one in maps), pooled)

    def nearest(self, side: int, among: Iterable[int] | None = None) -> int:
        """Return the number of the map whose side is nearest to one that is wanted; the later one of equals.

        Args:
            side: Height and width that are wanted.
            among: Numbers of the maps to choose from, at least one; all where None.
        """
        numbers = range(len(self.sides)) if among is None else among
        return min(numbers, key=lambda number: (abs(self.sides[number] - side), -number))

    def __call__(self, encoder: Encoder, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode pictures.

        Args:
            encoder: The one that was measured.
            images: (B, C, H, W), float in [0, 1].

        Returns:
            Features (B, D), and the feature maps (B, c, h, w).
        """
        maps = encoder.feature_maps(images)
        return maps[-1].mean(dim=(2, 3)) if self.pooled else encoder(images), maps


def no_local_features(encoder: EncoderFacts) -> str | None:
    """Say why an encoder has no features of parts of a picture; None where it has."""
    if not encoder.has_feature_maps:
        return f"{encoder.name} has no feature maps"
    return f"every token of {encoder.name} sees the whole picture" if encoder.has_tokens else None


def _are_close(one: Tensor, other: Tensor) -> bool:
    """Compare what may be on the meta device, where there are no values, by shape alone."""
    return one.shape == other.shape and (one.is_meta or torch.allclose(one, other, rtol=1e-3, atol=1e-5))


def place_vectors(feature_map: Tensor) -> Tensor:
    """Turn a feature map (B, c, h, w) into the vectors at its places, row by row: (B, h * w, c)."""
    return feature_map.flatten(2).mT


class ResidualEmbedding(nn.Module):
    """An embedding function: two linear layers with a ReLU between them, beside a linear shortcut, then normalization.

    Where the shortcut does not shorten vectors it starts near the identity, as in the code of Deep InfoMax and AMDIM.

    Args:
        inputs: The length of a vector.
        outputs: The length of an embedding.
        norm: What normalizes embeddings: BatchNorm over all vectors, or layer normalization of each.
        hidden_batch_norm: Whether the hidden layer is normalized over all vectors.
        zero_start: Whether it starts as the shortcut alone.

    Source: Hjelm et al. 2018, https://github.com/rdevon/DIM; Bachman et al. 2019,
        https://github.com/Philip-Bachman/amdim-public.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        norm: Literal["batch", "layer"],
        hidden_batch_norm: bool = False,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        hidden = nn.BatchNorm1d(outputs) if hidden_batch_norm else nn.Identity()
        last = nn.Linear(outputs, outputs, bias=norm == "layer")  # BatchNorm would take a bias away again
        if zero_start:
            nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(nn.Linear(inputs, outputs, bias=False), hidden, nn.ReLU(), last)
        self.shortcut = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs) if norm == "batch" else nn.LayerNorm(outputs)
        if outputs >= inputs:
            with torch.no_grad():
                self.shortcut.weight.uniform_(-_NEAR_ZERO, _NEAR_ZERO)
                self.shortcut.weight.fill_diagonal_(1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Embed vectors (..., inputs), of which all together are a batch: (..., outputs)."""
        rows = vectors.flatten(0, -2)
        embeddings: Tensor = self.norm(self.layers(rows) + self.shortcut(rows))
        return embeddings.view(*vectors.shape[:-1], -1)


def place_scores(sources: Tensor, targets: Tensor) -> Tensor:
    """Compute the dot products of each picture's one embedding with those of all places of all pictures, in float32.

    Args:
        sources: (B, P), one a picture.
        targets: (B, L, P), one for each of L places of a picture.

    Returns:
        (B, B, L): source, picture, place. A picture's own places are on the diagonal of the first two.
    """
    with torch.autocast(sources.device.type, enabled=False):  # dot products have no bound, so bfloat16 would blur them
        scores = sources.float() @ targets.float().flatten(0, 1).T  # (B, B * L)
    return scores.view(len(sources), *targets.shape[:2])


def own_scores(scores: Tensor) -> Tensor:
    """Return the scores of sources with places of their own picture, (B, L), out of (B, B, L)."""
    return scores.diagonal().T


def others_only(scores: Tensor, fill: float) -> Tensor:
    """Replace the scores of sources with places of their own picture in (B, B, L)."""
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return scores.masked_fill(own[:, :, None], fill)


def place_nce(scores: Tensor) -> Tensor:
    """Compute the noise-contrastive loss of telling each place of a picture from all places of all other pictures.

    The places that a source is told apart from are the same for all its positives, so their exponentials are summed
    once (Bachman et al. 2019, the paper on efficient NCE). A picture's other places are neither positive nor negative.

    Args:
        scores: (B, B, L) as ``place_scores`` gives them, for at least two pictures.

    Returns:
        (B, L), -log(exp(s+) / (exp(s+) + sum of exp(s-))).
    """
    negatives = others_only(scores, float("-inf")).flatten(1).logsumexp(dim=1, keepdim=True)  # (B, 1)
    return F.softplus(negatives - own_scores(scores))


def place_top1(scores: Tensor) -> Tensor:
    """Return how often, in percent, a place scores above the same place of every other picture, given (B, B, L)."""
    own = torch.arange(len(scores), device=scores.device)
    return 100 * (scores.argmax(dim=1) == own[:, None]).float().mean()
