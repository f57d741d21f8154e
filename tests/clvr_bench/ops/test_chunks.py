import torch

from clvr_bench.ops import chunks
from clvr_bench.ops.chunks import cache_sized


def test_parts_cover_every_sample_once_and_fit(monkeypatch):
    monkeypatch.setattr(chunks, "_NUMBERS", 70)  # five samples, so four
    parts = [torch.arange(10)[part].tolist() for part in cache_sized(torch.empty(10, 3, 4))]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_sample_that_does_not_fit_is_a_part_of_its_own(monkeypatch):
    monkeypatch.setattr(chunks, "_NUMBERS", 5)
    assert cache_sized(torch.empty(2, 3, 4)) == [slice(0, 1), slice(1, 2)]


def test_an_empty_batch_has_no_parts():
    assert cache_sized(torch.empty(0, 3, 4)) == []


def test_an_accelerator_works_on_the_whole_batch(monkeypatch):
    monkeypatch.setattr(chunks, "_NUMBERS", 5)
    assert cache_sized(torch.empty(7, 3, 4, device="meta")) == [slice(0, 7)]
