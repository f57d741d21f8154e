"""Files that survive what happens to them: written whole or not at all, set aside when damaged, locked while in use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from clvr_bench.errors import CannotWrite

try:
    import fcntl
except ImportError:  # Windows: locks are then nobody's, and two processes on one folder are not supported
    fcntl = None  # type: ignore[assignment]

DAMAGED = ".damaged"
"""What the name of a file that was set aside goes on with."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a kill leaves the old content or the new, never a part.

    Raises:
        CannotWrite: The disk is full, or the folder cannot be written; the old content is still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _remove_quietly(partial)
        raise CannotWrite(path, error) from error


def try_writing(folder: Path) -> None:
    """Make a folder and write a file into it that is gone again afterwards; other processes may do so meanwhile.

    Raises:
        CannotWrite: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable.") as file:
            file.write(b"\0")
    except OSError as error:
        raise CannotWrite(folder, error) from error


def _remove_quietly(path: Path) -> None:
    try:
        path.unlink()
    except OSError:  # it was never made, or the folder itself is gone
        return


def set_aside(path: Path) -> Path:
    """Rename a damaged file, never over another one, and return where it lies now."""
    names = (path.with_name(f"{path.name}{DAMAGED}{number if number > 1 else ''}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    try:
        path.rename(aside)
    except OSError as error:
        raise CannotWrite(path, error) from error
    return aside


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Hold a lock file for as long as the context lasts; a process that dies lets go of it.

    Yields:
        Whether it is held; False where another process, or another place in this one, holds it.
    """
    if fcntl is None:
        yield True
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise CannotWrite(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
