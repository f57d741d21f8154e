from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.models.modules.memory_bank import MemoryBankModule
from torch import Tensor

from clvr_bench import ClvrBenchError
from clvr_bench.toolbox import Queue


def rows(first: int, count: int) -> Tensor:
    """Embeddings that can be told apart: row i is (i, i)."""
    return torch.arange(first, first + count).float()[:, None].expand(-1, 2)


def held(queue: Queue) -> list[int]:
    return sorted(int(row[0]) for row in queue.embeddings)


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 12), batches=st.lists(st.integers(1, 15), min_size=1, max_size=8))
def test_it_holds_the_newest_whatever_the_batches(size: int, batches: list[int]) -> None:
    queue, pushed = Queue(size, 2), 0
    queue.embeddings.fill_(-1)
    for count in batches:
        queue.push(rows(pushed, count))
        pushed += count
        newest = list(range(max(0, pushed - size), pushed))
        assert held(queue) == [-1] * (size - len(newest)) + newest
        assert bool(queue.full) == (pushed >= size)


def test_the_next_place_follows_the_last() -> None:
    queue = Queue(5, 2)
    for first in (0, 3, 6):
        queue.push(rows(first, 3))
    assert queue.embeddings[:, 0].tolist() == [5, 6, 7, 8, 4]
    assert int(queue.pushed) == 9


def test_it_starts_with_random_directions() -> None:
    embeddings = Queue(50, 16).embeddings
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(50))
    assert (embeddings @ embeddings.T).fill_diagonal_(0).abs().max() < 0.99
    assert embeddings.mean(dim=0).norm() < 0.5


def test_its_state_is_saved_with_its_place() -> None:
    queue, resumed = Queue(5, 2), Queue(5, 2)
    queue.push(rows(0, 3))
    resumed.load_state_dict(copy.deepcopy(queue.state_dict()))
    for each in (queue, resumed):
        each.push(rows(3, 4))
    assert torch.equal(resumed.embeddings, queue.embeddings)


def test_it_takes_no_gradient_and_no_part_in_one() -> None:
    queue = Queue(4, 2)
    queue.push(torch.ones(3, 2, requires_grad=True) * 2)
    assert not queue.embeddings.requires_grad
    assert list(queue.parameters()) == []


def test_it_keeps_float32_of_what_is_pushed_in_half_precision() -> None:
    queue = Queue(4, 2)
    queue.push(torch.ones(3, 2, dtype=torch.bfloat16))
    assert queue.embeddings.dtype == torch.float32


def test_it_is_lightlys_memory_bank_where_batches_divide_it() -> None:
    # Where they do not, lightly drops the rest of the batch that reaches the end; here it goes on at the start.
    bank, queue = MemoryBankModule(size=(6, 2)), Queue(6, 2)
    queue.embeddings.copy_(bank.bank)
    for first in (0, 3, 6):
        bank(rows(first, 3), update=True)
        queue.push(rows(first, 3))
        assert torch.equal(queue.embeddings, bank.bank)


def test_an_empty_one_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match=r"queue: size and dim must be positive, got 0 and 2\. Typical"):
        Queue(0, 2)


def test_it_can_be_built_without_memory() -> None:
    with torch.device("meta"):
        assert Queue(65_536, 128).embeddings.is_meta
