from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clvr_bench.toolbox import ResidualMLP, can_double_to, picture_decoder, picture_features, picture_generator


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [8, 10, 14, 16, 28, 32, 48, 96, 224, 256])
def test_sizes_that_are_four_to_seven_doubled_are_reached(size: int) -> None:
    assert can_double_to(size)
    if size <= 32:
        assert picture_generator(3, 2, size, 2)(draw(2, 3)).shape == (2, 2, size, size)
        trunk, features = picture_features(2, size, 2)
        assert trunk(torch.rand(2, 2, size, size)).shape == (2, features)


@pytest.mark.parametrize("size", [1, 4, 7, 9, 15, 18, 30, 36, 100])
def test_other_sizes_are_not(size: int) -> None:
    assert not can_double_to(size)


def test_channels_double_towards_the_smallest_maps_up_to_sixteen_times() -> None:
    *_, last = (layer for layer in picture_features(3, 1024, 1)[0] if isinstance(layer, nn.Conv2d))
    halving = [layer.out_channels for layer in picture_features(3, 32, 4)[0] if isinstance(layer, nn.Conv2d)]
    generator = picture_generator(3, 3, 32, 4)
    doubling = [(layer.in_channels, layer.out_channels) for layer in generator if isinstance(layer, nn.ConvTranspose2d)]
    assert last.out_channels == 16
    assert halving == [4, 8, 16, 32]
    assert doubling == [(32, 16), (16, 8), (8, 4)]


def test_generated_pictures_are_between_zero_and_one_and_tell_latents_apart() -> None:
    torch.manual_seed(0)
    pictures = picture_generator(6, 3, 16, 4)(draw(5, 6))
    assert 0 <= pictures.min() < pictures.max() <= 1
    assert pictures.std(dim=0).max() > 0.01


@pytest.mark.parametrize("doublings", [0, 1, 3])
def test_a_decoder_doubles_maps_as_often_as_told(doublings: int) -> None:
    torch.manual_seed(0)
    decoder = picture_decoder(5, 3, doublings, 4)
    pictures = decoder(draw(2, 5, 3, 3))
    assert pictures.shape == (2, 3, 3 * 2**doublings, 3 * 2**doublings)
    assert 0 <= pictures.min() < pictures.max() <= 1
    first, *doubling = (layer for layer in decoder if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d))
    assert (first.in_channels, first.out_channels) == (5, 4 * 2**doublings)
    assert doubling[-1].in_channels == 4


def test_the_trunk_sees_pictures_between_minus_one_and_one() -> None:
    trunk, _ = picture_features(3, 8, 2)
    seen: list[Tensor] = []
    trunk[1].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    images = torch.rand(2, 3, 8, 8)
    trunk(images)
    torch.testing.assert_close(seen[0], 2 * images - 1)


def test_the_trunk_tells_places_apart() -> None:
    torch.manual_seed(0)
    trunk, features = picture_features(3, 8, 2)
    image = torch.full((1, 3, 8, 8), 0.5)
    lit = image.clone()
    lit[..., :2, :2] = 1
    moved = (trunk(lit) != trunk(image)).view(4, 4, 4)
    assert features == 64
    assert moved[:, :2, :2].any()
    assert not moved[:, 2:, 2:].any()


def test_every_layer_takes_part() -> None:
    for network, inputs in (
        (picture_features(3, 16, 2)[0], torch.rand(2, 3, 16, 16)),
        (picture_generator(3, 3, 16, 2), draw(2, 3)),
        (picture_decoder(3, 3, 2, 2), draw(2, 3, 2, 2)),
    ):
        network(inputs).pow(2).sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_residual_perceptron_adds_what_its_blocks_say() -> None:
    torch.manual_seed(0)
    perceptron = ResidualMLP(3, 4, blocks=2)
    features = draw(5, 3)
    hidden = perceptron.first(features)
    for block in perceptron.blocks:
        hidden = hidden + block[3](block[1](hidden.clamp(min=0)).clamp(min=0))
    torch.testing.assert_close(perceptron(features), hidden.clamp(min=0))
