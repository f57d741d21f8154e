"""The decoded pixels of a data set's files in one file, filled by workers, and only ever opened when it is whole.

A folder a cache, named after the contents and how they are decoded: ``pixels.bin`` has all pictures as (3, H, W), one
after the other; ``sizes.npy`` has their heights and widths; ``chunks/N.json`` says that a part of them is filled, and
``complete.json`` that all are.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clvr_bench.errors import CannotWrite, ClvrBenchError, DamagedFile
from clvr_bench.files import lock, set_aside, write_atomically
from clvr_bench.storage.catalogue import Contents, Progress
from clvr_bench.storage.memo import DECODER
from clvr_bench.storage.tasks import fill
from clvr_bench.storage.workers import Workers

LAYOUT = 1
"""The version of what is described above."""

PICTURES_A_CHUNK, BYTES_A_CHUNK = 1000, 64 << 20  # whichever is reached first; what a kill loses at most, a worker
CHUNKS, LEAST_PICTURES = 64, 32  # smaller sets have smaller chunks, so that every worker has some
BYTES_CHECKED = 1 << 30  # when a cache is opened: a second or less
_LOOK_SECONDS = 0.2  # between looks at whether another process is done
_PATIENCE_SECONDS = 1.0  # before a user is told of it
_NOT_HERE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # a file system that cannot reserve space

Report = Callable[[str], None]


class PixelCache:
    """The cache of some contents, whether it exists yet or not.

    Args:
        caches: The folder of all caches.
        contents: What it holds.
    """

    def __init__(self, caches: Path, contents: Contents) -> None:
        self._contents = contents
        self.folder = caches / _key(contents)
        self._ends = np.cumsum(contents.bytes)
        self._chunks = list(pairwise(_bounds(contents.bytes)))

    @property
    def total(self) -> int:
        """Bytes of all pixels."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each picture begins, in bytes: (P,) int64."""
        return self._ends - self._contents.bytes

    def ensure(self, workers: Workers, report: Report, progress: Progress) -> dict[int, str]:
        """Fill the cache, or what is missing of it, unless another process is doing so: then wait for that.

        Args:
            workers: Decode.
            report: Is told what a user should know.
            progress: Is told how many pictures are there, of how many.

        Returns:
            Why some contents cannot be decoded, by number; their pixels are zero.

        Raises:
            ClvrBenchError: The disk is full, or a file changed meanwhile.
        """
        with self._locked(report):
            if self._is_begun and (damage := self._damage()):
                aside = set_aside(self.folder)
                report(f"the cache {self.folder} {damage}. It is set aside as {aside.name} and made anew.")
            if not self._complete.is_file():
                self._make(workers, progress)
            return self._failures()

    def failures(self) -> dict[int, str] | None:
        """Return what ``ensure`` would, of a cache that is whole; else None."""
        return self._failures() if self._complete.is_file() and not self._damage() else None

    def _failures(self) -> dict[int, str]:
        return {int(number): reason for number, reason in self._read(self._complete)["failed"].items()}

    def pixels(self) -> NDArray[np.uint8]:
        """Return the bytes of all pictures, mapped into memory, not read: (``total``,) uint8."""
        if not self.total:
            return np.zeros(0, np.uint8)
        return np.memmap(self._pixels, np.uint8, mode="r", shape=(self.total,))

    @property
    def _pixels(self) -> Path:
        return self.folder / "pixels.bin"

    @property
    def _complete(self) -> Path:
        return self.folder / "complete.json"

    @property
    def _is_begun(self) -> bool:
        return any(path.exists() for path in (self._pixels, self._complete, self._marker(0).parent))

    def _marker(self, number: int) -> Path:
        return self.folder / "chunks" / f"{number}.json"

    @contextmanager
    def _locked(self, report: Report) -> Iterator[None]:
        """Wait until no other process is at work on this cache; one that dies lets go of it."""
        since = time.monotonic()
        told = False
        while True:
            with lock(self.folder.with_name(f"{self.folder.name}.lock")) as held:
                if held:
                    yield
                    return
            if not told and time.monotonic() - since > _PATIENCE_SECONDS:
                told = True
                report("another process is decoding the same pictures; waiting for it to finish")
            time.sleep(_LOOK_SECONDS)

    def _damage(self) -> str:
        """Say what is wrong with a cache that was begun; nothing where it is as it should be."""
        try:
            self._require_sound()
        except (OSError, ValueError, KeyError, TypeError, DamagedFile) as error:
            return f"is damaged ({error})"
        return ""

    def _require_sound(self) -> None:
        size = self._pixels.stat().st_size
        if size != self.total:
            raise DamagedFile(f"pixels.bin has {size:,} of {self.total:,} bytes")
        if not np.array_equal(np.load(self.folder / "sizes.npy"), self._contents.sizes):
            raise DamagedFile("sizes.npy has other sizes than the files")
        if self._complete.is_file():
            checksums = self._read(self._complete)["checksums"]
            if len(checksums) != len(self._chunks):
                raise DamagedFile(f"complete.json has {len(checksums)} of {len(self._chunks)} checksums")
            self._compare(checksums)

    def _compare(self, checksums: list[int]) -> None:
        """Compare checksums of as many chunks as may be read, evenly spread."""
        pixels = self.pixels()
        share = min(1.0, BYTES_CHECKED / max(1, self.total))
        for number in np.linspace(0, len(checksums) - 1, round(share * len(checksums))).round().astype(int).tolist():
            start, end = self._span(number)
            if zlib.crc32(pixels[start:end].data) != checksums[number]:
                raise DamagedFile(f"bytes {start:,} to {end:,} of pixels.bin are not those that were written")

    def _span(self, chunk: int) -> tuple[int, int]:
        first, end = self._chunks[chunk]
        return int(self._ends[first] - self._contents.bytes[first]), int(self._ends[end - 1])

    def _make(self, workers: Workers, progress: Progress) -> None:
        if not self._pixels.is_file():
            self._allocate()
        done = self._done()
        left = [number for number in range(len(self._chunks)) if number not in done]
        pictures = sum(end - first for first, end in (self._chunks[number] for number in done))
        tasks = [self._task(number) for number in left]
        for number, _ in zip(left, workers.map(fill, tasks), strict=True):
            first, end = self._chunks[number]
            pictures += end - first
            progress(pictures, len(self._contents), "pictures decoded")
        self._finish()

    def _task(self, number: int) -> tuple[Any, ...]:
        files = self._contents.wanted(range(*self._chunks[number]))
        return str(self._pixels), str(self._marker(number)), self._span(number)[0], files, self._contents.shorter_side

    def _done(self) -> dict[int, dict[str, Any]]:
        """Return what the markers of filled chunks say; a damaged marker is as good as none."""
        found = {}
        for number in range(len(self._chunks)):
            try:
                found[number] = self._read(self._marker(number))
            except (OSError, ValueError):
                continue
        return found

    def _finish(self) -> None:
        markers = self._done()
        failed = {
            self._chunks[number][0] + int(position): reason
            for number, marker in sorted(markers.items())
            for position, reason in marker["failed"].items()
        }
        facts = {
            "layout": LAYOUT,
            "decoder": DECODER,
            "shorter_side": self._contents.shorter_side,
            "pictures": len(self._contents),
            "checksums": [markers[number]["checksum"] for number in range(len(self._chunks))],
            "failed": failed,
        }
        write_atomically(self._complete, json.dumps(facts).encode())
        shutil.rmtree(self.folder / "chunks", ignore_errors=True)

    def _allocate(self) -> None:
        """Reserve the space of all pixels, so that a full disk shows now.

        Raises:
            ClvrBenchError: There is not enough.
        """
        partial = self.folder / ".pixels.partial"
        sizes = io.BytesIO()
        np.save(sizes, self._contents.sizes)
        try:
            write_atomically(self.folder / "sizes.npy", sizes.getvalue())
            with partial.open("wb") as file:
                _reserve(file.fileno(), self.total)
            partial.replace(self._pixels)
        except (OSError, CannotWrite) as error:
            reason = error.reason if isinstance(error, CannotWrite) else error.strerror
            shutil.rmtree(self.folder, ignore_errors=True)  # nothing is in it yet
            raise ClvrBenchError(self._no_room(str(reason))) from None

    def _no_room(self, reason: str) -> str:
        free = shutil.disk_usage(self.folder.parent).free
        return (
            f"--cache: {self.folder.parent} has no room for {in_gigabytes(self.total)} of decoded pictures ({reason}; "
            f"{in_gigabytes(free)} are free). Name another folder with --cache DIR, or decode pictures as they are "
            "needed, with a lower --memory-limit."
        )

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found


def in_gigabytes(count: int) -> str:
    """Write a number of bytes for people, in GB of 10^9 bytes."""
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"


def _key(contents: Contents) -> str:
    digest = hashlib.sha256(f"layout {LAYOUT}, {DECODER}, shorter side {contents.shorter_side}\n".encode())
    for content in contents.digests:
        digest.update(content)
    return digest.hexdigest()[:32]


def _bounds(lengths: NDArray[np.int64]) -> list[int]:
    """Cut pictures of so many bytes into chunks: where each begins, and where the last ends."""
    bounds, size = [0], 0
    most = min(PICTURES_A_CHUNK, max(LEAST_PICTURES, len(lengths) // CHUNKS))
    for number, length in enumerate(lengths.tolist()):
        if number > bounds[-1] and (number - bounds[-1] == most or size + length > BYTES_A_CHUNK):
            bounds.append(number)
            size = 0
        size += length
    return [*bounds, len(lengths)] if len(lengths) else bounds


def _reserve(file: int, size: int) -> None:
    """Give a file its full size, with room on the disk where the file system can promise it."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(file, 0, size)
            return
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    os.truncate(file, size)
