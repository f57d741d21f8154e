from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clvr_bench.errors import ClvrBenchError
from clvr_bench.storage.keeping import Kept
from clvr_bench.storage.memo import FILE, Memo
from clvr_bench.storage.picture_files import PictureFiles
from clvr_bench.storage.sources import CachedPixels, StreamedPixels
from tests.clvr_bench.storage.conftest import Told

Make = Callable[..., PictureFiles]
Keep = Callable[..., Kept]
READ, DECODED, CHECKED = "files read", "pictures decoded", "pictures checked"
TEN = ((40, 30),) * 10
ALL = 10 * 3 * 8 * 11  # bytes of TEN, shrunk to 8 px


def cut(path: str) -> None:
    """Leave a file whose header is whole and whose pixels are not."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) * 3 // 4])


def no_picture(path: str) -> None:
    Path(path).write_bytes(b"no picture")


def gone(path: str) -> None:
    Path(path).unlink()


@pytest.mark.parametrize(("limit", "source"), [(ALL, CachedPixels), (ALL - 1, StreamedPixels)])
def test_what_fits_into_the_limit_is_cached_and_what_does_not_is_streamed(
    pictures: Make, kept: Keep, told: Told, limit: int, source: type
) -> None:
    found = kept(pictures(TEN), memory_limit=limit)
    assert isinstance(found.splits["train"]._source, source)
    assert told.kinds() == {READ, DECODED if source is CachedPixels else CHECKED}
    assert bool(told.lines) == (source is StreamedPixels)


def test_streaming_says_why(pictures: Make, kept: Keep, told: Told) -> None:
    kept(pictures(TEN), memory_limit=1000)
    (line,) = told.lines
    assert line.startswith(
        "dataset pets: decoded it takes 0.00264 MB, more than the limit of 0.001 MB (--memory-limit), "
    )


def test_all_splits_count_towards_the_limit(pictures: Make, kept: Keep) -> None:
    splits = {"train": pictures(TEN), "test": pictures(((40, 30),) * 11, folder="other")}
    splits["test"] = splits["test"].subset(torch.tensor([10]))
    assert isinstance(kept(splits, memory_limit=ALL).splits["train"]._source, StreamedPixels)


@pytest.mark.parametrize("limit", [ALL, 0])
def test_files_that_did_not_change_are_neither_read_nor_decoded_again(
    pictures: Make, kept: Keep, told: Told, limit: int
) -> None:
    split = pictures(TEN)
    before = kept(split, memory_limit=limit).splits["train"].fingerprint
    told.steps.clear()
    assert kept(split, memory_limit=limit).splits["train"].fingerprint == before
    assert told.steps == []


@pytest.mark.parametrize("limit", [ALL, 0])
def test_files_that_were_touched_are_read_but_not_decoded_again(
    pictures: Make, kept: Keep, told: Told, limit: int
) -> None:
    split = pictures(TEN)
    before = kept(split, memory_limit=limit).splits["train"].fingerprint
    told.steps.clear()
    for path in split.paths:
        os.utime(path, ns=(1, 1))
    assert kept(split, memory_limit=limit).splits["train"].fingerprint == before
    assert told.kinds() == {READ}


@pytest.mark.parametrize("limit", [ALL, 0])
def test_a_changed_file_changes_the_fingerprint(pictures: Make, kept: Keep, limit: int) -> None:
    split = pictures(TEN)
    before = kept(split, memory_limit=limit).splits["train"].fingerprint
    Path(split.paths[2]).write_bytes(Path(split.paths[5]).read_bytes())
    assert kept(split, memory_limit=limit).splits["train"].fingerprint != before


def test_of_streamed_files_only_new_contents_are_checked(pictures: Make, kept: Keep, told: Told) -> None:
    split = pictures(TEN)
    kept(split.subset(torch.arange(8)), memory_limit=0)
    told.steps.clear()
    kept(split, memory_limit=0)
    assert (10, 10, CHECKED) in told.steps
    assert [step for step in told.steps if step[2] == CHECKED] == [(10, 10, CHECKED)]


def test_what_is_cached_need_not_be_checked_to_be_streamed(pictures: Make, kept: Keep, told: Told) -> None:
    split = pictures(TEN, unreadable=0.1)
    cut(split.paths[4])
    first = kept(split)
    told.steps.clear()
    second = kept(split, memory_limit=0)
    assert told.steps == []
    assert first.splits["train"].fingerprint == second.splits["train"].fingerprint


@pytest.mark.parametrize("limit", [ALL, 0])
@pytest.mark.parametrize("damage", [cut, no_picture, gone])
def test_undecodable_files_are_left_out_counted_named_and_listed(
    pictures: Make, kept: Keep, told: Told, limit: int, damage: Callable[[str], None]
) -> None:
    split = pictures(TEN, unreadable=0.2)
    others = split.subset(torch.tensor([0, 1, 2, 4, 5, 6, 8, 9]))
    expected = others.images(torch.arange(8))
    for number in (3, 7):
        damage(split.paths[number])
    found = kept(split, memory_limit=limit)
    assert found.notes == ("2 of 10 train pictures cannot be decoded and are left out",)
    line = told.lines[-1]
    assert re.match(
        r"dataset pets: 2 of 10 train pictures .* left out: 3\.png \(.+\), 7\.jpg \(.+\)\. All .* in ", line
    )
    listed = Path(line.split("listed in ")[1].rstrip(".")).read_text().splitlines()
    assert [row.split("\t")[:2] for row in listed] == [["train", split.paths[number]] for number in (3, 7)]
    assert all(row.split("\t")[2] for row in listed)
    left = found.splits["train"]
    assert left.labels.tolist() == others.labels.tolist()
    assert left.fingerprint == others.fingerprint
    assert torch.equal(left.images(torch.arange(8)).pixels, expected.pixels)


@pytest.mark.parametrize("limit", [ALL, 0])
@pytest.mark.parametrize(("damage", "work"), [(cut, DECODED), (no_picture, None), (gone, None)])
def test_more_than_the_stated_share_is_refused(
    pictures: Make, kept: Keep, told: Told, limit: int, damage: Callable[[str], None], work: str | None
) -> None:
    split = pictures(TEN, unreadable=0.4)
    for number in range(5):
        damage(split.paths[number])
    message = (
        r"^dataset pets: 5 of 10 train pictures cannot be decoded, where 40% may be: 0\.png \(.+\), 1\.jpg \(.+\), "
        r"2\.webp \(.+\), 2 more\. All are listed in .+\.txt\. Mend or remove them, or allow more: "
        r"--set pets.unreadable=0\.5$"
    )
    with pytest.raises(ClvrBenchError, match=message):
        kept(split, memory_limit=limit)
    assert (DECODED in told.kinds() or CHECKED in told.kinds()) == bool(work)


def test_each_split_has_its_own_share(pictures: Make, kept: Keep) -> None:
    train, test = pictures(TEN, unreadable=0.3), pictures(TEN[:4], folder="test", unreadable=0.3)
    for number in (0, 1):
        no_picture(test.paths[number])
    with pytest.raises(ClvrBenchError, match=r"2 of 4 test pictures cannot be decoded, where 30% may be: 0\.png"):
        kept({"train": train, "test": test})


@pytest.mark.parametrize("workers", [0, 2])
def test_what_remains_does_not_depend_on_who_decodes(pictures: Make, kept: Keep, tmp_path: Path, workers: int) -> None:
    split = pictures(TEN, unreadable=0.5)
    cut(split.paths[0])
    no_picture(split.paths[6])
    found = [
        kept(split, workers=workers, memory_limit=limit, cache=tmp_path / f"cache {limit}").splits["train"]
        for limit in (ALL, 0)
    ]
    assert (
        found[0].fingerprint == found[1].fingerprint == split.subset(torch.tensor([1, 2, 3, 4, 5, 7, 8, 9])).fingerprint
    )


def test_splits_that_are_shrunk_differently_are_refused(pictures: Make, kept: Keep) -> None:
    with pytest.raises(
        ClvrBenchError, match=r"^dataset pets: its splits are shrunk to several sizes: \[8, 9\] pixels\.$"
    ):
        kept({"train": pictures(shorter_side=8), "test": pictures(shorter_side=9)})


def test_a_folder_that_cannot_be_written_is_one_line_that_names_the_flag(
    pictures: Make, kept: Keep, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ClvrBenchError, match=r"^--cache: cannot write to .*file/below \(Not a directory\).*--cache DIR\.$"
    ):
        kept(pictures(), cache=tmp_path / "file" / "below")


@pytest.mark.parametrize("content", [b"no database at all, but a text", b""])
def test_a_damaged_memo_is_set_aside_and_files_are_read_anew(
    pictures: Make, kept: Keep, told: Told, cache: Path, content: bytes
) -> None:
    split = pictures(TEN)
    before = kept(split).splits["train"].fingerprint
    told.steps.clear()
    (cache / FILE).write_bytes(content * 100)
    assert kept(split).splits["train"].fingerprint == before
    assert told.kinds() == {READ}
    assert [path.name for path in cache.glob("*.damaged*")] == ([f"{FILE}.damaged"] if content else [])
    assert len(told.lines) == bool(content)


def test_another_version_of_pillow_looks_again(
    pictures: Make, kept: Keep, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clvr_bench.storage import memo, pixel_cache

    split = pictures(TEN)
    kept(split)
    told.steps.clear()
    for module in (memo, pixel_cache):
        monkeypatch.setattr(module, "DECODER", "decoding 1, Pillow 99")
    kept(split)
    assert told.kinds() == {READ, DECODED}


def test_names_that_are_not_text_are_kept_too(pictures: Make, kept: Keep, tmp_path: Path, told: Told) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")
    Path(strange).write_bytes(Path(pictures(TEN).paths[0]).read_bytes())
    split = PictureFiles([strange], torch.zeros(1).long(), 8)
    before = kept(split).splits["train"].fingerprint
    told.steps.clear()
    assert kept(split).splits["train"].fingerprint == before == split.fingerprint
    assert told.steps == []
    no_picture(strange)
    with pytest.raises(ClvrBenchError, match=r"1 of 1 train pictures cannot be decoded"):
        kept(split)


def test_a_full_disk_under_the_memo_is_one_line(cache: Path) -> None:
    cache.mkdir()
    with Memo(cache, print) as memo:
        memo._database.execute("PRAGMA query_only = ON")  # as a disk that takes nothing more
        with pytest.raises(ClvrBenchError, match=r"^--cache: .*catalogue\.sqlite cannot be used \(.+\)\. Make room"):
            memo.remember_verdicts({b"1": ""}, 8)
