"""What was found out about files, kept between runs: one small database in the cache's folder."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import PIL

from clvr_bench.decoding import DECODE_VERSION
from clvr_bench.errors import ClvrBenchError
from clvr_bench.files import set_aside
from clvr_bench.storage.tasks import Examined, Stamp

FILE = "catalogue.sqlite"
DECODER = f"decoding {DECODE_VERSION}, Pillow {PIL.__version__}"
"""What found it out: another version may find something else."""

_WAIT_SECONDS = 60.0  # for another process that is writing
_AT_ONCE = 500  # values in a question; SQLite's least limit is 999
_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB, decoder TEXT, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    digest BLOB, height INTEGER, width INTEGER, reason TEXT, PRIMARY KEY (path, decoder)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
    digest BLOB, settings TEXT, reason TEXT, PRIMARY KEY (digest, settings)
) WITHOUT ROWID;
"""
_KNOWN = """
SELECT path, size, mtime_ns, ctime_ns, digest, height, width, reason FROM files WHERE decoder = ? AND path
"""


class Memo:
    """The database; use it as a context.

    Args:
        folder: The cache's folder.
        report: Is told when a damaged one was set aside.

    Raises:
        ClvrBenchError: It cannot be written, here and in every method.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._path = folder / FILE
        with self._explaining():
            try:
                self._database = self._opened()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                aside = set_aside(self._path)
                report(f"{self._path} was damaged ({error}). It is set aside as {aside.name}, and files are read anew.")
                self._database = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def known(self, stamps: Mapping[str, Stamp]) -> dict[str, Examined]:
        """Return what is known of those files that are as they were, by path."""
        found: dict[str, Examined] = {}
        for path, size, mtime_ns, ctime_ns, *rest in self._ask(_KNOWN, DECODER, list(map(os.fsencode, stamps))):
            stamp, name = Stamp(size, mtime_ns, ctime_ns), os.fsdecode(path)
            if stamps[name] == stamp:
                found[name] = Examined(stamp, *rest)
        return found

    def remember(self, examined: Iterable[tuple[str, Examined]]) -> None:
        """Keep what was found out about files; those that could not be read have nothing to keep."""
        rows = [
            (os.fsencode(path), DECODER, *file.stamp, file.digest, file.height, file.width, file.reason)
            for path, file in examined
            if file.digest
        ]
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def verdicts(self, digests: Sequence[bytes], shorter_side: int) -> dict[bytes, str]:
        """Return why contents cannot be decoded, empty where they can, for those that were decoded before."""
        question = "SELECT digest, reason FROM verdicts WHERE settings = ? AND digest"
        return dict(self._ask(question, _settings(shorter_side), digests))

    def remember_verdicts(self, verdicts: Mapping[bytes, str], shorter_side: int) -> None:
        """Keep whether contents can be decoded."""
        rows = [(digest, _settings(shorter_side), reason) for digest, reason in verdicts.items()]
        self._write("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", rows)

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=_WAIT_SECONDS)
        try:
            (sound,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound)
            database.executescript(_TABLES)
        except BaseException:
            database.close()
            raise
        return database

    def _ask(self, question: str, first: str, values: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            with self._explaining():
                places = ", ".join("?" * len(part))
                yield from self._database.execute(f"{question} IN ({places})", (first, *part)).fetchall()

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._explaining(), self._database:
            self._database.executemany(statement, rows)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ClvrBenchError(
                f"--cache: {self._path} cannot be used ({error}). Make room, or name another folder with --cache DIR."
            ) from None


def _settings(shorter_side: int) -> str:
    return f"{DECODER}, shorter side {shorter_side}"
