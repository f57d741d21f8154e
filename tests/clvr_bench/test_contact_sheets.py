from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clvr_bench.contact_sheets import ACROSS, GAP, LARGEST_SIDE, MARGIN, PANEL_GAP, lay_out, resized
from clvr_bench.pages import Page, Rgb, Text, text_width
from clvr_bench.previews import Panel, Picture, Row, Sheet

Box = tuple[float, float, float, float]
WORDS = st.text("abWi_, $", max_size=40)


def noise(height: int, width: int = 0, channels: int = 3) -> Tensor:
    return torch.rand(channels, height, width or height, generator=torch.Generator().manual_seed(height))


def run(label: str, *sides: int) -> Panel:
    return tuple(Picture(label, noise(side)) for side in sides)


def head(*pictures: Tensor) -> Row:
    return Row("data", "views", tuple(((Picture(f"image {n}", p),),) for n, p in enumerate(pictures)))


def sheet_of(*rows: Row, size: int = 32, samples: int = 1) -> Sheet:
    return Sheet(head(*[noise(size)] * samples), rows, size)


def row_of(*panels: Panel, title: str = "title", detail: str = "", samples: int = 1) -> Row:
    return Row(title, detail, (panels,) * samples)


def box_of(text: Text) -> Box:
    width = text_width(text.words, text.style)
    left = text.x if text.anchor == "left" else text.x - width / 2
    return left, text.y - text.style.line / 2, left + width, text.y + text.style.line / 2


def boxes(page: Page) -> list[Box]:
    pictures = [(p.left, p.top, p.left + p.pixels.shape[1], p.top + p.pixels.shape[0]) for p in page.pictures]
    return [*pictures, *map(box_of, page.texts)]


def require_in_order(page: Page) -> None:
    """Everything lies on the page, nothing on another thing, and no rule runs through anything."""
    found = boxes(page)
    for left, top, right, bottom in found:
        assert left >= MARGIN - 1
        assert top >= MARGIN - 1
        assert right <= page.width - MARGIN + 1
        assert bottom <= page.height - MARGIN + 1
        assert not any(top < rule < bottom for rule in page.rules)
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, f"{one} lies on {other}"


def sides(page: Page, beyond: int = 1) -> list[tuple[int, ...]]:
    """The shapes of pictures below the head."""
    return [picture.pixels.shape[:2] for picture in page.pictures[beyond:]]


@pytest.mark.parametrize(
    ("size", "shown"), [(8, 192), (16, 192), (28, 196), (32, 192), (96, 192), (128, 256), (224, 224), (256, 256)]
)
def test_views_are_enlarged_by_whole_factors_to_a_legible_size(size: int, shown: int) -> None:
    page = lay_out(sheet_of(row_of(run("", size)), size=size))
    assert sides(page) == [(shown, shown)]
    pixels = (255 * noise(size)).round().byte().permute(1, 2, 0).numpy()
    factor = shown // size
    assert np.array_equal(page.pictures[1].pixels, pixels.repeat(factor, 0).repeat(factor, 1))


def test_large_views_are_shrunk_and_keep_their_proportions() -> None:
    page = lay_out(sheet_of(row_of(run("global", 512), run("local", 128)), size=512))
    assert sides(page) == [(LARGEST_SIDE, LARGEST_SIDE), (LARGEST_SIDE // 4, LARGEST_SIDE // 4)]


def test_views_of_several_sizes_are_drawn_at_one_scale_and_small_ones_stacked() -> None:
    page = lay_out(sheet_of(row_of(run("global, 32 px", 32, 32), run("local, 12 px", *[12] * 6))))
    assert sides(page) == [(192, 192)] * 2 + [(72, 72)] * 6
    local = page.pictures[3:]
    assert len({picture.top for picture in local}) == 2
    assert len({picture.left for picture in local}) == 3
    assert {picture.top + picture.pixels.shape[0] for picture in page.pictures[1:]} >= {local[-1].top + 72}
    require_in_order(page)


def test_neighbours_of_one_label_share_it() -> None:
    page = lay_out(sheet_of(row_of(run("global", 32, 32), run("first", 32) + run("second", 32))))
    labels = [text.words for text in page.texts if text.anchor == "center"]
    assert labels == ["image 0", "global", "first", "second"]
    (of_both,) = [text for text in page.texts if text.words == "global"]
    first, second = page.pictures[1:3]
    assert of_both.x == (first.left + second.left + 192) / 2
    assert of_both.y > first.top + 192


def test_panels_stand_further_apart_than_their_pictures() -> None:
    page = lay_out(sheet_of(row_of(run("", 32, 32), run("", 32, 32))))
    lefts = [picture.left for picture in page.pictures[1:]]
    assert [b - a - 192 for a, b in pairwise(lefts)] == [GAP, PANEL_GAP, GAP]


def test_what_does_not_fit_side_by_side_goes_on_below() -> None:
    labelled = tuple(Picture(f"{number}", noise(32)) for number in range(6))
    page = lay_out(sheet_of(row_of(labelled), row_of(run("", *[32] * 9))))
    tops = [picture.top for picture in page.pictures[1:]]
    assert [tops.count(top) for top in sorted(set(tops))] == [ACROSS, 2, 3, 3, 3]
    require_in_order(page)


def test_a_picture_wider_than_a_cell_is_shrunk_to_it() -> None:
    page = lay_out(sheet_of(row_of((Picture("", noise(32, 400)), Picture("x", noise(3000, 32))))))
    assert all(max(shape) <= ACROSS * 192 + 3 * PANEL_GAP for shape in sides(page))
    require_in_order(page)


def test_the_heads_pictures_keep_their_shape_and_are_at_most_as_high_as_a_view() -> None:
    page = lay_out(Sheet(head(noise(40, 60), noise(900, 600), noise(32, channels=1)), (), 32))
    shapes = [picture.pixels.shape for picture in page.pictures]
    assert shapes == [(160, 240, 3), (192, 128, 3), (192, 192, 3)]
    require_in_order(page)


def test_each_sample_has_a_column_and_each_row_its_title_beside_it() -> None:
    rows = [row_of(run("", 32, 32, 32), title=title, samples=2) for title in ("crop", "rotate")]
    page = lay_out(sheet_of(*rows, samples=2))
    starts = sorted({picture.left for picture in page.pictures})
    first, second = page.pictures[:2]
    assert (first.left, second.left) == (starts[0], starts[3])
    for row, title in enumerate(("crop", "rotate")):
        (text,) = [text for text in page.texts if text.words == title]
        picture = page.pictures[2 + 6 * row]
        assert picture.top < text.y < picture.top + 192
    assert len(page.rules) == 2
    require_in_order(page)


def test_long_titles_and_details_are_wrapped_beside_their_pictures() -> None:
    detail = ", ".join(f"option_{number}=0.12345" for number in range(20))
    page = lay_out(sheet_of(row_of(run("", 32), title="a_name_longer_than_any_column_is_wide + other", detail=detail)))
    require_in_order(page)
    assert "".join("".join(t.words for t in page.texts if t.anchor == "left").split()).endswith("".join(detail.split()))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([8, 20, 32, 96, 224, 300]),
    st.lists(st.lists(st.tuples(WORDS, st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=3), max_size=3),
    WORDS,
    WORDS,
    st.integers(1, 3),
)
def test_nothing_lies_on_anything_else(
    size: int, rows: list[list[tuple[str, int, int]]], title: str, detail: str, samples: int
) -> None:
    made = [
        row_of(
            *(run(label, *[max(1, size // part)] * count) for label, part, count in panels),
            title=title,
            detail=detail,
            samples=samples,
        )
        for panels in rows
    ]
    page = lay_out(sheet_of(*made, size=size, samples=samples))
    require_in_order(page)
    painted = page.painted()
    for picture in page.pictures:
        height, width = picture.pixels.shape[:2]
        place = painted[picture.top : picture.top + height, picture.left : picture.left + width]
        assert np.array_equal(place, picture.pixels)


@pytest.mark.parametrize(("factor", "shape"), [(1.0, (4, 6)), (2.9, (8, 12)), (0.5, (2, 3)), (0.01, (1, 1))])
def test_pictures_grow_by_whole_factors_and_shrink_by_averaging(factor: float, shape: tuple[int, int]) -> None:
    assert resized(noise(4, 6), factor).shape == (*shape, 3)


def test_shrinking_averages_and_grays_have_three_equal_channels() -> None:
    checkered = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None].repeat(1, 4, 4)
    shrunk: Rgb = resized(checkered, 0.5)
    assert (shrunk == 128).all()
    assert resized(checkered, 1.0)[0, :2].tolist() == [[0] * 3, [255] * 3]
