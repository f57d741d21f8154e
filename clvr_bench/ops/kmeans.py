"""k-means, in space or on the sphere, in chunks of bounded memory; keyed draws make it the same after a resume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench.draws import SampleRandom
from clvr_bench.errors import ClvrBenchError

_CHUNK_ENTRIES = 1 << 24  # distances held at once: 64 MiB in float32
_SPLIT = 1 / 1024  # how far the halves of a split cluster part, in standard deviations; faiss's number


@dataclass(frozen=True)
class Clustering:
    """What k-means found.

    Attributes:
        assignments: (N,) int64 in [0, k), each point's nearest centroid.
        centroids: (k, D).
    """

    assignments: Tensor
    centroids: Tensor


@torch.no_grad()
def kmeans(points: Tensor, clusters: int, random: SampleRandom, iterations: int = 20) -> Clustering:
    """Cluster points by their squared Euclidean distances.

    The first centroids are points drawn without replacement, as in faiss. After each iteration an empty cluster takes
    half of a large one; only where points coincide, or in the last assignment, can one be left empty.

    Args:
        points: (N, D) float32.
        clusters: k, from 1 to N.
        random: Draws of the N points.
        iterations: Of Lloyd's algorithm; faiss's are 25, DeepCluster's 20.

    Raises:
        ClvrBenchError: There are fewer points than clusters, or no cluster.

    Source: Lloyd 1982, https://doi.org/10.1109/TIT.1982.1056489; Johnson et al. 2017 (faiss),
        https://arxiv.org/abs/1702.08734.
    """
    _check_clusters(clusters, points)
    centre = points.mean(dim=0)
    points = points - centre  # distances of points far from the origin would lose their digits
    shift = points.std(dim=0, correction=0) * _SPLIT
    shift[1::2] *= -1
    centroids = _first_centroids(points, clusters, random)
    for iteration in range(iterations):
        means, sizes = cluster_means(points, nearest(points, centroids), clusters)
        centroids = refill_empty(means, sizes, shift, random(f"split{iteration}").uniform())
    return Clustering(nearest(points, centroids), centroids + centre)


@torch.no_grad()
def spherical_kmeans(points: Tensor, clusters: int, random: SampleRandom, iterations: int = 10) -> Clustering:
    """Cluster points on the unit sphere by their cosine similarities.

    The first centroids are points drawn without replacement. After each iteration they are scaled to length 1; one
    that no point is nearest to stays where it is, as in the code of DeepCluster-v2.

    Args:
        points: (N, D) float32 of length 1.
        clusters: k, from 1 to N.
        random: Draws of the N points.
        iterations: DeepCluster-v2's are 10.

    Returns:
        Assignments, and centroids of length 1.

    Raises:
        ClvrBenchError: There are fewer points than clusters, or no cluster.

    Source: Dhillon and Modha 2001, https://doi.org/10.1023/A:1007612920971.
    """
    _check_clusters(clusters, points)
    centre = points.mean(dim=0)
    points = points - centre  # directions that are nearly alike would lose their digits
    centroids = _first_centroids(points, clusters, random)
    for _ in range(iterations):
        means, sizes = cluster_means(points, nearest(points, centroids), clusters)
        moved = F.normalize(means + centre, dim=1) - centre
        centroids = torch.where((sizes > 0)[:, None], moved, centroids)
    return Clustering(nearest(points, centroids), F.normalize(centroids + centre, dim=1))


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Return the number (N,) of each point's nearest centroid, for points (N, D) and centroids (k, D)."""
    squares = centroids.square().sum(dim=1)
    parts = points.split(_chunk_rows(len(centroids)))
    return torch.cat([torch.addmm(squares, part, centroids.T, alpha=-2).argmin(dim=1) for part in parts])


def cluster_means(points: Tensor, assignments: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Return the mean (k, D) of each cluster's points, zero for an empty one, and the sizes (k,) int64."""
    sums = points.new_zeros(clusters, points.shape[1])
    rows = _chunk_rows(clusters)
    for part, labels in zip(points.split(rows), assignments.split(rows), strict=True):
        # A product with one-hot labels: unlike index_add, it sums in one fixed order on an accelerator as well.
        sums += part.new_zeros(len(part), clusters).scatter_(1, labels[:, None], 1.0).T @ part
    sizes = torch.bincount(assignments, minlength=clusters)
    return sums / sizes.clamp(min=1)[:, None], sizes


def refill_empty(centroids: Tensor, sizes: Tensor, shift: Tensor, draws: Tensor) -> Tensor:
    """Split a large cluster for each empty one: both centroids start beside the large one's, on either side.

    The large one is drawn with a probability proportional to its size less one, as in faiss.
    Differs from faiss: it multiplies centroids by 1 +- 1/1024, which cannot split one at the origin.

    Args:
        centroids: (k, D).
        sizes: (k,) int64, points a cluster, at least k in all.
        shift: (D,), from a split cluster's old centroid to its new one.
        draws: At least one number in [0, 1) for each empty cluster.

    Returns:
        (k, D).
    """
    empty = (sizes == 0).nonzero()[:, 0].tolist()
    centroids, sizes = centroids.clone(), sizes.to("cpu", copy=True)
    for cluster, draw in zip(empty, draws[: len(empty)].tolist(), strict=True):
        shares = (sizes - 1).clamp(min=0).cumsum(dim=0).double()
        donor = int(torch.searchsorted(shares, draw * shares[-1], right=True))
        centroids[cluster], centroids[donor] = centroids[donor] + shift, centroids[donor] - shift
        sizes[cluster] = sizes[donor] // 2
        sizes[donor] -= sizes[cluster]
    return centroids


def _check_clusters(clusters: int, points: Tensor) -> None:
    if not 1 <= clusters <= len(points):
        raise ClvrBenchError(f"kmeans: clusters must be from 1 to the {len(points)} points, got {clusters}.")


def _first_centroids(points: Tensor, clusters: int, random: SampleRandom) -> Tensor:
    return points[random("centroids").uniform().argsort(stable=True)[:clusters]]


def _chunk_rows(clusters: int) -> int:
    return max(1, _CHUNK_ENTRIES // clusters)
