"""What an augmentation's views must be: a list of steps, each done by torchvision, a picture at a time."""

from torchvision.transforms.v2 import functional as tv

from clvr_bench.ops.color import Jitter
from clvr_bench.ops.crops import random_boxes

_JITTERS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def views_by_torchvision(images, size, random, steps):
    """Return (picture, C, size, size) for steps such as ``("crop", (0.08, 1.0))`` and ``("gray", 0.2)``, in order."""
    views = images.pixels if images.pixels.is_floating_point() else images.pixels / 255
    for name, *parameters in steps:
        views = _STEPS[name](views, images.sizes, size, random(name), *parameters)
    return views


def _crop(pixels, sizes, size, draws, area):
    boxes = random_boxes(sizes, draws, area).int().tolist()
    return [tv.resized_crop(p, *box, size=[size, size], antialias=True) for p, box in zip(pixels, boxes, strict=True)]


def _chosen(views, draws, probability, operation):
    return [operation(v) if now else v for v, now in zip(views, draws.chance(probability), strict=True)]


def _flip(views, sizes, size, draws, probability):
    return _chosen(views, draws, probability, tv.horizontal_flip)


def _gray(views, sizes, size, draws, probability):
    return _chosen(views, draws, probability, lambda v: tv.rgb_to_grayscale(v, num_output_channels=3))


def _solarize(views, sizes, size, draws, probability):
    return _chosen(views, draws, probability, lambda v: tv.solarize(v, 0.5))


def _jitter(views, sizes, size, draws, strengths, probability):
    drawn = Jitter.draw(draws, strengths, probability)
    changed = []
    for i, view in enumerate(views):
        values = [*drawn.factors[i].tolist(), drawn.shift[i].item()]
        for operation in drawn.order[i].tolist() if drawn.chosen[i] else ():
            view = _JITTERS[operation](view, values[operation])
        changed.append(view)
    return changed


def _blur(views, sizes, size, draws, probability):
    sigma = draws.uniform(low=0.1, high=2.0)
    taps = 2 * (size // 20) + 1
    blurred = [tv.gaussian_blur(v, taps, float(s)) for v, s in zip(views, sigma, strict=True)]
    return [b if now else v for v, b, now in zip(views, blurred, draws.chance(probability), strict=True)]


_STEPS = {"crop": _crop, "flip": _flip, "gray": _gray, "solarize": _solarize, "jitter": _jitter, "blur": _blur}
