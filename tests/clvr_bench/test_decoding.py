from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clvr_bench.decoding import MOST_PIXELS, Undecodable, decode, decoded_size

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("L", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
    "PPM": ("1", "L", "RGB"),
    "GIF": ("L", "P", "RGB"),
}
EVERY = [(name, mode) for name, modes in MODES.items() for mode in modes]
BACK = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_90",
    7: "TRANSVERSE",
    8: "ROTATE_270",
}
"""How a camera stores an upright picture, by the orientation that its Exif then says."""
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def noise(height: int = 37, width: int = 91, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def smooth(height: int, width: int) -> Image.Image:
    """A picture whose shrunk versions hardly depend on the filter."""
    return noise(4, 5).resize((width, height), Image.Resampling.BICUBIC)


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def refused(content: bytes, reason: str) -> None:
    for read in (decode, decoded_size):
        with pytest.raises(Undecodable, match=reason) as caught:
            read(content, 0)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) <= 150


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(("name", "mode"), EVERY)
@pytest.mark.parametrize("shorter_side", [0, 1, 16, 37, 64])
def test_every_format_and_mode_becomes_rgb_of_the_size_that_the_header_says(
    name: str, mode: str, shorter_side: int
) -> None:
    content = encoded(in_mode(noise(), mode), name)
    pixels = decode(content, shorter_side)
    assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)
    assert pixels.shape[:2] == decoded_size(content, shorter_side)
    assert min(pixels.shape[:2]) == min(37, shorter_side or 37)


@pytest.mark.parametrize(("name", "mode"), [pair for pair in EVERY if pair[1] not in ("1", "LA", "RGBA")])
def test_pixels_are_those_of_the_picture(name: str, mode: str) -> None:
    image = in_mode(smooth(37, 91), mode)
    if name == "GIF":
        image = image.convert("P")
    expected = np.asarray((image if mode != "I;16" else smooth(37, 91).convert("L")).convert("RGB"))
    tolerance = 40 if name in ("JPEG", "WEBP") else 0
    assert np.abs(decode(encoded(image, name), 0).astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "1", "I;16"])
def test_grey_becomes_three_equal_channels(mode: str) -> None:
    pixels = decode(encoded(in_mode(noise(), mode), "PNG"), 0)
    assert (pixels == pixels[..., :1]).all()
    assert pixels.max() - pixels.min() > 200


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(name: str, kind: str) -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    pixels = decode(encoded(Image.fromarray(ramp.astype(kind)), name), 0)
    assert pixels[..., 0].tolist() == (ramp >> 8).tolist()


def test_16_bit_pgm_is_scaled() -> None:
    ramp = np.linspace(0, 65535, 64, dtype=">u2").reshape(8, 8)
    assert decode(b"P5 8 8 65535\n" + ramp.tobytes(), 0)[..., 1].tolist() == (ramp.astype(int) >> 8).tolist()


def test_12_bit_tiff_is_scaled_from_12_bits() -> None:
    values = [0, 0x0FF, 0x800, 0xFFF]
    packed = bytes([0x00, 0x00, 0xFF, 0x80, 0x0F, 0xFF])  # two values in three bytes, the first one's bits first
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert decode(content, 0)[0, :, 0].tolist() == [value >> 4 for value in values]


def test_32_bit_grey_is_refused_not_clipped() -> None:
    content = encoded(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF")
    with pytest.raises(Undecodable, match=r"^its grey values do not fit into 16 bits$"):
        decode(content, 0)


@pytest.mark.parametrize("name", ["TIFF", "PPM"])
def test_floating_point_pixels_are_refused(name: str) -> None:
    refused(encoded(Image.fromarray(np.ones((4, 4), np.float32)), name), "floating-point numbers")


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_white_shows_through_where_a_picture_is_transparent(name: str, mode: str) -> None:
    image = Image.new("RGB", (4, 2), (100, 100, 100)).convert(mode)
    alpha = np.array([[0, 255, 128, 51]] * 2, np.uint8)
    image.putalpha(Image.fromarray(alpha))
    pixels = decode(encoded(image, name), 0)
    expected = [255, 100, round(255 + (100 - 255) * 128 / 255), 224]
    assert pixels[0, :, 0].tolist() == expected
    assert pixels[0, :, 2].tolist() == expected


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    for transparency in (1, bytes([255, 0, 255])):
        pixels = decode(encoded(image, "PNG", transparency=transparency), 0)
        assert [tuple(pixel) for pixel in pixels[0].tolist()] == [RED, WHITE, BLUE]


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7)), ("I;16", 7 * 257)])
def test_a_transparent_colour_is_white(mode: str, key: object) -> None:
    image = Image.new("RGB", (2, 1), (7, 7, 7))
    image.putpixel((1, 0), (9, 9, 9))
    pixels = decode(encoded(in_mode(image, mode), "PNG", transparency=key), 0)
    assert pixels[0, :, 0].tolist() == [255, 9]


def test_of_a_gif_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, BLUE)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content, 0)[0, 0].tolist() == list(RED)


def test_of_a_stereo_jpeg_the_first_picture_is_taken() -> None:
    content = encoded(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
    assert (decode(content, 0) == decode(encoded(noise(), "JPEG"), 0)).all()
    assert decode(content, 16).shape[:2] == decoded_size(content, 16) == (16, 39)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("shorter_side", [0, 8])
def test_a_picture_is_turned_as_its_exif_says(name: str, orientation: int, shorter_side: int) -> None:
    upright = Image.new("RGB", (48, 32), RED)
    upright.paste(GREEN, (0, 0, 24, 16))
    upright.paste(BLUE, (24, 16, 48, 32))
    stored = upright.transpose(Image.Transpose[BACK[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, name, exif=exif)
    pixels = decode(content, shorter_side)
    assert pixels.shape[:2] == decoded_size(content, shorter_side) == ((8, 12) if shorter_side else (32, 48))
    height, width = pixels.shape[:2]
    corners = [pixels[height // 4, width // 4], pixels[height // 4, -width // 4], pixels[-height // 4, -width // 4]]
    for corner, colour in zip(corners, (GREEN, RED, BLUE), strict=True):
        assert np.abs(corner.astype(int) - colour).max() < 40


def test_a_damaged_exif_block_is_passed_over() -> None:
    content = encoded(noise(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\x05junk")
    assert decode(content, 0).shape == (37, 91, 3)


@pytest.mark.parametrize(
    ("size", "shrunk"),
    [((12, 30), (6, 15)), ((30, 12), (15, 6)), ((12, 12), (6, 6)), ((6, 40), (6, 40)), ((5, 9), (5, 9))],
)
def test_the_shorter_side_is_shrunk_and_never_enlarged(size: tuple[int, int], shrunk: tuple[int, int]) -> None:
    assert decode(encoded(noise(*size), "PNG"), 6).shape[:2] == shrunk


@pytest.mark.parametrize(("height", "width"), [(375, 500), (501, 333), (1001, 1499)])
@pytest.mark.parametrize("shorter_side", [32, 64, 100, 224])
def test_a_jpeg_decoded_small_looks_like_one_that_is_shrunk_afterwards(
    height: int, width: int, shorter_side: int
) -> None:
    content = encoded(smooth(height, width), "JPEG", quality=95)
    found = decode(content, shorter_side)
    whole = Image.open(BytesIO(content)).resize(found.shape[1::-1], Image.Resampling.BILINEAR)
    assert np.abs(found.astype(int) - np.asarray(whole)).mean() < 1
    assert np.abs(found.astype(int) - np.asarray(whole)).max() <= 12


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
@pytest.mark.parametrize("shorter_side", [0, 4])
def test_of_a_panorama_the_centre_is_kept(name: str, shorter_side: int) -> None:
    wide = Image.new("RGB", (400, 16), RED)
    wide.paste(BLUE, (136, 0, 264, 16))  # the central 8 x 16
    for image in (wide, wide.transpose(Image.Transpose.ROTATE_90)):
        content = encoded(image, name)
        pixels = decode(content, shorter_side)
        assert sorted(pixels.shape[:2]) == ([4, 32] if shorter_side else [16, 128])
        assert pixels.shape[:2] == decoded_size(content, shorter_side)
        assert np.abs(pixels[1:-1, 1:-1].astype(int) - BLUE).max() < 40


def test_a_turned_panorama_is_cut_along_its_length() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(noise(16, 400), "JPEG", exif=exif)
    assert decode(content, 0).shape[:2] == decoded_size(content, 0) == (128, 16)


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_too_many_pixels_are_refused_before_they_are_decoded(side: int) -> None:
    refused(png_header(side, side), rf"^it has more than the {MOST_PIXELS:,} pixels")


def test_pillows_own_limit_may_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    refused(png_header(10_000, 10_000), rf"^it has more than the {MOST_PIXELS:,} pixels")


def test_as_many_pixels_as_are_decoded_are_not_refused_for_their_number() -> None:
    assert decoded_size(png_header(8192, MOST_PIXELS // 8192), 0) == (10922, 8192)


@pytest.mark.parametrize("content", [b"no picture at all", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" * 9])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    refused(content, r"^it is no picture of a known format: JPEG, PNG, ")


def test_an_empty_file_is_refused() -> None:
    refused(b"", "^it is empty$")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_off_file_is_undecodable_and_nothing_else(name: str, share: float) -> None:
    content = encoded(noise(), name)
    with pytest.raises(Undecodable) as caught:
        decode(content[: int(share * len(content))], 0)
    assert str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes_are_undecodable_or_decoded_but_nothing_else(name: str) -> None:
    random = np.random.default_rng(0)
    content = np.frombuffer(encoded(noise(), name), np.uint8)
    for _ in range(40):
        damaged = content.copy()
        damaged[random.integers(len(content), size=8)] = random.integers(256, size=8)
        with suppress(Undecodable):
            size = decoded_size(damaged.tobytes(), 16)
            assert decode(damaged.tobytes(), 16).shape[:2] == size


def test_decoding_needs_no_torch() -> None:
    program = "import sys, clvr_bench.decoding; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
