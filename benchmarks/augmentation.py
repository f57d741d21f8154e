"""Views a second of the batched SimCLR augmentation, side by side with torchvision's v2 transforms picture by picture.

Run as ``python benchmarks/augmentation.py [--threads 2] [--device cpu]``. Both take uint8 pictures from memory and make
two float32 views of each. The two alternate within one run and the ratio is the median over the rounds, since the speed
of shared machines drifts. torchvision always runs on the CPU, in one process, as inside one loader worker.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torchvision.transforms import v2

from clvr_bench import DataFacts, Images, SampleRandom
from clvr_plugins.augmentations.simclr import SimCLRAugmentation

VIEWS = 2
# side in pixels, pictures a round for the batched augmentation and for torchvision, which needs fewer for the same time
SIZES = ((32, 512, 64), (96, 128, 32), (224, 32, 8))


def torchvision_simclr(size: int, setting: str) -> v2.Compose:
    """Build the same augmentation for one uint8 picture (C, H, W)."""
    strength = {"small": 0.5, "large": 1.0}[setting]
    jitter = v2.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    blur = v2.RandomApply([v2.GaussianBlur(2 * (size // 20) + 1, (0.1, 2.0))], 0.5)
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([jitter], 0.8),
            v2.RandomGrayscale(0.2),
            *([blur] if setting == "large" else []),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def views_a_second(make: Callable[[], object], pictures: int, device: torch.device) -> float:
    """Time one call that makes all views of some pictures."""
    start = time.perf_counter()
    make()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return VIEWS * pictures / (time.perf_counter() - start)


def measure(size: int, batched: int, single: int, device: torch.device, rounds: int) -> tuple[str, float, float, float]:
    """Return the setting, median views a second of ours and of torchvision, and the median of their ratios."""
    pixels = torch.randint(0, 256, (batched, 3, size, size), dtype=torch.uint8)
    images = Images.whole(pixels.to(device))
    random = SampleRandom.keyed(0, 0, torch.arange(batched, device=device))
    ours = SimCLRAugmentation(DataFacts(modality="image", train_size=batched, image_size=size))
    theirs = torchvision_simclr(size, ours.setting)
    speeds = []
    for _ in range(rounds + 1):
        fast = views_a_second(lambda: ours(images, VIEWS, random), batched, device)
        slow = views_a_second(lambda: [theirs(p) for p in pixels[:single] for _ in range(VIEWS)], single, device)
        speeds.append((fast, slow, fast / slow))
    fast, slow, ratio = (median(column) for column in zip(*speeds[1:], strict=True))  # the first round warms up
    return ours.setting, fast, slow, ratio


def main() -> None:
    """Measure every size and print one table."""
    parser = argparse.ArgumentParser(description="Views a second: batched SimCLR against torchvision v2.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Table("side (px)", "setting", "batched (views/s)", "torchvision v2 (views/s)", "ratio")
    table.title = (
        f"SimCLR views: {arguments.device}, {arguments.threads} CPU threads, median of {arguments.rounds} rounds"
    )
    for size, batched, single in SIZES:
        setting, fast, slow, ratio = measure(size, batched, single, torch.device(arguments.device), arguments.rounds)
        table.add_row(str(size), setting, f"{fast:,.0f}", f"{slow:,.0f}", f"{ratio:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
