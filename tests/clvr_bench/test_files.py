from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from clvr_bench.errors import CannotWrite
from clvr_bench.files import lock, set_aside, try_writing, write_atomically


def test_a_write_that_fails_leaves_the_old_content_and_no_part_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("clvr_bench.files.os.fsync", fail)
    with pytest.raises(CannotWrite, match=r"file: cannot be written \(No space left on device\)\. What was finished"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="file/below: cannot be written"):
        write_atomically(tmp_path / "file" / "below", b"")


def test_many_may_try_to_write_into_a_folder_at_once_and_leave_nothing_there(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "below"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(try_writing, [folder] * 400))  # one file for all would be gone for some
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match=r"file/below: cannot be written \(Not a directory\)"):
        try_writing(tmp_path / "file" / "below")


def test_what_is_set_aside_is_kept_under_names_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    for content in ("one", "two", "three"):
        path.write_text(content)
        set_aside(path)
    kept = {found.name: found.read_text() for found in tmp_path.iterdir()}
    assert kept == {"record.json.damaged": "one", "record.json.damaged2": "two", "record.json.damaged3": "three"}


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with lock(tmp_path / "new" / ".lock") as first:
        with lock(tmp_path / "new" / ".lock") as second:
            assert (first, second) == (True, False)
        with lock(tmp_path / "other" / ".lock") as third:
            assert third
    with lock(tmp_path / "new" / ".lock") as again:
        assert again


def hold(path: Path, held: Event) -> None:
    with lock(path):
        held.set()
        signal.pause()


def test_a_killed_process_lets_go_of_its_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    held = context.Event()
    holder = context.Process(target=hold, args=(tmp_path / ".lock", held))
    holder.start()
    assert held.wait(60)
    with lock(tmp_path / ".lock") as mine:
        assert not mine
    holder.kill()
    holder.join()
    with lock(tmp_path / ".lock") as mine:
        assert mine
