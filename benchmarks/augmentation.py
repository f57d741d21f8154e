"""Views a second of SimCLR's augmentation, side by side with lightly, torchvision v2 and kornia in one run.

Run as ``python benchmarks/augmentation.py [--cores 1 2] [--device cpu] [--write docs/performance.md]``. All make two
float32 views in [0, 1] of decoded pictures in memory, with the same operations and probabilities. Batched contenders
use as many threads as there are cores; those that work picture by picture have a process a core, each for itself, which
leaves out what a data loader costs. The contenders take turns and the median of their runs is shown, for the speed of
shared machines drifts. With ``--device cuda`` the batched ones run there, the others on all cores named.
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from torch import Tensor
from torchvision.transforms import v2

from clvr_bench import DataFacts, Images, SampleRandom
from clvr_bench.devices import choose_device, describe, keep_freed_memory
from clvr_bench.ops.blur import tenth_of
from clvr_bench.ops.compiling import compiled_operations
from clvr_bench.views import make_views
from clvr_plugins.augmentations.simclr import SimCLRAugmentation

VIEWS = 2
SIDES = (32, 96, 224)  # pixels
NUMBERS = 3 << 20  # in the pictures of a batch: 1024 at 32 px, 113 at 96 px, 20 at 224 px
OURS, COMPILED, LIGHTLY, TORCHVISION, KORNIA = (
    "clvr-bench",
    "clvr-bench, compiled",
    "lightly",
    "torchvision v2",
    "kornia",
)


@dataclass(frozen=True)
class Contender:
    """One way to make views.

    Attributes:
        pictures: Of how many pictures a call makes views.
        call: Makes them.
    """

    pictures: int
    call: Callable[[], object]


def stored(side: int, count: int) -> Tensor:
    """Return pictures (count, 3, side, side) uint8."""
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def strength_and_blur(side: int) -> tuple[float, float]:
    """Return SimCLR's color strength and its probability of a blur for pictures of a size."""
    return (0.5, 0.0) if side <= 64 else (1.0, 0.5)


def ours(side: int, device: torch.device) -> Contender:
    """Batched, as in a run."""
    count = NUMBERS // (3 * side * side)
    augmentation = SimCLRAugmentation(DataFacts("image", count, side))
    images = Images.whole(stored(side, count).to(device))
    random = SampleRandom.keyed(0, 0, torch.arange(count, device=device))
    return Contender(count, lambda: make_views(augmentation, images, VIEWS, random))


def kornia(side: int, device: torch.device) -> Contender:
    """Batched, on pictures that are float already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of torch
        from kornia import augmentation as k
    strength, blurred = strength_and_blur(side)
    tone, taps = 0.8 * strength, tenth_of(side)
    operations = [
        k.RandomResizedCrop((side, side), scale=(0.08, 1.0)),
        k.RandomHorizontalFlip(p=0.5),
        k.ColorJitter(tone, tone, tone, 0.2 * strength, p=0.8),
        k.RandomGrayscale(p=0.2),
        *([k.RandomGaussianBlur((taps, taps), (0.1, 2.0), p=blurred)] if blurred else []),
    ]
    augmentation = k.AugmentationSequential(*operations)
    count = NUMBERS // (3 * side * side)
    pixels = stored(side, count).to(device) / 255
    return Contender(count, lambda: [augmentation(pixels) for _ in range(VIEWS)])


def torchvision_pipeline(side: int) -> Callable[[Tensor], object]:
    """Return a function of one picture (3, side, side) uint8."""
    strength, blurred = strength_and_blur(side)
    tone = 0.8 * strength
    one = v2.Compose(
        [
            v2.RandomResizedCrop(side, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(tone, tone, tone, 0.2 * strength)], 0.8),
            v2.RandomGrayscale(0.2),
            *([v2.RandomApply([v2.GaussianBlur(tenth_of(side), (0.1, 2.0))], blurred)] if blurred else []),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return lambda picture: [one(picture) for _ in range(VIEWS)]


def lightly_pipeline(side: int) -> Callable[[Tensor], object]:
    """Return a function of one PIL image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of others
        from lightly.transforms import SimCLRTransform
    strength, blurred = strength_and_blur(side)
    transform: Callable[[Tensor], object] = SimCLRTransform(
        input_size=side, cj_strength=strength, gaussian_blur=blurred, normalize=None
    )
    return transform


_pipeline: Callable[..., object]
_pictures: list[object]


def prepare_worker(name: str, side: int) -> None:
    """Set up a process that works picture by picture."""
    global _pipeline, _pictures
    torch.set_num_threads(1)
    pixels = list(stored(side, single_count(side)))
    _pipeline = {LIGHTLY: lightly_pipeline, TORCHVISION: torchvision_pipeline}[name](side)
    _pictures = [v2.functional.to_pil_image(p) for p in pixels] if name == LIGHTLY else list(pixels)


def work(_: int) -> None:
    """Make the views of all pictures of this process."""
    for picture in _pictures:
        _pipeline(picture)


def single_count(side: int) -> int:
    """Return how many pictures a process works on a call, for about a third of a second."""
    return {32: 200, 96: 80, 224: 30}[side]


@contextmanager
def singly(name: str, side: int, cores: int) -> Iterator[Contender]:
    """A process a core, picture by picture."""
    with get_context("spawn").Pool(cores, prepare_worker, (name, side)) as pool:
        yield Contender(cores * single_count(side), lambda: pool.map(work, range(cores), chunksize=1))


def views_a_second(contender: Contender, device: torch.device, seconds: float = 0.5) -> float:
    """Make views for about half a second."""
    calls, start = 0, time.perf_counter()
    while not calls or time.perf_counter() - start < seconds:
        contender.call()
        calls += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return VIEWS * calls * contender.pictures / (time.perf_counter() - start)


def measure(side: int, cores: int, device: torch.device, rounds: int) -> dict[str, float]:
    """Return the median views a second of every contender, by name; they take turns, after a round to warm up."""
    torch.set_num_threads(cores)
    speeds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        contenders = {OURS: ours(side, device), COMPILED: ours(side, device), KORNIA: kornia(side, device)}
        contenders |= {name: stack.enter_context(singly(name, side, cores)) for name in (LIGHTLY, TORCHVISION)}
        for number in range(rounds + 1):
            for name, contender in contenders.items():
                with ExitStack() as each:
                    if name == COMPILED:
                        each.enter_context(compiled_operations())
                        contender.call()  # what it compiles, and that it can, is not part of its time
                    speed = views_a_second(contender, device)
                if number:
                    speeds.setdefault(name, []).append(speed)
    return {name: median(values) for name, values in speeds.items()}


def table(device: torch.device, all_cores: list[int], rounds: int) -> str:
    """Measure everything and return it as a Markdown table with a caption."""
    names = (OURS, COMPILED, LIGHTLY, TORCHVISION, KORNIA)
    lines = [f"| px | cores | {' | '.join(names)} |", f"| --: | --: |{' --: |' * len(names)}"]
    for side in SIDES:
        for cores in all_cores:
            speeds = measure(side, cores, device, rounds)
            cells = [f"{speeds[name]:,.0f} ({speeds[name] / speeds[LIGHTLY]:.1f}x)" for name in names]
            lines.append(f"| {side} | {cores} | {' | '.join(cells)} |")
            Console().print(lines[-1], markup=False, highlight=False)
    where = f"{describe(device)}, torch {torch.__version__.split('+')[0]}"
    caption = f"*Views a second, and how many times lightly's. {where}; medians of {rounds} runs that took turns.*"
    return "\n".join([*lines, "", caption, ""])


def main() -> None:
    """Measure, print, and write the table into a document where asked."""
    parser = argparse.ArgumentParser(description="Views a second of SimCLR's augmentation, beside its peers.")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help="A document with a block <!-- augmentation: DEVICE -->.")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    block = re.compile(rf"(<!-- augmentation: {device.type} -->\n).*?(<!-- end -->)", flags=re.DOTALL)
    if arguments.write and not block.search(arguments.write.read_text()):
        parser.error(f"{arguments.write} has no block <!-- augmentation: {device.type} --> ... <!-- end -->")
    keep_freed_memory()
    made = table(device, arguments.cores, arguments.rounds)
    Console().print(made, markup=False, highlight=False, soft_wrap=True)
    if arguments.write:
        arguments.write.write_text(block.sub(lambda match: f"{match[1]}{made}{match[2]}", arguments.write.read_text()))


if __name__ == "__main__":
    main()
