from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.models.utils import patchify as lightly_patchify
from torch import Tensor

from clvr_bench.toolbox import cut_pieces, enlarged_side, patch_grid, patchify, resized, tiled


def pictures(count: int = 2, size: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_patches_come_row_by_row_and_overlap_by_half() -> None:
    images = pictures()
    patches = patch_grid(images, 8, 7)
    assert patches.shape == (2, 49, 3, 8, 8)
    for row in range(7):
        for column in range(7):
            expected = images[:, :, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8]
            assert torch.equal(patches[:, 7 * row + column], expected)


def test_patches_that_tile_a_picture_are_its_tiles() -> None:
    image = torch.arange(36.0).view(1, 1, 6, 6)
    assert patch_grid(image, 3, 2)[0, :, 0].tolist() == [
        [[0, 1, 2], [6, 7, 8], [12, 13, 14]],
        [[3, 4, 5], [9, 10, 11], [15, 16, 17]],
        [[18, 19, 20], [24, 25, 26], [30, 31, 32]],
        [[21, 22, 23], [27, 28, 29], [33, 34, 35]],
    ]


def test_rows_and_columns_of_an_oblong_picture_are_spaced_apart() -> None:
    image = torch.arange(4 * 8.0).view(1, 1, 4, 8)
    assert patch_grid(image, 2, 2)[0, :, 0, 0, 0].tolist() == [0, 6, 16, 22]


@settings(deadline=None, max_examples=50)
@given(side=st.integers(8, 70))
def test_a_quarter_wide_patches_two_apart_on_seven_never_share_a_pixel(side: int) -> None:
    size = side // 4
    rows = torch.arange(side).float().view(1, 1, side, 1).expand(1, 1, side, side)
    tops = patch_grid(rows, size, 7).view(7, 7, size, size)[:, 0, 0, 0]
    assert (tops[2:] - tops[:-2] >= size).all()
    assert (tops[0], tops[-1]) == (0, side - size)


@pytest.mark.parametrize(("size", "grid"), [(33, 2), (0, 2), (8, 1)])
def test_a_grid_that_does_not_exist_is_refused(size: int, grid: int) -> None:
    with pytest.raises(ValueError, match=f"patch_grid: 32 x 32 pixels have no {grid} x {grid} grid of {size} px"):
        patch_grid(pictures(), size, grid)


def test_pieces_are_cut_at_their_own_corners() -> None:
    patches = pictures(count=6, size=8).view(2, 3, 3, 8, 8)
    corners = torch.tensor([[[0, 0], [3, 1], [2, 3]], [[1, 0], [0, 3], [3, 3]]])
    pieces = cut_pieces(patches, 5, corners)
    assert pieces.shape == (2, 3, 3, 5, 5)
    for sample in range(2):
        for patch in range(3):
            top, left = corners[sample, patch].tolist()
            assert torch.equal(pieces[sample, patch], patches[sample, patch, :, top : top + 5, left : left + 5])


def test_a_piece_as_large_as_its_patch_is_the_patch() -> None:
    patches = patch_grid(pictures(), 8, 3)
    assert torch.equal(cut_pieces(patches, 8, torch.zeros(2, 9, 2).long()), patches)


@pytest.mark.parametrize("size", [4, 8, 16])
def test_patchify_is_lightlys(size: int) -> None:
    assert torch.equal(patchify(pictures(), size), lightly_patchify(pictures(), size))


def test_patchify_takes_oblong_pictures() -> None:
    image = torch.arange(8.0).view(1, 1, 2, 4)
    assert patchify(image, 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]]]


def test_pixels_that_are_left_over_are_refused() -> None:
    with pytest.raises(ValueError, match="patchify: 32 x 32 pixels cannot be cut into patches of 5 px"):
        patchify(pictures(), 5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_a_grid_drawn_apart_holds_every_patch_in_its_place(grid: int, size: int, gap: int) -> None:
    patches = torch.rand(2, grid * grid, 3, size, size, generator=torch.Generator().manual_seed(0))
    drawn = tiled(patches, gap, fill=2.0)
    side = grid * size + (grid - 1) * gap
    assert drawn.shape == (2, 3, side, side)
    for number in range(grid * grid):
        top, left = (place * (size + gap) for place in divmod(number, grid))
        assert torch.equal(drawn[:, :, top : top + size, left : left + size], patches[:, number])
    assert (drawn == 2.0).sum() == drawn.numel() - patches.numel()


def test_drawn_without_a_gap_a_cut_is_undone() -> None:
    images = pictures(size=12)
    assert torch.equal(tiled(patch_grid(images, 4, 3)), images)


def test_patches_that_make_no_square_are_refused() -> None:
    with pytest.raises(ValueError, match="tiled: 6 patches make no square grid"):
        tiled(torch.zeros(1, 6, 3, 4, 4))


@pytest.mark.parametrize(
    ("side", "times", "multiple", "expected"),
    [(8, 1.0, 1, 8), (7, 2.0, 1, 14), (8, 1.3, 4, 12), (8, 2.0, 4, 16), (3, 1.0, 4, 4)],
)
def test_an_enlarged_side_is_the_next_multiple(side: int, times: float, multiple: int, expected: int) -> None:
    assert enlarged_side(side, times, multiple) == expected


def test_each_patch_is_resized_on_its_own_and_keeps_its_place() -> None:
    patches = torch.rand(2, 3, 1, 4, 4)
    assert resized(patches, 4) is patches
    made = resized(patches, 8)
    assert made.shape == (2, 3, 1, 8, 8)
    for place in ((0, 2), (1, 0)):
        alone = torch.nn.functional.interpolate(patches[place][None], size=8, mode="bilinear")[0]
        torch.testing.assert_close(made[place], alone)
