"""From the bytes of a picture's file to its pixels, the same in every process. Needs no torch.

Whatever a camera, a scanner or the web left in a file becomes 8-bit RGB of bounded size, or one short reason why not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL.TiffImagePlugin import BITSPERSAMPLE, IMAGELENGTH, IMAGEWIDTH

Pixels = NDArray[np.uint8]
Size = tuple[int, int]

DECODE_VERSION = 1
"""Raised whenever other pixels come out of the same file; part of every fingerprint of pictures in files."""

MOST_PIXELS = 89_478_485  # Pillow's own limit, a quarter of a GiB of 24-bit pixels; decoding takes several times that
LONGEST = 8  # times its shorter side is how much of a picture's longer side is kept

_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
    GifImagePlugin.GifImageFile,
)
_FORMATS = [plugin.format for plugin in _PLUGINS]  # no others: some of Pillow's start programs
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_GAP = 2.0  # times its final size is how far a picture is shrunk by averaging blocks, as Pillow's thumbnails are
_REASON_LENGTH = 120  # characters
_ORIENTATION = 0x0112  # of Exif and of TIFF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = 5  # from this orientation on, rows are stored as columns


class Undecodable(Exception):  # noqa: N818 - what is wrong is the file
    """A file is no picture that can be read; the message is a short reason, such as ``it is empty``."""


def decode(content: bytes, shorter_side: int) -> Pixels:
    """Decode a JPEG, PNG, WebP, BMP, TIFF, PPM, or the first frame of a GIF.

    Grey becomes three equal channels, 16 bits become the upper 8, and a picture is turned as its Exif says. Where it is
    transparent, white shows through: its alpha is composited, not dropped. A picture that is more than 8 times as long
    as it is wide is cut to 8 times, around its centre. It is never enlarged.

    Args:
        content: Of the file.
        shorter_side: Pixels that a longer shorter side is shrunk to; 0 never shrinks.

    Returns:
        (H, W, 3) uint8, where (H, W) is ``decoded_size`` of the same arguments.

    Raises:
        Undecodable: It is no picture, is damaged or cut off, or has too many pixels.
    """
    with _opened(content) as picture:
        size = _kept(_upright_size(picture))
        turn = _orientation(picture)
        pixels = _turned(_shrunk(picture, shorter_side), 1 if picture.format == "TIFF" else turn)
        if pixels.shape[:2] != shrunk_size(size, shorter_side):
            raise Undecodable("its header states another size than its pixels have")
        return pixels


def decoded_size(content: bytes, shorter_side: int) -> Size:
    """Return the height and width, in pixels, that ``decode`` will give, from the file's header alone.

    Raises:
        Undecodable: It is no picture, or has too many pixels.
    """
    with _opened(content) as picture:
        return shrunk_size(_kept(_upright_size(picture)), shorter_side)


def shrunk_size(size: Size, shorter_side: int) -> Size:
    """Return the height and width of a picture once its shorter side is at most so long; 0 never shrinks."""
    shorter = min(size)
    if not shorter_side or shorter <= shorter_side:
        return size
    height, width = (round(side * shorter_side / shorter) for side in size)
    return height, width


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Open a picture; whatever Pillow raises or warns of then, or while it is decoded, becomes a reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities that pixels survive
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not content:
                raise Undecodable("it is empty")
            with Image.open(BytesIO(content), formats=_FORMATS) as picture:
                _require_sound(picture)
                yield picture
    except Undecodable:
        raise
    except Exception as error:  # decoders meet hostile bytes, and raise whatever these lead to
        raise Undecodable(_reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is no picture of a known format: {', '.join(_FORMATS)}"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than the {MOST_PIXELS:,} pixels that are decoded"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return " ".join(str(error).split())[:_REASON_LENGTH] or type(error).__name__


def _require_sound(picture: Image.Image) -> None:
    if picture.mode == "F":
        raise Undecodable("its pixels are floating-point numbers, of no known range; store them as 8 or 16 bits")
    if min(picture.size) < 1:
        raise Undecodable("it has no pixels")
    if math.prod(picture.size) > MOST_PIXELS:
        raise Undecodable(f"it has more than the {MOST_PIXELS:,} pixels that are decoded")


def _orientation(picture: Image.Image) -> int:
    """Return how a picture is to be turned, from 1 to 8; what a PNG says of it only after its pixels is not heard."""
    try:
        found = Image.Image.getexif(picture).get(_ORIENTATION)  # PNG's own would decode the picture first
        return found if found in _UPRIGHT else 1
    except Exception:  # a damaged Exif block leaves the pixels sound
        return 1


def _upright_size(picture: Image.Image) -> Size:
    """Return the height and width of a whole picture once it is turned."""
    width, height = picture.size
    if isinstance(picture, TiffImagePlugin.TiffImageFile):  # whose size is the turned one in some versions of Pillow
        width, height = picture.tag_v2[IMAGEWIDTH], picture.tag_v2[IMAGELENGTH]
    return (width, height) if _orientation(picture) >= _ON_ITS_SIDE else (height, width)


def _kept(size: Size) -> Size:
    """Return the height and width of the part that is kept of a picture."""
    longest = LONGEST * min(size)
    return min(size[0], longest), min(size[1], longest)


def _shrunk(picture: Image.Image, shorter_side: int) -> Image.Image:
    """Decode the part of a picture that is kept, as RGB, shrunk; not turned, but for a TIFF, which Pillow turns."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        picture.load()
    whole = picture.height, picture.width
    kept = _kept(whole)
    target = shrunk_size(kept, shorter_side)
    if target == kept:
        return _rgb(picture) if kept == whole else _rgb(picture).crop(_central(whole, kept))
    share = min(1.0, _GAP * min(target) / min(kept))
    height, width = (math.ceil(side * share) for side in whole)
    drafted = picture.draft(None, (width, height))  # a JPEG can be decoded at a half, a quarter or an eighth
    right, bottom = drafted[1][2:] if drafted else picture.size
    box = _central((bottom, right), (bottom * kept[0] / whole[0], right * kept[1] / whole[1]))
    return _rgb(picture).resize(target[::-1], Image.Resampling.BILINEAR, box=box, reducing_gap=_GAP)


def _central(whole: tuple[float, float], part: tuple[float, float]) -> tuple[float, float, float, float]:
    """Return the left, top, right and bottom of the central part, of a height and width, of a whole."""
    top, left = ((outer - inner) // 2 for outer, inner in zip(whole, part, strict=True))
    return left, top, left + part[1], top + part[0]


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        picture = _eight_bit(picture)
    transparent = picture.mode in _ALPHA or "transparency" in picture.info
    if not transparent and not (picture.palette and picture.palette.mode.endswith("A")):
        return picture.convert("RGB")
    colour = picture.convert("RGBA")
    white = Image.new("RGB", colour.size, "white")
    white.paste(colour, mask=colour.getchannel("A"))
    return white


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Scale grey of 16 bits (of 12 in some TIFFs) to 8, where Pillow's own conversion would clip."""
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise Undecodable("its grey values do not fit into 16 bits")
    twelve = isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.tag_v2[BITSPERSAMPLE] == (12,)
    grey = Image.fromarray((values >> (4 if twelve else 8)).astype(np.uint8))
    if isinstance(key := picture.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _turned(picture: Image.Image, orientation: int) -> Pixels:
    return np.array(picture if orientation == 1 else picture.transpose(_UPRIGHT[orientation]))
