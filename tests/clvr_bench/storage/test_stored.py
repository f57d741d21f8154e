from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clvr_bench import DataFacts, Images, SampleRandom, Split
from clvr_bench.errors import RunFailed
from clvr_bench.storage import sources
from clvr_bench.storage.keeping import Kept
from clvr_bench.storage.picture_files import PictureFiles
from clvr_bench.storage.sources import CachedPixels, StreamedPixels
from clvr_bench.storage.stored import Reading, StoredPictures
from clvr_bench.views import make_views
from clvr_plugins.augmentations.simclr import SimCLRAugmentation
from tests.clvr_bench.storage.conftest import CPU, DENSE, RAGGED, draw

Make = Callable[..., PictureFiles]
Keep = Callable[..., Kept]
WAYS = {"cached": {}, "streamed": {"memory_limit": 0}, "by workers": {"memory_limit": 0, "workers": 2}}


def same(first: Images, second: Images) -> bool:
    return torch.equal(first.pixels, second.pixels) and torch.equal(first.sizes, second.sizes)


@pytest.fixture(params=WAYS)
def stored(request: pytest.FixtureRequest, kept: Keep) -> Callable[[PictureFiles], StoredPictures]:
    """Keep a split in each of the ways there are."""

    def keep(split: PictureFiles) -> StoredPictures:
        found = kept(split, **WAYS[request.param]).splits["train"]
        assert isinstance(found._source, CachedPixels if request.param == "cached" else StreamedPixels)
        return found

    return keep


BATCHES = [
    torch.tensor([3, 0, 7]),
    torch.tensor([9]),
    torch.tensor([4, 4, 8, 1, 2]),
    torch.arange(10),
    torch.tensor([5]),
]


@pytest.mark.parametrize("sizes", [RAGGED, DENSE], ids=["ragged", "dense"])
@pytest.mark.parametrize("expected", [False, True], ids=["unexpected", "expected"])
def test_pixels_are_those_of_the_plain_path_to_the_bit(
    pictures: Make, stored: Callable[[PictureFiles], StoredPictures], sizes: Any, expected: bool
) -> None:
    plain = pictures(sizes)
    split = stored(plain)
    if expected:
        split.expect(iter(BATCHES))
    for index in BATCHES:
        assert same(split.images(index), plain.images(index))


def test_views_are_those_of_the_plain_path_to_the_bit(
    pictures: Make, stored: Callable[[PictureFiles], StoredPictures]
) -> None:
    plain = pictures()
    augmentation = SimCLRAugmentation(DataFacts("image", 10, 16))
    split = stored(plain)
    index = torch.arange(10)
    made = [make_views(augmentation, part.images(index), 2, SampleRandom.keyed(0, 0, index)) for part in (plain, split)]
    assert all(torch.equal(*pair) for pair in zip(*made, strict=True))


def test_a_batch_is_padded_to_its_own_largest_picture(
    pictures: Make, stored: Callable[[PictureFiles], StoredPictures]
) -> None:
    images = stored(pictures(shorter_side=0)).images(torch.tensor([1, 5]))
    assert images.pixels.shape == (2, 3, 8, 8)
    assert images.sizes.tolist() == [[8, 8], [7, 7]]
    assert not images.pixels[1, :, 7:].any()
    assert not images.pixels[1, :, :, 7:].any()


def test_fingerprints_labels_and_digests_are_those_of_the_files(
    pictures: Make, stored: Callable[[PictureFiles], StoredPictures]
) -> None:
    plain = pictures()
    split = stored(plain)
    assert split.fingerprint == plain.fingerprint
    assert split.digests() == plain.digests()
    assert torch.equal(split.labels, plain.labels)


def test_subsets_and_joined_splits_are_views(pictures: Make, stored: Callable[[PictureFiles], StoredPictures]) -> None:
    plain = pictures()
    split = stored(plain)
    first, second = torch.tensor([8, 2, 5]), torch.tensor([0, 9])
    joined, expected = (part.subset(first).joined(part.subset(second)) for part in (split, plain))
    assert same(joined.images(torch.arange(5)), expected.images(torch.arange(5)))
    assert torch.equal(joined.labels, expected.labels)
    assert joined.fingerprint == expected.fingerprint
    assert joined._source is split._source
    assert split.to(CPU)._source is split._source


def test_only_splits_of_one_data_set_are_joined(pictures: Make, kept: Keep) -> None:
    one, other = (kept(pictures(folder=folder)).splits["train"] for folder in ("one", "other"))
    with pytest.raises(ValueError, match="only splits of one data set can be joined"):
        one.joined(other)
    with pytest.raises(ValueError, match="only picture files that are shrunk alike can be joined"):
        pictures(shorter_side=8).joined(pictures(shorter_side=9))


def test_splits_of_a_data_set_share_one_source(pictures: Make, kept: Keep) -> None:
    splits = {"train": pictures(), "unlabelled": pictures(RAGGED[:4], folder="more")}
    found = kept(splits).splits
    joined = found["train"].joined(found["unlabelled"])
    expected = splits["train"].joined(splits["unlabelled"])
    assert same(joined.images(torch.tensor([13, 0, 10])), expected.images(torch.tensor([13, 0, 10])))


def test_equal_contents_are_kept_once(pictures: Make, kept: Keep, tmp_path: Path) -> None:
    twice = [str(draw(tmp_path / "copies" / f"{number}.png", 10, 10, seed=number % 3)) for number in range(9)]
    split = kept(PictureFiles(twice, torch.arange(9), 0)).splits["train"]
    assert len(split._source.contents) == 3
    assert torch.equal(split.images(torch.tensor([0])).pixels, split.images(torch.tensor([6])).pixels)
    assert split.labels.tolist() == list(range(9))


def test_a_gpu_gathers_by_address_what_a_cpu_copies(
    pictures: Make, kept: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = kept(pictures()).splits["train"]._source
    assert isinstance(source, CachedPixels)
    numbers = torch.tensor([9, 0, 4, 4, 6])
    arguments = source._pixels, source._starts[numbers], source._sizes[numbers]
    for at_once in (1, 2000, 1 << 24):
        monkeypatch.setattr(sources, "PIXELS_AT_ONCE", at_once)
        assert torch.equal(sources._gathered_at_once(*arguments), sources._gathered_singly(*arguments))


def test_an_empty_batch_has_no_pictures(pictures: Make, stored: Callable[[PictureFiles], StoredPictures]) -> None:
    assert len(stored(pictures()).images(torch.empty(0, dtype=torch.int64))) == 0


class Noting:
    """A source that notes what is begun and what is asked for; its pictures are their numbers."""

    def __init__(self, at_once: int) -> None:
        self.at_once, self.device, self.dense = at_once, CPU, None
        self.begun: list[list[int]] = []
        self.done: list[list[int]] = []

    def read(self, numbers: Tensor) -> Reading:
        self.begun.append(numbers.tolist())
        return partial(self._finish, numbers)

    def _finish(self, numbers: Tensor) -> Images:
        self.done.append(numbers.tolist())
        return Images.whole(numbers.view(-1, 1, 1, 1).to(torch.uint8))


def noted(at_once: int = 0, count: int = 20) -> tuple[Noting, StoredPictures]:
    source = Noting(at_once)
    return source, StoredPictures(source, torch.arange(100, 100 + count), torch.zeros(count).long())  # type: ignore[arg-type]  # as much of one as is asked


def asked(split: Split, index: Tensor) -> list[int]:
    return split.images(index).pixels.flatten().tolist()


def test_two_batches_are_read_ahead_at_least_and_no_more_than_needed() -> None:
    source, split = noted()
    batches = torch.arange(20).split(4)
    split.expect(batches)
    for number, index in enumerate(batches):
        assert len(source.begun) == min(5, number + 2)
        assert asked(split, index) == (100 + index).tolist()
    assert source.begun == source.done


def test_as_many_pictures_are_read_ahead_as_keep_the_workers_busy() -> None:
    source, split = noted(at_once=10)
    split.expect(torch.arange(20).split(3))
    assert sum(map(len, source.begun)) == 12
    asked(split, torch.arange(3))
    assert sum(map(len, source.begun)) == 12 + 3


def test_an_unexpected_batch_is_read_at_once_and_forgets_nothing() -> None:
    source, split = noted()
    batches = torch.arange(20).split(5)
    split.expect(batches)
    assert asked(split, torch.tensor([19, 18])) == [119, 118]
    assert source.begun == [[100, 101, 102, 103, 104], [105, 106, 107, 108, 109], [119, 118]]
    assert asked(split, batches[0]) == [100, 101, 102, 103, 104]
    assert len(source.begun) == 4


def test_a_batch_of_equal_numbers_is_the_expected_one() -> None:
    source, split = noted()
    split.expect(torch.arange(20).split(5))
    assert asked(split, torch.arange(5)) == [100, 101, 102, 103, 104]
    assert source.begun.count([100, 101, 102, 103, 104]) == 1


def test_an_expected_batch_that_is_passed_over_is_dropped() -> None:
    source, split = noted()
    batches = torch.arange(20).split(5)
    split.expect(batches)
    asked(split, batches[1])
    asked(split, batches[2])
    asked(split, batches[3])
    assert source.done == [list(range(start, start + 5)) for start in (105, 110, 115)]
    assert len(source.begun) == 4


def test_a_new_expectation_takes_the_place_of_the_old_one() -> None:
    source, split = noted()
    split.expect(torch.arange(20).split(5))
    split.expect([torch.tensor([7]), torch.tensor([8])])
    assert source.begun[2:] == [[107], [108]]
    assert asked(split, torch.tensor([7])) == [107]
    split.expect([])
    assert asked(split, torch.tensor([8])) == [108]


@pytest.fixture
def streamed(pictures: Make, kept: Keep) -> Callable[..., tuple[PictureFiles, StoredPictures]]:
    def make(**how: Any) -> tuple[PictureFiles, StoredPictures]:
        plain = pictures()
        return plain, kept(plain, memory_limit=0, **how).splits["train"]

    return make


def children() -> Iterator[int]:
    """Yield the worker processes of this process."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status, line = (entry / "status").read_text(), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if re.search(rf"^PPid:\t{os.getpid()}$", status, re.MULTILINE) and b"storage.workers" in line:
            yield int(entry.name)


def test_killed_workers_are_replaced_while_pictures_are_streamed(
    streamed: Callable[..., tuple[PictureFiles, StoredPictures]],
) -> None:
    plain, split = streamed(workers=2)
    batches = torch.arange(10).split(2)
    split.expect(batches)
    for number, index in enumerate(batches):
        if number == 2:
            split.images(torch.arange(10))
            processes = list(children())
            assert processes
            for process in processes:
                os.kill(process, signal.SIGKILL)
        assert same(split.images(index), plain.images(index))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanishes_fails_the_run_with_its_name(
    streamed: Callable[..., tuple[PictureFiles, StoredPictures]], workers: int
) -> None:
    plain, split = streamed(workers=workers)
    Path(plain.paths[3]).unlink()
    with pytest.raises(RunFailed, match=rf"^{re.escape(plain.paths[3])}: the data changed while .*: it is gone\.$"):
        split.images(torch.tensor([2, 3, 4]))
    assert len(split.images(torch.tensor([2, 4]))) == 2


def test_a_file_with_another_content_fails_the_run_with_its_name(
    streamed: Callable[..., tuple[PictureFiles, StoredPictures]],
) -> None:
    plain, split = streamed()
    Path(plain.paths[3]).write_bytes(Path(plain.paths[6]).read_bytes())
    with pytest.raises(RunFailed, match=rf"^{re.escape(plain.paths[3])}: .*its content is another one"):
        split.images(torch.tensor([3]))


def test_a_file_that_was_only_touched_is_read_on(
    streamed: Callable[..., tuple[PictureFiles, StoredPictures]],
) -> None:
    plain, split = streamed()
    before = split.images(torch.tensor([3]))
    os.utime(plain.paths[3], ns=(1, 1))
    assert same(split.images(torch.tensor([3])), before)
