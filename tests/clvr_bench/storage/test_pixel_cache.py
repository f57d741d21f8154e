from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clvr_bench.decoding import decode
from clvr_bench.errors import ClvrBenchError, RunFailed
from clvr_bench.storage import pixel_cache
from clvr_bench.storage.catalogue import Contents
from clvr_bench.storage.picture_files import PictureFiles
from clvr_bench.storage.pixel_cache import PixelCache
from clvr_bench.storage.workers import Workers
from tests.clvr_bench.storage.conftest import HERE, RAGGED, Told, contents_of

Make = Callable[..., PictureFiles]
CHUNK = 3  # pictures


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "PICTURES_A_CHUNK", CHUNK)


@pytest.fixture
def contents(pictures: Make, cache: Path) -> Contents:
    return contents_of(pictures(), cache)


def expected(contents: Contents) -> bytes:
    decoded = [
        decode(Path(file.path).read_bytes(), contents.shorter_side) for file in contents.wanted(range(len(contents)))
    ]
    return b"".join(picture.transpose(2, 0, 1).tobytes() for picture in decoded)


def ensured(cache: Path, contents: Contents, told: Told, workers: Workers = HERE) -> PixelCache:
    made = PixelCache(cache, contents)
    assert made.ensure(workers, told.lines.append, told.progress) == {}
    return made


CHILD = """
import os, signal, sys, time
from pathlib import Path
from clvr_bench.storage import pixel_cache
from clvr_bench.storage.catalogue import Contents, survey
from clvr_bench.storage.memo import Memo
from clvr_bench.storage.workers import Workers

cache, shorter_side, after, *paths = sys.argv[1:]
pixel_cache.PICTURES_A_CHUNK = 3
with Memo(Path(cache), print) as memo:
    contents = Contents(survey(paths, memo, Workers(0), lambda *_: None), int(shorter_side))

def progress(done, total, what):
    print(done, flush=True)
    if after == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if after == "wait":
        sys.stdin.read()

pixel_cache.PixelCache(Path(cache), contents).ensure(Workers(0), print, progress)
assert "torch" not in sys.modules
"""


def command(split: PictureFiles, cache: Path, after: str) -> list[str]:
    return [sys.executable, "-c", CHILD, str(cache), str(split.shorter_side), after, *split.paths]


@contextmanager
def another_process(split: PictureFiles, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has filled one chunk of the cache, and goes on when its input ends."""
    cache.mkdir(exist_ok=True)
    with subprocess.Popen(
        command(split, cache, "wait"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{CHUNK}\n"
        yield process
        process.kill()


@pytest.mark.parametrize("count", [0, 2])
def test_it_holds_the_pixels_of_every_picture(contents: Contents, cache: Path, told: Told, count: int) -> None:
    workers = Workers(count)
    made = ensured(cache, contents, told, workers)
    workers.close()
    assert made.pixels().tobytes() == expected(contents)
    assert [step[0] for step in told.steps] == [3, 6, 9, 10]
    assert made.total == (made.folder / "pixels.bin").stat().st_size


def test_a_whole_cache_is_used_as_it_is(contents: Contents, cache: Path, told: Told) -> None:
    ensured(cache, contents, Told())
    for file in contents.wanted(range(len(contents))):
        Path(file.path).unlink()
    ensured(cache, contents, told)
    assert (told.steps, told.lines) == ([], [])


def test_other_contents_or_another_size_have_another_cache(pictures: Make, cache: Path) -> None:
    split = pictures()
    folders = {
        PixelCache(cache, contents_of(PictureFiles(paths, split.labels[: len(paths)], side), cache)).folder
        for paths, side in ((split.paths, 8), (split.paths, 9), (split.paths[:-1], 8), (split.paths[::-1], 8))
    }
    assert len(folders) == 4


def test_no_pictures_are_a_cache_too(cache: Path, told: Told) -> None:
    made = ensured(cache, Contents({}, 8), told)
    assert len(made.pixels()) == 0
    ensured(cache, Contents({}, 8), told)
    assert told.lines == []


def test_a_build_that_was_killed_goes_on_where_it_was(pictures: Make, cache: Path, told: Told) -> None:
    split = pictures()
    contents = killed_after_one_chunk(split, cache)
    whole = expected(contents)
    for path in split.paths[:CHUNK]:
        Path(path).unlink()  # they need not be read again
    made = ensured(cache, contents, told)
    assert [step[0] for step in told.steps] == [6, 9, 10]
    assert made.pixels().tobytes() == whole
    assert told.lines == []


def test_a_process_that_comes_second_waits_and_uses_what_the_first_made(
    pictures: Make, cache: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_cache, "_PATIENCE_SECONDS", 0.0)
    split = pictures()
    contents = contents_of(split, cache)
    with another_process(split, cache) as first:
        waiting = threading.Thread(target=ensured, args=(cache, contents, told))
        waiting.start()
        until(lambda: bool(told.lines))
        assert waiting.is_alive()
        assert first.stdin is not None
        first.stdin.close()
        waiting.join(timeout=20)
        assert first.wait(timeout=20) == 0
    assert told.lines == ["another process is decoding the same pictures; waiting for it to finish"]
    assert told.steps == []
    assert PixelCache(cache, contents).pixels().tobytes() == expected(contents)


def test_a_process_that_comes_second_takes_over_when_the_first_dies(pictures: Make, cache: Path, told: Told) -> None:
    split = pictures()
    contents = contents_of(split, cache)
    with another_process(split, cache) as first:
        waiting = threading.Thread(target=ensured, args=(cache, contents, told))
        waiting.start()
        time.sleep(0.3)
        assert told.steps == []
        first.kill()
        waiting.join(timeout=20)
    assert [step[0] for step in told.steps] == [6, 9, 10]
    assert PixelCache(cache, contents).pixels().tobytes() == expected(contents)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def cut_off(folder: Path) -> None:
    os.truncate(folder / "pixels.bin", 100)


def flip_a_bit(folder: Path) -> None:
    with (folder / "pixels.bin").open("r+b") as file:
        file.seek(1000)
        (byte,) = file.read(1)
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def lose_pixels(folder: Path) -> None:
    (folder / "pixels.bin").unlink()


def mix_up_sizes(folder: Path) -> None:
    np.save(folder / "sizes.npy", np.ones((10, 2), np.int64))


def cut_off_the_list(folder: Path) -> None:
    (folder / "complete.json").write_bytes((folder / "complete.json").read_bytes()[:40])


def forget_a_chunk(folder: Path) -> None:
    facts = json.loads((folder / "complete.json").read_text())
    facts["checksums"].pop()
    (folder / "complete.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_off, "pixels.bin has 100 of "),
        (flip_a_bit, "of pixels.bin are not those that were written"),
        (lose_pixels, "No such file"),
        (mix_up_sizes, "sizes.npy has other sizes than the files"),
        (cut_off_the_list, "is damaged"),
        (forget_a_chunk, "complete.json has 3 of 4 checksums"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_cache_is_named_set_aside_and_made_anew(
    contents: Contents, cache: Path, told: Told, damage: Callable[[Path], None], reason: str
) -> None:
    folder = ensured(cache, contents, Told()).folder
    damage(folder)
    made = ensured(cache, contents, told)
    (line,) = told.lines
    assert str(folder) in line
    assert reason in line
    assert "It is set aside as" in line
    aside = folder.with_name(line.split(" set aside as ")[1].split(" ")[0])
    assert aside.is_dir()
    assert made.pixels().tobytes() == expected(contents)


def test_of_a_large_cache_some_chunks_are_compared(
    contents: Contents, cache: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ensured(cache, contents, Told()).folder
    monkeypatch.setattr(pixel_cache, "BYTES_CHECKED", 1)
    flip_a_bit(folder)
    ensured(cache, contents, told)
    assert told.lines == []


def killed_after_one_chunk(split: PictureFiles, cache: Path) -> Contents:
    cache.mkdir(exist_ok=True)
    done = subprocess.run(command(split, cache, "die"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, f"{CHUNK}\n"), done.stderr
    return contents_of(split, cache)


def test_a_half_made_cache_of_the_wrong_length_is_set_aside(pictures: Make, cache: Path, told: Told) -> None:
    contents = killed_after_one_chunk(pictures(), cache)
    cut_off(PixelCache(cache, contents).folder)
    ensured(cache, contents, told)
    assert "is damaged (pixels.bin has 100 of" in told.lines[0]
    assert [step[0] for step in told.steps] == [3, 6, 9, 10]


def test_a_kill_before_anything_is_reserved_is_no_damage(contents: Contents, cache: Path, told: Told) -> None:
    folder = PixelCache(cache, contents).folder
    folder.mkdir(parents=True)
    (folder / "sizes.npy").write_bytes(b"")
    (folder / ".pixels.partial").write_bytes(b"12")
    ensured(cache, contents, told)
    assert told.lines == []


def test_a_damaged_marker_is_as_good_as_none(pictures: Make, cache: Path, told: Told) -> None:
    contents = killed_after_one_chunk(pictures(), cache)
    (marker,) = PixelCache(cache, contents).folder.glob("chunks/*.json")
    marker.write_text('{"checksum": 12')
    ensured(cache, contents, told)
    assert [step[0] for step in told.steps] == [3, 6, 9, 10]


def refused_for_lack_of_room(cache: Path, contents: Contents, reason: str) -> None:
    message = (
        rf"^--cache: .* has no room for .* MB of decoded pictures \({reason}; .*B are free\)\. Name another folder"
    )
    with pytest.raises(ClvrBenchError, match=message) as caught:
        PixelCache(cache, contents).ensure(HERE, print, lambda *_: None)
    assert "\n" not in str(caught.value)
    assert not PixelCache(cache, contents).folder.exists()


def test_a_full_disk_shows_before_anything_is_decoded(
    contents: Contents, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, start: int, length: int) -> None:
        os.write(file, b"some of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "posix_fallocate", full)
        refused_for_lack_of_room(cache, contents, "No space left on device")
    ensured(cache, contents, Told())


def test_a_limit_on_the_size_of_files_shows_the_same_way(contents: Contents, cache: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        refused_for_lack_of_room(cache, contents, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_system_that_cannot_reserve_space_still_holds_a_cache(
    contents: Contents, cache: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    assert ensured(cache, contents, told).pixels().tobytes() == expected(contents)


@pytest.mark.parametrize(("change", "reason"), [("remove", "it is gone"), ("replace", "its content is another one")])
def test_a_file_that_changes_before_it_is_decoded_is_named(
    pictures: Make, cache: Path, change: str, reason: str
) -> None:
    split = pictures()
    contents = contents_of(split, cache)
    path = Path(split.paths[4])
    path.unlink() if change == "remove" else path.write_bytes(Path(split.paths[5]).read_bytes())
    with pytest.raises(RunFailed, match=rf"^{path}: the data changed while they were in use: {reason}\."):
        PixelCache(cache, contents).ensure(HERE, print, lambda *_: None)


def test_pictures_that_cannot_be_decoded_are_told_and_stay_black(pictures: Make, cache: Path, told: Told) -> None:
    split = pictures(((40, 30),) * 5, shorter_side=20)
    for number in (1, 4):
        path = Path(split.paths[number])
        path.write_bytes(path.read_bytes()[:-300])
    made = PixelCache(cache, contents_of(split, cache))
    failed = made.ensure(HERE, told.lines.append, told.progress)
    assert set(failed) == {1, 4}
    assert all(failed.values())
    assert not made.pixels().reshape(5, -1)[[1, 4]].any()
    assert made.pixels().reshape(5, -1)[[0, 2, 3]].any(axis=1).all()
    assert made.ensure(HERE, told.lines.append, told.progress) == failed == made.failures()


def test_it_is_mapped_not_read(contents: Contents, cache: Path, told: Told) -> None:
    assert isinstance(ensured(cache, contents, told).pixels(), np.memmap)


def test_a_chunk_ends_at_so_many_bytes(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "BYTES_A_CHUNK", 500)
    bounds = pixel_cache._bounds(contents.bytes)
    sizes = np.add.reduceat(contents.bytes, bounds[:-1])
    assert (bounds[0], bounds[-1]) == (0, len(RAGGED))
    assert all(size <= 500 or end - start == 1 for size, start, end in zip(sizes, bounds, bounds[1:], strict=False))
