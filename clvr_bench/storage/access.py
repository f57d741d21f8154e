"""How data reaches a run: where its files and its cache lie, how much memory it may take. Never part of an identity."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from clvr_bench.errors import CannotWrite, ClvrBenchError
from clvr_bench.files import try_writing

MOST_WORKERS = 32  # by default; more processes than this wait for the disk, and for the one that trains
_ASSUMED_MEMORY = 8 << 30  # where the system does not say
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def _silent(message: str) -> None:
    """Tell nobody."""


def _unwatched(done: int, total: int, what: str) -> None:
    """Show nobody."""


@dataclass(frozen=True)
class Access:
    """How the data of a run are reached; equal scores come of any.

    Attributes:
        root: ``--data-root``: where data sets find their files; None where none was named.
        download: ``--download``: whether data sets may fetch their files into ``root``.
        memory_limit: Bytes of decoded pictures that a data set may take; above it they are decoded as they are needed.
            None for half of the memory that there is: of the GPU, or of the machine.
        cache: The folder of decoded pictures; None for the default.
        workers: Processes that read and decode; 0 reads in this one, None takes one a core.
        report: Gets messages of one line that a user should read.
        progress: Gets how much is done, of how much, and what it is.

    Raises:
        ClvrBenchError: The limit or the number of workers is negative.
    """

    root: Path | None = None
    download: bool = False
    memory_limit: int | None = None
    cache: Path | None = None
    workers: int | None = None
    report: Callable[[str], None] = _silent
    progress: Callable[[int, int, str], None] = _unwatched

    def __post_init__(self) -> None:
        for flag, value in (("--memory-limit", self.memory_limit), ("--workers", self.workers)):
            if value is not None and value < 0:
                raise ClvrBenchError(f"{flag} {value}: it cannot be negative.")

    def limit_on(self, device: torch.device) -> int:
        """Return the memory limit in bytes."""
        return memory_of(device) // 2 if self.memory_limit is None else self.memory_limit

    @property
    def worker_count(self) -> int:
        """How many processes decode."""
        return min(cores(), MOST_WORKERS) if self.workers is None else self.workers

    def cache_folder(self) -> Path:
        """Make the cache's folder and return it.

        Raises:
            ClvrBenchError: It cannot be written.
        """
        folder = self.cache or default_cache()
        try:
            try_writing(folder)
        except CannotWrite as error:
            raise ClvrBenchError(
                f"--cache: cannot write to {folder} ({error.reason}), where decoded pictures are kept. "
                "Name another folder with --cache DIR."
            ) from None
        return folder


def default_cache() -> Path:
    """Return ``$CLVR_BENCH_CACHE``, else the user's cache folder."""
    if named := os.environ.get("CLVR_BENCH_CACHE"):
        return Path(named).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "clvr-bench"


def memory_of(device: torch.device) -> int:
    """Return the memory of a GPU in bytes; for other devices that of the machine, or of the container it is in."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if not hasattr(os, "sysconf"):
        return _ASSUMED_MEMORY
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.is_file() else "max"
    return min(machine, int(allowed)) if allowed.isdecimal() else machine


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
