"""Files that cannot be decoded: counted, named, listed in full, and refused where they are too many."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path

from clvr_bench.errors import ClvrBenchError
from clvr_bench.files import write_atomically
from clvr_bench.storage.picture_files import PictureFiles, shown

NAMED = 3  # files that a message names


class LeftOut:
    """The undecodable files of a data set.

    Args:
        name: The data set's.
        splits: Its splits of picture files.
        folder: Where their lists are written.
        option: Which option says how many may be undecodable, such as ``folder.unreadable``; empty where none does.

    Attributes:
        reasons: Why files cannot be decoded, by path.
    """

    def __init__(self, name: str, splits: Mapping[str, PictureFiles], folder: Path, option: str = "") -> None:
        self.reasons: dict[str, str] = {}
        self._name, self._splits, self._folder, self._option = name, splits, folder, option

    def require_few(self) -> None:
        """Refuse the data set where more of a split's files cannot be decoded than it allows.

        Raises:
            ClvrBenchError: So it is; the first are named.
        """
        for name, split in self._splits.items():
            bad = self._of(split)
            if len(bad) > split.unreadable * len(split):
                share = len(bad) / len(split)
                more = f", or allow more: --set {self._option}={math.ceil(100 * share) / 100:g}" if self._option else ""
                raise ClvrBenchError(
                    f"dataset {self._name}: {_counted(name, split, bad)}, where {100 * split.unreadable:g}% may be: "
                    f"{self._named(split, bad)} Mend or remove them{more}"
                )

    def notes(self) -> tuple[str, ...]:
        """Say how many are left out of each split that has any."""
        return tuple(f"{_counted(name, split, bad)} and are left out" for name, split, bad in self._found())

    def lines(self) -> list[str]:
        """Say the same to a user, with the names of the first and where all are listed."""
        return [
            f"dataset {self._name}: {_counted(name, split, bad)} and are left out: {self._named(split, bad)}"
            for name, split, bad in self._found()
        ]

    def _found(self) -> list[tuple[str, PictureFiles, list[str]]]:
        found = [(name, split, self._of(split)) for name, split in self._splits.items()]
        return [(name, split, bad) for name, split, bad in found if bad]

    def _of(self, split: PictureFiles) -> list[str]:
        return [path for path in split.paths if path in self.reasons]

    def _named(self, split: PictureFiles, bad: list[str]) -> str:
        first = [f"{shown(path, split.root)} ({self.reasons[path]})" for path in bad[:NAMED]]
        others = [f"{len(bad) - NAMED:,} more"] if len(bad) > NAMED else []
        return f"{', '.join(first + others)}. All are listed in {self._list()}."

    def _list(self) -> Path:
        """Write all of them into a file named after its content."""
        lines = [f"{name}\t{path}\t{self.reasons[path]}\n" for name, _, bad in self._found() for path in bad]
        content = "".join(lines).encode(errors="surrogateescape")
        safe = re.sub(r"[^A-Za-z0-9_.]+", "-", self._name).strip(".-")
        path = self._folder / f"{safe}-{hashlib.sha256(content).hexdigest()[:12]}.txt"
        write_atomically(path, content)
        return path


def _counted(name: str, split: PictureFiles, bad: list[str]) -> str:
    return f"{len(bad):,} of {len(split):,} {name} pictures cannot be decoded"
