"""RandAugment as FixMatch uses it: random operations of random strength, each sample its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torchvision.transforms.v2 import functional as tv  # type: ignore[import-untyped]  # it ships no types

from clvr_bench.draws import SampleRandom
from clvr_bench.ops.color import adjust_brightness, adjust_contrast, adjust_saturation
from clvr_bench.ops.geometry import rotate, shear_x, shear_y, translate_x, translate_y
from clvr_bench.ops.pixels import change_chosen, unit_range
from clvr_bench.ops.tones import adjust_sharpness, posterize, solarize


class Operation(NamedTuple):
    """One operation and how strong it may be.

    Attributes:
        change: Maps pictures (B, ..., C, H, W) in [0, 1] and strengths (B,) to pictures.
        low: The least strength, in the operation's own unit.
        high: The greatest.
    """

    change: Callable[[Tensor, Tensor], Tensor]
    low: float = 0.0
    high: float = 0.0


# Sohn et al. 2020, https://arxiv.org/abs/2001.07685, table 12
OPERATIONS = {
    "autocontrast": Operation(lambda pixels, _: tv.autocontrast(pixels)),
    "brightness": Operation(adjust_brightness, 0.05, 0.95),
    "color": Operation(adjust_saturation, 0.05, 0.95),
    "contrast": Operation(adjust_contrast, 0.05, 0.95),
    "equalize": Operation(lambda pixels, _: tv.equalize(pixels)),
    "identity": Operation(lambda pixels, _: pixels),
    "posterize": Operation(lambda pixels, bits: posterize(pixels, bits.floor()), 4, 9),  # 4 to 8 bits, equally likely
    "rotate": Operation(rotate, -30, 30),  # degrees
    "sharpness": Operation(adjust_sharpness, 0.05, 0.95),
    "shear_x": Operation(shear_x, -0.3, 0.3),
    "shear_y": Operation(shear_y, -0.3, 0.3),
    "solarize": Operation(solarize, 0, 1),
    "translate_x": Operation(translate_x, -0.3, 0.3),  # parts of a side
    "translate_y": Operation(translate_y, -0.3, 0.3),
}


def rand_augment(pixels: Tensor, random: SampleRandom, count: int = 2) -> Tensor:
    """Apply a few random operations to each sample, one after the other, each of uniform strength in its range.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1], C of 1 or 3.
        random: Draws of the B samples.
        count: Operations a sample, drawn with repetition.

    Returns:
        float32 pictures of the same shape, in [0, 1].

    Source:
        Cubuk et al. 2020, https://arxiv.org/abs/1909.13719, with random strengths as in Sohn et al. 2020, section 2.3.
    """
    changed = unit_range(pixels.clone())
    for place in range(count):
        draws = random(f"operation{place}")
        drawn, level = draws.integers(len(OPERATIONS)), draws.uniform()  # (B,), (B,)
        for number, operation in enumerate(OPERATIONS.values()):
            strength = operation.low + (operation.high - operation.low) * level
            changed = change_chosen(operation.change, drawn == number, changed, strength)
    return changed
