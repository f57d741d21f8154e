"""DeepCluster: k-means on the features gives pseudo-labels, the encoder learns them, and so on each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    DataFacts,
    Encoder,
    Epoch,
    PretextTask,
    Recipe,
    Register,
    SampleRandom,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.kmeans import kmeans
from clvr_bench.ops.sobel import sobel
from clvr_bench.ops.whitening import pca_whiten
from clvr_bench.toolbox import require

_MEAN, _STD = 0.449, 0.226  # of ImageNet, over its channels: the authors normalize pictures, then filter them

_require = partial(require, "deepcluster")


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register DeepCluster."""
    register(
        "deepcluster",
        DeepCluster,
        summary="Learns the clusters of its own features, found anew each epoch by k-means.",
        source="Caron et al. 2018, https://arxiv.org/abs/1807.05520",
        version=1,
    )


class DeepCluster(PretextTask):
    """DeepCluster (Caron et al. 2018, sections 3.2 to 3.4, and the authors' code).

    Before each epoch, features of the centre views are whitened by PCA, normalized and clustered (equation 2); the
    classifier starts anew, and the epoch visits clusters uniformly (section 3.3), as often as there are pictures.
    Differs from the paper: the classifier reads the pooled feature, which is also what is clustered, without AlexNet's
    fully connected layers, dropout, and last ReLU that is off while clustering; it has the momentum of all parameters,
    not none; biases and BatchNorm's parameters do not decay; a small cluster's pictures are all shown equally often,
    not drawn with replacement.

    Args:
        encoder: Maps pictures, or their edges, to features (B, D).
        data: Its ``train_size`` is N.
        clusters: k; 10,000 in the paper, ten times ImageNet's classes (section 4.1).
        pca_dim: Principal components that are clustered, at most; the paper's are 256.
        sobel: Whether the encoder sees a Sobel filter's two channels instead of colour (section 3.4); the filter is
            then a part of the representation.
    """

    views = 1
    separable = True
    default_augmentation = "crop_flip"
    recipe = Recipe(optimizer="momentum", learning_rate=0.05, weight_decay=1e-5, warmup=0.0, schedule="constant")
    moves = ("assignments", "classifier")
    check_options: ClassVar[Mapping[str, Any]] = {"clusters": 8}
    assignments: Tensor
    key: Tensor

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        clusters: int = 10_000,
        pca_dim: int = 256,
        sobel: bool = True,
    ) -> None:
        super().__init__()
        rule = f"clusters must be from 2 to the {data.train_size} training pictures"
        _require(2 <= clusters <= data.train_size, rule, clusters, "Typical: ten times the classes.")
        _require(pca_dim >= 1, "pca_dim must be positive", pca_dim, "Typical: 256.")
        self.encoder = encoder
        self.classifier = PseudoClassifier(encoder.feature_dim, clusters)
        self.clusters, self.pca_dim, self.sobel = clusters, pca_dim, sobel
        self.register_buffer("assignments", torch.zeros(data.train_size, dtype=torch.int64))
        self.register_buffer("key", torch.randint(2**62, ()))  # from the run's seed: k-means and visits draw from it

    @classmethod
    def encoder_options(cls, **options: Any) -> dict[str, object]:
        """Ask for an encoder of the filter's two channels."""
        return {"in_channels": 2} if options.get("sobel", True) else {}

    def representation(self) -> nn.Module:
        """Return the encoder, behind the filter if there is one."""
        return Filtered(self.encoder) if self.sobel else self.encoder

    def before_epoch(self, epoch: Epoch) -> None:
        """Find new pseudo-labels, visit them uniformly, and forget the classifier of the old ones."""
        features = epoch.features(self.representation())  # (N, D)
        points = F.normalize(pca_whiten(features, self.pca_dim), dim=1)  # (N, d)
        numbers = torch.arange(len(points), device=points.device)
        random = SampleRandom.keyed(int(self.key), epoch.progress.epoch, numbers)
        self.assignments.copy_(kmeans(points, self.clusters, random).assignments)
        epoch.visit(uniform_visits(self.assignments, random))
        epoch.reset(self.classifier)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the cross-entropy of the pseudo-labels (equation 1)."""
        logits = self.classifier(self.representation()(batch.views[0])).float()  # (B, k)
        labels = self.assignments[batch.index]
        accuracy = 100 * (logits.argmax(dim=1) == labels).float().mean()
        return StepOutput(loss=F.cross_entropy(logits, labels), logs={"pseudo_label_top1": accuracy})

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the two channels of the filter, if there is one: mid-gray is 0, a picture's strongest edge 0 or 1."""
        if not self.sobel:
            return {}
        found = edges(batch.views[0])  # (B, 2, H, W)
        strongest = found.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
        across, down = (0.5 + 0.5 * found / strongest).split(1, dim=1)  # (B, 1, H, W) each
        return {"left - right": across, "above - below": down}


class PseudoClassifier(nn.Linear):
    """A linear layer that starts with small weights, normal with a deviation of 0.01, as in the authors' code."""

    def reset_parameters(self) -> None:
        """Draw fresh weights."""
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)


class Filtered(nn.Module):
    """An encoder of edges: pictures (B, C, H, W) in [0, 1] to features (B, D)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Filter, then encode as it is: the filter's values are centred on zero."""
        features: Tensor = self.encoder(edges(images), normalize=False)
        return features


def edges(images: Tensor) -> Tensor:
    """Normalize pictures (B, C, H, W) in [0, 1] and filter them: left - right and above - below, (B, 2, H, W)."""
    return sobel((images - _MEAN) / _STD)


def uniform_visits(assignments: Tensor, random: SampleRandom) -> Tensor:
    """Order as many visits as there are samples, equally many to each cluster that has any (section 3.3).

    A cluster of more samples than visits shows a random part of them; one of fewer repeats all of its own.

    Args:
        assignments: (N,) int64 cluster numbers.
        random: Draws of the N samples.

    Returns:
        (N,) int64 sample numbers.
    """
    shuffled = random("members").uniform().argsort(stable=True)
    members = shuffled[assignments[shuffled].argsort(stable=True)]  # (N,) cluster by cluster
    sizes = torch.bincount(assignments)
    starts, filled = sizes.cumsum(dim=0) - sizes, sizes.nonzero()[:, 0]
    visit = torch.arange(len(assignments), device=assignments.device)
    cluster = filled[visit % len(filled)]
    visits = members[starts[cluster] + visit // len(filled) % sizes[cluster]]
    return visits[random("visits").uniform().argsort(stable=True)]
