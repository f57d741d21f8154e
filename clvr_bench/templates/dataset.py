"""PluginName: say in one sentence what its pictures show."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from clvr_bench import ClvrBenchError, Dataset, Register, ResidentSplit, SampleRandom, hookimpl

_LEAST = {"train_size": 6, "test_size": 3, "image_size": 8}  # two training pictures a class: val takes one of them


@hookimpl
def register_datasets(register: Register) -> None:
    """Register plugin_name."""
    register(
        "plugin_name",
        PluginName,
        summary="Stripes in three directions, drawn on the spot.",
        source="none",  # Edit: authors, year, link
        version=1,  # raise it with every edit that can change a score
    )


class PluginName(Dataset):
    """Striped pictures in random colors; the class is the direction of the stripes.

    Args:
        root: The folder that ``--data-root`` names, or None; not used, for the pictures are drawn.
        train_size: Training pictures, at least 6.
        test_size: Test pictures, at least 3.
        image_size: Height and width in pixels, at least 8.

    Raises:
        ClvrBenchError: An option is too small.
    """

    title = "plugin_name"  # in tables
    class_names = ("level", "upright", "slanting")  # in the order of the labels

    # Edit: keyword-only, typed arguments are its options: --set plugin_name.train_size=3000
    def __init__(
        self, root: Path | None, *, train_size: int = 1500, test_size: int = 600, image_size: int = 32
    ) -> None:
        given = {"train_size": train_size, "test_size": test_size, "image_size": image_size}
        for option, least in _LEAST.items():
            if given[option] < least:
                rule = f"{option} must be at least {least}"
                raise ClvrBenchError(f"dataset plugin_name: {rule}, got {given[option]}.")
        self.sizes = {"train": train_size, "test": test_size}
        self.image_size = image_size  # that views are made in; pictures may have other sizes

    @cached_property
    def train(self) -> ResidentSplit:
        """The training pictures."""
        return self._read("train")

    @cached_property
    def test(self) -> ResidentSplit:
        """The test pictures."""
        return self._read("test")

    # Edit: return your own pictures here, uint8 (N, C, H, W), and their labels, int64 (N,): for instance those of a
    # file, with numpy.load(root / f"{split}.npz"). Smaller pictures among larger ones: see ResidentSplit's `sizes`.
    def _read(self, split: Literal["train", "test"]) -> ResidentSplit:
        index = torch.arange(self.sizes[split])
        labels = index % len(self.class_names)
        random = SampleRandom.keyed(0, 0, index).scoped(split)  # keyed by sample: the same pictures on every machine
        return ResidentSplit(striped(labels, random, self.image_size), labels)


def striped(labels: Tensor, random: SampleRandom, size: int) -> Tensor:
    """Draw one picture for each label.

    Args:
        labels: (N,) int64: 0 for level stripes, 1 for upright and 2 for slanting ones.
        random: Draws of the N pictures.
        size: S, height and width in pixels.

    Returns:
        (N, 3, S, S) uint8.
    """
    steps = torch.tensor([[1, 0], [0, 1], [1, 1]])[labels]  # (N, 2), down and across
    place = torch.arange(size)
    across = steps[:, :1, None] * place[:, None] + steps[:, 1:, None] * place  # (N, S, S)
    period, shift = 2 + random("period").integers(3, 1, 1), random("shift").integers(8, 1, 1)  # (N, 1, 1)
    odd = ((across + shift) // period % 2).bool()[:, None]  # (N, 1, S, S)
    colors = random("colors").integers(256, 2, 3, 1, 1)  # (N, 2, 3, 1, 1)
    return torch.where(odd, colors[:, 0], colors[:, 1]).to(torch.uint8)
