import math

import pytest
import torch
from torch import Tensor

from clvr_bench.ops import knn
from clvr_bench.ops.knn import weighted_knn


def naive_shares(bank: Tensor, labels: Tensor, query: Tensor, classes: int, k: int, temperature: float) -> list[float]:
    """The vote of one query (D,), neighbour by neighbour, as the paper writes it."""
    cosines = [torch.dot(sample, query).item() / (sample.norm() * query.norm()).item() for sample in bank]
    votes = [0.0] * classes
    for position in sorted(range(len(bank)), key=lambda i: -cosines[i])[:k]:
        votes[int(labels[position])] += math.exp(cosines[position] / temperature)
    return [vote / sum(votes) for vote in votes]


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (40, 0.5)])
def test_shares_are_those_of_a_loop_over_the_neighbours(k: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(40, 6, generator=generator), torch.randn(9, 6, generator=generator)
    labels = torch.randint(4, (40,), generator=generator)
    expected = [naive_shares(bank, labels, query, 4, k, temperature) for query in queries]
    torch.testing.assert_close(
        weighted_knn(bank, labels, queries, 4, k, temperature), torch.tensor(expected), atol=1e-5, rtol=1e-4
    )


def test_lengths_of_features_do_not_matter() -> None:
    bank, queries, labels = torch.randn(30, 5), torch.randn(8, 5), torch.arange(30) % 3
    scaled = weighted_knn(bank * torch.rand(30, 1).add(0.1), labels, queries * 7, 3, 5)
    torch.testing.assert_close(scaled, weighted_knn(bank, labels, queries, 3, 5), atol=1e-5, rtol=1e-4)


def test_a_near_neighbour_outvotes_two_far_ones() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    shares = weighted_knn(bank, torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.2]]), 2, k=3)
    assert shares.argmax().item() == 0


def test_a_tiny_temperature_does_not_overflow() -> None:
    bank = torch.eye(3)
    torch.testing.assert_close(weighted_knn(bank, torch.arange(3), bank, 3, k=3, temperature=1e-3), torch.eye(3))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries, labels = torch.randn(50, 5), torch.randn(23, 5), torch.arange(50) % 3
    whole = weighted_knn(bank, labels, queries, 3, 5)
    monkeypatch.setattr(knn, "_CHUNK_ENTRIES", 200)  # 4 queries a chunk, 3 in the last
    torch.testing.assert_close(weighted_knn(bank, labels, queries, 3, 5), whole)


def test_one_chunk_never_holds_more_similarities_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    vote = knn._vote

    def spy(bank: Tensor, bank_labels: Tensor, queries: Tensor, *rest: float) -> Tensor:
        seen.append(len(queries) * len(bank))
        return vote(bank, bank_labels, queries, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(knn, "_vote", spy)
    monkeypatch.setattr(knn, "_CHUNK_ENTRIES", 200)
    weighted_knn(torch.randn(50, 5), torch.arange(50) % 3, torch.randn(23, 5), 3, 5)
    assert sum(seen) == 50 * 23
    assert max(seen) <= 200
