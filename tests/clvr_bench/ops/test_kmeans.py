from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import ClvrBenchError, SampleRandom
from clvr_bench.ops import kmeans as module
from clvr_bench.ops.kmeans import Clustering, cluster_means, kmeans, nearest, refill_empty, spherical_kmeans


def random_points(count: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def draws(count: int, seed: int = 0) -> SampleRandom:
    return SampleRandom.keyed(seed, 0, torch.arange(count))


def blobs(count: int, blobs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points around the corners of a simplex, far apart, and the corner of each."""
    corner = torch.arange(count) % blobs
    return 10 * torch.eye(blobs)[corner] + random_points(count, blobs, seed) * 0.1, corner


def distortion(points: Tensor, clusters: int, iterations: int, seed: int) -> float:
    found = kmeans(points, clusters, draws(len(points), seed), iterations)
    return (points - found.centroids[found.assignments]).square().sum().item()


def test_nearest_is_that_of_a_loop() -> None:
    points, centroids = random_points(30, 4), random_points(7, 4, seed=1)
    expected = [min(range(7), key=lambda k: (point - centroids[k]).square().sum().item()) for point in points]
    assert nearest(points, centroids).tolist() == expected


def test_means_and_sizes_are_those_of_a_loop() -> None:
    points, assignments = random_points(10, 3), torch.tensor([0, 2, 2, 0, 4, 4, 4, 2, 0, 2])
    means, sizes = cluster_means(points, assignments, 5)
    assert sizes.tolist() == [3, 0, 4, 0, 3]
    for cluster in (0, 2, 4):
        torch.testing.assert_close(means[cluster], points[assignments == cluster].mean(dim=0))
    assert not means[[1, 3]].any()


def test_iterations_are_lloyds_as_scikit_learn_does_them() -> None:
    points = random_points(200, 5)
    start = points[draws(200)("centroids").uniform().argsort()[:8]]
    theirs = KMeans(8, init=start.numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(points.numpy())
    ours = kmeans(points, 8, draws(200), iterations=theirs.n_iter_)
    assert ours.assignments.tolist() == theirs.labels_.tolist()
    torch.testing.assert_close(ours.centroids, torch.from_numpy(theirs.cluster_centers_), atol=1e-4, rtol=1e-4)


def test_groups_that_lie_apart_are_found_up_to_their_names() -> None:
    points, corner = blobs(60, 2)
    found = kmeans(points, 2, draws(60)).assignments
    assert (found == corner).all() or (found == 1 - corner).all()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), clusters=st.integers(1, 10))
def test_an_iteration_never_makes_it_worse(seed: int, clusters: int) -> None:
    points = random_points(60, 3, seed)
    distortions = [distortion(points, clusters, iterations, seed) for iterations in range(6)]
    assert all(after <= before + 1e-3 for before, after in pairwise(distortions))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), count=st.integers(1, 40), share=st.floats(0, 1))
def test_each_point_belongs_to_its_nearest_centroid(seed: int, count: int, share: float) -> None:
    points = random_points(count, 3, seed)
    found = kmeans(points, max(1, round(share * count)), draws(count, seed))
    distances = torch.cdist(points, found.centroids)
    own = distances.gather(1, found.assignments[:, None])[:, 0]
    torch.testing.assert_close(own, distances.min(dim=1).values, atol=1e-3, rtol=0)


def test_as_many_clusters_as_points_give_each_its_own() -> None:
    assert sorted(kmeans(random_points(12, 3), 12, draws(12)).assignments.tolist()) == list(range(12))


def test_a_start_in_coinciding_points_still_fills_every_cluster() -> None:
    points = torch.cat([torch.zeros(90, 4), random_points(30, 4)])  # most starts are at the origin
    found = kmeans(points, 10, draws(120))
    start = nearest(points, points[draws(120)("centroids").uniform().argsort()[:10]])
    assert len(start.unique()) < 6
    assert len(found.assignments.unique()) == 10


def test_points_that_all_coincide_are_no_error() -> None:
    found = kmeans(torch.ones(6, 2), 3, draws(6))
    assert found.centroids.isfinite().all()
    assert len(found.assignments.unique()) == 1


def test_points_far_from_the_origin_are_clustered_alike() -> None:
    points, _ = blobs(60, 4)
    here, there = kmeans(points, 4, draws(60)), kmeans(points + 3000, 4, draws(60))
    assert torch.equal(here.assignments, there.assignments)
    torch.testing.assert_close(here.centroids + 3000, there.centroids, atol=1e-2, rtol=0)


def test_an_empty_cluster_and_its_donor_start_on_either_side_of_the_donors_centroid() -> None:
    centroids = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    split = refill_empty(centroids, torch.tensor([4, 0]), torch.tensor([0.5, -0.5]), torch.zeros(4))
    assert split.tolist() == [[0.5, 2.5], [1.5, 1.5]]
    assert centroids.tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_the_donor_is_drawn_in_proportion_to_its_size_less_one() -> None:
    centroids, sizes = torch.arange(5.0)[:, None], torch.tensor([1, 4, 0, 8, 1])
    for draw, donor in ((0.0, 1), (0.29, 1), (0.31, 3), (0.999, 3)):  # shares of 3 and 7 tenths
        assert round(refill_empty(centroids, sizes, torch.tensor([0.1]), torch.tensor([draw]))[2].item()) == donor


def test_a_donor_keeps_half_of_its_size_for_the_next_empty_cluster() -> None:
    centroids, sizes = torch.tensor([[5.0], [9.0], [0.0], [0.0]]), torch.tensor([8, 5, 0, 0])
    shift, numbers = torch.tensor([0.1]), torch.tensor([0.0, 0.4])
    # shares 7 : 4 for the first; then there are 4, 5 and 4 points, so 3 : 4 : 3
    torch.testing.assert_close(
        refill_empty(centroids, sizes, shift, numbers), torch.tensor([[4.9], [8.9], [5.1], [9.1]])
    )


def test_the_draws_alone_decide() -> None:
    points = random_points(50, 3)
    torch.manual_seed(0)
    first = kmeans(points, 5, draws(50))
    torch.manual_seed(1)
    again, other = kmeans(points, 5, draws(50)), kmeans(points, 5, draws(50, seed=1))
    assert torch.equal(first.assignments, again.assignments)
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.assignments, other.assignments)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = random_points(53, 3)
    whole = kmeans(points, 5, draws(53))
    monkeypatch.setattr(module, "_CHUNK_ENTRIES", 50)  # 10 points a chunk, 3 in the last
    parts = kmeans(points, 5, draws(53))
    assert torch.equal(parts.assignments, whole.assignments)
    torch.testing.assert_close(parts.centroids, whole.centroids)


def directions(count: int, dimensions: int, seed: int = 0) -> Tensor:
    return F.normalize(random_points(count, dimensions, seed), dim=1)


def naive_spherical(points: Tensor, start: Tensor, iterations: int) -> Clustering:
    """Lloyd's iterations by cosine similarity, point by point, in float64; a cluster without points stays."""
    points, centroids = points.double(), start.double().clone()
    for iteration in range(iterations + 1):
        assignments = torch.tensor(
            [max(range(len(start)), key=lambda k: float(point @ centroids[k])) for point in points]
        )
        for cluster in assignments.unique().tolist() if iteration < iterations else []:
            total = points[assignments == cluster].sum(dim=0)
            centroids[cluster] = total / total.norm()
    return Clustering(assignments, centroids.float())


@pytest.mark.parametrize("iterations", [0, 1, 10])
def test_on_the_sphere_it_is_lloyds_algorithm_by_cosine_similarity(iterations: int) -> None:
    points = directions(60, 4)
    start = points[draws(60)("centroids").uniform().argsort()[:6]]
    found, expected = spherical_kmeans(points, 6, draws(60), iterations), naive_spherical(points, start, iterations)
    assert torch.equal(found.assignments, expected.assignments)
    torch.testing.assert_close(found.centroids, expected.centroids)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), clusters=st.integers(1, 10))
def test_centroids_on_the_sphere_have_length_one_and_an_iteration_never_makes_it_worse(
    seed: int, clusters: int
) -> None:
    points, cohesion = directions(60, 3, seed), []
    for iterations in range(6):
        found = spherical_kmeans(points, clusters, draws(60, seed), iterations)
        torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(clusters))
        cohesion.append((points * found.centroids[found.assignments]).sum().item())
    assert all(after >= before - 1e-3 for before, after in pairwise(cohesion))


def test_directions_that_are_nearly_alike_are_told_apart() -> None:
    tilt, corner = blobs(60, 3)
    nearly = F.normalize(torch.ones(3) + 1e-4 * tilt, dim=1)  # cosines of 1 - 1e-6 and more
    found = spherical_kmeans(nearly, 3, draws(60, seed=1)).assignments
    assert len({(int(a), int(b)) for a, b in zip(found, corner, strict=True)}) == 3


def test_a_cluster_on_the_sphere_that_no_point_is_nearest_to_stays_where_it_is() -> None:
    points = F.normalize(torch.cat([torch.ones(9, 2), torch.tensor([[1.0, -1.0]])]), dim=1)
    found = spherical_kmeans(points, 4, draws(10))
    assert found.centroids.isfinite().all()
    assert all(any(torch.allclose(centroid, point) for point in points) for centroid in found.centroids)


@pytest.mark.parametrize("clusters", [0, 7])
def test_fewer_points_than_clusters_are_refused_on_the_sphere_too(clusters: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"kmeans: clusters must be from 1 to the 6 points, got {clusters}\."):
        spherical_kmeans(directions(6, 2), clusters, draws(6))


@pytest.mark.parametrize("clusters", [0, 7])
def test_fewer_points_than_clusters_are_refused(clusters: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"kmeans: clusters must be from 1 to the 6 points, got {clusters}\."):
        kmeans(random_points(6, 2), clusters, draws(6))
