from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Encoder
from clvr_plugins.encoders.amdim import ResidualLayer, amdim_for_32, amdim_for_128, block, register_encoders


@pytest.fixture(autouse=True)
def _no_gradient() -> object:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def factories() -> dict[str, Callable[..., Encoder]]:
    """What the plugin registers, by name."""
    found: dict[str, Callable[..., Encoder]] = {}
    register_encoders(lambda name, factory, **_: found.update({name: factory}))
    return found


@pytest.fixture
def micro(factories: dict[str, Callable[..., Encoder]]) -> Encoder:
    torch.manual_seed(0)
    return factories["amdim_micro_32"]().eval()


def draw(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size", "millions", "feature_dim"),
    [("amdim_small", 128, 194.25, 1536), ("amdim_micro_32", 32, 0.48, 128)],
)
def test_parameters_and_feature_dim(
    factories: dict[str, Callable[..., Encoder]], name: str, size: int, millions: float, feature_dim: int
) -> None:
    with torch.device("meta"):
        encoder = factories[name]()
        features = encoder(torch.zeros(2, 3, size, size))
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 2) == millions
    assert features.shape == (2, feature_dim)


def test_amdim_large_has_the_parameters_that_are_reported_too() -> None:
    with torch.device("meta"):
        encoder = amdim_for_128(320, 2560, 10)
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6) == 626


@pytest.mark.parametrize(
    ("build", "size", "sides", "channels"),
    [
        (amdim_for_128, 128, [64, 62, 30, 14, 7, 5, 3, 1], [4, 4, 8, 16, 32, 32, 32, 64]),
        (amdim_for_32, 32, [30, 14, 7, 5, 3, 1], [4, 8, 16, 16, 16, 64]),
    ],
)
def test_maps_shrink_to_one_place(
    build: Callable[..., Encoder], size: int, sides: list[int], channels: list[int]
) -> None:
    maps = build(4, 64, 2).eval().feature_maps(draw(1, 3, size, size))
    assert [one.shape[2] for one in maps] == [one.shape[3] for one in maps] == sides
    assert [one.shape[1] for one in maps] == channels


@pytest.mark.parametrize(("build", "minimum"), [(amdim_for_128, 127), (amdim_for_32, 32)])
def test_no_smaller_picture_than_stated_leaves_a_place(build: Callable[..., Encoder], minimum: int) -> None:
    encoder = build(4, 8, 1).eval()
    assert encoder.minimum_size == minimum
    assert encoder(draw(1, 3, minimum, minimum)).shape == (1, 8)
    with pytest.raises(RuntimeError, match="Kernel size"):
        encoder(draw(1, 3, minimum - 1, minimum - 1))


@pytest.mark.parametrize("size", [32, 40])
def test_the_feature_is_the_mean_of_the_last_map(micro: Encoder, size: int) -> None:
    last = micro.feature_maps(draw(2, 3, size, size))[-1]
    torch.testing.assert_close(micro(draw(2, 3, size, size)), last.mean(dim=(2, 3)))


@pytest.mark.parametrize(("number", "seen"), [(3, 16), (2, 8)])
def test_a_place_of_the_5_x_5_and_the_7_x_7_map_sees_a_part_of_the_picture(
    micro: Encoder, number: int, seen: int
) -> None:
    images = draw(1, 3, 32, 32)
    for layer in micro.modules():
        if isinstance(layer, ResidualLayer):
            nn.init.ones_(layer.second.weight)
    with torch.enable_grad():
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(micro.feature_maps(images)[number][0, :, 0, 0].sum(), images)
    reached = gradient[0].abs().sum(dim=0) > 0
    assert reached[:seen, :seen].float().mean() > 0.5
    assert not reached[seen:].any()
    assert not reached[:, seen:].any()


def test_a_residual_layer_adds_to_the_mean_of_what_it_sees() -> None:
    layer, maps = ResidualLayer(2, 3, kernel=4, stride=2), draw(2, 2, 10, 10)
    nn.init.normal_(layer.second.weight)
    mean = torch.cat([F.avg_pool2d(maps, 4, 2), torch.zeros(2, 1, 4, 4)], dim=1)
    found = F.conv2d(F.conv2d(maps, layer.first.weight, stride=2).relu(), layer.second.weight)
    torch.testing.assert_close(layer(maps), mean + found)


def test_a_residual_layer_of_one_place_adds_to_its_input() -> None:
    layer, maps = ResidualLayer(3, 3), draw(2, 3, 5, 5)
    assert torch.equal(layer(maps), maps)  # at the start it adds nothing
    nn.init.normal_(layer.second.weight)
    torch.testing.assert_close(layer(maps) - maps, layer.second(layer.first(maps).relu()))


def test_fewer_channels_are_made_by_a_convolution() -> None:
    layer, maps = ResidualLayer(3, 2, kernel=3), draw(2, 3, 5, 5)
    assert layer.shorter is not None
    torch.testing.assert_close(layer(maps), layer.shorter(maps))


def test_a_block_sees_more_than_one_place_in_its_first_layer_alone() -> None:
    kernels = [layer.first.kernel_size for layer in block(4, 8, kernel=4, stride=2, depth=3)]
    assert kernels == [(4, 4), (1, 1), (1, 1)]


def test_only_the_feature_is_normalized(micro: Encoder) -> None:
    norms = [name for name, module in micro.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == ["stages.5.1"]


def test_grey_pictures(factories: dict[str, Callable[..., Encoder]]) -> None:
    encoder = factories["amdim_micro_32"](in_channels=1).eval()
    assert encoder.mean.flatten().tolist() == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    assert encoder(draw(2, 1, 32, 32)).shape == (2, 128)
