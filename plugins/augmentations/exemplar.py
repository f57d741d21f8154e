"""Exemplar-CNN's augmentation: shift, scale and turn; contrast along principal colors and in HSV; hue."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import ClvrBenchError, DataFacts, Draws, Images, PerView, Register, SampleRandom, hookimpl
from clvr_bench.ops.color import adjust_hue
from clvr_bench.ops.crops import center_view
from clvr_bench.ops.pixels import per_sample

FACTOR, ADDED, HUE = (0.7, 1.4), 0.1, 0.1  # of saturation and value; furthest shift of them; of the hue, in turns
MEAN = 0.5  # of all pixels, in each channel
COMPONENTS = ((3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))
"""What is taken for the principal components of colors: gray, red to blue, magenta to green."""


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register Exemplar-CNN's augmentation."""
    register(
        "exemplar",
        ExemplarAugmentation,
        summary="Shift, scale, turn; contrast of principal colors, of saturation and of value; hue.",
        source="Dosovitskiy et al. 2014, https://arxiv.org/abs/1406.6909",
        version=1,
    )


class ExemplarAugmentation(PerView):
    """The elementary transformations of Dosovitskiy et al. 2014, each picture its own of each, in turn.

    Where pictures are shifted, scaled or turned, pixels are interpolated, and what enters mirrors what is at the edge:
    beyond a whole picture there is nothing, as there is beyond the paper's patches.
    Differs from the paper: colors have the same principal components and the same mean for any data, see
    ``COMPONENTS``, not those of all its pixels; grays stay gray where saturation grows.
    Left open by the paper: distributions, here uniform, in their logarithm where they multiply or are an exponent;
    whether saturation and value share power, factor and summand, as here; what happens beyond [0, 1], here clamped.

    Args:
        data: Facts of the data; views have its ``image_size``.
        shift: The furthest shift along either side, as a part of it, in [0, 1) (the paper: 0.2).
        scale: The least and the greatest magnification, positive.
        degrees: The greatest turn, in [0, 180].
        contrast: The least and the greatest factor of each principal color, positive.
        power: The least and the greatest exponent of saturation and value, positive.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    def __init__(
        self,
        data: DataFacts,
        *,
        shift: float = 0.2,
        scale: tuple[float, float] = (0.7, 1.4),
        degrees: float = 20.0,
        contrast: tuple[float, float] = (0.5, 2.0),
        power: tuple[float, float] = (0.25, 4.0),
    ) -> None:
        if not (0 <= shift < 1 and 0 <= degrees <= 180):
            raise ClvrBenchError(
                "augmentation exemplar: shift must be in [0, 1) and degrees in [0, 180], got "
                f"{shift} and {degrees}. The paper's are 0.2 and 20."
            )
        for name, (low, high) in {"scale": scale, "contrast": contrast, "power": power}.items():
            if not 0 < low <= high:
                raise ClvrBenchError(
                    f"augmentation exemplar: {name} must be (low, high) with 0 < low <= high, got {(low, high)}. "
                    "The paper's are (0.7, 1.4), (0.5, 2) and (0.25, 4)."
                )
        self.size, self.shift, self.degrees = data.image_size, shift, degrees
        self.scale, self.contrast, self.power = scale, contrast, power

    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Return one view (B, C, size, size)."""
        place, tone = random("place"), random("tone")
        shift = place.uniform(2, low=-self.shift, high=self.shift)
        turn = place.uniform(low=-self.degrees, high=self.degrees)
        pixels = moved(center_view(images, self.size), shift, factors(place, self.scale), turn)
        pixels = stretch_components(pixels, factors(tone, self.contrast, len(COMPONENTS)))
        added = tone.uniform(low=-ADDED, high=ADDED)
        pixels = change_saturation_and_value(pixels, factors(tone, self.power), factors(tone, FACTOR), added)
        return adjust_hue(pixels, tone.uniform(low=-HUE, high=HUE))


def factors(draws: Draws, bounds: tuple[float, float], *shape: int) -> Tensor:
    """Draw (B, *shape) factors between bounds, uniform in their logarithm."""
    return draws.uniform(*shape, low=math.log(bounds[0]), high=math.log(bounds[1])).exp()


def moved(pixels: Tensor, shift: Tensor, scale: Tensor, degrees: Tensor) -> Tensor:
    """Scale and turn squares about their middle, then shift them, bilinearly; what enters mirrors what is at the edge.

    Args:
        pixels: (B, ..., C, H, H) float32.
        shift: (B, 2), right and down, as parts of the side.
        scale: (B,), positive; above 1 enlarges.
        degrees: (B,), counter-clockwise.

    Returns:
        Pictures of the same shape.
    """
    cosine, sine = degrees.deg2rad().cos() / scale, degrees.deg2rad().sin() / scale
    turn = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)  # of the result's places to the picture's
    start = -2 * (turn * shift[:, None]).sum(dim=2, keepdim=True)  # a side is 2 long
    flat = pixels.reshape(len(pixels), -1, *pixels.shape[-2:])
    grid = F.affine_grid(torch.cat([turn, start], dim=2), list(flat.shape), align_corners=False)
    sampled = F.grid_sample(flat, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return sampled.view(pixels.shape)


def stretch_components(pixels: Tensor, factors: Tensor) -> Tensor:
    """Multiply what pictures have of each principal color.

    Args:
        pixels: (B, ..., C, H, W) float32 in [0, 1], C of 1 or 3; of 1, the first factor stretches its values.
        factors: (B, 3), not negative; 1 changes nothing.

    Returns:
        Pictures of the same shape, clamped to [0, 1].
    """
    if pixels.shape[-3] == 1:
        return torch.lerp(torch.full_like(pixels, MEAN), pixels, per_sample(factors[:, 0], pixels)).clamp_(0, 1)
    centered = pixels - MEAN
    stretched = pixels
    for component, factor in zip(pixels.new_tensor(COMPONENTS), factors.unbind(1), strict=True):
        direction = component.view(3, 1, 1)
        projection = (centered * direction).sum(dim=-3, keepdim=True)
        stretched = stretched + per_sample(factor - 1, pixels) * projection * direction
    return stretched.clamp(0, 1)


def change_saturation_and_value(pixels: Tensor, power: Tensor, factor: Tensor, added: Tensor) -> Tensor:
    """Raise saturation and value, of HSV, to a power, multiply them, and add to them; the hue stays.

    Args:
        pixels: (B, ..., C, H, W) float32 in [0, 1].
        power: (B,), positive.
        factor: (B,).
        added: (B,).

    Returns:
        Pictures of the same shape, in [0, 1]: saturation and value are clamped to it.
    """
    power, factor, added = (per_sample(parameter, pixels) for parameter in (power, factor, added))
    tiny = torch.finfo(pixels.dtype).tiny
    value = pixels.amax(dim=-3, keepdim=True)
    chroma = value - pixels.amin(dim=-3, keepdim=True)
    saturation = ((chroma / value.clamp(min=tiny)) ** power * factor + added).clamp(0, 1)
    changed = (value**power * factor + added).clamp(0, 1)
    return changed * (1 - saturation * (value - pixels) / chroma.clamp(min=tiny))
