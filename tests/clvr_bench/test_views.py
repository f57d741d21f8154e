from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from clvr_bench import DataFacts, Images, PerView, SampleRandom, views
from clvr_bench.ops.compiling import _compiled
from clvr_bench.views import make_views
from clvr_plugins.augmentations.multicrop import MultiCrop
from clvr_plugins.augmentations.simclr import SimCLRAugmentation

CLOSE = {"rtol": 0.0, "atol": 1e-5}
FACTS = DataFacts("image", train_size=40, image_size=24)
PIXELS = torch.randint(0, 256, (40, 3, 30, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def images() -> Images:
    sizes = torch.tensor([[30, 28], [20, 28], [30, 18], [25, 25]]).repeat(10, 1)
    return Images(PIXELS, sizes, torch.arange(40.0)[:, None])


def samples() -> SampleRandom:
    return SampleRandom.keyed(0, 0, torch.arange(40))


class Watched(PerView):
    """Says who called it, with how much, and what holds there; where asked, waits until so many are at it at once."""

    def __init__(self, at_once: int = 1) -> None:
        self.barrier = threading.Barrier(at_once, timeout=20)
        self.calls: list[tuple[str, int, int, bool]] = []

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        state = torch.get_num_threads(), torch.is_grad_enabled()
        self.calls.append((threading.current_thread().name, len(images), *state))
        assert images.times is not None
        self.barrier.wait()
        return images.times + random("some").uniform()[:, None]


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three threads, and parts of at least ten pictures."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(views, "_LEAST", 10 * PIXELS[0].numel())
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("augmentation", [SimCLRAugmentation, MultiCrop])
def test_views_made_in_parts_are_those_of_the_whole_batch(
    three_threads: None, augmentation: type[SimCLRAugmentation | MultiCrop]
) -> None:
    whole = augmentation(FACTS)(images(), 2, samples())
    for made, expected in zip(make_views(augmentation(FACTS), images(), 2, samples()), whole, strict=True):
        torch.testing.assert_close(made, expected, **CLOSE)


def test_every_part_has_a_thread_of_its_own_and_torch_one_in_it(three_threads: None) -> None:
    watched = Watched(at_once=3)
    made = make_views(watched, images(), 1, samples())[0]
    assert torch.equal(made, Watched()(images(), 1, samples())[0])
    parts = watched.calls
    assert len({name for name, *_ in parts}) == 3
    assert sorted(size for _, size, *_ in parts) == [13, 13, 14]
    assert all(name.startswith("views") for name, *_ in parts)
    assert {call[2:] for call in parts} == {(1, False)}
    assert torch.get_num_threads() == 3


def test_a_batch_too_small_to_share_out_is_made_by_one_thread(three_threads: None) -> None:
    watched, few = Watched(), slice(0, 19)
    make_views(watched, images()[few], 1, samples()[few])
    assert watched.calls == [("MainThread", 19, 1, False)]
    assert torch.get_num_threads() == 3


def test_compiled_operations_are_shared_out_by_torch(three_threads: None) -> None:
    watched = Watched()
    token = _compiled.set(True)
    make_views(watched, images(), 1, samples())
    _compiled.reset(token)
    assert watched.calls == [("MainThread", 40, 3, False)]


def test_with_one_thread_a_batch_stays_whole() -> None:
    watched = Watched()
    make_views(watched, images(), 2, samples())
    assert [size for _, size, *_ in watched.calls] == [40, 40]
    assert not any(grad for *_, grad in watched.calls)


def test_an_error_in_a_part_is_raised_and_the_threads_are_given_back(three_threads: None) -> None:
    class Broken(PerView):
        def view(self, images: Images, random: SampleRandom) -> Tensor:
            raise ValueError("no view today")

    with pytest.raises(ValueError, match="no view today"):
        make_views(Broken(), images(), 1, samples())
    assert torch.get_num_threads() == 3


def test_a_forked_process_has_threads_of_its_own(three_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = Watched(), Watched()
    make_views(here, images(), 1, samples())
    threads = threading.active_count()
    monkeypatch.setattr(views.os, "getpid", lambda: -1)
    make_views(there, images(), 1, samples())
    assert threading.active_count() > threads
