"""From the picture files of a data set to splits that are fast: looked at, checked, cached or streamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from clvr_bench.errors import ClvrBenchError
from clvr_bench.storage.access import Access
from clvr_bench.storage.catalogue import Contents, survey
from clvr_bench.storage.left_out import LeftOut
from clvr_bench.storage.memo import Memo
from clvr_bench.storage.picture_files import PictureFiles
from clvr_bench.storage.pixel_cache import PixelCache, in_gigabytes
from clvr_bench.storage.sources import CachedPixels, StreamedPixels
from clvr_bench.storage.stored import Source, StoredPictures
from clvr_bench.storage.tasks import Examined, check
from clvr_bench.storage.workers import Workers

FILES_A_CHECK = 128  # that a worker decodes at a time; what a kill loses


@dataclass(frozen=True)
class Kept:
    """What became of the picture files of a data set.

    Attributes:
        splits: In their place, by the same names.
        notes: How many files of which split are left out.
    """

    splits: dict[str, StoredPictures]
    notes: tuple[str, ...]


def keep(
    name: str, splits: Mapping[str, PictureFiles], access: Access, device: torch.device, *, option: str = ""
) -> Kept:
    """Make picture files ready for a run: find those that cannot be decoded, and cache or stream the others.

    Args:
        name: The data set's, for messages.
        splits: Its splits of picture files.
        access: Limits, folders, and who is told.
        device: Where pictures will be served.
        option: Which option says how many may be undecodable, such as ``folder.unreadable``; empty where none does.

    Raises:
        ClvrBenchError: More files than their split allows cannot be decoded, splits are shrunk to several sizes, the
            disk is full, or a file changed meanwhile.
    """
    shorter_sides = {split.shorter_side for split in splits.values()}
    if len(shorter_sides) > 1:
        raise ClvrBenchError(f"dataset {name}: its splits are shrunk to several sizes: {sorted(shorter_sides)} pixels.")
    folder = access.cache_folder()
    left_out = LeftOut(name, splits, folder / "unreadable", option)
    with Memo(folder, access.report) as memo:
        keeping = _Keeping(name, folder, memo, Workers(access.worker_count), access, device)
        catalogue = keeping.catalogue(path for split in splits.values() for path in split.paths)
        left_out.reasons |= {path: file.reason for path, file in catalogue.items() if file.reason}
        left_out.require_few()
        contents = Contents(catalogue, shorter_sides.pop())
        source, failed = keeping.source(contents)
    bad = {contents.digests[number]: reason for number, reason in failed.items()}
    left_out.reasons |= {path: bad[file.digest] for path, file in catalogue.items() if file.digest in bad}
    left_out.require_few()
    for line in left_out.lines():
        access.report(line)
    stored = {key: _stored(split, catalogue, left_out, source) for key, split in splits.items()}
    return Kept(stored, left_out.notes())


@dataclass(frozen=True)
class _Keeping:
    """What the steps share."""

    name: str
    folder: Path
    memo: Memo
    workers: Workers
    access: Access
    device: torch.device

    def catalogue(self, paths: Iterable[str]) -> dict[str, Examined]:
        """Look at every file."""
        return survey(paths, self.memo, self.workers, self.access.progress)

    def source(self, contents: Contents) -> tuple[Source, dict[int, str]]:
        """Return where pixels come from, and why some contents cannot be decoded, by number."""
        cache, limit = PixelCache(self.folder / "pictures", contents), self.access.limit_on(self.device)
        if cache.total <= limit:
            failed = cache.ensure(self.workers, self.access.report, self.access.progress)
            self.workers.close()
            return CachedPixels.mapped(contents, cache.pixels(), self.device), failed
        self.access.report(
            f"dataset {self.name}: decoded it takes {in_gigabytes(cache.total)}, more than the limit of "
            f"{in_gigabytes(limit)} (--memory-limit), so pictures are decoded as they are needed"
        )
        known = cache.failures()
        failed = self._checked(contents) if known is None else known
        return StreamedPixels(contents, self.workers, self.device), failed

    def _checked(self, contents: Contents) -> dict[int, str]:
        """Decode every content that never was, once."""
        known = self.memo.verdicts(contents.digests, contents.shorter_side)
        left = [number for number, digest in enumerate(contents.digests) if digest not in known]
        parts = [left[start : start + FILES_A_CHECK] for start in range(0, len(left), FILES_A_CHECK)]
        tasks = [(contents.wanted(part), contents.shorter_side) for part in parts]
        for part, failed in zip(parts, self.workers.map(check, tasks), strict=True):
            found = {contents.digests[number]: failed.get(position, "") for position, number in enumerate(part)}
            self.memo.remember_verdicts(found, contents.shorter_side)
            known |= found
            self.access.progress(len(known), len(contents), "pictures checked")
        return {number: reason for number, digest in enumerate(contents.digests) if (reason := known[digest])}


def _stored(
    split: PictureFiles, catalogue: Mapping[str, Examined], left_out: LeftOut, source: Source
) -> StoredPictures:
    """Return the split of those of its files that can be decoded."""
    kept = [position for position, path in enumerate(split.paths) if path not in left_out.reasons]
    numbers = [source.contents.number_of(catalogue[split.paths[position]]) for position in kept]
    return StoredPictures(source, torch.tensor(numbers, dtype=torch.int64), split.labels[torch.tensor(kept).long()])
