"""What worker processes do with files: look at them, decode them into the cache, decode them for a batch. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clvr_bench.decoding import Pixels, Undecodable, decode, decoded_size
from clvr_bench.errors import CannotWrite, RunFailed
from clvr_bench.files import write_atomically

MOST_BYTES = 1 << 30  # of a file that is read at all
CHANNELS = 3


class Stamp(NamedTuple):
    """What the file system says of a file; as long as it stays, the content is taken to be the same."""

    size: int
    mtime_ns: int
    ctime_ns: int


class Examined(NamedTuple):
    """What is known of a file once it was read: ``reason`` says why it is no picture, and is empty where it is one."""

    stamp: Stamp
    digest: bytes = b""
    height: int = 0
    width: int = 0
    reason: str = ""


class Wanted(NamedTuple):
    """A file that was examined and is to be decoded, and the height and width that it will have."""

    path: str
    stamp: Stamp
    digest: bytes
    height: int
    width: int

    @property
    def bytes(self) -> int:
        """How many its pixels take."""
        return CHANNELS * self.height * self.width


def stamp_of(path: str) -> Stamp | str:
    """Ask the file system about a file; why there is none if there is none."""
    try:
        return _stamp(os.stat(path))  # noqa: PTH116 - a million of them
    except OSError as error:
        return _reason(path, error)


def examine(paths: Sequence[str]) -> list[Examined]:
    """Read files once: the hash of each content, and its size in pixels when it is not shrunk."""
    return [_examined(path) for path in paths]


def _examined(path: str) -> Examined:
    try:
        stamp, content = _read(path)
    except Undecodable as error:
        return Examined(Stamp(0, 0, 0), reason=str(error))
    digest = hashlib.sha256(content).digest()
    try:
        return Examined(stamp, digest, *decoded_size(content, 0))
    except Undecodable as error:
        return Examined(stamp, digest, reason=str(error))


def fill(pixels: str, marker: str, offset: int, files: Sequence[Wanted], shorter_side: int) -> dict[int, str]:
    """Decode files into their place in the cache, and then mark them as done.

    Args:
        pixels: The cache's file of pixels, allocated.
        marker: The file that says that these are done: the checksum of their bytes, and what ``fill`` returns.
        offset: Where the first begins, in bytes.
        files: They follow one another as (3, H, W); undecodable ones stay zero.
        shorter_side: What they are shrunk to.

    Returns:
        Why some cannot be decoded, by position.

    Raises:
        RunFailed: A file changed since it was examined.
        CannotWrite: The cache cannot be written.
    """
    failed: dict[int, str] = {}
    checksum = 0
    try:
        with open(pixels, "r+b") as cache:  # noqa: PTH123 - a path from another process
            cache.seek(offset)
            for position, file in enumerate(files):
                block = np.zeros((CHANNELS, file.height, file.width), np.uint8)
                try:
                    block[...] = _decoded(file, shorter_side, hashed=True).transpose(2, 0, 1)
                except Undecodable as error:
                    failed[position] = str(error)
                checksum = zlib.crc32(block.data, checksum)
                cache.write(block.data)
            cache.flush()
            os.fsync(cache.fileno())
    except OSError as error:
        raise CannotWrite(Path(pixels), error) from None
    write_atomically(Path(marker), json.dumps({"checksum": checksum, "failed": failed}).encode())
    return failed


def check(files: Sequence[Wanted], shorter_side: int) -> dict[int, str]:
    """Decode files and keep nothing: why some cannot be decoded, by position."""
    failed: dict[int, str] = {}
    for position, file in enumerate(files):
        try:
            _decoded(file, shorter_side, hashed=True)
        except Undecodable as error:
            failed[position] = str(error)
    return failed


def decode_files(files: Sequence[Wanted], shorter_side: int) -> NDArray[np.uint8]:
    """Decode files for a batch: their pixels as (3, H, W), one after the other.

    Raises:
        RunFailed: One is not the file any more that was examined.
    """
    found = np.empty(sum(file.bytes for file in files), np.uint8)
    start = 0
    for file in files:
        try:
            pixels = _decoded(file, shorter_side, hashed=False)
        except Undecodable as error:
            raise RunFailed(f"{file.path}: could be decoded before, and now cannot: {error}.") from None
        block = found[start : start + file.bytes].reshape(CHANNELS, file.height, file.width)
        block[...] = pixels.transpose(2, 0, 1)
        start += file.bytes
    return found


def _decoded(file: Wanted, shorter_side: int, *, hashed: bool) -> Pixels:
    """Decode a file that was examined.

    Args:
        file: What it was.
        shorter_side: What it is shrunk to.
        hashed: Whether to compare its content, even if the file system says that nothing changed.

    Raises:
        RunFailed: It is another one now, or gone.
        Undecodable: It cannot be decoded.
    """
    try:
        stamp, content = _read(file.path)
    except Undecodable as error:
        raise RunFailed(f"{file.path}: the data changed while they were in use: {error}.") from None
    touched = (stamp.size, stamp.mtime_ns) != (file.stamp.size, file.stamp.mtime_ns)
    if (touched or hashed) and hashlib.sha256(content).digest() != file.digest:
        raise RunFailed(
            f"{file.path}: the data changed while they were in use: its content is another one. Run the command again "
            "once nothing writes to them."
        )
    return decode(content, shorter_side)


def _read(path: str) -> tuple[Stamp, bytes]:
    """Read a file that is no pipe, no device and not absurdly large."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - opening a pipe would wait for its writer
            raise Undecodable("it is no file")
        with open(path, "rb") as file:  # noqa: PTH123
            found = os.fstat(file.fileno())
            if found.st_size > MOST_BYTES:
                raise Undecodable(f"it has {found.st_size:,} bytes, more than any picture")
            return _stamp(found), file.read()
    except OSError as error:
        raise Undecodable(_reason(path, error)) from None


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _reason(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is a broken link" if os.path.islink(path) else "it is gone"  # noqa: PTH114
    return (error.strerror or type(error).__name__).lower()
