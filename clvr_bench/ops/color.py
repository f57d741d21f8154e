"""Batched color changes with per-sample parameters; each gives torchvision's pixels for the same parameters.

Pictures are (B, ..., C, H, W), uint8 or float32 in [0, 1], with 1 or 3 channels; clips have frames between B and C.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clvr_bench.draws import Draws
from clvr_bench.errors import ClvrBenchError
from clvr_bench.ops.chunks import cache_sized
from clvr_bench.ops.compiling import compilable, compiling
from clvr_bench.ops.pixels import change_chosen, per_sample, unit_range

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

_LARGE = 128 * 128  # pixels: from here on, a CPU jitters one picture after another faster than many at once


def adjust_brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Scale the values of each sample.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        factor: (B,) non-negative; 0 is black, 1 changes nothing.

    Returns:
        float32 pictures of the same shape, clamped to [0, 1].
    """
    pixels = unit_range(pixels)
    return (pixels * per_sample(factor, pixels)).clamp_(0, 1)


def adjust_contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move the values of each picture from its mean gray (0), or away from it (above 1); 1 changes nothing.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        factor: (B,) non-negative.

    Returns:
        float32 pictures of the same shape, clamped to [0, 1].
    """
    pixels = unit_range(pixels)
    mean = luminance(pixels).mean((-3, -2, -1), keepdim=True)
    return torch.lerp(mean, pixels, per_sample(factor, pixels)).clamp_(0, 1)


def adjust_saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move each pixel from its own gray (0), or away from it (above 1); 1 changes nothing.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1]; gray ones stay as they are.
        factor: (B,) non-negative.

    Returns:
        float32 pictures of the same shape, clamped to [0, 1].
    """
    pixels = unit_range(pixels)
    return torch.lerp(luminance(pixels), pixels, per_sample(factor, pixels)).clamp_(0, 1)


def adjust_hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue of each sample in HSV space.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1]; gray ones stay as they are.
        shift: (B,) in turns, in [-0.5, 0.5].

    Returns:
        float32 pictures of the same shape, in [0, 1].

    Source:
        Smith 1978, https://doi.org/10.1145/800248.807361.
    """
    pixels = unit_range(pixels)
    if pixels.shape[-3] == 1:
        return pixels
    hue, high, chroma = _hexcone(pixels)
    hue += per_sample(shift, hue)
    chroma *= 6
    rotated = torch.empty_like(pixels)
    for channel, peak in enumerate((5 / 6, 3 / 6, 1 / 6)):
        # a channel is below the value by the chroma times a trapezoid of the hue; the added turn keeps frac positive
        drop = (hue + (peak + 1)).frac_().sub_(1 / 3).abs_().sub_(1 / 3).clamp_(-1 / 6, 0)
        torch.addcmul(high, drop, chroma, out=rotated.select(-3, channel))
    return rotated.clamp_(0, 1)


_ADJUST = {
    BRIGHTNESS: adjust_brightness,
    CONTRAST: adjust_contrast,
    SATURATION: adjust_saturation,
    HUE: adjust_hue,
}


def grayscale(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Take the color out of some samples; they keep their number of channels.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        chosen: (B,) bool, which samples turn gray.

    Returns:
        float32 pictures of the same shape, in [0, 1].
    """
    return change_chosen(lambda colored: luminance(colored).expand_as(colored), chosen, unit_range(pixels))


def luminance(pixels: Tensor) -> Tensor:
    """Weigh red, green and blue into one gray channel.

    Args:
        pixels: (B, ..., C, H, W) float32, C of 1 or 3.

    Returns:
        (B, ..., 1, H, W) float32; the pictures themselves where they have one channel.

    Raises:
        ClvrBenchError: The pictures have another number of channels.

    Source:
        ITU-R Recommendation BT.601-7, section 2.5.1, with the digits that torchvision keeps.
    """
    channels = pixels.shape[-3]
    if channels == 1:
        return pixels
    if channels != 3:
        raise ClvrBenchError(
            f"color operations: pictures must have 1 or 3 channels, got {channels}. "
            "Use an augmentation without color changes, such as 'crop_flip'."
        )
    red, green, blue = pixels.unbind(-3)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(-3)


@dataclass(frozen=True)
class Jitter:
    """What a color jitter does to each sample.

    Attributes:
        factors: (B, 3) float32, of brightness, contrast and saturation.
        shift: (B,) float32, of the hue, in turns.
        order: (B, 4) int64, which operation comes first, second, third, last: a permutation of ``BRIGHTNESS``,
            ``CONTRAST``, ``SATURATION`` and ``HUE``.
        chosen: (B,) bool, which samples are changed at all.
    """

    factors: Tensor
    shift: Tensor
    order: Tensor
    chosen: Tensor

    @classmethod
    def draw(cls, draws: Draws, strengths: tuple[float, float, float, float], probability: float = 1.0) -> Jitter:
        """Draw as torchvision's ``ColorJitter`` does: uniform factors and a uniform order, for each sample its own.

        Args:
            draws: The stream of the B samples.
            strengths: Of brightness, contrast and saturation, b, whose factors are in [max(0, 1 - b), 1 + b]; and of
                hue, h, whose shifts are in [-h, h] turns, h at most 0.5.
            probability: Share of the samples that are changed.
        """
        *blends, hue = strengths
        factors = torch.stack([draws.uniform(low=max(0.0, 1 - b), high=1 + b) for b in blends], 1)  # (B, 3)
        return cls(factors, draws.uniform(low=-hue, high=hue), draws.permutation(4), draws.chance(probability))


def color_jitter(pixels: Tensor, jitter: Jitter) -> Tensor:
    """Change brightness, contrast, saturation and hue in each sample's own order, clamping after each.

    Args:
        pixels: (B, ..., C, H, W), uint8 or float32 in [0, 1].
        jitter: The parameters of the B samples.

    Returns:
        float32 pictures of the same shape, in [0, 1]; samples that were not chosen are bit-identical.
    """
    jittered = torch.empty(pixels.shape, device=pixels.device)
    for part in cache_sized(pixels):
        parameters = (values[part] for values in (jitter.factors, jitter.shift, jitter.order))
        jittered[part] = _jitter(jitter.chosen[part], unit_range(pixels[part]), *parameters)
    return jittered


def _jitter(chosen: Tensor, pixels: Tensor, factors: Tensor, shift: Tensor, order: Tensor) -> Tensor:
    """Jitter the chosen ones of a part, in the way that suits device and size."""
    if compiling() or pixels.device.type != "cpu":
        return _jitter_masked(chosen, pixels, factors, shift, order)
    large = pixels.shape[-2] * pixels.shape[-1] >= _LARGE
    return change_chosen(_jitter_singly if large else _jitter_sorted, chosen, pixels, factors, shift, order)


def _jitter_singly(pixels: Tensor, factors: Tensor, shift: Tensor, order: Tensor) -> Tensor:
    """Jitter one picture after the other."""
    values = torch.cat([factors, shift[:, None]], 1)  # (B, 4)
    jittered = torch.empty_like(pixels)
    for number, operations in enumerate(order.tolist()):
        one = slice(number, number + 1)
        changed = pixels[one]
        for operation in operations:
            changed = _ADJUST[operation](changed, values[one, operation])
        jittered[one] = changed
    return jittered


# In the other two ways, all rotate their hue at once, since that is costly, with their earlier operations before it and
# their later ones after it. These are alike enough for one pass to serve any mixture of them.


def _jitter_sorted(pixels: Tensor, factors: Tensor, shift: Tensor, order: Tensor) -> Tensor:
    """Jitter those whose hue comes last first, so that the pictures that an operation works on are a slice."""
    hue_slot = (order == HUE).int().argmax(1)
    place = hue_slot.argsort(descending=True)
    ends = [int((hue_slot >= slot).sum()) for slot in range(4)]  # pictures with their hue at this slot or later
    changed, order, factor = pixels[place], order[place], _by_slot(factors, order)[place]
    for slot in range(3):
        part = slice(0, ends[slot + 1])
        changed[part] = _blend(changed[part], order[part, slot], factor[part, slot])
    changed = adjust_hue(changed, shift[place])
    for slot in range(1, 4):
        part = slice(ends[slot], None)
        changed[part] = _blend(changed[part], order[part, slot], factor[part, slot])
    return torch.empty_like(pixels).index_copy_(0, place, changed)


@compilable
def _jitter_masked(chosen: Tensor, pixels: Tensor, factors: Tensor, shift: Tensor, order: Tensor) -> Tensor:
    """Jitter with factors of 1 where there is nothing to do: to sort or pick would make an accelerator wait."""
    hue_slot = (order == HUE).int().argmax(1)
    factor = _by_slot(factors, order)
    jittered = pixels
    for slot in range(3):
        jittered = _blend(jittered, order[:, slot], torch.where(hue_slot > slot, factor[:, slot], 1.0))
    jittered = adjust_hue(jittered, shift)
    for slot in range(1, 4):
        jittered = _blend(jittered, order[:, slot], torch.where(hue_slot < slot, factor[:, slot], 1.0))
    return torch.where(per_sample(chosen, pixels), jittered, pixels)


def _by_slot(factors: Tensor, order: Tensor) -> Tensor:
    """Return the factor of each slot's operation (B, 4); hue has none, and any number in its place."""
    return factors.gather(1, order.clamp(max=SATURATION))


def _blend(pixels: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """Apply to each picture its operation (B,): brightness, contrast or saturation.

    All three blend the picture with something darker, flatter or grayer.
    """
    gray = luminance(pixels)
    mean = gray.mean((-3, -2, -1), keepdim=True)
    target = gray * per_sample((operation == SATURATION).float(), gray)
    target += mean * per_sample((operation == CONTRAST).float(), gray)
    return torch.lerp(target, pixels, per_sample(factor, pixels)).clamp_(0, 1)


def _hexcone(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue in turns, in [-1/6, 5/6], value and chroma, each (B, ..., H, W).

    Masks are 0 and 1 in float32: comparisons and ``torch.where`` are many times slower on a CPU.
    """
    red, green, blue = pixels.unbind(-3)
    high = torch.maximum(torch.maximum(red, green), blue)
    chroma = high - torch.minimum(torch.minimum(red, green), blue)
    not_red, not_green = (high - red).sign_(), (high - green).sign_()
    green_or_blue = torch.lerp((blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4), not_green)
    hue = torch.lerp(green - blue, green_or_blue, not_red)
    return hue.div_(chroma.clamp(min=1e-12).mul_(6)), high, chroma  # grays have chroma 0, and no hue
