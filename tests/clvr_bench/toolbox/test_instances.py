from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, Progress, SampleRandom
from clvr_bench.toolbox import NCE, MemoryBank, discriminate_instances

INDEX = torch.tensor([3, 30, 7, 11])


@pytest.fixture
def bank() -> MemoryBank:
    torch.manual_seed(0)
    return MemoryBank(40, 6)


def batch() -> Batch:
    return Batch([], INDEX, torch.full_like(INDEX, -1), SampleRandom.keyed(0, 0, INDEX), Progress(0, 1, 0, 1))


def embeddings() -> Tensor:
    return F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), dim=1)


def test_without_negatives_it_is_the_softmax_over_the_bank(bank: MemoryBank) -> None:
    losses, _, kept = discriminate_instances(embeddings(), batch(), bank, NCE(40, 0.3), 0)
    for loss, embedding, own in zip(losses.tolist(), embeddings().double(), INDEX.tolist(), strict=True):
        powers = [math.exp(float(vector.double() @ embedding) / 0.3) for vector in bank.vectors]
        assert loss == pytest.approx(-math.log(powers[own] / sum(powers)), rel=1e-5)
    assert kept == {}


def test_with_negatives_it_is_nce_on_what_the_bank_draws(bank: MemoryBank) -> None:
    nce = NCE(40, 0.3)
    losses, _, kept = discriminate_instances(embeddings(), batch(), bank, nce, 10)
    entries = bank.entries(INDEX, batch().random("negatives"), 10)
    expected, constants = nce(bank.similarities(embeddings(), entries))
    assert torch.equal(losses, expected)
    assert torch.equal(kept["log_constants"], constants)


@pytest.mark.parametrize("negatives", [0, 30])
def test_those_that_are_most_like_their_own_vector_are_hits(bank: MemoryBank, negatives: int) -> None:
    found = bank.vectors[INDEX].clone()
    found[2] = -found[2]
    _, hits, _ = discriminate_instances(found, batch(), bank, NCE(40, 0.3), negatives)
    assert hits.tolist() == [True, True, False, True]
