"""One look at every file: the hash of its content, its size in pixels, or why it is no picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from clvr_bench.decoding import shrunk_size
from clvr_bench.storage.memo import Memo
from clvr_bench.storage.tasks import CHANNELS, Examined, Stamp, Wanted, examine, stamp_of
from clvr_bench.storage.workers import Workers

FILES_AT_ONCE = 256  # that a worker examines; what a kill loses
_STAMPS_AT_ONCE = 1000
_ASKING = 16  # threads that wait for a network's file system

Progress = Callable[[int, int, str], None]


def survey(paths: Iterable[str], memo: Memo, workers: Workers, progress: Progress) -> dict[str, Examined]:
    """Look at files; those that are as they were when they were last looked at are not read.

    Args:
        paths: The files.
        memo: Knows what was found before, and learns what is found now.
        workers: Read the others.
        progress: Is told how many files are read, of how many.

    Returns:
        What is known of each, by path.
    """
    names = {path: os.path.abspath(path) for path in paths}  # noqa: PTH100 - a million of them
    unique = list(dict.fromkeys(names.values()))
    stamps = dict(zip(unique, _stamps(unique), strict=True))
    found = {path: Examined(Stamp(0, 0, 0), reason=stamp) for path, stamp in stamps.items() if isinstance(stamp, str)}
    found |= memo.known({path: stamp for path, stamp in stamps.items() if isinstance(stamp, Stamp)})
    left = [path for path in unique if path not in found]
    tasks = [(left[start : start + FILES_AT_ONCE],) for start in range(0, len(left), FILES_AT_ONCE)]
    for (part,), examined in zip(tasks, workers.map(examine, tasks), strict=True):
        new = dict(zip(part, examined, strict=True))
        memo.remember(new.items())
        found |= new
        progress(len(found), len(unique), "files read")
    return {path: found[absolute] for path, absolute in names.items()}


def _stamps(paths: Sequence[str]) -> list[Stamp | str]:
    parts = [paths[start : start + _STAMPS_AT_ONCE] for start in range(0, len(paths), _STAMPS_AT_ONCE)]
    with ThreadPoolExecutor(_ASKING) as pool:
        return [stamp for part in pool.map(lambda part: list(map(stamp_of, part)), parts) for stamp in part]


class Contents:
    """The distinct contents of the files that are pictures as far as their headers say, numbered as they come.

    Args:
        catalogue: What is known of files, by path, in the order of the numbers.
        shorter_side: What pictures are shrunk to.

    Attributes:
        shorter_side: As given.
        sizes: (P, 2) int64, heights and widths once they are decoded.
        digests: P hashes.
    """

    def __init__(self, catalogue: Mapping[str, Examined], shorter_side: int) -> None:
        self.shorter_side = shorter_side
        firsts: dict[bytes, str] = {}
        for path, file in catalogue.items():
            if not file.reason:
                firsts.setdefault(file.digest, path)
        self.digests, self._paths = list(firsts), list(firsts.values())
        self._numbers = {digest: number for number, digest in enumerate(self.digests)}
        files = [catalogue[path] for path in self._paths]
        shrunk = [shrunk_size((file.height, file.width), shorter_side) for file in files]
        self.sizes: NDArray[np.int64] = np.array(shrunk, np.int64).reshape(-1, 2)
        self._stamps = np.array([file.stamp for file in files], np.int64).reshape(-1, len(Stamp._fields))

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def bytes(self) -> NDArray[np.int64]:
        """How many each takes once it is decoded: (P,) int64."""
        lengths: NDArray[np.int64] = CHANNELS * self.sizes.prod(axis=1)
        return lengths

    def number_of(self, file: Examined) -> int:
        """Return the number of a file's content; -1 where it is no picture."""
        return -1 if file.reason else self._numbers[file.digest]

    def wanted(self, numbers: Iterable[int]) -> list[Wanted]:
        """Return what is to be decoded of some contents."""
        return [
            Wanted(self._paths[number], Stamp(*self._stamps[number].tolist()), self.digests[number], *size)
            for number in numbers
            for size in (self.sizes[number].tolist(),)
        ]
