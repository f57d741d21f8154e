"""An embedded data set of ten silhouettes, drawn from a seed in seconds: a benchmark with nothing to download.

A picture is one silhouette, tilted and shifted, on clutter. Silhouette and ground have colors of their own, so no pixel
tells the class; each silhouette has an up that mirroring keeps, so predicting a rotation by quarter turns is defined.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clvr_bench import ClvrBenchError, Dataset, Draws, Register, ResidentSplit, SampleRandom, hookimpl

Array = NDArray[np.float32]

_MIN_IMAGE_SIZE = 16  # below it a silhouette's parts are thinner than a pixel
_HALF_TILT_TANGENT = 0.2679  # tan(30 degrees / 2): tilts stay below half a quarter turn, so quarter turns stay distinct
_RADIUS = (0.38, 0.46)  # of a silhouette, in image sides
_SHIFT = 0.08  # of its center, in image sides
_CONTRAST = 0.32  # least difference in brightness between silhouette and ground before texture and light
_CHROMA = 0.15  # largest deviation of a channel from the brightness
_TEXTURE = 0.18  # largest deviation by texture
_TEXTURE_GRID = 4  # random values a side that a texture is interpolated from
_LIGHT = 0.3  # largest relative change of brightness by the light, at the image's edge
_BLOBS = 2
_BLOB_RADIUS = (0.05, 0.13)  # in image sides
_CHUNK = 256  # pictures drawn at a time, so that intermediate results stay in cache


@hookimpl
def register_datasets(register: Register) -> None:
    """Register the embedded shapes."""
    register("shapes", Shapes, summary="Ten silhouettes on clutter, drawn from a seed.", source="none", version=1)


class Shapes(Dataset):
    """Ten silhouettes with an up, tilted by at most 30 degrees, in random colors, textures and light.

    Classes are balanced: label i mod 10 at position i. Picture i depends on i, its split, ``seed`` and ``image_size``
    alone, so a larger set begins with the smaller one. Any machine draws the same bytes: all arithmetic is elementwise,
    by correctly rounded operations (sums, products, quotients and square roots; no sines, no matrix products).

    Args:
        root: Not used; the pictures are drawn, not read.
        train_size: Training pictures, at least 10.
        test_size: Test pictures, at least 10.
        image_size: Height and width in pixels, at least 16.
        seed: Chooses all that is random.

    Raises:
        ClvrBenchError: A size is too small.
    """

    title = "shapes"
    class_names = ("arrow", "house", "tee", "tree", "crescent", "drop", "heart", "key", "lock", "mushroom")
    coarse_names = ("straight", "curved", "mixed")
    coarse = (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)

    def __init__(
        self,
        root: Path | None,
        *,
        train_size: int = 4000,
        test_size: int = 2000,
        image_size: int = 32,
        seed: int = 0,
    ) -> None:
        classes = len(self.class_names)
        for option, value, least in (
            ("train_size", train_size, classes),
            ("test_size", test_size, classes),
            ("image_size", image_size, _MIN_IMAGE_SIZE),
        ):
            if value < least:
                raise ClvrBenchError(f"shapes: {option} must be at least {least}, got {value}.")
        self.image_size = image_size
        self._train_size, self._test_size, self._seed = train_size, test_size, seed

    @cached_property
    def train(self) -> ResidentSplit:
        """The training pictures."""
        return self._draw("train", self._train_size)

    @cached_property
    def test(self) -> ResidentSplit:
        """The test pictures, independent of the training pictures."""
        return self._draw("test", self._test_size)

    def _draw(self, split: str, size: int) -> ResidentSplit:
        samples = torch.arange(size)
        labels = samples % len(self.class_names)
        pixels = np.empty((size, 3, self.image_size, self.image_size), np.uint8)
        for number, name in enumerate(self.class_names):
            for chunk in torch.split(samples[labels == number], _CHUNK):
                random = SampleRandom.keyed(self._seed, 0, chunk).scoped(split)
                pixels[chunk.numpy()] = draw_pictures(name, random, self.image_size)
        return ResidentSplit(torch.from_numpy(pixels), labels)


def draw_pictures(name: str, random: SampleRandom, size: int) -> NDArray[np.uint8]:
    """Draw one picture a sample of one silhouette.

    Args:
        name: A silhouette's name.
        random: Draws of B samples.
        size: Height and width in pixels.

    Returns:
        (B, 3, size, size) uint8.
    """
    ground, figure = _colors(random)  # (B, 3, 1, 1) each
    ground = ground + _texture(random.scoped("ground"), size)  # (B, 3, size, size)
    figure = figure + _texture(random.scoped("figure"), size)
    picture = _blend(ground, figure, silhouette_coverage(name, random, size)[:, None])
    for number in range(_BLOBS):
        picture = _add_blob(picture, random.scoped(f"blob {number}"))
    picture = picture * _light(random, size)
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def silhouette_coverage(name: str, random: SampleRandom, size: int) -> Array:
    """Return how much of each pixel a tilted and shifted silhouette covers.

    Args:
        name: A silhouette's name.
        random: Draws of B samples.
        size: Height and width in pixels.

    Returns:
        (B, size, size), 0 to 1: edges are antialiased.
    """
    pose = random("pose")
    tangent = _uniform(pose, -_HALF_TILT_TANGENT, _HALF_TILT_TANGENT)  # (B, 1, 1), of half the tilt
    cosine, sine = (1 - tangent**2) / (1 + tangent**2), 2 * tangent / (1 + tangent**2)
    radius = _uniform(pose, *_RADIUS)
    across, down = _uniform(pose, -_SHIFT, _SHIFT), _uniform(pose, -_SHIFT, _SHIFT)
    column, row = _pixel_centers(size)
    right, up = (column - across) / radius, (down - row) / radius  # (B, size, size) after broadcasting
    distance = _SILHOUETTES[name](cosine * right + sine * up, cosine * up - sine * right)
    return (0.5 - distance * radius * size).clip(0, 1)


def _pixel_centers(size: int) -> tuple[Array, Array]:
    """Return columns (1, size) and rows (size, 1) in image sides from the image's center."""
    centers = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return centers[None, :], centers[:, None]


def _uniform(draws: Draws, low: float, high: float, *shape: int) -> Array:
    """Draw (B, *shape, 1, 1) values, uniform in [low, high)."""
    values: Array = draws.uniform(*shape, 1, 1, low=low, high=high).numpy()
    return values


def _blend(below: Array, above: Array, coverage: Array) -> Array:
    return below + (above - below) * coverage


def _colors(random: SampleRandom) -> tuple[Array, Array]:
    """Draw two colors (B, 3, 1, 1) of different brightness; either may be the brighter one."""
    draws = random("colors")
    low, span = 0.1, 0.8
    first = _uniform(draws, 0, span, 1)
    second = (first + _uniform(draws, _CONTRAST, span - _CONTRAST, 1)) % span  # around a circle, so both are uniform
    chroma = _uniform(draws, -_CHROMA, _CHROMA, 2, 3)
    return low + first + chroma[:, 0], low + second + chroma[:, 1]


def _texture(random: SampleRandom, size: int) -> Array:
    """Draw smooth color fields (B, 3, size, size), interpolated from a coarse grid of values."""
    nodes = random("texture").uniform(3, _TEXTURE_GRID, _TEXTURE_GRID, low=-_TEXTURE, high=_TEXTURE).numpy()
    weights = _interpolation(size)
    return _spread(_spread(nodes, weights).swapaxes(2, 3), weights)


def _spread(nodes: Array, weights: Array) -> Array:
    """Interpolate the last axis of values (..., G) with weights (size, G), summed in a fixed order: (..., size)."""
    field: Array = np.zeros((*nodes.shape[:-1], len(weights)), np.float32)
    for number, weight in enumerate(weights.T):
        field += nodes[..., number, None] * weight
    return field


def _interpolation(size: int) -> Array:
    """Return (size, G) weights of a coarse grid's values at the pixels of one side, smooth at the values."""
    place = np.linspace(0, _TEXTURE_GRID - 1, size)[:, None] - np.arange(_TEXTURE_GRID)  # in grid steps
    near = (1 - np.abs(place)).clip(0)
    weights: Array = (near * near * (3 - 2 * near)).astype(np.float32)
    return weights


def _add_blob(picture: Array, random: SampleRandom) -> Array:
    """Put a soft disk of any color anywhere on pictures (B, 3, size, size)."""
    draws = random("blob")
    color = _uniform(draws, 0, 1, 3)
    radius = _uniform(draws, *_BLOB_RADIUS)
    across, down = _uniform(draws, -0.5, 0.5), _uniform(draws, -0.5, 0.5)
    column, row = _pixel_centers(picture.shape[-1])
    distance = np.sqrt((column - across) ** 2 + (row - down) ** 2) / radius  # (B, size, size)
    return _blend(picture, color, (2 - 2 * distance).clip(0, 1)[:, None])


def _light(random: SampleRandom, size: int) -> Array:
    """Draw linear gradients of light (B, 1, size, size) around 1."""
    draws = random("light")
    column, row = _pixel_centers(size)
    slope = 2 * _LIGHT  # the edge is half an image side away
    light: Array = 1 + column * _uniform(draws, -slope, slope, 1) + row * _uniform(draws, -slope, slope, 1)
    return light


# Silhouettes: signed distances, negative inside, at coordinates x to the right and y up, about one unit in radius.


def _disk(x: Array, y: Array, center_x: float, center_y: float, radius: float) -> Array:
    from_x, from_y = x - center_x, y - center_y
    distance: Array = np.sqrt(from_x * from_x + from_y * from_y) - radius
    return distance


def _polygon(x: Array, y: Array, *corners: tuple[float, float]) -> Array:
    """Return the signed distance to a polygon; inside is where an odd number of edges lies to the right."""
    nearest, inside = np.full_like(x, np.inf), np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        edge_x, edge_y, from_x, from_y = bx - ax, by - ay, x - ax, y - ay
        along = ((from_x * edge_x + from_y * edge_y) / (edge_x**2 + edge_y**2)).clip(0, 1)
        nearest = np.minimum(nearest, (from_x - edge_x * along) ** 2 + (from_y - edge_y * along) ** 2)
        if edge_y:
            inside ^= ((ay > y) != (by > y)) & (from_x < from_y * (edge_x / edge_y))
    return np.where(inside, -1, 1).astype(np.float32) * np.sqrt(nearest)


def _mirrored(x: Array, y: Array, *right: tuple[float, float]) -> Array:
    """Return the signed distance to a polygon that is symmetric, given its right half from the top down."""
    left = tuple((-corner_x, corner_y) for corner_x, corner_y in reversed(right) if corner_x)
    return _polygon(x, y, *right, *left)


def _union(*parts: Array) -> Array:
    joined: Array = np.minimum.reduce(parts)
    return joined


def _without(whole: Array, hole: Array) -> Array:
    rest: Array = np.maximum(whole, -hole)
    return rest


def _arrow(x: Array, y: Array) -> Array:
    return _mirrored(x, y, (0, 1), (0.8, 0.05), (0.3, 0.05), (0.3, -0.95))


def _house(x: Array, y: Array) -> Array:
    return _mirrored(x, y, (0, 0.95), (0.9, 0.15), (0.65, 0.15), (0.65, -0.8), (0.2, -0.8), (0.2, -0.2))


def _tee(x: Array, y: Array) -> Array:
    return _mirrored(x, y, (0.85, 0.8), (0.85, 0.3), (0.26, 0.3), (0.26, -0.9))


def _tree(x: Array, y: Array) -> Array:
    return _mirrored(x, y, (0, 1), (0.5, 0.35), (0.3, 0.35), (0.8, -0.5), (0.2, -0.5), (0.2, -0.95))


def _crescent(x: Array, y: Array) -> Array:
    return _without(_disk(x, y, 0, 0, 0.95), _disk(x, y, 0, 0.5, 0.72))


def _drop(x: Array, y: Array) -> Array:
    return _union(_disk(x, y, 0, -0.35, 0.62), _mirrored(x, y, (0, 1), (0.55, -0.065)))


def _heart(x: Array, y: Array) -> Array:
    lobes = _union(_disk(x, y, -0.43, 0.3, 0.47), _disk(x, y, 0.43, 0.3, 0.47))
    return _union(lobes, _mirrored(x, y, (0.43, 0.35), (0.81, 0.03), (0, -0.95)))


def _key(x: Array, y: Array) -> Array:
    bow = _without(_disk(x, y, 0, 0.5, 0.48), _disk(x, y, 0, 0.5, 0.2))
    blade = _polygon(x, y, (-0.14, 0.1), (0.14, 0.1), (0.14, -0.95), (-0.14, -0.95))
    upper_bit = _polygon(x, y, (0.0, -0.3), (0.5, -0.3), (0.5, -0.52), (0.0, -0.52))
    lower_bit = _polygon(x, y, (0.0, -0.7), (0.5, -0.7), (0.5, -0.95), (0.0, -0.95))
    return _union(bow, blade, upper_bit, lower_bit)


def _lock(x: Array, y: Array) -> Array:
    shackle = _without(_disk(x, y, 0, 0.3, 0.62), _disk(x, y, 0, 0.3, 0.34))
    return _union(shackle, _mirrored(x, y, (0.78, 0.2), (0.78, -0.85)))


def _mushroom(x: Array, y: Array) -> Array:
    cap = np.maximum(_disk(x, y, 0, 0.0, 0.95), -y)
    return _union(cap, _mirrored(x, y, (0.28, 0.05), (0.28, -0.85)))


_SILHOUETTES: dict[str, Callable[[Array, Array], Array]] = {
    "arrow": _arrow,
    "house": _house,
    "tee": _tee,
    "tree": _tree,
    "crescent": _crescent,
    "drop": _drop,
    "heart": _heart,
    "key": _key,
    "lock": _lock,
    "mushroom": _mushroom,
}
