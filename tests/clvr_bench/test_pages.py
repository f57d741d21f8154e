from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clvr_bench.pages import FRAME, PAPER, RULE, FileType, Page, Placed, Rgb, Style, Text, drawn, text_width, wrapped

PLAIN, BOLD = Style(7, "#000000"), Style(9, "#000000", "bold")


def picture(height: int, width: int) -> Rgb:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def decoded(page: Page) -> Rgb:
    with Image.open(io.BytesIO(drawn(page, "png"))) as image:
        return np.asarray(image.convert("RGB"))


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 2500), st.integers(40, 900))
def test_a_png_is_the_painted_page_to_the_pixel(width: int, height: int) -> None:
    page = Page(width, 5, height, [Placed(7, 9, picture(20, 30))], rules=[3])
    assert np.array_equal(decoded(page), page.painted())


def test_a_page_has_its_pictures_in_frames_and_rules_within_its_margins() -> None:
    pixels = picture(4, 6)
    painted = Page(30, 5, 20, [Placed(10, 8, pixels)], rules=[3]).painted()
    assert np.array_equal(painted[8:12, 10:16], pixels)
    assert (painted[7, 9:17] == FRAME).all()
    assert (painted[7:13, 16] == FRAME).all()
    assert (painted[2:4, 5:25] == RULE).all()
    assert (painted[2:4, :5] == PAPER).all()
    assert (painted[14:] == PAPER).all()


@pytest.mark.parametrize("style", [PLAIN, BOLD])
@pytest.mark.parametrize("words", ["gaussian_blur", "cost: $5, $6", "90°", "Wg, image 3999"])
def test_a_text_fills_the_width_that_is_measured(words: str, style: Style) -> None:
    height = 4 * style.line
    for anchor, x in (("left", 100), ("center", 400)):
        text = Text(x, 2 * style.line, words, style, anchor)  # type: ignore[arg-type]  # both are anchors
        rows, columns = (decoded(Page(800, 5, height, texts=[text])) < 128).all(axis=2).nonzero()
        width = text_width(words, style)
        left = x if anchor == "left" else x - width / 2
        assert columns.min() == pytest.approx(left, abs=5)  # a letter has space around it
        assert columns.max() == pytest.approx(left + width, abs=5)
        assert abs(rows.min() + rows.max() - 2 * height / 2) < style.line / 2
        assert rows.max() - rows.min() < style.line


@pytest.mark.parametrize(("file_type", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_page_gives_the_same_bytes_of_its_type(file_type: FileType, start: bytes) -> None:
    page = Page(300, 5, 100, [Placed(7, 9, picture(20, 30))], [Text(100, 50, "local, 12 px", PLAIN)], [3])
    content = drawn(page, file_type)
    assert content.startswith(start)
    assert drawn(page, file_type) == content


def test_text_stays_text_in_an_svg() -> None:
    page = Page(300, 5, 100, texts=[Text(100, 50, "first $view", PLAIN)])
    assert b">first $view<" in drawn(page, "svg")


def test_a_users_settings_neither_change_a_page_nor_are_changed() -> None:
    page = Page(300, 5, 100, [Placed(7, 9, picture(20, 30))], [Text(100, 50, "simclr", BOLD)])
    usual = drawn(page, "png")
    with mpl.rc_context({"savefig.bbox": "tight", "font.family": "monospace", "image.interpolation": "bilinear"}):
        before = dict(mpl.rcParams)
        assert drawn(page, "png") == usual
        assert dict(mpl.rcParams) == before


@settings(max_examples=50, deadline=None)
@given(st.text("ab_ W", max_size=60), st.floats(20, 400))
def test_wrapped_lines_fit_and_keep_every_character(text: str, width: float) -> None:
    lines = wrapped(text, PLAIN, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(text_width(line, PLAIN) <= width or len(line) == 1 for line in lines)
    assert all(line == line.strip() != "" for line in lines)


def test_lines_are_broken_at_spaces_and_words_only_where_they_must() -> None:
    room = text_width("crop + gaussian", PLAIN) + 1
    assert wrapped("crop + gaussian noise", PLAIN, room) == ["crop + gaussian", "noise"]
    assert wrapped("a name_of_many_parts_indeed=3", PLAIN, room) == ["a", "name_of_many_", "parts_indeed=3"]
    assert wrapped("a averyverylongnameindeed", PLAIN, room)[0] == "a"
    assert wrapped("", PLAIN, room) == []
