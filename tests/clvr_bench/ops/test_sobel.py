from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from clvr_bench.ops.sobel import edge_strength, sobel


@pytest.mark.parametrize("channels", [1, 3])
def test_edges_are_scipys(channels: int) -> None:
    images = torch.rand(2, channels, 6, 7, generator=torch.Generator().manual_seed(0))
    edges = sobel(images)
    assert edges.shape == (2, 2, 6, 7)
    for picture, found in zip(images.mean(dim=1), edges, strict=True):
        for axis, kernel in ((1, 0), (0, 1)):
            expected = -ndimage.sobel(picture.double().numpy(), axis=axis, mode="constant")  # it takes right minus left
            torch.testing.assert_close(found[kernel].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_a_bright_left_half_has_an_edge_across_alone() -> None:
    images = torch.zeros(1, 3, 6, 6)
    images[..., :3] = 1
    inside = sobel(images)[0, :, 1:-1, 1:-1]
    assert inside[0].unique().tolist() == [0.0, 4.0]
    assert not inside[1].any()


def test_colours_of_one_brightness_have_no_edge() -> None:
    images = torch.zeros(1, 3, 6, 6)
    images[:, 0, :, :3] = images[:, 1, :, 3:] = 1
    assert sobel(images)[..., 1:-1, 1:-1].abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (2, 4, 1, 6, 7)])
def test_the_strength_of_edges_is_scipys(shape: tuple[int, ...]) -> None:
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    planes = pixels.double().numpy().reshape(-1, 6, 7)
    for plane, found in zip(planes, edge_strength(pixels).view(-1, 6, 7), strict=True):
        down, right = (torch.from_numpy(ndimage.sobel(plane, axis=axis, mode="nearest")) for axis in (0, 1))
        expected = (torch.hypot(down, right) / 4).clamp(max=1)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_a_step_from_black_to_white_is_a_full_edge_and_even_ground_none() -> None:
    images = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)
    images[..., :3] = 255
    strength = edge_strength(images)
    assert torch.equal(strength[..., 2:4], torch.ones(1, 3, 6, 2))
    assert not strength[..., [0, 5]].any()
