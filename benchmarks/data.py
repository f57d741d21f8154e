"""Pictures a second from JPEG files: Pillow as most loaders use it, this project's decoding, and the ways to an epoch.

Run as ``python benchmarks/data.py [--pictures 1000] [--workers N] [--rounds 5]``. Pictures are 500 x 375 JPEGs, drawn
here (cloudy, with noise: about 60 kB), shrunk to a shorter side of 64 px; or those of ``--root DIR``. They lie in the
system's file cache, so that disks are left out. All ways take turns and the median of their rounds is shown, for the
speed of shared machines drifts. An epoch asks for every picture once, in batches of 256, and does nothing with them.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from clvr_bench import Split
from clvr_bench.decoding import decode
from clvr_bench.storage.access import Access, cores
from clvr_bench.storage.keeping import keep
from clvr_bench.toolbox import PictureFiles

BATCH = 256
CPU = torch.device("cpu")
PLAIN = "Pillow: open, convert, resize"


def draw(folder: Path, count: int) -> None:
    """Write JPEGs of 500 x 375 px: soft clouds of colour with noise over them."""
    for number in range(count):
        random = np.random.default_rng(number)
        clouds = Image.fromarray(random.integers(256, size=(12, 16, 3), dtype=np.uint8)).resize((500, 375), 3)
        noisy = np.asarray(clouds).astype(np.int16) + random.integers(-12, 13, size=(375, 500, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)


def pillow(content: bytes, shorter_side: int) -> object:
    """Decode the whole picture and shrink it, as loaders do that know no better."""
    picture = Image.open(BytesIO(content)).convert("RGB")
    scale = min(1.0, shorter_side / min(picture.size))
    size = round(picture.width * scale), round(picture.height * scale)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


class Ways:
    """The ways from files to pictures.

    Args:
        paths: JPEG files.
        shorter_side: What they are shrunk to.
        workers: Processes, where there are any.
        folder: For caches.
    """

    def __init__(self, paths: list[Path], shorter_side: int, workers: int, folder: Path) -> None:
        self._contents = [path.read_bytes() for path in paths]
        self._files = PictureFiles(paths, torch.zeros(len(paths)).long(), shorter_side)
        self._side, self._workers, self._folder = shorter_side, workers, folder
        self._order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0)).split(BATCH)
        self._cached = self._kept(folder / "kept")
        self._streams = {count: self._kept(folder / "kept", 0, count) for count in {0, workers}}

    def all(self) -> dict[str, Callable[[], None]]:
        """Return every way by its name."""
        many = f"{self._workers} worker{'' if self._workers == 1 else 's'}"
        return {
            PLAIN: lambda: self._decode(pillow),
            "clvr-bench: decode": lambda: self._decode(decode),
            "epoch, plain split, one process": lambda: self._epoch(self._files),
            "epoch, streamed, no workers": lambda: self._epoch(self._streams[0]),
            f"epoch, streamed, {many}": lambda: self._epoch(self._streams[self._workers]),
            f"first epoch: catalogue, cache, epoch, {many}": self._first,
            "first epoch of a later run": lambda: self._epoch(self._kept(self._folder / "kept")),
            "epoch, cached": lambda: self._epoch(self._cached),
        }

    def _decode(self, function: Callable[[bytes, int], object]) -> None:
        for content in self._contents:
            function(content, self._side)

    def _epoch(self, split: Split) -> None:
        split.expect(self._order)
        for index in self._order:
            split.images(index)

    def _first(self) -> None:
        shutil.rmtree(self._folder / "fresh", ignore_errors=True)
        self._epoch(self._kept(self._folder / "fresh"))

    def _kept(self, cache: Path, limit: int | None = None, workers: int | None = None) -> Split:
        count = self._workers if workers is None else workers
        access = Access(cache=cache, memory_limit=limit, workers=count)
        return keep("benchmark", {"train": self._files}, access, CPU).splits["train"]


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every way in every round; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def table(seconds: dict[str, list[float]], pictures: int) -> str:
    """Write the medians, and the medians of the ratios to Pillow in the same round, as Markdown."""
    lines = ["| way | pictures/s | times Pillow |", "|---|---|---|"]
    for name, found in seconds.items():
        ratios = [plain / own for plain, own in zip(seconds[PLAIN], found, strict=True)]
        lines.append(f"| {name} | {pictures / median(found):,.0f} | {median(ratios):.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--shorter-side", type=int, default=64)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--root", type=Path, help="JPEGs at any depth, instead of drawn ones")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.root is None:
            draw(folder, arguments.pictures)
        paths = sorted((arguments.root or folder).rglob("*.jp*g"))[: arguments.pictures]
        ways = Ways(paths, arguments.shorter_side, arguments.workers, folder).all()
        measure(ways, 1)  # warms up
        size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        console = Console(soft_wrap=True)
        console.print(
            f"{len(paths)} JPEGs of {size:.0f} kB on average, shorter side {arguments.shorter_side} px, "
            f"median of {arguments.rounds} rounds, {cores()} cores.\n"
        )
        console.print(table(measure(ways, arguments.rounds), len(paths)), markup=False, highlight=False)


if __name__ == "__main__":
    main()
