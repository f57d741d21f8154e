"""DeepCluster-v2: remembered embeddings are clustered each epoch, several times; the centroids are classifiers."""

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
    Progress,
    Recipe,
    Register,
    SampleRandom,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.kmeans import spherical_kmeans
from clvr_bench.toolbox import encode_by_size, global_views, mlp, require

_SOURCES = 2  # global views of a picture, each with a memory of its own

_require = partial(require, "deepcluster_v2")


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register DeepCluster-v2."""
    register(
        "deepcluster_v2",
        DeepClusterV2,
        summary="All views of a picture learn its clusters in several clusterings, whose centroids classify.",
        source="Caron et al. 2020, https://arxiv.org/abs/2006.09882, appendix",
        version=1,
    )


class DeepClusterV2(PretextTask):
    """DeepCluster-v2 (Caron et al. 2020, appendix, and the authors' code, which all numbers here come from).

    A memory keeps the embeddings that each picture's two global views had when it was last visited. Before each epoch
    it is clustered on the sphere, several times over: odd clusterings by the first view's embeddings, even ones by the
    second's. Every view of a picture, local ones too, then learns its clusters by cross-entropy, its cosine
    similarities to the centroids over a temperature being the logits. Centroids get no gradient, so there is no
    classifier that clusters of another epoch would unsettle, as in DeepCluster.
    Differs from the authors' code: before the first epoch the memory is filled with centre views as the network
    encodes them in evaluation, not with random views under batch statistics; a picture that an epoch left out keeps
    its older embeddings and its clusters, where there it loses both for the next; the rate rises from 0, not from 0.3,
    and falls to 0, not to a thousandth of its peak; biases and BatchNorm's parameters neither decay nor are scaled by
    LARS.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its ``train_size`` is N, the length of the memory.
        clusters: K of each clustering; 3,000 there, about three times ImageNet's classes.
        clusterings: H; 3 there.
        projection_dim: P, the length of an embedding.
        hidden_dim: Width of the projector's hidden layer.
        temperature: What similarities are divided by.
    """

    views = "multi"
    separable = True
    default_augmentation = "multicrop"
    recipe = Recipe(  # 10 of 800 epochs warm up
        optimizer="lars", learning_rate=4.8, reference_batch=4096, weight_decay=1e-6, warmup=0.0125
    )
    moves = ("memory", "centroids", "assignments")
    check_options: ClassVar[Mapping[str, Any]] = {"clusters": 8, "hidden_dim": 64}
    memory: Tensor
    centroids: Tensor
    assignments: Tensor
    key: Tensor

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        clusters: int = 3000,
        clusterings: int = 3,
        projection_dim: int = 128,
        hidden_dim: int = 2048,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        size = data.train_size
        rule = f"clusters must be from 2 to the {size} training pictures"
        _require(2 <= clusters <= size, rule, clusters, "Typical: three times the classes.")
        _require(clusterings >= 1, "clusterings must be positive", clusterings, "Typical: 3.")
        _require(temperature > 0, "temperature must be positive", temperature, "Typical: 0.1.")
        self.encoder = encoder
        self.temperature = temperature
        self.projector = mlp(encoder.feature_dim, hidden_dim, projection_dim)
        self.register_buffer("memory", torch.zeros(_SOURCES, size, projection_dim))
        self.register_buffer("centroids", torch.zeros(clusterings, clusters, projection_dim))
        self.register_buffer("assignments", torch.zeros(clusterings, size, dtype=torch.int64))
        self.register_buffer("key", torch.randint(2**62, ()))  # from the run's seed: k-means draws from it

    def before_epoch(self, epoch: Epoch) -> None:
        """Cluster the memory; fill it first if there was no epoch yet."""
        if epoch.progress.epoch == 0:
            self.memory[:] = F.normalize(epoch.features(nn.Sequential(self.encoder, self.projector)), dim=1)
        numbers = torch.arange(self.memory.shape[1], device=self.memory.device)
        random = SampleRandom.keyed(int(self.key), epoch.progress.epoch, numbers)
        for place, (centroids, assignments) in enumerate(zip(self.centroids, self.assignments, strict=True)):
            points = self.memory[place % _SOURCES]  # (N, P)
            found = spherical_kmeans(points, len(centroids), random.scoped(f"clustering{place}"))
            centroids.copy_(found.centroids)
            assignments.copy_(found.assignments)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the cross-entropy of each picture's clusters, averaged over its views and the clusterings."""
        sources, views = global_views(batch), len(batch.views)
        rule = f"expected exactly {_SOURCES} global views"
        _require(len(sources) == _SOURCES, rule, len(sources), "Use the augmentation 'multicrop', or two alike views.")
        features = encode_by_size(self.encoder, batch.views)  # (VB, D)
        embeddings = F.normalize(self.projector(features).float(), dim=1)  # (VB, P)
        logits = similarities(embeddings, self.centroids) / self.temperature  # (H, VB, K)
        labels = self.assignments[:, batch.index].repeat(1, views)  # (H, VB)
        kept = embeddings.detach().unflatten(0, (views, -1))[sources].transpose(0, 1)  # (B, 2, P)
        return StepOutput(
            loss=F.cross_entropy(logits.flatten(0, 1), labels.flatten()),
            logs={"pseudo_label_top1": 100 * (logits.argmax(dim=2) == labels).float().mean()},
            kept={"index": batch.index, "embeddings": kept},
        )

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Remember the embeddings (B, 2, P) of the global views."""
        self.memory[:, kept["index"]] = kept["embeddings"].transpose(0, 1)


def similarities(embeddings: Tensor, centroids: Tensor) -> Tensor:
    """Compute the cosines (H, M, K) between embeddings (M, P) and centroids (H, K, P), of length 1, in float32."""
    with torch.autocast(embeddings.device.type, enabled=False):
        return embeddings.float() @ centroids.transpose(1, 2)
