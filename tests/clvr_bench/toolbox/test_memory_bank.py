from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clvr_bench import ClvrBenchError, SampleRandom
from clvr_bench.toolbox import MemoryBank

CLOSE = {"rtol": 0, "atol": 1e-6}


def bank_of(size: int = 12, dimension: int = 5, momentum: float = 0.5, seed: int = 0) -> MemoryBank:
    torch.manual_seed(seed)
    return MemoryBank(size, dimension, momentum=momentum)


def units(count: int, dimension: int = 5, seed: int = 1) -> Tensor:
    vectors = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_it_starts_with_random_directions_of_unit_length() -> None:
    bank = bank_of(2000, 16)
    torch.testing.assert_close(bank.vectors.norm(dim=1), torch.ones(2000), **CLOSE)
    assert bank.vectors.mean(dim=0).norm() < 0.1  # 2,000 random directions cancel to about 1 / sqrt(2000)
    assert not torch.equal(bank.vectors, bank_of(2000, 16, seed=1).vectors)


def test_its_vectors_are_state_and_nothing_to_train() -> None:
    bank = bank_of()
    assert list(bank.state_dict()) == ["vectors"]
    assert list(bank.parameters()) == []
    assert len(bank) == 12


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_a_visit_moves_a_vector_by_the_momentum_and_back_onto_the_sphere(momentum: float) -> None:
    bank, index, embeddings = bank_of(momentum=momentum), torch.tensor([7, 2, 9]), units(3)
    before = bank.vectors.clone()
    bank.update(index, embeddings)
    for row, position in enumerate(index.tolist()):
        blended = [
            momentum * old + (1 - momentum) * new
            for old, new in zip(before[position].tolist(), embeddings[row].tolist(), strict=True)
        ]
        length = sum(value**2 for value in blended) ** 0.5
        assert bank.vectors[position].tolist() == pytest.approx([value / length for value in blended], abs=1e-6)


def test_a_visit_moves_nothing_else() -> None:
    bank = bank_of()
    before = bank.vectors.clone()
    bank.update(torch.tensor([7, 2]), units(2))
    others = [position for position in range(12) if position not in (2, 7)]
    assert torch.equal(bank.vectors[others], before[others])


def test_without_momentum_the_newest_embedding_replaces_the_vector() -> None:
    bank, embeddings = bank_of(momentum=0.0), units(2)
    bank.update(torch.tensor([0, 1]), embeddings)
    torch.testing.assert_close(bank.vectors[:2], embeddings, **CLOSE)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), momentum=st.floats(0, 0.99))
def test_a_visit_never_leads_away_from_the_embedding(seed: int, momentum: float) -> None:
    bank, index, embeddings = bank_of(momentum=momentum, seed=seed), torch.arange(12), units(12, seed=seed + 1)
    before = (bank.vectors * embeddings).sum(dim=1)
    bank.update(index, embeddings)
    assert ((bank.vectors * embeddings).sum(dim=1) >= before - 1e-5).all()
    torch.testing.assert_close(bank.vectors.norm(dim=1), torch.ones(12), rtol=0, atol=1e-5)


def test_entries_are_the_sample_itself_and_uniform_draws_from_the_whole_bank() -> None:
    bank, index = bank_of(), torch.arange(12).flip(0)
    entries = bank.entries(index, SampleRandom.keyed(0, 0, index)("negatives"), 1000)
    assert entries.shape == (12, 1001)
    assert torch.equal(entries[:, 0], index)
    counts = entries[:, 1:].flatten().bincount(minlength=12)
    assert len(counts) == 12
    assert (counts - 1000).abs().max() < 150  # nearly five standard deviations of a count, sqrt(1000)


def test_a_samples_entries_do_not_depend_on_the_batch_around_it() -> None:
    bank, index = bank_of(), torch.tensor([3, 8, 5])
    entries = bank.entries(index, SampleRandom.keyed(0, 0, index)("negatives"), 6)
    alone = bank.entries(index[1:2], SampleRandom.keyed(0, 0, index[1:2])("negatives"), 6)
    assert torch.equal(entries[1:2], alone)
    assert not torch.equal(entries[0, 1:], entries[1, 1:])


@pytest.mark.parametrize("size", [6, 200])  # more vectors than entries times dimensions are looked up one by one
def test_similarities_are_cosines_with_the_entries(size: int) -> None:
    bank, embeddings = bank_of(size, 5), units(4)
    entries = torch.tensor([[0, 1, 5], [2, 2, 0], [3, 4, 1], [5, 0, 0]])
    expected = [
        [float(embeddings[row] @ bank.vectors[entry]) for entry in entries[row].tolist()] for row in range(len(entries))
    ]
    torch.testing.assert_close(bank.similarities(embeddings, entries), torch.tensor(expected), **CLOSE)
    whole = torch.tensor([[float(e @ v) for v in bank.vectors] for e in embeddings])
    torch.testing.assert_close(bank.similarities(embeddings), whole, **CLOSE)


@pytest.mark.parametrize("size", [6, 200])
def test_similarities_are_in_float32_under_autocast_too(size: int) -> None:
    bank, embeddings, entries = bank_of(size), units(4), torch.tensor([[0, 1]] * 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = bank.similarities(embeddings, entries)
    assert under_autocast.dtype is torch.float32
    assert torch.equal(under_autocast, bank.similarities(embeddings, entries))


@pytest.mark.parametrize("size", [6, 200])
def test_the_gradient_reaches_embeddings_and_no_vector(size: int) -> None:
    bank, embeddings = bank_of(size), units(4).requires_grad_()
    bank.similarities(embeddings, torch.tensor([[0, 1]] * 4)).sum().backward()
    expected = (bank.vectors[0] + bank.vectors[1]).expand(4, 5)
    torch.testing.assert_close(embeddings.grad, expected, **CLOSE)
    assert not bank.vectors.requires_grad


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(ClvrBenchError, match=rf"memory bank: momentum must be in \[0, 1\), got {momentum}\. The usual"):
        bank_of(momentum=momentum)
